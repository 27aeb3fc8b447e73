"""Point-in-time features against the arithmetic written out in Python."""

import datetime as dt
import math
import random
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from recsys_spark.config import Features
from recsys_spark.schemas import SCHEMAS
from recsys_spark.transforms import features
from recsys_spark.transforms.features import Moment
from recsys_spark.transforms.interactions import interactions
from recsys_spark.transforms.interactions import item_features as popularity

SCHEMA = "user_id string, item_id string, time timestamp, event string, value double, measures array<double>"
AS_OF = dt.datetime(2024, 4, 2, tzinfo=dt.UTC)  # two days after summer time began in Europe
DAY = dt.timedelta(days=1)
ZONE = ZoneInfo("Europe/Paris")
WINDOWS = tuple(DAY * days for days in (1, 7, 28, 90))
MOMENT = Moment(AS_OF, WINDOWS, 7 * DAY, "Europe/Paris", ("price", "spend"), {"price": 2.0, "spend": 8.0})
ALL = tuple(features.GATHERED)
Event = tuple[str, str, dt.datetime, None, None, list[float | None]]


def log(seed: int = 1) -> list[Event]:
    """Events of ten users over 100 days, some exactly at the edge of a window; some have no price."""
    draw = random.Random(seed)
    users = ["null", "0", "👩‍👩‍👧", *(f"u{n}" for n in range(7))]
    ages = [dt.timedelta(seconds=draw.randrange(1, 100 * 86400)) for _ in range(150)]
    ages += [7 * DAY, 7 * DAY + dt.timedelta(microseconds=1), 14 * DAY, 90 * DAY, dt.timedelta(microseconds=1)]
    return [
        (
            users[n % len(users)],
            f"i{draw.randrange(8)}",
            AS_OF - age,
            None,
            None,
            [draw.choice([None, 1.25, 2.5]), draw.randrange(1, 9) * 0.5],
        )
        for n, age in enumerate(ages)
    ]


def frame(spark: SparkSession, rows: list[Event], partitions: int = 2) -> DataFrame:
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, partitions), SCHEMA)


def by_key(data: DataFrame, key: str) -> dict[str, Row]:
    return {row[key]: row for row in data.collect()}


def of_users(spark: SparkSession, rows: list[Event], names: tuple[str, ...] = ALL, partitions: int = 2) -> Any:
    events = frame(spark, rows, partitions)
    pairs = interactions(events, Features(), AS_OF)
    return by_key(features.user_features(pairs, events, names, MOMENT), "user_id")


def expected(own: list[Event]) -> dict[str, Any]:
    """The features of a group of events, as their docstrings say."""
    ages = [AS_OF - row[2] for row in own]
    now = sum(age <= 7 * DAY for age in ages)
    before = sum(7 * DAY < age <= 14 * DAY for age in ages)
    prices = [row[5][0] for row in own if row[5][0] is not None]
    spends = [row[5][1] for row in own]
    sums = {}
    for name, values in (("price", [row[5][0] or 0.0 for row in own]), ("spend", spends)):
        sums[name] = sum(values)
        for days in (1, 7, 28, 90):
            inside = [value for value, age in zip(values, ages, strict=True) if age <= days * DAY]
            sums[f"{name}_{days}d"] = sum(inside)
    price = sum(prices) / len(prices) if prices else None
    clock = [row[2].astimezone(ZONE) for row in own]
    hours, days = Counter(at.hour for at in clock), Counter(at.weekday() for at in clock)
    return {
        "recency": min(ages) / DAY,
        "age": max(ages) / DAY,
        "events_in": {f"{days}d": sum(age <= days * DAY for age in ages) for days in (1, 7, 28, 90)},
        "trend": math.log((now + 1) / (before + 1)),
        "sums": sums,
        "means": {"price": price, "spend": sum(spends) / len(own)},
        "levels": {"price": price and price / 2, "spend": sum(spends) / len(own) / 8},
        "hours": [hours[hour] / len(own) for hour in range(24)],
        "weekdays": [days[day] / len(own) for day in range(7)],
    }


def check(row: Row, own: list[Event]) -> None:
    for name, value in expected(own).items():
        assert row[name] == pytest.approx(value, abs=1e-9), name


def test_features_of_users_and_items_are_what_their_docstrings_say(spark: SparkSession) -> None:
    rows = log()
    groups: dict[str, list[Event]] = defaultdict(list)
    for row in rows:
        groups[row[0]].append(row)
        groups[row[1]].append(row)
    users = of_users(spark, rows)
    assert len(users) == 10
    for user, row in users.items():
        check(row, groups[user])
        assert row["events"] == len(groups[user]) and row["items"] == len({one[1] for one in groups[user]})
    events = frame(spark, rows)
    counted = popularity(interactions(events, Features(), AS_OF), AS_OF, Features().popularity_half_life)
    items = by_key(features.item_features(counted, events, ALL, MOMENT), "item_id")
    assert len(items) == 8
    for item, row in items.items():
        check(row, groups[item])
        assert row["popularity"] == len({one[0] for one in groups[item]})


def test_features_are_the_same_bytes_whatever_the_order_and_the_partitions(spark: SparkSession) -> None:
    rows = log(2)
    found = of_users(spark, rows)
    assert of_users(spark, random.Random(5).sample(rows, len(rows)), partitions=9) == found


