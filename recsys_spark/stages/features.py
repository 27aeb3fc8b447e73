"""bronze.events to weighted interactions, dictionaries, features and a profile, as of a moment."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark.blocks import store
from recsys_spark.config import Config
from recsys_spark.errors import DataError, JobError
from recsys_spark.redaction import redacted_config
from recsys_spark.runs import Option, Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages import known
from recsys_spark.stages.events import number_and_end, typed_events
from recsys_spark.tables import Commit
from recsys_spark.transforms import events, ids, interactions, kcore, limits, splits

# In the order in which they are written: where silver.interactions is, all else is.
SLICES = ("gold.user_features", "gold.item_features", "gold.profile", "silver.interactions")
DICTIONARIES = {"gold.user_ids": ("user_id", "user_index"), "gold.item_ids": ("item_id", "item_index")}
_ROWS_BY_USER = 200_000_000
OPTIONS: dict[str, Option] = {
    "--anew": {"action": "store_true", "help": "build the slices even where they are built already"},
}


def build_features(run: Run) -> None:
    """Write silver.interactions, gold.user_features, gold.item_features and gold.profile of the run's as_of.

    Extends the dictionaries, and replaces silver.quarantine, silver.items and silver.users. Features as of a date that
    is past stay as they were built, whatever comes late, unless it is asked for: `--anew`, `source.ingested_before`.
    """
    dated = run.as_of is not None
    typed, bronze, n_rows = typed_events(run)
    timed = run.config.source.columns.time is not None
    if timed and run.as_of is None and (run.tables.exists(SLICES[-1]) or run.config.source.heavy_users):
        _, run.as_of = number_and_end(events.valid(typed))  # there may be nothing to do; or it says which rows are good
    given = {name: getattr(run.config, name) for name in ("items", "users", "friends")}
    note: dict[str, Any] = {
        "from": {
            "bronze.events": bronze,
            "files": known.delivered(run, given),
            "columns": known.PAIRS,
            **_settings(run.config),
        },
        "run_id": run.run_id,
        "built_at": dt.datetime.now(dt.UTC).isoformat(),
    }
    if not run.options.get("anew") and _is_built(run, note, dated):
        return
    parsed = limits.judge(typed, run.config.source, run.as_of)
    # One pass over the log, and one shuffle: what is grouped by user, or by user and item, needs no other. In a large
    # log the rows of a guest's or a robot's id would be too many for one task: there groups are summed, then shuffled.
    rows = events.told_apart(parsed, run.run_id)
    if n_rows <= _ROWS_BY_USER:
        rows = rows.repartition("user_id")
    rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
    good = rows.where("refused IS NULL").drop("refused")
    n_kept, after_last = number_and_end(good)
    run.as_of = run.as_of or after_last
    _quarantine(run, events.refused(rows), n_rows, n_kept)
    note["counts"] = dict(run.counts)
    known.write_attributes(run)
    past, future = splits.split(good, run.as_of, run.config.evaluation.horizon, run.config.holdout)
    learnt = splits.learnt_from(run.config.holdout)
    pairs = interactions.interactions(past, run.config.features, run.as_of, learnt)
    pairs = pairs.persist(StorageLevel.MEMORY_AND_DISK)
    n_pairs = pairs.count()
    if n_pairs == 0:
        raise DataError(f"as of {run.as_of}: no event is left to learn from; look at silver.quarantine or --as-of")
    _check_given_split(run, pairs, future)
    for name, (column, index) in DICTIONARIES.items():
        run.outputs[name] = _extend(run, name, pairs, column, index)
    marked = with_core(run, pairs, n_pairs)
    counted = interactions.item_features(pairs, run.as_of, run.config.features.popularity_half_life)
    counted = counted.persist(StorageLevel.MEMORY_AND_DISK)
    moment = known.moment_of(run, past)
    where = {"as_of": run.as_of}
    slices: dict[str, Callable[[], DataFrame]] = {
        "gold.user_features": lambda: known.user_features(run, past, pairs, moment),
        "gold.item_features": lambda: known.item_features(run, past, counted, moment),
        "gold.profile": lambda: known.data_profile(run, past, marked, counted),
        "silver.interactions": lambda: known.interactions(run, marked),
    }
    for name in SLICES:
        run.outputs[name] = run.tables.write_slice(name, slices[name](), where, note, ("as_of",)).version
    for cached in (counted, marked, pairs, rows):
        cached.unpersist()
    run.say(f"features: {n_pairs:,} pairs of user and item" + (f" as of {run.as_of}" if run.as_of else ""))


def _is_built(run: Run, note: dict[str, Any], dated: bool) -> bool:
    """Whether all that the run would write is there already; then say so and name it as the run's outputs.

    dated: whether a date was asked for, and not all that there is. Its features may be of an earlier bronze.events.
    """
    written = {name: run.tables.find(name, {"as_of": run.as_of}) for name in SLICES}
    first, last = written[SLICES[0]], written[SLICES[-1]]
    if first is None or last is None or first.note["from"] != last.note["from"]:
        return False
    late = {**first.note["from"], "bronze.events": note["from"]["bronze.events"]}
    same = bool(first.note["from"] == note["from"])
    if not same and not (late == note["from"] and dated and _stays(run, first)):
        return False
    run.counts |= first.note.get("counts", {})
    run.outputs |= {name: commit.version for name, commit in written.items() if commit}
    run.outputs |= {name: run.tables.version(name) for name in ("silver.quarantine", *DICTIONARIES)}
    rest = "" if same else "; what was ingested since is not in them: --anew, or a later source.ingested_before"
    run.say(f"features: as of {run.as_of} they are built already{rest}")
    return True


def _stays(run: Run, built: Commit) -> bool:
    """Whether a slice is to stay though bronze.events has changed: it was built when its date was past."""
    moment = built.note.get("built_at")
    if moment is None or run.as_of is None or run.config.source.ingested_before is not None:
        return False
    return run.as_of <= dt.datetime.fromisoformat(moment)


def _settings(config: Config) -> dict[str, object]:
    """What the features depend on beside the rows: it decides whether they must be built again."""
    sections = {"source", "features", "holdout", "items", "users", "friends"}
    chosen = redacted_config(config.model_dump(mode="json", include=sections))
    del chosen["source"]["ingested_before"]  # it chose the version of bronze.events
    if config.als.objective == "explicit":  # ratings of 0 are trained on
        chosen["als"] = {"objective": "explicit"}
    return {"config": chosen}


def _quarantine(run: Run, lost: DataFrame, n_rows: int, n_kept: int) -> None:
    """Write the refused rows with their reasons, and check that no row is lost.

    Raises DataError, before anything is written, where they are more than the configuration allows.
    """
    share = (n_rows - n_kept) / max(n_rows, 1)
    if share > run.config.features.max_quarantined:
        counts = {row["reason"]: row["count"] for row in lost.groupBy("reason").count().collect()}
        raise DataError(
            f"{share:.1%} of {n_rows} rows are refused ({_sorted(counts)}), more than features.max_quarantined = "
            f"{run.config.features.max_quarantined:.1%}; mend the source or raise the limit"
        )
    commit = run.tables.write_slice("silver.quarantine", lost, {})
    refused: dict[str, int] = {}
    if n_kept < n_rows:
        rows = run.tables.read("silver.quarantine", commit.version).groupBy("reason").count().collect()
        refused = _sorted({row["reason"]: row["count"] for row in rows})
    if n_kept + sum(refused.values()) != n_rows:
        raise JobError(
            f"of {n_rows} rows of bronze.events {n_kept} were kept and {sum(refused.values())} refused ({refused}): "
            "a row is lost or counted twice; this is an error of the program"
        )
    run.counts |= {"rows": n_rows, "kept": n_kept, "refused": refused}
    run.outputs["silver.quarantine"] = commit.version
    run.say(f"events: {n_rows:,} rows, {n_kept:,} kept, refused: {refused or 'none'}")


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    """Counts by reason, in the order of the reasons' names."""
    return dict(sorted(counts.items()))


