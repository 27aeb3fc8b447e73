"""silver.interactions to gold.item_factors and gold.models: train one model as of a moment."""

import json
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as f

import recsys_spark
from recsys_spark import memory
from recsys_spark.als import passes, trainer
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.objective import Objective
from recsys_spark.blocks import store
from recsys_spark.blocks.layout import Block
from recsys_spark.config import Als, Config, utc
from recsys_spark.errors import ConfigError, JobError
from recsys_spark.runs import Option, Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages.baselines import train_baseline
from recsys_spark.stages.known import interactions_commit
from recsys_spark.stages.models import (
    INDEX,
    STATE,
    factor_rows,
    model_to_start_from,
    named_model,
    objective_of,
    read_factors,
    register,
    write_factors,
)
from recsys_spark.tables import Commit
from recsys_spark.transforms import ids, ratings

OPTIONS: dict[str, Option] = {
    "--rebuild": {"metavar": "MODEL_ID", "help": "train that model once more, from the versions it was trained on"},
}


def train_als(run: Run) -> None:
    """Train the model of this run, going on after the last epoch that an earlier try committed.

    With --rebuild it is an earlier model's configuration and versions of tables that it is trained from.
    """
    if run.config.model.kind != "als" and not run.options.get("rebuild"):
        train_baseline(run)
        return
    rebuilt = _rebuild(run, run.options["rebuild"]) if run.options.get("rebuild") else None
    inputs, note = _inputs(run, rebuilt)
    _check_retention(run, inputs)
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
    done = _start(run, data)
    blocks = store.build(data.histories, data.columns, data.n_blocks)
    objective = objective_of(run.config.als)
    factors = done.factors
    for epoch in trainer.train(blocks, factors, objective, _settings(run.config.als), done.objectives):
        done.objectives.append(epoch.objective)
        done.seconds.append(epoch.seconds)
        _save(run, data, epoch, {**note, **done.note()})
        factors = epoch.factors
        run.progress(f"epoch {epoch.number} of {run.config.als.epochs}: objective {epoch.objective:,.1f}, "
                     f"{epoch.seconds:.2f} s, {epoch.jobs} jobs")  # fmt: skip
    if data.moving == "users":
        blocks.repeat(lambda: _save_items(run, blocks, factors, objective, data, len(done.objectives), note))
    blocks.close()
    kept = _clean(run, data, len(done.objectives))
    run.outputs |= {table: run.tables.version(table) for table in {STATE[data.moving], "gold.item_factors"}}
    register(
        run, "als", inputs, note, moving_side=data.moving, started_from=done.started_from, mean=data.mean,
        epochs=len(done.objectives), objective=done.objectives, seconds=done.seconds,
    )  # fmt: skip
    if rebuilt is not None:
        _check_rebuilt(run, rebuilt, len(done.objectives))
    run.say(
        f"training: {len(done.objectives)} epochs over {blocks.n_entries:,} interactions, {data.moving} move; kept are "
        f"the factors after epoch {', '.join(map(str, kept))}"
    )


@dataclass(frozen=True)
class _TrainingData:
    """What training needs of the tables: histories by row and column index, and the moving side's columns.

    mean and biases (item_index, bias) are what was taken off ratings, None where nothing was.
    """

    moving: str
    histories: DataFrame
    columns: NDArray[np.int32]
    hashes: NDArray[np.int64]
    n_blocks: int
    mean: float | None
    biases: DataFrame | None


@dataclass
class _Done:
    """Where training starts or goes on: the factors, the epochs that led to them, and the model they came from."""

    factors: NDArray[np.float32]
    started_from: str | None = None
    objectives: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def note(self) -> dict[str, object]:
        """What a commit of the factors tells a later try."""
        epochs = list(zip(self.objectives, self.seconds, strict=True))
        return {"epochs": epochs, "started_from": self.started_from}


def _settings(als: Als) -> trainer.Settings:
    return trainer.Settings(
        als.epochs,
        als.tolerance,
        als.row_steps,
        als.row_shortfall,
        als.moving_steps,
        als.moving_shortfall,
    )


def _rebuild(run: Run, model_id: str) -> Row:
    """Give the run the configuration and moment of an earlier model, and return that model's row."""
    model = named_model(run, model_id, "--rebuild")
    config = Config.model_validate_json(model["config"])
    als = config.als.model_copy(update={"warm_start": model["started_from"] or "none"})
    run.config = config.model_copy(update={"als": als, "storage": run.config.storage})
    run.as_of = None if model["as_of"] is None else utc(model["as_of"])
    if model["code_version"] != recsys_spark.__version__:
        run.say(f"warning: model {model_id} was trained by version {model['code_version']} of this program")
    return model


def _check_rebuilt(run: Run, model: Row, epochs: int) -> None:
    """Raise JobError where a model that was trained again is another one."""
    ours, theirs = (
        read_factors(run, "gold.item_factors", model_id, epochs) for model_id in (run.run_id, model["model_id"])
    )
    if not all(np.array_equal(mine, other) for mine, other in zip(ours, theirs, strict=True)):
        raise JobError(f"--rebuild {model['model_id']}: model {run.run_id} differs from it; was the program changed?")
    run.say(f"training: model {run.run_id} is model {model['model_id']} to the byte")


