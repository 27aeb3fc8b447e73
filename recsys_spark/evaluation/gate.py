"""The gate: whether a challenger takes the champion's place, decided by their comparison alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.resampling import ALL

_LOWER_IS_BETTER = ("popularity",)
_UNBOUNDED = ("novelty",)  # every other metric is between 0 and 1, so that a user loses 1 at most


def level_of(confidence: float) -> float:
    """Return 1 − confidence as it is written: 1 − 0.9 is a little less than 0.1, which some p is exactly."""
    return round(1 - confidence, 12)


@dataclass(frozen=True)
class Rules:
    """What a challenger must show.

    primary: the metric to be better on, by more than least_gain, a share of the champion's mean. confidence: of
    intervals; 1 − confidence is the level of tests. guards: by metric, the share of the champion's mean that may be
    lost at most. segment_margin: the same, of the primary metric on each segment.
    """

    primary: str
    confidence: float = 0.95
    guards: Mapping[str, float] = field(default_factory=dict)
    segment_margin: float = 0.0
    least_gain: float = 0.0

    @property
    def level(self) -> float:
        """The level of tests."""
        return level_of(self.confidence)

    def judged(self) -> list[str]:
        """Return the metrics that the decision looks at, each once."""
        return list(dict.fromkeys([self.primary, *self.guards]))


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it speaks for the challenger, and why in words."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """Whether the challenger is promoted, and all that was looked at."""

    checks: tuple[Check, ...]

    @property
    def promoted(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def reasons(self) -> list[str]:
        """Return the reasons as sentences: against the challenger first, if there are any."""
        return [check.reason for check in sorted(self.checks, key=lambda check: check.passed)]


def decide(effects: Sequence[Effect], rules: Rules, others: Mapping[str, Effect] | None = None) -> Decision:
    """Return the decision that the rules make of a comparison.

    - Better on the primary metric: the whole interval of the difference is above least_gain · the champion's mean, and
      the randomisation test's p is not above the level. If the models do not differ, both happen in at most α/2 of the
      comparisons.
    - Better than each of the others, too, by the same rule: effects of the primary metric by name, where the rival was
      chosen as the best of several on these very users. That all of these tests must say yes keeps the level without a
      correction (intersection-union: Berger, "Multiparameter Hypothesis Testing and Acceptance Sampling",
      Technometrics 1982); beating the one that looked best does not, where another that is truly best looked worse.
    - Not worse on any guard: the whole interval is above −margin · the champion's mean (non-inferiority: Piaggio et
      al., "Reporting of Noninferiority and Equivalence Randomized Trials", JAMA 2012), that of the bootstrap and that
      of `with_two_more`, which knows that who differs may have been missed (of metrics between 0 and 1). Too few users
      to tell is a no. With a margin of 0 no difference at all passes, too.
    - Worse on no segment: a segment is worse if its mean difference, as observed, is below −margin · its champion's
      mean, and that it is below 0 is no chance, by the test's p adjusted over all segments (Holm). Here too few users
      to tell is no reason to refuse: else each small country could block every model.

    Of a metric where less is better the difference counts with the other sign. Raises KeyError where the comparison
    lacks a metric of the rules.
    """
    whole = {effect.metric: effect for effect in effects if effect.segment == ALL}
    level = rules.level
    checks = [_better(whole[rules.primary], rules)]
    checks += [_better(effect, rules, name) for name, effect in (others or {}).items()]
    checks += [_not_worse(whole[name], margin, level) for name, margin in rules.guards.items()]
    segments = [effect for effect in effects if effect.segment != ALL and effect.metric == rules.primary]
    worse = [check for effect in segments if (check := _harmed(effect, rules.segment_margin, level)) is not None]
    checks += worse
    if not worse:
        checks.append(Check(True, f"{rules.primary} is worse on none of {len(segments)} segments"))
    return Decision(tuple(checks))


def _better(effect: Effect, rules: Rules, than: str | None = None) -> Check:
    gain, low, _ = oriented(effect)
    least = rules.least_gain * abs(effect.champion)
    passed = low > least and effect.p <= rules.level
    words = ("is better" if passed else "is not shown to be better") + (f" than that of {than}" if than else "")
    by = f" by more than {least:.4f} ({rules.least_gain:.1%})" if least else ""
    missing = "" if passed or gain <= 0 else f"; {effect.users:,} users would show {least + effect.detectable:.4f}"
    return Check(passed, f"{effect.metric} {words}{by}: {_numbers(effect)}, p = {effect.p:.2g}{missing}")


def _not_worse(effect: Effect, margin: float, level: float) -> Check:
    gain, low, high = oriented(effect)
    most = margin * abs(effect.champion)
    passed, few = low > -most or low == most == 0, ""
    if passed and most and effect.metric.partition("@")[0] not in _UNBOUNDED:
        lower = with_two_more(effect.users, gain, (high - low) / 2, level)
        if lower <= -most:
            passed, few = False, f"; so few users differ that it may be {lower:+.4f}"
    words = "is not worse" if passed else "may be worse"
    return Check(passed, f"{effect.metric} {words} by more than {most:.4f} ({margin:.1%}): {_numbers(effect)}{few}")


def with_two_more(users: int, difference: float, half: float, level: float) -> float:
    """Return the lower limit of a mean difference, had there been two more users: one gains 1, one loses 1.

    half: half the width of the interval at 1 − level. Where only a few users differ, or none, resampling them cannot
    know of the kinds that were not drawn, and its interval is too narrow: Bonett and Price, "Adjusted Wald Confidence
    Interval for a Difference of Binomial Proportions Based on Paired Data", Journal of Educational and Behavioral
    Statistics 2012.

    >>> [round(with_two_more(users, 0.0, 0.0, 0.05), 4) for users in (1, 100, 10_000)]
    [-0.9239, -0.0272, -0.0003]
    """
    z = NormalDist().inv_cdf(1 - level / 2)
    squares = users * ((half / z) ** 2 * users + difference**2)
    mean = users * difference / (users + 2)
    return mean - z * math.sqrt(((squares + 2) / (users + 2) - mean**2) / (users + 2))


def _harmed(effect: Effect, margin: float, level: float) -> Check | None:
    gain, _, _ = oriented(effect)
    most = margin * abs(effect.champion)
    if gain >= -most or effect.p_adjusted > level:
        return None
    return Check(
        False,
        f"{effect.metric} is worse on {effect.segment}, and lost more than {most:.4f} ({margin:.1%}) there: "
        f"{_numbers(effect)}, adjusted p = {effect.p_adjusted:.2g}, {effect.users:,} users",
    )


def oriented(effect: Effect) -> tuple[float, float, float]:
    """Return difference, low and high with the sign that makes more the better."""
    if less_is_better(effect.metric):
        return -effect.difference, -effect.high, -effect.low
    return effect.difference, effect.low, effect.high


def less_is_better(metric: str) -> bool:
    """Return whether a model is the better, the lower its mean of a metric.

    >>> less_is_better("popularity@10"), less_is_better("ndcg@10")
    (True, False)
    """
    return metric.partition("@")[0] in _LOWER_IS_BETTER


def _numbers(effect: Effect) -> str:
    return (
        f"{effect.champion:.4f} → {effect.challenger:.4f}, {effect.difference:+.4f} "
        f"[{effect.low:+.4f}, {effect.high:+.4f}]"
    )
