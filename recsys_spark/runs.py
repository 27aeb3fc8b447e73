"""A run: its arguments, its stages, progress, the JSON summary on stdout's last line, and its exit code."""

import argparse
import datetime as dt
import json
import logging
import re
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, NoReturn

from pyspark import Accumulator
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark import config as configuration
from recsys_spark import faults, memory, record
from recsys_spark.errors import DataError, DependencyError, JobError, TryAgainError, UsageError
from recsys_spark.log import Log
from recsys_spark.redaction import Secrets
from recsys_spark.session import DELTA_PACKAGE, has_delta, spark_session
from recsys_spark.stopping import StopAskedError, Stopping, within
from recsys_spark.tables import Tables

Stage = Callable[["Run"], None]
Option = dict[str, Any]  # how argparse takes an argument that one job has alone

_SECONDS_TO_END = 8  # for each of the last things that a run does when it was asked to end

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


@dataclass
class Run:
    """What a stage works with: configuration, tables, the moment that parts past from future, and its results."""

    spark: SparkSession
    config: configuration.Config
    tables: Tables
    run_id: str
    as_of: dt.datetime | None
    log: Log
    outputs: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    stages: list[record.StageRecord] = field(default_factory=list)
    jvm: int | None = None

    @property
    def console(self) -> Console:
        """Where tables for people are drawn: stderr."""
        return self.log.console

    def say(self, text: str) -> None:
        """Tell a person what happened, on stderr."""
        self.log.say(text, "warning" if text.startswith("warning: ") else "info")

    def progress(self, text: str) -> None:
        """Tell of a step of long work: in a JSON log its level is debug."""
        self.log.say(text, "debug")

    def work(self, name: str, stage: Stage) -> float:
        """Do a stage, keep for gold.runs what it did, and return the seconds it took."""
        own = record.StageRecord(name, dt.datetime.now(dt.UTC))
        self.stages.append(own)
        self.log.stage = name
        self.tables.seen.clear()
        outputs, counts = dict(self.outputs), dict(record.whole_numbers(self.counts))
        context, about = self.spark.sparkContext, (stage.__doc__ or "").strip().splitlines()
        context.setJobGroup(f"{self.run_id}/{name}", f"{name}: {about[0]}" if about else name)
        started = time.perf_counter()
        try:
            stage(self)
        finally:
            own.seconds = round(time.perf_counter() - started, 3)
            own.inputs = dict(self.tables.seen)
            own.outputs = dict(self.outputs.items() - outputs.items())
            own.counts = dict(dict(record.whole_numbers(self.counts)).items() - counts.items())
            own.python_peak_bytes = memory.peak()
            own.jvm_peak_bytes = None if self.jvm is None else memory.peak(self.jvm)
        return own.seconds

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


class Arguments(argparse.ArgumentParser):
    """A job's arguments, which raise UsageError where they are wrong."""

    def error(self, message: str) -> NoReturn:
        """Raise the error of a wrong command line."""
        raise UsageError(f"{message}; --help shows the arguments")


def _parse(job: str, about: str, argv: Sequence[str] | None, options: Mapping[str, Option]) -> argparse.Namespace:
    arguments = Arguments(prog=job, description=about, allow_abbrev=False)
    arguments.add_argument("--config", required=True, action="append", metavar="FILE",
                           help="configuration of the dataset; given again, over the earlier")  # fmt: skip
    arguments.add_argument("--run-id", metavar="ID", help="name of the run; given again, it is a rerun")
    arguments.add_argument("--as-of", metavar="TIME", help="events before it are past (ISO 8601, UTC)")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                           help="replace a value of the configuration, such as als.rank=64")  # fmt: skip
    arguments.add_argument("--log", choices=["text", "json"], default="text",
                           help="what stderr is: words, or one JSON object a line")  # fmt: skip
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
    brief: str = "",
) -> int:
    """Run stages one after another in one Spark session and return the exit code.

    options: arguments of this job alone, which stages find by name in `run.options`. brief: the name of the one with
    which the job is done in seconds, so that the session is started for these.

    stdout's last line is one JSON object; logs, progress and errors go to stderr.
    """
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    given = list(sys.argv[1:] if argv is None else argv)
    log = Log(job, as_json="--log=json" in given or ("--log", "json") in pairwise(given))
    summary: dict[str, Any] = {"run_id": None, "job": job, "status": "ok", "exit_code": 0}
    mine = SparkSession.getActiveSession() is None
    runs: list[Run] = []  # this one, once it has begun
    with Stopping() as stopping:
        try:
            arguments = _parse(job, about, given, options or {})
            summary["run_id"] = log.run_id = _run_id(arguments.run_id)
            run = _start(job, arguments, log, stopping, vars(arguments).get(brief) is not None)
            runs.append(run)
            run.options = {
                name: value
                for name, value in vars(arguments).items()
                if f"--{name.replace('_', '-')}" in (options or {})
            }
            if arguments.run_id is None:
                run.say(f"run id: {run.run_id}")
            for name, stage in stages.items():
                run.seconds[name] = run.work(name, stage)
            if finish is not None:
                run.work(finish.__name__, finish)
            stopping.over()
        except SystemExit as end:  # --help
            return int(end.code or 0)
        except (StopAskedError, KeyboardInterrupt, Exception) as error:
            stopping.over()
            _fail(summary, _meaning(error, stopping), log, "--debug" in given)
        if runs:
            _end(runs[0], summary, mine, stopping)
    print(json.dumps(summary, ensure_ascii=False), flush=True)
    return int(summary["exit_code"])


