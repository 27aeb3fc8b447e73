"""Whole jobs on logs as they come: whatever is in a row or a file, it is kept, refused by name, or an error at once."""

import csv
import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from delta.tables import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import functions as f

from tests.generated import through_spark
from tests.jobs.shop import AS_OF, Job, N, configuration, contents, left_out, purchases, tables, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]
BUILD = ("ingest", "build_features")
WHEN = ("--as-of", AS_OF.isoformat())

ODD = ["null", "0", "a 'b' \"c\"", "two\nlines, one comma", "👩‍👩‍👧", "שלום עולם", "x" * 10_000, "y" * 9_999 + "ü",
       "NaN", "<b>é</b>", "back\\slash", "`tick`", "%s {0} $1", "=1+1"]  # fmt: skip


@pytest.fixture
def job() -> Job:
    return Job()


def odd(name: str) -> str:
    """An id of the shop, or a strange one in its place that no other has: of users and items the same ones."""
    number = int(name.partition("-")[2])
    return ODD[number] if number < len(ODD) else name


def test_ids_and_names_of_any_letters_come_out_of_the_pipeline_as_they_went_in(spark, tmp_path, job) -> None:
    """Quotes, newlines, emoji, from right to left, 10 kB; a user and an item "null", and "0"."""
    rows = [(odd(user), odd(item), time) for user, item, time in purchases()]
    names = [(odd(f"item-{n}"), f"called {odd(f'item-{n}')}") for n in range(N)]
    for file, header, lines in (
        ("log", ("customer", "product", "bought_at"), rows),
        ("items", ("item", "name"), names),
    ):
        with (tmp_path / f"{file}.csv").open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([header, *lines])
    multi_line = {"multiLine": "true", "maxCharsPerColumn": "20000"}
    config = configuration(
        tmp_path,
        tmp_path / "log.csv",
        source={
            "path": str(tmp_path / "log.csv"), "format": "csv", "options": multi_line,
            "columns": {"user": "customer", "item": "product", "time": "bought_at"},
        },
        items={
            "path": str(tmp_path / "items.csv"), "format": "csv", "options": multi_line, "columns": {"name": "name"},
        },
        evaluation={"k": [3], "report": True},
    )  # fmt: skip
    summary = job(config, "--run-id", "a", *WHEN)
    assert summary["exit_code"] == 0, summary.get("error")
    assert summary["counts"]["refused"] == {}
    read = tables(spark, config).read
    lists = {
        row["user_id"]: [item["item_id"] for item in row["items"]] for row in read("gold.recommendations").collect()
    }
    planted = {odd(f"user-{n}"): odd(f"item-{left_out(n)}") for n in range(N)}
    assert set(lists) == set(planted)
    assert sum(lists[user][0] == item for user, item in planted.items()) == N
    assert {row["item_id"]: row["name"] for row in read("silver.items").collect()} == dict(names)
    page = (tmp_path / "tables/reports/a/report.html").read_text(encoding="utf-8")
    assert "<b>é" not in page and "&lt;b&gt;é" in page and "שלום עולם" in page


def test_a_delta_log_that_is_compacted_is_counted_once_and_what_it_deletes_is_gone(spark, tmp_path, job) -> None:
    log = str(tmp_path / "log")
    rows = spark.createDataFrame(purchases(), "customer string, product string, bought_at string")
    for half in (0, 1):
        some = rows.where(f.crc32("customer") % 2 == half)
        some.coalesce(1).write.format("delta").mode("append").save(log)
    columns = {"user": "customer", "item": "product", "time": "bought_at"}
    config = configuration(tmp_path, tmp_path / "log", source={"path": log, "format": "delta", "columns": columns})

    def ingested() -> list[str]:
        assert job(config, "--run-id", "a", stages=("ingest",))["exit_code"] == 0
        found = tables(spark, config).read("bronze.events").select("customer", "product", "bought_at")
        return sorted(map(repr, found.collect()))

    before = ingested()
    assert len(before) == len(purchases())
    DeltaTable.forPath(spark, log).optimize().executeCompaction()
    assert ingested() == before and "2 taken away" in job.stderr
    spark.sql(f"DELETE FROM delta.`{log}` WHERE customer = 'user-3'")
    assert ingested() == [row for row in before if "'user-3'" not in row]
    spark.sql(f"DELETE FROM delta.`{log}`")
    assert job(config, "--run-id", "a", stages=("ingest",))["exit_code"] == 65, "nothing is delivered any more"


