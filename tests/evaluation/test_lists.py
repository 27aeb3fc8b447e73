"""What lists are like and show of the catalogue, against RecTools and written-out arithmetic."""

import json
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from recsys_spark.config import ACCURACY, PROPERTIES, Evaluation
from recsys_spark.evaluation import exposure, lists, metrics
from recsys_spark.schemas import RANKED_ITEMS

REFERENCE = json.loads((Path(__file__).parent / "reference" / "rectools.json").read_text())
ABCD = lists.Catalogue(pa.array(list("abcd")), np.array([8, 4, 1, 0]), 8, np.array([0, 0, 1, -1], np.int32))


def frame(spark: SparkSession, by_user: dict[str, list[str] | None]) -> DataFrame:
    rows = [
        (user, None if items is None else [(item, -float(at), None) for at, item in enumerate(items)])
        for user, items in by_user.items()
    ]
    return spark.createDataFrame(rows, f"user_id string, items {RANKED_ITEMS.simpleString()}")


def catalogue(reference: dict[str, Any]) -> lists.Catalogue:
    items = sorted(reference["categories"])
    pairs = reference["history"]
    users = np.array([sum(item == had for _, had in pairs) for item in items])
    categories = np.array([int(reference["categories"][item][1:]) for item in items], np.int32)
    return lists.Catalogue(pa.array(items), users, len({user for user, _ in pairs}), categories)


def test_popularity_novelty_and_diversity_agree_with_rectools(spark: SparkSession) -> None:
    measured = lists.per_list(frame(spark, REFERENCE["lists"]), catalogue(REFERENCE), REFERENCE["ks"])
    ours = {row.user_id: row.metrics for row in measured.collect()}
    compared = 0
    for name, values in REFERENCE["expected"].items():
        if isinstance(values, dict):
            for user, value in values.items():
                if name.startswith("diversity") and len(REFERENCE["lists"][user]) < 2:
                    assert name not in ours[user], "RecTools calls it 0"
                    continue
                assert ours[user][name] == pytest.approx(value, abs=1e-9)
                compared += 1
    assert compared > 200
    assert {user for user, values in ours.items() if not values} == {
        user for user, items in REFERENCE["lists"].items() if not items
    }


def exposed(lists_of: DataFrame, users: dict[str, int], ks: list[int]) -> dict[str, float]:
    """What lists make of a catalogue, given as how many users had each item."""
    catalogue = lists_of.sparkSession.createDataFrame(list(users.items()), "item_id string, users bigint")
    counts = exposure.item_counts(lists_of.withColumn("model", f.lit("m")), catalogue, ks)
    (found,) = exposure.exposure(counts).values()
    return found


def test_coverage_agrees_with_rectools_and_gini_with_the_mean_difference_of_all_pairs(spark: SparkSession) -> None:
    ks, users = REFERENCE["ks"], catalogue(REFERENCE)
    had = dict(zip(users.item_ids.to_pylist(), users.users.tolist(), strict=True))
    found = exposed(frame(spark, REFERENCE["lists"]), had, ks)
    for k in ks:
        assert found[f"coverage@{k}"] == pytest.approx(REFERENCE["expected"][f"coverage@{k}"], abs=1e-9)
        shown = [item for items in REFERENCE["lists"].values() for item in items[:k]]
        counts = np.array([shown.count(item) for item in REFERENCE["categories"]], float)
        apart = np.abs(counts[:, None] - counts).mean()
        assert found[f"gini@{k}"] == pytest.approx(apart / (2 * counts.mean()), abs=1e-9)
        places = np.mean([had[item] for item in shown])
        assert found[f"popularity_lift@{k}"] == pytest.approx(places / np.mean(list(had.values())), abs=1e-9)


def test_each_property_of_a_list_is_its_definition(spark: SparkSession) -> None:
    by_user = {"u": ["a", "b", "c", "d"], "one": ["c"], "strange": ["x", "d"], "none": [], "null": None}
    found = {row.user_id: row.metrics for row in lists.per_list(frame(spark, by_user), ABCD, [2, 4]).collect()}
    assert found["u"] == pytest.approx(
        {
            "popularity@2": (8 / 8 + 4 / 8) / 2,
            "novelty@2": (-log2(8 / 8) - log2(4 / 8)) / 2,
            "diversity@2": 0 / 1,
            "popularity@4": (8 + 4 + 1 + 0) / 8 / 4,
            "novelty@4": -(log2(8 / 8) + log2(4 / 8) + log2(1 / 8) + log2(1 / 8)) / 4,
            "diversity@4": 5 / 6,
        },
        abs=1e-15,
    )
    assert found["one"] == {f"{name}@{k}": v for name, v in (("popularity", 1 / 8), ("novelty", 3.0)) for k in (2, 4)}
    assert found["strange"]["novelty@2"] == 3 and found["strange"]["popularity@2"] == 0
    assert found["strange"]["diversity@2"] == 1, "an item without category is like no other"
    assert found["none"] == found["null"] == {}


