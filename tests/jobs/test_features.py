"""build_features as its job runs it: rules, late files, features that are declared, and nothing from the future."""

import datetime as dt
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_spark.transforms import events
from tests.jobs.shop import AS_OF, Job, N, configuration, contents, left_out, purchases, source, tables, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]
BUILD = ("ingest", "build_features")
WHEN = ("--as-of", AS_OF.isoformat())
HEADER = "customer,product,bought_at,kind,price"
Line = tuple[str, ...]


@pytest.fixture
def job() -> Job:
    return Job()


def lines(kind: str = "buy", price: str = "2.5") -> list[Line]:
    return [(*row, kind, price) for row in purchases()]


def declared(folder: Path, log: Path, **sections: Any) -> Path:
    """A configuration that names every feature, with categories of items and a graph of friends."""
    write_csv(folder / "items.csv", [(f"item-{n}", "even" if n % 2 == 0 else "odd") for n in range(N)], "item,kind")
    write_csv(folder / "friends.csv", [("user-0", "user-1"), ("user-0", "user-2"), ("user-3", "nobody")], "user,friend")
    more = {"types": {"price": "double"}, "measures": {"spend": "price * 2"}, **sections.pop("source", {})}
    named = ["recency", "age", "windows", "trend", "sums", "means", "levels", "hours", "weekdays"]
    chosen = {
        "events": {"buy": 1.0},
        "hides": ["dislike"],
        "half_life": "30d",
        "windows": ["7d", "36h"],
        "of_users": [*named, "categories", "friends"],
        "of_items": [*named, "category"],
        **sections.pop("features", {}),
    }
    return configuration(
        folder,
        log,
        source=source(log, event="kind") | more,
        features=chosen,
        items={"path": str(folder / "items.csv"), "format": "csv", "columns": {"category": "kind"}},
        friends={"path": str(folder / "friends.csv"), "format": "csv", "both_ways": True},
        **sections,
    )


def test_no_event_from_as_of_on_changes_anything(spark, tmp_path, job) -> None:
    """Not even a robot's thousand, whose day is the heaviest, nor new users, items and dislikes."""
    past = [line for line in lines() if line[2] < f"{AS_OF:%Y-%m-%d}"]
    crowd = [("user-0", f"item-{n % 40}", f"{AS_OF:%Y-%m-%d} 00:00:00", "buy", "9") for n in range(200)]
    late = [("user-1", "item-1", f"{AS_OF + dt.timedelta(days=1):%Y-%m-%d} 08:00:00", "dislike", "1")]
    found = []
    for name, rows in {"past": past, "all": [*late, *past, *crowd]}.items():
        (tmp_path / name).mkdir()
        config = declared(
            tmp_path / name,
            write_csv(tmp_path / name / "log.csv", rows, HEADER, seed=len(rows)),
            source={"duplicates": "refuse", "heavy_users": {"events_a_day": 2, "action": "cap"}},
        )
        summary = job(config, *WHEN, stages=BUILD)
        assert summary["exit_code"] == 0, summary.get("error")
        found.append(contents(spark, config))
        assert summary["counts"]["refused"].get("duplicate_line", 0) == {"past": 0, "all": 160}[name]
    assert found[0] == found[1]
    assert all(found[0].values())


