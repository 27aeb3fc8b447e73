"""From raw rows to typed events; a row that breaks a rule is refused, and says which rule it was."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f

from recsys_spark.config import Source
from recsys_spark.errors import ConfigError
from recsys_spark.schemas import BRONZE_COLUMNS, INGESTED_AT, LINE, PART, RUN_ID, SOURCE_FILE

MALFORMED = "_malformed"  # of text formats: the whole line where it does not fit the columns, else null

_ROLES = ("user_id", "item_id", "time", "event", "value", "measures")
# Microseconds in a unit; of nanoseconds a thousand are one.
_UNITS = {"seconds": 1_000_000, "milliseconds": 1_000, "nanoseconds": None}
_BLANKS = " \t\n\r\u000b\f\u00a0"
_FIRST_TIME = "TIMESTAMP '0001-01-01 00:00:00Z'"  # Python knows no earlier time
_LARGEST_MEASURE = 1e12
_ZONE_LETTERS = set("VzOXxZ")
_DIVISIONS = {"Divide", "IntegralDivide", "Remainder", "Pmod"}


def parse(raw: DataFrame, source: Source, events: Mapping[str, float] | None = None) -> DataFrame:
    """Return each raw row as user_id, item_id, time, event, value, measures, reason, BRONZE_COLUMNS, MALFORMED, record.

    `raw` is as `sources.read_raw` gives it: all columns are strings; `record` holds them as a struct, so that
    their names meet no other; `measures` is an array of numbers, in the order of `source.measures`, null where one
    cannot be computed. `reason` is null where the row is good, else the first rule that it breaks,
    in the order of docs/data.md. A missing value is a bad one where a value column is mapped; a filter that is null
    refuses.

    Raises ConfigError for a filter, measure, type, time zone or time pattern that Spark cannot use, and for a filter
    or measure that a dirty value would make fail (division, or a cast of a string).
    """
    names = [name for name in raw.columns if name not in _own_columns()]
    typed = raw.select(
        f.struct(*map(column, names)).alias("__record"),
        *(field.name for field in BRONZE_COLUMNS),
        (f.col(MALFORMED) if MALFORMED in raw.columns else f.lit(None).cast("string")).alias(MALFORMED),
        *(value.alias(f"__{role}") for role, value in _roles(raw.sparkSession, source).items()),
        *(_typed(raw, name, source) for name in names),
    )
    for name, rule in source.filters.items():
        _check_expression(typed, f"source.filters.{name}: {rule!r}", f.expr(rule))
    for name, rule in source.measures.items():
        _check_expression(typed, f"source.measures.{name}: {rule!r}", f.expr(rule).cast("double") > 0)
    return typed.select(
        *(f.col(f"__{role}").alias(role) for role in _ROLES[:-1]),
        f.array(*map(_measure, source.measures.values())).cast("array<double>").alias("measures"),
        _reason(source, events).alias("reason"),
        *(field.name for field in BRONZE_COLUMNS),
        MALFORMED,
        f.col("__record").alias("record"),
    )


def valid(parsed: DataFrame) -> DataFrame:
    """Return the good rows: user_id, item_id, time, event, value, measures, _part."""
    return parsed.where(f.col("reason").isNull()).select(*_ROLES, PART)


def told_apart(parsed: DataFrame, run_id: str) -> DataFrame:
    """Return all rows with the columns of `valid`, and in `refused` what silver.quarantine has, null in good rows.

    It is what is kept of one pass over the log. A refused row has a user_id of its own, so that rows without a user
    are not all in one partition by user.
    """
    bad = f.col("reason").isNotNull()
    own = f.xxhash64(SOURCE_FILE, LINE, "record").cast("string")
    return parsed.select(
        f.when(bad, own).otherwise(f.col("user_id")).alias("user_id"),
        *_ROLES[1:],
        PART,
        f.when(bad, f.struct(*_quarantined(run_id))).alias("refused"),
    )


def refused(rows: DataFrame) -> DataFrame:
    """Return the refused of rows of `told_apart`, in the schema of silver.quarantine."""
    return rows.where(f.col("refused").isNotNull()).select("refused.*")


def _quarantined(run_id: str) -> list[Column]:
    """The columns of silver.quarantine; `record` is JSON of the source's columns.

    A malformed line is in `record` as a whole too, under MALFORMED.
    """
    options = {"ignoreNullFields": "false"}
    whole = f.to_json(f.struct("record.*", MALFORMED), options)
    record = f.when(f.col(MALFORMED).isNull(), f.to_json("record", options)).otherwise(whole)
    named = (f.col(name) for name in ("reason", SOURCE_FILE, LINE, PART))
    return [f.lit(run_id).alias(RUN_ID), *named, record.alias("record")]


def column(name: str) -> Column:
    """Return the column of exactly this name, whatever dots and quotes are in it."""
    return f.col("`" + name.replace("`", "``") + "`")


def _own_columns() -> set[str]:
    return {*(field.name for field in BRONZE_COLUMNS), MALFORMED}


def _roles(spark: SparkSession, source: Source) -> dict[str, Column]:
    columns, none = source.columns, f.lit(None)
    event = text(columns.event) if columns.event else none.cast("string")
    return {
        "user_id": text(columns.user),
        "item_id": text(columns.item),
        "time": _time(spark, source) if columns.time else none.cast("timestamp"),
        "event": f.when(event != "", event),
        "value": column(columns.value).try_cast("double") if columns.value else none.cast("double"),
    }


def text(name: str) -> Column:
    """Return the column of this name without blanks around it."""
    return f.trim(column(name), f.lit(_BLANKS))


def _is_missing(text: Column) -> Column:
    return f.coalesce(text == "", f.lit(True))


def _reason(source: Source, events: Mapping[str, float] | None) -> Column:
    # A filter on the reason repeats what it is made of: each rule names a computed column once.
    time, event, value = f.col("__time"), f.col("__event"), f.col("__value")
    broken = [
        ("malformed", f.col(MALFORMED).isNotNull()),
        ("missing_user", _is_missing(f.col("__user_id"))),
        ("missing_item", _is_missing(f.col("__item_id"))),
    ]
    # A published test file often has users and items only: what it lacks is no fault of its rows.
    optional = f.col(PART) == "holdout"
    if source.columns.time is not None:
        no_time = time.isNull() & _is_missing(text(source.columns.time))
        broken += [
            ("missing_time", no_time & ~optional),
            ("bad_time", ~no_time & ~f.coalesce(time >= f.expr(_FIRST_TIME), f.lit(False))),
            ("future_time", time > f.col(INGESTED_AT)),
        ]
    if events is not None:
        broken.append(("unknown_event", ~f.coalesce(event.isin(*events), optional)))
    if source.columns.value is not None:
        # NaN is more than infinity in Spark.
        unreadable = optional & _is_missing(text(source.columns.value))
        broken.append(("bad_value", ~f.coalesce(f.abs(value) < float("inf"), unreadable)))
        broken.append(("absurd_value", f.abs(value) > source.largest_value))
        if not source.negative_values:
            broken.append(("negative_value", value < 0))
    broken += [(name, ~f.coalesce(f.expr(rule), f.lit(False))) for name, rule in source.filters.items()]
    first = f.lit(None).cast("string")
    for name, is_broken in reversed(broken):
        first = f.when(is_broken, name).otherwise(first)
    return first


def _time(spark: SparkSession, source: Source) -> Column:
    """The event's time; null where it cannot be read as `source.time_format`."""
    form, text = source.time_format, f.trim(column(source.columns.time or ""))
    if form in _UNITS:
        return _since_1970(text, _UNITS[form])
    if form != "iso" or source.timezone != "UTC":
        _check_time(spark, source)
    if form == "iso":
        # Spark would read 12:30 as today and 2011 as a day, and knows no zone right behind the minutes.
        dated = text.rlike("^[0-9]{4}-[0-9]{2}-[0-9]{2}")
        with_seconds = f.regexp_replace(text, "^(.{11}[0-9]{2}:[0-9]{2})(?=[Z+-])", "$1:00")
        read = f.when(dated, f.coalesce(text.try_cast("timestamp"), with_seconds.try_cast("timestamp")))
        has_zone = f.substring(text, 12, 64).rlike("[A-Za-z+-]")
    else:
        read = f.try_to_timestamp(text, f.lit(form))
        unquoted = "".join(form.split("'")[::2])
        has_zone = f.lit(bool(_ZONE_LETTERS & set(unquoted)))
    if source.timezone == "UTC":
        return read
    return f.when(has_zone, read).otherwise(f.to_utc_timestamp(read, source.timezone))


