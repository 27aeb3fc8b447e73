"""Models that others must beat, as rows of gold.models: scored, evaluated and promoted like any other."""

from pyspark.sql import Row

from recsys_spark.runs import Run
from recsys_spark.stages.known import interactions_commit
from recsys_spark.stages.models import NEIGHBOURS, register
from recsys_spark.stages.rebuild import check_rebuilt, check_retention
from recsys_spark.stages.similar import co_occurrence, write_neighbours


def train_baseline(run: Run, rebuilt: Row | None = None) -> None:
    """Register the model of this run, of the kind that `model.kind` says; item_knn has its neighbours computed.

    rebuilt: the earlier model that is trained once more, from the versions of the tables that it was trained on.
    """
    run.resolve_as_of()
    settings = run.config.model
    inputs = rebuilt["inputs"] if rebuilt is not None else {
        "silver.interactions": interactions_commit(run).version,
        "gold.item_ids": run.tables.version("gold.item_ids"),
    }  # fmt: skip
    if settings.kind in NEIGHBOURS:
        check_retention(run, inputs)
        items = run.tables.read("gold.item_ids", inputs["gold.item_ids"])
        near = co_occurrence(run, inputs["silver.interactions"], items, items.select("item_index"),
                             settings.neighbours, settings.shrinkage)  # fmt: skip
        write_neighbours(run, near, run.run_id, settings.kind)
    register(run, settings.kind, inputs)
    run.say(f"training: {settings.kind}, model {run.run_id}")
    if rebuilt is not None:
        check_rebuilt(run, rebuilt, epochs=0)
