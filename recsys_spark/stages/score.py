"""silver.interactions and a model to gold.recommendations: the k best items for every user, or for those of a file."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import Accumulator
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as f

from recsys_spark.config import Files
from recsys_spark.errors import DataError, TryAgainError
from recsys_spark.local import local_frame
from recsys_spark.redaction import redacted_config
from recsys_spark.runs import Option, Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages.champions import with_own_settings
from recsys_spark.stages.events import read_files
from recsys_spark.stages.known import as_timestamp, delivered, interactions_commit, weights_of
from recsys_spark.stages.models import model_of
from recsys_spark.stages.rankers import POPULARITIES, histories, known, model_ranker, number_of_rows, with_segments
from recsys_spark.stages.shown import show_lists
from recsys_spark.stages.similar import similar_items
from recsys_spark.tables import Slice
from recsys_spark.topk import scorer
from recsys_spark.topk.ranker import Ranker
from recsys_spark.transforms.events import text

PARTS = "gold.recommendations_parts"
OPTIONS: dict[str, Option] = {
    "--model": {"metavar": "ID", "help": "model to serve, or `champion`; without it, this run's or the newest"},
    "--users": {"metavar": "FILE", "help": "CSV, JSON or Parquet with user_id (and item_id, weight: their histories): "
                                           "rank for these users alone and show the lists"},
    "--similar-items": {"action": "store_true", "help": "write gold.item_neighbours instead: items beside each item"},
    "--anew": {"action": "store_true", "help": "rank everyone even where the lists are there already"},
    "--export": {"choices": ["parquet", "jsonl"], "help": "write the lists as plain files too, under exports/"},
}  # fmt: skip
_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_FEW = 1000
_MOST_PARTS = 16  # each reads all interactions, so that more of them would be mostly reading


def score_topk(run: Run) -> None:
    """Write the list of every user who is known before as_of, one slice a model and as_of.

    With --users it is a few users' lists that are shown, with --similar-items items' neighbours that are written.
    """
    run.resolve_as_of()
    model = model_of(run)
    if run.options.get("model") == "champion":
        run = with_own_settings(run, model)
    if run.options.get("similar_items"):
        similar_items(run, model)
    elif run.options.get("users"):
        _score_few(run, model, run.options["users"])
    else:
        where = {"model_id": model["model_id"], "as_of": run.as_of}
        _score_all(run, model, where)
        if run.options.get("export"):
            _export(run, where)


def _score_all(run: Run, model: Row, where: Slice) -> None:
    commit, topk = interactions_commit(run), run.config.topk
    more = [name for name in ("silver.items", "silver.users") if run.tables.exists(name)]
    features = run.tables.find("gold.item_features", {"as_of": run.as_of})
    sources: dict[str, object] = {
        "silver.interactions": commit.version,
        "gold.item_features": features and features.version,
        "topk": redacted_config(topk.model_dump(mode="json")),
        "weights": weights_of(run),
        "files": delivered(run, {"blocked": topk.blocked, "allowed": topk.allowed}),
    }
    note: dict[str, object] = {"from": sources | {name: run.tables.version(name) for name in more}}
    done = run.tables.find("gold.recommendations", where)
    if done is not None and done.note.get("from") == note["from"] and not run.options.get("anew"):
        run.outputs["gold.recommendations"] = done.version
        _drop_parts(run, where)
        run.say(f"scoring: the lists of model {model['model_id']} as of {run.as_of} are there already")
        return
    then = known(run)
    shipped = scorer.ship(run.spark.sparkContext, model_ranker(run, model, then))
    rows = histories(run, then.pairs)
    n_rows = number_of_rows(run, then.pairs)
    n_parts = min(_MOST_PARTS, max(1, -(-n_rows // topk.chunk_interactions)))
    counter = run.spark.sparkContext.accumulator(0)
    with run.doing("ranking", counter):
        if n_parts == 1:
            lists = scorer.recommend(rows, n_rows, shipped, topk.k, counter)
            lists = lists.withColumn("model_id", f.lit(model["model_id"])).withColumn("as_of", as_timestamp(run.as_of))
        else:
            lists = _in_parts(run, rows, n_rows, n_parts, shipped, where, note, counter)
        commit = run.tables.write_slice("gold.recommendations", lists, where, note, ("model_id", "as_of"))
    then.pairs.unpersist()
    _drop_parts(run, where)
    run.outputs["gold.recommendations"] = commit.version
    written = run.tables.read_slice("gold.recommendations", where, commit.version).groupBy("source").count().collect()
    run.counts["lists"] = {row["source"]: row["count"] for row in sorted(written)}
    run.say(f"scoring: lists by source: {run.counts['lists']}")


def _in_parts(
    run: Run,
    rows: DataFrame,
    n_rows: int,
    n_parts: int,
    shipped: scorer.Shipped,
    where: Slice,
    note: dict[str, object],
    counter: Accumulator[int],
) -> DataFrame:
    """Rank users in parts, by a hash of their ids; each part that is done is kept in PARTS for a later try."""
    digest = hashlib.sha256(json.dumps(note, sort_keys=True, default=str).encode()).hexdigest()[:16]
    mine = {**where, "work": digest}
    if run.options.get("anew"):
        _drop_parts(run, where)
    there = _parts(run, mine)
    if there:
        run.say(f"scoring: {len(there)} of {n_parts} parts are there already")
    for part in sorted(set(range(n_parts)) - there):
        own = rows.where(_hashed_to(part, n_parts))
        lists = scorer.recommend(own, n_rows // n_parts, shipped, run.config.topk.k, counter)
        whole = (
            lists.withColumn("model_id", f.lit(where["model_id"]))
            .withColumn("as_of", as_timestamp(run.as_of))
            .withColumn("work", f.lit(digest))
            .withColumn("part", f.lit(part))
        )
        run.tables.write_slice(PARTS, whole, {**mine, "part": part}, {}, ("model_id", "as_of", "work", "part"))
        run.progress(f"scoring: part {part + 1} of {n_parts} is done")
    version = run.tables.version(PARTS)
    for part in sorted(set(range(n_parts)) - _parts(run, mine, version)):
        if not rows.where(_hashed_to(part, n_parts)).isEmpty():
            raise TryAgainError(f"{PARTS}: another run cleared part {part + 1}, and published the lists; run it again")
    return run.tables.read_slice(PARTS, mine, version).drop("work", "part")


def _hashed_to(part: int, n_parts: int) -> Column:
    return f.pmod(f.xxhash64("user_id"), f.lit(n_parts)) == part


def _parts(run: Run, mine: Slice, version: int | None = None) -> set[int]:
    """Return the parts that have rows."""
    if not run.tables.exists(PARTS):
        return set()
    return {row["part"] for row in run.tables.read_slice(PARTS, mine, version).select("part").distinct().collect()}


def _drop_parts(run: Run, where: Slice) -> None:
    """Delete the parts of lists that are published, which an earlier try may have left too."""
    if run.tables.exists(PARTS):
        run.tables.delete(PARTS, where)


def _export(run: Run, where: Slice) -> None:
    """Write the lists as plain files, one row or line a user."""
    lists = run.tables.read_slice("gold.recommendations", where)
    moment = "always" if run.as_of is None else f"{run.as_of:%Y-%m-%dT%H%M%S}"
    place = run.tables.export(
        lists.drop("model_id", "as_of"), f"recommendations/{where['model_id']}/{moment}", run.options["export"]
    )
    run.counts["export"] = place
    run.say(f"scoring: lists as {run.options['export']} in {place}")


def _score_few(run: Run, model: Row, file: str) -> None:
    """Rank for the users of a file and show their lists, on stderr and in the summary; no table changes.

    So few are ranked on the driver: Python workers would take longer to start than they would work.
    """
    given, users = _given(run, file)
    only, then = local_frame(run.spark, ((user,) for user in users), "user_id string"), known(run)
    if "item_id" in given.columns:
        own = given.where(f.col("item_id") != "").groupBy("user_id", "item_id").agg(f.sum("weight").alias("weight"))
        pairs = own.withColumn("event_types", f.lit(None).cast("array<string>"))
    else:
        pairs = then.pairs.where(f.col("user_id").isin(users))
    rows = histories(run, pairs, only).toArrow()
    ranker = model_ranker(run, model, then, segments=False)
    lists = _ranked(rows, ranker, run.config.topk.k)
    short = [user for user, row in lists.items() if _filled_up(row, run.config.topk.k)]
    # What is popular in segments takes a pass over all interactions, and few lists need it.
    if short and run.tables.exists("silver.users") and model["kind"] not in POPULARITIES:
        theirs = rows.filter(pc.is_in(rows.column("user_id"), pa.array(short)))
        lists |= _ranked(theirs, with_segments(run, ranker, then), run.config.topk.k)
    run.counts["users"] = show_lists(run, lists.values(), pairs)
    then.pairs.unpersist()


def _given(run: Run, file: str) -> tuple[DataFrame, list[str]]:
    """Return the rows of a file of users (user_id, and where it has histories item_id, weight), and these users."""
    form = _FORMATS.get(Path(file).suffix)
    if form is None:
        raise DataError(f"--users {file}: its name must end in {', '.join(_FORMATS)}")
    raw = read_files(run, Files.model_validate({"path": file, "format": form}))
    if "user_id" not in raw.columns:
        raise DataError(f"--users {file}: no column user_id; its columns are: {', '.join(raw.columns)}")
    columns = [f.coalesce(text("user_id"), f.lit("")).alias("user_id")]
    if "item_id" in raw.columns:
        weight = text("weight").try_cast("double") if "weight" in raw.columns else f.lit(1.0)
        columns += [f.coalesce(text("item_id"), f.lit("")).alias("item_id"), weight.alias("weight")]
    given = raw.select(*columns)
    # NaN is more than infinity in Spark. Only ratings may be below zero.
    least = float("-inf") if run.config.als.objective == "explicit" else 0.0
    fits = (f.abs("weight") < float("inf")) & (f.col("weight") >= least)
    no_number = f.count_if(~f.coalesce(fits, f.lit(False))) if "item_id" in raw.columns else f.lit(0)
    # One more than may be, and nobody, who would be one of them.
    rows = given.groupBy("user_id").agg(f.count(f.lit(1)), no_number).limit(_FEW + 2).collect()
    users = sorted(user for user, _, _ in rows if user)
    if len(users) > _FEW:
        raise DataError(f"--users {file}: more than {_FEW} users; score all users instead")
    nobody, no_weight = sum(n for user, n, _ in rows if not user), sum(wrong for _, _, wrong in rows)
    if nobody or no_weight:
        raise DataError(
            f"--users {file}: {nobody} rows without a user, {no_weight} with a weight that is no "
            f"number{'' if least < 0 else ' from 0 on'}"
        )
    if not users:
        raise DataError(f"--users {file}: no users")
    return given, users


def _ranked(rows: pa.Table, ranker: Ranker, k: int) -> dict[str, dict[str, Any]]:
    """Return the lists of the users of rows, by user; see `scorer.recommend`."""
    chunks = scorer.rank(rows.to_batches(), lambda: ranker, k)
    return {row["user_id"]: row for chunk in chunks for row in chunk.to_pylist()}


def _filled_up(row: dict[str, Any], k: int) -> bool:
    """Return whether a list has popular items after those that the model ranked, or nothing else, or ends early."""
    items = row["items"]
    return row["source"] == "popular" or len(items) < k or any(item["score"] is None for item in items)


def main() -> int:
    """Run the job from the command line."""
    return run_job("score_topk", {"score_topk": score_topk}, __doc__ or "", options=OPTIONS, brief="users")
