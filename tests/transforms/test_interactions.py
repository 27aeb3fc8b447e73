"""Weights of pairs against the formula written out, whatever the order of events and the partitions."""

import datetime as dt
import math
import random
from collections import defaultdict
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from recsys_spark.config import Evaluation, Features
from recsys_spark.topk.repeats import COMEBACKS
from recsys_spark.transforms.interactions import (
    exact_sum,
    interactions,
    is_negative,
    item_features,
    pair_totals,
    popularities,
    wanted,
    with_event_types,
)
from tests.generated import through_spark

SCHEMA = "user_id string, item_id string, time timestamp, event string, value double"
AS_OF = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
Event = tuple[str, str, dt.datetime | None, str | None, float | None]


def frame(spark: SparkSession, rows: list[Event], partitions: int = 2) -> DataFrame:
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, partitions), SCHEMA)


def weights(spark: SparkSession, rows: list[Event], as_of: dt.datetime | None = AS_OF, **how: Any) -> dict[str, Any]:
    """(weight, hidden) by item, of one user's events."""
    found = interactions(frame(spark, rows), Features.model_validate(how), as_of).collect()
    return {row["item_id"]: (row["weight"], row["hidden"]) for row in found}


def events(*rows: tuple[str, str | None, float | None]) -> list[Event]:
    """Events of one user, one a day back from AS_OF: (item, type, value)."""
    return [("u", item, AS_OF - DAY * place, event, value) for place, (item, event, value) in enumerate(rows, 1)]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"value": "ignore"}, {"a": 3.0, "b": 1.0}),
        ({"value": "multiply"}, {"a": 0.5 + 2 + 100, "b": 0.0}),
        ({"value": "multiply", "value_cap": 10}, {"a": 0.5 + 2 + 10, "b": 0.0}),
        ({"value": "log1p"}, {"a": math.log1p(0.5) + math.log1p(2) + math.log1p(100), "b": 0.0}),
        ({"value": "log1p", "value_cap": 2}, {"a": math.log1p(0.5) + 2 * math.log1p(2), "b": 0.0}),
        ({"value": "threshold", "value_threshold": 2}, {"a": 2.0, "b": 0.0}),
        ({"value": "multiply", "transform": "mean"}, {"a": 102.5 / 3, "b": 0.0}),
        ({"value": "multiply", "transform": "log1p"}, {"a": math.log1p(102.5), "b": 0.0}),
        ({"value": "multiply", "transform": "binary"}, {"a": 1.0, "b": 0.0}),
    ],
)
def test_a_value_weighs_as_the_formula_says(spark: SparkSession, how: dict[str, Any], expected: Any) -> None:
    found = weights(spark, events(("a", None, 0.5), ("a", None, 2.0), ("b", None, 0.0), ("a", None, 100.0)), **how)
    assert {item: weight for item, (weight, _) in found.items()} == pytest.approx(expected, abs=1e-8)
    assert not any(hidden for _, hidden in found.values())


def test_an_event_against_the_item_takes_weight_away_and_hides_it_when_nothing_is_left(spark: SparkSession) -> None:
    how = {"events": {"buy": 2.0, "view": 0.5, "return": -2.0}}
    found = weights(
        spark,
        events(
            ("kept", "buy", None), ("kept", "buy", None), ("kept", "return", None),
            ("gone", "buy", None), ("gone", "return", None),
            ("seen", "view", None), ("never", "return", None),
        ),
        **how,
    )  # fmt: skip
    assert found == {"kept": (2.0, False), "gone": (0.0, True), "seen": (0.5, False), "never": (0.0, True)}


def test_a_return_is_younger_than_its_purchase_and_so_weighs_more(spark: SparkSession) -> None:
    rows = [("u", "a", AS_OF - 2 * DAY, "buy", None), ("u", "a", AS_OF - DAY, "return", None)]
    how = {"events": {"buy": 1.0, "return": -1.0}, "half_life": "1d"}
    assert weights(spark, rows, **how) == {"a": (0.0, True)}
    assert weights(spark, [*rows, ("u", "a", AS_OF, "buy", None)], **how) == {"a": (0.75, False)}  # 1/4 − 1/2 + 1