def test_a_parquet_log_whose_schema_changes_from_day_to_day_loses_no_row(spark, tmp_path, job) -> None:
    days: list[dict[str, list[Any]]] = [
        {"user": [1, 2], "item": [7, 8], "price": [1.5, 2.5]},
        {
            "user": ["1", "x"],
            "colour": ["red", None],
            "item": [7.0, 9.0],
        },  # text now, floats, one column more, one less
        {"user": ["1", "2"], "product": [7, 8]},  # not the item's name any more
    ]
    (tmp_path / "log").mkdir()
    config = configuration(tmp_path, tmp_path / "log", source={"path": str(tmp_path / "log"), "format": "parquet"})
    for number, day in enumerate(days[:2]):
        pq.write_table(pa.table(day), tmp_path / "log" / f"{number}.parquet")
        summary = job(config, stages=BUILD)
        assert summary["exit_code"] == 0, summary.get("error")
    assert summary["counts"] == {"rows": 4, "kept": 4, "refused": {}}
    read = tables(spark, config).read
    pairs = {(row["user_id"], row["item_id"]): row["events"] for row in read("silver.interactions").collect()}
    assert pairs == {("1", "7"): 2, ("2", "8"): 1, ("x", "9"): 1}
    assert read("bronze.events").where("price IS NULL").select("user", "colour").collect() == [
        ("1", "red"),
        ("x", None),
    ]
    pq.write_table(pa.table(days[2]), tmp_path / "log" / "2.parquet")
    summary = job(config, stages=BUILD)
    assert summary["exit_code"] == 65
    assert "2.parquet: no column 'item' (source.columns.item); its columns are: user, product" in summary["error"]
    assert read("bronze.events").count() == 4, "and nothing of the day's file is read"


