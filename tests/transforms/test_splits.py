import datetime as dt
import random
from collections import defaultdict

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config import Holdout
from recsys_spark.transforms.splits import split

SCHEMA = "user_id string, item_id string, time timestamp, event string, value double, _part string"
DAY = dt.timedelta(days=1)
START = dt.datetime(2011, 11, 1, tzinfo=dt.UTC)
Row = tuple[str, str, dt.datetime, str | None, float | None, str]


def log(seed: int = 1, users: int = 40) -> list[Row]:
    """Users with 1 to `users` events on 12 items, over ten days, some pairs repeated, in both parts."""
    draw = random.Random(seed)
    names = [
        "null",
        "0",
        "a 'quoted' \"one\"",
        "two\nlines",
        "👩‍👩‍👧",
        *(f"user {n}" for n in range(users - 5)),
    ]
    return [
        (
            user,
            str(draw.randrange(12)),
            START + DAY * draw.randrange(10),
            "buy",
            float(place),
            draw.choice(["source", "holdout"]),
        )
        for number, user in enumerate(names)
        for place in range(number + 1)
    ]


def frame(spark: SparkSession, rows: list[Row], partitions: int = 2) -> DataFrame:
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, partitions), SCHEMA)


def rows_of(data: DataFrame) -> list[Row]:
    return sorted((*row[:2], row[2].astimezone(dt.UTC), *row[3:]) for row in data.collect())


def both(spark: SparkSession, rows: list[Row], *how: object, partitions: int = 2) -> tuple[list[Row], list[Row]]:
    past, future = split(frame(spark, rows, partitions), *how)  # type: ignore[arg-type]
    assert past.columns == future.columns == [name.split()[0] for name in SCHEMA.split(", ")]
    return rows_of(past), rows_of(future)


def test_as_of_parts_past_from_future_and_belongs_to_the_future(spark: SparkSession) -> None:
    rows = log()
    as_of = START + 4 * DAY
    past, future = both(spark, rows, as_of, None, None)
    assert past == sorted(row for row in rows if row[2] < as_of)
    assert future == sorted(row for row in rows if row[2] >= as_of)
    assert min(row[2] for row in future) == as_of


def test_the_future_ends_before_its_horizon(spark: SparkSession) -> None:
    rows = log()
    as_of = START + 4 * DAY
    past, future = both(spark, rows, as_of, 2 * DAY, None)
    assert past == sorted(row for row in rows if row[2] < as_of)
    assert {row[2] for row in future} == {as_of, as_of + DAY}


def test_without_as_of_and_holdout_all_is_past(spark: SparkSession) -> None:
    rows = log()
    assert both(spark, rows, None, None, None) == (sorted(rows), [])
    assert both(spark, rows, None, DAY, None) == (sorted(rows), [])


@pytest.mark.parametrize("as_of", [None, START + 4 * DAY])
def test_a_published_split_parts_by_part_and_as_of_ends_the_past(
    spark: SparkSession, as_of: dt.datetime | None
) -> None:
    rows = log()
    past, future = both(spark, rows, as_of, None, Holdout(path=("test.csv",)))
    assert past == sorted(row for row in rows if row[5] == "source" and (as_of is None or row[2] < as_of))
    assert future == sorted(row for row in rows if row[5] == "holdout")


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_the_random_split_holds_out_the_rounded_share_of_each_users_items_but_never_all(
    spark: SparkSession, share: float
) -> None:
    rows = log()
    past, future = both(spark, rows, None, None, Holdout(random=share))
    assert sorted(past + future) == sorted(rows)
    kept, held, items = defaultdict(set), defaultdict(set), defaultdict(set)
    for part, which in ((past, kept), (future, held), (rows, items)):
        for row in part:
            which[row[0]].add(row[1])
    for user, own in items.items():
        assert not kept[user] & held[user]
        assert len(held[user]) == min(int(share * len(own) + 0.5), len(own) - 1)


def test_the_random_split_depends_on_neither_order_nor_partitions_nor_other_users(
    spark: SparkSession,
) -> None:
    rows = log()
    how = (None, None, Holdout(random=0.3))
    past, future = both(spark, rows, *how)
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert both(spark, shuffled, *how, partitions=1 + 4 * seed) == (past, future)
    some = {row[0] for row in rows[::3]}
    alone = both(spark, [row for row in rows if row[0] in some], *how)
    assert alone == ([row for row in past if row[0] in some], [row for row in future if row[0] in some])


def test_repeating_an_event_moves_no_pair(spark: SparkSession) -> None:
    rows = log()
    _, future = both(spark, rows, None, None, Holdout(random=0.3))
    _, again = both(spark, rows + rows[::2], None, None, Holdout(random=0.3))
    assert {row[:2] for row in again} == {row[:2] for row in future}


def test_another_seed_holds_out_other_items(spark: SparkSession) -> None:
    futures = [both(spark, log(), None, None, Holdout(random=0.3, seed=seed))[1] for seed in (1, 2, 2**40)]
    assert futures[0] != futures[1] != futures[2] != futures[0]


def test_every_item_is_as_likely_to_be_held_out(spark: SparkSession) -> None:
    rows = [(f"u{user}", str(item), START, None, None, "source") for user in range(600) for item in range(5)]
    past, future = split(frame(spark, rows), None, None, Holdout(random=0.4))
    assert past.count() == 600 * 3
    counts = [row["count"] for row in future.groupBy("item_id").count().collect()]
    # 240 of 600 each; the standard deviation is √(600 · 0.4 · 0.6) = 12.
    assert len(counts) == 5 and all(abs(count - 240) < 4 * 12 for count in counts)


def test_as_of_ends_the_log_that_is_split_at_random(spark: SparkSession) -> None:
    rows, as_of = log(), START + 4 * DAY
    early = [row for row in rows if row[2] < as_of]
    assert both(spark, rows, as_of, None, Holdout(random=0.3)) == both(spark, early, None, None, Holdout(random=0.3))
