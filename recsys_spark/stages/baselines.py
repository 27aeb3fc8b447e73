"""Models that others must beat, as rows of gold.models: scored, evaluated and promoted like any other."""

from recsys_spark.runs import Run
from recsys_spark.stages.models import NEIGHBOURS, register
from recsys_spark.stages.similar import co_occurrence, write_neighbours


def train_baseline(run: Run, inputs: dict[str, int], note: dict[str, object]) -> None:
    """Register the model of this run, of the kind that `model.kind` says; item_knn has its neighbours computed.

    inputs: the versions of the tables to read; note: what identifies the training.
    """
    settings = run.config.model
    if settings.kind in NEIGHBOURS:
        items = run.tables.read("gold.item_ids", inputs["gold.item_ids"])
        near = co_occurrence(run, inputs["silver.interactions"], items, items.select("item_index"),
                             settings.neighbours, settings.shrinkage)  # fmt: skip
        write_neighbours(run, near, run.run_id, settings.kind)
    register(run, settings.kind, inputs, note)
    run.say(f"training: {settings.kind}, model {run.run_id}")
