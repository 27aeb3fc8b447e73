"""A model trained once more, from the versions of the tables that it was trained on."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from pyspark.sql import Row

from recsys_spark.config import Config, utc
from recsys_spark.errors import ConfigError, DataError, JobError
from recsys_spark.redaction import restored_config
from recsys_spark.runs import Run
from recsys_spark.stages.models import FACTORS, FITTED, NEIGHBOURS, VECTORS, named_model, read_factors, read_vectors
from recsys_spark.version import code_version


def model_to_rebuild(run: Run, model_id: str) -> Row:
    """Give the run the configuration and moment of an earlier model, and return that model's row."""
    model = named_model(run, model_id, "--rebuild")
    if model["kind"] not in FITTED | NEIGHBOURS:
        raise DataError(f"--rebuild {model_id}: it is of kind {model['kind']}, which is not trained")
    # Secrets are written nowhere: those of the present configuration take their places.
    config = Config.model_validate(restored_config(json.loads(model["config"]), run.config.model_dump(mode="json")))
    als = config.als.model_copy(update={"warm_start": model["started_from"] or "none"})
    run.config = config.model_copy(update={"als": als, "storage": run.config.storage})
    run.as_of = None if model["as_of"] is None else utc(model["as_of"])
    if model["code_version"] != code_version():
        run.say(f"warning: model {model_id} was trained by version {model['code_version']} of this program")
    return model


def check_rebuilt(run: Run, model: Row, epochs: int) -> None:
    """Raise JobError where a model that was trained again is another one."""
    ours, theirs = (
        [
            *(read_factors(run, "gold.item_factors", model_id, epochs) if model["kind"] in FACTORS else ()),
            *(read_vectors(run, model_id) if model["kind"] in VECTORS else ()),
            *(_neighbours(run, model_id, model["kind"]) if model["kind"] in NEIGHBOURS else ()),
        ]
        for model_id in (run.run_id, model["model_id"])
    )
    if not all(np.array_equal(mine, other) for mine, other in zip(ours, theirs, strict=True)):
        raise JobError(f"--rebuild {model['model_id']}: model {run.run_id} differs from it; was the program changed?")
    run.say(f"training: model {run.run_id} is model {model['model_id']} to the byte")


def _neighbours(run: Run, model_id: str, kind: str) -> list[Any]:
    """Return the items, the items near them and their similarities, each in one array."""
    where = {"model_id": model_id, "as_of": run.as_of, "kind": kind}
    rows = run.tables.read_slice("gold.item_neighbours", where).select("item_id", "items").toArrow()
    rows = rows.sort_by("item_id").combine_chunks()
    near = rows.column("items").combine_chunks()
    pairs = near.flatten()
    parts = (
        rows.column("item_id").combine_chunks(),
        near.value_lengths(),
        pairs.field("item_id"),
        pairs.field("score"),
    )
    return [part.to_numpy(zero_copy_only=False) for part in parts]


def check_retention(run: Run, names: Iterable[str]) -> None:
    """Raise ConfigError where a table of these names keeps its old versions for less than storage.keep."""
    for name in names:
        kept = run.tables.retention(name)
        if kept < run.config.storage.keep:
            path = run.tables.path(name)
            raise ConfigError(
                f"{name} keeps old versions for {kept}, storage.keep asks for {run.config.storage.keep}: ALTER TABLE "
                f"delta.`{path}` SET TBLPROPERTIES ('delta.deletedFileRetentionDuration' = 'interval 365 days', "
                "'delta.logRetentionDuration' = 'interval 365 days'), or lower storage.keep"
            )
