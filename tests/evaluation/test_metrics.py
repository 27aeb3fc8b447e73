"""Metrics of ranked lists, against written-out arithmetic and a plain Python oracle."""

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import log2
from typing import get_args

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from scipy.stats import mannwhitneyu

from recsys_spark.config import Evaluation
from recsys_spark.evaluation import metrics
from recsys_spark.schemas import RANKED_ITEMS, SCHEMAS

NAMES = ("recall", "precision", "ndcg", "map", "mrr", "hit_rate")
Lists = dict[str, list[str] | None]
Wanted = dict[str, set[str]]


@pytest.fixture(params=["true", "false"], ids=["ansi", "not ansi"])
def ansi(spark: SparkSession, request: pytest.FixtureRequest) -> Iterator[None]:
    before = spark.conf.get("spark.sql.ansi.enabled")
    spark.conf.set("spark.sql.ansi.enabled", request.param)
    yield
    spark.conf.set("spark.sql.ansi.enabled", before)


def lists_frame(spark: SparkSession, lists: Lists) -> DataFrame:
    rows = [
        (user, None if items is None else [(item, -float(at), None) for at, item in enumerate(items)])
        for user, items in lists.items()
    ]
    return spark.createDataFrame(rows, f"user_id string, items {RANKED_ITEMS.simpleString()}")


def wanted_frame(spark: SparkSession, wanted: Wanted) -> DataFrame:
    rows = [(user, item) for user, items in wanted.items() for item in sorted(items)]
    return spark.createDataFrame(rows, "user_id string, item_id string")


def per_user(
    spark: SparkSession, lists: Lists, wanted: Wanted, ks: Sequence[int], recall: str = "min_k_relevant"
) -> dict[str, tuple[int, dict[str, float]]]:
    frame = metrics.per_user(lists_frame(spark, lists), wanted_frame(spark, wanted), ks, recall)
    rows = frame.collect()
    assert len({row.user_id for row in rows}) == len(rows)
    return {row.user_id: (row.relevant, row.metrics) for row in rows}


def oracle(items: Sequence[str], wanted: set[str], k: int, recall: str) -> dict[str, float]:
    """The definitions, said slowly, one position after the other."""
    found, gain, precisions, first = 0, 0.0, 0.0, 0
    for position, item in enumerate(items[:k], start=1):
        if item in wanted:
            found += 1
            first = first or position
            gain += 1 / log2(position + 1)
            precisions += found / position
    best = min(k, len(wanted))
    return {
        f"recall@{k}": found / (best if recall == "min_k_relevant" else len(wanted)),
        f"precision@{k}": found / k,
        f"ndcg@{k}": gain / sum(1 / log2(position + 1) for position in range(1, best + 1)),
        f"map@{k}": precisions / best,
        f"mrr@{k}": 1 / first if first else 0.0,
        f"hit_rate@{k}": float(found > 0),
    }


