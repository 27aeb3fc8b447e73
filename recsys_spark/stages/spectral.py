"""The steps of a spectral model: from blocks to gold.item_vectors; gold.spectral_steps keeps them until it is done."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark.als.initial import initial_factors
from recsys_spark.blocks import store
from recsys_spark.blocks.layout import Block
from recsys_spark.errors import ConfigError
from recsys_spark.runs import Run
from recsys_spark.spectral import trainer
from recsys_spark.spectral.passes import powers, row_degrees, rows_of
from recsys_spark.spectral.subspace import Subspace
from recsys_spark.stages.models import factor_rows
from recsys_spark.stages.training_data import TrainingData

STEPS = "gold.spectral_steps"
ITEM_VECTORS = "gold.item_vectors"

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def train_vectors(run: Run, data: TrainingData, blocks: store.Blocks, note: dict[str, object]) -> dict[str, Any]:
    """Find singular vectors, going on after the last step that an earlier try committed.

    Returns what gold.models says of the steps. The commits tell it a later try.
    """
    where = {"model_id": run.run_id}
    done = run.tables.find(ITEM_VECTORS, where)
    if done is not None:
        run.outputs[ITEM_VECTORS] = done.version
        run.tables.delete(STEPS, where)  # an earlier try may have ended just before
        return _told(done.note.get("steps", []))
    settings = run.config.spectral
    if settings.rank >= min(len(data.columns), blocks.n_rows):
        raise ConfigError(
            f"spectral.rank: {settings.rank}: must be less than the {blocks.n_rows:,} rows and {len(data.columns):,} "
            f"{data.moving} that are trained on"
        )
    # In float32 a random block of this size is independent; the scale does not matter.
    space = Subspace(initial_factors(data.hashes, settings.rank, settings.seed, 1.0), settings.most_blocks)
    degrees = trainer.column_degrees(blocks, len(data.columns))
    exponents = settings.user_exponent, settings.item_exponent
    row, column = exponents if data.moving == "items" else exponents[::-1]
    iteration = trainer.Settings(row, column, settings.tolerance, settings.steps)
    told = _told_before(run)
    if told:
        run.say(f"spectral: going on after step {len(told)}")
    places = np.arange(len(data.columns), dtype=np.int32)
    for step in trainer.iterate(blocks, space, degrees, iteration, _products(run, len(told))):
        rows = pa.Table.from_batches([factor_rows(places, step.product, "column", "product")])
        frame = run.spark.createDataFrame(rows).coalesce(1)
        whole = frame.withColumn("model_id", f.lit(run.run_id)).withColumn("step", f.lit(step.number))
        told = [*told[: step.number - 1], (step.change, step.seconds)]
        run.tables.append_step(STEPS, whole, where, step.number, {**note, "steps": told}, ("model_id", "step"))
        changed = f"changed by {step.change:.2g}, " if np.isfinite(step.change) else ""
        run.progress(f"spectral: step {step.number}: {changed}{step.seconds:.2f} s")
    change = told[-1][0] if told else 0.0
    if change > settings.tolerance and space.directions is not None:
        run.say(f"warning: spectral: after spectral.steps = {settings.steps} a squared singular value still changes by "
                f"{change:.2g} of it, above spectral.tolerance = {settings.tolerance:g}; raise either")  # fmt: skip
    vectors, note = space.vectors(), {**note, "steps": told}
    if data.moving == "items":
        frame = run.spark.createDataFrame(pa.Table.from_batches([_rows(data.columns, vectors, degrees)])).coalesce(1)
        _write(run, frame, note)
    else:
        scaled = vectors * powers(degrees, -column)[:, None].astype(np.float32)
        scaled /= np.sqrt(np.maximum(space.values, 1e-12)).astype(np.float32)
        task = (scaled, row)
        blocks.repeat(lambda: _write(run, blocks.frame(_item_vectors, task, _SCHEMA), note))
    run.tables.delete(STEPS, where)
    values = np.sqrt(space.values)
    run.counts["singular_values"] = [round(float(value), 6) for value in values]
    run.say(f"spectral: {len(values)} singular values from {values[0]:.4f} to {values[-1]:.4f}")
    return _told(told)


def _told(steps: list[tuple[float, float]]) -> dict[str, Any]:
    """Return columns of gold.models by the changes and seconds of steps; the first one has nothing that it changes."""
    changes = [change if np.isfinite(change) else None for change, _ in steps]
    return {"spectral_change": changes, "spectral_seconds": [seconds for _, seconds in steps]}


_SCHEMA = "item_index int, vector array<float>, degree double"


def _rows(indices: NDArray[np.int32], vectors: Floats, degrees: Doubles) -> pa.RecordBatch:
    rows = factor_rows(indices, vectors, "item_index", "vector")
    return rows.append_column("degree", pa.array(degrees, pa.float64()))


def _item_vectors(block: Block, task: tuple[Floats, float]) -> pa.RecordBatch:
    """Return the items' singular vectors of a block whose rows they are: V = R̃ᵀ·U·Σ⁻¹."""
    scaled, exponent = task
    degrees = row_degrees(block)
    vectors = rows_of(block, scaled) * powers(degrees, -exponent)[:, None].astype(np.float32)
    return _rows(np.asarray(block.rows), vectors, degrees)


def _write(run: Run, frame: DataFrame, note: dict[str, object]) -> None:
    whole = frame.withColumn("model_id", f.lit(run.run_id))
    commit = run.tables.write_slice(ITEM_VECTORS, whole, {"model_id": run.run_id}, note, ("model_id",))
    run.outputs[ITEM_VECTORS] = commit.version


def _told_before(run: Run) -> list[tuple[float, float]]:
    """Return what an earlier try of the run told of the steps that it committed."""
    last = run.tables.find(STEPS, {"model_id": run.run_id})
    return last.note.get("steps", []) if last else []


def _products(run: Run, steps: int) -> Iterator[Floats]:
    """Yield the products of the steps that an earlier try committed, in order, each as it is asked for."""
    for number in range(1, steps + 1):
        rows = run.tables.read_slice(STEPS, {"model_id": run.run_id, "step": number}).toArrow().sort_by("column")
        if not rows.num_rows:
            return  # another run of the model ended, and cleared its steps, just now
        flat = rows.column("product").combine_chunks().flatten().to_numpy()
        yield np.ascontiguousarray(flat.reshape(rows.num_rows, -1))
