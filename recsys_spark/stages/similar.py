"""Items beside each item, by the model's factors and by the users who had both, to gold.item_neighbours."""

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as f

from recsys_spark.runs import Run
from recsys_spark.stages.folds import fold_of
from recsys_spark.stages.known import as_timestamp, interactions_commit
from recsys_spark.stages.rankers import items_by_index
from recsys_spark.topk import neighbours


def similar_items(run: Run, model: Row) -> None:
    """Write the nearest items of each item, one slice a model, as_of and kind: cosine and co_occurrence."""
    k, version = run.config.topk.neighbours, interactions_commit(run).version
    items = items_by_index(run)
    item_ids = pa.array(items.column("item_id").combine_chunks(), pa.string())
    eligible = items.column("eligible").to_numpy(zero_copy_only=False)
    indices, fold = fold_of(run, model)
    factors = np.ascontiguousarray(fold.item_factors()[:, : len(fold.spectrum)])  # without a baseline's columns
    allowed = run.spark.createDataFrame(pa.table({"item_index": np.flatnonzero(eligible).astype(np.int32)}))
    found = {
        "cosine": neighbours.cosine(run.spark, indices, factors, item_ids, eligible, k),
        "co_occurrence": co_occurrence(run, version, run.tables.read("gold.item_ids"), allowed, k),
    }
    for kind, lists in found.items():
        run.counts[f"items_by_{kind}"] = write_neighbours(run, lists, model["model_id"], kind)
    run.say(f"similar items: {run.counts['items_by_cosine']:,} by cosine, {run.counts['items_by_co_occurrence']:,} by "
            "co-occurrence")  # fmt: skip


def co_occurrence(
    run: Run, version: int, items: DataFrame, eligible: DataFrame, k: int, shrinkage: float = 0.0
) -> DataFrame:
    """Return `neighbours.co_occurrence` of silver.interactions of the run's as_of, at a version.

    items: item_id, item_index; eligible: item_index.
    """
    shown = run.tables.read_slice("silver.interactions", {"as_of": run.as_of}, version).where("adopted")
    pairs = shown.join(f.broadcast(items), "item_id").select("user_id", "item_index")
    most = run.config.topk.neighbours_history
    return neighbours.co_occurrence(pairs, pairs.count(), items, eligible, k, most, shrinkage)


def write_neighbours(run: Run, lists: DataFrame, model_id: str, kind: str) -> int:
    """Write (item_id, items) as the slice of a model and kind; return how many items have neighbours."""
    where = {"model_id": model_id, "as_of": run.as_of, "kind": kind}
    whole = (
        lists.withColumn("model_id", f.lit(model_id))
        .withColumn("as_of", as_timestamp(run.as_of))
        .withColumn("kind", f.lit(kind))
    )
    with run.doing(f"similar items by {kind}"):
        commit = run.tables.write_slice("gold.item_neighbours", whole, where, {}, ("model_id", "as_of", "kind"))
    run.outputs["gold.item_neighbours"] = commit.version
    return run.tables.read_slice("gold.item_neighbours", where, commit.version).count()
