"""The page of a report: one HTML file that needs nothing else, made by templates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.gate import level_of
from recsys_spark.evaluation.report import charts, intervals, numbers
from recsys_spark.evaluation.report.content import Report
from recsys_spark.evaluation.report.drawing import Picture
from recsys_spark.evaluation.resampling import ALL

_FOLDER = files("recsys_spark.evaluation.report").joinpath("page")
_SEGMENTS = 30  # of each metric; each of their rows is 2 kB
_LETTERS = 160  # of the name of an item; of a thousand names the page has to stay small
_TEMPLATES = ("report.html.j2", "parts.html.j2")
_SHOWN = ("coverage", "gini", "popularity_lift", "popularity", "novelty", "diversity")  # of lists, whatever was wanted
_ORDER = ("ndcg", "recall", "precision", "map", "mrr", "hit_rate", "auc", *_SHOWN)


@dataclass(frozen=True)
class Rows:
    """Effects with their intervals drawn, the axis of these, and how many more effects there are."""

    effects: Sequence[tuple[Effect, Picture | None]]
    axis: Markup
    left_out: int


@dataclass(frozen=True)
class Means:
    """A metric, the mean of each model, and which of them is best, if more is better."""

    metric: str
    values: Sequence[float | None]
    best: int | None


def page(report: Report) -> str:
    """Return a report as the text of an HTML file."""
    first_two = {name: report.means[name] for name in report.compared}
    report = replace(report, means=first_two | dict(report.means))
    environment = Environment(
        loader=DictLoader({name: _text(name) for name in _TEMPLATES}),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": numbers.number, "signed": numbers.signed, "percent": numbers.percent, "p": numbers.p_value,
        "explained": numbers.explained, "short": _short,
    }  # fmt: skip
    whole = sorted(
        (effect for effect in report.effects if effect.segment == ALL),
        key=lambda effect: (effect.metric not in report.judged, _place(effect.metric)),
    )
    first = next((effect for effect in whole if effect.metric == report.primary), None)
    by_segment = {
        metric: [effect for effect in report.effects if effect.segment != ALL and effect.metric == metric]
        for metric in report.judged
    }
    drawn = {metric: _most_telling(effects, report.confidence) for metric, effects in by_segment.items()}
    models = charts.looks(list(report.means), *report.compared)
    judged = [effect for name in report.judged for effect in whole if effect.metric == name]
    return environment.get_template("report.html.j2").render(
        report=report,
        style=Markup(_text("style.css")),
        script=Markup(_text("script.js")),
        first=first,
        relative=intervals.relative(first, level_of(report.confidence), alone=True) if first else None,
        decision=intervals.decision(judged, report.margins, report.confidence, {report.primary: report.least_gain}),
        whole=_rows(whole, first, report.confidence),
        segments={
            metric: _rows(effects, first, report.confidence, len(by_segment[metric]) - len(effects))
            for metric, effects in drawn.items()
            if effects
        },
        by_segment=intervals.by_segment(drawn[report.primary]),
        means=_means(report, of_lists=False),
        shown=_means(report, of_lists=True),
        k=report.primary.partition("@")[2],
        models=charts.key(models),
        two=charts.key(
            {f"{when}: {name}": models[name] for when, name in zip(("after", "before"), report.compared, strict=True)}
        ),
        by_k=_by_k(report),
        objective=charts.objective(report.objective) if len(report.objective) > 1 else None,
        popularity=charts.popularity(report.popularity, models) if report.popularity else None,
        days=charts.days(report.profile) if report.profile and len(report.profile.days) > 1 else None,
        moments=_moments(report),
    )


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"


def _text(name: str) -> str:
    return _FOLDER.joinpath(name).read_text(encoding="utf-8")


def _most_telling(effects: Sequence[Effect], confidence: float) -> list[Effect]:
    """Return the effects on segments that the page has room for, in their order.

    Shown losses come first, then shown gains, then the largest segments.
    """
    ranks = {"worse": 0, "better": 1, "open": 2}

    def rank(effect: Effect) -> tuple[int, int]:
        own = intervals.relative(effect, level_of(confidence))
        return (ranks[own.kind] if own else ranks["open"], -effect.users)

    chosen = {effect.segment for effect in sorted(effects, key=rank)[:_SEGMENTS]}
    return [effect for effect in effects if effect.segment in chosen]


def _rows(effects: Sequence[Effect], first: Effect | None, confidence: float, left_out: int = 0) -> Rows:
    edge, level = intervals.extent(effects, first), level_of(confidence)
    drawn = [(effect, intervals.interval(effect, edge, level)) for effect in effects]
    return Rows(drawn, intervals.interval_axis(edge), left_out)


def _moments(report: Report) -> list[Picture]:
    if len(report.moments) < 2:
        return []
    return [draw(report.moments, report.primary) for draw in (charts.levels, intervals.differences)]


def _place(metric: str) -> tuple[int, str, int]:
    name, _, k = metric.partition("@")
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name, int(k or 0))


def _means(report: Report, of_lists: bool) -> list[Means]:
    """Return the means of metrics of accuracy, or of what lists are like, of which more is no better."""
    rows = []
    for name in sorted({name for values in report.means.values() for name in values}, key=_place):
        if (name.partition("@")[0] in _SHOWN) == of_lists:
            values = [each.get(name) for each in report.means.values()]
            there = [value for value in values if value is not None]
            rows.append(Means(name, values, None if of_lists or len(there) < 2 else values.index(max(there))))
    return rows


def _by_k(report: Report) -> list[tuple[str, Picture]]:
    """Return the pictures by the length of the list: of the judged metrics and others, six at most."""
    if len(report.ks) < 2:
        return []
    there = {name.partition("@")[0] for values in report.means.values() for name in values}
    names = dict.fromkeys([*(name.partition("@")[0] for name in report.judged), *_BY_K])
    return [(name, charts.by_k(report, name)) for name in names if name in there][:6]


_BY_K = ("ndcg", "recall", "precision", "map", "mrr", "hit_rate")
