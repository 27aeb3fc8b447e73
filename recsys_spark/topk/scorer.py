"""Solve and rank in one pass: from histories to every user's list, by a model or by popularity."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import Accumulator
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark.als.baseline import Baseline
from recsys_spark.als.linalg import one_thread
from recsys_spark.als.passes import Solve, solve_histories
from recsys_spark.topk.kernels import Catalog, catalog, top_k
from recsys_spark.workers import settle

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

SCHEMA = "user_id string, items array<struct<item_id: string, score: float>>, source string"
_ITEM = pa.struct([("item_id", pa.string()), ("score", pa.float32())])
_OUTPUT = pa.schema([("user_id", pa.string()), ("items", pa.list_(_ITEM)), ("source", pa.string())])

_ROWS_A_PARTITION = 500_000
_ROWS_A_CHUNK = 250_000


@dataclass(frozen=True)
class Ranked:
    """A list of items that can be ranked: their places in the dictionary, and their factors in order of norm.

    places (n_dictionary,) is an item's position among the ranked, −1 where it is none; items (n,) the reverse.
    """

    places: Ints
    items: Ints
    catalog: Catalog

    @classmethod
    def of(cls, items: Ints, factors: Floats, n_dictionary: int) -> "Ranked":
        """Build from the items' dictionary indices (n,) and factors (n, rank)."""
        places = np.full(n_dictionary, -1, np.int32)
        places[items] = np.arange(len(items), dtype=np.int32)
        return cls(places, items, catalog(factors))


@dataclass(frozen=True)
class Ranker:
    """All that a task needs to turn histories into lists.

    item_ids (n_dictionary,) by dictionary index. `solve` gives a user's factors from the history over the
    items of `model`; whoever has none of them, or everyone where there is no model, gets the most popular.
    `rest` are the popular items that the model does not know: they fill the lists of users who have seen
    almost all that it knows, without a score.
    """

    item_ids: pa.Array
    popular: Ranked
    popularity: Floats
    model: Ranked | None = None
    solve: Solve | None = None
    baseline: Baseline | None = None
    rest: Ranked | None = None
    name: str = "als"
    hide_seen: bool = True


def popularity_ranker(item_ids: pa.Array, popularity: Floats, hide_seen: bool = True) -> Ranker:
    """Rank by popularity (n_dictionary,) alone: a model of rank 1 in which every user's factor is 1."""
    items = np.flatnonzero(popularity > 0).astype(np.int32)
    popular = Ranked.of(items, popularity[items, None].astype(np.float32), len(popularity))
    return Ranker(item_ids, popular, popularity[items].astype(np.float32), hide_seen=hide_seen)


def with_model(ranker: Ranker, items: Ints, solve: Solve, baseline: Baseline | None = None) -> Ranker:
    """Return a ranker that serves a model's items (n,) with factors solve.others (n, rank), popularity behind it."""
    factors = solve.others if baseline is None else baseline.with_items(solve.others)
    model = Ranked.of(items, factors, len(ranker.item_ids))
    outside = ~np.isin(ranker.popular.items, items)
    rest = Ranked.of(ranker.popular.items[outside], ranker.popularity[outside, None], len(ranker.item_ids))
    return replace(ranker, model=model, solve=solve, baseline=baseline, rest=rest)


