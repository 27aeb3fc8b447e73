"""The paired comparison of two models: known answers, its level and coverage on simulated users, and invariance."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from scipy import stats

from recsys_spark.evaluation import comparison, exact, resampling
from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.report import queries
from recsys_spark.evaluation.resampling import ALL, Pairs, Resampling, Sums

Doubles = NDArray[np.float64]


def keys_of(n: int, seed: int) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, n, np.uint64)


def summed(champion: Doubles, challenger: Doubles, settings: Resampling, seed: int = 0) -> Sums:
    """Sums of (n,) values of one metric, all users in one segment."""
    pairs = Pairs(keys_of(len(champion), seed), champion[:, None], challenger[:, None])
    whole = (np.arange(len(champion)), np.array([0]))
    return resampling.whole([each[0] for each in resampling.partial_sums(pairs, [whole], settings)], settings)


def effect(champion: Sequence[float], challenger: Sequence[float], settings: Resampling, seed: int = 0) -> Effect:
    sums = summed(np.array(champion, float), np.array(challenger, float), settings, seed)
    (found,) = comparison.effects({ALL: sums}, ["ndcg@10"], [])
    return found


def ndcg_like(rng: np.random.Generator, n: int) -> Doubles:
    """Values as metrics of rankings have them: most 0, few 1, the rest between."""
    return np.where(rng.random(n) < 0.6, 0.0, np.minimum(1.0, rng.exponential(0.4, n)))


def frame(spark: SparkSession, rows: list[tuple[str, dict[str, float], dict[str, float], list[str]]]) -> DataFrame:
    schema = "user_id string, champion map<string,double>, challenger map<string,double>, segments array<string>"
    return spark.createDataFrame(rows, schema)


def random_rows(n: int) -> list[tuple[str, dict[str, float], dict[str, float], list[str]]]:
    rng = np.random.default_rng(3)
    names = ("ndcg@10", "novelty@10")
    sizes = (1.0, 20.0)
    return [
        (
            f"u{user}",
            {name: size * rng.random() for name, size in zip(names, sizes, strict=True) if rng.random() < 0.9},
            {name: size * rng.random() for name, size in zip(names, sizes, strict=True)},
            [f"country: {'XYZ'[user % 3]}", "new"] if user % 5 else [f"country: {'XYZ'[user % 3]}"],
        )
        for user in range(n)
    ]


def test_means_and_their_difference_are_exact() -> None:
    found = effect([0.1, 0.2, 0.7], [0.3, 0.2, 0.4], Resampling(300))
    assert (found.users, found.metric, found.segment) == (3, "ndcg@10", ALL)
    assert found.champion == pytest.approx((0.1 + 0.2 + 0.7) / 3, abs=1e-16)
    assert found.challenger == pytest.approx((0.3 + 0.2 + 0.4) / 3, abs=1e-16)
    assert found.difference == pytest.approx((0.2 + 0.0 - 0.3) / 3, abs=1e-16)


def test_an_effect_that_all_users_share_has_an_interval_of_no_width() -> None:
    found = effect([0.25] * 40, [0.5] * 40, Resampling(500))
    assert (found.difference, found.low, found.high) == (0.25, 0.25, 0.25)
    assert found.p == 1 / 501, "2⁻³⁹ of all sign patterns are as far from 0, and none of 500 was among them"


def test_two_models_that_are_one_do_not_differ() -> None:
    found = effect([0.1, 0.9, 0.4], [0.1, 0.9, 0.4], Resampling(200))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_sign_flip_p_approaches_that_of_all_sign_patterns() -> None:
    rng = np.random.default_rng(4)
    champion, challenger = rng.random(11), rng.random(11) + 0.15
    settings = Resampling(20_000)
    everything = stats.permutation_test(
        (challenger, champion), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert 0.02 < everything < 0.9
    p = effect(champion, challenger, settings).p
    assert p == pytest.approx(everything, abs=4 * np.sqrt(everything * (1 - everything) / settings.replicates))


def test_the_interval_is_that_of_a_bootstrap_that_draws_users() -> None:
    rng = np.random.default_rng(5)
    champion, challenger = ndcg_like(rng, 800), ndcg_like(rng, 800)
    found = effect(champion, challenger, Resampling(8_000))
    drawn = stats.bootstrap((challenger - champion,), np.mean, n_resamples=8_000, method="percentile", rng=6)
    width = drawn.confidence_interval.high - drawn.confidence_interval.low
    assert found.low == pytest.approx(drawn.confidence_interval.low, abs=0.03 * width)
    assert found.high == pytest.approx(drawn.confidence_interval.high, abs=0.03 * width)
    differences = challenger - champion
    moved = np.abs(differences)
    size = (moved.sum() + 2) / (moved.sum() ** 2 / (differences**2).sum() + 2)
    z, error = 1.959964 + 0.841621, np.std(differences, ddof=1) / np.sqrt(800)
    half = z**2 * size / (2 * 800)
    assert found.detectable == pytest.approx(half + np.sqrt(half**2 + (z * error) ** 2), rel=0.03)
    assert 1 < found.detectable / (z * error) < 1.1, "where many differ, it is their spread alone that counts"


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    trials, settings, gain = 500, Resampling(1_000), 0.05
    covered = 0
    for trial in range(trials):
        champion = ndcg_like(rng, 150)
        challenger = ndcg_like(rng, 150) + gain
        found = effect(champion, challenger, settings, seed=trial)
        covered += found.low <= gain <= found.high
    assert abs(covered / trials - 0.95) < 3 * np.sqrt(0.95 * 0.05 / trials)


def test_p_is_uniform_where_the_models_do_not_differ() -> None:
    rng = np.random.default_rng(8)
    ps = [effect(rng.random(60), rng.random(60), Resampling(999), seed=trial).p for trial in range(600)]
    assert stats.kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.array(ps) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def hits(rng: np.random.Generator, n: int) -> Doubles:
    """By how much users differ of whom one finds what she wanted: by all there is."""
    return np.ones(n)


def places(rng: np.random.Generator, n: int) -> Doubles:
    """By how much users differ of whom one finds what she wanted at some place of ten."""
    return 1 / np.log2(1 + rng.integers(1, 11, n))


@pytest.mark.parametrize(
    ("users", "differ", "sizes"),
    [(400, 0.0, hits), (400, 1 / 400, hits), (400, 0.05, hits), (400, 0.05, places), (1000, 0.2, places)],
)
def test_a_difference_as_large_as_is_detectable_is_found_as_often_as_the_power_says(
    users: int, differ: float, sizes: Callable[[np.random.Generator, int], Doubles]
) -> None:
    """Some users differ by chance, to either side; what is detectable on them is then planted as gains of others.

    From their spread alone it would be found in none, a few, or half of all draws.
    """
    rng, settings, trials = np.random.default_rng(9), Resampling(399), 200

    def by_chance() -> Doubles:
        return np.where(rng.random(users) < differ, rng.choice([-1.0, 1.0], users) * sizes(rng, users), 0.0)

    nothing = np.zeros(users)
    gain = np.mean([effect(nothing, by_chance(), settings, seed=trial).detectable for trial in range(trials)])
    gainers = gain / sizes(rng, 100_000).mean()
    found = [
        effect(nothing, by_chance() + (rng.random(users) < gainers) * sizes(rng, users), settings, seed=trial).p <= 0.05
        for trial in range(trials)
    ]
    assert np.mean(found) >= 0.8 - 3 * np.sqrt(0.8 * 0.2 / trials)


def test_what_is_detectable_is_not_more_than_it_takes() -> None:
    """Where all users differ, a third of it is found as seldom as of a mean whose spread is known."""
    rng, users, settings, trials = np.random.default_rng(10), 400, Resampling(399), 200
    spread = [rng.normal(0, 0.2, users) for _ in range(trials)]
    gain = np.mean([effect(np.zeros(users), each, settings).detectable for each in spread]) / 3
    found = [effect(np.zeros(users), each + gain, settings, seed=at).p <= 0.05 for at, each in enumerate(spread)]
    expected = stats.norm.sf(1.959964 - 2.801585 / 3)
    assert np.mean(found) == pytest.approx(expected, abs=0.04 + 3 * np.sqrt(expected * (1 - expected) / trials))


def test_one_user_of_four_hundred_who_differs_does_not_make_a_small_difference_detectable() -> None:
    """Six such gainers are significant, 2/2⁶ ≤ 0.05, and of eight on average six or more are there 4 times in 5."""
    none, one = np.zeros(400), np.eye(1, 400)[0]
    assert effect(none, none, Resampling(999)).detectable == pytest.approx(2.801585**2 / 400)
    assert 0.0196 < effect(none, one, Resampling(999)).detectable < 0.025
    assert stats.binom.sf(5, 400, 2.801585**2 / 400) == pytest.approx(0.8, abs=0.01)


def test_weights_are_poisson_and_signs_even_and_neither_depends_on_other_users_or_replicates() -> None:
    keys = np.arange(20_000, dtype=np.uint64)  # neighbouring keys would show a weak hash
    weights = resampling.poisson_weights(keys, 0, seed=1).astype(float)
    for value in range(5):
        expected = stats.poisson.pmf(value, 1)
        assert (weights == value).mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / weights.size))
    assert weights.var() == pytest.approx(1, abs=0.01)
    signs = resampling.kept_signs(keys, 0, seed=1).astype(float)
    assert signs.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(signs.size))
    later = resampling.poisson_weights(keys, 1, seed=1).astype(float)
    for one, other in ((weights[:-1], weights[1:]), (weights[:, :-1], weights[:, 1:]), (weights, later),
                       (weights, signs), (signs[:-1], signs[1:]), (signs[:, :-1], signs[:, 1:])):  # fmt: skip
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(one.size)
    assert (resampling.poisson_weights(keys, 0, seed=2) != weights).mean() > 0.5


def test_the_hash_is_that_of_sql(spark: SparkSession) -> None:
    """Of a user, a seed and a number, as weights and signs take it, and as the query of a report does."""
    rows = [("u", 1, 0), ("Söhne & ł", 2**31 - 1, -1), ("", 0, -(2**63)), ("u", 1, 499)]
    given = spark.createDataFrame(rows, "user_id string, seed long, number long")
    for row in given.selectExpr("*", "xxhash64(user_id) AS key", "xxhash64(user_id, seed, number) AS word").collect():
        key = np.array([row["key"]]).view(np.uint64)
        found = resampling.xxhash64(np.array([row["number"]]), resampling.xxhash64(np.array([row["seed"]]), key))
        assert found.view(np.int64)[0] == row["word"]


def test_bits_weigh_what_poisson_quantiles_say() -> None:
    shares = (np.arange(2**16) + 0.5) / 2**16
    steps = np.searchsorted(resampling.POISSON, np.arange(2**16), side="right")
    assert (steps == stats.poisson.ppf(shares, 1)).all()


def test_the_query_of_a_report_gives_every_row_of_a_comparison(spark: SparkSession) -> None:
    """Values of hits and misses, so that sums tie; some users lack a metric, one segment is too small."""
    rng = np.random.default_rng(12)
    names, judged, least = ["hit@10", "ndcg@10", "novelty@10"], ["ndcg@10", "hit@10"], 30
    users = [(f"u{user}", ["north" if user % 3 else "south", *["few"] * (user < 20)]) for user in range(120)]

    def measured(gain: float) -> list[tuple[str, dict[str, float], list[str]]]:
        values = [
            {"hit@10": float(rng.random() < 0.2 + gain), "ndcg@10": min(1.0, rng.exponential(0.2 + gain))}
            | ({"novelty@10": 20 * rng.random()} if rng.random() < 0.9 else {})
            for _ in users
        ]
        return [(user, value, segments) for (user, segments), value in zip(users, values, strict=True)]

    models = {"als": measured(0.1), "best": measured(0.0), "other": measured(0.05)}
    schema = "model string, user_id string, metrics map<string,double>, segments array<string>"
    rows = [(model, *row) for model, found in models.items() for row in found]
    spark.createDataFrame(rows, schema).createOrReplaceTempView("measured")

    def compared(rival: str, metrics: list[str], of_segments: list[str]) -> list[Effect]:
        pairs = [
            (user, old, new, segments if of_segments else [])
            for (user, old, _), (_, new, segments) in zip(models[rival], models["als"], strict=True)
        ]
        return comparison.compare(frame(spark, pairs), metrics, of_segments, settings, 0.9, 0.7, least)

    settings = Resampling(300, seed=4)
    found = {"best": compared("best", names, judged), "other": compared("other", ["ndcg@10"], [])}
    assert len(found["best"]) == 3 + 2 * 2 and len(found["other"]) == 1
    query = queries.effects(
        "measured", "als", {"best": (), "other": ("ndcg@10",)}, judged, found["best"], settings, 0.9, 0.7, least
    )
    again = {(row["rival"], row["segment"], row["metric"]): row for row in spark.sql(query).collect()}
    assert again.keys() == {(rival, each.segment, each.metric) for rival, every in found.items() for each in every}
    for rival, effects in found.items():
        for each in effects:
            row = again[rival, each.segment, each.metric]
            assert (row["users"], row["p"]) == (each.users, each.p)
            known = vars(each) | {"before": each.champion, "after": each.challenger}
            for name in ("before", "after", "difference", "low", "high", "p_adjusted", "detectable"):
                assert row[name] == pytest.approx(known[name], abs=1e-9), (rival, each, name)


def test_holm_is_its_worked_example_and_keeps_the_order() -> None:
    assert comparison.holm([0.005, 0.011, 0.02, 0.04, 0.13]) == pytest.approx([0.025, 0.044, 0.06, 0.08, 0.13])
    assert comparison.holm([0.6, 0.5]) == [1, 1]
    assert comparison.holm([]) == []


def test_values_split_into_whole_numbers_come_back_exactly() -> None:
    values = np.random.default_rng(10).uniform(-25, 25, 1000)
    high, low = exact.split(values)
    for value, upper, lower in zip(values, high, low, strict=True):
        assert float(exact.joined(int(upper), int(lower))) == pytest.approx(value, abs=2.0**-60)
    assert np.abs(low).max() <= 2**29


def test_a_comparison_is_the_same_whatever_the_order_partitions_and_chunks(spark: SparkSession, monkeypatch) -> None:
    rows = random_rows(300)
    arguments = (["ndcg@10", "novelty@10"], ["ndcg@10"], Resampling(300, seed=5))
    one = comparison.compare(frame(spark, rows).coalesce(1), *arguments)
    chunks = resampling._CHUNK
    monkeypatch.setattr(resampling, "_CHUNK", 37)
    other = comparison.compare(frame(spark, rows[::-1]).repartition(5), *arguments)
    assert one == other and chunks != 37
    assert [(effect.segment, effect.metric) for effect in one] == [
        (ALL, "ndcg@10"), (ALL, "novelty@10"), ("country: X", "ndcg@10"), ("country: Y", "ndcg@10"),
        ("country: Z", "ndcg@10"), ("new", "ndcg@10"),
    ]  # fmt: skip
    assert comparison.compare(frame(spark, rows), *arguments[:2], Resampling(300, seed=6)) != one
    large = comparison.compare(frame(spark, rows), *arguments, least=150)
    assert [effect.segment for effect in large] == [ALL, ALL, "new"], "each country has less than 150 users"
    assert large[2].p_adjusted == large[2].p, "who is not compared is not corrected for"


def test_a_segment_is_compared_as_if_its_users_were_all_and_who_lacks_a_metric_does_not_count(
    spark: SparkSession,
) -> None:
    rows = random_rows(200)
    settings = Resampling(300)
    whole = comparison.compare(frame(spark, rows), ["novelty@10"], ["novelty@10"], settings)
    mine = [row for row in rows if "country: Y" in row[3]]
    alone = comparison.compare(frame(spark, mine), ["novelty@10"], [], settings)
    (segment,) = (effect for effect in whole if effect.segment == "country: Y")
    ignored = {"segment": ALL, "p_adjusted": 0, "detectable": 0}
    assert vars(segment) | ignored == vars(alone[0]) | ignored
    n_segments = len(whole) - 1
    (by_level,) = comparison.effects(
        resampling.resampled(frame(spark, mine), ["novelty@10"], [], settings),
        ["novelty@10"],
        [],
        1 - 0.05 / n_segments,
    )
    assert n_segments > 1 and segment.detectable == by_level.detectable > alone[0].detectable
    both = [(row[1]["novelty@10"], row[2]["novelty@10"]) for row in mine if "novelty@10" in row[1]]
    assert segment.users == len(both) < len(mine)
    assert segment.difference == pytest.approx(np.mean([theirs - ours for ours, theirs in both]), abs=1e-12)
    ps = [effect.p for effect in whole if effect.segment != ALL]
    assert [effect.p_adjusted for effect in whole] == [whole[0].p, *comparison.holm(ps)]


def test_nobody_in_common_is_no_effect(spark: SparkSession) -> None:
    nobody = frame(spark, random_rows(3)).where(f.lit(False))
    assert comparison.compare(nobody, ["ndcg@10"], [], Resampling(300)) == []
