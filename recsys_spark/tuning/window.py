"""A window of the past: what was known at a moment, ready to be trained on, and what a sample of users did next."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from recsys_spark.blocks import store
from recsys_spark.errors import DataError
from recsys_spark.topk.repeats import COMEBACKS, Repeats, comebacks
from recsys_spark.transforms.interactions import transformed
from recsys_spark.tuning.judge import Histories, Sample

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass
class Window:
    """Interactions before a moment with several half-lives, and the sample that is judged by what came then.

    pairs: user_index, item_index, core, events, total_0, total_1, … (see `pair_totals`), persisted. core: item_index,
    ascending, hash of the id, and for each half-life whether any pair of the item weighs something, weighs_0, …, of the
    items in the core, which is that of weights without a half-life. own: the histories of the sample's users, `user`
    being their place in it, sorted. popularities: (n_dictionary,) of each kind tried. comebacks (n_dictionary,): how
    often a day users come back to each item. Blocks are built once for each half-life and transform, and kept.
    """

    pairs: DataFrame
    core: pa.Table
    n_blocks: int
    sample: Sample
    own: pa.Table
    popularities: Sequence[Floats]
    comebacks: Doubles
    _blocks: dict[tuple[int, str], store.Blocks] = field(default_factory=dict)

    def items(self, half_life: int) -> tuple[Ints, Longs]:
        """Return the dictionary indices, ascending, and hashes of what weighs something with a half-life, (n,)."""
        items = self.core.filter(self.core.column(f"weighs_{half_life}"))
        return items.column("item_index").to_numpy(), items.column("hash").to_numpy()

    def blocks(self, half_life: int, transform: str) -> store.Blocks:
        """Return the blocks of the core, rows by user, with the weights of a half-life (by its place) and transform.

        As in training, a pair that weighs nothing is none: an old one, where the half-life is short.
        """
        key = half_life, transform
        if key not in self._blocks:
            weight = transformed(transform, f.col(f"total_{half_life}"), f.col("events"))
            core = self.pairs.where(f.col("core") & (weight > 0)).select(
                f.col("user_index").alias("row"), f.col("item_index").alias("column"), weight.alias("value")
            )
            self._blocks[key] = store.build(core, self.items(half_life)[0], self.n_blocks)
        return self._blocks[key]

    def histories(self, half_life: int, transform: str) -> Histories:
        """Return the sample's histories with the weights of a half-life and transform, of all items."""
        total = self.own.column(f"total_{half_life}").to_numpy()
        events = self.own.column("events").to_numpy()
        weights = {"sum": total, "mean": total / events, "log1p": np.log1p(total), "binary": total > 0}
        offsets = offsets_of(self.own.column("user").to_numpy(), self.sample.n_users)
        return Histories(offsets, self.own.column("item_index").to_numpy(), weights[transform].astype(np.float32))

    def repeats(self, weight: float, days: float, transform: str) -> Repeats | None:
        """Return how items of the history are raised, if at all, with everyone's rate of so many days."""
        if not weight:
            return None
        prior = (days * self.comebacks).astype(np.float32) if days else None
        return Repeats(weight, transform == "log1p", prior)

    def close(self) -> None:
        """Delete the blocks and forget the pairs."""
        for blocks in self._blocks.values():
            blocks.close()
        self.pairs.unpersist()


def window(
    marked: DataFrame,
    n_core: int,
    wanted: DataFrame,
    popular: DataFrame,
    popularities: Sequence[str],
    user_ids: DataFrame,
    item_ids: DataFrame,
    hide: Column,
    block_interactions: int,
    min_blocks: int,
    most_users: int,
    active_since: dt.datetime | None = None,
) -> Window:
    """Build a window.

    marked: user_id, item_id, core, hidden, events, event_types, total_0, …; n_core of them in the core. wanted:
    user_id, item_id, what is to be found. popular: item_id, the columns popularities, COMEBACKS and last_time. hide:
    whether a pair's item is hidden for being seen; one that is `hidden` is so anyway, and no history. Of the users who
    want something, most_users are judged, by a hash of their ids. With active_since, items without an event from then
    on are not listed. Raises DataError where something is of a user or an item that has no index.
    """
    coded = marked.join(f.broadcast(item_ids), "item_id", "left").join(user_ids, "user_id", "left").persist()
    _refuse(coded.where("user_index IS NULL OR item_index IS NULL").count())
    totals = [name for name in marked.columns if name.startswith("total_")]
    weighs = [f.max(f.col(name) > 0).alias(name.replace("total", "weighs")) for name in totals]
    core = (
        coded.where("core")
        .groupBy("item_index", f.xxhash64("item_id").alias("hash"))
        .agg(*weighs)
        .toArrow()
        .sort_by("item_index")
    )
    judged = wanted.select("user_id").distinct().orderBy(f.xxhash64("user_id"), "user_id").limit(most_users)
    names = judged.toArrow().column("user_id").combine_chunks().cast(pa.string())
    places = judged.sparkSession.createDataFrame(
        pa.table({"user_id": names, "user": pa.array(np.arange(len(names)), pa.int32())})
    )
    found = wanted.join(f.broadcast(places), "user_id").join(f.broadcast(item_ids), "item_id", "left")
    found_table = (
        found.select("user", "item_index").toArrow().sort_by([("user", "ascending"), ("item_index", "ascending")])
    )
    _refuse(found_table.column("item_index").null_count)
    own = (
        coded.join(f.broadcast(places), "user_id")
        .select("user", "item_index", "events", "hidden", (f.col("hidden") | hide).alias("hide"), *totals)
        .toArrow()
        .sort_by([("user", "ascending"), ("item_index", "ascending")])
    )
    items = item_ids.join(popular, "item_id", "left").toArrow().sort_by("item_index")
    values = [pc.fill_null(items.column(name), 0.0).to_numpy().astype(np.float32) for name in popularities]
    counts = (pc.fill_null(items.column(name), 0).to_numpy().astype(np.float64) for name in COMEBACKS)
    eligible = np.ones(items.num_rows, bool)
    if active_since is not None:
        recent = pc.greater_equal(items.column("last_time"), pa.scalar(active_since, items.column("last_time").type))
        eligible = pc.fill_null(recent, False).to_numpy(zero_copy_only=False)
    hidden = own.filter(own.column("hide"))
    n_users = len(names)
    sample = Sample(
        offsets_of(found_table.column("user").to_numpy(), n_users),
        found_table.column("item_index").to_numpy(),
        offsets_of(hidden.column("user").to_numpy(), n_users),
        hidden.column("item_index").to_numpy(),
        eligible,
    )
    return Window(
        coded,
        core,
        store.n_blocks(n_core, block_interactions, min_blocks),
        sample,
        own.filter(pc.invert(own.column("hidden"))),
        values,
        comebacks(*counts),
    )


def _refuse(without_index: int) -> None:
    """Raise DataError where pairs are of a user or an item without an index."""
    if without_index:
        raise DataError(f"{without_index:,} pairs are of users or items that gold.user_ids or gold.item_ids do not "
                        "have; run build_features with the same --as-of first")  # fmt: skip


def offsets_of(users: Ints, n_users: int) -> Longs:
    """Return the CSR offsets (n_users + 1,) of sorted users' numbers.

    >>> offsets_of(np.array([0, 0, 2]), 3).tolist()
    [0, 2, 2, 3]
    """
    return np.searchsorted(users, np.arange(n_users + 1))
