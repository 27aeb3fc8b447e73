"""Which events are past, to learn from, and which are future, to be judged by."""

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as f

from recsys_spark.config import Holdout
from recsys_spark.schemas import ITEM_ID, PART, USER_ID

_TIME = "time"


def split(
    events: DataFrame, as_of: dt.datetime | None, horizon: dt.timedelta | None, holdout: Holdout | None
) -> tuple[DataFrame, DataFrame]:
    """Return (past, future), which share no event; both have the columns of `events`.

    By time: past is before `as_of`, future from `as_of` on, up to `as_of + horizon` if there is a horizon.
    By a published split: future is the part `holdout`, past the part `source`, before `as_of` if given.
    At random: all events of some of each user's items are future; with `as_of`, later events are neither.
    The last n: a user's future begins with the n-th last of her first events of an item, where anything is before it.
    Users held out: all events of some of their items are future, as at random, and `learnt_from` tells them apart.
    Without `as_of` and holdout all is past. The split depends on the events alone, not on their order.
    """
    if holdout is not None and holdout.path is not None:
        return _before(events.where(f.col(PART) == "source"), as_of), events.where(f.col(PART) == "holdout")
    if holdout is not None and holdout.random is not None:
        return _random(_before(events, as_of), holdout.random, holdout.seed)
    if holdout is not None and holdout.last is not None:
        return _last(_before(events, as_of), holdout.last)
    if holdout is not None and holdout.users is not None:
        known = _before(events, as_of)
        mine, held = known.where(learnt_from(holdout)), known.where(~learnt_from(holdout))
        history, future = _random(held, holdout.of_items, holdout.seed)
        return mine.unionByName(history), future
    if as_of is None:
        return events, events.where(f.lit(False))
    future = events.where(f.col(_TIME) >= f.lit(as_of))
    return _before(events, as_of), future if horizon is None else _before(future, as_of + horizon)


def known_pairs(past: DataFrame, future: DataFrame) -> DataFrame:
    """Return the distinct (user_id, item_id) of the future that are in the past too: what a given split gives away."""
    return future.select(USER_ID, ITEM_ID).distinct().join(past, [USER_ID, ITEM_ID], "left_semi")


def learnt_from(holdout: Holdout | None) -> Column:
    """Return whether a row's user is one to learn from: all but those held out, whom a hash of the user chooses."""
    if holdout is None or holdout.users is None:
        return f.lit(True)
    chance = f.shiftrightunsigned(f.xxhash64(f.lit(holdout.seed).cast("bigint"), USER_ID), 11)
    return chance.cast("double") >= holdout.users * 2.0**53


def sliding(first: dt.datetime, last: dt.datetime, horizon: dt.timedelta, most: int | None = None) -> list[dt.datetime]:
    """Return the moments of a backtest on a log with events in [first, last], oldest first.

    What comes within a horizon from a moment on judges what was learned from all before it. The latest horizon ends
    just after `last`, each other one where the next begins, so that no two judge by the same event. Before each moment
    there is something to learn from. `most`: the latest so many.

    >>> day = dt.timedelta(days=1)
    >>> [moment.day for moment in sliding(dt.datetime(2024, 3, 1), dt.datetime(2024, 3, 9), 3 * day)]
    [3, 6]
    """
    if horizon <= dt.timedelta(0):
        raise ValueError(f"horizon {horizon} must be longer than nothing")
    moments: list[dt.datetime] = []
    moment = last + dt.timedelta(microseconds=1) - horizon
    while moment > first and (most is None or len(moments) < most):
        moments.append(moment)
        moment -= horizon
    return moments[::-1]


def _last(events: DataFrame, n: int) -> tuple[DataFrame, DataFrame]:
    """Cut each user's events at the n-th last first event of an item; of one whom nothing is before it, nowhere."""
    first = events.groupBy(USER_ID, ITEM_ID).agg(f.min(_TIME).alias("__first"))
    latest = Window.partitionBy(USER_ID).orderBy(f.desc("__first"))
    cuts = (
        first.withColumn("__place", f.row_number().over(latest))
        .groupBy(USER_ID)
        .agg(f.min(f.when(f.col("__place") <= n, f.col("__first"))).alias("__cut"), f.min("__first").alias("__begin"))
        .where(f.col("__cut") > f.col("__begin"))
        .select(USER_ID, "__cut")
    )
    marked = events.join(cuts, USER_ID, "left")
    held = f.coalesce(f.col(_TIME) >= f.col("__cut"), f.lit(False))
    return marked.where(~held).select(*events.columns), marked.where(held).select(*events.columns)


def _before(events: DataFrame, end: dt.datetime | None) -> DataFrame:
    return events if end is None else events.where(f.col(_TIME) < f.lit(end))


def _random(events: DataFrame, share: float, seed: int) -> tuple[DataFrame, DataFrame]:
    """Hold out round(share · n) of each user's n distinct items, at most n - 1, in the order of a hash."""
    in_order = Window.partitionBy(USER_ID).orderBy("__hash", ITEM_ID)
    items = (
        events.select(USER_ID, ITEM_ID)
        .distinct()
        .withColumn("__hash", f.xxhash64(f.lit(seed).cast("bigint"), USER_ID, ITEM_ID))
        .withColumn("__rank", f.row_number().over(in_order))
        .withColumn("__items", f.count(f.lit(1)).over(Window.partitionBy(USER_ID)))
    )
    most = f.least(f.floor(f.col("__items") * share + 0.5), f.col("__items") - 1)
    held = items.where(f.col("__rank") <= most).select(USER_ID, ITEM_ID, f.lit(True).alias("__held"))
    marked = events.join(held, [USER_ID, ITEM_ID], "left")
    columns = events.columns
    return marked.where("__held IS NULL").select(*columns), marked.where("__held").select(*columns)