def test_the_configuration_knows_every_metric_that_a_user_has(spark: SparkSession) -> None:
    """It counts them, for the replicates that their comparison takes, and takes no other name for one of the gate's."""
    given, wanted = (
        frame(spark, {"u": ["a", "b"]}),
        spark.createDataFrame([("u", "a")], "user_id string, item_id string"),
    )
    (own,) = metrics.per_user(given, wanted, [1, 2], n_items=4).collect()
    (alone,) = lists.per_list(given, ABCD, [1, 2]).collect()
    assert {name.partition("@")[0] for name in (*own.metrics, *alone.metrics)} == {*ACCURACY, *PROPERTIES}
    assert len(own.metrics) + len(alone.metrics) == Evaluation(k=(1, 2)).metrics_of_a_user() - 1, "no pair within 1"


def test_a_catalogue_without_categories_has_no_diversity(spark: SparkSession) -> None:
    plain = lists.Catalogue(ABCD.item_ids, ABCD.users, ABCD.n_users)
    (row,) = lists.per_list(frame(spark, {"u": ["a", "b"]}), plain, [2]).collect()
    assert set(row.metrics) == {"popularity@2", "novelty@2"}


def test_lists_of_several_models_keep_the_names_of_these(spark: SparkSession) -> None:
    two = frame(spark, {"u": ["a"]}).withColumn("model", f.explode(f.array(f.lit("one"), f.lit("two"))))
    found = {(row.model, row.user_id): row.metrics["popularity@1"] for row in lists.per_list(two, ABCD, [1]).collect()}
    assert found == {("one", "u"): 1, ("two", "u"): 1}


def test_what_lists_are_like_is_the_same_bytes_on_any_partitioning(spark: SparkSession, monkeypatch) -> None:
    measured = []
    for entries, partitions in ((2**20, 1), (30, 5)):
        monkeypatch.setattr(lists, "_ENTRIES", entries)
        given = frame(spark, REFERENCE["lists"]).repartition(partitions)
        rows = lists.per_list(given, catalogue(REFERENCE), [5, 10]).collect()
        measured.append({row.user_id: row.metrics for row in rows})
    assert measured[0] == measured[1] and len(measured[0]) == len(REFERENCE["lists"])


def test_coverage_is_the_share_of_the_catalogue_within_the_first_k_of_some_list(spark: SparkSession) -> None:
    given = frame(spark, {"u": ["a", "b", "c"], "v": ["b", "a", "d", "e"], "w": [], "n": None})
    found = exposed(given, dict.fromkeys("abcdefgh", 1), [1, 2, 3, 10])
    assert {name: value for name, value in found.items() if name.startswith("coverage")} == {
        "coverage@1": len({"a", "b"}) / 8,
        "coverage@2": len({"a", "b"}) / 8,
        "coverage@3": len({"a", "b", "c", "d"}) / 8,
        "coverage@10": len({"a", "b", "c", "d", "e"}) / 8,
    }


def test_gini_is_0_where_all_are_shown_alike_and_its_most_where_one_is_shown_to_all(spark: SparkSession) -> None:
    users = dict.fromkeys("abcd", 3)
    assert exposed(frame(spark, {"u": ["a", "b"], "v": ["c", "d"]}), users, [2])["gini@2"] == 0
    assert exposed(frame(spark, {"u": ["a"], "v": ["a"]}), users, [2])["gini@2"] == 1 - 1 / 4


def test_lift_is_the_popularity_of_places_over_that_of_a_mean_item(spark: SparkSession) -> None:
    users = {"a": 8, "b": 4, "c": 1, "d": 0}
    found = exposed(frame(spark, {"u": ["a", "b", "c", "d"], "v": ["a"]}), users, [1, 4])
    assert found["popularity_lift@1"] == 8 / (13 / 4)
    assert found["popularity_lift@4"] == pytest.approx((13 + 8) / 5 / (13 / 4))
    assert exposed(frame(spark, {"u": list(users)}), users, [4])["popularity_lift@4"] == 1, "the whole catalogue"


def test_an_item_beyond_the_catalogue_is_one_that_nobody_had(spark: SparkSession) -> None:
    found = exposed(frame(spark, {"u": ["a", "x"]}), {"a": 2, "b": 1}, [2])
    assert found == pytest.approx({"coverage@2": 2 / 3, "gini@2": 1 / 3, "popularity_lift@2": (2 + 0) / 2 / (3 / 3)})


def test_each_model_has_a_row_of_every_item_and_lists_nothing_where_its_lists_are_empty(spark: SparkSession) -> None:
    lists_of = frame(spark, {"u": [], "v": ["a"]})
    of_models = lists_of.withColumn("model", f.when(f.col("user_id") == "u", "none").otherwise("one"))
    catalogue = spark.createDataFrame([("a", 3), ("b", 2)], "item_id string, users bigint")
    counts = exposure.item_counts(of_models, catalogue, [1, 2])
    assert sorted(map(tuple, counts.collect())) == [
        ("none", "a", 3, {1: 0, 2: 0}), ("none", "b", 2, {1: 0, 2: 0}),
        ("one", "a", 3, {1: 1, 2: 1}), ("one", "b", 2, {1: 0, 2: 0}),
    ]  # fmt: skip
    assert exposure.exposure(counts)["none"] == {"coverage@1": 0.0, "coverage@2": 0.0}


@pytest.mark.parametrize("ks", [[], [0], [10, -1]])
def test_impossible_lengths_are_refused_by_name(spark: SparkSession, ks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^ks: "):
        exposed(frame(spark, {"u": ["a"]}), {"a": 1}, ks)
    with pytest.raises(ValueError, match=r"^ks: "):
        lists.per_list(frame(spark, {"u": ["a"]}), ABCD, ks)