def test_only_what_the_configuration_names_is_gathered_and_the_rest_is_null(spark: SparkSession) -> None:
    rows = log()[:20]
    (row, *_) = of_users(spark, rows, ("recency",)).values()
    assert set(row.asDict()) == {"user_id", "events", "items", "first_time", "last_time", "recency"}
    events = frame(spark, rows)
    known = features.user_features(interactions(events, Features(), AS_OF), events, ("hours",), MOMENT)
    whole = features.conformed(known.withColumn("as_of", known["last_time"]), "gold.user_features")
    assert whole.columns == SCHEMAS["gold.user_features"].names
    one = whole.first()
    assert one is not None and one["hours"] is not None and one["recency"] is None and one["friends"] is None


def test_a_log_without_time_has_the_features_that_need_none(spark: SparkSession) -> None:
    events = frame(spark, [("u", "a", None, None, None, [2.0]), ("u", "b", None, None, None, [None])])  # type: ignore[list-item]
    moment = Moment(None, (), measures=("price",), means=features.mean_measures(frame(spark, log()), ("price",)))
    pairs = interactions(events, Features(), None)
    (row,) = features.user_features(pairs, events, ALL, moment).collect()
    assert (row["sums"], row["means"]) == ({"price": 2.0}, {"price": 2.0})
    prices = [one[5][0] for one in log() if one[5][0] is not None]
    assert row["levels"]["price"] == pytest.approx(2 / (sum(prices) / len(prices)))
    assert "recency" not in row.asDict()


def test_measures_that_no_event_has_are_null_and_not_zero(spark: SparkSession) -> None:
    rows: list[Event] = [("u", "a", AS_OF - DAY, None, None, [None, 1.0])]
    row = of_users(spark, rows)["u"]
    assert row["means"] == {"price": None, "spend": 1.0} and row["levels"] == {"price": None, "spend": 1 / 8}
    assert features.mean_measures(frame(spark, rows), ("price", "spend")) == {"spend": 1.0}


def test_a_window_longer_than_the_calendar_holds_all_events(spark: SparkSession) -> None:
    events = frame(spark, log())
    pairs = interactions(events, Features(), AS_OF)
    moment = Moment(AS_OF, (dt.timedelta(days=999_999),))
    known = features.user_features(pairs, events, ("windows",), moment)
    assert all(row["events_in"] == {"999999d": row["events"]} for row in known.collect())


def test_more_windows_and_features_are_gathered_in_the_same_one_pass(spark: SparkSession, tmp_path: Path) -> None:
    frame(spark, log()).write.parquet(str(tmp_path / "events"))
    spark.read.parquet(str(tmp_path / "events")).select("user_id").distinct().write.parquet(str(tmp_path / "known"))
    events, known = (spark.read.parquet(str(tmp_path / name)) for name in ("events", "known"))

    def steps(names: tuple[str, ...], windows: tuple[dt.timedelta, ...]) -> Counter[str]:
        moment = Moment(AS_OF, windows, measures=("price", "spend"), means={"price": 2.0})
        gathered = features._with_gathered(known, events, "user_id", names, moment)
        plan = gathered._jdf.queryExecution().optimizedPlan().toString()
        return Counter(re.findall(r"Relation|Join|Aggregate", plan))

    assert steps(("windows",), WINDOWS[:1]) == {"Relation": 2, "Join": 1, "Aggregate": 1}
    assert steps(ALL, tuple(DAY * days for days in range(1, 40))) == {"Relation": 2, "Join": 1, "Aggregate": 1}


def pairs_of(spark: SparkSession, rows: list[tuple[str, str, int, bool]]) -> DataFrame:
    return spark.createDataFrame(rows, "user_id string, item_id string, events bigint, hidden boolean")


def test_category_shares_count_events_and_ties_go_by_name(spark: SparkSession) -> None:
    pairs = pairs_of(
        spark,
        [("u", "a", 3, False), ("u", "b", 1, False), ("u", "c", 4, False), ("u", "x", 2, False), ("v", "x", 1, False)],
    )
    category_of = spark.createDataFrame(
        [("a", "toys"), ("b", "toys"), ("c", "'food'"), ("d", "none")], "item_id string, category string"
    )
    found = by_key(features.categories(pairs, category_of, 20), "user_id")
    assert set(found) == {"u"}, "of v no category is known"
    assert (found["u"]["category"], found["u"]["categories"]) == ("'food'", {"'food'": 0.4, "toys": 0.4})
    most = by_key(features.categories(pairs, category_of, 1), "user_id")
    assert most["u"]["categories"] == {"'food'": 0.4}
    known = spark.createDataFrame([("a", 3), ("b", 1), ("c", 4), ("x", 3)], "item_id string, events bigint")
    shares = by_key(features.category_shares(known, category_of), "item_id")
    found_shares = {item: (row["category"], row["category_share"]) for item, row in shares.items()}
    assert found_shares == {"a": ("toys", 0.75), "b": ("toys", 0.25), "c": ("'food'", 1.0)}


def test_friends_are_those_with_a_history_and_their_items_are_counted_once_a_friend(spark: SparkSession) -> None:
    pairs = pairs_of(
        spark,
        [("v", "a", 9, False), ("w", "a", 1, False), ("w", "b", 1, False), ("w", "c", 1, True), ("x", "c", 1, True)],
    )
    graph = spark.createDataFrame(
        [("u", "v"), ("u", "w"), ("u", "nobody"), ("v", "w"), ("w", "nobody"), ("u", "x")],
        "user_id string, friend_id string",
    )
    found = by_key(features.friends(graph, pairs, 20), "user_id")
    assert {user: (row["friends"], row["friends_items"]) for user, row in found.items()} == {
        "u": (2, {"a": 2, "b": 1}),
        "v": (1, {"a": 1, "b": 1}),
    }
    most = by_key(features.friends(graph, pairs, 1), "user_id")
    assert most["v"]["friends_items"] == {"a": 1}, "of items with as many friends the first by name"
