"""What scoring and evaluation need of the tables: who may be shown what, and the rankers of models and popularity."""

import dataclasses
import datetime as dt
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as f

from recsys_spark.config import Config, Pairs, Popularity, utc
from recsys_spark.errors import DataError
from recsys_spark.local import local_frame
from recsys_spark.runs import Run
from recsys_spark.stages.events import read_files
from recsys_spark.stages.folds import fold_of
from recsys_spark.stages.known import interactions_commit, weighed
from recsys_spark.stages.models import FITTED
from recsys_spark.topk import scorer
from recsys_spark.topk.baselines import BaselineModel, Frequent, ItemKnn, Random
from recsys_spark.topk.orders import Orders
from recsys_spark.topk.prior import Prior, popularity_scales
from recsys_spark.topk.ranker import ALLOWED, HIDDEN, SEGMENT, Model, Ranker
from recsys_spark.topk.repeats import COMEBACKS, Repeats, comebacks
from recsys_spark.transforms.attributes import items_at, states_at
from recsys_spark.transforms.events import blamed, text
from recsys_spark.transforms.interactions import decay, exact_sum

POPULARITIES = get_args(Popularity)

_SEGMENT_ITEMS = 1000  # of a segment's popular items; after them come those of all users
_SEGMENT_ROWS = 5_000_000  # of popular items of all segments together, which the driver holds
_SEGMENTS = 100_000


@dataclasses.dataclass(frozen=True)
class Known:
    """What was known as of the run's as_of by the weights of its configuration.

    pairs: as in silver.interactions; items: as `items_by_index` returns them, with what is popular by these weights.
    """

    pairs: DataFrame
    items: pa.Table


def known(run: Run) -> Known:
    """Return what was known, as build_features wrote it, or anew where it did so with other weights."""
    pairs, popular = weighed(run, interactions_commit(run))
    items = items_by_index(run)
    return Known(pairs, items if popular is None else with_popularities(items, popular))


def histories(run: Run, pairs: DataFrame, only: DataFrame | None = None) -> DataFrame:
    """Return the rows that `scorer.recommend` takes, of pairs of silver.interactions and all that rules them.

    only: (user_id) of the users to rank, who need no history; without it all that are known.
    """
    topk = run.config.topk
    # Disliked, returned: no history, but not to be shown again.
    gone = f.col("hidden") if "hidden" in pairs.columns else f.lit(False)
    parts = [scorer.history_rows(_indexed(run, pairs), hides(topk.hide_seen), gone)]
    for name, given, kind in (("blocked", topk.blocked, HIDDEN), ("allowed", topk.allowed, ALLOWED)):
        if given is not None:
            parts.append(scorer.marks(_listed_pairs(run, name, given), kind))
    if run.tables.exists("silver.users"):
        numbers = local_frame(run.spark, enumerate(_segments(run)), "item_index int, segment string")
        users = run.tables.read_again("silver.users").join(f.broadcast(numbers), "segment")
        parts.append(scorer.marks(users, SEGMENT))
    if only is None:
        return _union(parts)
    nobody = only.select("user_id", f.lit(None).cast("int").alias("item_index"))
    return _union([part.join(only, "user_id", "left_semi") for part in parts] + [scorer.marks(nobody, 0)])


def number_of_rows(run: Run, pairs: DataFrame) -> int:
    """Return about how many rows `histories`, which was called before, returns for all users of these pairs."""
    listed = sum(run.counts.get(f"topk.{name}", {}).get("pairs", 0) for name in ("blocked", "allowed"))
    users = run.tables.read_again("silver.users").count() if run.tables.exists("silver.users") else 0
    return int(pairs.count() + listed + users)


def hides(hide_seen: bool | tuple[str, ...]) -> Column:
    """Return whether a pair of silver.interactions is hidden for being seen: topk.hide_seen on its event_types."""
    if isinstance(hide_seen, bool):
        return f.lit(hide_seen)
    return f.coalesce(f.arrays_overlap("event_types", f.array(*map(f.lit, hide_seen))), f.lit(False))