@pytest.mark.parametrize("value", ["ignore", "multiply", "log1p"])
def test_a_quantity_below_zero_speaks_against_the_item(spark: SparkSession, value: str) -> None:
    rows = events(("a", None, 3.0), ("a", None, -3.0), ("b", None, 3.0), ("b", None, 3.0), ("b", None, -3.0))
    one = {"ignore": 1.0, "multiply": 3.0, "log1p": math.log1p(3)}[value]
    found = weights(spark, rows, value=value)
    assert found == {"a": (0.0, True), "b": (pytest.approx(one, abs=1e-8), False)}


def test_a_dislike_hides_the_item_whatever_else_the_user_did_with_it(spark: SparkSession) -> None:
    rows = events(("a", "view", None), ("a", "dislike", None), ("a", "view", None), ("b", "view", None))
    for how in ({"events": {"view": 5.0}}, {}):
        found = weights(spark, rows, hides=["dislike"], transform="binary", **how)
        assert found == {"a": (0.0, True), "b": (1.0, False)}


def test_ratings_below_zero_are_kept_where_the_configuration_says_so(spark: SparkSession) -> None:
    rows = events(("a", None, -4.0), ("a", None, -2.0), ("b", None, 1.0))
    found = weights(spark, rows, value="multiply", transform="mean", negative="keep")
    assert found == {"a": (-3.0, False), "b": (1.0, False)}


def test_hidden_pairs_make_no_item_popular(spark: SparkSession) -> None:
    rows = [("u", "a", AS_OF, "view", None), ("v", "a", AS_OF, "dislike", None), ("w", "b", AS_OF, "dislike", None)]
    pairs = interactions(frame(spark, rows), Features(events={"view": 1.0}, hides=("dislike",)), AS_OF)
    found = {row["item_id"]: row for row in item_features(pairs, AS_OF, DAY).collect()}
    popular = {item: (row["users"], row["popularity"], row["popularity_decayed"]) for item, row in found.items()}
    assert popular == {"a": (2, 1.0, 1.0), "b": (1, 0.0, 0.0)}


def test_what_weighs_nothing_makes_no_item_popular_and_what_weighed_something_long_ago_does(
    spark: SparkSession,
) -> None:
    """A look weighs nothing; of a purchase sixty half-lives ago 2^-60 is left, which is nothing either."""
    rows: list[Event] = [
        ("u", "a", AS_OF, "look", None),
        ("v", "a", AS_OF, "look", None), ("v", "a", AS_OF - 2 * DAY, "buy", None), ("v", "a", AS_OF, "return", None),
        ("w", "a", AS_OF - DAY, "buy", None),
        ("u", "b", AS_OF, "look", None),
        ("u", "c", AS_OF - 60 * DAY, "buy", None),
        ("u", "d", AS_OF, "hate", None),
    ]  # fmt: skip
    events = {"look": 0.0, "buy": 1.0, "return": -0.1}
    how = Features.model_validate({"events": events, "hides": ["hate"], "half_life": "1d",
                                    "popularity_half_life": "2d"})  # fmt: skip
    log = frame(spark, rows)
    pairs = interactions(log, how, AS_OF)
    assert {tuple(row) for row in pairs.where("weight = 0").select("user_id", "item_id").collect()} == {
        ("u", "a"), ("u", "b"), ("u", "c"), ("u", "d"),
    }  # fmt: skip
    found = {row["item_id"]: row for row in item_features(pairs, AS_OF, 2 * DAY).collect()}
    assert {item: (row["users"], row["popularity"]) for item, row in found.items()} == {
        "a": (3, 2.0), "b": (1, 0.0), "c": (1, 1.0), "d": (1, 0.0),
    }  # fmt: skip
    assert found["a"]["popularity_decayed"] == pytest.approx(2**-1 + 2**-0.5)
    assert found["a"]["adoptions_decayed"] == pytest.approx(2**-1 + 2**-0.5)
    assert found["b"]["popularity_decayed"] == found["b"]["adoptions_decayed"] == 0
    several = {row["item_id"]: row for row in popularities(log, how, AS_OF, [9 * DAY, 2 * DAY]).collect()}
    assert set(several) == set(found)
    for item, row in found.items():
        for name, value in row.asDict().items():
            assert several[item][f"{name}_1" if name.endswith("_decayed") else name] == value, (item, name)


