"""silver.interactions and a model to gold.recommendations: the k best items for every user."""

import dataclasses

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as f

from recsys_spark.als.baseline import Baseline
from recsys_spark.als.trainer import rows_solve
from recsys_spark.config import Config
from recsys_spark.errors import DataError
from recsys_spark.runs import Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages.features import as_timestamp
from recsys_spark.stages.models import model_of, objective_of, read_factors
from recsys_spark.topk import scorer


def score_topk(run: Run) -> None:
    """Write the list of every user with a history before as_of, one slice a model and as_of."""
    run.resolve_as_of()
    model = model_of(run)
    where = {"model_id": model["model_id"], "as_of": run.as_of}
    histories = run.tables.find("silver.interactions", {"as_of": run.as_of})
    if histories is None:
        raise DataError(
            f"silver.interactions has no slice as of {run.as_of}; run build_features with this --as-of first"
        )
    note = {"from": {"silver.interactions": histories.version, "topk": run.config.topk.model_dump(mode="json")}}
    done = run.tables.find("gold.recommendations", where)
    if done is not None and done.note.get("from") == note["from"]:
        run.outputs["gold.recommendations"] = done.version
        run.say(f"scoring: the lists of model {model['model_id']} as of {run.as_of} are there already")
        return
    ranker = model_ranker(run, model)
    counter = run.spark.sparkContext.accumulator(0)
    pairs = run.tables.read_slice("silver.interactions", {"as_of": run.as_of}, histories.version)
    lists = scorer.recommend(indexed(run, pairs), pairs.count(), ranker, run.config.topk.k, counter)
    lists = lists.withColumn("model_id", f.lit(model["model_id"])).withColumn("as_of", as_timestamp(run.as_of))
    with run.doing("ranking", counter):
        commit = run.tables.write_slice("gold.recommendations", lists, where, note, ("model_id", "as_of"))
    run.outputs["gold.recommendations"] = commit.version
    written = run.tables.read_slice("gold.recommendations", where, commit.version).groupBy("source").count().collect()
    run.counts["lists"] = {row["source"]: row["count"] for row in sorted(written)}
    run.say(f"scoring: lists by source: {run.counts['lists']}")


def indexed(run: Run, pairs: DataFrame) -> DataFrame:
    """Return (user_id, item_index, weight) of pairs; item_index is null where the dictionary lacks the item."""
    item_ids = f.broadcast(run.tables.read("gold.item_ids"))
    return pairs.join(item_ids, "item_id", "left").select("user_id", "item_index", "weight")


def popularity_ranker(run: Run, popularity: str) -> scorer.Ranker:
    """Return the ranker of a popularity column of gold.item_features as of the run's as_of."""
    features = run.tables.read_slice("gold.item_features", {"as_of": run.as_of}).select("item_id", popularity)
    items = run.tables.read("gold.item_ids").join(features, "item_id", "left").toArrow().sort_by("item_index")
    values = items.column(popularity).fill_null(0.0).to_numpy().astype(np.float32)
    item_ids = items.column("item_id").combine_chunks()
    return scorer.popularity_ranker(pa.array(item_ids, pa.string()), values, run.config.topk.hide_seen)


def model_ranker(run: Run, model: Row) -> scorer.Ranker:
    """Return the ranker of a model, with the configured popularity behind it."""
    als = Config.model_validate_json(model["config"]).als
    items, factors, biases = read_factors(run, "gold.item_factors", model["model_id"], model["epochs"])
    solve = rows_solve(factors, objective_of(als), 100, run.config.topk.shortfall)
    baseline = None
    if als.objective == "explicit":
        baseline = Baseline(model["mean"], biases, als.damping if als.baseline == "biases" else None)
    ranker = scorer.with_model(popularity_ranker(run, run.config.topk.fallback), items, solve, baseline)
    return dataclasses.replace(ranker, name=model["kind"])


def main() -> int:
    """Run the job from the command line."""
    return run_job("score_topk", {"score_topk": score_topk}, __doc__ or "")
