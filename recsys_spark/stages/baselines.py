"""Models that others must beat, as rows of gold.models: scored, evaluated and promoted like any other."""

from pyspark.sql import functions as f
from pyspark.sql.types import StructType

import recsys_spark
from recsys_spark.errors import DataError
from recsys_spark.runs import Run
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages.features import as_timestamp
from recsys_spark.topk import neighbours


def train_baseline(run: Run) -> None:
    """Register the model of this run, of the kind that `model.kind` says; item_knn has its neighbours computed."""
    run.resolve_as_of()
    commit = run.tables.find("silver.interactions", {"as_of": run.as_of})
    if commit is None:
        raise DataError(
            f"silver.interactions has no slice as of {run.as_of}; run build_features with this --as-of first"
        )
    inputs = {"silver.interactions": commit.version, "gold.item_ids": run.tables.version("gold.item_ids")}
    if run.config.model.kind == "item_knn":
        _neighbours(run, inputs)
    row = {
        "model_id": run.run_id,
        "kind": run.config.model.kind,
        "status": "trained",
        "config": run.config.model_dump_json(),
        "inputs": inputs,
        "epochs": 0,
        "objective": [],
        "seconds": [],
        "code_version": recsys_spark.__version__,
    }
    schema = StructType([column for column in SCHEMAS["gold.models"] if column.name in row])
    frame = run.spark.createDataFrame([tuple(row[column.name] for column in schema)], schema)
    for column in SCHEMAS["gold.models"]:
        if column.name not in row:
            empty = as_timestamp(run.as_of) if column.name == "as_of" else f.lit(None).cast(column.dataType)
            frame = frame.withColumn(column.name, empty)
    run.outputs["gold.models"] = run.tables.write_slice("gold.models", frame, {"model_id": run.run_id}).version
    run.say(f"training: {run.config.model.kind}, model {run.run_id}")


def _neighbours(run: Run, inputs: dict[str, int]) -> None:
    """Write the nearest items of every item, the state of item_knn, to gold.item_neighbours."""
    settings = run.config.model
    items = run.tables.read("gold.item_ids", inputs["gold.item_ids"])
    slice_ = run.tables.read_slice("silver.interactions", {"as_of": run.as_of}, inputs["silver.interactions"])
    pairs = slice_.where("NOT hidden").join(f.broadcast(items), "item_id").select("user_id", "item_index")
    near = neighbours.co_occurrence(
        pairs,
        pairs.count(),
        items,
        items.select("item_index"),
        settings.neighbours,
        run.config.topk.neighbours_history,
        settings.shrinkage,
    )
    whole = (
        near.withColumn("model_id", f.lit(run.run_id))
        .withColumn("as_of", as_timestamp(run.as_of))
        .withColumn("kind", f.lit("item_knn"))
    )
    where = {"model_id": run.run_id, "as_of": run.as_of, "kind": "item_knn"}
    with run.doing("similar items"):
        commit = run.tables.write_slice("gold.item_neighbours", whole, where, {}, ("model_id", "as_of", "kind"))
    run.outputs["gold.item_neighbours"] = commit.version
