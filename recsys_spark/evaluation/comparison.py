"""Two models on the same users: how far apart they are, how sure that is, and what could have been seen at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from recsys_spark.evaluation import exact, resampling
from recsys_spark.evaluation.resampling import ALL, Resampling, Sums

_UNIT = float(2**exact.LOW_BITS)  # differences are summed in multiples of its inverse


@dataclass(frozen=True)
class Effect:
    """What changes for the users of a segment if the challenger takes the champion's place.

    users: those with this metric under both. champion, challenger: means over them; difference: the latter less the
    former, with an interval from low to high. p: two-sided, that it is nothing; p_adjusted: by Holm. detectable: the
    least difference that these users would have shown, with the wanted power: by p, and on a segment by p_adjusted,
    where it is the first of its family to be shown.
    """

    metric: str
    segment: str
    users: int
    champion: float
    challenger: float
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    detectable: float


def compare(
    pairs: DataFrame,
    metrics: Sequence[str],
    judged: Sequence[str],
    settings: Resampling,
    confidence: float = 0.95,
    power: float = 0.8,
    least: int = 1,
) -> list[Effect]:
    """Return every metric's effect on all users, then the judged metrics' on each segment, by segment and metric.

    pairs: user_id string, champion and challenger map<string, double>, segments array<string>; one row a user.
    least: segments of fewer users are left out; an interval of a few users says less than it seems to.
    The result depends on the rows and the seed alone, not on their order and partitions.
    """
    sums = resampling.resampled(pairs, metrics, judged, settings)
    return effects(sums, metrics, judged, confidence, power, least)


def effects(
    sums: Mapping[str, Sums],
    metrics: Sequence[str],
    judged: Sequence[str],
    confidence: float = 0.95,
    power: float = 0.8,
    least: int = 1,
) -> list[Effect]:
    """Return the effects that sums say, with p-values adjusted within families.

    The metrics of all users are one family; the segments of one metric are another.
    """
    found = [
        _effect(sums[segment], column, name, segment, confidence, power)
        for segment in sorted(sums, key=lambda name: (name != ALL, name))
        for column, name in enumerate(metrics if segment == ALL else judged)
        if sums[segment].users[column] >= (1 if segment == ALL else least)
    ]
    families: dict[str | None, list[int]] = {}
    for at, effect in enumerate(found):
        families.setdefault(None if effect.segment == ALL else effect.metric, []).append(at)
    for family, members in families.items():
        # On segments the gate looks at adjusted p-values: of m, the first to be shown has to be below level / m.
        own = confidence if family is None else 1 - (1 - confidence) / len(members)
        more = detectable(1, own, power) / detectable(1, confidence, power)
        for at, p in zip(members, holm([found[at].p for at in members]), strict=True):
            found[at] = replace(found[at], p_adjusted=p, detectable=more * found[at].detectable)
    return found


def _effect(sums: Sums, column: int, metric: str, segment: str, confidence: float, power: float) -> Effect:
    n = int(sums.users[column])
    champion, challenger = (exact.joined(int(sums.high[side, column]), int(sums.low[side, column])) for side in (0, 1))
    means = replicate_means(sums, column)
    low, high = interval(means, confidence)
    observed = int(sums.high[1, column]) - int(sums.high[0, column])
    p = sign_flip_p(sums.flipped[:, column], observed)
    return Effect(
        metric=metric,
        segment=segment,
        users=n,
        champion=float(champion / n),
        challenger=float(challenger / n),
        difference=float((challenger - champion) / n),
        low=low,
        high=high,
        p=p,
        p_adjusted=p,
        detectable=detectable(float(np.std(means, ddof=1)), confidence, power),
    )


def replicate_means(sums: Sums, column: int) -> NDArray[np.float64]:
    """Return the mean difference in each replicate that has any user, (≤ R,): a ratio of two sums."""
    weights = sums.weights[:, column]
    some = weights > 0
    return sums.bootstrapped[some, column] / weights[some] / _UNIT


def interval(means: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Return the percentile interval of bootstrap replicates: their (R + 1)α/2-th and (R + 1)(1 − α/2)-th.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    >>> interval(np.arange(1.0, 20.0), 0.9)
    (1.0, 19.0)
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], method="weibull")
    return float(low), float(high)


def sign_flip_p(kept: NDArray[np.int64], observed: int) -> float:
    """Return the two-sided p of a paired randomisation test: how often chance alone is as far from 0 as what was seen.

    If the models do not differ, each user's difference might as well have the other sign (Fisher, "The Design of
    Experiments", 1935, section 21; for rankings, Smucker, Allan and Carterette, CIKM 2007).

    kept (R,): sums of the differences that keep their sign; observed: the sum of all. With all others' signs turned
    the sum is 2·kept − observed. The sample itself counts among the replicates, so that p is never 0 and the test
    keeps its level exactly (Phipson and Smyth, "Permutation P-values Should Never Be Zero", 2010).

    >>> sign_flip_p(np.array([0, 1, 2, 3]), 4)  # sums of -4, -2, 0, 2
    0.4
    """
    as_far = int(np.count_nonzero(np.abs(2 * kept - observed) >= abs(observed)))
    return (1 + as_far) / (1 + len(kept))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that the chance of any false finding among them stays below the level.

    The i-th smallest of n becomes the largest of (n − j + 1)·p_j, j ≤ i, at most 1: Holm, "A Simple Sequentially
    Rejective Multiple Test Procedure", Scandinavian Journal of Statistics, 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    found = [0.0] * len(ps)
    running = 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[at]))
        found[at] = running
    return found


def detectable(standard_error: float, confidence: float, power: float) -> float:
    """Return the least true difference that a two-sided test finds with a power: (z₁₋α⁄₂ + z_power)·standard error.

    Bloom, "Minimum Detectable Effects", Evaluation Review 1995.

    >>> round(detectable(1.0, 0.95, 0.8), 3)
    2.802
    """
    normal = NormalDist()
    return (normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)) * standard_error