def test_declared_features_come_with_categories_friends_and_a_profile(spark, tmp_path, job) -> None:
    config = declared(tmp_path, write_csv(tmp_path / "log.csv", lines(), HEADER))
    summary = job(config, *WHEN, stages=BUILD)
    assert summary["exit_code"] == 0, summary.get("error")
    read = tables(spark, config).read
    users = {row["user_id"]: row for row in read("gold.user_features").collect()}
    own = [line for line in purchases() if line[0] == "user-0" and line[2] < f"{AS_OF:%Y-%m-%d}"]
    assert users["user-0"]["events"] == len(own) == users["user-0"]["items"]
    assert users["user-0"]["sums"]["spend"] == 5.0 * len(own)
    assert users["user-0"]["events_in"] == {
        "36h": sum(line[2] >= f"{AS_OF - dt.timedelta(hours=36):%Y-%m-%d %H:%M:%S}" for line in own),
        "7d": sum(line[2] >= f"{AS_OF - dt.timedelta(days=7):%Y-%m-%d}" for line in own),
    }
    assert (users["user-0"]["category"], users["user-1"]["categories"]) == ("even", {"odd": 1.0})
    assert {user: users[user]["friends"] for user in ("user-0", "user-1", "user-3")} == {
        "user-0": 2, "user-1": 1, "user-3": 0,
    }  # fmt: skip
    assert set(users["user-1"]["friends_items"]) == {line[1] for line in own}
    items = {row["item_id"]: row for row in read("gold.item_features").collect()}
    assert sum(row["category_share"] for row in items.values() if row["category"] == "odd") == pytest.approx(1)
    profile = {(row["measure"], row["key"]): row["value"] for row in read("gold.profile").collect()}
    n = sum(line[2] < f"{AS_OF:%Y-%m-%d}" for line in purchases())
    assert (profile["rows", None], profile["events", None], profile["pairs", None]) == (len(lines()), n, n)
    assert profile["density", None] == n / N**2
    assert sum(value for (measure, _), value in profile.items() if measure == "events_of_day") == n
    again = job(config, *WHEN, stages=BUILD)
    assert {**summary["outputs"]} == {**again["outputs"], "silver.items": summary["outputs"]["silver.items"]}
    write_csv(tmp_path / "friends.csv", [("user-0", "user-1")], "user,friend")
    os.utime(tmp_path / "friends.csv", (2_000_000_000, 2_000_000_000))
    assert job(config, *WHEN, stages=BUILD)["outputs"]["gold.user_features"] > again["outputs"]["gold.user_features"]


def test_a_disliked_item_is_not_trained_on_and_never_shown(spark, tmp_path, job) -> None:
    """user-0 dislikes the very item that the model would show first."""
    disliked = f"item-{left_out(0)}"
    rows = [*lines(), ("user-0", disliked, "2024-01-01 00:00:00", "dislike", "1")]
    config = declared(
        tmp_path,
        write_csv(tmp_path / "log.csv", rows, HEADER),
        topk={"k": N, "hide_seen": False},
        features={"of_users": [], "of_items": []},
        als={"rank": 2, "epochs": 2},
    )
    summary = job(config, "--run-id", "a", *WHEN, stages=(*BUILD, "train_als", "score_topk"))
    assert summary["exit_code"] == 0, summary.get("error")
    read = tables(spark, config).read
    (pair,) = read("silver.interactions").where("hidden").collect()
    assert (pair["user_id"], pair["item_id"], pair["weight"], pair["core"]) == ("user-0", disliked, 0.0, False)
    lists = {
        row["user_id"]: [item["item_id"] for item in row["items"]] for row in read("gold.recommendations").collect()
    }
    assert disliked not in lists["user-0"] and len(lists["user-0"]) == N - 1
    assert all(len(items) == N for user, items in lists.items() if user != "user-0")


def test_too_many_refused_rows_stop_the_run_before_anything_is_published(spark, tmp_path, job) -> None:
    rows = [*lines(), *[("", "item-1", "2024-01-01 00:00:00", "buy", "1")] * 100]
    config = declared(
        tmp_path,
        write_csv(tmp_path / "log.csv", rows, HEADER),
        features={"max_quarantined": 0.25, "of_users": [], "of_items": []},
    )
    summary = job(config, *WHEN, stages=BUILD)
    assert (summary["exit_code"], summary["status"]) == (65, "bad_data")
    assert "25.8% of 388 rows are refused ({'missing_user': 100})" in summary["error"]
    assert sorted(str(path.relative_to(tmp_path / "tables")) for path in tmp_path.glob("tables/*/*")) == [
        "bronze/events"
    ]
    enough = job(config, *WHEN, "--set", "features.max_quarantined=0.26", stages=BUILD)
    assert enough["counts"] == {"rows": 388, "kept": 288, "refused": {"missing_user": 100}}


def test_a_lost_row_is_an_error_of_the_program(spark, tmp_path, job, monkeypatch) -> None:
    rows = [*lines(), *[("", "item-1", "2024-01-01 00:00:00", "buy", "1")] * 3]
    config = declared(
        tmp_path, write_csv(tmp_path / "log.csv", rows, HEADER), features={"of_users": [], "of_items": []}
    )
    whole = events.told_apart

    def losing(parsed, run_id):
        rows = whole(parsed, run_id)
        return rows.where("refused IS NULL").unionByName(rows.where("refused IS NOT NULL").limit(2))

    monkeypatch.setattr(events, "told_apart", losing)
    summary = job(config, *WHEN, stages=BUILD)
    assert summary["exit_code"] == 70
    assert "of 291 rows of bronze.events 288 were kept and 2 refused" in summary["error"]