def recommend(
    histories: DataFrame, n_rows: int, ranker: Ranker, k: int, counter: Accumulator[int] | None = None
) -> DataFrame:
    """Return (user_id, items, source): for every user of the histories the k best items, best first.

    histories: user_id string, item_index int (null where the user or item is without), weight double; any order.
    n_rows, about how many they are, decides the partitions, and so nothing of the result. counter is told of
    users as they are ranked. Everyone gets min(k, items left) items.
    """
    shipped = histories.sparkSession.sparkContext.broadcast(ranker)
    partitions = max(8, -(-n_rows // _ROWS_A_PARTITION))
    ordered = (
        histories.select("user_id", f.col("item_index").cast("int"), f.col("weight").cast("float"))
        .repartition(partitions, "user_id")
        .sortWithinPartitions("user_id", "item_index")
    )

    def lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settle()
        with one_thread():
            for chunk in whole_users(batches):
                ranked = rank_chunk(chunk, shipped.value, k)
                if counter is not None:
                    counter.add(ranked.num_rows)
                yield ranked

    return ordered.mapInArrow(lists, SCHEMA)


def whole_users(batches: Iterator[pa.RecordBatch], rows: int = _ROWS_A_CHUNK) -> Iterator[pa.Table]:
    """Regroup batches that are sorted by user_id into tables of about `rows` rows that part no user."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.num_rows
        if size < rows:
            continue
        table = pa.Table.from_batches(held).combine_chunks()
        users = table.column("user_id")
        last = pc.index(pc.equal(users, users[-1]), True).as_py()
        if last == 0:
            continue
        yield table.slice(0, last)
        held = table.slice(last).to_batches()
        size = table.num_rows - last
    if size:
        yield pa.Table.from_batches(held)


def rank_chunk(table: pa.Table, ranker: Ranker, k: int) -> pa.RecordBatch:
    """Return the lists of a table's users, in their order: (user_id, items, source)."""
    users, offsets = _runs(table.column("user_id"))
    indices = pc.fill_null(table.column("item_index"), -1).to_numpy()
    weights = table.column("weight").to_numpy()
    n = len(users)
    lists: list[pa.Array] = []
    order = np.arange(n)
    served = np.zeros(n, bool)
    if ranker.model is not None and ranker.solve is not None:
        factors, history, columns = _fold_in(offsets, indices, weights, ranker.model, ranker.solve, ranker.baseline)
        served = np.diff(history) > 0
        found = _lists(factors[served], ranker.model, ranker, *_hidden(history, columns, served, ranker), k)
        short = np.zeros(n, bool)
        short[served] = found.value_lengths().to_numpy() < k
        if short.any() and ranker.rest is not None:
            history, columns, _ = _within(offsets, indices, weights, ranker.rest)
            hidden = _hidden(history, columns, short, ranker)
            more = _lists(np.ones((int(short.sum()), 1), np.float32), ranker.rest, ranker, *hidden, k)
            found = _filled(found, more, short[served], k)
        lists.append(found)
    if not served.all():
        rest = ~served
        history, columns, _ = _within(offsets, indices, weights, ranker.popular)
        hidden = _hidden(history, columns, rest, ranker)
        lists.append(_lists(np.ones((int(rest.sum()), 1), np.float32), ranker.popular, ranker, *hidden, k))
        order = np.argsort(np.concatenate([np.flatnonzero(served), np.flatnonzero(rest)]))
    items = pa.concat_arrays(lists).take(pa.array(order))
    source = pa.array(np.where(served, ranker.name, "popular"))
    return pa.RecordBatch.from_arrays([users, items, source.cast(pa.string())], schema=_OUTPUT)


def _filled(lists: pa.Array, more: pa.Array, short: NDArray[np.bool_], k: int) -> pa.Array:
    """Fill up the short ones of lists to k from the lists of `more`, one a short list; without a score."""
    full = [
        own + [{"item_id": item["item_id"], "score": None} for item in extra[: k - len(own)]]
        for own, extra in zip(lists.filter(pa.array(short)).to_pylist(), more.to_pylist(), strict=True)
    ]
    places = np.arange(len(lists))
    places[short] = len(lists) + np.arange(len(full))
    return pa.concat_arrays([lists, pa.array(full, pa.list_(_ITEM))]).take(pa.array(places))


def _runs(column: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the distinct values of a sorted column and where each begins, one more for the end."""
    encoded = pc.run_end_encode(column.combine_chunks())
    ends = encoded.run_ends.to_numpy().astype(np.int64)
    return encoded.values, np.concatenate([[0], ends])


def _within(
    offsets: NDArray[np.int64], indices: Ints, weights: Floats, ranked: Ranked
) -> tuple[NDArray[np.int64], Ints, Floats]:
    """Reduce histories to items that can be ranked: offsets, positions and weights."""
    positions = np.where(indices >= 0, ranked.places[indices], -1).astype(np.int32)
    known = positions >= 0
    before = np.concatenate([[0], np.cumsum(known)])
    return before[offsets], positions[known], weights[known]


def _fold_in(
    offsets: NDArray[np.int64],
    indices: Ints,
    weights: Floats,
    model: Ranked,
    solve: Solve,
    baseline: Baseline | None,
) -> tuple[Floats, NDArray[np.int64], Ints]:
    """Return users' factors (n, rank) by the trainer's own solve, and the histories they come from."""
    history, columns, values = _within(offsets, indices, weights, model)
    ends = history.astype(np.int32)
    if baseline is None:
        return solve_histories(ends, columns, values, solve), history, columns
    left, biases = baseline.residuals(ends, columns, values)
    return baseline.with_users(solve_histories(ends, columns, left, solve), biases), history, columns


def _hidden(
    history: NDArray[np.int64], columns: Ints, chosen: NDArray[np.bool_], ranker: Ranker
) -> tuple[NDArray[np.int64], Ints]:
    """Return offsets and positions of the items that chosen users must not be shown."""
    if not ranker.hide_seen:
        return np.zeros(int(chosen.sum()) + 1, np.int64), np.zeros(0, np.int32)
    sizes = np.diff(history)
    return np.concatenate([[0], np.cumsum(sizes[chosen])]), columns[np.repeat(chosen, sizes)]


def _lists(
    factors: Floats, ranked: Ranked, ranker: Ranker, offsets: NDArray[np.int64], hidden: Ints, k: int
) -> pa.Array:
    """Rank and name: a list array of (item_id, score), one list a row of factors."""
    places, scores = top_k(factors, ranked.catalog, k, offsets, hidden)
    filled = places >= 0
    ends = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int32)
    names = ranker.item_ids.take(pa.array(ranked.items[places[filled]]))
    items = pa.StructArray.from_arrays([names, pa.array(scores[filled], pa.float32())], fields=list(_ITEM))
    return pa.ListArray.from_arrays(pa.array(ends), items, type=pa.list_(_ITEM))
