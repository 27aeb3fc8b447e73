"""Delta tables under one root: the only module that reads or writes them.

A write replaces one slice of a table in one commit and leaves a note in it (which slice, from what), so that
a second run finds its work done and a reader can pin the version.
"""

import datetime as dt
import json
import re
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql import types as t

from recsys_spark import faults
from recsys_spark.errors import ConfigError, DataError, DependencyError, TryAgainError
from recsys_spark.schemas import BRONZE_COLUMNS, MODIFIED_AT, PART, SCHEMAS, SOURCE_FILE
from recsys_spark.session import described

Slice = dict[str, Any]

_TRIES = 5
_LATER = 20  # commits that others may have made since one's own
# Statistics of columns cost a fifth of a write; a table that is read by whole slices, its folders, needs none.
_PROPERTIES = {"silver.interactions": {"delta.dataSkippingNumIndexedCols": "0"}}
# Properties of a table that bound time travel, and Delta's defaults.
_RETENTION = {"delta.deletedFileRetentionDuration": "interval 7 days", "delta.logRetentionDuration": "interval 30 days"}


@dataclass(frozen=True)
class Commit:
    """One slice as a commit wrote it: the table's version, and what the writer noted beside it."""

    version: int
    note: dict[str, Any]


@dataclass(frozen=True)
class Tables:
    """The tables under a root: a folder, or a URL of any Hadoop file system.

    seen: the version of each table that was read first, for as long as nobody clears it.
    """

    spark: SparkSession
    root: str
    seen: dict[str, int] = field(default_factory=dict, compare=False)

    def path(self, name: str) -> str:
        """Return where a table lies: `gold.models` at `root/gold/models`."""
        return f"{self.root.rstrip('/')}/{name.replace('.', '/')}"

    def exists(self, name: str) -> bool:
        """Return whether a table is there."""
        return bool(DeltaTable.isDeltaTable(self.spark, self.path(name)))

    def version(self, name: str) -> int:
        """Return a table's newest version; raise DataError where the table is not there."""
        self._check_there(name)
        return int(self._history(name, 1)[0]["version"])

    def ingested_before(self, moment: dt.datetime) -> int:
        """Return the version of bronze.events that the last ingestion before a moment wrote.

        Raises DataError where there is none, or the table's history does not reach back so far.
        """
        for row in self._history("bronze.events"):
            note = json.loads(row["userMetadata"]) if row["userMetadata"] else {}
            if "ingested_at" in note and dt.datetime.fromisoformat(note["ingested_at"]) < moment:
                return int(row["version"])
        raise DataError(f"source.ingested_before: {moment.isoformat()}: bronze.events knows no ingestion before it")

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """Read a table, as it stands or as of a version.

        Raises DataError where it is not there, or not at that version any more.
        """
        self._check_there(name)
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        frame = reader.load(self.path(name))
        if name not in self.seen:
            self.seen[name] = self._loaded_version(name) if version is None else version
        return frame

    def read_again(self, name: str) -> DataFrame:
        """Read a table as it stood when it was first read, so that what is joined with what was read then fits it."""
        return self.read(name, self.seen.get(name))

    def read_slice(self, name: str, where: Slice, version: int | None = None) -> DataFrame:
        """Read the rows of a table in which every column of `where` has its value (None is null)."""
        return self.read(name, version).where(_predicate(where))

    def find(self, name: str, where: Slice) -> Commit | None:
        """Return the last commit that wrote a slice, if one did."""
        commits = self.commits(name, where)
        return commits[0] if commits else None

    def commits(self, name: str, where: Slice) -> list[Commit]:
        """Return the commits that wrote slices within `where`, newest first."""
        if not self.exists(name):
            return []
        wanted = _plain(where)
        found = []
        for row in self._history(name):
            note = json.loads(row["userMetadata"]) if row["userMetadata"] else {}
            if "slice" in note and wanted.items() <= note["slice"].items():
                found.append(Commit(int(row["version"]), note))
        return found

    def write_slice(
        self,
        name: str,
        frame: DataFrame,
        where: Slice,
        note: dict[str, Any] | None = None,
        partition_by: tuple[str, ...] = (),
    ) -> Commit:
        """Replace the rows of a slice by those of a frame, in one commit; the rest of the table stays.

        `where` of no columns replaces the whole table. A conflicting writer is waited for and the write
        repeated. Raises ConfigError where the frame is not of the table's schema, TryAgainError where
        conflicts do not end.
        """
        token = uuid.uuid4().hex
        whole = {"slice": _plain(where), **(note or {}), "commit": token}
        writer = (
            _conform(frame, SCHEMAS[name], name)
            .write.format("delta")
            .mode("overwrite")
            .option("userMetadata", json.dumps(whole, sort_keys=True))
            .option("mergeSchema", "true")
            .options(**_PROPERTIES.get(name, {}))
        )
        if where:
            writer = writer.option("replaceWhere", _predicate(where))
        if partition_by:
            writer = writer.partitionBy(*partition_by)
        with self._writing(name):
            _retry(lambda: writer.save(self.path(name)), name)
        version = self._committed(name, token)
        # Where nothing is replaced by nothing, Delta commits nothing: the table is as it should be.
        return Commit(self.version(name) if version is None else version, whole)

    def ingested_files(self) -> tuple[dict[tuple[str, str], dt.datetime], int]:
        """Return when each (part, file) of bronze.events was modified, as of its ingestion, and the version read.

        The version is -1 where the table is not there.
        """
        if not self.exists("bronze.events"):
            return {}, -1
        version = self.version("bronze.events")
        bronze = self.read("bronze.events", version)
        rows = bronze.groupBy(PART, SOURCE_FILE).agg(f.unix_millis(f.max(MODIFIED_AT))).collect()
        known = {(part, file): dt.datetime.fromtimestamp(millis / 1000, dt.UTC) for part, file, millis in rows}
        return known, version

    def write_bronze(self, frame: DataFrame, changed: list[str], note: dict[str, Any], known: int) -> int | None:
        """Append raw rows to bronze.events, whose columns are the source's own and BRONZE_COLUMNS.

        The rows of `changed` files are replaced in the same commit. Columns that earlier files did not have
        are added. Returns the table's version, or None, with nothing written, where another ingestion came after
        the version `known`, of which the rows were chosen: it may have brought the same files.
        """
        token = uuid.uuid4().hex
        kinds = {column.name: column.dataType for column in BRONZE_COLUMNS}
        for column in frame.schema.fields:
            if column.dataType != kinds.get(column.name, t.StringType()):
                raise ConfigError(f"bronze.events: column {column.name} is {column.dataType.simpleString()}, not text")
        writer = (
            frame.write.format("delta")
            .option("mergeSchema", "true")
            .option("userMetadata", json.dumps({**note, "commit": token}, sort_keys=True))
            .option("txnAppId", "ingest")
            .option("txnVersion", known + 1)
        )
        if known < 0:
            # So long can a run ask for the log as it was (source.ingested_before).
            writer = writer.option("delta.logRetentionDuration", "interval 3650 days")
        if any(set(" ,;{}()\n\t=") & set(name) for name in frame.columns):
            writer = writer.option("delta.columnMapping.mode", "name")
        if changed:
            with_new = {row[0] for row in frame.select(SOURCE_FILE).distinct().collect()}
            condition = " OR ".join(_equals(SOURCE_FILE, file) for file in sorted(with_new | set(changed)))
            writer = writer.mode("overwrite").option("replaceWhere", condition)
        else:
            writer = writer.mode("append")
        try:
            with self._writing("bronze.events"):
                writer.save(self.path("bronze.events"))
        except Exception as error:
            if not _is_conflict(error):
                raise
            return None
        return self._committed("bronze.events", token)

    def extend(self, name: str, new_rows: Callable[[DataFrame | None], tuple[DataFrame, int]]) -> int:
        """Append rows that depend on those already there (an append-only dictionary); return the version.

        new_rows gets the table, None where it is not there yet, and returns rows and their number. A writer
        that comes in between is noticed by Delta's transaction number, and new_rows asked again.
        """
        for _ in range(_TRIES):
            version = self.version(name) if self.exists(name) else -1
            frame, n = new_rows(self.read(name, version) if version >= 0 else None)
            if n == 0:
                return version
            token = uuid.uuid4().hex
            writer = (
                _conform(frame, SCHEMAS[name], name)
                .write.format("delta")
                .mode("append")
                .option("userMetadata", json.dumps({"commit": token}))
                .option("mergeSchema", "true")
                .option("txnAppId", "extend")
                .option("txnVersion", version + 1)
            )
            try:
                with self._writing(name):
                    writer.save(self.path(name))
            except Exception as error:
                if not _is_conflict(error):
                    raise
                continue
            committed = self._committed(name, token)
            if committed is not None:
                return committed
        raise TryAgainError(f"{name}: another writer came first {_TRIES} times; run the job again")

    def append_step(
        self, name: str, frame: DataFrame, where: Slice, step: int, note: dict[str, Any], partition_by: tuple[str, ...]
    ) -> None:
        """Append one step of a growing slice, such as an epoch of a model, in one commit.

        Delta's transaction number (`where`, step) makes a step that is there already a write of nothing.
        """
        own = _plain(where)
        writer = (
            _conform(frame, SCHEMAS[name], name)
            .write.format("delta")
            .mode("append")
            .option("userMetadata", json.dumps({"slice": own, **note}, sort_keys=True))
            .option("txnAppId", json.dumps(own, sort_keys=True))
            .option("txnVersion", step)
            .option("mergeSchema", "true")
            .partitionBy(*partition_by)
        )
        with self._writing(name):
            _retry(lambda: writer.save(self.path(name)), name)

    def append(self, name: str, frame: DataFrame) -> None:
        """Append rows of which nothing depends on what is there, in one commit."""
        writer = _conform(frame, SCHEMAS[name], name).write.format("delta").mode("append").option("mergeSchema", "true")
        with self._writing(name):
            _retry(lambda: writer.save(self.path(name)), name)

    def retention(self, name: str) -> dt.timedelta:
        """Return how long a table's old versions can be read: the shorter of its files' and its log's retention."""
        row = DeltaTable.forPath(self.spark, self.path(name)).detail().select("properties").first()
        assert row is not None
        return min(_interval(row["properties"].get(key, default)) for key, default in _RETENTION.items())

    def delete(self, name: str, where: Slice) -> None:
        """Delete the rows in which every column of `where` has its value, or one of its values."""
        with described(self.spark.sparkContext, f"delete from {name}"):
            _retry(lambda: DeltaTable.forPath(self.spark, self.path(name)).delete(_predicate(where)), name)

    def export(self, frame: DataFrame, folder: str, form: str) -> str:
        """Write a frame as `parquet` or `jsonl` files in place of those in root/exports/folder; return where."""
        place = self._place(f"exports/{folder}")
        writer = frame.write.mode("overwrite")
        writer.parquet(place) if form == "parquet" else writer.json(place)
        return place

    def write_text(self, place: str, text: str) -> str:
        """Write a text file in the place, under the root, of one that may be there; return where."""
        hadoop = self.spark.sparkContext._jsc.hadoopConfiguration()
        whole = self._place(place)
        path = self.spark.sparkContext._jvm.org.apache.hadoop.fs.Path(whole)  # type: ignore[union-attr]
        stream = path.getFileSystem(hadoop).create(path, True)
        stream.write(bytearray(text.encode("utf-8")))
        stream.close()
        return whole

    def _place(self, place: str) -> str:
        """Return the path of what is no table under the root; a run's id may have colons, which HDFS refuses."""
        return f"{self.root.rstrip('/')}/{place.replace(':', '-')}"

    def check_root(self) -> None:
        """Raise ConfigError unless the root, or the nearest folder above it that is there, can be written.

        DependencyError or TryAgainError where that may pass: its storage does not answer, its disk is full, credentials
        have expired.
        """
        hadoop = self.spark.sparkContext._jsc.hadoopConfiguration()
        paths = self.spark.sparkContext._jvm.org.apache.hadoop.fs.Path  # type: ignore[union-attr]
        try:
            folder = paths(self.root)
            system = folder.getFileSystem(hadoop)
            folder = system.makeQualified(folder)
            while not system.exists(folder):
                folder = folder.getParent()
            probe = paths(folder, f".writable-{uuid.uuid4().hex}")
            system.create(probe, True).close()
            system.delete(probe, False)
        except Exception as error:
            reason = str(getattr(error, "java_exception", error)).splitlines()[0]
            passing = faults.job_error(error)
            never = re.search("Read-only file system|Mkdirs failed|Permission denied", str(error))
            if isinstance(passing, DependencyError | TryAgainError) and not never:
                raise type(passing)(f"storage.root: {self.root}: {passing}") from error
            raise ConfigError(f"storage.root: {self.root}: cannot be written ({reason}); name one that can") from error

    def _check_there(self, name: str) -> None:
        if not self.exists(name):
            raise DataError(f"{self.path(name)}: no such table; run the job that writes {name} first")

    def _writing(self, name: str) -> AbstractContextManager[None]:
        return described(self.spark.sparkContext, f"write {name}")

    def _loaded_version(self, name: str) -> int:
        """Return the version of a table that was just loaded, from the JVM's memory alone."""
        log = self.spark.sparkContext._jvm.org.apache.spark.sql.delta.DeltaLog  # type: ignore[union-attr]
        return int(log.forTable(self.spark._jsparkSession, self.path(name)).unsafeVolatileSnapshot().version())

    def _committed(self, name: str, token: str) -> int | None:
        """Return the version that the commit with a token made, None where there is none."""
        for limit in (1, _LATER):
            for row in self._history(name, limit):
                if row["userMetadata"] and json.loads(row["userMetadata"]).get("commit") == token:
                    return int(row["version"])
        return None

    def _history(self, name: str, limit: int | None = None) -> list[Any]:
        table = DeltaTable.forPath(self.spark, self.path(name))
        history = table.history(limit) if limit else table.history()
        # Sorted here: of rows that Delta has in the driver's memory Spark would make a job.
        rows = history.select("version", "userMetadata").collect()
        return sorted(rows, key=lambda row: row["version"], reverse=True)


