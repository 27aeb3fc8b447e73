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


def of_model(lists_of: DataFrame) -> DataFrame:
    return lists_of.withColumn("model", f.lit("m"))


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


def exposed(lists_of_models: DataFrame, n_items: int, ks: list[int]) -> dict[str, dict[str, float]]:
    return exposure.exposure(exposure.item_counts(lists_of_models, ks), n_items, ks)


def test_coverage_agrees_with_rectools_and_gini_with_the_mean_difference_of_all_pairs(spark: SparkSession) -> None:
    n_items, ks = len(REFERENCE["categories"]), REFERENCE["ks"]
    found = exposed(of_model(frame(spark, REFERENCE["lists"])), n_items, ks)["m"]
    for k in ks:
        assert found[f"coverage@{k}"] == pytest.approx(REFERENCE["expected"][f"coverage@{k}"], abs=1e-9)
        shown = [item for items in REFERENCE["lists"].values() for item in items[:k]]
        counts = np.array([shown.count(item) for item in REFERENCE["categories"]], float)
        apart = np.abs(counts[:, None] - counts).mean()
        assert found[f"gini@{k}"] == pytest.approx(apart / (2 * counts.mean()), abs=1e-9)


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
    assert ABCD.mean_popularity() == (8 + 4 + 1 + 0) / 8 / 4
    assert ABCD.popularity_lift(found["u"]["popularity@4"]) == 1, "a list of the whole catalogue"
    assert ABCD.popularity_lift(found["u"]["popularity@2"]) == pytest.approx((8 + 4) / 2 / ((8 + 4 + 1 + 0) / 4))


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
    found = exposed(of_model(given), 8, [1, 2, 3, 10])["m"]
    assert {name: value for name, value in found.items() if name.startswith("coverage")} == {
        "coverage@1": len({"a", "b"}) / 8,
        "coverage@2": len({"a", "b"}) / 8,
        "coverage@3": len({"a", "b", "c", "d"}) / 8,
        "coverage@10": len({"a", "b", "c", "d", "e"}) / 8,
    }


def test_gini_is_0_where_all_are_shown_alike_and_its_most_where_one_is_shown_to_all(spark: SparkSession) -> None:
    alike = of_model(frame(spark, {"u": ["a", "b"], "v": ["c", "d"]}))
    one = of_model(frame(spark, {"u": ["a"], "v": ["a"]}))
    assert exposed(alike, 4, [2])["m"]["gini@2"] == 0
    assert exposed(one, 4, [2])["m"]["gini@2"] == 1 - 1 / 4


def test_without_lists_coverage_is_zero_and_there_is_no_gini_and_no_catalogue_is_refused(spark: SparkSession) -> None:
    nobody = of_model(frame(spark, {"u": []}))
    assert exposed(nobody, 5, [10]) == {"m": {"coverage@10": 0.0}}
    with pytest.raises(ValueError, match=r"^n_items: 0 is not ≥ 1"):
        exposed(nobody, 0, [10])


@pytest.mark.parametrize("ks", [[], [0], [10, -1]])
def test_impossible_lengths_are_refused_by_name(spark: SparkSession, ks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^ks: "):
        exposed(frame(spark, {"u": ["a"]}), 10, ks)
    with pytest.raises(ValueError, match=r"^ks: "):
        lists.per_list(frame(spark, {"u": ["a"]}), ABCD, ks)
