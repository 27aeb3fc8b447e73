"""A data profile: what a log looks like as of a moment, in exact counts that no order of rows can change."""

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
TOP_ITEMS = 20

Line = tuple[str, str | None, float]  # (measure, key, value) of gold.profile


def profile(
    pairs: DataFrame, users: DataFrame, items: DataFrame, days: DataFrame, rows: int, refused: Mapping[str, int]
) -> list[Line]:
    """Return the lines of gold.profile.

    pairs: (events, hidden, core) of silver.interactions; users: (events, items) of gold.user_features; items: (item_id,
    users, events) of gold.item_features; days: (day, events); rows of the log, of which `refused` by reason. Of all
    events, repeats is the share that are not the first of their pair.
    """
    counted = pairs.agg(
        f.count(f.lit(1)).alias("pairs"),
        f.coalesce(f.sum("events"), f.lit(0)).alias("events"),
        f.count_if(f.col("events") > 1).alias("repeated"),
        f.count_if("hidden").alias("hidden"),
        f.count_if("core").alias("core"),
    ).first()
    assert counted is not None
    of_user = {name: histogram(users, name) for name in ("items", "events")}
    of_item = {name: histogram(items, name) for name in ("users", "events")}
    n_users, n_items = sum(of_user["items"].values()), sum(of_item["users"].values())
    n_pairs, n_events = counted["pairs"], counted["events"]
    lines: list[Line] = [
        ("rows", None, float(rows)),
        ("refused", None, float(sum(refused.values()))),
        *(("refused", reason, float(n)) for reason, n in sorted(refused.items())),
        ("events", None, float(n_events)),
        ("users", None, float(n_users)),
        ("items", None, float(n_items)),
        ("pairs", None, float(n_pairs)),
        ("hidden_pairs", None, float(counted["hidden"])),
        ("trained_pairs", None, float(counted["core"])),
        ("density", None, n_pairs / max(n_users * n_items, 1)),
        ("repeated_pairs", None, counted["repeated"] / max(n_pairs, 1)),
        ("repeats", None, (n_events - n_pairs) / max(n_events, 1)),
    ]
    for one, histograms in (("user", of_user), ("item", of_item)):
        for name, sizes in histograms.items():
            values = quantiles(sizes)
            lines += [(f"{name}_of_{one}", f"p{100 * share:g}", float(n)) for share, n in values.items()]
    lines += [("events_of_day", str(row["day"]), float(row["events"])) for row in days.collect()]
    top = items.orderBy(f.desc("users"), f.desc("events"), "item_id").limit(TOP_ITEMS).collect()
    lines += [("top_item", row["item_id"], float(row["users"])) for row in top]
    return sorted(lines, key=lambda line: (line[0], line[1] or ""))


def events_of_days(events: DataFrame) -> DataFrame:
    """Return (day, events), of days in UTC with events; nothing where the log has no time."""
    days = events.where(f.col("time").isNotNull()).groupBy(f.to_date("time").alias("day"))
    return days.agg(f.count(f.lit(1)).alias("events"))


def histogram(rows: DataFrame, column: str) -> dict[int, int]:
    """Return how many rows have each value of a column of counts."""
    return {row[column]: row["count"] for row in rows.groupBy(column).count().collect()}


def quantiles(sizes: Mapping[int, int]) -> dict[float, int]:
    """Return, for each of QUANTILES, the smallest value that at least such a share of a histogram does not exceed.

    >>> quantiles({1: 5, 2: 4, 50: 1})[0.5], quantiles({1: 5, 2: 4, 50: 1})[0.99]
    (1, 50)
    """
    found, reached, total = {}, 0, sum(sizes.values())
    left = list(QUANTILES)
    for size in sorted(sizes):
        reached += sizes[size]
        while left and reached >= left[0] * total:
            found[left.pop(0)] = size
    return found


def as_frame(spark: SparkSession, lines: list[Line]) -> DataFrame:
    """Return lines as (measure, key, value)."""
    return spark.createDataFrame(lines, "measure string, key string, value double")
