"""Two models on the same users: how far apart they are, how sure that is, and what could have been seen at all."""

import math
from collections import Counter
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
    asked = [
        (segment, column, name)
        for segment in sorted(sums, key=lambda name: (name != ALL, name))
        for column, name in enumerate(metrics if segment == ALL else judged)
        if sums[segment].users[column] >= (1 if segment == ALL else least)
    ]
    sizes = Counter(name for segment, _, name in asked if segment != ALL)
    found = []
    families: dict[str | None, list[int]] = {}
    for at, (segment, column, name) in enumerate(asked):
        # On segments the gate looks at adjusted p-values: of m, the first to be shown has to be below level / m.
        shown_at = confidence if segment == ALL else 1 - (1 - confidence) / sizes[name]
        found.append(_effect(sums[segment], column, name, segment, confidence, shown_at, power))
        families.setdefault(None if segment == ALL else name, []).append(at)
    for members in families.values():
        for at, p in zip(members, holm([found[at].p for at in members]), strict=True):
            found[at] = replace(found[at], p_adjusted=p)
    return found


def _effect(
    sums: Sums, column: int, metric: str, segment: str, confidence: float, shown_at: float, power: float
) -> Effect:
    """Return an effect, p not adjusted. confidence: of the interval; shown_at: that a difference is detected with."""
    n = int(sums.users[column])
    champion, challenger = (exact.joined(int(sums.high[side, column]), int(sums.low[side, column])) for side in (0, 1))
    means = replicate_means(sums, column)
    low, high = interval(means, confidence)
    observed = int(sums.high[1, column]) - int(sums.high[0, column])
    p = sign_flip_p(sums.flipped[:, column], observed)
    difference, error = float((challenger - champion) / n), float(np.std(means, ddof=1))
    size = size_of_a_change(n, int(sums.moved[column]) / _UNIT / n, error**2 * n + difference**2)
    return Effect(
        metric=metric,
        segment=segment,
        users=n,
        champion=float(champion / n),
        challenger=float(challenger / n),
        difference=difference,
        low=low,
        high=high,
        p=p,
        p_adjusted=p,
        detectable=detectable(error, n, size, shown_at, power),
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


def detectable(standard_error: float, users: int, size: float, confidence: float, power: float) -> float:
    """Return the least true mean difference that a two-sided paired test finds with a power.

    With z of `standard_errors`, that is z·standard error (Bloom, "Minimum Detectable Effects", Evaluation Review 1995),
    if all users change alike. But a metric of lists is 0 for most, before and after, and a mean rises because some of
    them come to differ: for it to rise by δ, a share δ / size of them has to, by `size` each, which adds size·δ to the
    variance of a user. So δ² = z²·(standard error² + size·δ / users), of which the solution is

        δ = h + √(h² + (z·standard error)²),  h = z²·size / (2·users).

    For sizes of 1 this is McNemar's test planned with as many more discordant pairs (Connor, "Sample Size for Testing
    Differences in Proportions for the Paired-Sample Design", Biometrics 1987). Where many differ, h is next to nothing.
    Where nobody does yet, δ is z²·size / users, that of 8 users on average: 4 times in 5 they are the 6 or more
    that a sign test needs for p < 0.05.

    >>> round(detectable(0.002, 1_000_000, 0.2, 0.95, 0.8) / 0.002, 3), round(400 * detectable(0, 400, 1, 0.95, 0.8), 2)
    (2.802, 7.85)
    """
    z = standard_errors(confidence, power)
    half = z**2 * size / (2 * users)
    return half + math.hypot(half, z * standard_error)


def standard_errors(confidence: float, power: float) -> float:
    """Return z₁₋α⁄₂ + z_power: of how many standard errors a difference is that a two-sided test finds with a power.

    >>> round(standard_errors(0.95, 0.8), 4)
    2.8016
    """
    normal = NormalDist()
    return normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)


def size_of_a_change(users: int, moved: float, squares: float) -> float:
    """Return by how much a user differs who does, from the means of |difference| and difference² over users.

    It is squares / moved, the mean in which the large ones count more, as they do in a variance. m = users·moved² /
    squares users of that size would have the same means. They are counted with two more who differ by 1, all there is
    (after Agresti and Coull, "Approximate is Better than 'Exact'", The American Statistician 1998): of the sizes that
    there may be, one or two users say little, and none nothing.

    >>> size_of_a_change(400, 0, 0), round(size_of_a_change(400, 0.1, 0.01), 3)
    (1.0, 0.104)
    """
    alike = users * moved**2 / squares if squares > 0 else 0.0
    return (users * moved + 2) / (alike + 2)
