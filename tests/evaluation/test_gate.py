"""The gate: how often it errs where nothing differs, and that it sees what is planted."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_spark.evaluation import comparison, resampling
from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.gate import Rules, decide
from recsys_spark.evaluation.resampling import ALL, Pairs, Resampling

Doubles = NDArray[np.float64]
METRICS = ["ndcg@10", "recall@10"]
RULES = Rules("ndcg@10", guards={"recall@10": 0.3}, segment_margin=0.02)


def effects_of(
    rng: np.random.Generator, n: int, change: Callable[[Doubles, NDArray[np.bool_]], Doubles], replicates: int = 999
) -> list[Effect]:
    """Compare two models on n users, a third of them in the north; `change` adds to the challenger's NDCG."""
    keys = rng.integers(0, 2**64, n, np.uint64)
    north = np.arange(n) % 3 == 0
    tastes = rng.random(n)
    champion, challenger = (np.clip(tastes + 0.2 * rng.normal(size=n), 0, 1) for _ in range(2))
    challenger = change(challenger, north)
    both = (np.column_stack([values, np.sqrt(np.clip(values, 0, 1))]) for values in (champion, challenger))
    segments = {ALL: np.arange(n), "north": np.flatnonzero(north), "south": np.flatnonzero(~north)}
    settings = Resampling(replicates)
    places = [(rows, np.arange(2) if name == ALL else np.array([0])) for name, rows in segments.items()]
    blocks = list(resampling.partial_sums(Pairs(keys, *both), places, settings))
    sums = {name: resampling.whole([block[at] for block in blocks], settings) for at, name in enumerate(segments)}
    return comparison.effects(sums, METRICS, ["ndcg@10"])


def effect(metric: str, segment: str = ALL, **values: float) -> Effect:
    usual = {"users": 1000, "champion": 0.5, "challenger": 0.6, "difference": 0.1, "low": 0.05, "high": 0.15,
             "p": 0.001, "p_adjusted": 0.002, "detectable": 0.07}  # fmt: skip
    return Effect(metric, segment, **(usual | values))


def effect_of(rng: np.random.Generator, champion: Doubles, challenger: Doubles) -> Effect:
    """Compare two models by one metric, (n,) each, all users in one segment."""
    settings = Resampling(399)
    pairs = Pairs(rng.integers(0, 2**64, len(champion), np.uint64), champion[:, None], challenger[:, None])
    whole = (np.arange(len(champion)), np.array([0]))
    blocks = [each[0] for each in resampling.partial_sums(pairs, [whole], settings)]
    return comparison.effects({ALL: resampling.whole(blocks, settings)}, ["ndcg@10"], [])[0]


def dense(rng: np.random.Generator) -> Doubles:
    return rng.random(120)


def sparse(rng: np.random.Generator) -> Doubles:
    """As metrics of rankings are: most users have 0, some one hit at some position."""
    return np.where(rng.random(240) < 0.1, 1 / np.log2(1 + rng.integers(1, 11, 240)), 0.0)


@pytest.mark.parametrize("values", [dense, sparse])
def test_of_two_models_that_are_alike_one_is_promoted_no_more_often_than_the_level(
    values: Callable[[np.random.Generator], Doubles],
) -> None:
    """2,000 draws tell one in forty, which is promised, from one in twenty."""
    rng, n = np.random.default_rng(1), 2_000
    promoted = [decide([effect_of(rng, values(rng), values(rng))], Rules("ndcg@10")).promoted for _ in range(n)]
    most = 0.025 + 3 * np.sqrt(0.025 * 0.975 / n)
    assert np.mean(promoted) <= most < 0.05 - 2.5 * np.sqrt(0.05 * 0.95 / n)
    assert np.mean(promoted) >= 0.0125, "a gate that says no more often than it has to is a wall"


def test_guards_and_segments_promote_a_model_against_itself_no_more_often() -> None:
    rng = np.random.default_rng(1)
    promoted = [decide(effects_of(rng, 300, lambda ndcg, _: ndcg), RULES).promoted for _ in range(400)]
    assert 0 < np.mean(promoted) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 400)


def test_the_best_of_two_baselines_is_not_beaten_by_its_twin_more_often_than_the_level() -> None:
    """The challenger is as good as the better baseline, and nearly the same lists as the other one, which is worse.

    Where the other one looks better by chance, it is chosen, and the challenger is better than it beyond doubt.
    """
    rng, n = np.random.default_rng(5), 400
    against_one, against_both = [], []
    for _ in range(n):
        tastes = rng.random(300)
        best, lists = (tastes + 0.3 * rng.normal(size=300) for _ in range(2))
        twin, challenger = lists - 0.005 + 0.02 * rng.normal(size=300), lists + 0.02 * rng.normal(size=300)
        rival, other = (best, twin) if best.mean() >= twin.mean() else (twin, best)
        effects = [effect_of(rng, rival, challenger)]
        against_one.append(decide(effects, Rules("ndcg@10")).promoted)
        others = {"other": effect_of(rng, other, challenger)}
        against_both.append(decide(effects, Rules("ndcg@10"), others).promoted)
    assert np.mean(against_one) > 0.1, "or else there is nothing to guard against"
    assert np.mean(against_both) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / n)


def test_better_than_the_best_is_not_enough_if_another_may_be_better() -> None:
    rules, whole = Rules("ndcg@10"), effect("ndcg@10")
    assert decide([whole], rules, {"popularity": effect("ndcg@10", low=0.2)}).promoted
    refused = decide([whole], rules, {"popularity": effect("ndcg@10", low=-0.001)})
    assert not refused.promoted
    assert refused.reasons()[0].startswith("ndcg@10 is not shown to be better than that of popularity: ")


