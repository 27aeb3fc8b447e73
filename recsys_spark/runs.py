"""A run: its arguments, its stages, progress, the JSON summary on stdout's last line, and its exit code."""

import argparse
import datetime as dt
import json
import logging
import re
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pyspark import Accumulator
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark import config as configuration
from recsys_spark.errors import DataError, DependencyError, JobError, TryAgainError, UsageError
from recsys_spark.session import DELTA_PACKAGE, has_delta, spark_session
from recsys_spark.tables import Tables

Stage = Callable[["Run"], None]
Option = dict[str, Any]  # how argparse takes an argument that one job has alone

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


@dataclass
class Run:
    """What a stage works with: configuration, tables, the moment that parts past from future, and its results."""

    spark: SparkSession
    config: configuration.Config
    tables: Tables
    run_id: str
    as_of: dt.datetime | None
    console: Console
    outputs: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Tell a person what happened, on stderr."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def progress(self, text: str) -> None:
        """Show a step of long work to a person who watches; nothing where stderr is no terminal."""
        if self.console.is_terminal:
            self.say(text)

    def resolve_as_of(self) -> None:
        """Where neither the command nor the configuration names as_of, take that of the newest features."""
        if self.as_of is None and self.config.source.columns.time is not None:
            newest = self.tables.find("silver.interactions", {})
            if newest is None:
                raise DataError(f"{self.tables.path('silver.interactions')}: no such table; run build_features first")
            self.as_of = configuration.utc(newest.note["slice"]["as_of"])

    @contextmanager
    def doing(self, text: str, counter: Accumulator[int] | None = None) -> Iterator[None]:
        """Show a spinner with a text, and how far a counter is, while a with-block works.

        Nothing is shown where stderr is no terminal.
        """
        ended = threading.Event()
        with self.console.status(text) as status:

            def watch() -> None:
                while counter is not None and not ended.wait(0.5):
                    status.update(f"{text}: {counter.value:,} users")

            watcher = threading.Thread(target=watch, daemon=True)
            if self.console.is_terminal:
                watcher.start()
            try:
                yield
            finally:
                ended.set()


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help shows the arguments")


def _parse(job: str, about: str, argv: Sequence[str] | None, options: Mapping[str, Option]) -> argparse.Namespace:
    arguments = _Arguments(prog=job, description=about, allow_abbrev=False)
    arguments.add_argument("--config", required=True, action="append", metavar="FILE",
                           help="configuration of the dataset; given again, over the earlier")  # fmt: skip
    arguments.add_argument("--run-id", metavar="ID", help="name of the run; given again, it is a rerun")
    arguments.add_argument("--as-of", metavar="TIME", help="events before it are past (ISO 8601, UTC)")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                           help="replace a value of the configuration, such as als.rank=64")  # fmt: skip
    arguments.add_argument("--debug", action="store_true", help="show the stack trace of an error")
    for name, option in options.items():
        arguments.add_argument(name, **option)
    return arguments.parse_args(argv)


def main(
    job: str,
    stages: Mapping[str, Stage],
    about: str,
    argv: Sequence[str] | None = None,
    finish: Stage | None = None,
    options: Mapping[str, Option] | None = None,
) -> int:
    """Run stages one after another in one Spark session and return the exit code.

    options: arguments of this job alone, which stages find by name in `run.options`.

    stdout's last line is one JSON object; logs, progress and errors go to stderr.
    """
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
    summary: dict[str, Any] = {"run_id": None, "job": job, "status": "ok", "exit_code": 0}
    run: Run | None = None
    debug = "--debug" in (sys.argv if argv is None else argv)
    signal.signal(signal.SIGTERM, _terminated)
    mine = SparkSession.getActiveSession() is None
    try:
        arguments = _parse(job, about, argv, options or {})
        summary["run_id"] = run_id = _run_id(arguments.run_id)
        config = configuration.load(arguments.config, arguments.overrides)
        as_of = _as_of(arguments.as_of, config)
        run = _start(job, config, run_id, as_of, console)
        run.options = {
            name: value for name, value in vars(arguments).items() if f"--{name.replace('_', '-')}" in (options or {})
        }
        if arguments.run_id is None:
            run.say(f"run id: {run_id}")
        for name, stage in stages.items():
            started = time.perf_counter()
            run.spark.sparkContext.setJobGroup(f"{run_id}/{name}", name)
            stage(run)
            run.seconds[name] = round(time.perf_counter() - started, 3)
        if finish is not None:
            finish(run)
    except SystemExit as end:  # --help
        return int(end.code or 0)
    except KeyboardInterrupt:
        _fail(summary, TryAgainError("interrupted"), console)
    except JobError as error:
        _fail(summary, error, console, debug)
    except Exception as error:
        _fail(summary, _unexpected(error), console, debug)
    for name in ("outputs", "metrics", "seconds", "counts"):
        summary[name] = getattr(run, name) if run else {}
    if run and mine:
        run.spark.stop()
    print(json.dumps(summary, ensure_ascii=False), flush=True)
    return int(summary["exit_code"])


def _start(job: str, config: configuration.Config, run_id: str, as_of: dt.datetime | None, console: Console) -> Run:
    started = time.perf_counter()
    with console.status("starting Spark"):
        try:
            spark = spark_session(f"recsys {job} {run_id}")
        except PySparkRuntimeError as error:
            if error.getCondition() == "JAVA_GATEWAY_EXITED":
                raise DependencyError("no Java of 17 or newer starts: run deploy/java.sh or set JAVA_HOME") from error
            raise
        if not has_delta(spark):
            raise DependencyError(f"this session lacks Delta: add --packages {DELTA_PACKAGE} to the command")
        tables = Tables(spark, config.storage.root)
        tables.check_root()
    run = Run(spark, config, tables, run_id, as_of, console)
    run.seconds["spark"] = round(time.perf_counter() - started, 3)
    return run


def _run_id(given: str | None) -> str:
    if given is None:
        return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    if not _RUN_ID.fullmatch(given):
        raise UsageError(f"--run-id {given!r}: letters, digits and . _ : - only, 128 at most")
    return given


def _as_of(given: str | None, config: configuration.Config) -> dt.datetime | None:
    if given is None:
        return config.as_of
    if config.source.columns.time is None:
        raise UsageError(f"--as-of {given}: the log of {config.name} has no time (source.columns.time)")
    try:
        return configuration.utc(given)
    except ValueError as error:
        raise UsageError(f"--as-of {given}: {error}") from error


def _terminated(*_: object) -> NoReturn:
    raise TryAgainError("terminated by SIGTERM; run it again with the same --run-id")


def _unexpected(error: Exception) -> JobError:
    """Put an error that nobody foresaw, with its cause's own words, into one line."""
    text = str(getattr(error, "java_exception", None) or error).strip() or type(error).__name__
    line = " ".join(text.split())
    return JobError(f"{type(error).__name__}: {line[:400]}; --debug shows where")


def _fail(summary: dict[str, Any], error: JobError, console: Console, debug: bool = False) -> None:
    if debug:
        traceback.print_exc(file=sys.stderr)
    summary |= {"status": error.status, "exit_code": error.exit_code, "error": str(error)}
    console.print(f"error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
