"""What a report says, as plain values: collected from tables by the stage, laid out by the page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys_spark.evaluation.comparison import Effect

BANDS = ((0.01, "top 1%"), (0.05, "1–5%"), (0.2, "5–20%"), (0.5, "20–50%"), (1.0, "the rest"))


@dataclass(frozen=True)
class Reason:
    """A reason in words, and whether it speaks for the challenger; None where that is not known any more."""

    words: str
    passed: bool | None


@dataclass(frozen=True)
class Verdict:
    """What the gate said: yes or no, who is champion now, and why."""

    promoted: bool
    champion: str | None
    reasons: Sequence[Reason]


@dataclass(frozen=True)
class Listed:
    """An item of a customer's list: its name, whether it was then bought, and the items of the history behind it."""

    name: str
    hit: bool
    because: Sequence[str] = ()


@dataclass(frozen=True)
class Customer:
    """One user's history, list, and what happened; of each the first, of n_history, n_wanted and n_listed."""

    user_id: str
    source: str
    history: Sequence[str]
    n_history: int
    listed: Sequence[Listed]
    wanted: Sequence[Listed]
    n_wanted: int
    n_listed: int


@dataclass(frozen=True)
class Shares:
    """Shares of list places by how popular the item is: of each model, of the catalogue and of the histories."""

    groups: Sequence[str]
    series: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Profile:
    """What the log is like: counts by name, quantiles of sizes by what is measured, and events by day.

    refused: rows by the rule that they break, most first; top: items by name with their users, most first.
    """

    counts: Mapping[str, str]
    quantiles: Mapping[str, Mapping[str, float]]
    days: Sequence[tuple[str, float]]
    refused: Sequence[tuple[str, float]] = ()
    top: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class Moment:
    """One moment of a backtest: the primary metric of the model and of the best list, and the difference's interval."""

    as_of: str
    users: int
    model: float
    best_list: float
    low: float
    high: float


@dataclass(frozen=True)
class Query:
    """SQL that gives figures of the page again: its name, which figures in words, and the text."""

    name: str
    gives: str
    sql: str


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    rival: whom the challenger is compared with; compared: the names of the two in means, and in gold.metrics. verdict:
    None where no decision was asked for. margins: by guard, the share of the rival's mean that may be lost; least_gain:
    that of the primary metric which must be gained. means: by model and metric. objective: by epoch.
    """

    dataset: str
    run_id: str
    as_of: str
    users: int
    items: int
    challenger: str
    rival: str
    compared: tuple[str, str]
    primary: str
    judged: Sequence[str]
    margins: Mapping[str, float]
    confidence: float
    power: float
    effects: Sequence[Effect]
    means: Mapping[str, Mapping[str, float]]
    ks: Sequence[int]
    queries: Sequence[Query]
    verdict: Verdict | None = None
    objective: Sequence[float] = ()
    popularity: Shares | None = None
    profile: Profile | None = None
    moments: Sequence[Moment] = ()
    customers: Sequence[Customer] = ()
    made: Mapping[str, str] = field(default_factory=dict)
    least_gain: float = 0.0


def popularity_shares(users: NDArray[np.int64], shown: Mapping[str, NDArray[np.int64]]) -> Shares:
    """Return how list places spread over the catalogue, from the most popular items to the least.

    users (n,): users of each item, which orders them; shown: by model (n,), lists that an item stands in.
    """
    order = np.lexsort((np.arange(len(users)), -users))
    ends = [max(1, round(share * len(users))) for share, _ in BANDS]

    def spread(values: NDArray[np.int64]) -> list[float]:
        sums = np.diff([0, *np.cumsum(values[order])[np.array(ends) - 1]])
        return [float(each) for each in sums / max(1, values.sum())]

    whole = {"all items": np.ones(len(users), np.int64), "histories": users, **shown}
    return Shares([name for _, name in BANDS], {name: spread(values) for name, values in whole.items()})


_COUNTS = {
    "rows": "rows of the log", "refused": "rows refused", "events": "events before as_of", "users": "users",
    "items": "items", "pairs": "pairs of user and item", "trained_pairs": "pairs trained on",
    "density": "share of all pairs", "repeated_pairs": "pairs of more than one event",
    "repeats": "events that repeat a pair",
}  # fmt: skip
_SIZES = {
    "items_of_user": "items of a user", "events_of_user": "events of a user", "users_of_item": "users of an item",
    "events_of_item": "events of an item",
}  # fmt: skip


def profile_of(
    lines: Iterable[tuple[str, str | None, float]], names: Mapping[str, str] | None = None
) -> Profile | None:
    """Return the profile that lines (measure, key, value) of gold.profile say; None where there are none.

    names: of items by their ids, where they have one.
    """
    known = {(measure, key): value for measure, key, value in lines}
    if not known:
        return None
    shares = ("density", "repeated_pairs", "repeats")
    counts = {
        words: f"{known[(name, None)]:.2%}" if name in shares else f"{known[(name, None)]:,.0f}"
        for name, words in _COUNTS.items()
        if (name, None) in known
    }
    quantiles: dict[str, dict[str, float]] = {}
    for (measure, key), value in known.items():
        if measure in _SIZES and key is not None:
            quantiles.setdefault(_SIZES[measure], {})[key] = value
    days = sorted((key, value) for (measure, key), value in known.items() if measure == "events_of_day" and key)
    ordered = {name: dict(sorted(each.items(), key=lambda of: float(of[0][1:]))) for name, each in quantiles.items()}
    top = [((names or {}).get(key, key), value) for key, value in _most(known, "top_item")]
    return Profile(counts, ordered, days, _most(known, "refused"), top)


def _most(known: Mapping[tuple[str, str | None], float], measure: str) -> list[tuple[str, float]]:
    """The lines of a measure that have a key, those of the largest value first, then by key."""
    found = [(key, value) for (name, key), value in known.items() if name == measure and key is not None]
    return sorted(found, key=lambda line: (-line[1], line[0]))
