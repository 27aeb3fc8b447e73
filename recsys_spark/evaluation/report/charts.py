"""Geometry of the report's pictures: from numbers to coordinates, which the templates draw as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.gate import oriented

WIDTH, HEIGHT = 640, 260  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 64, 40, 14, 40  # what labels take of it
_DOTS = 60


@dataclass(frozen=True)
class Scale:
    """A linear map of low..high to start..end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return where a value stands; the middle where there is but one value.

        >>> Scale(0, 10, 100, 200)(5)
        150.0
        """
        share = 0.5 if self.high == self.low else (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name, its points as SVG writes them, and the same as (x, y, what it says)."""

    name: str
    points: str
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Lines:
    """A chart of lines."""

    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Bar:
    """A bar of a group: which series, where, and what it says."""

    series: int
    x: float
    width: float
    top: float
    height: float
    says: str


@dataclass(frozen=True)
class Bars:
    """A chart of groups of bars."""

    groups: tuple[Tick, ...]
    y: tuple[Tick, ...]
    names: tuple[str, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Whisker:
    """An interval drawn on 0..100, with 0 of the difference at 50; cut where it leaves the picture."""

    low: float
    middle: float
    high: float
    cut_low: bool
    cut_high: bool
    kind: str


def ticks(low: float, high: float, n: int = 4) -> list[float]:
    """Return about n round numbers that span low..high.

    >>> ticks(0.0, 0.87)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        return [low]
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda each: abs(math.log(each / raw)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def number(value: float) -> str:
    """Return a number short enough for an axis or a cell.

    >>> number(0.05512), number(1234567.0), number(0.0), number(12.3456)
    ('0.0551', '1,234,567', '0', '12.35')
    """
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 4 if abs(value) < 1 else 2
    return f"{value:.{digits}f}"


def lines(series: Mapping[str, Sequence[tuple[float, float]]], zero: bool = False, labels: Sequence[str] = ()) -> Lines:
    """Return a chart of named points (x, y); with `zero` the y axis begins there.

    labels: what x = 0, 1, 2, … are called, of which a few stand on the axis. Long lines have no dots.
    """
    points = [point for each in series.values() for point in each]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    marks = ticks(0.0 if zero else min(ys), max(ys))
    across = Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = Scale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP)
    drawn = []
    for name, each in series.items():
        dots = tuple((across(x), up(y), f"{name}: {number(y)} at {x:g}") for x, y in each)
        drawn.append(Line(name, " ".join(f"{x},{y}" for x, y, _ in dots), dots if len(dots) <= _DOTS else ()))
    named = sorted(set(xs)) if len(set(xs)) <= 8 else [x for x in ticks(min(xs), max(xs), 6) if min(xs) <= x <= max(xs)]
    if labels:
        named = [float(round(at * (len(labels) - 1) / 4)) for at in range(5)]
    return Lines(
        tuple(Tick(across(x), labels[int(x)] if labels else f"{x:g}") for x in named),
        tuple(Tick(up(y), _label(y)) for y in marks),
        tuple(drawn),
    )


def bars(groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> Bars:
    """Return a chart of shares in groups: a bar a series and group."""
    marks = ticks(0.0, max(0.01, *(value for values in series.values() for value in values)))
    up = Scale(0.0, marks[-1], HEIGHT - BOTTOM, TOP)
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = room * 0.84 / len(series)
    drawn = [
        Bar(
            number_of,
            round(LEFT + group * room + room * 0.08 + number_of * width, 2),
            round(width * 0.92, 2),
            up(value),
            round(up(0.0) - up(value), 2),
            f"{name}, {groups[group]}: {value:.1%}",
        )
        for number_of, (name, values) in enumerate(series.items())
        for group, value in enumerate(values)
    ]
    return Bars(
        tuple(Tick(round(LEFT + (at + 0.5) * room, 2), name) for at, name in enumerate(groups)),
        tuple(Tick(up(mark), f"{mark:.0%}") for mark in marks),
        tuple(series),
        tuple(drawn),
    )


def extent(effects: Sequence[Effect], first: Effect | None) -> float:
    """Return the change, as a share of the champion's mean, that is drawn at the edge of the intervals' picture.

    The widest interval of the effects fits, unless it reaches more than three times as far as that of the first. Never
    less than 1 %.
    """
    reach = max((_reach(effect) for effect in effects), default=0.0)
    most = 3 * _reach(first) if first and _reach(first) else reach
    return max(0.01, 1.1 * min(reach, most))


def _reach(effect: Effect) -> float:
    return max(abs(effect.low), abs(effect.high)) / abs(effect.champion) if effect.champion else 0.0


def whisker(effect: Effect, edge: float) -> Whisker | None:
    """Return an effect's interval, relative to the champion's mean, on a picture whose edges are ∓ edge.

    None where the champion's mean is 0. kind: whether the whole interval is `better`, `worse`, or neither (`open`).
    """
    if effect.champion == 0:
        return None
    low, middle, high = (value / abs(effect.champion) for value in (effect.low, effect.difference, effect.high))
    across = Scale(-edge, edge, 0, 100)
    _, least, most = oriented(effect)
    kind = "better" if least > 0 else "worse" if most < 0 else "open"

    def placed(value: float) -> float:
        return across(min(max(value, -edge), edge))

    return Whisker(placed(low), placed(middle), placed(high), low < -edge, high > edge, kind)


def _label(value: float) -> str:
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