def test_the_days_that_users_have_had_an_item_are_counted_from_their_first_event_of_it(spark: SparkSession) -> None:
    ago = [("u", "a", 4), ("u", "a", 1), ("v", "a", 2), ("v", "b", 8)]
    rows = [(user, item, AS_OF - dt.timedelta(days=days), "view", None) for user, item, days in ago]
    log, how = frame(spark, rows), Features()
    whole = item_features(interactions(log, how, AS_OF), AS_OF, DAY).collect()
    assert {row["item_id"]: (row["events"], row["users"], row["user_days"]) for row in whole} == {
        "a": (3, 2, 4.0 + 2.0),
        "b": (1, 1, 8.0),
    }
    other = popularities(log, how, AS_OF, [DAY]).collect()
    assert [[row[name] for name in COMEBACKS] for row in sorted(other)] == [
        [row[name] for name in COMEBACKS] for row in sorted(whole)
    ]
    assert {row["user_days"] for row in item_features(interactions(log, how, None), None, DAY).collect()} == {None}


def test_the_types_of_a_pair_are_sorted_and_those_that_hide_are_among_them(spark: SparkSession) -> None:
    rows = events(("a", "view", None), ("a", "buy", None), ("a", "dislike", None), ("b", "view", None))
    how = Features(events={"view": 1.0, "buy": 2.0}, hides=("dislike",))
    pairs = with_event_types(interactions(frame(spark, rows), how, AS_OF), how)
    found = {row["item_id"]: row["event_types"] for row in pairs.collect()}
    assert found == {"a": ["buy", "dislike", "view"], "b": ["view"]}


LOG = st.lists(
    st.tuples(
        st.sampled_from(["u", "null", "0"]),
        st.sampled_from(["a", "b", "😀"]),
        st.integers(0, 10**7).map(lambda seconds: AS_OF - dt.timedelta(seconds=seconds)),
        st.sampled_from(["view", "buy", "return", "dislike"]),
        st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3)),
    ),
    min_size=30,
    max_size=30,
)


@pytest.mark.generated
@pytest.mark.parametrize("value", ["ignore", "multiply", "log1p"])
def test_weights_are_the_same_bytes_whatever_the_order_and_the_partitions(spark: SparkSession, value: str) -> None:
    how = Features.model_validate(
        {
            "events": {"view": 0.3, "buy": 1.7, "return": -1.1},
            "hides": ["dislike"],
            "value": value,
            "half_life": "7d",
        }
    )

    @through_spark()
    @given(LOG, st.randoms(use_true_random=False))
    def check(rows: list[Event], draw: random.Random) -> None:
        found = sorted(map(tuple, interactions(frame(spark, rows), how, AS_OF).collect()))
        mixed = draw.sample(rows, len(rows))
        assert sorted(map(tuple, interactions(frame(spark, mixed, 7), how, AS_OF).collect())) == found
        sums: dict[tuple[str, str], float] = defaultdict(float)
        against = set()
        for user, item, time, event, amount in rows:
            size = {"ignore": math.copysign(1, amount or 1), "multiply": amount}.get(
                value, math.copysign(math.log1p(abs(amount)), amount)
            )
            kind = {"view": 0.3, "buy": 1.7, "return": -1.1, "dislike": 0}[event]
            sums[user, item] += kind * size * 2 ** (-(AS_OF - time) / (7 * DAY))
            if event in ("return", "dislike") or amount < 0:
                against.add((user, item))
        disliked = {(user, item) for user, item, _, event, _ in rows if event == "dislike"}
        for pair in found:
            key = (pair[0], pair[1])
            hidden = key in disliked or (key in against and sums[key] <= 0)
            assert pair[5] == hidden or abs(sums[key]) < 1e-6
            assert pair[2] == pytest.approx(0 if hidden else sums[key], rel=1e-9, abs=1e-6)

    check()