def popularity_ranker(run: Run, items: pa.Table, popularity: str) -> Ranker:
    """Return the ranker of one of POPULARITIES of `items_by_index`."""
    values = items.column(popularity).to_numpy().astype(np.float32)
    codes = pc.fill_null(items.column("category").combine_chunks().dictionary_encode().indices, -1)
    return Ranker(
        pa.array(items.column("item_id").combine_chunks(), pa.string()),
        codes.to_numpy().astype(np.int32),
        Orders.of(values, _eligible(items)),
        most_of_category=run.config.topk.most_of_category,
    )


def fallback_ranker(run: Run, known: Known, segments: bool = True) -> Ranker:
    """Return the ranker of users without usable history: the popular of their segment if asked for, then of all."""
    popular = popularity_ranker(run, known.items, run.config.topk.fallback)
    return with_segments(run, popular, known) if segments else popular


def with_segments(run: Run, ranker: Ranker, known: Known) -> Ranker:
    """Return the ranker with what is popular in each segment before what is popular with all."""
    return dataclasses.replace(ranker, segments=_segment_orders(run, known))


def with_popularities(items: pa.Table, values: DataFrame) -> pa.Table:
    """Return `items_by_index` with other popularities: values (item_id, some of POPULARITIES)."""
    others = _of_items(items.column("item_id").combine_chunks(), values)
    for name in set(POPULARITIES) & set(values.columns):
        items = items.set_column(items.column_names.index(name), name, pc.fill_null(others.column(name), 0.0))
    return items


def model_ranker(run: Run, model: Row, known: Known, segments: bool = True) -> Ranker:
    """Return the ranker of a model of any kind, with the configured popularity behind it, by segment if asked for."""
    kind, items = model["kind"], known.items
    if kind in POPULARITIES:
        return popularity_ranker(run, items, kind)
    ranker, topk = fallback_ranker(run, known, segments), run.config.topk
    if kind not in FITTED:
        own = _baseline(run, model, items)
        return dataclasses.replace(
            ranker, baseline=own, may=_eligible(items), reasons=topk.reasons, only_seen=topk.only_seen
        )
    indices, fold = fold_of(run, model)
    popularity = items.column(topk.prior.popularity).to_numpy().astype(np.float32)[indices]
    prior = None
    if topk.prior.weight or topk.prior.new_users:
        settings = topk.prior
        prior = Prior.of(popularity, fold.item_factors(), settings.weight, settings.new_users, settings.min_history)
    scales = popularity_scales(popularity, topk.popularity_exponent) if topk.popularity_exponent else None
    factors = Model.of(kind, indices, fold, _eligible(items), ranker.categories, prior, scales)
    return dataclasses.replace(
        ranker, model=factors, reasons=topk.reasons, repeats=_repeats(run, items), only_seen=topk.only_seen
    )


def _repeats(run: Run, items: pa.Table) -> Repeats | None:
    """Return how items of the own history are raised, by `items_by_index`."""
    topk = run.config.topk
    if not topk.repeat_weight:
        return None
    prior = None
    if topk.repeat_prior is not None:
        counts = (pc.fill_null(items.column(name), 0).to_numpy().astype(np.float64) for name in COMEBACKS)
        prior = (topk.repeat_prior / dt.timedelta(days=1) * comebacks(*counts)).astype(np.float32)
    return Repeats(topk.repeat_weight, run.config.features.transform == "log1p", prior)


def _baseline(run: Run, model: Row, items: pa.Table) -> BaselineModel:
    if model["kind"] == "frequent":
        return Frequent()
    if model["kind"] == "random":
        settings = Config.model_validate_json(model["config"]).model
        return Random(settings.seed, 10 * run.config.topk.k)
    return _item_knn(run, model, items)