def test_a_file_that_is_cut_stops_the_run_before_any_row_is_read_and_is_read_once_it_is_whole(
    spark, tmp_path, job
) -> None:
    (tmp_path / "log").mkdir()
    write_csv(tmp_path / "log" / "1.csv", purchases())
    whole = gzip.compress((tmp_path / "log" / "1.csv").read_bytes().replace(b"user-", b"other-"))
    second = tmp_path / "log" / "2.csv.gz"
    second.write_bytes(whole[: len(whole) // 2])
    config = configuration(tmp_path, tmp_path / "log")
    cut = job(config, *WHEN, stages=BUILD)
    assert cut["exit_code"] == 65 and "2.csv.gz" in cut["error"] and "nexpected end" in cut["error"]
    assert not (tmp_path / "tables").exists()
    second.write_bytes(whole)
    assert job(config, *WHEN, stages=BUILD)["counts"]["rows"] == 2 * len(purchases())


def test_a_rule_a_weight_and_a_feature_are_added_in_the_configuration_alone(spark, tmp_path, job) -> None:
    rows = [(*row, "buy", "2.5") for row in purchases()] + [
        ("user-0", "item-1", "2024-02-28 00:00:00", "gift", "10"),
        ("user-0", "item-3", "2024-02-28 00:00:00", "buy", "0.5"),
    ]
    config = configuration(
        tmp_path,
        write_csv(tmp_path / "log.csv", rows, "customer,product,bought_at,kind,price"),
        source={
            "path": str(tmp_path / "log.csv"), "format": "csv", "types": {"price": "double"},
            "columns": {"user": "customer", "item": "product", "time": "bought_at", "event": "kind"},
        },
        features={"events": {"buy": 1.0}},
    )  # fmt: skip
    without = job(config, *WHEN, stages=BUILD)
    assert without["counts"]["refused"] == {"unknown_event": 1}
    added = (
        "source.filters.cheap=price > 1", "features.events.gift=5", "source.measures.margin=price * 0.25",
        "source.measures.gifts=if(kind = 'gift', 1, 0)",
        "features.windows=[3d]", "features.of_users=[windows, sums]",
    )  # fmt: skip
    summary = job(config, *WHEN, *(part for one in added for part in ("--set", one)), stages=BUILD)
    assert summary["exit_code"] == 0, summary.get("error")
    assert summary["counts"]["refused"] == {"cheap": 1}
    read = tables(spark, config).read
    (lost,) = read("silver.quarantine").collect()
    assert (lost["reason"], lost["_line"], json.loads(lost["record"])["price"]) == ("cheap", len(rows) - 1, "0.5")
    (gift,) = read("silver.interactions").where("user_id = 'user-0' AND item_id = 'item-1'").collect()
    assert (gift["weight"], gift["event_types"]) == (5.0, ["gift"])
    (user,) = read("gold.user_features").where("user_id = 'user-0'").collect()
    recent = sum(row[0] == "user-0" and "2024-02-27" <= row[2] < "2024-03-01" for row in purchases())
    assert user["events_in"] == {"3d": 1 + recent}
    assert user["sums"]["margin_3d"] == 2.5 + 0.625 * recent
    assert (user["sums"]["gifts"], user["sums"]["gifts_3d"]) == (1.0, 1.0)


TIMES = ["2024-01-01", "2024-01-01 09:00:00", "2024-02-29T23:59:59Z", "2024-03-02", "yesterday", "2999-01-01", ""]
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
DIRTY = st.fixed_dictionaries(
    {
        "user": st.one_of(st.sampled_from(["null", "0", "u"]), st.none(), ANY),
        "item": st.one_of(st.sampled_from(["null", "0", "i"]), st.none(), ANY),
        "time": st.one_of(st.sampled_from(TIMES), st.none(), ANY),
        "kind": st.sampled_from(["buy", "view", "return", "hate", "?", None]),
        "n": st.one_of(st.integers(-2, 3).map(str), st.sampled_from(["NaN", "1e999", "1e9", None])),
    }
)
BROKEN = st.sampled_from(['{"user": "u"', "nothing", '{"user": "u", "item": }'])
LOG = st.lists(st.one_of(DIRTY.map(json.dumps), DIRTY.map(json.dumps), DIRTY.map(json.dumps), BROKEN), min_size=80)
GOOD = {"user": "u", "item": "i", "time": "2024-01-05", "kind": "buy", "n": "1"}


@pytest.mark.generated
def test_of_any_rows_none_is_lost_and_neither_a_second_run_nor_order_nor_files_change_a_table(
    spark, tmp_path, job
) -> None:
    """Rules of every kind, repeats refused and heavy users capped: the same lines once in a file, once in three."""

    def built(folder: Path, lines: list[str], n_files: int) -> tuple[Path, dict[str, Any]]:
        (folder / "log").mkdir(parents=True)
        for n in range(n_files):
            text = "".join(f"{line}\n" for line in lines[n::n_files])
            (folder / "log" / f"{n}.json").write_text(text, encoding="utf-8")
        source = {
            "path": str(folder / "log"), "format": "json", "negative_values": True, "duplicates": "refuse",
            "columns": {"user": "user", "item": "item", "time": "time", "event": "kind", "value": "n"},
            "filters": {"no_zero": "n <> '0'"}, "measures": {"length": "length(item)"},
            "heavy_users": {"events_a_day": 2, "action": "cap"},
        }  # fmt: skip
        chosen = {"events": {"buy": 2.0, "view": 0.3, "return": -1.0}, "hides": ["hate"], "half_life": "9d",
                  "value": "log1p", "of_users": ["windows", "sums"], "of_items": ["means", "hours"]}  # fmt: skip
        config = configuration(folder, folder / "log", source=source, features=chosen)
        summary = job(config, *WHEN, stages=BUILD)
        assert summary["exit_code"] == 0, summary.get("error")
        return config, summary

    def refused(config: Path) -> Counter[tuple[str, str]]:
        rows = tables(spark, config).read("silver.quarantine").select("reason", "record").collect()
        return Counter((row["reason"], row["record"]) for row in rows)

    runs = iter(range(100))

    @through_spark()
    @given(LOG, st.randoms(use_true_random=False))
    def check(drawn: list[str], draw: random.Random) -> None:
        lines = [json.dumps(GOOD)] * 2 + drawn
        folder = tmp_path / str(next(runs))
        config, summary = built(folder / "one", lines, 1)
        counts = summary["counts"]
        assert counts["rows"] == len(lines) == counts["kept"] + sum(counts["refused"].values())
        lost, found = refused(config), contents(spark, config)
        assert Counter(reason for reason, _ in lost.elements()) == counts["refused"]
        again = job(config, *WHEN, "--anew", stages=("build_features",))
        assert (again["counts"], refused(config), contents(spark, config)) == (counts, lost, found)
        ingested = job(config, stages=("ingest",))["outputs"]["bronze.events"]
        assert ingested == summary["outputs"]["bronze.events"]
        mixed, other = built(folder / "three", draw.sample(lines, len(lines)), 3)
        assert (other["counts"], refused(mixed), contents(spark, mixed)) == (counts, lost, found)
        places = tables(spark, mixed).read("bronze.events").agg(f.count_distinct("_file", "_line")).first()
        assert places is not None and places[0] == len(lines)

    check()