def _since_1970(text: Column, unit: int | None) -> Column:
    """The time so many units after 1970; whole numbers exactly, others through float64."""
    # A failed cast is an exception: what has a point is spared it.
    whole = f.when(~text.contains("."), text.try_cast("bigint"))
    floating = text.try_cast("double")
    if unit is not None:
        exact, rounded = f.try_multiply(whole, f.lit(unit)), f.round(floating * unit)
    else:
        exact, rounded = f.call_function("div", whole, f.lit(1000)), f.round(floating / 1000)
    return f.timestamp_micros(f.coalesce(exact, rounded.try_cast("bigint")))


def _check_time(spark: SparkSession, source: Source) -> None:
    """Let Spark read one constant, so that a wrong zone or pattern shows before there is work."""
    moment = f.lit("2011-11-01").cast("timestamp")
    probe = [f.to_utc_timestamp(moment, source.timezone)]
    if source.time_format != "iso":
        probe.append(f.try_to_timestamp(f.lit("2011-11-01"), f.lit(source.time_format)))
    with blamed(f"source.timezone {source.timezone!r}, source.time_format {source.time_format!r}"):
        spark.range(1).select(*probe).collect()


def _typed(raw: DataFrame, name: str, source: Source) -> Column:
    if name not in source.types:
        return column(name)
    with blamed(f"source.types.{name}: {source.types[name]!r}"):
        return column(name).try_cast(source.types[name]).alias(name)


def _measure(rule: str) -> Column:
    """A number of a row; what is too large to be summed is null, as what cannot be read."""
    number = f.expr(rule).try_cast("double")
    return f.when(f.abs(number) < _LARGEST_MEASURE, number)


def _check_expression(typed: DataFrame, what: str, rule: Column) -> None:
    with blamed(what):
        condition: Any = typed.where(rule)._jdf.queryExecution().analyzed().condition()
    for node in _nodes(condition):
        kind = node.getClass().getSimpleName()
        if kind not in {"Cast", *_DIVISIONS} or node.evalMode().toString() != "ANSI":
            continue
        if kind == "Cast" and node.child().dataType().typeName() == "string" and not node.foldable():
            remedy = f"{node.child().sql()} is text: give it a type under source.types, or use try_cast"
        elif kind in _DIVISIONS and not node.right().foldable():
            remedy = "it may divide by zero: use try_divide or try_mod"
        else:
            continue
        raise ConfigError(f"{what}: {remedy}")


def _nodes(expression: Any) -> Iterator[Any]:
    yield expression
    children = expression.children()
    for place in range(children.length()):
        yield from _nodes(children.apply(place))


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Turn Spark's refusal into a ConfigError of one line that names what is to blame."""
    try:
        yield
    except PySparkException as error:
        message = str(error).strip().split("\n")[0].split(" SQLSTATE:")[0]
        raise ConfigError(f"{what}: {message}") from error
