import datetime as dt
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from recsys_spark.config import Source
from recsys_spark.errors import ConfigError, DataError, DependencyError
from recsys_spark.files import list_files, pattern, resolve
from recsys_spark.schemas import BRONZE_COLUMNS
from recsys_spark.sources import check_columns, read_raw

NOW = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
OWN = [field.name for field in BRONZE_COLUMNS]


def source(path: object, form: str = "csv", **more: object) -> Source:
    return Source.model_validate({"path": str(path), "format": form, **more})


def files_of(spark: SparkSession, log: Source) -> list[str]:
    return list(list_files(spark, log, log.path))


def read(spark: SparkSession, log: Source) -> DataFrame:
    return read_raw(spark, log, files_of(spark, log), "source", NOW)


def rows(frame: DataFrame, *columns: str) -> list[tuple[object, ...]]:
    """The rows in the order of their files and lines."""
    return [tuple(row) for row in frame.orderBy("_file", "_line").select(*columns).collect()]


@pytest.fixture
def small_blocks(spark: SparkSession) -> Iterator[None]:
    """Files are cut every 1000 bytes."""
    settings = {"spark.sql.files.maxPartitionBytes": "1000", "spark.sql.files.openCostInBytes": "100"}
    for key, value in settings.items():
        spark.conf.set(key, value)
    yield
    for key in settings:
        spark.conf.unset(key)


