"""Models in the tables: which there are, their factors by epoch, and the objective that they were fitted to."""

import json

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as f
from pyspark.sql.types import StructType

from recsys_spark.als.objective import Explicit, HuKorenVolinsky, Ials, Objective
from recsys_spark.als.trainer import Settings
from recsys_spark.config import Als, Config
from recsys_spark.errors import DataError, UsageError
from recsys_spark.local import local_frame
from recsys_spark.redaction import redacted_config
from recsys_spark.runs import Run, is_run_id
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages.champions import champion_of
from recsys_spark.stages.known import as_timestamp
from recsys_spark.version import code_version

INDEX = {"items": "item_index", "users": "user_index"}
STATE = {"items": "gold.item_factors", "users": "gold.user_factors"}
FACTORS = {"als", "blend"}  # kinds of models that have factors of ALS
VECTORS = {"spectral", "blend"}  # kinds that have singular vectors
FITTED = FACTORS | VECTORS  # kinds that histories are fitted by, and users folded in
NEIGHBOURS = {"item_knn"}  # kinds that have neighbours of items

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]


def objective_of(als: Als) -> Objective:
    """Return the objective that a configuration names."""
    if als.objective == "hu_koren_volinsky":
        return HuKorenVolinsky(als.alpha, als.regularization, als.nu)
    if als.objective == "explicit":
        return Explicit(als.regularization, als.nu)
    return Ials(als.alpha0, als.regularization, als.nu)


def settings_of(als: Als) -> Settings:
    """Return how long and how exactly a configuration solves."""
    return Settings(als.epochs, als.tolerance, als.row_steps, als.row_shortfall, als.moving_steps, als.moving_shortfall)


def model_of(run: Run) -> Row:
    """Return the row of gold.models that --model names, else of this run, else of the model trained last.

    `champion` names the model that gold.champion says is promoted.
    """
    named = run.options.get("model")
    if named == "champion":
        named = champion_of(run)
        if named is None:
            raise DataError(f"--model champion: {run.tables.path('gold.champion')} has none; run evaluate --promote")
    if named is not None:
        return named_model(run, named, "--model")
    written = dict.fromkeys(commit.note["slice"]["model_id"] for commit in run.tables.commits("gold.models", {}))
    own = [run.run_id] if run.run_id in written else []
    found = next((row for model_id in [*own, *written] if (row := _row(run, model_id)) is not None), None)
    if found is None:
        raise DataError(f"{run.tables.path('gold.models')}: no model; run train_als first")
    return found


def named_model(run: Run, model_id: str, asked: str, version: int | None = None) -> Row:
    """Return the row of a model, in a version of gold.models or the last; raise an error where it is not there.

    asked: what asked for it, as the error says.
    """
    if not is_run_id(model_id):
        raise UsageError(f"{asked} {model_id!r}: no model's id: letters, digits and . _ : - only, 128 at most")
    row = _row(run, model_id, version)
    if row is None:
        raise DataError(f"{asked} {model_id}: {run.tables.path('gold.models')} has no such model")
    return row


def register(run: Run, kind: str, inputs: dict[str, int], note: dict[str, object], **found: object) -> None:
    """Write the run's row of gold.models; what this kind of model does not have is null, or of no epoch."""
    row = {
        "model_id": run.run_id,
        "kind": kind,
        "status": "trained",
        "config": json.dumps(redacted_config(run.config.model_dump(mode="json"))),
        "inputs": inputs,
        "epochs": 0,
        "objective": [],
        "seconds": [],
        "code_version": code_version(),
        **found,
    }
    schema = StructType([column for column in SCHEMAS["gold.models"] if column.name != "as_of"])
    frame = local_frame(run.spark, [tuple(row.get(column.name) for column in schema)], schema)
    frame = frame.withColumn("as_of", as_timestamp(run.as_of))
    run.outputs["gold.models"] = run.tables.write_slice("gold.models", frame, {"model_id": run.run_id}, note).version


def model_to_start_from(run: Run, side: str, version: int | None = None) -> Row | None:
    """Return the model that als.warm_start names: one of the same rank with factors of the moving side.

    version: of gold.models, in which a named one is looked for. None where it says `none`, or `latest` and none fits.
    Raises DataError where a named model does not fit.
    """
    als = run.config.als
    if als.warm_start == "none":
        return None
    if als.warm_start != "latest":
        row = named_model(run, als.warm_start, "als.warm_start:", version)
        if not _fits(row, als.rank, side):
            raise DataError(
                f"als.warm_start: {als.warm_start}: its rank is {_rank(row)} and its {row['moving_side']} moved; this "
                f"training has rank {als.rank} and {side} move"
            )
        return row
    for commit in run.tables.commits("gold.models", {}):
        other = _row(run, commit.note["slice"]["model_id"])
        if other is not None and other["model_id"] != run.run_id and _fits(other, als.rank, side):
            return other
    return None