def _conform(frame: DataFrame, schema: t.StructType, name: str) -> DataFrame:
    """Return the frame with the schema's columns in its order; raise where one is missing, extra or of another type."""
    have = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
    want = {field.name: field.dataType.simpleString() for field in schema.fields}
    if have != want:
        wrong = sorted(have.items() ^ want.items())
        raise ConfigError(f"{name}: a frame to be written differs from the table's schema in {wrong}")
    return frame.select(*(f.col(field.name) for field in schema.fields))


def _interval(text: str) -> dt.timedelta:
    """Read Delta's way to write a duration.

    >>> _interval("interval 1 week"), _interval("interval 36 hours")
    (datetime.timedelta(days=7), datetime.timedelta(days=1, seconds=43200))
    """
    words = text.lower().removeprefix("interval ").split()
    pairs = zip(words[::2], words[1::2], strict=True)
    return sum((dt.timedelta(**{unit.rstrip("s") + "s": float(number)}) for number, unit in pairs), dt.timedelta())


def _plain(where: Slice) -> dict[str, Any]:
    """A slice as it stands in a commit's note."""
    return {key: value if isinstance(value, int | str | None) else value.isoformat() for key, value in where.items()}


def _predicate(where: Slice) -> str:
    """A slice as a SQL condition."""
    return " AND ".join(_equals(column, value) for column, value in where.items()) or "true"


def _equals(column: str, value: Any) -> str:
    if isinstance(value, list):
        return f"({' OR '.join(_equals(column, one) for one in value)})"
    if value is None:
        return f"`{column}` IS NULL"
    if isinstance(value, int):
        return f"`{column}` = {value}"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"`{column}` = '{escaped}'"
    return f"`{column}` = TIMESTAMP'{value.isoformat(sep=' ')}'"


def _retry(write: Callable[[], Any], name: str) -> None:
    """Repeat a write that a concurrent one came before."""
    for attempt in range(_TRIES):
        try:
            write()
            return
        except Exception as error:
            if not _is_conflict(error):
                raise
            time.sleep(0.2 * 2**attempt)
    raise TryAgainError(f"{name}: another writer came first {_TRIES} times; run the job again")


def _is_conflict(error: Exception) -> bool:
    """Whether an error is Delta's word that another transaction was first."""
    # Two that make a table at once meet as a change of its protocol.
    return "Concurrent" in type(error).__name__ or bool(
        re.search("DELTA_CONCURRENT|DELTA_PROTOCOL_CHANGED|DELTA_METADATA_CHANGED", str(error))
    )
