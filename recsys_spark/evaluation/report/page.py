"""The page of a report: one HTML file that needs nothing else, made by templates."""

from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from recsys_spark.evaluation.report import charts
from recsys_spark.evaluation.report.content import Report
from recsys_spark.evaluation.resampling import ALL

_FOLDER = files("recsys_spark.evaluation.report").joinpath("page")
_DOWN = ("popularity", "popularity_lift", "gini")  # less is better, or no better: no winner is marked
_ORDER = ("ndcg", "recall", "precision", "map", "mrr", "hit_rate", "auc")


def page(report: Report) -> str:
    """Return a report as the text of an HTML file."""
    parts = {name: _FOLDER.joinpath(name).read_text(encoding="utf-8") for name in ("report.html.j2", "charts.html.j2")}
    environment = Environment(
        loader=DictLoader(parts), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": charts.number, "signed": signed, "p": p_value, "explained": explained}
    whole = [effect for effect in report.effects if effect.segment == ALL]
    segments = [effect for effect in report.effects if effect.segment != ALL and effect.metric == report.primary]
    first = next((effect for effect in whole if effect.metric == report.primary), None)
    edges = {name: charts.extent(effects, first) for name, effects in (("whole", whole), ("segments", segments))}
    return environment.get_template("report.html.j2").render(
        report=report,
        style=Markup(_FOLDER.joinpath("style.css").read_text(encoding="utf-8")),
        script=Markup(_FOLDER.joinpath("script.js").read_text(encoding="utf-8")),
        first=first,
        whole=sorted(whole, key=lambda effect: (effect.metric not in report.judged, _place(effect.metric))),
        segments=segments,
        edges=edges,
        whisker_of=charts.whisker,
        means=_means(report),
        by_k=_by_k(report),
        objective=_objective(report),
        popularity=_popularity(report),
        days=_days(report),
        moments=_moments(report),
        box={"width": charts.WIDTH, "height": charts.HEIGHT, "left": charts.LEFT, "right": charts.WIDTH - charts.RIGHT,
             "bottom": charts.HEIGHT - charts.BOTTOM, "top": charts.TOP},
    )  # fmt: skip


def signed(value: float) -> str:
    """Return a difference with its sign.

    >>> signed(0.00321), signed(-2.5), signed(0.0)
    ('+0.0032', '−2.50', '0')
    """
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return sign + charts.number(abs(value))


def p_value(value: float) -> str:
    """Return a p-value as papers write it.

    >>> p_value(0.0004), p_value(0.0312), p_value(1.0)
    ('< 0.001', '0.031', '1')
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}".rstrip("0").rstrip(".")


def explained(metric: str) -> str:
    """Return what a metric is, in a few words."""
    name, _, k = metric.partition("@")
    return _WORDS[name].format(k=k) if name in _WORDS else ""


_WORDS = {
    "ndcg": "found items, those further up counting more",
    "recall": "share of the wanted items among the first {k}",
    "precision": "share of the first {k} that was wanted",
    "map": "precision at each found item",
    "mrr": "one over the place of the first found item",
    "hit_rate": "share of users with any wanted item among the first {k}",
    "auc": "share of pairs in the right order; the rest behind {k} at random",
    "popularity": "share of users who had the average listed item",
    "popularity_lift": "the same over the catalogue's",
    "novelty": "surprise of the listed items, in bits",
    "diversity": "share of a list's pairs that differ in category",
    "coverage": "share of the catalogue that is shown to anyone",
    "gini": "how unequally items are shown: 0 alike, 1 one to all",
}


def _place(metric: str) -> tuple[int, str, int]:
    name, _, k = metric.partition("@")
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name, int(k or 0))


def _means(report: Report) -> list[tuple[str, list[float | None], int | None]]:
    """Return of each metric its name, each model's mean, and which of them is best, if more is better."""
    names = sorted({name for values in report.means.values() for name in values}, key=_place)
    rows = []
    for name in names:
        values = [each.get(name) for each in report.means.values()]
        there = [value for value in values if value is not None]
        best = None if name.partition("@")[0] in _DOWN or len(there) < 2 else values.index(max(there))
        rows.append((name, values, best))
    return rows


def _by_k(report: Report) -> charts.Lines | None:
    name = report.primary.partition("@")[0]
    if len(report.ks) < 2:
        return None
    return charts.lines(
        {model: [(float(k), values[f"{name}@{k}"]) for k in report.ks] for model, values in report.means.items()},
        zero=True,
    )


def _objective(report: Report) -> charts.Lines | None:
    points = [(float(epoch), value) for epoch, value in enumerate(report.objective, start=1)]
    return charts.lines({"objective": points}) if len(points) > 1 else None


def _days(report: Report) -> charts.Lines | None:
    days = report.profile.days if report.profile else ()
    if len(days) < 2:
        return None
    points = [(float(at), events) for at, (_, events) in enumerate(days)]
    return charts.lines({"events": points}, zero=True, labels=[day for day, _ in days])


def _moments(report: Report) -> charts.Lines | None:
    if len(report.moments) < 2:
        return None
    series = {
        "model": [(float(place), moment.model) for place, moment in enumerate(report.moments)],
        "best list": [(float(place), moment.best_list) for place, moment in enumerate(report.moments)],
    }
    return charts.lines(series, zero=True, labels=[moment.as_of for moment in report.moments])


def _popularity(report: Report) -> charts.Bars | None:
    return charts.bars(report.popularity.groups, report.popularity.series) if report.popularity else None
