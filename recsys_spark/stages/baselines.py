"""Models that others must beat, as rows of gold.models: scored, evaluated and promoted like any other."""

from recsys_spark.runs import Run
from recsys_spark.stages.known import interactions_commit
from recsys_spark.stages.models import register
from recsys_spark.stages.similar import co_occurrence, write_neighbours


def train_baseline(run: Run) -> None:
    """Register the model of this run, of the kind that `model.kind` says; item_knn has its neighbours computed."""
    run.resolve_as_of()
    settings = run.config.model
    inputs = {
        "silver.interactions": interactions_commit(run).version,
        "gold.item_ids": run.tables.version("gold.item_ids"),
    }
    if settings.kind == "item_knn":
        items = run.tables.read("gold.item_ids", inputs["gold.item_ids"])
        near = co_occurrence(run, inputs["silver.interactions"], items, items.select("item_index"),
                             settings.neighbours, settings.shrinkage)  # fmt: skip
        write_neighbours(run, near, run.run_id, "item_knn")
    register(run, settings.kind, inputs)
    run.say(f"training: {settings.kind}, model {run.run_id}")
