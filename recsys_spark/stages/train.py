"""silver.interactions to gold.item_factors, gold.item_vectors and gold.models: train one model as of a moment."""

import json
from typing import Any

from pyspark.sql import Row

from recsys_spark.blocks import store
from recsys_spark.errors import ConfigError
from recsys_spark.runs import Option, Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages.als import start_of, train_factors
from recsys_spark.stages.baselines import train_baseline
from recsys_spark.stages.known import interactions_commit
from recsys_spark.stages.models import FACTORS, FITTED, NEIGHBOURS, STATE, VECTORS, register
from recsys_spark.stages.rebuild import check_rebuilt, check_retention, model_to_rebuild
from recsys_spark.stages.spectral import train_vectors
from recsys_spark.stages.training_data import training_data
from recsys_spark.tables import Commit

OPTIONS: dict[str, Option] = {
    "--rebuild": {"metavar": "MODEL_ID", "help": "train that model once more, from the versions it was trained on"},
}

_WRITTEN = ("gold.item_factors", "gold.user_factors", "gold.spectral_steps", "gold.item_vectors")


def train_als(run: Run) -> None:
    """Train the model of this run, going on after what an earlier try committed.

    With --rebuild it is an earlier model's configuration and versions of tables that it is trained from.
    """
    rebuilt = model_to_rebuild(run, run.options["rebuild"]) if run.options.get("rebuild") else None
    kind = run.config.model.kind
    inputs, note = _inputs(run, rebuilt)
    if kind in FITTED | NEIGHBOURS:
        check_retention(run, dict.fromkeys([*inputs, *_of_earlier_models(run)]))  # a rebuilt model's inputs have both
    where = {"model_id": run.run_id}
    trained = run.tables.find("gold.models", where)
    written = {table: run.tables.commits(table, where) for table in _WRITTEN}
    for commit in [trained, *(commit for commits in written.values() for commit in commits)]:
        _check_same(run.run_id, commit, note)
    if trained is not None:
        run.outputs |= {table: run.tables.version(table) for table, commits in written.items() if commits}
        if kind in NEIGHBOURS:
            run.outputs["gold.item_neighbours"] = run.tables.version("gold.item_neighbours")
        run.outputs["gold.models"] = trained.version
        run.say(f"training: model {run.run_id} is trained already")
        return
    epochs = 0
    if kind in FITTED:
        epochs = _fit(run, inputs, note)
    else:
        train_baseline(run, inputs, note)
    if rebuilt is not None:
        check_rebuilt(run, rebuilt, epochs)


def _fit(run: Run, inputs: dict[str, int], note: dict[str, object]) -> int:
    """Fit factors, singular vectors or both to the histories, register the model, and return its epochs."""
    kind = run.config.model.kind
    data = training_data(run, inputs)
    start = start_of(run, data, inputs) if kind in FACTORS else None  # it may be refused
    blocks = store.build(data.histories, data.columns, data.n_blocks)
    found: dict[str, Any] = {"epochs": 0, "inputs": inputs}
    if start is not None:
        found |= train_factors(run, data, blocks, start, note) | {"inputs": inputs | start.inputs}
    if kind in VECTORS:
        found |= train_vectors(run, data, blocks, note)
    blocks.close()
    register(run, kind, note=note, moving_side=data.moving, **found)
    return int(found["epochs"])


def _inputs(run: Run, rebuilt: Row | None) -> tuple[dict[str, int], dict[str, object]]:
    """Return the versions of the tables to read, and what identifies the training: its configuration and inputs."""
    if rebuilt is not None:
        return rebuilt["inputs"], _identity(run, rebuilt["inputs"])
    run.resolve_as_of()
    inputs = {"silver.interactions": interactions_commit(run).version}
    fitted = run.config.model.kind in FITTED
    dictionaries = ("gold.user_ids", "gold.item_ids") if fitted else ("gold.item_ids",)
    inputs |= {name: run.tables.version(name) for name in dictionaries}
    return inputs, _identity(run, inputs)


def _of_earlier_models(run: Run) -> list[str]:
    """Return the tables that tell of a model that training may start from, of the side that moves or of both."""
    als = run.config.als
    if run.config.model.kind not in FACTORS or als.warm_start == "none":
        return []
    states = list(STATE.values()) if als.moving_side == "auto" else [STATE[als.moving_side]]
    return [name for name in ("gold.models", *states) if run.tables.exists(name)]


def _identity(run: Run, inputs: dict[str, int]) -> dict[str, object]:
    kind = run.config.model.kind
    identity: dict[str, object] = {
        "interactions": inputs["silver.interactions"],
        "as_of": run.as_of.isoformat() if run.as_of else None,
    }
    if kind in FACTORS:
        identity["als"] = run.config.als.model_dump(mode="json")
        identity["shortfall"] = run.config.topk.shortfall  # to which items are solved where users moved
    if kind in VECTORS:
        identity["spectral"] = run.config.spectral.model_dump(mode="json")
        # By which sums are added up, and the side whose steps are kept; `als` above names them too.
        identity["blocks"] = run.config.als.model_dump(include={"moving_side", "block_interactions", "min_blocks"})
    if kind not in FITTED:
        identity["model"] = run.config.model.model_dump(mode="json")
    return {"identity": identity}


def _check_same(run_id: str, commit: Commit | None, note: dict[str, object]) -> None:
    if commit is not None and commit.note.get("identity") != note["identity"]:
        before, now = (json.dumps(known, sort_keys=True) for known in (commit.note.get("identity"), note["identity"]))
        raise ConfigError(
            f"--run-id {run_id}: trained before from {before}, now asked for {now}; give a run id of its own"
        )


def main() -> int:
    """Run the job from the command line."""
    return run_job("train_als", {"train_als": train_als}, __doc__ or "", options=OPTIONS)
