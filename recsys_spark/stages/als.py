"""The epochs of a model: from blocks to gold.item_factors (gold.user_factors where users move), one commit an epoch."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_spark.als import passes, trainer
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.objective import Objective
from recsys_spark.blocks import store
from recsys_spark.blocks.layout import Block
from recsys_spark.runs import Run
from recsys_spark.stages.models import (
    INDEX,
    STATE,
    factor_rows,
    model_to_start_from,
    objective_of,
    read_factors,
    settings_of,
    write_factors,
)
from recsys_spark.stages.training_data import TrainingData


@dataclass
class Start:
    """Where training starts or goes on: the factors, the epochs that led to them, and the model they came from.

    inputs: the versions of the tables that told of that model.
    """

    factors: NDArray[np.float32]
    started_from: str | None = None
    inputs: dict[str, int] = field(default_factory=dict)
    objectives: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def note(self) -> dict[str, object]:
        """What a commit of the factors tells a later try."""
        epochs = list(zip(self.objectives, self.seconds, strict=True))
        return {"epochs": epochs, "started_from": self.started_from, "started_inputs": self.inputs}


def train_factors(
    run: Run, data: TrainingData, blocks: store.Blocks, done: Start, note: dict[str, object]
) -> dict[str, Any]:
    """Train ALS from a start on; return what gold.models says of it."""
    objective = objective_of(run.config.als)
    factors = done.factors
    for epoch in trainer.train(blocks, factors, objective, settings_of(run.config.als), done.objectives):
        done.objectives.append(epoch.objective)
        done.seconds.append(epoch.seconds)
        _save(run, data, epoch, {**note, **done.note()})
        factors = epoch.factors
        run.progress(f"epoch {epoch.number} of {run.config.als.epochs}: objective {epoch.objective:,.1f}, "
                     f"{epoch.seconds:.2f} s, {epoch.jobs} jobs")  # fmt: skip
    if data.moving == "users":
        blocks.repeat(lambda: _save_items(run, blocks, factors, objective, data, len(done.objectives), note))
    kept = _clean(run, data, len(done.objectives))
    run.outputs |= {table: run.tables.version(table) for table in {STATE[data.moving], "gold.item_factors"}}
    run.say(
        f"training: {len(done.objectives)} epochs over {blocks.n_entries:,} interactions, {data.moving} move; kept are "
        f"the factors after epoch {', '.join(map(str, kept))}"
    )
    return {
        "started_from": done.started_from,
        "mean": data.mean,
        "epochs": len(done.objectives),
        "objective": done.objectives,
        "seconds": done.seconds,
    }


def start_of(run: Run, data: TrainingData, inputs: dict[str, int]) -> Start:
    """Return the last epoch that an earlier try of the run committed, else where als.warm_start says to start.

    inputs: the versions of the tables to read; where a rebuilt model had started from another, of that one's, too.
    """
    als = run.config.als
    commits = run.tables.commits(STATE[data.moving], {"model_id": run.run_id})
    if commits:
        objectives, seconds = (list(each) for each in zip(*commits[0].note["epochs"], strict=True))
        _, factors, _ = read_factors(run, STATE[data.moving], run.run_id, len(objectives))
        run.say(f"training: going on after epoch {len(objectives)} of {als.epochs}")
        note = commits[0].note
        return Start(factors, note["started_from"], note.get("started_inputs", {}), objectives, seconds)
    factors = initial_factors(data.hashes, als.rank, als.seed, als.init_scale)
    table = STATE[data.moving]
    earlier = model_to_start_from(run, data.moving, inputs.get("gold.models"))
    if earlier is None:
        return Start(factors)
    read = {name: inputs.get(name, run.tables.version(name)) for name in ("gold.models", table)}
    known, theirs, _ = read_factors(run, table, earlier["model_id"], earlier["epochs"], read[table])
    places = np.searchsorted(data.columns, known)
    shared = data.columns[np.minimum(places, len(data.columns) - 1)] == known
    factors[places[shared]] = theirs[shared]
    run.say(
        f"training: starting from model {earlier['model_id']}, which knows {shared.sum():,} of {len(factors):,} "
        f"{data.moving}"
    )
    return Start(factors, earlier["model_id"], read)


def _save(run: Run, data: TrainingData, epoch: trainer.Epoch, note: dict[str, object]) -> None:
    rows = pa.Table.from_batches([factor_rows(data.columns, epoch.factors, INDEX[data.moving])])
    frame = run.spark.createDataFrame(rows).coalesce(1)
    write_factors(run, STATE[data.moving], frame, epoch.number, note, data.biases)


def _save_items(
    run: Run,
    blocks: store.Blocks,
    users: NDArray[np.float32],
    objective: Objective,
    data: TrainingData,
    epoch: int,
    note: dict[str, object],
) -> None:
    """Where users moved, the items' factors are solved from theirs and written from where the items are."""
    solve = trainer.fold_solve(users, objective, run.config.topk.shortfall)
    frame = blocks.frame(_item_rows, solve, "item_index int, factors array<float>")
    write_factors(run, "gold.item_factors", frame, epoch, note, data.biases)


def _item_rows(block: Block, solve: passes.Solve) -> pa.RecordBatch:
    return factor_rows(block.rows, passes.solve_block(block, solve), "item_index")


def _clean(run: Run, data: TrainingData, last: int) -> list[int]:
    """Delete the factors of epochs other than the last and every keep_every-th; return those that are kept."""
    every = run.config.als.keep_every
    kept = sorted({last, *(range(every, last, every) if every else ())})
    doomed = [epoch for epoch in range(1, last) if epoch not in kept]
    if doomed:
        run.tables.delete(STATE[data.moving], {"model_id": run.run_id, "epoch": doomed})
    return kept
