"""Rules that judge a row by others: lines that repeat another, users with more events than people have."""

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as f

from recsys_spark.config import HeavyUsers, Source
from recsys_spark.local import local_frame
from recsys_spark.schemas import LINE, PART, SOURCE_FILE, USER_ID

DUPLICATE = "duplicate_line"
HEAVY = "too_many_events"
_FEW = 100_000  # groups that each task can have at hand
_SHARES = 64  # in which the events of one user are ranked


def judge(parsed: DataFrame, source: Source, as_of: dt.datetime | None) -> DataFrame:
    """Return rows of `events.parse` with the reasons `duplicate_line` and `too_many_events` where they are asked for.

    A row that was refused before keeps its reason, and counts for nothing here.
    """
    if source.duplicates == "refuse":
        parsed = refuse_duplicates(parsed)
    if source.heavy_users is not None:
        parsed = refuse_heavy_users(parsed, source.heavy_users, as_of)
    return parsed


def refuse_duplicates(parsed: DataFrame) -> DataFrame:
    """Refuse good rows that repeat another of their part in all columns of the source, but the first by file and line.

    A file that is delivered again under another name is refused so as a whole.
    """
    good, rest = _apart(parsed, f.col("reason").isNull())
    # The hash comes first so that most comparisons of the sort end at it.
    alike = Window.partitionBy(f.xxhash64("record"), PART, "record").orderBy(SOURCE_FILE, LINE)
    return _marked(good, f.row_number().over(alike) > 1, DUPLICATE).unionByName(rest)


def refuse_heavy_users(parsed: DataFrame, limit: HeavyUsers, as_of: dt.datetime | None) -> DataFrame:
    """Refuse good events of users above a limit: all of them, or the earliest of those that are too many.

    Users are judged by their good events before as_of alone (all without as_of), and not by a published holdout. An
    event from as_of on is refused where all of its user's events are, and counts for no limit.
    """
    judged = f.col("reason").isNull() & (f.col(PART) == "source")
    if as_of is not None:
        judged &= f.col("time") < f.lit(as_of)
    past, rest = _apart(parsed, judged)
    keys, most = [USER_ID], limit.events_a_day
    if most is None:
        most = _quantile_of_events(past, limit.quantile or 1.0)
    else:
        keys, past = [USER_ID, "__day"], past.withColumn("__day", f.to_date("time"))
    heavy = past.groupBy(*keys).count().where(f.col("count") > most).select(*keys)
    found = heavy.limit(_FEW + 1).collect()
    if not found:
        return parsed
    few = len(found) <= _FEW
    if few:
        heavy = local_frame(parsed.sparkSession, found, heavy.schema)
    if limit.action == "cap":
        return _capped(past, heavy, most, few).select(*parsed.columns).unionByName(rest)
    users = _at_hand(heavy.select(USER_ID).distinct().withColumn("__heavy", f.lit(True)), few)
    good, rest = _apart(parsed, f.col("reason").isNull())
    known = good.join(users, USER_ID, "left")
    return _marked(known, f.col("__heavy").isNotNull(), HEAVY).select(*parsed.columns).unionByName(rest)


def _capped(past: DataFrame, heavy: DataFrame, most: int, few: bool) -> DataFrame:
    """Refuse all but the latest events of each heavy group: those before the earliest of them.

    The latest are found among the latest of each of several shares, so that no task has all events of a group.
    """
    keys = heavy.columns
    # Of events at one time those of the greater record: which file they came in must not matter.
    dated = past.withColumn("__at", f.struct("time", "record", SOURCE_FILE, LINE))
    latest = dated.join(_at_hand(heavy, few), keys, "left_semi").select(
        *keys, "__at", f.pmod(f.xxhash64("__at"), f.lit(_SHARES)).alias("__share")
    )
    for group in ([*keys, "__share"], keys):
        newest = Window.partitionBy(*group).orderBy(f.desc("__at"))
        latest = latest.withColumn("__place", f.row_number().over(newest)).where(f.col("__place") <= most)
    earliest = latest.groupBy(*keys).agg(f.min("__at").alias("__earliest"))
    known = dated.join(_at_hand(earliest, few), keys, "left")
    return _marked(known, f.col("__at") < f.col("__earliest"), HEAVY)


def _at_hand(groups: DataFrame, few: bool) -> DataFrame:
    """Let each task have all groups where they are few: then rows that are looked up in them stay where they are."""
    return f.broadcast(groups) if few else groups


def _quantile_of_events(events: DataFrame, share: float) -> int:
    """The smallest number of events that so large a share of the users do not exceed."""
    sizes = events.groupBy(USER_ID).count().groupBy("count").agg(f.count(f.lit(1)).alias("users")).collect()
    users, reached = sum(row["users"] for row in sizes), 0
    for row in sorted(sizes, key=lambda row: row["count"]):
        reached += row["users"]
        if reached >= share * users:
            return int(row["count"])
    return 0


def _apart(rows: DataFrame, condition: Column) -> tuple[DataFrame, DataFrame]:
    """The rows that satisfy a condition, and all others: so rows without a user share no key with any."""
    holds = f.coalesce(condition, f.lit(False))
    return rows.where(holds), rows.where(~holds)


def _marked(rows: DataFrame, broken: Column, reason: str) -> DataFrame:
    return rows.withColumn("reason", f.when(broken, reason).otherwise(f.col("reason")))
