"""The pictures of levels and shares: models by the length of the list and over time, training, data, popularity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from recsys_spark.evaluation.report.content import Moment, Profile, Report, Shares
from recsys_spark.evaluation.report.drawing import ALIKE, HALF, MOMENTS, NARROW, Picture, Spec, drawn, picture
from recsys_spark.evaluation.report.numbers import number

_RESTS: tuple[tuple[list[int], str], ...] = (
    ([6, 3], "square"), ([2, 3], "diamond"), ([8, 3, 2, 3], "cross"), ([12, 4], "triangle-up"), ([1, 5], "stroke"),
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a model is drawn: the challenger and its rival in colour, all others in grey, apart by dashes and shapes."""

    colour: str
    width: float
    dash: list[int]
    shape: str


def looks(models: Sequence[str], challenger: str, rival: str) -> dict[str, Look]:
    """Return how each model is drawn, in all pictures alike."""
    rest = [model for model in models if model not in (challenger, rival)]
    found = {model: Look("var(--rest)", 1.4, *_RESTS[at % len(_RESTS)]) for at, model in enumerate(rest)}
    own = {challenger: Look("var(--new)", 2.6, [1, 0], "circle"), rival: Look("var(--old)", 2.2, [1, 0], "square")}
    return {model: (own | found)[model] for model in models}


def key(models: Mapping[str, Look]) -> dict[str, Markup]:
    """Return a mark for each model, as its lines are drawn: what colours and dashes mean."""
    return {model: drawn(_key(look), 34, 12, padding=0) for model, look in models.items()}


def _key(look: Look) -> Spec:
    x: Spec = {"type": "quantitative", "axis": None, "scale": {"domain": [0, 2], "nice": False}}
    line = {"type": "rule", "color": look.colour, "strokeWidth": look.width, "strokeDash": look.dash}
    point = {"type": "point", "filled": True, "opacity": 1, "size": 50, "shape": look.shape, "color": look.colour}
    return {
        "data": {"values": [{}]},
        "layer": [
            {"mark": line, "encoding": {"x": x | {"datum": 0}, "x2": {"datum": 2}}},
            {"mark": point, "encoding": {"x": x | {"datum": 1}}},
        ],
    }


def by_k(report: Report, metric: str) -> Picture:
    """Return a metric of all models by the length of the list."""
    series = {
        model: [(k, values[f"{metric}@{k}"]) for k in report.ks if f"{metric}@{k}" in values]
        for model, values in report.means.items()
    }
    x = {"type": "quantitative", "title": "k, the length of the list", "axis": {"values": list(report.ks)},
         "scale": {"zero": False, "nice": False, "padding": 12}}  # fmt: skip
    there = {model: points for model, points in series.items() if points}
    says = "; ".join(
        f"{model} " + ", ".join(f"{number(value)} at {k}" for k, value in points) for model, points in there.items()
    )
    spec = _lines(there, looks(list(report.means), *report.compared), x, {"axis": {"format": "~g"}})
    return picture(f"{metric} by the length of the list: {says}.", spec, 210, wide=NARROW)


def objective(values: Sequence[float]) -> Picture:
    """Return the objective by epoch."""
    x = {"type": "quantitative", "title": "epoch", "axis": {"tickMinStep": 1, "format": "d"},
         "scale": {"nice": False, "padding": 8}}  # fmt: skip
    spec = _lines({"": list(enumerate(values, start=1))}, {"": _ONE}, x, {"axis": {"format": ".3~s"}, "zero": False})
    return picture(
        f"The objective by epoch, over {len(values)} epochs: from {number(values[0])} to {number(values[-1])}.", spec
    )


_ONE = Look("var(--new)", 2.4, [1, 0], "circle")
_DATE: Spec = {"type": "temporal", "title": None, "scale": {"type": "utc"}}