def _row(run: Run, model_id: str, version: int | None = None) -> Row | None:
    """Return the row of a model, None where it is not there, or not any more."""
    if not run.tables.exists("gold.models"):
        return None
    return run.tables.read_slice("gold.models", {"model_id": model_id}, version).first()


def _rank(model: Row) -> int:
    return Config.model_validate_json(model["config"]).als.rank


def _fits(model: Row, rank: int, side: str) -> bool:
    """Whether a training can start from a model: items' factors are always there, users' where they moved."""
    return model["kind"] in FACTORS and _rank(model) == rank and side in ("items", model["moving_side"])


def read_factors(
    run: Run, table: str, model_id: str, epoch: int, version: int | None = None
) -> tuple[Ints, Floats, Floats]:
    """Return indices (n,), ascending, factors (n, rank) and biases (n,) of a model after an epoch."""
    index = next(column for column in INDEX.values() if column in SCHEMAS[table].names)
    rows = run.tables.read_slice(table, {"model_id": model_id, "epoch": epoch}, version).toArrow()
    if rows.num_rows == 0:
        raise DataError(
            f"{table}: no factors of model {model_id} after epoch {epoch}; train it again under a new run id"
        )
    indices, order = _ordered(rows.column(index))
    biases = np.zeros(rows.num_rows, np.float32)
    if "bias" in rows.column_names:
        biases = rows.column("bias").fill_null(0.0).to_numpy().astype(np.float32)[order]
    return indices, _dense(rows.column("factors"), order, f"{table}: those of model {model_id}"), biases


def _ordered(indices: pa.ChunkedArray) -> tuple[Ints, NDArray[np.int64]]:
    """Return indices (n,), ascending, and the order that makes them so."""
    found = indices.to_numpy()
    order = np.argsort(found, kind="stable")
    return found[order], order


def _dense(lists: pa.ChunkedArray, order: NDArray[np.int64], whose: str) -> Floats:
    """Return lists of one length as an array (n, length), in an order; of the lists, one copy and no more is made."""
    width = len(lists[0])
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    out = np.empty((len(order), width), np.float32)
    start = 0
    for chunk in lists.chunks:
        if not (chunk.value_lengths().to_numpy() == width).all():
            raise DataError(f"{whose} are of more than one rank; train it again under a new run id")
        out[places[start : start + len(chunk)]] = chunk.flatten().to_numpy().reshape(len(chunk), width)
        start += len(chunk)
    return out


def factor_rows(indices: Ints, factors: Floats, index: str, name: str = "factors") -> pa.RecordBatch:
    """Return (index, factors) of factors (n, rank) as they stand in a table, under the names given."""
    offsets = pa.array(np.arange(len(factors) + 1, dtype=np.int32) * factors.shape[1])
    lists = pa.ListArray.from_arrays(offsets, pa.array(factors.ravel(), pa.float32()))
    return pa.RecordBatch.from_arrays([pa.array(indices, pa.int32()), lists], names=[index, name])


def write_factors(
    run: Run, table: str, frame: DataFrame, epoch: int, note: dict[str, object], biases: DataFrame | None
) -> None:
    """Append (index, factors) of an epoch of the run's model, in one commit that a second try does not repeat.

    biases: (item_index, bias), or None where the model has none.
    """
    if "bias" in SCHEMAS[table].names:
        bias = f.lit(None).cast("float") if biases is None else f.col("bias").cast("float")
        joined = frame if biases is None else frame.join(f.broadcast(biases), "item_index", "left")
        frame = joined.withColumn("bias", bias)
    whole = frame.withColumn("model_id", f.lit(run.run_id)).withColumn("epoch", f.lit(epoch))
    run.tables.append_step(table, whole, {"model_id": run.run_id}, epoch, note, ("model_id", "epoch"))


def read_vectors(run: Run, model_id: str) -> tuple[Ints, Floats, Doubles]:
    """Return indices (n,), ascending, singular vectors (n, rank) and sums of weights (n,) of a model's items."""
    rows = run.tables.read_slice("gold.item_vectors", {"model_id": model_id}).toArrow()
    if rows.num_rows == 0:
        raise DataError(f"gold.item_vectors: none of model {model_id}; train it again under a new run id")
    indices, order = _ordered(rows.column("item_index"))
    vectors = _dense(rows.column("vector"), order, f"gold.item_vectors: those of model {model_id}")
    return indices, vectors, rows.column("degree").to_numpy()[order]
