"""A data profile: what a log looks like as of a moment, in exact counts that no order of rows can change."""

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f

from recsys_spark.local import local_frame

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
TOP_ITEMS = 20
_EPOCH = dt.date(1970, 1, 1)

Line = tuple[str, str | None, float]  # (measure, key, value) of gold.profile


def profile(
    pairs: DataFrame, users: DataFrame, items: DataFrame, times: DataFrame, rows: int, refused: Mapping[str, int]
) -> list[Line]:
    """Return the lines of gold.profile.

    pairs: (events, hidden, core) of silver.interactions; users: (events, items) of gold.user_features; items: (item_id,
    users, events) of gold.item_features; times: (time) of events; rows of the log, of which `refused` by reason. Of all
    events, repeats is the share that are not the first of their pair. Days are UTC's; there are none without time.
    """
    flags = f.col("hidden").cast("int") * 2 + f.col("core").cast("int")
    sizes = _histograms(
        _numbers(pairs, pairs=f.col("events") * 4 + flags),
        _numbers(users, items_of_user=f.col("items"), events_of_user=f.col("events")),
        _numbers(items, users_of_item=f.col("users"), events_of_item=f.col("events")),
        _numbers(times.where("time IS NOT NULL"), days=f.unix_date(f.to_date("time")).cast("long")),
    )
    pairs_by, days = sizes.pop("pairs"), sizes.pop("days", {})  # no days where the log has no time
    n_pairs, n_events = sum(pairs_by.values()), sum((code >> 2) * n for code, n in pairs_by.items())
    n_users, n_items = sum(sizes["items_of_user"].values()), sum(sizes["users_of_item"].values())
    lines: list[Line] = [
        ("rows", None, float(rows)),
        ("refused", None, float(sum(refused.values()))),
        *(("refused", reason, float(n)) for reason, n in refused.items()),
        ("events", None, float(n_events)),
        ("users", None, float(n_users)),
        ("items", None, float(n_items)),
        ("pairs", None, float(n_pairs)),
        ("hidden_pairs", None, float(sum(n for code, n in pairs_by.items() if code & 2))),
        ("trained_pairs", None, float(sum(n for code, n in pairs_by.items() if code & 1))),
        ("density", None, n_pairs / max(n_users * n_items, 1)),
        ("repeated_pairs", None, sum(n for code, n in pairs_by.items() if code >> 2 > 1) / max(n_pairs, 1)),
        ("repeats", None, (n_events - n_pairs) / max(n_events, 1)),
    ]
    for name, found in sorted(sizes.items()):
        lines += [(name, f"p{100 * share:g}", float(size)) for share, size in quantiles(found).items()]
    lines += [("events_of_day", str(_EPOCH + dt.timedelta(days=day)), float(n)) for day, n in days.items()]
    popular = items.select("item_id", "users", "events").orderBy(f.desc("users"), f.desc("events"), "item_id")
    top = popular.limit(TOP_ITEMS).collect()  # no times: Python reads none of the first day of its calendar
    lines += [("top_item", row["item_id"], float(row["users"])) for row in top]
    return sorted(lines, key=lambda line: (line[0], line[1] or ""))


def _numbers(frame: DataFrame, **columns: Column) -> DataFrame:
    """Return (name, n): a row for each of some columns of whole numbers and each row of a frame."""
    structs = (f.struct(f.lit(name).alias("name"), number.alias("n")) for name, number in columns.items())
    return frame.select(f.inline(f.array(*structs)))


def _histograms(*numbers: DataFrame) -> defaultdict[str, dict[int, int]]:
    """Return how often each number stands under each name, in one job."""
    found: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for name, n, count in reduce(DataFrame.unionAll, numbers).groupBy("name", "n").count().collect():
        found[name][n] = count
    return found


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
    return local_frame(spark, lines, "measure string, key string, value double")
