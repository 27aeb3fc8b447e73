"""Dense, append-only dictionaries from string ids to integer indices, built without collecting ids."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark.errors import DataError

LARGEST = 2**31 - 1


def extend(known: DataFrame | None, ids: DataFrame, name: str, index: str) -> tuple[DataFrame, int]:
    """Return (name, index) of the ids that the dictionary does not know yet, and how many they are.

    New indices follow the largest known one without a gap, in the order of the ids, whatever the partitions:
    ids are sorted over all partitions, numbered within each, and shifted by the sizes of those before it.
    Raises DataError where indices would not fit 31 bits.
    """
    first = 0
    fresh = ids.select(name).where(f.col(name).isNotNull()).distinct()
    if known is not None:
        first = int(known.agg(f.coalesce(f.max(index) + 1, f.lit(0))).first()[0])  # type: ignore[index]
        fresh = fresh.join(known.select(name), name, "left_anti")
    # Spark's own numbering is partition << 33 | place in the partition.
    placed = fresh.sort(name).withColumn("_place", f.monotonically_increasing_id()).localCheckpoint()
    partition = f.shiftright("_place", 33).alias("_partition")
    sizes: dict[int, int] = {row[0]: row[1] for row in placed.groupBy(partition).count().collect()}
    total = sum(sizes.values())
    if first + total - 1 > LARGEST:
        raise DataError(f"{name}: {first + total} ids do not fit 31 bits; split the data set")
    shifts, before = {}, first
    for number in sorted(sizes):
        shifts[number] = before
        before += sizes[number]
    if not shifts:
        return fresh.select(name, f.lit(0).alias(index)).limit(0), 0
    pairs = [f.lit(value) for pair in shifts.items() for value in pair]
    shift = f.element_at(f.create_map(*pairs), f.shiftright("_place", 33))
    place = f.col("_place").bitwiseAND(f.lit((1 << 33) - 1))
    return placed.select(name, (place + shift).cast("int").alias(index)), total


def encode(pairs: DataFrame, user_ids: DataFrame, item_ids: DataFrame) -> DataFrame:
    """Add user_index and item_index to rows of (user_id, item_id, …)."""
    return pairs.join(f.broadcast(item_ids), "item_id").join(user_ids, "user_id")
