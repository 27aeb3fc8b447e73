"""bronze.events to weighted interactions, dictionaries and item features, as of a moment."""

import datetime as dt

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from recsys_spark.blocks import store
from recsys_spark.config import Config
from recsys_spark.errors import DataError
from recsys_spark.runs import Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages.events import latest_time, parsed_events, read_files
from recsys_spark.transforms import attributes, events, ids, interactions, kcore, splits


def build_features(run: Run) -> None:
    """Write silver.interactions and gold.item_features of the run's as_of, extend the dictionaries."""
    parsed, bronze = parsed_events(run)
    run.as_of = run.as_of or latest_time(parsed)
    note = {"from": {"bronze.events": bronze, **_settings(run.config)}, "run_id": run.run_id}
    where = {"as_of": run.as_of}
    written = [run.tables.find(name, where) for name in ("silver.interactions", "gold.item_features")]
    names = (
        "silver.interactions",
        "gold.item_features",
        "silver.quarantine",
        "gold.user_ids",
        "gold.item_ids",
    )
    if all(commit is not None and commit.note["from"] == note["from"] for commit in written):
        run.say(f"features: as of {run.as_of} they are built already")
        run.outputs |= {name: commit.version for name, commit in zip(names, written, strict=False) if commit}
        run.outputs |= {name: run.tables.version(name) for name in names[2:]}
        return
    _quarantine(run, parsed)
    _attributes(run)
    past, _ = splits.split(events.valid(parsed), run.as_of, run.config.evaluation.horizon, run.config.holdout)
    pairs = interactions.interactions(past, run.config.features, run.as_of).persist(StorageLevel.MEMORY_AND_DISK)
    n_pairs = pairs.count()
    if n_pairs == 0:
        raise DataError(f"as of {run.as_of}: no event is left to learn from; look at silver.quarantine or --as-of")
    for name, column, index in (
        ("gold.user_ids", "user_id", "user_index"),
        ("gold.item_ids", "item_id", "item_index"),
    ):
        run.outputs[name] = _extend(run, name, pairs, column, index)
    marked = with_core(run, pairs, n_pairs)
    kept = marked.drop("recent").withColumn("as_of", as_timestamp(run.as_of))
    features = interactions.item_features(pairs, run.as_of, run.config.features.popularity_half_life).withColumn(
        "as_of", as_timestamp(run.as_of)
    )
    for name, frame in zip(names, (kept, features), strict=False):
        run.outputs[name] = run.tables.write_slice(name, frame, where, note, ("as_of",)).version
    marked.unpersist()
    pairs.unpersist()
    run.say(f"features: {n_pairs:,} pairs of user and item" + (f" as of {run.as_of}" if run.as_of else ""))


def as_timestamp(moment: dt.datetime | None) -> Column:
    """Return a moment as a literal column."""
    return f.lit(moment).cast("timestamp")


def _settings(config: Config) -> dict[str, object]:
    """What the features depend on beside the rows: it decides whether they must be built again."""
    chosen = config.model_dump(mode="json", include={"source", "features", "holdout", "items", "users"})
    return {"config": chosen}


def _quarantine(run: Run, parsed: DataFrame) -> None:
    """Write the refused rows with their reasons; raise DataError where they are more than the configuration allows."""
    counts = {row["reason"]: row["count"] for row in parsed.groupBy("reason").count().collect()}
    total = sum(counts.values())
    refused = {reason: counts[reason] for reason in sorted(counts.keys() - {None})}
    run.counts |= {"rows": total, "kept": counts.get(None, 0), "refused": refused}
    share = sum(refused.values()) / max(total, 1)
    if share > run.config.features.max_quarantined:
        raise DataError(
            f"{share:.1%} of {total} rows are refused ({refused}), more than features.max_quarantined = "
            f"{run.config.features.max_quarantined:.1%}; mend the source or raise the limit"
        )
    commit = run.tables.write_slice("silver.quarantine", events.refused(parsed, run.run_id), {})
    run.outputs["silver.quarantine"] = commit.version
    run.say(f"events: {total:,} rows, {counts.get(None, 0):,} kept, refused: {refused or 'none'}")


def _attributes(run: Run) -> None:
    """Write silver.items and silver.users as their files are now."""
    config = run.config
    if config.items is not None:
        known = attributes.items(read_files(run, config.items), config.items)
        run.outputs["silver.items"] = run.tables.write_slice("silver.items", known, {}).version
    if config.users is not None:
        known = attributes.users(read_files(run, config.users), config.users)
        run.outputs["silver.users"] = run.tables.write_slice("silver.users", known, {}).version


def _extend(run: Run, name: str, pairs: DataFrame, column: str, index: str) -> int:
    """Append the new ids of a column to its dictionary; return the dictionary's version."""
    return run.tables.extend(name, lambda known: ids.extend(known, pairs, column, index))


def with_core(run: Run, pairs: DataFrame, n_pairs: int) -> DataFrame:
    """Mark the pairs whose user and item both belong to the k-core."""
    k = run.config.features.k_core
    if k == 1:
        return pairs.withColumn("core", f.lit(True))
    users, items = run.tables.read("gold.user_ids"), run.tables.read("gold.item_ids")
    coded = ids.encode(pairs.select("user_id", "item_id"), users, items)
    histories = coded.select(
        f.col("user_index").alias("row"), f.col("item_index").alias("column"), f.lit(1.0).alias("value")
    )
    als = run.config.als
    columns = np.arange(items.count(), dtype=np.int32)
    blocks = store.build(histories, columns, store.n_blocks(n_pairs, als.block_interactions, als.min_blocks))
    kept = kcore.core_columns(blocks, k)
    core_users = (
        kcore.core_rows(blocks, kept, k).join(users, f.col("row") == f.col("user_index"), "inner").select("user_id")
    )
    kept_items = run.spark.createDataFrame([(int(i),) for i in np.flatnonzero(kept)], "item_index int")
    core_items = items.join(f.broadcast(kept_items), "item_index", "left_semi").select("item_id")
    marked = (
        pairs.join(core_users.withColumn("_user", f.lit(True)), "user_id", "left")
        .join(f.broadcast(core_items.withColumn("_item", f.lit(True))), "item_id", "left")
        .withColumn("core", f.coalesce(f.col("_user") & f.col("_item"), f.lit(False)))
        .drop("_user", "_item")
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    left = marked.where("core").count()
    blocks.close()
    run.say(f"{k}-core: {left:,} of {n_pairs:,} pairs")
    if left == 0:
        raise DataError(f"features.k_core: {k}: no user and item are left; lower it")
    return marked


def main() -> int:
    """Run the job from the command line."""
    return run_job("build_features", {"build_features": build_features}, __doc__ or "")