def test_a_csv_row_comes_with_its_file_line_part_and_time_of_ingest(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item\na,x\nb,y\n")
    frame = read(spark, source(path))
    assert frame.columns == ["user", "item", "_malformed", *OWN]
    assert dict(frame.dtypes) == {
        **dict.fromkeys(["user", "item", "_malformed", "_file", "_part"], "string"),
        "_line": "bigint",
        "_modified_at": "timestamp",
        "_ingested_at": "timestamp",
    }
    url = f"file://{path}"
    stamp = f.unix_micros("_ingested_at").alias("at")
    at = int(NOW.timestamp() * 1_000_000)
    assert rows(frame.withColumn("at", stamp), "user", "item", "_malformed", "_file", "_line", "_part", "at") == [
        ("a", "x", None, url, 0, "source", at),
        ("b", "y", None, url, 1, "source", at),
    ]


def test_any_separator_without_header_takes_the_names_of_the_config(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("1;x\n2;y\n")
    log = source(path, options={"sep": ";"}, header=False, names=("user", "item"))
    assert rows(read(spark, log), "user", "item", "_line") == [("1", "x", 0), ("2", "y", 1)]


def test_a_byte_order_mark_is_no_part_of_the_first_name(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item\n1,é\n", encoding="utf-8-sig")
    for multi_line in ("false", "true"):
        assert rows(read(spark, source(path, options={"multiLine": multi_line})), "user", "item") == [("1", "é")]


def test_the_encoding_is_an_option(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item\n1,é\n", encoding="latin-1")
    assert rows(read(spark, source(path, options={"encoding": "iso-8859-1"})), "item") == [("é",)]
    with pytest.raises(ConfigError, match=r"log\.csv: source\.options: .*utf-8, but got latin1"):
        read(spark, source(path, options={"encoding": "latin1"}))


def test_quotes_newlines_and_emoji_survive(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('user,item\n"say ""hi"", then","two\nlines"\n"👩‍👩‍👧","a\\"\nnull,0\n')
    frame = read(spark, source(path, options={"multiLine": "true"}))
    assert rows(frame, "user", "item", "_line", "_malformed") == [
        ('say "hi", then', "two\nlines", 0, None),
        ("👩‍👩‍👧", "a\\", 1, None),
        ("null", "0", 2, None),
    ]


def test_a_line_with_too_few_or_too_many_columns_is_kept_whole(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item\nonly\na,b,c\nd,e\n")
    frame = read(spark, source(path))
    assert rows(frame, "user", "_line", "_malformed") == [
        ("only", 0, "only"),
        ("a", 1, "a,b,c"),
        ("d", 2, None),
    ]
    assert rows(frame, "item", "_malformed") == [(None, "only"), ("b", "a,b,c"), ("e", None)]


def test_a_gzipped_csv_is_read(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(b"user,item\na,x\nb,y\n"))
    assert rows(read(spark, source(path)), "user", "_line") == [("a", 0), ("b", 1)]


def test_blank_and_repeated_names_of_a_header_are_told_apart(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text(",user,item,Item\n0,a,x,y\n")
    log = source(tmp_path, columns={"item": "item2"})
    assert rows(read(spark, log), "_c0", "user", "item2", "Item3") == [("0", "a", "x", "y")]


def test_lines_count_from_zero_in_file_order_however_files_are_cut(
    spark: SparkSession, tmp_path: Path, small_blocks: None
) -> None:
    sizes = {"a": 400, "b": 1, "c": 0, "d": 77}
    for name, size in sizes.items():
        lines = "".join(f"{name}-{line},{'x' * (line % 13)}\n" for line in range(size))
        (tmp_path / f"{name}.csv").write_text("user,item\n" + lines)
        objects = "".join(json.dumps({"user": f"{name}-{line}", "item": line}) + "\n" for line in range(size))
        (tmp_path / f"{name}.json").write_text(objects)
    headless = source(tmp_path / "*.csv", header=False, names=("user", "item"))
    expected = [(f"{name}-{line}", line) for name, size in sizes.items() for line in range(size)]
    for log in (source(tmp_path / "*.csv"), source(tmp_path / "*.json", "json")):
        frame = read(spark, log)
        assert frame.rdd.getNumPartitions() > 5
        assert rows(frame, "user", "_line") == expected
        assert frame.where("_line is null").count() == 0
    with_headers = [
        (user, line)
        for name, size in sizes.items()
        for line, user in enumerate(["user", *(f"{name}-{line}" for line in range(size))])
    ]
    assert rows(read(spark, headless), "user", "_line") == with_headers


def test_lines_of_parquet_and_delta_are_in_file_order_too(
    spark: SparkSession, tmp_path: Path, small_blocks: None
) -> None:
    users = list(range(600))
    table = pa.table({"user": users, "item": [0] * 600})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=40)
    frame = read(spark, source(tmp_path / "log.parquet", "parquet"))
    assert frame.rdd.getNumPartitions() > 5
    assert rows(frame, "user", "_line") == [(str(user), user) for user in users]
    folder = str(tmp_path / "table")
    spark.createDataFrame(table.to_pandas()).coalesce(1).write.format("delta").save(folder)
    assert rows(read(spark, source(folder, "delta")), "user", "_line") == [(str(user), user) for user in users]


def test_files_with_columns_in_another_order_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user,item\na,x\n")
    (tmp_path / "2.csv").write_text("item,user\nx,a\n")
    with pytest.raises(DataError, match=r"2\.csv: its first line is not user, item as in other files"):
        read(spark, source(tmp_path))


def test_json_keeps_numbers_as_written_and_nested_values_as_json(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    lines = [
        '{"user": 12345678901234567890, "item": 1.50, "more": {"a": [1, "x"]}}',
        "{broken",
        '{"user": "u"}',
    ]
    path.write_text("\n".join(lines))
    frame = read(spark, source(path, "json"))
    assert rows(frame, "user", "item", "more", "_line", "_malformed") == [
        ("12345678901234567890", "1.50", '{"a":["1","x"]}', 0, None),
        (None, None, None, 1, "{broken"),
        ("u", None, None, 2, None),
    ]


def test_parquet_becomes_text_without_loss(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    naive = dt.datetime(2011, 7, 1, 12, 30, 0, 250)
    columns = {
        "user": pa.array([13085.0, float("nan"), 0.1, 2.0**60]),
        "item": pa.array([13085.0, None, 1.5, -7.0], pa.float32()),
        "value": pa.array([float("nan"), float("inf"), 1e-7, 3.0]),
        "local": pa.array([naive] * 4, pa.timestamp("us")),
        "aware": pa.array([naive] * 4, pa.timestamp("us", tz="UTC")),
        "nanos": pa.array([1_430_623_510_123_456_789] * 4, pa.timestamp("ns")),
        "big": pa.array([2**63 - 1] * 4),
        "tags": pa.array([["a", None]] * 4),
        "flag": pa.array([True] * 4),
    }
    pq.write_table(pa.table(columns), path)
    frame = read(spark, source(path, "parquet", columns={"value": "value"}))
    assert rows(frame, "user", "item", "value") == [
        ("13085", "13085", "NaN"),
        (None, None, "Infinity"),
        ("0.1", "1.5", "1.0E-7"),
        ("1.15292150460684698E18", "-7", "3"),
    ]
    assert rows(frame, "local", "aware", "nanos", "big", "tags", "flag")[0] == (
        "2011-07-01 12:30:00.00025",
        "2011-07-01 12:30:00.00025Z",
        "1430623510123456789",
        "9223372036854775807",
        '["a",null]',
        "true",
    )


def test_only_the_files_asked_for_are_read(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user,item\na,x\n")
    (tmp_path / "2.csv").write_text("user,item\nb,y\n")
    log = source(tmp_path)
    frame = read_raw(spark, log, files_of(spark, log)[1:], "holdout", NOW)
    assert rows(frame, "user", "_line", "_part") == [("b", 0, "holdout")]


def test_only_new_files_of_delta_tables_are_read(spark: SparkSession, tmp_path: Path) -> None:
    log = source(tmp_path / "a table", "delta")
    for number, user in enumerate(("a", "b")):
        more = spark.createDataFrame([(user, "x", number)], "user string, item string, day int")
        more.write.format("delta").mode("append").partitionBy("day").save(log.path[0])
        if number == 0:
            known = files_of(spark, log)
    both = files_of(spark, log)
    assert rows(read(spark, log), "_file") == [(file,) for file in both]
    fresh = [file for file in both if file not in known]
    assert rows(read_raw(spark, log, fresh, "source", NOW), "user", "day", "_line") == [("b", "1", 0)]


@pytest.mark.parametrize("form", ["csv", "json", "parquet", "delta"])
def test_rows_say_when_their_file_was_modified_as_the_listing_does(
    spark: SparkSession, tmp_path: Path, form: str
) -> None:
    log = source(tmp_path / "log", form)
    spark.createDataFrame([("a", "x")], "user string, item string").write.format(form).option("header", "true").save(
        log.path[0]
    )
    micros = f.unix_micros("_modified_at").alias("at")
    ((file, at),) = read(spark, log).select("_file", micros).collect()
    modified = list_files(spark, log, log.path)[file]
    assert (modified - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(microseconds=1) == at
    if form != "delta":
        assert abs(modified.timestamp() - Path(file.removeprefix("file://")).stat().st_mtime) < 0.002


def test_the_pattern_of_paths_matches_their_files_and_no_others(spark: SparkSession, tmp_path: Path) -> None:
    names = [
        "a b.csv",
        "ab.csv",
        "50%25.csv",
        "[1]{x}?.csv",
        "é😀.csv",
        "deep/er/2.csv",
        "deep.csv",
        "log-1.csv",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("user,item\na,x\n")
    everything = source(tmp_path)
    urls = files_of(spark, everything)
    assert len(urls) == len(names)
    frame = spark.createDataFrame([(url,) for url in urls], "url string")
    globs = [
        "*.csv",
        "a?b.csv",
        "{ab,deep}*",
        "log-[0-9].csv",
        "[!a]*.csv",
        "*/er",
        "deep",
        "no.csv",
        "a{ b,b}.csv",
    ]
    for path in [*names, *globs, ""]:
        log = source(tmp_path / path)
        matched = frame.where(f.col("url").rlike(pattern(spark, log.path)))
        expected = files_of(spark, log) if path != "no.csv" else []
        assert sorted(row[0] for row in matched.collect()) == expected, path
    assert frame.where(f.col("url").rlike(pattern(spark, ("/no/such", str(tmp_path))))).count() == len(names)


def test_folders_are_searched_to_any_depth_without_hidden_names(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("1.csv", "deep/er/2.csv", "_SUCCESS", ".part.crc", "_tmp/3.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("user,item\na,x\n")
    log = source(tmp_path)
    assert files_of(spark, log) == [f"file://{tmp_path}/1.csv", f"file://{tmp_path}/deep/er/2.csv"]
    assert read(spark, log).count() == 2


@pytest.mark.parametrize("name", ["a b.csv", "50%25.csv", "[1]{x}?*.csv", "'q\"é😀.csv", "#+&=.csv"])
def test_strange_file_names_are_read_by_their_url(spark: SparkSession, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("user,item\na,x\n")
    (tmp_path / "other.csv").write_text("user,item\nb,y\n")
    log = source(tmp_path / name)
    assert rows(read(spark, log), "user", "_file") == [("a", files_of(spark, log)[0])]


def test_a_path_that_matches_nothing_is_named(spark: SparkSession, tmp_path: Path) -> None:
    for path, form in ((tmp_path / "no.csv", "csv"), (tmp_path / "*.csv", "csv"), (tmp_path / "no", "delta")):
        with pytest.raises(DataError, match=r"matches no file; name the files with --set source\.path=…") as caught:
            read(spark, source(path, form))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_storage_that_cannot_be_reached_is_no_fault_of_the_data(spark: SparkSession) -> None:
    for path in ("foo://bucket/log.csv", "s3a://bucket/log.csv", "hdfs://no.such.host.invalid:1/log.csv"):
        with pytest.raises(DependencyError, match="its storage cannot be reached: ") as caught:
            read(spark, source(path))
        assert "\n" not in str(caught.value)


def test_a_mapped_column_that_is_not_there_is_named_with_those_that_are(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user,Item\na,x\n")
    expected = r"1\.csv: no column 'item' \(source\.columns\.item\); its columns are: user, Item"
    with pytest.raises(DataError, match=expected):
        read(spark, source(tmp_path))
    pq.write_table(pa.table({"user": [1]}), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet: no column 'item'"):
        read(spark, source(tmp_path / "1.parquet", "parquet"))
    (tmp_path / "1.json").write_text("garbage\n")
    with pytest.raises(DataError, match=r"1\.json: no column 'user'"):
        read(spark, source(tmp_path / "1.json", "json"))


def test_typed_columns_must_be_there_and_no_column_may_be_called_like_ours() -> None:
    log = source("log", types={"n": "double"})
    with pytest.raises(DataError, match=r"log: no column 'n' \(source\.types\.n\)"):
        check_columns(["user", "item"], log, "log")
    with pytest.raises(DataError, match=r"column '_LINE' has a name that ingest needs itself"):
        check_columns(["user", "item", "n", "_LINE"], log, "log")


@pytest.mark.parametrize("content", [b"", b"user,item\na,x\n", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_broken_parquet_file_is_an_error_of_one_line(spark: SparkSession, tmp_path: Path, content: bytes) -> None:
    pq.write_table(pa.table({"user": [1], "item": [1]}), tmp_path / "good.parquet")
    (tmp_path / "zbad.parquet").write_bytes(content)
    for path in (tmp_path, tmp_path / "zbad.parquet"):
        with pytest.raises(DataError, match="cannot be read as parquet") as caught:
            read(spark, source(path, "parquet"))
        assert "\n" not in str(caught.value)
        assert "zbad.parquet" in str(caught.value) or "footer index" in str(caught.value)


def test_parquet_files_that_differ_in_a_type_are_an_error_of_one_line(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1], "item": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"user": ["a"], "item": [1]}), tmp_path / "2.parquet")
    with pytest.raises(DataError, match=r'cannot be read as parquet: .*"BIGINT" and "STRING"'):
        read(spark, source(tmp_path, "parquet"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_error_of_one_line(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "1.csv"
    path.write_text("user,item\na,x\n")
    path.chmod(0)
    with pytest.raises(DataError, match=r"1\.csv: no permission to read it"):
        read(spark, source(path))


def test_empty_files_have_no_header(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("")
    with pytest.raises(DataError, match=r"1\.csv: empty, not even a header"):
        read(spark, source(tmp_path))
    (tmp_path / "2.csv").write_text("user,item\na,x\n")
    assert rows(read(spark, source(tmp_path)), "user", "_line") == [("a", 0)]


def test_a_package_that_is_not_installed_is_named_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"package no_such_one is not installed: pip install no_such_one"):
        resolve(("package:no_such_one/data/x.csv",))
    with pytest.raises(DataError, match=r"package recsys_spark has no file 'x\.csv'"):
        resolve(("package:recsys_spark/x.csv",))


def test_a_file_of_a_package_is_found() -> None:
    (path,) = resolve(("package:recsys_spark/config.py",))
    assert Path(path.removeprefix("file://")).read_text().startswith('"""The configuration')


@pytest.mark.parametrize("multi_line", ["false", "true"])
def test_a_gzip_that_is_cut_is_an_error_of_one_line_and_no_row_of_it_is_read(
    spark: SparkSession, tmp_path: Path, multi_line: str
) -> None:
    path = tmp_path / "log.csv.gz"
    whole = gzip.compress("".join(["user,item\n", *(f"u{n},i{n * 7919 % 1000}\n" for n in range(3000))]).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"log\.csv\.gz: cannot be read as csv: .*[Uu]nexpected end") as caught:
        read(spark, source(path, options={"multiLine": multi_line}))
    assert "\n" not in str(caught.value)


def test_a_gzip_of_json_that_is_cut_is_an_error_of_one_line_too(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.json.gz"
    lines = (f'{{"user": "u{n}", "item": "i{n * 7919 % 1000}"}}\n' for n in range(3000))
    whole = gzip.compress("".join(lines).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"log\.json\.gz: cannot be read as json: .*[Uu]nexpected end") as caught:
        read(spark, source(path, "json"))
    assert "\n" not in str(caught.value)


def test_a_parquet_file_without_a_mapped_column_has_it_null_beside_files_that_have_it(
    spark: SparkSession, tmp_path: Path
) -> None:
    """So that its rows are refused as missing_item, one by one, and not lost."""
    pq.write_table(pa.table({"user": [1], "item": [2]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"user": [3], "product": [4]}), tmp_path / "2.parquet")
    frame = read(spark, source(tmp_path, "parquet"))
    assert rows(frame, "user", "item", "product") == [("1", "2", None), ("3", None, "4")]


def test_a_column_that_only_later_parquet_files_have_is_null_before(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1], "item": [2]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"item": [4], "colour": ["red"], "user": [3]}), tmp_path / "2.parquet")
    frame = read(spark, source(tmp_path, "parquet"))
    assert rows(frame, "user", "item", "colour") == [("1", "2", None), ("3", "4", "red")]