def test_sums_of_far_more_than_two_thousand_million_are_exact(spark: SparkSession) -> None:
    """A week of views of one item, or the ratings of a log, in thirds: the sum of the nearest 2^-32s, rounded once."""
    values = [value / 3 for value in (1, 10**10, -(10**12), 10**13, 2, 10**13)]
    frame = spark.createDataFrame([(value,) for value in values], "value double")
    whole = sum(round(Fraction(value) * 2**32) for value in values)
    found = frame.repartition(3).agg(exact_sum(f.col("value"))).first()
    assert found is not None and found[0] == float(Fraction(whole, 2**32))


def test_small_numbers_add_up_to_the_same_bytes_in_one_integer(spark: SparkSession) -> None:
    draw = random.Random(0)
    ties = [(place + 0.5) / 2**32 for place in range(-9, 9)]
    values = [*ties, -16.0, 16.0, *(draw.uniform(-16, 16) for _ in range(200))]
    frame = spark.createDataFrame([(key % 40, value) for key, value in enumerate(values)], "key int, value double")
    sums = (exact_sum(f.col("value")).alias("wide"), exact_sum(f.col("value"), small=True).alias("narrow"))
    found = frame.groupBy("key").agg(*sums).collect()
    assert [row["narrow"] for row in found] == [row["wide"] for row in found]


def test_what_weighs_nothing_is_no_wish_either(spark: SparkSession) -> None:
    """A rating below the threshold is no hit of a list; a published test file without values is all wishes."""
    rows = frame(spark, events(("good", None, 4.0), ("bad", None, 3.0), ("untold", None, None)))
    how = Features(value="threshold", value_threshold=4)
    found = wanted(rows, rows.limit(0), how, Evaluation()).select("item_id").collect()
    assert sorted(row[0] for row in found) == ["good", "untold"]


def test_half_lives_that_leave_less_than_nothing_of_a_pair_leave_nothing(spark: SparkSession) -> None:
    """Bought a month ago and given back now: without a half-life it counts, with one of five days it is gone."""
    how = Features(events={"buy": 2.0, "return": -1.0})
    old, now = AS_OF - 30 * DAY, AS_OF
    rows = frame(spark, [("u", "i", old, "buy", None), ("u", "i", now, "return", None)])
    found = pair_totals(rows, how, AS_OF, [None, 5 * DAY]).first()
    assert found is not None and (found["total_0"], found["total_1"], found["hidden"]) == (1.0, 0.0, False)


def test_what_speaks_against_an_item_is_no_wish_for_it(spark: SparkSession) -> None:
    rows = events(
        ("a", "buy", 1.0), ("b", "buy", -1.0), ("c", "return", 1.0), ("d", "dislike", None), ("e", None, None)
    )
    how = Features(events={"buy": 1.0, "return": -1.0}, hides=("dislike",))
    wanted = frame(spark, rows).where(~is_negative(how)).select("item_id").collect()
    assert sorted(row[0] for row in wanted) == ["a", "e"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"events": {"buy": 1}, "hides": ["buy"]}, "hides: buy has a weight"),
        ({"value": "threshold"}, "value_threshold need one another"),
        ({"value_threshold": 2}, "value_threshold need one another"),
        ({"negative": "keep", "transform": "log1p"}, "negative: keep needs transform: sum or mean"),
    ],
)
def test_weights_that_contradict_one_another_are_refused(how: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Features.model_validate(how)
