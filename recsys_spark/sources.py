"""Raw event logs as they are delivered: every column as a string, every row with its file and line."""

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as f
from pyspark.sql import types as t

from recsys_spark.config import Columns, Files, Source
from recsys_spark.errors import DataError
from recsys_spark.files import explained, hadoop, modified_column, url_column
from recsys_spark.local import local_frame
from recsys_spark.schemas import BRONZE_COLUMNS, INGESTED_AT, LINE, MODIFIED_AT, PART, SOURCE_FILE
from recsys_spark.transforms.events import MALFORMED, column

_RESERVED = {*(field.name for field in BRONZE_COLUMNS), MALFORMED}
_PINNED = "spark.sql.files.minPartitionNum"
_EXACT = 2.0**53  # floating numbers below it are exact integers when they are whole


def check_columns(columns: Sequence[str], source: Files, file: str = "source") -> None:
    """Raise DataError if a column that the configuration maps or types is not among the file's columns."""
    for key, name in source.needed().items():
        if name not in columns:
            there = ", ".join(columns)[:500] or "none"
            raise DataError(f"{file}: no column {name!r} ({key}); its columns are: {there}")
    for name in columns:
        if name.lower() in _RESERVED:
            raise DataError(f"{file}: column {name!r} has a name that ingest needs itself; rename it")


def read_raw(
    spark: SparkSession, source: Files, files: Sequence[str], part: str, ingested_at: dt.datetime
) -> DataFrame:
    """Return the rows of files, given by their URLs: the source's columns as strings, and BRONZE_COLUMNS.

    Whole floating numbers lose their `.0` (ids are often floats), nested columns become JSON, times with a
    zone are written in UTC with a Z. A text format has one column more, MALFORMED: the whole line where it
    does not fit the columns, else null. `part` is `source` or `holdout`, which needs users and items only.

    Raises DataError, before any row is written, if a file cannot be read or a mapped column is not there.
    """
    if part == "holdout" and isinstance(source, Source):  # a published test file often has users and items only
        columns = Columns(user=source.columns.user, item=source.columns.item)
        source = source.model_copy(update={"columns": columns, "types": {}})
    what = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    with explained(what, source):
        rows = _SCANS[source.format](spark, source, list(files))
    own = {SOURCE_FILE, LINE, MODIFIED_AT}
    return rows.select(
        *(_as_text(field, source) for field in rows.schema.fields if field.name not in own),
        SOURCE_FILE,
        LINE,
        f.lit(part).alias(PART),
        MODIFIED_AT,
        f.lit(ingested_at).cast("timestamp").alias(INGESTED_AT),
    )


def _parquet(spark: SparkSession, source: Files, files: list[str]) -> DataFrame:
    # mergeSchema reads the footer of every file, so that a broken file or another type shows now.
    reader = spark.read.options(**{"mergeSchema": "true", **source.options})
    rows = reader.parquet(*map(_literal, files))
    check_columns(rows.columns, source, files[0])
    return rows.select("*", url_column(), modified_column(), f.col("_metadata.row_index").alias(LINE))


def _delta(spark: SparkSession, source: Files, files: list[str]) -> DataFrame:
    tables = []
    for root in sorted({_table_of(spark, file) for file in files}):
        table = spark.read.options(**source.options).format("delta").load(root)
        check_columns(table.columns, source, root)
        tables.append(_numbered(table))
    rows = reduce(partial(DataFrame.unionByName, allowMissingColumns=True), tables)
    wanted = local_frame(spark, ((file,) for file in files), f"{SOURCE_FILE} string")
    return rows.join(f.broadcast(wanted), on=SOURCE_FILE, how="left_semi")


def _table_of(spark: SparkSession, file: str) -> str:
    place, fs = hadoop(spark, unquote(file))
    jvm: Any = spark.sparkContext._jvm
    folder = place.getParent()
    while folder is not None and not fs.exists(jvm.org.apache.hadoop.fs.Path(folder, "_delta_log")):
        folder = folder.getParent()
    if folder is None:
        raise DataError(f"{file}: is in no Delta table")
    return str(folder.toString())


def _json(spark: SparkSession, source: Files, files: list[str]) -> DataFrame:
    reader = _text_reader(spark, source).option("primitivesAsString", "true")
    schema = reader.json([_literal(file) for file in files]).schema  # one pass, to know the names
    names = [name for name in schema.names if name != MALFORMED]
    check_columns(names, source, files[0])
    if MALFORMED not in schema.names:
        schema = schema.add(MALFORMED, "string")
    return _numbered(reader.schema(schema).json([_literal(file) for file in files]))