def _check_given_split(run: Run, pairs: DataFrame, future: DataFrame) -> None:
    """Count and tell what of a published test file stands in the log too; all other splits are exclusive as made."""
    if run.config.holdout is None or run.config.holdout.path is None:
        return
    known = splits.known_pairs(pairs, future).count()
    if known:
        run.counts["holdout_pairs_known"] = known
        run.say(f"holdout: {known:,} of its pairs of user and item are in the log too, so nothing new to predict")


def _extend(run: Run, name: str, pairs: DataFrame, column: str, index: str) -> int:
    """Append the new ids of a column to its dictionary; return the dictionary's version."""
    return run.tables.extend(name, lambda known: ids.extend(known, pairs, column, index))


def with_core(run: Run, pairs: DataFrame, n_pairs: int, weight: str = "weight") -> DataFrame:
    """Mark the pairs that are trained on: not hidden, not of users held out, user and item both in the k-core.

    A pair whose weight, the column of that name, is 0 says nothing, unless weights are ratings.
    """
    k, rounds = run.config.features.k_core, run.config.features.k_core_rounds
    trained = ~f.col("hidden") & splits.learnt_from(run.config.holdout)
    if run.config.als.objective != "explicit":
        trained &= f.col(weight) > 0
    if k == 1:
        return pairs.withColumn("core", trained)
    users, items = run.tables.read("gold.user_ids"), run.tables.read("gold.item_ids")
    coded = ids.encode(pairs.where(trained).select("user_id", "item_id"), users, items)
    histories = coded.select(
        f.col("user_index").alias("row"), f.col("item_index").alias("column"), f.lit(1.0).alias("value")
    )
    als = run.config.als
    columns = np.arange(items.count(), dtype=np.int32)
    blocks = store.build(histories, columns, store.n_blocks(n_pairs, als.block_interactions, als.min_blocks))
    kept = kcore.core_columns(blocks, k, rounds)
    kept_items = run.spark.createDataFrame(pa.table({"item_index": np.flatnonzero(kept).astype(np.int32)}))
    core_items = items.join(f.broadcast(kept_items), "item_index", "left_semi").select("item_id")

    def counted() -> tuple[DataFrame, int]:
        core_users = kcore.core_rows(blocks, kept, k).join(users, f.col("row") == f.col("user_index")).select("user_id")
        marked = (
            pairs.join(core_users.withColumn("_user", f.lit(True)), "user_id", "left")
            .join(f.broadcast(core_items.withColumn("_item", f.lit(True))), "item_id", "left")
            .withColumn("core", trained & f.coalesce(f.col("_user") & f.col("_item"), f.lit(False)))
            .drop("_user", "_item")
            .persist(StorageLevel.MEMORY_AND_DISK)
        )
        return marked, marked.where("core").count()

    marked, left = blocks.repeat(counted)
    blocks.close()
    run.say(f"{k}-core: {left:,} of {n_pairs:,} pairs")
    if left == 0:
        raise DataError(f"features.k_core: {k}: no user and item are left; lower it")
    return marked


def main() -> int:
    """Run the job from the command line."""
    return run_job("build_features", {"build_features": build_features}, __doc__ or "", options=OPTIONS)