def _item_knn(run: Run, model: Row, items: pa.Table) -> ItemKnn:
    """Read the neighbours of a model from gold.item_neighbours."""
    where = {"model_id": model["model_id"], "as_of": model["as_of"] and utc(model["as_of"]), "kind": "item_knn"}
    rows = run.tables.read_slice("gold.item_neighbours", where).select("item_id", "items").toArrow().combine_chunks()
    names = items.column("item_id").combine_chunks()
    own = pc.index_in(rows.column("item_id"), names).to_numpy()
    order = np.argsort(own)
    near = rows.column("items").combine_chunks().take(pa.array(order))
    counts = np.zeros(len(names), np.int64)
    counts[own[order]] = near.value_lengths().to_numpy()
    flat = near.flatten()
    places = pc.index_in(flat.field("item_id"), names).to_numpy().astype(np.int32)
    return ItemKnn(np.concatenate([[0], np.cumsum(counts)]), places, flat.field("score").to_numpy().astype(np.float32))


def items_by_index(run: Run) -> pa.Table:
    """Return what is known of the dictionary's items as of the run's as_of, in the order of their indices.

    item_id, POPULARITIES, COMEBACKS, category, and eligible: whether the item may be listed at all.
    """
    topk, tables = run.config.topk, run.tables
    ids = tables.read_again("gold.item_ids").select("item_id", "item_index").toArrow().sort_by("item_index")
    names = ids.column("item_id").combine_chunks()
    active = f.lit(True)
    if topk.active_within is not None:
        active = f.coalesce(f.col("last_time") >= f.lit(run.as_of) - f.lit(topk.active_within), f.lit(False))
    features = tables.read_slice("gold.item_features", {"as_of": run.as_of})
    counted = _of_items(names, features.select("item_id", *POPULARITIES, *COMEBACKS, active.alias("active")))
    # The dictionary may know items of later dates, of which nothing is counted.
    eligible = pc.fill_null(counted.column("active"), False)
    category, n_unheard = pa.nulls(len(names), pa.string()), 0
    if tables.exists("silver.items"):
        category, listed, n_unheard = _of_catalog(run, names)
        eligible = pc.and_(eligible, listed)
    n_eligible = pc.sum(eligible).as_py() or 0
    # What is eligible but has no event is in no list: many of them mean that log and catalog name items differently.
    counts = {"eligible": n_eligible, "known": len(names), "eligible_without_events": n_unheard}
    if (n_eligible < len(names) or n_unheard) and run.counts.get("eligible_items") != counts:
        run.counts["eligible_items"] = counts
        run.say(f"scoring: {n_eligible:,} of {len(names):,} items may be listed; {n_unheard:,} more have no events")
    popular = {name: pc.fill_null(counted.column(name), 0.0) for name in POPULARITIES}
    returning = {name: counted.column(name) for name in COMEBACKS}
    columns = {"item_index": ids.column("item_index"), "item_id": names, **popular, **returning}
    return pa.table(columns | {"category": category, "eligible": eligible}).combine_chunks()


def _of_catalog(run: Run, names: pa.Array) -> tuple[pa.ChunkedArray, pa.ChunkedArray, int]:
    """Return what silver.items says, as of the run's as_of, of the dictionary's items, in the order of names.

    Their categories (n_items,), whether they may be listed (n_items,), and how many others may be. An item of which it
    says nothing may be, unless there is a condition.
    """
    condition = run.config.topk.eligible
    chosen = f.lit(True) if condition is None else f.coalesce(f.expr(condition), f.lit(False))
    ids, every, n_others = run.tables.read_again("gold.item_ids"), run.tables.read_again("silver.items"), 0
    with blamed(f"topk.eligible: {condition!r}"):
        known = states_at(every.join(f.broadcast(ids), "item_id", "left_semi"), run.as_of)
        category, listed = f.when(f.col("valid"), f.col("category")), f.col("valid") & chosen
        found = _of_items(names, known.select("item_id", category.alias("category"), listed.alias("listed")))
        if condition is not None:
            others = items_at(every.join(f.broadcast(ids), "item_id", "left_anti"), run.as_of)
            n_others = others.where(chosen).count()
    return found.column("category"), pc.fill_null(found.column("listed"), condition is None), n_others