def _csv(spark: SparkSession, source: Files, files: list[str]) -> DataFrame:
    # The header is read as a row, so that the header of every file can be compared with the first one's.
    # RFC 4180: a quote within quotes is doubled, so it is its own escape.
    forced = {"header": "false", "inferSchema": "false", "columnPruning": "false"}
    reader = _text_reader(spark, source, escape='"').options(**forced)
    header = _first_row(reader, files) if source.header else None
    names = list(source.names or _distinct_names(header or ()))
    if header is not None and len(names) != len(header):
        raise DataError(f"{files[0]}: {len(header)} columns, but source.names has {len(names)}")
    check_columns(names, source, files[0])
    schema = t.StructType([t.StructField(name, t.StringType()) for name in [*names, MALFORMED]])
    return _numbered(reader.schema(schema).csv([_literal(file) for file in files]), header)


def _text_reader(spark: SparkSession, source: Files, **defaults: str) -> DataFrameReader:
    forced = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": MALFORMED}
    return spark.read.options(**{**defaults, **source.options, **forced})


def _first_row(reader: DataFrameReader, files: list[str]) -> tuple[str | None, ...]:
    for file in files:
        row = reader.csv(_literal(file)).head()
        if row is not None:
            return tuple(row)
    raise DataError(f"{files[0]}: empty, not even a header")


def _distinct_names(header: Sequence[str | None]) -> list[str]:
    """Names of columns as Spark makes them: blank and repeated ones get their place."""
    names = [(name or "").strip().lstrip("\ufeff") for name in header]
    seen = Counter(name.lower() for name in names)
    unique = [bool(name) and seen[name.lower()] == 1 for name in names]
    return [name if unique[place] else f"{name or '_c'}{place}" for place, name in enumerate(names)]


def _numbered(frame: DataFrame, header: tuple[str | None, ...] | None = None) -> DataFrame:
    """Add SOURCE_FILE and LINE, the row's number in its file; rows that are the header are left out.

    A scan numbers its rows in reading order within a task, so a row's number is its distance from the first
    row of its block (a file's part that one task reads), plus the rows of the file's earlier blocks.
    """
    _pin_blocks(frame.sparkSession)
    columns = [column(name) for name in frame.columns]
    scan = frame.select(
        *columns,
        url_column(),
        modified_column(),
        f.col("_metadata.file_block_start").alias("__block"),
        f.monotonically_increasing_id().alias("__at"),
    )
    is_header = f.lit(True)
    for own, name in zip(columns, header or (), strict=False):
        is_header &= own.eqNullSafe(f.lit(name))
    blocks = scan.groupBy(SOURCE_FILE, "__block").agg(
        f.min("__at").alias("first"),
        f.max("__at").alias("last"),
        f.min(f.when(is_header, f.col("__at"))).alias("header"),
        f.bit_xor(f.xxhash64(*columns)),  # a parser that is asked for nothing may count other rows
    )
    offsets, rows_of, start = [], Counter[str](), 0 if header is None else -1
    for file, block, first, last, header_at, _ in sorted(blocks.collect()):
        if file not in rows_of and header is not None and header_at != first:
            raise DataError(f"{file}: its first line is not {', '.join(map(str, header))} as in other files")
        offsets.append((file, block, first, last, rows_of[file] + start - first))
        rows_of[file] += last - first + 1
    known = f"{SOURCE_FILE} string, __block bigint, __first bigint, __last bigint, __offset bigint"
    places = f.broadcast(local_frame(frame.sparkSession, offsets, known))
    line = f.when(f.col("__at").between(f.col("__first"), f.col("__last")), f.col("__at") + f.col("__offset"))
    changed = f.raise_error(f.lit("files changed while they were read: try again")).cast("bigint")
    rows = scan.join(places, on=[SOURCE_FILE, "__block"], how="left")
    return rows.select(*columns, SOURCE_FILE, MODIFIED_AT, f.coalesce(line, changed).alias(LINE)).where(
        f.col(LINE) >= 0
    )


def _pin_blocks(spark: SparkSession) -> None:
    """Keep Spark from cutting the same files otherwise when executors come or go between two passes."""
    if spark.conf.get(_PINNED, None) is None:
        spark.conf.set(_PINNED, str(spark.sparkContext.defaultParallelism))


def _literal(url: str) -> str:
    """The path of a URL for Spark's reader, which takes it for a pattern and does not decode it."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", unquote(url))


def _as_text(field: t.StructField, source: Files) -> Column:
    """A column as text, losing nothing that could tell two values apart."""
    value, kind = column(field.name), field.dataType
    if isinstance(kind, t.FloatType | t.DoubleType):
        whole = (value == f.floor(value)) & (f.abs(value) < _EXACT)
        text = f.when(whole, value.try_cast("bigint").cast("string")).otherwise(value.cast("string"))
        if not isinstance(source, Source) or field.name != source.columns.value:
            text = f.when(~f.isnan(value), text)  # pandas writes NaN for a missing id
    elif isinstance(kind, t.StructType | t.ArrayType | t.MapType | t.VariantType):
        text = f.to_json(value)
    elif isinstance(kind, t.TimestampType):
        text = f.concat(value.cast("string"), f.lit("Z"))  # the session's zone is UTC
    else:
        text = value.cast("string")
    return text.alias(field.name)


_SCANS = {"csv": _csv, "json": _json, "parquet": _parquet, "delta": _delta}
