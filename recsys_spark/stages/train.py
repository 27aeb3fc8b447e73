"""silver.interactions to gold.item_factors and gold.models: train one model as of a moment."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as f
from pyspark.sql.types import StructType

import recsys_spark
from recsys_spark.als import passes, trainer
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.objective import Ials
from recsys_spark.als.trainer import Epoch
from recsys_spark.blocks import store
from recsys_spark.blocks.layout import Block
from recsys_spark.config import Als
from recsys_spark.errors import ConfigError, DataError
from recsys_spark.runs import Run
from recsys_spark.runs import main as run_job
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages.features import as_timestamp
from recsys_spark.tables import Commit
from recsys_spark.transforms import ids

_INDEX = {"items": "item_index", "users": "user_index"}
_STATE = {"items": "gold.item_factors", "users": "gold.user_factors"}


def train_als(run: Run) -> None:
    """Train the model of this run, going on after the last epoch that an earlier try committed."""
    inputs, note = _inputs(run)
    where = {"model_id": run.run_id}
    trained = run.tables.find("gold.models", where)
    for commit in [
        trained,
        *run.tables.commits("gold.item_factors", where),
        *run.tables.commits("gold.user_factors", where),
    ]:
        _check_same(run.run_id, commit, note)
    if trained is not None:
        run.outputs |= {
            "gold.models": trained.version,
            "gold.item_factors": run.tables.version("gold.item_factors"),
        }
        run.say(f"training: model {run.run_id} is trained already")
        return
    data = _training_data(run, inputs)
    blocks = store.build(data.histories, data.columns, data.n_blocks)
    done = _resume(run, data, note)
    epochs = done.epochs
    objective = objective_of(run.config.als)
    factors = done.factors
    for epoch in trainer.train(blocks, factors, objective, _settings(run.config.als), len(epochs)):
        epochs.append((epoch.objective, epoch.seconds))
        _save(run, data, epoch, {**note, "epochs": epochs})
        factors = epoch.factors
        run.progress(f"epoch {epoch.number} of {run.config.als.epochs}: objective {epoch.objective:,.1f}, "
                     f"{epoch.seconds:.2f} s, {epoch.jobs} jobs")  # fmt: skip
    if data.moving == "users":
        _save_items(run, blocks, factors, objective, note)
    blocks.close()
    _clean(run, data)
    run.outputs |= {table: run.tables.version(table) for table in {_STATE[data.moving], "gold.item_factors"}}
    _register(run, inputs, data, epochs, note)
    run.say(f"training: {len(epochs)} epochs over {blocks.n_entries:,} interactions, {data.moving} move")


def objective_of(als: Als) -> Objective:
    """Return the objective that a configuration names."""
    return Ials(als.alpha0, als.regularization, als.nu)


@dataclass(frozen=True)
class _TrainingData:
    """What training needs of the tables: histories by row and column index, and the moving side's columns."""

    moving: str
    histories: DataFrame
    columns: NDArray[np.int32]
    hashes: NDArray[np.int64]
    n_blocks: int


@dataclass
class _Done:
    """What an earlier try of the run left: objective and seconds of its epochs, and the factors after them."""

    epochs: list[tuple[float, float]]
    factors: NDArray[np.float32]


def _settings(als: Als) -> trainer.Settings:
    return trainer.Settings(als.epochs, als.row_steps, als.row_tolerance, als.moving_steps, als.moving_tolerance)


def _inputs(run: Run) -> tuple[dict[str, int], dict[str, object]]:
    """Return the versions of the tables to read, and what identifies the training: its configuration and inputs."""
    run.resolve_as_of()
    slice_ = run.tables.find("silver.interactions", {"as_of": run.as_of})
    if slice_ is None:
        raise DataError(
            f"silver.interactions has no slice as of {run.as_of}; run build_features with this --as-of first"
        )
    inputs = {"silver.interactions": slice_.version}
    inputs |= {name: run.tables.version(name) for name in ("gold.user_ids", "gold.item_ids")}
    identity = {
        "interactions": slice_.version,
        "as_of": run.as_of.isoformat() if run.as_of else None,
        "als": run.config.als.model_dump(mode="json"),
    }
    return inputs, {"identity": identity}


def _check_same(run_id: str, commit: Commit | None, note: dict[str, object]) -> None:
    if commit is not None and commit.note.get("identity") != note["identity"]:
        before, now = (json.dumps(known, sort_keys=True) for known in (commit.note.get("identity"), note["identity"]))
        raise ConfigError(
            f"--run-id {run_id}: trained before from {before}, now asked for {now}; give a run id of its own"
        )


def _training_data(run: Run, inputs: dict[str, int]) -> _TrainingData:
    pairs = run.tables.read_slice("silver.interactions", {"as_of": run.as_of}, inputs["silver.interactions"]).where(
        "core"
    )
    sizes = pairs.agg(
        f.count_distinct("user_id").alias("users"),
        f.count_distinct("item_id").alias("items"),
        f.count(f.lit(1)).alias("n"),
    ).first()
    assert sizes is not None
    als = run.config.als
    moving = als.moving_side
    if moving == "auto":
        moving = "users" if sizes["users"] < sizes["items"] else "items"
    users, items = (run.tables.read(name, inputs[name]) for name in ("gold.user_ids", "gold.item_ids"))
    coded = ids.encode(pairs.select("user_id", "item_id", "weight"), users, items)
    row, column = ("item_index", "user_index") if moving == "users" else ("user_index", "item_index")
    histories = coded.select(f.col(row).alias("row"), f.col(column).alias("column"), f.col("weight").alias("value"))
    id_ = "user_id" if moving == "users" else "item_id"
    dictionary = users if moving == "users" else items
    present = (
        dictionary.join(pairs.select(id_).distinct(), id_, "left_semi")
        .select(f.col(column).alias("column"), f.xxhash64(id_).alias("hash"))
        .toArrow()
        .sort_by("column")
    )
    return _TrainingData(
        moving,
        histories,
        present.column("column").to_numpy(),
        present.column("hash").to_numpy(),
        store.n_blocks(sizes["n"], als.block_interactions, als.min_blocks),
    )


