"""The segments by which models are compared: how much is known of a user, who it is, and what was wanted."""

from itertools import pairwise

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from recsys_spark.evaluation.lists import Catalogue
from recsys_spark.local import local_frame
from recsys_spark.runs import Run

BANDS = (1, 5, 20, 100)  # least items of each band of histories
NEW = "new users"


def segments(run: Run, past: DataFrame, relevant: DataFrame, catalogue: Catalogue) -> DataFrame:
    """Return (user_id, segments array<string>) of the users of `relevant`.

    past: user_id, item_id, the histories; relevant: user_id, item_id, what was wanted. A user is in one band by the
    length of the history, in one by whether most of the items wanted are among the popular ones that together have
    half of all pairs of user and item, and, where silver.users has it, in one of its segments.
    """
    head = local_frame(run.spark, ((item,) for item in popular_half(catalogue)), "item_id string")
    wanted = (
        relevant.join(f.broadcast(head.withColumn("_head", f.lit(1))), "item_id", "left")
        .groupBy("user_id")
        .agg(f.count("*").alias("_wanted"), f.coalesce(f.sum("_head"), f.lit(0)).alias("_popular"))
    )
    lengths = past.groupBy("user_id").agg(f.count("*").alias("_history"))
    users = wanted.join(lengths, "user_id", "left")
    popular = f.when(2 * f.col("_popular") > f.col("_wanted"), "wants popular items").otherwise("wants rarer items")
    labels = [band(f.coalesce("_history", f.lit(0))), popular]
    if run.tables.exists("silver.users"):
        users, own = _with_own_segment(run, users)
        labels.append(own)
    return users.select("user_id", f.array_compact(f.array(*labels)).alias("segments"))


def popular_half(catalogue: Catalogue) -> list[str]:
    """Return the most popular items that together have at least half of all pairs, as few as do."""
    order = np.lexsort((np.arange(len(catalogue.users)), -catalogue.users))
    before = np.cumsum(catalogue.users[order]) - catalogue.users[order]
    chosen = order[2 * before < catalogue.users.sum()]
    return [str(item) for item in catalogue.item_ids.take(np.sort(chosen)).to_pylist()]


def band(length: Column) -> Column:
    """Return the label of a history's length."""
    label = f.when(length < BANDS[0], NEW)
    for least, after in pairwise(BANDS):
        label = label.when(length < after, f"history of {least} to {after - 1} items")
    return label.otherwise(f"history of {BANDS[-1]} items or more")


def _with_own_segment(run: Run, users: DataFrame) -> tuple[DataFrame, Column]:
    """Add the segment of silver.users; the largest have a label of their own, the others one together."""
    known = users.join(run.tables.read("silver.users"), "user_id", "left")
    sizes = known.where(f.col("segment").isNotNull()).groupBy("segment").count()
    largest = [
        row["segment"] for row in sizes.orderBy(f.desc("count"), "segment").limit(run.config.gate.segments).collect()
    ]
    named = f.concat(f.lit("segment "), "segment")
    label = f.when(f.col("segment").isNull(), f.lit(None)).when(f.col("segment").isin(largest), named)
    return known, label.otherwise("other segments")