def test_a_planted_gain_is_promoted() -> None:
    rng = np.random.default_rng(2)
    decisions = [decide(effects_of(rng, 900, lambda ndcg, _: ndcg + 0.04), RULES) for _ in range(40)]
    assert np.mean([decision.promoted for decision in decisions]) >= 0.9


def test_a_gain_that_one_segment_pays_for_is_refused_and_the_segment_is_named() -> None:
    rng = np.random.default_rng(3)

    def dearly(ndcg: Doubles, north: NDArray[np.bool_]) -> Doubles:
        return ndcg + np.where(north, -0.08, 0.12)

    decisions = [decide(effects_of(rng, 900, dearly), RULES) for _ in range(40)]
    assert not any(decision.promoted for decision in decisions)
    for decision in decisions:
        assert decision.checks[0].passed, "better on the whole"
        assert "ndcg@10 is worse on north, and lost more than" in decision.reasons()[0]
        assert not any("south" in reason for reason in decision.reasons())


def test_segments_are_harmed_by_chance_no_more_often_than_the_level() -> None:
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(300):
        decision = decide(effects_of(rng, 300, lambda ndcg, _: ndcg), Rules("ndcg@10"))
        refused += any("is worse on" in check.reason and not check.passed for check in decision.checks)
    assert refused / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_better_needs_both_the_interval_and_the_test() -> None:
    rules = Rules("ndcg@10")
    assert decide([effect("ndcg@10")], rules).promoted
    assert not decide([effect("ndcg@10", low=-0.001)], rules).promoted
    assert not decide([effect("ndcg@10", p=0.06)], rules).promoted
    assert decide([effect("ndcg@10", p=0.06)], Rules("ndcg@10", confidence=0.9)).promoted
    worse = decide([effect("ndcg@10", difference=-0.1, low=-0.15, high=-0.05)], rules)
    assert not worse.promoted and "is not shown to be better" in worse.reasons()[0]


@pytest.mark.parametrize(("low", "passes"), [(-0.009, True), (-0.011, False)])
def test_a_guard_must_be_shown_not_to_lose_its_margin(low: float, passes: bool) -> None:
    rules = Rules("ndcg@10", guards={"recall@10": 0.02})
    decision = decide([effect("ndcg@10"), effect("recall@10", difference=0.0, low=low, high=-low)], rules)
    assert decision.promoted == passes
    assert ("may be worse by more than 0.0100 (2.0%)" in decision.reasons()[0]) != passes


def test_a_guard_of_users_of_whom_hardly_any_differ_is_not_passed_for_want_of_losers() -> None:
    """One user in 400 loses her only hit, nobody gains: as often as not none of the losers, or one, is drawn."""
    rules, rng = Rules("ndcg@10", guards={"recall@10": 0.05}), np.random.default_rng(6)
    passed = dict.fromkeys((400, 4000), 0)
    for users in passed:
        for _ in range(200):
            before = (rng.random(users) < 0.05).astype(np.float64)
            after = before * (rng.random(users) >= 0.05)
            guard = replace(effect_of(rng, before, after), metric="recall@10")
            passed[users] += decide([effect("ndcg@10"), guard], rules).promoted
    assert passed[400] == 0 and passed[4000] / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_one_user_of_whom_nothing_changes_shows_nothing_and_a_margin_of_nothing_is_kept_by_no_change() -> None:
    same = {"difference": 0.0, "low": 0.0, "high": 0.0}
    for users, margin, passes in ((1, 0.1, False), (1000, 0.1, True), (1, 0.0, True)):
        guard = effect("recall@10", users=users, **same)
        assert decide([effect("ndcg@10"), guard], Rules("ndcg@10", guards={"recall@10": margin})).promoted == passes


def test_a_gain_has_to_be_as_large_as_is_asked_for() -> None:
    for least, passes in ((0.09, True), (0.11, False)):  # of 0.5; the interval begins at 0.05
        decision = decide([effect("ndcg@10")], Rules("ndcg@10", least_gain=least))
        assert decision.promoted == passes
        assert f"by more than {0.5 * least:.4f} ({least:.1%})" in decision.reasons()[0]


def test_of_popularity_less_is_better() -> None:
    rules = Rules("ndcg@10", guards={"popularity@10": 0.02})
    rises = effect("popularity@10", difference=0.02, low=0.018, high=0.022)
    falls = effect("popularity@10", difference=-0.02, low=-0.022, high=-0.018)
    assert not decide([effect("ndcg@10"), rises], rules).promoted
    assert decide([effect("ndcg@10"), falls], rules).promoted


def test_a_segment_is_judged_by_its_margin_and_its_adjusted_p() -> None:
    rules = Rules("ndcg@10", segment_margin=0.1)
    loss = {"difference": -0.06, "low": -0.09, "high": -0.03}
    whole = effect("ndcg@10")
    assert not decide([whole, effect("ndcg@10", "new", **loss)], rules).promoted
    assert decide([whole, effect("ndcg@10", "new", **loss | {"difference": -0.04})], rules).promoted
    assert decide([whole, effect("ndcg@10", "new", **loss, p_adjusted=0.2)], rules).promoted
    assert decide([whole, effect("recall@10", "new", **loss)], rules).promoted, "of other metrics segments are shown"
