"""What lists are like, whatever their users want: popular or novel, of one kind or of many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from recsys_spark.evaluation.metrics import checked, first_items, keys_of
from recsys_spark.workers import settle

_ENTRIES = 2**20  # of lists measured at once: looking items up in the catalogue costs a table of it each time

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Catalogue:
    """The items that lists are drawn from.

    item_ids (n,) strings; users (n,): how many users had each item; n_users: how many users there are; categories
    (n,): numbers, −1 for none, or None where no item has one.
    """

    item_ids: pa.Array
    users: NDArray[np.int64]
    n_users: int
    categories: NDArray[np.int32] | None = None


def per_list(lists: DataFrame, catalogue: Catalogue, ks: Sequence[int]) -> DataFrame:
    """Return what each user's list is like.

    lists:  user_id string, items array<struct<item_id string, …>> in rank order; and model string, if it is of several.
    Returns the same but for items, metrics map<string, double> with `name@k` for each name below and each of ks. A
    list that has not enough items for a metric, none or for diversity one, does not have it.

    Of the n ≤ k items that a list has among its first k, with p_i the share of all users who had item i:

    - popularity@k = Σ p_i / n: average recommendation popularity, Yin, Cui, Li, Yao and Chen, "Challenging the Long
      Tail Recommendation", VLDB 2012; Abdollahpouri, Burke and Mobasher, "Managing Popularity Bias in Recommender
      Systems with Personalized Re-Ranking", FLAIRS 2019
    - novelty@k = Σ −log2 p_i / n: mean self-information in bits, Zhou et al., "Solving the apparent
      diversity-accuracy dilemma of recommender systems", PNAS 2010. An item that nobody had counts as had by one.
    - diversity@k = the share of the n(n − 1)/2 pairs of items that are not of one category: intra-list diversity,
      Ziegler, McNee, Konstan and Lausen, "Improving Recommendation Lists Through Topic Diversification", WWW 2005. An
      item without category is like no other. Not there where the catalogue has no categories.

    An item that the catalogue lacks was had by nobody. Raises ValueError where ks is empty or has one below 1.
    """
    ks = checked(ks)
    shipped = lists.sparkSession.sparkContext.broadcast(catalogue)

    def measured(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settle()
        for table in _regrouped(batches, _ENTRIES // ks[-1]):
            yield measure(table, shipped.value, ks)

    keys = keys_of(lists)
    schema = ", ".join([*(f"{key} string" for key in keys), "metrics map<string, double>"])
    return lists.select(*keys, first_items(ks[-1]).alias("listed")).mapInArrow(measured, schema)


def measure(table: pa.Table, catalogue: Catalogue, ks: Sequence[int]) -> pa.RecordBatch:
    """Return the keys and metrics of a table of keys and listed list<string>, as `per_list` says; ks ascending."""
    listed = table.column("listed").combine_chunks()
    sizes = pc.fill_null(pc.list_value_length(listed), 0).to_numpy()
    filled = np.arange(ks[-1]) < sizes[:, None]
    at = np.full(filled.shape, -1)
    at[filled] = pc.fill_null(pc.index_in(listed.flatten(), catalogue.item_ids), -1).to_numpy()
    users = np.where(at >= 0, catalogue.users[at], 0)
    values = {
        "popularity": _means(users / catalogue.n_users, filled),
        "novelty": _means(-np.log2(np.maximum(users, 1) / catalogue.n_users), filled),
    }
    if catalogue.categories is not None:
        values["diversity"] = _different(np.where(at >= 0, catalogue.categories[at], -1), filled)
    names = [f"{name}@{k}" for name in values for k in ks]
    columns = np.stack([value[:, k - 1] for value in values.values() for k in ks], axis=1)
    keys = [name for name in table.column_names if name != "listed"]
    return pa.RecordBatch.from_arrays(
        [*(table.column(key).combine_chunks() for key in keys), _maps(columns, names)], names=[*keys, "metrics"]
    )


def _means(values: Doubles, filled: NDArray[np.bool_]) -> Doubles:
    """Return the means of the first 1, 2, … values of each row, (n, depth), NaN in rows without any."""
    with np.errstate(invalid="ignore"):
        return np.cumsum(np.where(filled, values, 0.0), axis=1) / np.cumsum(filled, axis=1)


def _different(categories: NDArray[np.int32], filled: NDArray[np.bool_]) -> Doubles:
    """Return the share of pairs, among the first 1, 2, … items of each row, of unlike category; NaN without a pair."""
    same = np.zeros(categories.shape, np.int64)
    for place in range(1, categories.shape[1]):
        own = categories[:, place : place + 1]
        same[:, place] = ((categories[:, :place] == own) & (own >= 0)).sum(axis=1)
    n = np.cumsum(filled, axis=1)
    with np.errstate(invalid="ignore"):
        return 1 - np.cumsum(same, axis=1) / (n * (n - 1) / 2)


def _maps(values: Doubles, names: Sequence[str]) -> pa.MapArray:
    """Return maps from names (m,) to values (n, m), without those that are NaN."""
    there = ~np.isnan(values)
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    keys = pa.array(names, pa.string()).take(pa.array(np.nonzero(there)[1]))
    return pa.MapArray.from_arrays(pa.array(ends), keys, pa.array(values[there]))


def _regrouped(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Join batches into tables of at least so many rows, the last one aside."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= rows:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)