def _check_retention(run: Run, inputs: dict[str, int]) -> None:
    """Raise ConfigError where a table keeps its old versions for less than storage.keep."""
    for name in inputs:
        kept = run.tables.retention(name)
        if kept < run.config.storage.keep:
            path = run.tables.path(name)
            raise ConfigError(
                f"{name} keeps old versions for {kept}, storage.keep asks for {run.config.storage.keep}: ALTER TABLE "
                f"delta.`{path}` SET TBLPROPERTIES ('delta.deletedFileRetentionDuration' = 'interval 365 days', "
                "'delta.logRetentionDuration' = 'interval 365 days'), or lower storage.keep"
            )


def _inputs(run: Run, rebuilt: Row | None) -> tuple[dict[str, int], dict[str, object]]:
    """Return the versions of the tables to read, and what identifies the training: its configuration and inputs."""
    if rebuilt is not None:
        return rebuilt["inputs"], _identity(run, rebuilt["inputs"])
    run.resolve_as_of()
    inputs = {"silver.interactions": interactions_commit(run).version}
    inputs |= {name: run.tables.version(name) for name in ("gold.user_ids", "gold.item_ids")}
    return inputs, _identity(run, inputs)


def _identity(run: Run, inputs: dict[str, int]) -> dict[str, object]:
    identity = {
        "interactions": inputs["silver.interactions"],
        "as_of": run.as_of.isoformat() if run.as_of else None,
        "als": run.config.als.model_dump(mode="json"),
    }
    return {"identity": identity}


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
    n_blocks = store.n_blocks(sizes["n"], als.block_interactions, als.min_blocks)
    n_rows, n_columns = (sizes["items"], sizes["users"]) if moving == "users" else (sizes["users"], sizes["items"])
    need = memory.Need(n_columns, als.rank, n_blocks, -(-sizes["n"] // n_blocks), -(-n_rows // n_blocks))
    memory.check(run.spark, need, moving)
    users, items = (run.tables.read(name, inputs[name]) for name in ("gold.user_ids", "gold.item_ids"))
    values, mean, biases = _without_baseline(als, pairs.select("user_id", "item_id", "weight"))
    coded = ids.encode(values, users, items)
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
        n_blocks,
        mean,
        None if biases is None else items.join(biases, "item_id").select("item_index", "bias"),
    )


def _without_baseline(als: Als, pairs: DataFrame) -> tuple[DataFrame, float | None, DataFrame | None]:
    """Return the values to fit, and the mean and items' biases (item_id, bias) that were taken off them."""
    if als.objective != "explicit":
        return pairs, None, None
    mean = 0.0 if als.baseline == "none" else ratings.mean_rating(pairs)
    biases = ratings.item_biases(pairs, mean, als.damping) if als.baseline == "biases" else None
    return ratings.without_baseline(pairs, mean, biases, als.damping), mean, biases


def _start(run: Run, data: _TrainingData) -> _Done:
    """Return the last epoch that an earlier try of the run committed, else where als.warm_start says to start."""
    als = run.config.als
    commits = run.tables.commits(STATE[data.moving], {"model_id": run.run_id})
    if commits:
        objectives, seconds = (list(each) for each in zip(*commits[0].note["epochs"], strict=True))
        _, factors, _ = read_factors(run, STATE[data.moving], run.run_id, len(objectives))
        run.say(f"training: going on after epoch {len(objectives)} of {als.epochs}")
        return _Done(factors, commits[0].note["started_from"], objectives, seconds)
    factors = initial_factors(data.hashes, als.rank, als.seed, als.init_scale)
    earlier = model_to_start_from(run, data.moving)
    if earlier is None:
        return _Done(factors)
    known, theirs, _ = read_factors(run, STATE[data.moving], earlier["model_id"], earlier["epochs"])
    places = np.searchsorted(data.columns, known)
    shared = data.columns[np.minimum(places, len(data.columns) - 1)] == known
    factors[places[shared]] = theirs[shared]
    run.say(
        f"training: starting from model {earlier['model_id']}, which knows {shared.sum():,} of {len(factors):,} "
        f"{data.moving}"
    )
    return _Done(factors, earlier["model_id"])


def _save(run: Run, data: _TrainingData, epoch: trainer.Epoch, note: dict[str, object]) -> None:
    rows = pa.Table.from_batches([factor_rows(data.columns, epoch.factors, INDEX[data.moving])])
    frame = run.spark.createDataFrame(rows).coalesce(1)
    write_factors(run, STATE[data.moving], frame, epoch.number, note, data.biases)


def _save_items(
    run: Run,
    blocks: store.Blocks,
    users: NDArray[np.float32],
    objective: Objective,
    data: _TrainingData,
    epoch: int,
    note: dict[str, object],
) -> None:
    """Where users moved, the items' factors are solved from theirs and written from where the items are."""
    solve = trainer.rows_solve(users, objective, 100, run.config.topk.shortfall)
    frame = blocks.frame(_item_rows, solve, "item_index int, factors array<float>")
    write_factors(run, "gold.item_factors", frame, epoch, note, data.biases)


def _item_rows(block: Block, solve: passes.Solve) -> pa.RecordBatch:
    return factor_rows(block.rows, passes.solve_block(block, solve), "item_index")


def _clean(run: Run, data: _TrainingData, last: int) -> list[int]:
    """Delete the factors of epochs other than the last and every keep_every-th; return those that are kept."""
    every = run.config.als.keep_every
    kept = sorted({last, *(range(every, last, every) if every else ())})
    doomed = ", ".join(str(epoch) for epoch in range(1, last) if epoch not in kept)
    if doomed:
        run.tables.delete(STATE[data.moving], f"model_id = '{run.run_id}' AND epoch IN ({doomed})")
    return kept


def main() -> int:
    """Run the job from the command line."""
    return run_job("train_als", {"train_als": train_als}, __doc__ or "", options=OPTIONS)