def test_late_and_corrected_files_change_past_features_only_where_that_is_asked_for(spark, tmp_path, job) -> None:
    """A file with old events, a file of other rows in its old place, the old file under another name."""
    (tmp_path / "log").mkdir()
    first = write_csv(tmp_path / "log" / "1.csv", lines(), HEADER)
    config = declared(
        tmp_path,
        tmp_path / "log",
        source={"path": str(tmp_path / "log"), "duplicates": "refuse"},
        features={"of_users": ["sums"], "of_items": []},
    )
    built = job(config, *WHEN, stages=BUILD)
    before, moment = contents(spark, config), dt.datetime.now(dt.UTC)
    write_csv(tmp_path / "log" / "2.csv", [("late", "item-1", "2024-01-01 00:00:00", "buy", "1")], HEADER)
    write_csv(first, lines(price="7"), HEADER)
    os.utime(first, (2_000_000_000, 2_000_000_000))
    write_csv(tmp_path / "log" / "3.csv", lines(price="7"), HEADER)
    for pinned in ((), ("--set", f"source.ingested_before={moment.isoformat()}")):
        same = job(config, *WHEN, *pinned, stages=BUILD)
        assert "they are built already" in job.stderr
        assert ("what was ingested since is not in them" in job.stderr) == (not pinned)
        assert same["outputs"]["silver.interactions"] == built["outputs"]["silver.interactions"]
    assert contents(spark, config) == before
    assert job(config, *WHEN, "--anew", stages=("build_features",))["exit_code"] == 0
    after = contents(spark, config)
    spends = tables(spark, config).read("gold.user_features").where("user_id IN ('late', 'user-0')").collect()
    own = sum(line[0] == "user-0" and line[2] < f"{AS_OF:%Y-%m-%d}" for line in purchases())
    assert {row["user_id"]: row["sums"]["spend"] for row in spends} == {"late": 2.0, "user-0": 14.0 * own}
    then = job(config, *WHEN, *pinned, stages=BUILD)
    assert then["counts"] == built["counts"] == {"rows": len(lines()), "kept": len(lines()), "refused": {}}
    again = contents(spark, config)
    now = ("--set", f"source.ingested_before={dt.datetime.now(dt.UTC).isoformat()}")
    rebuilt = job(config, *WHEN, *now, stages=BUILD)
    refused = {"duplicate_line": len(lines())}
    assert rebuilt["counts"] == {"rows": 2 * len(lines()) + 1, "kept": len(lines()) + 1, "refused": refused}
    names = ("silver.interactions", "gold.user_features", "gold.item_features", "gold.profile")
    assert all(again[name] == before[name] != after[name] for name in names)
    assert {name: contents(spark, config)[name] for name in names} == {name: after[name] for name in names}
    early = job(config, *WHEN, "--set", "source.ingested_before=2001-01-01", stages=BUILD)
    assert early["exit_code"] == 65 and "bronze.events knows no ingestion before it" in early["error"]


def test_a_date_that_was_still_to_come_and_all_there_is_are_built_anew_with_what_came(spark, tmp_path, job) -> None:
    (tmp_path / "log").mkdir()
    write_csv(tmp_path / "log" / "1.csv", lines(), HEADER)
    config = declared(
        tmp_path, tmp_path / "log", source={"path": str(tmp_path / "log")}, features={"of_users": [], "of_items": []}
    )
    ahead = ("--as-of", f"{dt.datetime.now(dt.UTC) + dt.timedelta(days=30):%Y-%m-%d}")
    before = [job(config, *when, stages=BUILD)["counts"]["rows"] for when in (ahead, ())]
    write_csv(tmp_path / "log" / "2.csv", [("late", "item-1", "2024-01-01 00:00:00", "buy", "1")], HEADER)
    after = [job(config, *when, stages=BUILD)["counts"]["rows"] for when in (ahead, ())]
    assert (before, after) == ([len(lines())] * 2, [len(lines()) + 1] * 2)


