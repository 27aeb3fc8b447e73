"""Items beside each item, by the model's factors and by the users who had both, to gold.item_neighbours."""

import numpy as np
import pyarrow as pa
from pyspark.sql import Row
from pyspark.sql import functions as f

from recsys_spark.errors import DataError
from recsys_spark.runs import Run
from recsys_spark.stages.features import as_timestamp
from recsys_spark.stages.models import read_factors
from recsys_spark.stages.rankers import items_by_index
from recsys_spark.topk import neighbours


def similar_items(run: Run, model: Row) -> None:
    """Write the nearest items of each item, one slice a model, as_of and kind: cosine and co_occurrence."""
    topk = run.config.topk
    if run.tables.find("silver.interactions", {"as_of": run.as_of}) is None:
        raise DataError(f"silver.interactions has no slice as of {run.as_of}; run build_features first")
    items = items_by_index(run)
    item_ids = pa.array(items.column("item_id").combine_chunks(), pa.string())
    eligible = items.column("eligible").to_numpy(zero_copy_only=False)
    indices, factors, _ = read_factors(run, "gold.item_factors", model["model_id"], model["epochs"])
    dictionary = run.tables.read("gold.item_ids")
    shown = run.tables.read_slice("silver.interactions", {"as_of": run.as_of}).where("NOT hidden")
    pairs = shown.join(f.broadcast(dictionary), "item_id")
    allowed = run.spark.createDataFrame(pa.table({"item_index": np.flatnonzero(eligible).astype(np.int32)}))
    found = {
        "cosine": neighbours.cosine(run.spark, indices, factors, item_ids, eligible, topk.neighbours),
        "co_occurrence": neighbours.co_occurrence(
            pairs.select("user_id", "item_index"), pairs.count(), dictionary, allowed,
            topk.neighbours, topk.neighbours_history,
        ),
    }  # fmt: skip
    for kind, lists in found.items():
        where = {"model_id": model["model_id"], "as_of": run.as_of, "kind": kind}
        whole = (
            lists.withColumn("model_id", f.lit(model["model_id"]))
            .withColumn("as_of", as_timestamp(run.as_of))
            .withColumn("kind", f.lit(kind))
        )
        with run.doing(f"similar items by {kind}"):
            commit = run.tables.write_slice("gold.item_neighbours", whole, where, {}, ("model_id", "as_of", "kind"))
        run.outputs["gold.item_neighbours"] = commit.version
        run.counts[f"items_by_{kind}"] = run.tables.read_slice("gold.item_neighbours", where, commit.version).count()
    run.say(f"similar items: {run.counts['items_by_cosine']:,} by cosine, {run.counts['items_by_co_occurrence']:,} by "
            "co-occurrence")  # fmt: skip
