"""What several stages need of the events: the parsed rows of the run's own source, and the log's last moment."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark import files, sources
from recsys_spark.config import Files
from recsys_spark.errors import DataError
from recsys_spark.files import pattern
from recsys_spark.runs import Run
from recsys_spark.schemas import SOURCE_FILE
from recsys_spark.transforms import events, limits, splits


def parsed_events(run: Run, version: int | None = None) -> DataFrame:
    """Return bronze.events parsed and judged by the configuration.

    version: to read; without it the newest, or that of source.ingested_before.
    """
    typed, _, _ = typed_events(run, version)
    return limits.judge(typed, run.config.source, run.as_of)


def past_and_future(run: Run, version: int | None = None) -> tuple[DataFrame, DataFrame]:
    """Return the valid events to learn from, and those to judge by, as of the run's as_of and holdout."""
    good = events.valid(parsed_events(run, version))
    return splits.split(good, run.as_of, run.config.evaluation.horizon, run.config.holdout)


def typed_events(run: Run, version: int | None = None) -> tuple[DataFrame, int, int]:
    """Return bronze.events judged by the rules that look at one row, the version that was read, and its rows.

    Only files that the configuration's paths name count: bronze keeps what else was ever ingested.
    """
    config = run.config
    moment = config.source.ingested_before
    if version is None and run.tables.exists("bronze.events"):
        version = run.tables.version("bronze.events") if moment is None else run.tables.ingested_before(moment)
    raw = run.tables.read("bronze.events", version)
    paths = config.source.path + ((config.holdout.path or ()) if config.holdout else ())
    mine = f.col(SOURCE_FILE).rlike(pattern(run.spark, paths))
    # The pattern is tried once a file here; once a row it costs as much as all else in reading.
    rows = f.col("count")
    counted = raw.groupBy(SOURCE_FILE).count().agg(f.sum(rows), f.sum(f.when(mine, rows))).first()
    every, n_rows = (counted[0] or 0, counted[1] or 0) if counted is not None else (0, 0)
    if every and not n_rows:
        raise DataError(
            f"bronze.events: none of its {every:,} rows is of a file that source.path names: {', '.join(paths)}; run "
            "ingest with this configuration, in this folder where a path is relative"
        )
    known = raw if n_rows == every else raw.where(mine)
    return events.parse(known, config.source, config.features.known_events()), version or 0, n_rows


def number_and_end(good: DataFrame) -> tuple[int, dt.datetime | None]:
    """Return how many events there are, and the first whole second after the last: everything is past then.

    That is None where the log has no time.
    """
    found = good.agg(f.count(f.lit(1)), f.unix_seconds(f.max("time"))).first()
    assert found is not None
    return found[0], None if found[1] is None else dt.datetime.fromtimestamp(found[1] + 1, dt.UTC)


def check_as_of(run: Run, parsed: DataFrame) -> None:
    """Raise DataError where no valid event is before the run's as_of."""
    if run.as_of is None:
        return
    before = parsed.where(f.col("reason").isNull() & (f.col("time") < f.lit(run.as_of)))
    if before.limit(1).count() == 0:
        raise DataError(f"--as-of {run.as_of:%Y-%m-%dT%H:%M:%S%z}: no valid event is before it; nothing to learn from")


def read_files(run: Run, given: Files) -> DataFrame:
    """Return the rows of configured files as strings, as `sources.read_raw` gives them."""
    listed = files.list_files(run.spark, given, given.path)
    return sources.read_raw(run.spark, given, sorted(listed), "source", dt.datetime.now(dt.UTC))