def _resume(run: Run, data: _TrainingData, note: dict[str, object]) -> _Done:
    als = run.config.als
    commits = run.tables.commits(_STATE[data.moving], {"model_id": run.run_id})
    if not commits:
        return _Done([], initial_factors(data.hashes, als.rank, als.seed, als.init_scale))
    epochs = [tuple(epoch) for epoch in commits[0].note["epochs"]]
    factors = read_factors(run, _STATE[data.moving], run.run_id, len(epochs))[1]
    run.say(f"training: going on after epoch {len(epochs)} of {als.epochs}")
    return _Done(epochs, factors)


def read_factors(run: Run, table: str, model_id: str, epoch: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return indices (n,), ascending, and factors (n, rank) of a model after an epoch."""
    index = "user_index" if table == "gold.user_factors" else "item_index"
    rows = run.tables.read_slice(table, {"model_id": model_id, "epoch": epoch}).select(index, "factors").toArrow()
    rows = rows.sort_by(index).combine_chunks()
    if rows.num_rows == 0:
        raise DataError(
            f"{table}: no factors of model {model_id} after epoch {epoch}; train it again under a new run id"
        )
    factors = rows.column("factors").combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
    return rows.column(index).to_numpy(), np.ascontiguousarray(factors)


def _save(run: Run, data: _TrainingData, epoch: Epoch, note: dict[str, object]) -> None:
    n, rank = epoch.factors.shape
    rows = pa.table(
        {
            _INDEX[data.moving]: pa.array(data.columns, pa.int32()),
            "factors": pa.ListArray.from_arrays(
                pa.array(np.arange(n + 1, dtype=np.int32) * rank), epoch.factors.ravel()
            ),
        }
    )
    frame = run.spark.createDataFrame(rows).coalesce(1)
    _write_factors(run, _STATE[data.moving], frame, epoch.number, note)


def _write_factors(run: Run, table: str, frame: DataFrame, epoch: int, note: dict[str, object]) -> None:
    whole = frame.withColumn("model_id", f.lit(run.run_id)).withColumn("epoch", f.lit(epoch))
    where, parts = {"model_id": run.run_id}, ("model_id", "epoch")
    run.tables.append_step(table, whole, where, epoch, note, parts)


def _save_items(
    run: Run, blocks: store.Blocks, users: NDArray[np.float32], objective: Objective, note: dict[str, object]
) -> None:
    """Where users moved, the items' factors are solved from theirs and written from where the items are."""
    solve = trainer.rows_solve(users, objective, 100, run.config.topk.tolerance)
    frame = blocks.frame(_item_rows, solve, "item_index int, factors array<float>")
    _write_factors(run, "gold.item_factors", frame, run.config.als.epochs, note)


def _item_rows(block: Block, solve: passes.Solve) -> pa.RecordBatch:
    factors = passes.solve_block(block, solve)
    offsets = pa.array(np.arange(len(factors) + 1, dtype=np.int32) * factors.shape[1])
    lists = pa.ListArray.from_arrays(offsets, pa.array(factors.ravel(), pa.float32()))
    return pa.RecordBatch.from_arrays([pa.array(block.rows, pa.int32()), lists], names=["item_index", "factors"])


def _clean(run: Run, data: _TrainingData) -> None:
    """Delete the factors of epochs that are not to be kept: all but the last and every keep_every-th."""
    als = run.config.als
    kept = {als.epochs, *(range(als.keep_every, als.epochs, als.keep_every) if als.keep_every else ())}
    doomed = ", ".join(str(epoch) for epoch in range(1, als.epochs) if epoch not in kept)
    if doomed:
        table = _STATE[data.moving]
        run.tables.delete(table, f"model_id = '{run.run_id}' AND epoch IN ({doomed})")


def _register(
    run: Run,
    inputs: dict[str, int],
    data: _TrainingData,
    epochs: list[tuple[float, float]],
    note: dict[str, object],
) -> None:
    row = {
        "model_id": run.run_id,
        "kind": "als",
        "status": "trained",
        "config": run.config.model_dump_json(),
        "inputs": inputs,
        "moving_side": data.moving,
        "epochs": len(epochs),
        "objective": [objective for objective, _ in epochs],
        "seconds": [seconds for _, seconds in epochs],
        "code_version": recsys_spark.__version__,
    }
    schema = StructType([field for field in SCHEMAS["gold.models"] if field.name in row])
    frame = run.spark.createDataFrame([tuple(row[field.name] for field in schema)], schema).withColumn(
        "as_of", as_timestamp(run.as_of)
    )
    run.outputs["gold.models"] = run.tables.write_slice("gold.models", frame, {"model_id": run.run_id}, note).version


def main() -> int:
    """Run the job from the command line."""
    return run_job("train_als", {"train_als": train_als}, __doc__ or "")
