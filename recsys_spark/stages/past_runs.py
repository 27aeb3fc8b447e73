"""The last runs, newest first, from gold.runs: as a table for people, or as JSON."""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Any

from pyspark.sql import functions as f
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recsys_spark import config as configuration
from recsys_spark import faults
from recsys_spark.record import TABLE
from recsys_spark.redaction import Secrets
from recsys_spark.runs import Arguments
from recsys_spark.session import spark_session
from recsys_spark.tables import Tables

_COLOURS = {"ok": "green", "try_again": "yellow"}


def last_runs(tables: Tables, n: int) -> list[dict[str, Any]]:
    """Return the last n runs, newest first: what all their stages share, and the stages in their order."""
    rows = tables.read(TABLE)
    one = ("run_id", "attempt", "job", "application_id")
    newest = rows.groupBy(*one).agg(f.min("started_at").alias("_began")).orderBy(f.desc("_began"), *one).limit(n)
    found = rows.join(f.broadcast(newest), list(one), "left_semi").orderBy("started_at").collect()
    runs: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in found:
        fields = row.asDict(recursive=True)
        fields["started_at"] = fields["started_at"].astimezone(dt.UTC)
        key = tuple(fields.pop(name) for name in one)
        shared = {name: fields.pop(name) for name in ("as_of", "code_version")}
        run = runs.setdefault(key, dict(zip(one, key, strict=True)) | shared | {"stages": []})
        run |= {name: fields[name] for name in ("status", "exit_code", "error")}
        run["stages"].append(fields)
    return list(runs.values())[::-1]


def drawn(runs: Iterable[dict[str, Any]]) -> Table:
    """Draw runs as a table, a row a run."""
    table = Table(title_justify="left")
    for name in ("when (UTC)", "job", "run id", "try", "status", "seconds", "seconds a stage", "error"):
        table.add_column(name, justify="right" if name in ("try", "seconds") else "left")
    for run in runs:
        stages = run["stages"]
        table.add_row(
            f"{stages[0]['started_at']:%Y-%m-%d %H:%M:%S}",
            run["job"],
            Text(run["run_id"]),
            str(run["attempt"]),
            Text(run["status"], style=_COLOURS.get(run["status"], "bold red")),
            f"{sum(stage['seconds'] for stage in stages):.1f}",
            Text(", ".join(f"{stage['stage']} {stage['seconds']:.1f}" for stage in stages)),
            Text(run["error"] or ""),
        )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Print the last runs on stdout and return the exit code."""
    arguments = Arguments(prog="runs", description=__doc__, allow_abbrev=False)
    arguments.add_argument("--config", required=True, action="append", metavar="FILE",
                           help="configuration of the dataset; given again, over the earlier")  # fmt: skip
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                           help="replace a value of the configuration, such as storage.root=data")  # fmt: skip
    arguments.add_argument("--last", type=int, default=20, metavar="N", help="how many runs (default: 20)")
    arguments.add_argument("--json", action="store_true", help="print a JSON array of runs instead of a table")
    secrets = Secrets()
    try:
        given = arguments.parse_args(argv)
        raw, secrets = configuration.read(given.config, given.overrides)
        config = configuration.checked(raw, secrets, given.config[-1])
        spark = spark_session("recsys runs", brief=True)
        secrets = Secrets.of(raw, dict(spark.sparkContext.getConf().getAll()))
        runs = last_runs(Tables(spark, config.storage.root), given.last)
    except Exception as error:
        fault = faults.job_error(error)
        text = f"error: {secrets.redacted(str(fault))}"
        Console(stderr=True).print(text, style="bold red", highlight=False, markup=False, soft_wrap=True)
        return fault.exit_code
    if given.json:
        print(json.dumps(runs, default=str, ensure_ascii=False))
    else:
        Console().print(drawn(runs))
    return 0