def test_times_of_any_year_are_in_a_tables_files_as_any_reader_knows_them(spark, tmp_path, job) -> None:
    """The first of them is what some systems write for none."""
    texts = ["0001-01-01 00:00:00", "1500-03-01 12:00:00.000001", "2024-01-01 00:00:00"]
    rows = [("user-0", f"item-{n}", text) for n, text in enumerate(texts)]
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", rows))
    summary = job(config, *WHEN, stages=BUILD)
    assert (summary["exit_code"], summary["counts"]["kept"]) == (0, len(texts)), summary
    files = (tmp_path / "tables/silver/interactions").glob("as_of=*/*.parquet")
    columns = [pq.ParquetFile(file).read().column("first_time") for file in files]
    assert {column.type for column in columns} == {pa.timestamp("us", tz="UTC")}
    found = sorted(micros for column in columns for micros in column.cast(pa.int64()).to_pylist())
    moments = (dt.datetime.fromisoformat(f"{text}+00:00") for text in texts)
    since = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert found == [(moment - since) // dt.timedelta(microseconds=1) for moment in moments]


def test_ratings_of_nothing_are_trained_on_as_soon_as_ratings_are(spark, tmp_path, job) -> None:
    """Nothing of `features` has changed, and yet another part of the pairs is to be trained on."""
    rows = [(*row, "0" if row[1] == "item-2" else "3") for row in purchases()]
    log = write_csv(tmp_path / "log.csv", rows, "customer,product,bought_at,stars")
    config = configuration(tmp_path, log, source=source(log, value="stars"), features={"value": "multiply"})

    def trained_on(*arguments: str) -> bool:
        assert job(config, *WHEN, *arguments, stages=BUILD)["exit_code"] == 0
        found = tables(spark, config).read("silver.interactions").where("item_id = 'item-2'").collect()
        (core,) = {row["core"] for row in found}
        return bool(core)

    explicit = ("--set", "als.objective=explicit")
    assert [trained_on(), trained_on(*explicit), trained_on(*explicit), trained_on()] == [False, True, True, False]
    assert "they are built already" not in job.stderr


def test_pairs_that_an_earlier_version_built_are_refused_and_built_again(spark, tmp_path, job) -> None:
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases()))
    assert job(config, *WHEN, stages=BUILD)["exit_code"] == 0
    written, where = tables(spark, config), {"as_of": AS_OF}
    made = written.find("silver.interactions", where)
    assert made is not None
    del made.note["from"]["columns"]
    pairs = written.read("silver.interactions", made.version)
    written.write_slice("silver.interactions", pairs, where, {"from": made.note["from"]}, ("as_of",))

    refused = job(config, *WHEN, stages=("train_als",))
    assert (refused["exit_code"], "run build_features again" in refused["error"]) == (65, True)
    assert job(config, *WHEN, stages=(*BUILD, "train_als"))["exit_code"] == 0


def test_users_held_out_are_ranked_by_a_model_that_never_saw_them(spark, tmp_path, job) -> None:
    config = configuration(
        tmp_path, write_csv(tmp_path / "log.csv", purchases()), holdout={"users": 0.25, "of_items": 0.1, "seed": 3}
    )
    summary = job(config, "--run-id", "a")
    assert summary["exit_code"] == 0, summary.get("error")
    read = tables(spark, config).read
    pairs = read("silver.interactions").collect()
    held = {row["user_id"] for row in pairs} - {row["user_id"] for row in pairs if row["core"]}
    assert 2 <= len(held) <= 12
    assert all(row["adopted"] == (row["user_id"] not in held) for row in pairs)
    everyone = Counter(row["item_id"] for row in pairs)
    learnt = Counter(row["item_id"] for row in pairs if row["user_id"] not in held)
    popular = {row["item_id"]: (row["users"], row["popularity"]) for row in read("gold.item_features").collect()}
    assert popular == {item: (n, learnt[item]) for item, n in everyone.items()}, "what is popular is learnt too"
    judged = {row["user_id"] for row in read("gold.metrics").select("user_id").distinct().collect()}
    assert judged == held
    lists = {row["user_id"]: row["source"] for row in read("gold.recommendations").collect()}
    assert {lists[user] for user in held} == {"als"}, "by fold-in of the history that they keep"
    assert summary["metrics"]["als"]["hit_rate@3"] > summary["metrics"]["popularity"]["hit_rate@3"]
