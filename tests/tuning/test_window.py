import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from recsys_spark.errors import DataError
from recsys_spark.tuning.window import Window, window


def test_what_a_user_dislikes_is_hidden_and_no_history_and_what_she_has_seen_is_both(spark: SparkSession) -> None:
    """Of user u: a seen, b disliked, c wanted; user v wants nothing and is not judged."""
    marked = spark.createDataFrame(
        [("u", "a", True, False, 2, 3.0), ("u", "b", False, True, 1, 0.0), ("v", "a", True, False, 1, 1.0)],
        "user_id string, item_id string, core boolean, hidden boolean, events long, total_0 double",
    )
    popular = spark.createDataFrame(
        [("a", 2.0, 3, 2, 10.0), ("c", 1.0, 1, 1, 10.0)],
        "item_id string, popularity double, events long, users long, user_days double",
    )
    users = spark.createDataFrame([("u", 0), ("v", 1)], "user_id string, user_index int")
    items = spark.createDataFrame([("a", 0), ("b", 1), ("c", 2)], "item_id string, item_index int")
    wanted = spark.createDataFrame([("u", "c")], "user_id string, item_id string")
    for hide, hidden in ((f.lit(True), [0, 1]), (f.lit(False), [1])):
        found = window(marked, 2, wanted, popular, ["popularity"], users, items, hide, 100, 1, 10)
        assert found.sample.n_users == 1
        assert found.sample.hidden.tolist() == hidden and found.sample.wanted.tolist() == [2]
        assert found.items(0)[0].tolist() == [0], "b is in no core"
        histories = found.histories(0, "sum")
        assert (histories.offsets.tolist(), histories.items.tolist(), histories.weights.tolist()) == (
            [0, 1],
            [0],
            [3.0],
        )
        assert np.array_equal(found.popularities[0], np.array([2, 0, 1], np.float32))
        assert found.comebacks[0] > found.comebacks[2] > 0
        found.close()


def of_two_lives(spark: SparkSession, wanted: str) -> Window:
    """A window on a user of a, long ago, and b, lately, of which a weighs nothing with the shorter half-life."""
    marked = spark.createDataFrame(
        [("u", "a", True, False, 1, 1.0, 0.0), ("u", "b", True, False, 1, 1.0, 0.5)],
        "user_id string, item_id string, core boolean, hidden boolean, events long, total_0 double, total_1 double",
    )
    popular = spark.createDataFrame(
        [("a", 1.0, 1, 1, 10.0)], "item_id string, popularity double, events long, users long, user_days double"
    )
    users = spark.createDataFrame([("u", 0)], "user_id string, user_index int")
    items = spark.createDataFrame([("a", 0), ("b", 1), ("c", 2)], "item_id string, item_index int")
    asked = spark.createDataFrame([("u", wanted)], "user_id string, item_id string")
    return window(marked, 2, asked, popular, ["popularity"], users, items, f.lit(True), 100, 1, 10)


def test_what_weighs_nothing_with_a_half_life_is_not_trained_on_with_it(spark: SparkSession) -> None:
    found = of_two_lives(spark, "c")
    both, one = found.items(0), found.items(1)
    assert both[0].tolist() == [0, 1] and one[0].tolist() == [1] and one[1].tolist() == both[1][1:].tolist()
    sizes = [found.blocks(life, "sum").n_entries for life in (0, 1)]
    assert sizes == [2, 1]
    found.close()


def test_what_is_wanted_and_has_no_index_is_refused(spark: SparkSession) -> None:
    with pytest.raises(DataError, match=r"1 pairs are of users or items that .* do not have; run build_features"):
        of_two_lives(spark, "new")