def random_case(seed: int, users: int = 60, catalogue: int = 40) -> tuple[Lists, Wanted]:
    rng = random.Random(seed)
    items = [f"i{number}" for number in range(catalogue)]
    lists: Lists = {f"u{user}": rng.sample(items, rng.randrange(0, 31)) for user in range(users)}
    those = range(users // 2, users * 2)
    wanted = {f"u{user}": set(rng.sample(items, rng.randrange(1, 26))) for user in those}
    return lists, wanted


def metric_frame(spark: SparkSession, values: Sequence[float], partitions: int) -> DataFrame:
    rows = [(f"u{number}", 1, {"ndcg@10": value}) for number, value in enumerate(values)]
    frame = spark.createDataFrame(rows, "user_id string, relevant int, metrics map<string, double>")
    return of_model(frame.repartition(partitions))


def of_model(frame: DataFrame, model: str = "m") -> DataFrame:
    return frame.withColumn("model", f.lit(model))


@pytest.mark.usefixtures("ansi")
def test_each_metric_is_its_definition(spark: SparkSession) -> None:
    relevant, values = per_user(spark, {"u": list("axbyc")}, {"u": set("abcd")}, [2, 4])["u"]
    assert relevant == 4
    assert values == pytest.approx(
        {
            "recall@2": 1 / 2,
            "precision@2": 1 / 2,
            "ndcg@2": (1 / log2(2)) / (1 / log2(2) + 1 / log2(3)),
            "map@2": (1 / 1) / 2,
            "mrr@2": 1 / 1,
            "hit_rate@2": 1,
            "recall@4": 2 / 4,
            "precision@4": 2 / 4,
            "ndcg@4": (1 / log2(2) + 1 / log2(4)) / (1 / log2(2) + 1 / log2(3) + 1 / log2(4) + 1 / log2(5)),
            "map@4": (1 / 1 + 2 / 3) / 4,
            "mrr@4": 1 / 1,
            "hit_rate@4": 1,
        },
        abs=1e-15,
    )


def test_the_first_hit_counts_from_position_one_and_not_beyond_k(spark: SparkSession) -> None:
    _, values = per_user(spark, {"u": list("xya")}, {"u": {"a"}}, [2, 3])["u"]
    assert [values["mrr@2"], values["hit_rate@2"], values["ndcg@2"]] == [0, 0, 0]
    assert values["mrr@3"] == 1 / 3
    assert values["map@3"] == (1 / 3) / 1
    assert values["ndcg@3"] == (1 / log2(4)) / (1 / log2(2))
    assert values["hit_rate@3"] == 1


def test_a_perfect_list_has_exactly_one_everywhere(spark: SparkSession) -> None:
    items = [f"i{number}" for number in range(50)]
    users = {f"u{size}": items[:size] for size in range(1, 51)}
    result = per_user(spark, dict(users), {user: set(best) for user, best in users.items()}, [1, 50])
    for user, (relevant, values) in result.items():
        assert relevant == len(users[user])
        assert {values[f"{name}@50"] for name in NAMES if name != "precision"} == {1.0}
        assert values["precision@50"] == relevant / 50
        assert {values[f"{name}@1"] for name in NAMES} == {1.0}


@pytest.mark.usefixtures("ansi")
def test_users_without_a_list_count_as_zero_and_users_without_wanted_items_do_not_count(
    spark: SparkSession,
) -> None:
    lists: Lists = {"hit": ["a"], "empty": [], "null": None, "only listed": ["a"]}
    wanted = {"hit": {"a"}, "empty": {"a", "b"}, "null": {"a"}, "unlisted": {"a", "b", "c"}}
    result = per_user(spark, lists, wanted, [10])
    assert {user: relevant for user, (relevant, _) in result.items()} == {
        "hit": 1,
        "empty": 2,
        "null": 1,
        "unlisted": 3,
    }
    for user in ("empty", "null", "unlisted"):
        assert result[user][1] == {f"{name}@10": 0.0 for name in NAMES}
    assert result["hit"][1]["mrr@10"] == 1


def test_a_list_shorter_than_k_still_divides_precision_by_k(spark: SparkSession) -> None:
    _, values = per_user(spark, {"u": ["a", "x"]}, {"u": {"a", "b", "c"}}, [10])["u"]
    assert values["precision@10"] == 1 / 10
    assert values["recall@10"] == 1 / 3
    assert values["map@10"] == (1 / 1) / 3
    ideal = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert values["ndcg@10"] == pytest.approx((1 / log2(2)) / ideal, abs=1e-15)


@pytest.mark.parametrize(("recall", "expected"), [("min_k_relevant", 2 / 3), ("relevant", 2 / 5)])
def test_recall_divides_as_configured_and_nothing_else_changes(
    spark: SparkSession, recall: str, expected: float
) -> None:
    _, values = per_user(spark, {"u": list("axb")}, {"u": set("abcde")}, [3], recall)["u"]
    assert values.pop("recall@3") == expected
    assert values == pytest.approx(
        {
            "precision@3": 2 / 3,
            "ndcg@3": (1 / log2(2) + 1 / log2(4)) / (1 / log2(2) + 1 / log2(3) + 1 / log2(4)),
            "map@3": (1 / 1 + 2 / 3) / 3,
            "mrr@3": 1,
            "hit_rate@3": 1,
        },
        abs=1e-15,
    )


def test_an_item_that_stands_twice_is_one_hit(spark: SparkSession) -> None:
    _, values = per_user(spark, {"u": ["a", "a", "b"]}, {"u": {"a", "b"}}, [3])["u"]
    assert values["recall@3"] == 2 / 2
    assert values["map@3"] == pytest.approx((1 / 1 + 2 / 3) / 2, abs=1e-15)


@pytest.mark.usefixtures("ansi")
@pytest.mark.parametrize("recall", ["min_k_relevant", "relevant"])
def test_random_lists_agree_with_the_oracle(spark: SparkSession, recall: str) -> None:
    lists, wanted = random_case(seed=5)
    ks = [1, 3, 10, 20, 100]
    result = per_user(spark, lists, wanted, ks, recall)
    assert result.keys() == wanted.keys()
    for user, (relevant, values) in result.items():
        expected = {}
        for k in ks:
            expected |= oracle(lists.get(user) or [], wanted[user], k, recall)
        assert relevant == len(wanted[user])
        assert values == pytest.approx(expected, abs=1e-12, rel=0)


def test_values_of_users_are_the_same_bytes_on_any_partitioning_and_order(spark: SparkSession) -> None:
    lists, wanted = random_case(seed=6)
    expected = per_user(spark, lists, wanted, [5, 20])
    shuffled = metrics.per_user(
        lists_frame(spark, dict(reversed(lists.items()))).repartition(5),
        wanted_frame(spark, wanted).orderBy(f.rand(seed=3)).repartition(7),
        [5, 20],
    )
    assert {row.user_id: (row.relevant, row.metrics) for row in shuffled.collect()} == expected


def test_the_frame_has_the_columns_of_gold_metrics(spark: SparkSession) -> None:
    frame = metrics.per_user(lists_frame(spark, {"u": ["a"]}), wanted_frame(spark, {"u": {"a"}}), [10])
    table = SCHEMAS["gold.metrics"]
    assert frame.columns == ["user_id", "relevant", "metrics"]
    for field in frame.schema.fields:
        assert field.dataType.simpleString() == table[field.name].dataType.simpleString()


def test_lists_of_several_models_are_measured_as_each_by_itself(spark: SparkSession) -> None:
    """Each user of each model is there, whether it has a list or not."""
    models = {model: random_case(seed) for model, seed in (("a", 21), ("b", 22))}
    wanted = models["a"][1]
    frames = [of_model(lists_frame(spark, lists), model) for model, (lists, _) in models.items()]
    every = wanted_frame(spark, wanted).select("*", f.explode(f.array(f.lit("a"), f.lit("b"))).alias("model"))
    rows = metrics.per_user(frames[0].unionByName(frames[1]), every, [3, 10], n_items=40).collect()
    assert len(rows) == 2 * len(wanted)
    for model, (lists, _) in models.items():
        alone = metrics.per_user(lists_frame(spark, lists), wanted_frame(spark, wanted), [3, 10], n_items=40).collect()
        found = {row.user_id: row for row in rows if row.model == model}
        for row in alone:
            assert (found[row.user_id].relevant, found[row.user_id].metrics) == (row.relevant, row.metrics)


def test_lengths_given_twice_or_in_any_order_are_the_same_metrics(spark: SparkSession) -> None:
    lists, wanted = random_case(seed=7, users=5)
    assert per_user(spark, lists, wanted, (10, 2, 10)) == per_user(spark, lists, wanted, (2, 10))


@pytest.mark.parametrize("ks", [[], [0], [10, -1]])
def test_impossible_lengths_are_refused_by_name(spark: SparkSession, ks: list[int]) -> None:
    lists, wanted = lists_frame(spark, {"u": ["a"]}), wanted_frame(spark, {"u": {"a"}})
    with pytest.raises(ValueError, match=r"^ks: "):
        metrics.per_user(lists, wanted, ks)


def test_an_unknown_denominator_of_recall_is_refused_and_the_config_knows_the_same(
    spark: SparkSession,
) -> None:
    lists, wanted = lists_frame(spark, {"u": ["a"]}), wanted_frame(spark, {"u": {"a"}})
    with pytest.raises(ValueError, match="'k' is not one of min_k_relevant, relevant"):
        metrics.per_user(lists, wanted, [10], recall_divides_by="k")
    configured = Evaluation.model_fields["recall_divides_by"].annotation
    assert get_args(configured) == metrics.RECALL_DENOMINATORS


@pytest.mark.usefixtures("ansi")
def test_means_count_users_without_a_list_as_zero(spark: SparkSession) -> None:
    frame = metrics.per_user(
        lists_frame(spark, {"first": ["a", "x"], "second": ["x", "a"]}),
        wanted_frame(spark, {"first": {"a"}, "second": {"a"}, "unlisted": {"a"}}),
        [2],
    )
    assert metrics.means(of_model(frame))["m"] == pytest.approx(
        {
            "recall@2": (1 + 1 + 0) / 3,
            "precision@2": (1 / 2 + 1 / 2 + 0) / 3,
            "ndcg@2": (1 + 1 / log2(3) + 0) / 3,
            "map@2": (1 + 1 / 2 + 0) / 3,
            "mrr@2": (1 + 1 / 2 + 0) / 3,
            "hit_rate@2": (1 + 1 + 0) / 3,
        },
        abs=1e-15,
    )


def test_means_are_the_exact_sum_rounded_once_whatever_the_partitioning(spark: SparkSession) -> None:
    rng = random.Random(8)
    values = [rng.uniform(1 / 256, 1) for _ in range(3_000)]
    exact = float(sum(map(Fraction, values)) / len(values))
    naive = {sum(values[:at]) + sum(values[at:]) for at in range(1, 3_000, 100)}
    assert len(naive) > 1, "these values would not show a sum that depends on the partitioning"
    for partitions, ordered in ((1, values), (2, values[::-1]), (7, sorted(values))):
        assert metrics.means(metric_frame(spark, ordered, partitions)) == {"m": {"ndcg@10": exact}}


def test_means_of_values_below_one_in_256_are_rounded_no_worse_than_a_double(spark: SparkSession) -> None:
    values = [1 / 10_007, 1 / 1_000_003, 0.0, 1.0]
    mean = metrics.means(metric_frame(spark, values, 2))["m"]["ndcg@10"]
    assert abs(Fraction(mean) - sum(map(Fraction, values)) / 4) <= Fraction(1, 2**54)


def test_means_of_nobody_are_empty(spark: SparkSession) -> None:
    assert metrics.means(metric_frame(spark, [0.5], 1).where("false")) == {}


def test_means_are_exact_for_values_above_one_and_below_zero(spark: SparkSession) -> None:
    rng = random.Random(9)
    values = [rng.uniform(-20, 20) for _ in range(500)]
    exact = float(sum(map(Fraction, values)) / len(values))
    for partitions, ordered in ((1, values), (5, sorted(values))):
        assert metrics.means(metric_frame(spark, ordered, partitions)) == {
            "m": {"ndcg@10": pytest.approx(exact, 1e-15)}
        }
    assert metrics.means(metric_frame(spark, values, 3)) == metrics.means(metric_frame(spark, values[::-1], 2))


@pytest.mark.usefixtures("ansi")
def test_auc_is_that_of_a_ranking_whose_rest_is_tied_behind_the_list(spark: SparkSession) -> None:
    lists, wanted = random_case(seed=12)
    n_items, ks = 40, [1, 5, 30]
    result = {
        row.user_id: row.metrics
        for row in metrics.per_user(
            lists_frame(spark, lists), wanted_frame(spark, wanted), ks, n_items=n_items
        ).collect()
    }
    for user, items in wanted.items():
        for k in ks:
            places = {item: -at for at, item in enumerate((lists.get(user) or [])[:k])}
            scores = {f"i{number}": places.get(f"i{number}", -n_items) for number in range(n_items)}
            mine = [score for item, score in scores.items() if item in items]
            others = [score for item, score in scores.items() if item not in items]
            area = mannwhitneyu(mine, others, method="asymptotic").statistic / (len(mine) * len(others))
            assert result[user][f"auc@{k}"] == pytest.approx(area, abs=1e-12)


def test_auc_of_a_list_of_the_whole_catalogue_is_written_out(spark: SparkSession) -> None:
    frame = metrics.per_user(
        lists_frame(spark, {"u": list("axbyz"), "nothing listed": [], "wants all": list("ba")}),
        wanted_frame(spark, {"u": {"a", "b"}, "nothing listed": {"a"}, "wants all": set("abxyz")}),
        [5],
        n_items=5,
    )
    found = {row.user_id: row.metrics["auc@5"] for row in frame.collect()}
    assert found == {"u": (3 + 2) / (2 * 3), "nothing listed": 1 / 2, "wants all": 1 / 2}


def test_auc_of_what_is_not_in_the_catalogue_is_tied_behind_it(spark: SparkSession) -> None:
    """Wanted are a, listed first, and new, which no list may hold: of the catalogue's b and c both are behind a."""
    wanted = spark.createDataFrame(
        [("u", "a", True), ("u", "new", False)], "user_id string, item_id string, known boolean"
    )
    frame = metrics.per_user(lists_frame(spark, {"u": ["a", "b"]}), wanted, [2], n_items=3)
    assert frame.collect()[0].metrics["auc@2"] == (2 + 1 / 2) / (2 * 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_accuracy_agrees_with_trec_eval(spark: SparkSession) -> None:
    """ir-measures runs trec_eval itself. Its AP divides by all wanted items, ours by those that fit the list.

    Its RR knows no k, so it is given lists of k items.
    """
    import ir_measures
    from ir_measures import AP, RR, P, R, Success, nDCG

    lists, wanted = random_case(seed=13)
    ks = [1, 5, 20, 30]
    ours = per_user(spark, lists, wanted, ks, "relevant")
    judged = [ir_measures.Qrel(user, item, 1) for user, items in wanted.items() for item in items]
    compared = 0
    for k in ks:
        runs = [
            ir_measures.ScoredDoc(user, item, -float(at))
            for user, items in lists.items()
            for at, item in enumerate((items or ())[:k])
        ]
        names = {
            "ndcg": nDCG @ k,
            "precision": P @ k,
            "recall": R @ k,
            "hit_rate": Success @ k,
            "map": AP @ k,
            "mrr": RR,
        }
        measures = {str(measure): name for name, measure in names.items()}
        for row in ir_measures.iter_calc(list(names.values()), judged, runs):
            if lists.get(row.query_id):
                name, r = measures[str(row.measure)], len(wanted[row.query_id])
                expected = row.value * (r / min(k, r) if name == "map" else 1)
                assert ours[row.query_id][1][f"{name}@{k}"] == pytest.approx(expected, abs=1e-9)
                compared += 1
    assert compared > 25 * len(ks) * len(NAMES)