def _end(run: Run, summary: dict[str, Any], mine: bool, stopping: Stopping) -> None:
    """Complete the summary, record the run, and end its Spark session; nothing here changes the run's end."""
    secrets = run.log.secrets
    for name in ("outputs", "metrics", "seconds", "counts"):
        summary[name] = secrets.hidden(getattr(run, name))
    run.log.stage = None
    works: list[Callable[[], None]] = [partial(_record, run, summary)]
    if mine:
        works.append(partial(_quietly, run.spark.stop))
    for work in works:
        # Who was asked to end, perhaps in the middle of a call of the JVM, has another line to it, and little time.
        if stopping.asked is None:
            work()
        else:
            within(_SECONDS_TO_END, work)


def _record(run: Run, summary: Mapping[str, Any]) -> None:
    if not run.stages or not run.config.storage.runs:
        return
    whole = {name: summary.get(name) for name in ("run_id", "job", "status", "exit_code", "error")}
    try:
        whole |= {"as_of": run.as_of, "application_id": run.spark.sparkContext.applicationId}
        record.write(run.tables, run.stages, whole)
    except Exception as error:
        run.log.say(f"warning: {record.TABLE} lacks this run: {faults.job_error(error)}", "warning")


def _quietly(work: Callable[[], None]) -> None:
    with suppress(Exception):  # the JVM may be gone already
        work()


def _start(job: str, arguments: argparse.Namespace, log: Log, stopping: Stopping, brief: bool) -> Run:
    raw, log.secrets = configuration.read(arguments.config, arguments.overrides)
    config = configuration.checked(raw, log.secrets, arguments.config[-1])
    as_of = _as_of(arguments.as_of, config)
    started = time.perf_counter()
    with log.console.status("starting Spark"):
        try:
            spark = spark_session(f"recsys {job} {log.run_id}", brief=brief)
        except PySparkRuntimeError as error:
            if error.getCondition() == "JAVA_GATEWAY_EXITED":
                raise DependencyError("no Java of 17 or newer starts: run deploy/java.sh or set JAVA_HOME") from error
            raise
        stopping.watch(spark.sparkContext)
        log.secrets = Secrets.of(raw, dict(spark.sparkContext.getConf().getAll()))
        if not has_delta(spark):
            raise DependencyError(f"this session lacks Delta: add --packages {DELTA_PACKAGE} to the command")
        tables = Tables(spark, config.storage.root)
        tables.check_root()
    run = Run(spark, config, tables, str(log.run_id), as_of, log, jvm=_jvm(spark))
    run.seconds["spark"] = round(time.perf_counter() - started, 3)
    return run


def _jvm(spark: SparkSession) -> int:
    return int(spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid())  # type: ignore[union-attr]


def _run_id(given: str | None) -> str:
    if given is None:
        return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    if not is_run_id(given):
        raise UsageError(f"--run-id {given!r}: letters, digits and . _ : - only, 128 at most")
    return given


def is_run_id(text: str) -> bool:
    """Whether a text can be a run's id, and so a model's: it stands in paths and in SQL as it is.

    >>> [is_run_id(text) for text in ("night-1", "a'b", "../a", "a/b", "")]
    [True, False, False, False, False]
    """
    return bool(_RUN_ID.fullmatch(text))


def _as_of(given: str | None, config: configuration.Config) -> dt.datetime | None:
    if given is None:
        return config.as_of
    if config.source.columns.time is None:
        raise UsageError(f"--as-of {given}: the log of {config.name} has no time (source.columns.time)")
    try:
        return configuration.utc(given)
    except ValueError as error:
        raise UsageError(f"--as-of {given}: {error}") from error


def _meaning(error: BaseException, stopping: Stopping) -> JobError:
    """Return the error that a run ends with: whatever it failed at after it was asked to end, that is why."""
    if stopping.asked is not None or not isinstance(error, Exception):
        return TryAgainError(f"{stopping.asked or 'interrupted'}; run it again with the same --run-id")
    return faults.job_error(error)


def _fail(summary: dict[str, Any], error: JobError, log: Log, debug: bool) -> None:
    if debug:
        log.say(traceback.format_exc(), "error")
    text = log.secrets.redacted(str(error))
    summary |= {"status": error.status, "exit_code": error.exit_code, "error": text}
    for name in ("outputs", "metrics", "seconds", "counts"):
        summary[name] = {}
    log.say(f"error: {text}", "error", style="bold red")
