"""gold.runs: what every run did, a row a stage, written in one commit at the run's end."""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import functions as f

from recsys_spark.local import local_frame
from recsys_spark.schemas import SCHEMAS
from recsys_spark.tables import Tables
from recsys_spark.version import code_version

TABLE = "gold.runs"


@dataclass
class StageRecord:
    """A stage as it ran: versions of tables read (inputs) and left (outputs), whole numbers counted, peak memory."""

    stage: str
    started_at: dt.datetime
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    python_peak_bytes: int | None = None
    jvm_peak_bytes: int | None = None


def whole_numbers(counts: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of nested counts, by their path.

    >>> dict(whole_numbers({"rows": 9, "refused": {"no_price": 2}, "report": "report.html"}))
    {'rows': 9, 'refused.no_price': 2}
    """
    for key, value in counts.items():
        if isinstance(value, Mapping):
            yield from whole_numbers(value, f"{under}{key}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{under}{key}", value


def write(tables: Tables, stages: list[StageRecord], run: Mapping[str, Any]) -> None:
    """Append the rows of a run's stages, as its next attempt.

    run: run_id, job, as_of, status, exit_code, error: the last stage is the one that ended so, those before it are ok.
    """
    own = {**run, "attempt": _attempts(tables, run["run_id"], run["job"]) + 1, "code_version": code_version()}
    ok = {"status": "ok", "exit_code": 0, "error": None}
    rows = [{**own, **vars(stage), **(ok if stage is not stages[-1] else {})} for stage in stages]
    schema = SCHEMAS[TABLE]
    frame = local_frame(tables.spark, [tuple(row.get(name) for name in schema.names) for row in rows], schema)
    tables.append(TABLE, frame.coalesce(1))


def _attempts(tables: Tables, run_id: str, job: str) -> int:
    """Return how often a job of a run id was recorded."""
    if not tables.exists(TABLE):
        return 0
    mine = tables.read(TABLE).where((f.col("run_id") == run_id) & (f.col("job") == job))
    last = mine.agg(f.max("attempt")).first()
    return (last[0] if last else None) or 0
