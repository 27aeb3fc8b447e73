"""The pictures of differences: intervals, and whether a change is a gain, a loss, or may be either."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.gate import less_is_better, level_of, oriented
from recsys_spark.evaluation.report.content import Moment
from recsys_spark.evaluation.report.drawing import ALIKE, HALF, MOMENTS, Picture, Spec, drawn, picture
from recsys_spark.evaluation.report.numbers import number, percent, signed

_ROW = 30  # of a picture with a row for each thing, CSS pixels
_CELL = (188, 24)
_SIDES: Spec = {"left": 6, "right": 6, "top": 0, "bottom": 0}  # so that marks at the edges are whole
_COLOURS = {"better": "var(--good)", "worse": "var(--bad)", "open": "var(--quiet)"}
_SHAPES = {"better": "triangle-up", "worse": "triangle-down", "open": "circle"}


@dataclass(frozen=True)
class Relative:
    """An effect as shares of the mean before. kind: it is shown to be `better` or `worse`, or it is `open`."""

    low: float
    middle: float
    high: float
    kind: str


def relative(effect: Effect, level: float = 1.0, *, alone: bool = False) -> Relative | None:
    """Return an effect as shares of the mean before; None where that is 0.

    It is shown to be better or worse if the whole interval is and its p, adjusted by Holm, is not above the level;
    alone: its own p, as the gate asks of the primary metric.
    """
    if effect.champion == 0:
        return None
    _, least, most = oriented(effect)
    shown = (effect.p if alone else effect.p_adjusted) <= level
    kind = "better" if shown and least > 0 else "worse" if shown and most < 0 else "open"
    base = abs(effect.champion)
    return Relative(effect.low / base, effect.difference / base, effect.high / base, kind)


def extent(effects: Sequence[Effect], first: Effect | None) -> float:
    """Return the change, as a share of the mean before, that is drawn at the edge of the intervals' pictures.

    The widest interval of the effects fits, unless it reaches more than three times as far as that of the first. Never
    less than 1 %.
    """
    reach = max((_reach(effect) for effect in effects), default=0.0)
    most = 3 * _reach(first) if first and _reach(first) else reach
    return max(0.01, 1.1 * min(reach, most))


def _reach(effect: Effect) -> float:
    own = relative(effect)
    return max(abs(own.low), abs(own.high)) if own else 0.0


def round_below(value: float) -> float:
    """Return the largest of …, 0.1, 0.2, 0.5, 1, 2, 5, … that is not above a value.

    >>> round_below(0.32), round_below(0.05), round_below(0.0099)
    (0.2, 0.05, 0.005)
    """
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return max(round(times * power, 12) for times in (1, 2, 5) if times * power <= value * (1 + 1e-9))


def interval(effect: Effect, edge: float, level: float = 1.0) -> Picture | None:
    """Return an effect's interval for a cell whose edges are ∓ edge; arrows where it goes on. None without a mean.

    level: see `relative`, for the colour.
    """
    own = relative(effect, level)
    if own is None:
        return None
    low, high = max(own.low, -edge), min(own.high, edge)
    x: Spec = {"field": "x", "type": "quantitative", "axis": None, "scale": {"domain": [-edge, edge], "nice": False}}
    tick = round_below(0.8 * edge)
    marks = [_line(at, at, "var(--rule)", 1) for at in (-tick, tick)]
    marks += [_line(0, 0, "var(--quiet)", 1), _line(low, high, _COLOURS[own.kind], 2, across=True)]
    if abs(own.middle) <= edge:
        marks.append(_point(own.middle, _SHAPES[own.kind], _COLOURS[own.kind]))
    if own.low < -edge:
        marks.append(_point(-edge, "triangle-left", _COLOURS[own.kind]))
    if own.high > edge:
        marks.append(_point(edge, "triangle-right", _COLOURS[own.kind]))
    spec = {"encoding": {"x": x}, "layer": marks, "autosize": "none"}  # all cells of a column have one axis
    svg = drawn(spec, *_CELL, padding=_SIDES)
    text = f"{signed(effect.difference)}, from {signed(effect.low)} to {signed(effect.high)}"
    return Picture(text, svg, svg)


def interval_axis(edge: float) -> Markup:
    """Return the axis of a column of `interval`s, for its head."""
    at = round_below(0.8 * edge)
    axis = _change(at) | {"values": [-at, 0, at], "title": None, "orient": "top", "labelFontSize": 13}
    x = {"field": "x", "type": "quantitative", "axis": axis, "scale": {"domain": [-edge, edge], "nice": False}}
    data = {"values": [{"x": 0}]}
    spec = {"data": data, "mark": {"type": "tick", "opacity": 0}, "encoding": {"x": x}, "autosize": "none"}
    return drawn(spec, _CELL[0], 1, padding=_SIDES | {"top": _CELL[1] - 1})


def _change(most: float) -> Spec:
    """Return the labels of an axis of changes, of which the largest is `most`."""
    return {"labelExpr": f"datum.value == 0 ? '0' : format(datum.value, '{'+.0%' if most >= 0.02 else '+.1%'}')"}


def _line(low: float, high: float, colour: str, width: float, across: bool = False) -> Spec:
    encoding = {"x2": {"field": "x2"}} if across else {}
    return {"data": {"values": [{"x": low, "x2": high}]}, "encoding": encoding,
            "mark": {"type": "rule", "color": colour, "strokeWidth": width}}  # fmt: skip


def _zero(channel: str) -> Spec:
    mark = {"type": "rule", "color": "var(--quiet)"}
    return {"data": {"values": [{}]}, "mark": mark, "encoding": {channel: {"datum": 0}}}


def _point(at: float, shape: str, colour: str) -> Spec:
    mark = {"type": "point", "filled": True, "opacity": 1, "size": 64, "shape": shape, "color": colour}
    return {"data": {"values": [{"x": at}]}, "mark": mark}


def decision(
    effects: Sequence[Effect], margins: Mapping[str, float], confidence: float, gains: Mapping[str, float]
) -> Picture | None:
    """Return the intervals that the gate looks at, with the loss that each guard allows and the gain that is asked for.

    effects: of the judged metrics on all users; margins, gains: by metric, the share of the mean before that may be
    lost, and that must be gained.
    """
    level = level_of(confidence)
    there = [(effect, own) for effect in effects if (own := relative(effect, level, alone=True)) is not None]
    if not there:
        return None
    rows = [
        {"metric": effect.metric, "low": own.low, "middle": own.middle, "high": own.high, "colour": _COLOURS[own.kind],
         "shape": _SHAPES[own.kind], "says": f"{percent(own.middle)}"}
        for effect, own in there
    ]  # fmt: skip
    asked = [
        {"metric": effect.metric, "low": _sign(effect.metric) * change, "colour": _COLOURS[kind]}
        for effect, _ in there
        for kind, change in (("worse", -margins.get(effect.metric, 0.0)), ("better", gains.get(effect.metric, 0.0)))
        if change
    ]
    x: Spec = {"field": "low", "type": "quantitative", "title": "change, in % of the mean before",
               "axis": _change(max(map(_reach, effects))) | {"grid": True, "tickCount": 5},
               "scale": {"padding": 16}}  # fmt: skip
    y = {"field": "metric", "type": "nominal", "sort": [row["metric"] for row in rows], "title": None,
         "axis": {"labelColor": "var(--ink)", "grid": False, "labelLimit": 130}}  # fmt: skip
    coloured = {"color": ALIKE | {"field": "colour"}, "y": y}
    words = {"type": "text", "dy": -11, "fontSize": 12}
    middle = {"field": "middle", "type": "quantitative"}
    said = {"x": middle, "text": {"field": "says"}, **coloured}
    layers: list[Spec] = [
        _zero("x"),
        {"data": {"values": asked}, "encoding": {"x": x, **coloured},
         "mark": {"type": "tick", "thickness": 2, "size": 18, "opacity": 1}},
        {"mark": {"type": "rule", "strokeWidth": 3}, "encoding": {"x": x, "x2": {"field": "high"}, **coloured}},
        {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 90},
         "encoding": {"x": middle, "shape": ALIKE | {"field": "shape"}, **coloured}},
        {"mark": words | {"stroke": "var(--paper)", "strokeWidth": 4}, "encoding": said},
        {"mark": words, "encoding": said},
    ]  # fmt: skip
    says = "; ".join(
        f"{effect.metric} {percent(one.middle)} of the mean before, from {percent(one.low)} to {percent(one.high)}"
        + (f", at most {margins[effect.metric]:.1%} may be lost" if effect.metric in margins else "")
        + (f", more than {gains[effect.metric]:.1%} must be gained" if gains.get(effect.metric) else "")
        for effect, one in there
    )
    return picture(
        f"Intervals with {confidence:.0%} confidence: {says}.",
        {"data": {"values": rows}, "layer": layers},
        (_ROW + 6) * len(rows) + 60,
        wide=540,
    )


def _sign(metric: str) -> int:
    """Return 1 where more of a metric is better, −1 where less is."""
    return -1 if less_is_better(metric) else 1


def by_segment(effects: Sequence[Effect]) -> Picture | None:
    """Return a metric of both models on each segment: how well whom is served, and what changes."""
    if not effects:
        return None
    rows = [{"segment": effect.segment, "before": effect.champion, "after": effect.challenger} for effect in effects]
    y = {"field": "segment", "type": "nominal", "sort": None, "title": None,
         "axis": {"labelColor": "var(--ink)", "labelLimit": 160, "grid": True}}  # fmt: skip
    x = {"field": "before", "type": "quantitative", "title": effects[0].metric,
         "axis": {"tickCount": 5}, "scale": {"zero": True}}  # fmt: skip
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 2, "color": "var(--rest)"},
         "encoding": {"x": x, "x2": {"field": "after"}}},
        {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 70, "shape": "square", "color": "var(--old)"},
         "encoding": {"x": x}},
        {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 90, "color": "var(--new)"},
         "encoding": {"x": {"field": "after", "type": "quantitative"}}},
    ]  # fmt: skip
    says = "; ".join(f"{effect.segment} {number(effect.champion)} to {number(effect.challenger)}" for effect in effects)
    spec = {"data": {"values": rows}, "encoding": {"y": y}, "layer": layers}
    return picture(f"{effects[0].metric} by segment, before and after: {says}.", spec, _ROW * len(rows) + 50)


def differences(moments: Sequence[Moment], metric: str) -> Picture:
    """Return the interval of the difference at each moment of a backtest."""
    kinds = ["better" if moment.low > 0 else "worse" if moment.high < 0 else "open" for moment in moments]
    rows = [
        {"x": moment.as_of, "low": moment.low, "middle": moment.model - moment.best_list, "high": moment.high,
         "colour": _COLOURS[kind], "shape": _SHAPES[kind]}
        for moment, kind in zip(moments, kinds, strict=True)
    ]  # fmt: skip
    y = {
        "field": "low",
        "type": "quantitative",
        "title": None,
        "axis": {"labelExpr": "datum.value == 0 ? '0' : format(datum.value, '+~g')"},
    }
    layers: list[Spec] = [
        _zero("y"),
        {"mark": {"type": "rule", "strokeWidth": 2.4},
         "encoding": {"x": MOMENTS | {"field": "x"}, "y": y, "y2": {"field": "high"},
                      "color": ALIKE | {"field": "colour"}}},
        {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 80},
         "encoding": {"x": MOMENTS | {"field": "x"}, "y": {"field": "middle", "type": "quantitative"},
                      "color": ALIKE | {"field": "colour"}, "shape": ALIKE | {"field": "shape"}}},
    ]  # fmt: skip
    says = "; ".join(
        f"{moment.as_of} {signed(moment.model - moment.best_list)}, from {signed(moment.low)} to {signed(moment.high)}"
        for moment in moments
    )
    return picture(
        f"Difference of {metric} at each moment: {says}.", {"data": {"values": rows}, "layer": layers}, 220, wide=HALF
    )
