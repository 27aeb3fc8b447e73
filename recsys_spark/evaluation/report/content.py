"""What a report says, as plain values: collected from tables by the stage, laid out by the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys_spark.evaluation.comparison import Effect

BANDS = ((0.01, "top 1 %"), (0.05, "to 5 %"), (0.2, "to 20 %"), (0.5, "to 50 %"), (1.0, "the rest"))


@dataclass(frozen=True)
class Verdict:
    """What the gate said: yes or no, who is champion now, and why."""

    promoted: bool
    champion: str | None
    reasons: Sequence[str]


@dataclass(frozen=True)
class Listed:
    """An item of a customer's list: its name, whether it was then bought, and the items of the history behind it."""

    name: str
    hit: bool
    because: Sequence[str] = ()


@dataclass(frozen=True)
class Customer:
    """One user's history, list, and what happened."""

    user_id: str
    source: str
    history: Sequence[str]
    n_history: int
    listed: Sequence[Listed]
    wanted: Sequence[Listed]


@dataclass(frozen=True)
class Shares:
    """Shares of list places by how popular the item is: of each model, of the catalogue and of the histories."""

    groups: Sequence[str]
    series: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    rival: whom the challenger is compared with. verdict: None where no decision was asked for. means: by model and
    metric. objective: by epoch.
    """

    dataset: str
    run_id: str
    as_of: str
    users: int
    items: int
    challenger: str
    rival: str
    primary: str
    judged: Sequence[str]
    confidence: float
    power: float
    effects: Sequence[Effect]
    means: Mapping[str, Mapping[str, float]]
    ks: Sequence[int]
    query: str
    verdict: Verdict | None = None
    objective: Sequence[float] = ()
    popularity: Shares | None = None
    customers: Sequence[Customer] = ()
    made: Mapping[str, str] = field(default_factory=dict)


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
