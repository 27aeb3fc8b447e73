"""Items beside an item: near in the model's space, or had by the same users."""

from collections.abc import Iterator

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as f

from recsys_spark.als.linalg import one_thread
from recsys_spark.schemas import SCORED_ITEMS
from recsys_spark.topk.kernels import catalog, top_k
from recsys_spark.topk.lists import named
from recsys_spark.topk.scorer import sorted_users
from recsys_spark.workers import Shared, settle

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]

SCHEMA = f"item_id string, items {SCORED_ITEMS.simpleString()}"
_PAIRS_AT_ONCE = 4_000_000


def cosine(
    spark: SparkSession, items: Ints, factors: Floats, item_ids: pa.Array, eligible: NDArray[np.bool_], k: int
) -> DataFrame:
    """Return (item_id, items): beside each item the k eligible others whose factors are nearest by cosine.

    items (n,) are the dictionary indices of factors (n, rank); eligible is by dictionary index.
    """
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    unit = np.ascontiguousarray(factors / np.maximum(norms, 1e-30), np.float32)
    context = spark.sparkContext
    shared = Shared.of(context, unit)
    small = context.broadcast((items, item_ids, eligible[items]))

    def lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settle()
        items, item_ids, eligible = small.value
        unit = shared.array()
        with one_thread():
            found = catalog(unit, eligible)
            for batch in batches:
                own = batch.column("id").to_numpy().astype(np.int32)
                offsets = np.arange(len(own) + 1)
                places, scores = top_k(unit[own], found, k, offsets, own)
                near = named(np.where(places >= 0, items[places], -1), scores, item_ids)
                near = near.cast(pa.list_(pa.struct([("item_id", pa.string()), ("score", pa.float32())])))
                yield pa.RecordBatch.from_arrays(
                    [item_ids.take(pa.array(items[own])), near], names=["item_id", "items"]
                )

    partitions = max(2, -(-len(items) // 20_000))
    return spark.range(0, len(items), numPartitions=partitions).mapInArrow(lists, SCHEMA)


def co_occurrence(
    pairs: DataFrame,
    n_rows: int,
    item_ids: DataFrame,
    eligible: DataFrame,
    k: int,
    most: int,
    shrinkage: float = 0.0,
) -> DataFrame:
    """Return (item_id, items): beside each item the k eligible others that most of the same users had.

    pairs: user_id, item_index, each once; item_ids: item_id, item_index; eligible: item_index. The score is
    n_ij / (√(n_i·n_j) + shrinkage), of users who had both and each: without shrinkage the cosine of the columns of the
    binary matrix (Sarwar et al., WWW 2001). Of a user with more than `most` items, `most` count, chosen by a hash of
    the pair, so that none costs more than most² pairs.
    """
    hashed = pairs.select("user_id", f.col("item_index").cast("int"), f.xxhash64("user_id", "item_index").alias("hash"))
    dealt = hashed.repartition(max(8, -(-n_rows // 500_000)), "user_id")

    def counts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settle()
        for chunk in sorted_users(batches):
            encoded = chunk.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy()
            starts = np.flatnonzero(np.diff(encoded, prepend=-1, append=-1))
            items, hashes = (chunk.column(name).to_numpy() for name in ("item_index", "hash"))
            kept, sizes = _sampled(starts, items, hashes, most)
            ends = np.concatenate([[0], np.cumsum(sizes)])
            work = np.cumsum(sizes.astype(np.int64) * (sizes + 1) // 2)
            cuts = np.searchsorted(work, np.arange(0, work[-1], _PAIRS_AT_ONCE))
            for first, last in zip(cuts, [*cuts[1:], len(sizes)], strict=True):
                keys, number = np.unique(_pair_keys(ends[first : last + 1], kept), return_counts=True)
                yield pa.RecordBatch.from_arrays([pa.array(keys), pa.array(number)], names=["pair", "n"])

    both = dealt.mapInArrow(counts, "pair long, n long").groupBy("pair").agg(f.sum("n").alias("n"))
    both = both.select(
        f.shiftright("pair", 32).cast("int").alias("one"),
        f.col("pair").bitwiseAND(f.lit(2**32 - 1)).cast("int").alias("other"),
        "n",
    ).persist()
    alone = both.where(f.col("one") == f.col("other")).select(
        f.col("one").alias("item_index"), f.col("n").alias("users")
    )
    pairs_of = both.where(f.col("one") != f.col("other"))
    ways = pairs_of.unionByName(pairs_of.select(f.col("other").alias("one"), f.col("one").alias("other"), "n"))
    known = f.broadcast(item_ids.join(alone, "item_index"))
    listed = f.broadcast(item_ids.join(alone, "item_index").join(eligible, "item_index", "left_semi"))
    scored = (
        ways.join(known.toDF("one", "item_id", "of_one"), "one")
        .join(listed.toDF("other", "other_id", "of_other"), "other")
        .withColumn(
            "score", (f.col("n") / (f.sqrt(f.col("of_one") * f.col("of_other")) + f.lit(shrinkage))).cast("float")
        )
    )
    best = Window.partitionBy("one").orderBy(f.desc("score"), "other")
    ranked = scored.withColumn("place", f.row_number().over(best)).where(f.col("place") <= k)
    entry = f.struct("place", f.col("other_id").alias("item_id"), "score")
    return (
        ranked.groupBy("one", "item_id")
        .agg(f.array_sort(f.collect_list(entry)).alias("items"))
        .select("item_id", f.transform("items", lambda item: f.struct(item.item_id, item.score)).alias("items"))
    )


@numba.njit(cache=True, nogil=True)
def _sampled(starts: Longs, items: Ints, hashes: Longs, most: int) -> tuple[Ints, Ints]:
    """Return the items of users, at most `most` of each by their hashes, ascending; and how many they are a user."""
    kept = np.empty(len(items), np.int32)
    sizes = np.empty(len(starts) - 1, np.int32)
    n = 0
    for u in range(len(starts) - 1):
        own = items[starts[u] : starts[u + 1]]
        if len(own) > most:
            own = np.sort(own[np.argsort(hashes[starts[u] : starts[u + 1]], kind="mergesort")[:most]])
        kept[n : n + len(own)] = own
        sizes[u] = len(own)
        n += len(own)
    return kept[:n], sizes


@numba.njit(cache=True, nogil=True)
def _pair_keys(ends: Longs, items: Ints) -> Longs:
    """Return i << 32 | j of all items i ≤ j of each user."""
    n = 0
    for u in range(len(ends) - 1):
        size = ends[u + 1] - ends[u]
        n += size * (size + 1) // 2
    keys = np.empty(n, np.int64)
    n = 0
    for u in range(len(ends) - 1):
        for q in range(ends[u], ends[u + 1]):
            for p in range(q, ends[u + 1]):
                keys[n] = (np.int64(items[q]) << 32) | np.int64(items[p])
                n += 1
    return keys
