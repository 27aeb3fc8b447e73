"""Which events are past, to learn from, and which are future, to be judged by."""

import datetime as dt

from pyspark.sql import DataFrame, Window
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
    Without `as_of` and holdout all is past. The split depends on the events alone, not on their order.
    """
    if holdout is not None and holdout.path is not None:
        return _before(events.where(f.col(PART) == "source"), as_of), events.where(f.col(PART) == "holdout")
    if holdout is not None and holdout.random is not None:
        return _random(_before(events, as_of), holdout.random, holdout.seed)
    if as_of is None:
        return events, events.where(f.lit(False))
    future = events.where(f.col(_TIME) >= f.lit(as_of))
    return _before(events, as_of), future if horizon is None else _before(future, as_of + horizon)


def _before(events: DataFrame, end: dt.datetime | None) -> DataFrame:
    return events if end is None else events.where(f.col(_TIME) < f.lit(end))


def _random(events: DataFrame, share: float, seed: int) -> tuple[DataFrame, DataFrame]:
    """Hold out round(share · n) of each user's n distinct items, at most n - 1, in the order of a hash."""
    items = Window.partitionBy(USER_ID).orderBy("__hash", ITEM_ID)
    whole = Window.partitionBy(USER_ID)
    ranked = (
        events.withColumn("__hash", f.xxhash64(f.lit(seed).cast("bigint"), USER_ID, ITEM_ID))
        .withColumn("__rank", f.dense_rank().over(items))
        .withColumn("__items", f.max("__rank").over(whole))
    )
    most = f.least(f.floor(f.col("__items") * share + 0.5), f.col("__items") - 1)
    held = f.col("__rank") <= most
    columns = events.columns
    return ranked.where(~held).select(*columns), ranked.where(held).select(*columns)