def _of_items(names: pa.Array, rows: DataFrame) -> pa.Table:
    """Return rows (item_id, …), one an item, in the order of names (n_items,), null where an item has none."""
    held = rows.toArrow().combine_chunks()
    return held.take(pc.index_in(names, held.column("item_id").combine_chunks()))


def _indexed(run: Run, pairs: DataFrame) -> DataFrame:
    """Add item_index to pairs, null where the dictionary lacks the item."""
    return pairs.join(f.broadcast(run.tables.read_again("gold.item_ids")), "item_id", "left")


def _union(parts: list[DataFrame]) -> DataFrame:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.unionByName(part)
    return whole


def _listed_pairs(run: Run, name: str, given: Pairs) -> DataFrame:
    """Return (user_id, item_index) of a configured file of pairs; count what it has, and which items are unknown."""
    raw = read_files(run, given)
    pairs = _indexed(run, raw.select(text("user_id").alias("user_id"), text("item_id").alias("item_id")).distinct())
    user = f.coalesce("user_id", f.lit(""))
    unknown, nobody = f.col("item_index").isNull(), user == ""
    counts = pairs.agg(f.count(f.lit(1)), f.count_if(unknown & ~nobody), f.count_if(nobody)).first()
    assert counts is not None
    run.counts[f"topk.{name}"] = {"pairs": counts[0], "of_unknown_items": counts[1], "without_user": counts[2]}
    run.say(f"scoring: topk.{name}: {counts[0]:,} pairs, {counts[1]:,} of items that nobody knows, {counts[2]:,} "
            "without a user")  # fmt: skip
    return pairs.where(~nobody).select("user_id", "item_index")


def _eligible(items: pa.Table) -> NDArray[np.bool_]:
    return items.column("eligible").to_numpy(zero_copy_only=False)


def _segments(run: Run) -> list[str]:
    """Return the names of all segments, sorted."""
    rows = (
        run.tables.read_again("silver.users")
        .select("segment")
        .distinct()
        .sort("segment")
        .limit(_SEGMENTS + 1)
        .collect()
    )
    if len(rows) > _SEGMENTS:
        raise DataError(f"silver.users: more than {_SEGMENTS} segments; map users.columns.segment to a coarser column")
    return [row[0] for row in rows]


def _segment_orders(run: Run, known: Known) -> Orders | None:
    """Return the eligible items that most users of each segment had, the first thousand of each.

    Where there are more than 5,000 segments they are as many as all have room for, yet enough for a list.
    """
    if not run.tables.exists("silver.users"):
        return None
    names = _segments(run)
    most = max(run.config.topk.k, min(_SEGMENT_ITEMS, _SEGMENT_ROWS // max(len(names), 1)))
    pairs, items = known.pairs.where("adopted"), known.items
    one: Any = f.lit(1.0)
    if run.config.topk.fallback != "popularity" and run.as_of is not None:
        time = "first_time" if run.config.topk.fallback == "adoptions_decayed" else "last_time"
        one = decay(run.as_of, run.config.features.popularity_half_life, time)
    allowed = run.spark.createDataFrame(items.filter(items.column("eligible")).select(["item_id", "item_index"]))
    popular = (
        pairs.join(run.tables.read_again("silver.users"), "user_id")
        .groupBy("segment", "item_id")
        .agg(exact_sum(one).cast("float").alias("value"))
        .join(f.broadcast(allowed), "item_id")
    )
    best = Window.partitionBy("segment").orderBy(f.desc("value"), "item_index")
    rows = (
        popular.withColumn("place", f.row_number().over(best))
        .where(f.col("place") <= most)
        .select("segment", "place", "item_index", "value")
        .toArrow()
        .sort_by([("segment", "ascending"), ("place", "ascending")])
    )
    numbers = pc.index_in(rows.column("segment"), pa.array(names, pa.string())).to_numpy()
    starts = np.searchsorted(numbers, np.arange(len(names) + 1))
    return Orders(starts, rows.column("item_index").to_numpy(), rows.column("value").to_numpy())
