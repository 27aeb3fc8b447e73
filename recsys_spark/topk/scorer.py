"""Solve and rank in one pass: from the histories of all users to their lists."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import Accumulator, SparkContext
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from recsys_spark.als.linalg import one_thread
from recsys_spark.schemas import RANKED_ITEMS
from recsys_spark.topk.ranker import HIDDEN, HISTORY, Ranker, rank_chunk
from recsys_spark.workers import Shared, settle

Shipped = Callable[[], Ranker]  # what a task calls for the ranker

SCHEMA = f"user_id string, items {RANKED_ITEMS.simpleString()}, source string"

_ROWS_A_PARTITION = 500_000
_ROWS_A_CHUNK = 250_000


def history_rows(pairs: DataFrame, hide: Column, gone: Column | None = None) -> DataFrame:
    """Return the rows that `recommend` takes, of histories (user_id, item_index, weight).

    hide: is the item not to be listed? gone: is it so and of no history either?
    """
    seen = f.lit(HISTORY) + f.when(hide, HIDDEN).otherwise(0)
    kind = seen if gone is None else f.when(gone, HIDDEN).otherwise(seen)
    return pairs.select(
        "user_id", f.col("item_index").cast("int"), f.col("weight").cast("float"), kind.cast("byte").alias("kind")
    )


def marks(pairs: DataFrame, kind: int) -> DataFrame:
    """Return the rows that `recommend` takes, of pairs (user_id, item_index) that are HIDDEN, ALLOWED or a SEGMENT."""
    return pairs.select(
        "user_id",
        f.col("item_index").cast("int"),
        f.lit(0).cast("float").alias("weight"),
        f.lit(kind).cast("byte").alias("kind"),
    )


def recommend(
    rows: DataFrame, n_rows: int, shipped: Shipped, k: int, counter: Accumulator[int] | None = None
) -> DataFrame:
    """Return (user_id, items, source): for every user of the rows the k best items, best first.

    rows: user_id string, item_index int (null where the dictionary lacks the item), weight float, kind byte (see
    `ranker`), in any order; `history_rows` and `marks` make them. n_rows, about how many they are, decides the
    partitions, and so nothing of the result. shipped: the ranker, as `ship` returns it. counter is told of users as
    they are ranked. Everyone gets min(k, items left) items.
    """
    partitions = max(8, -(-n_rows // _ROWS_A_PARTITION))
    dealt = rows.repartition(partitions, "user_id")

    def lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settle()
        for ranked in rank(batches, shipped, k):
            if counter is not None:
                counter.add(ranked.num_rows)
            yield ranked

    return dealt.mapInArrow(lists, SCHEMA)


def rank(batches: Iterable[pa.RecordBatch], shipped: Shipped, k: int) -> Iterator[pa.RecordBatch]:
    """Yield what `recommend` returns, of rows as it takes them: all of some users', ranked by this process."""
    with one_thread():
        for chunk in sorted_users(batches):
            yield rank_chunk(chunk, shipped(), k)


def ship(context: SparkContext, ranker: Ranker) -> Shipped:
    """Send a ranker to the executors: the model's arrays are mapped, once a host, the rest is broadcast."""
    if ranker.model is None:
        small = context.broadcast(ranker)
        return lambda: small.value
    arrays = {name: Shared.of(context, array) for name, array in ranker.model.arrays().items()}
    empty = {name: array[:0] for name, array in ranker.model.arrays().items()}
    small = context.broadcast(replace(ranker, model=ranker.model.with_arrays(empty)))

    def whole() -> Ranker:
        model = small.value.model
        assert model is not None
        return replace(small.value, model=model.with_arrays({name: each.array() for name, each in arrays.items()}))

    return whole


def sorted_users(batches: Iterable[pa.RecordBatch], rows: int = _ROWS_A_CHUNK) -> Iterator[pa.Table]:
    """Sort a partition's batches by user_id and item_index, and cut them into tables of about `rows` rows.

    No user is parted. item_index may be null, which comes first. Sorting here, by one integer a row, costs a fifth of
    sorting rows of strings in the JVM.
    """
    held = [batch for batch in batches if batch.num_rows]
    if not held:
        return
    whole = pa.Table.from_batches(held).combine_chunks()
    encoded = whole.column("user_id").combine_chunks().dictionary_encode()
    places = np.empty(len(encoded.dictionary), np.int64)
    places[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(places))
    users = places[encoded.indices.to_numpy()]
    order = np.argsort((users << 32) + pc.fill_null(whole.column("item_index"), -1).to_numpy() + 1, kind="stable")
    ends = np.cumsum(np.bincount(users))
    start = 0
    while start < len(order):
        end = int(ends[np.searchsorted(ends, min(start + rows, len(order)))])
        yield whole.take(order[start:end])
        start = end
