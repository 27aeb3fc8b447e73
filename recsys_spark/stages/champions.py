"""gold.champion: which model is served, and every decision that made it so, one row each."""

import dataclasses
import datetime as dt
import json
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as f

from recsys_spark.config import Config
from recsys_spark.errors import DataError, TryAgainError
from recsys_spark.local import local_frame
from recsys_spark.runs import Run
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages.known import WEIGHTS

TABLE = "gold.champion"

# What of `topk` says how a model ranks, and is judged with it; the rest are rules of who is shown what.
RANKING = ("prior", "popularity_exponent", "spectral", "repeat_weight", "repeat_prior")


def decisions(run: Run) -> list[Row]:
    """Return all decisions, oldest first."""
    return _in_order(run.tables.read(TABLE)) if run.tables.exists(TABLE) else []


def decision_of(run: Run) -> Row | None:
    """Return what this run decided, if it did."""
    return next((row for row in decisions(run) if row["run_id"] == run.run_id), None)


def champion_of(run: Run) -> str | None:
    """Return the id of the model that is champion now, None if none ever was."""
    rows = decisions(run)
    return rows[-1]["champion"] if rows else None


def with_own_settings(run: Run, model: Row) -> Run:
    """Return the run with a model's own settings of how it ranks and of what weighs what.

    How it ranks is that of the lists that it was promoted for, if it was; else that of its training.
    """
    own = json.loads(model["config"])
    own["topk"] |= _ranking(run, model["model_id"])
    known = Config.model_validate_json(json.dumps(own))
    topk = run.config.topk.model_copy(update={name: getattr(known.topk, name) for name in RANKING})
    features = run.config.features.model_copy(update={name: getattr(known.features, name) for name in WEIGHTS})
    return dataclasses.replace(run, config=run.config.model_copy(update={"topk": topk, "features": features}))


def _ranking(run: Run, model_id: str) -> dict[str, Any]:
    """Return RANKING of the lists that a model was promoted for; nothing where it never was."""
    promoted = [row for row in decisions(run) if row["promoted"] and row["challenger"] == model_id]
    return dict(json.loads(promoted[-1]["ranking"])) if promoted and promoted[-1]["ranking"] else {}


def record(run: Run, before: str | None, decision: dict[str, Any]) -> Row:
    """Append this run's decision, unless it is there already; return it.

    before: the champion that the decision is about. Raises TryAgainError where another decision changed it meanwhile.
    """

    def new_rows(known: DataFrame | None) -> tuple[DataFrame, int]:
        rows = [] if known is None else _in_order(known)
        now = rows[-1]["champion"] if rows else None
        done = any(row["run_id"] == run.run_id for row in rows)
        if now != before and not done:
            raise TryAgainError(f"{TABLE}: {now} became champion while {before} was compared with; run it again")
        row = {
            "number": len(rows) + 1,
            "decided_at": dt.datetime.now(dt.UTC),
            "run_id": run.run_id,
            "as_of": run.as_of,
            "champion_before": before,
            **decision,
        }
        schema = SCHEMAS[TABLE]
        frame = local_frame(run.spark, [tuple(row[name] for name in schema.names)], schema)
        return frame.coalesce(1), 0 if done else 1

    run.outputs[TABLE] = run.tables.extend(TABLE, new_rows)
    made = decision_of(run)
    assert made is not None
    return made


def roll_back(run: Run) -> None:
    """Make the champion before the present one champion again; undone promotions are not counted."""
    if decision_of(run) is not None:
        run.say(f"run {run.run_id} decided already; a further step back needs another run id")
        return
    rows = decisions(run)
    held = standing(rows)
    if len(held) < 2:
        raise DataError(f"{run.tables.path(TABLE)}: there is no champion before {held[-1] if held else 'any'}")
    words = f"{held[-1]} is withdrawn, {held[-2]} is champion again"
    undone = {
        "action": "rollback",
        "promoted": False,
        "challenger": None,
        "champion": held[-2],
        "comparison_id": None,
        "reasons": [words],
        "ranking": None,
        "gate": None,
    }
    record(run, held[-1], undone)
    run.say(words)


def standing(rows: list[Row]) -> list[str]:
    """Return the promoted models that no rollback withdrew, oldest first; the last one is the champion.

    >>> promotion = lambda model: Row(action="promote", promoted=True, champion=model)
    >>> back = Row(action="rollback", promoted=False, champion="a")
    >>> standing([promotion("a"), promotion("b"), back, promotion("c")])
    ['a', 'c']
    """
    held: list[str] = []
    for row in rows:
        if row["action"] == "rollback":
            held.pop()
        elif row["promoted"]:
            held.append(row["champion"])
    return held


def _in_order(table: DataFrame) -> list[Row]:
    """Return all decisions, oldest first; those of before a column was there have null in it."""
    for name in SCHEMAS[TABLE].names:
        if name not in table.columns:
            table = table.withColumn(name, f.lit(None))
    return sorted(table.collect(), key=lambda row: row["number"])