def days(profile: Profile) -> Picture:
    """Return the events of each day."""
    ordered = sorted(profile.days, key=lambda day: day[1])
    (least_on, least), (most_on, most) = ordered[0], ordered[-1]
    x = _DATE | {"field": "x", "axis": {"format": "%b %Y" if len(profile.days) > 60 else "%-d %b", "tickCount": 6}}
    y = {"field": "y", "type": "quantitative", "title": None, "axis": {"format": ".3~s", "tickMinStep": 1},
         "scale": {"zero": True}}  # fmt: skip
    spec = {
        "data": {"values": [{"x": day, "y": events} for day, events in profile.days]},
        "encoding": {"x": x, "y": y},
        "mark": {"type": "line", "color": "var(--new)", "strokeWidth": 1.6},
    }
    return picture(
        f"Events by day, from {profile.days[0][0]} to {profile.days[-1][0]}: "
        f"at least {number(least)} (on {least_on}), at most {number(most)} (on {most_on}).",
        spec,
    )


def _lines(series: Mapping[str, Sequence[tuple[Any, float]]], drawn_as: Mapping[str, Look], x: Spec, y: Spec) -> Spec:
    """Return the specification of named lines of points (x, y). x, y: the axes, but for the fields."""
    rows = [
        {"name": name, "x": at, "y": value, "colour": look.colour, "width": look.width, "dash": look.dash,
         "shape": look.shape}
        for name, look in reversed(list(drawn_as.items()))  # the first on top
        for at, value in series.get(name, ())
    ]  # fmt: skip
    y = {"field": "y", "type": "quantitative", "title": None} | y
    line = {"mark": "line", "encoding": {"strokeDash": ALIKE | {"field": "dash"},
                                         "strokeWidth": ALIKE | {"field": "width"}}}  # fmt: skip
    points = {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 50},
              "encoding": {"shape": ALIKE | {"field": "shape"}}}  # fmt: skip
    return {
        "data": {"values": rows},
        "encoding": {"x": {"field": "x"} | x, "y": y, "detail": {"field": "name"},
                     "color": ALIKE | {"field": "colour"}},
        "layer": [line, points],
    }  # fmt: skip


def levels(moments: Sequence[Moment], metric: str) -> Picture:
    """Return a metric of the model and of the best list at each moment of a backtest."""
    series: dict[str, list[tuple[Any, float]]] = {
        "model": [(moment.as_of, moment.model) for moment in moments],
        "best list": [(moment.as_of, moment.best_list) for moment in moments],
    }
    models = looks(list(series), "model", "best list")
    spec = _lines(series, models, MOMENTS, {})
    says = "; ".join(
        f"{moment.as_of} model {number(moment.model)}, best list {number(moment.best_list)}" for moment in moments
    )
    return picture(f"{metric} at each moment: {says}.", spec, 220, key(models), wide=HALF)


def popularity(shares: Shares, drawn_as: Mapping[str, Look]) -> Picture:
    """Return what share of the list places each group of items has, the most popular first."""
    colours = {"all items": "var(--rule)", "histories": "var(--quiet)"}
    colours |= {model: look.colour for model, look in drawn_as.items() if model in shares.series}
    rows = [
        {"group": group, "name": name, "share": share, "colour": colours[name]}
        for name, values in shares.series.items()
        for group, share in zip(shares.groups, values, strict=True)
    ]
    names = list(shares.series)
    spec = {
        "data": {"values": rows},
        "mark": {"type": "bar", "stroke": "var(--rest)", "strokeWidth": 0.5},
        "encoding": {
            "x": {"field": "group", "type": "ordinal", "sort": None, "title": "items, the most popular first",
                  "axis": {"labelAngle": 0}, "scale": {"paddingInner": 0.25}},
            "xOffset": {"field": "name", "sort": names},
            "y": {"field": "share", "type": "quantitative", "title": None, "axis": {"format": ".0%"}},
            "color": ALIKE | {"field": "colour"},
        },
    }  # fmt: skip
    marks = {name: drawn(_swatch(colours[name]), 14, 14, padding=1) for name in names}
    says = "; ".join(
        f"{name} " + ", ".join(f"{share:.1%} {group}" for group, share in zip(shares.groups, values, strict=True))
        for name, values in shares.series.items()
    )
    return picture(f"Shares of list places by popularity of the item: {says}.", spec, key=marks)


def _swatch(colour: str) -> Spec:
    return {
        "data": {"values": [{}]},
        "mark": {"type": "rect", "color": colour, "stroke": "var(--rest)", "strokeWidth": 0.5},
    }
