"""The scoring job on the planted shop: who is shown what, and why."""

import datetime as dt
import json
import os
import shutil
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from recsys_spark import memory, runs
from recsys_spark.errors import DependencyError
from recsys_spark.stages import score
from recsys_spark.tables import Commit, Tables
from tests.jobs.shop import AS_OF, Job, N, configuration, left_out, purchases, source, write_csv

pytestmark = pytest.mark.usefixtures("spark")

BEFORE = ("ingest", "build_features", "train_als")
WHEN = ("--as-of", AS_OF.isoformat())


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory) -> Path:
    """A trained shop that knows its items (two kinds, one out of stock, one not sold any more) and users' countries."""
    folder, job = tmp_path_factory.mktemp("shop"), Job()
    products = [
        (f"item-{i}", f"Product {i} [/x]", "low" if i < N // 2 else "high", "no" if i == 4 else "yes",
         "2024-02-01" if i == 6 else "")
        for i in range(N)
    ]  # fmt: skip
    products += [("item-0", "Misspelt", "low", "yes", ""), products[0], ("unheard-of", "New", "low", "yes", "")]
    people = [(f"user-{u}", "north" if u % 2 else "south") for u in range(N)] + [("newcomer", "north")]
    config = configuration(
        folder,
        write_csv(folder / "log.csv", purchases()),
        items={
            "path": str(write_csv(folder / "products.csv", products, "product,title,kind,stock,until")),
            "format": "csv",
            "columns": {"item": "product", "name": "title", "category": "kind", "valid_to": "until"},
            "attributes": ["stock"],
        },
        users={
            "path": str(write_csv(folder / "people.csv", people, "customer,country")),
            "format": "csv",
            "columns": {"user": "customer", "segment": "country"},
        },
    )
    assert job(config, "--run-id", "a", *WHEN, stages=BEFORE)["exit_code"] == 0
    return config


@pytest.fixture
def job() -> Job:
    return Job()


def tables(spark, config: Path) -> Tables:
    return Tables(spark, str(config.parent / "tables"))


def scored(spark, job: Job, config: Path, *arguments: str) -> dict[str, Any]:
    """Score all users and return their rows by user."""
    summary = job(config, "--run-id", "a", *WHEN, *arguments, stages=("score_topk",))
    assert summary["exit_code"] == 0, summary
    rows = tables(spark, config).read("gold.recommendations").where("model_id = 'a'").collect()
    return {row["user_id"]: row for row in rows} | {"summary": summary}


def items_of(row) -> list[str]:
    return [item["item_id"] for item in row["items"]]


def test_what_is_known_of_items_and_users_is_one_row_each(spark, shop) -> None:
    items = {
        row["item_id"]: row for row in tables(spark, shop).read("silver.items").where("name != 'Misspelt'").collect()
    }
    assert len(items) == N + 1
    assert (items["item-0"]["rows"], items["item-0"]["name"], items["item-4"]["attributes"]) == (
        2, "Product 0 [/x]", {"stock": "no"},
    )  # fmt: skip
    assert items["item-6"]["valid_to"].isoformat() == "2024-02-01T00:00:00"
    users = tables(spark, shop).read("silver.users")
    assert {row["user_id"]: row["segment"] for row in users.collect()}["newcomer"] == "north"
    assert users.count() == N + 1


def test_only_valid_and_eligible_items_are_listed_and_they_are_counted(spark, shop, job) -> None:
    rows = scored(spark, job, shop, "--set", "topk.eligible=attributes.stock = 'yes'", "--set", "topk.k=24")
    listed = {user: items_of(row) for user, row in rows.items() if user != "summary"}
    assert not any({"item-4", "item-6"} & set(items) for items in listed.values())
    counts = {"eligible": N - 2, "known": N, "eligible_without_events": 1}
    assert rows["summary"]["counts"]["eligible_items"] == counts
    assert f"scoring: {N - 2} of {N} items may be listed; 1 more have no events" in job.stderr
    for user in range(N):
        bought = {f"item-{item}" for item in range(user % 2, N, 2) if item != left_out(user)}
        assert set(listed[f"user-{user}"]) == {f"item-{i}" for i in range(N)} - bought - {"item-4", "item-6"}


@pytest.mark.slow
def test_an_item_is_listed_from_the_day_on_that_it_is_valid(spark, shop, job, tmp_path) -> None:
    root = shutil.copytree(shop.parent / "tables", tmp_path / "tables")
    days = [(f"item-{i}", "2024-02-29" if i % 3 else "2024-03-02") for i in range(N)]
    products = write_csv(tmp_path / "products.csv", days, "product,since")
    columns = "{item: product, valid_from: since}"
    changed = ("--set", f"storage.root={root}", "--set", f"items={{path: {products}, format: csv, columns: {columns}}}")
    assert job(shop, "--run-id", "a", *WHEN, *changed, stages=("build_features",))["exit_code"] == 0
    assert job(shop, "--run-id", "a", *WHEN, *changed, "--set", "topk.k=24", stages=("score_topk",))["exit_code"] == 0
    lists = Tables(spark, str(root)).read("gold.recommendations").collect()
    assert {item for row in lists for item in items_of(row)} == {f"item-{i}" for i in range(N) if i % 3}


@pytest.mark.slow
def test_a_model_serves_who_came_after_it_and_knows_what_was_bought_since(spark, tmp_path, job) -> None:
    late = [("late", f"item-{i}", f"{AS_OF:%Y-%m-%d} 12:00:00") for i in (0, 2, 4, 6)]
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases() + late))
    assert job(config, "--run-id", "a", *WHEN, stages=BEFORE)["exit_code"] == 0
    before = scored(spark, job, config)
    later = ("--as-of", (AS_OF + dt.timedelta(days=2)).isoformat())
    assert job(config, "--run-id", "b", *later, stages=("build_features",))["exit_code"] == 0
    assert job(config, "--run-id", "b", *later, "--model", "a", stages=("score_topk",))["exit_code"] == 0
    rows = tables(spark, config).read("gold.recommendations").where(f"as_of > TIMESTAMP'{AS_OF.isoformat()}'").collect()
    now = {row["user_id"]: row for row in rows}
    assert "late" not in before and {row["model_id"] for row in rows} == {"a"}
    assert now["late"]["source"] == "als" and all(int(item[5:]) % 2 == 0 for item in items_of(now["late"]))
    for user in range(N):
        bought = f"item-{left_out(user)}"
        assert items_of(before[f"user-{user}"])[0] == bought and bought not in items_of(now[f"user-{user}"])


@pytest.mark.slow
def test_an_item_without_recent_events_is_not_listed(spark, shop, job) -> None:
    rows = scored(spark, job, shop, "--set", "topk.active_within=36h", "--set", "topk.k=24")
    features = tables(spark, shop).read("gold.item_features")
    recent = features.where(f.col("last_time") >= f.lit(AS_OF) - f.expr("INTERVAL 36 HOURS"))
    active = {row["item_id"] for row in recent.collect()} - {"item-6"}
    listed = {item for user, row in rows.items() if user != "summary" for item in items_of(row)}
    assert 0 < len(active) < N - 1 and listed == active


def test_a_condition_that_is_no_sql_is_refused(shop, job) -> None:
    summary = job(shop, "--run-id", "a", *WHEN, "--set", "topk.eligible=attributes.stock >< 'yes'",
                  stages=("score_topk",))  # fmt: skip
    assert summary["exit_code"] == 78 and "topk.eligible" in summary["error"]


@pytest.mark.slow
def test_blocked_pairs_are_not_shown_and_allowed_ones_alone_are_and_unknown_items_are_counted(
    spark, shop, job, tmp_path
) -> None:
    best = items_of(scored(spark, job, shop)["user-1"])[0]
    pairs = [("user-1", best), ("user-1", "no-such"), ("", "item-1"), ("", "no-such")]
    blocked = write_csv(tmp_path / "blocked.csv", pairs, "user_id,item_id")
    allowed = write_csv(tmp_path / "allowed.csv", [("user-2", "item-3"), ("user-2", "item-9")], "user_id,item_id")
    rows = scored(spark, job, shop,
                  "--set", f"topk.blocked={{path: {blocked}, format: csv}}",
                  "--set", f"topk.allowed={{path: {allowed}, format: csv}}")  # fmt: skip
    assert best not in items_of(rows["user-1"]) and len(items_of(rows["user-1"])) == 3
    assert set(items_of(rows["user-2"])) == {"item-3", "item-9"}
    assert "" not in rows
    assert rows["summary"]["counts"]["topk.blocked"] == {
        "pairs": 4, "of_unknown_items": 1, "without_user": 2,
    }  # fmt: skip

    assert rows["summary"]["counts"]["topk.allowed"] == {
        "pairs": 2, "of_unknown_items": 0, "without_user": 0,
    }  # fmt: skip
    assert "topk.blocked: 4 pairs, 1 of items that nobody knows, 2 without a user" in job.stderr


@pytest.mark.slow
def test_lists_are_made_again_when_the_file_of_blocked_pairs_changes(spark, shop, job, tmp_path) -> None:
    first, second = items_of(scored(spark, job, shop)["user-1"])[:2]
    blocked = write_csv(tmp_path / "blocked.csv", [("user-1", first)], "user_id,item_id")
    rule = ("--set", f"topk.blocked={{path: {blocked}, format: csv}}")
    for _ in range(2):
        found = items_of(scored(spark, job, shop, *rule)["user-1"])
        assert first not in found and second in found
    assert "are there already" in job.stderr
    write_csv(blocked, [("user-1", second)], "user_id,item_id")
    os.utime(blocked, (2_000_000_000, 2_000_000_000))
    found = items_of(scored(spark, job, shop, *rule)["user-1"])
    assert first in found and second not in found


@pytest.mark.slow
def test_no_list_holds_more_of_a_category_than_configured(spark, shop, job) -> None:
    rows = scored(spark, job, shop, "--set", "topk.most_of_category=2", "--set", "topk.k=6")
    for user, row in rows.items():
        if user != "summary":
            low = [int(item[5:]) < N // 2 for item in items_of(row)]
            assert (sum(low), len(low)) == (2, 4)


def test_a_newcomer_gets_what_is_popular_in_her_country(spark, shop, job) -> None:
    row = scored(spark, job, shop)["newcomer"]
    assert row["source"] == "segment"
    assert all(int(item[5:]) % 2 == 1 for item in items_of(row)), "in the north they buy odd items"


@pytest.mark.slow
def test_what_weighs_nothing_is_not_popular_in_a_country_and_makes_no_items_similar(spark, tmp_path, job) -> None:
    """All the north looked at item-0, which is bought in the south alone."""
    north = [f"user-{user}" for user in range(1, N, 2)]
    looks = [(user, "item-0", "2024-02-01 00:00:00", "look") for user in north]
    log = write_csv(
        tmp_path / "log.csv", [(*row, "buy") for row in purchases()] + looks, "customer,product,bought_at,what"
    )
    people = write_csv(tmp_path / "people.csv", [(user, "north") for user in [*north, "newcomer"]], "user,segment")
    config = configuration(
        tmp_path,
        log,
        source=source(log, event="what"),
        features={"events": {"buy": 1.0, "look": 0.0}},
        users={"path": str(people), "format": "csv"},
        als={"rank": 2, "epochs": 1},
    )  # fmt: skip
    job(config, "--run-id", "a", *WHEN, stages=BEFORE)
    row = scored(spark, job, config)["newcomer"]
    assert row["source"] == "segment" and "item-0" not in items_of(row)
    job(config, "--run-id", "knn", *WHEN, "--set", "model.kind=item_knn", stages=("train_als",))
    near = tables(spark, config).read("gold.item_neighbours").where("item_id = 'item-0'").first()
    assert len(items_of(near)) == N // 2 - 1 and not any(int(item[5:]) % 2 for item in items_of(near))


@pytest.mark.slow
def test_event_types_decide_what_is_hidden(spark, tmp_path, job) -> None:
    rows = [(*row, "view" if row[1] == "item-2" else "buy") for row in purchases()]
    log = write_csv(tmp_path / "log.csv", rows, "customer,product,bought_at,what")
    config = configuration(
        tmp_path, log, source=source(log, event="what"), features={"events": {"buy": 1.0, "view": 1.0}}
    )
    job(config, "--run-id", "a", *WHEN, stages=BEFORE)
    found = scored(spark, job, config, "--set", "topk.hide_seen=[buy]", "--set", "topk.k=24")
    seen = items_of(found["user-0"])
    assert "item-2" in seen and set(seen) == {f"item-{i}" for i in range(N) if i % 2 or i in (2, left_out(0))}
    everything = scored(spark, job, config, "--set", "topk.hide_seen=false", "--set", "topk.k=24")
    assert len(items_of(everything["user-0"])) == N
    types = tables(spark, config).read("silver.interactions").select("event_types").distinct().collect()
    assert sorted(row[0] for row in types) == [["buy"], ["view"]]
    other = job(config, *WHEN, "--set", "topk.hide_seen=[gift]", stages=("score_topk",))
    assert other["exit_code"] == 78 and "gift not among the event types" in other["error"]


@pytest.mark.slow
def test_users_of_a_file_get_the_lists_that_the_whole_job_gives_them(spark, shop, job, tmp_path) -> None:
    """By their stored histories, and by the same histories given; a stranger's list is by what the file says of her.

    A newcomer's, of whom only the country is known, is what is popular there.
    """
    whole = scored(spark, job, shop)
    stored = write_csv(tmp_path / "users.csv", [("user-3",), ("user-8",), ("newcomer",)], "user_id")
    pairs = tables(spark, shop).read("silver.interactions").where("user_id = 'user-3'").collect()
    given = write_csv(
        tmp_path / "given.csv",
        [(name, row["item_id"], str(row["weight"])) for name in ("user-3", "stranger") for row in pairs],
        "user_id,item_id,weight",
    )
    by_store = job(shop, "--run-id", "a", *WHEN, "--users", str(stored), stages=("score_topk",))["counts"]["users"]
    by_file = job(shop, "--run-id", "a", *WHEN, "--users", str(given), stages=("score_topk",))["counts"]["users"]
    assert set(by_store) == {"user-3", "user-8", "newcomer"} and set(by_file) == {"user-3", "stranger"}
    assert whole["newcomer"]["source"] == "segment"
    for user, lists in (("user-3", by_store), ("user-8", by_store), ("newcomer", by_store), ("user-3", by_file)):
        assert lists[user] == [item.asDict(recursive=True) for item in whole[user]["items"]]
    assert by_file["stranger"] == by_file["user-3"]
    assert " [/x]" in job.stderr, "people see names, whatever is in them"


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([("x",)], "customer", "no column user_id"),
        ([("", "item-1")], "user_id,item_id", "rows without a user"),
        ([], "user_id", "no user"),
        ([("x", "item-1", "much")], "user_id,item_id,weight", "1 with a weight that is no number from 0 on"),
        (
            [("x", "item-1", w) for w in ("NaN", "-1", "2")],
            "user_id,item_id,weight",
            "2 with a weight that is no number",
        ),
    ],
)
def test_a_file_of_users_that_is_none_is_refused(shop, job, tmp_path, rows, header: str, words: str) -> None:
    file = write_csv(tmp_path / "users.csv", rows, header)
    summary = job(shop, "--run-id", "a", *WHEN, "--users", str(file), stages=("score_topk",))
    assert summary["exit_code"] == 65 and words in summary["error"]


def test_a_model_that_there_is_no_memory_for_is_refused_before_its_factors_are_read(shop, job, monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**28)
    summary = job(shop, "--run-id", "a", *WHEN, "--anew", stages=("score_topk",))
    assert summary["exit_code"] == 78
    assert f"model a: {N} items at rank 2 need 0.7 GB beside the JVM on this machine" in summary["error"]


@pytest.mark.slow
def test_users_of_little_history_get_as_much_of_what_is_popular_as_configured(spark, shop, job) -> None:
    """Everyone has eleven items: fewer than twelve, so that a twelfth of a large weight is the order of popularity."""
    rows = scored(spark, job, shop, "--set", "topk.prior.new_users=1e5", "--set", "topk.prior.min_history=12",
                  "--set", "topk.prior.popularity=popularity")  # fmt: skip
    popularity = {row["item_id"]: row["popularity"] for row in tables(spark, shop).read("gold.item_features").collect()}
    assert rows["user-3"]["source"] == "als+popular" and rows["newcomer"]["source"] == "segment"
    seen = {f"item-{item}" for item in range(1, N, 2) if item != left_out(3)} | {"item-6"}
    best = sorted((popularity[item] for item in set(popularity) - seen), reverse=True)[:3]
    assert [popularity[item] for item in items_of(rows["user-3"])] == best
    rows = scored(spark, job, shop, "--set", "topk.prior.new_users=1e5", "--set", "topk.prior.min_history=11")
    assert rows["user-3"]["source"] == "als" and items_of(rows["user-3"])[0] == f"item-{left_out(3)}"


def test_a_model_that_is_not_there_is_refused(shop, job) -> None:
    summary = job(shop, *WHEN, "--model", "nobody", stages=("score_topk",))
    assert summary["exit_code"] == 65 and "--model nobody" in summary["error"]


@pytest.mark.slow
def test_factors_of_another_rank_than_the_models_are_refused(spark, tmp_path, job) -> None:
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases()))
    job(config, "--run-id", "a", *WHEN, stages=BEFORE)
    table = tables(spark, config).path("gold.item_factors")
    spark.sql(f"UPDATE delta.`{table}` SET factors = slice(factors, 1, 1)")
    summary = job(config, "--run-id", "a", *WHEN, stages=("score_topk",))
    assert summary["exit_code"] == 65 and "have rank 1, its configuration says 2" in summary["error"]


def test_reasons_are_kept_beside_each_listed_item(spark, shop, job) -> None:
    rows = scored(spark, job, shop, "--set", "topk.reasons=2", "--set", "topk.k=1")
    for user in range(N):
        (item,) = rows[f"user-{user}"]["items"]
        assert item["item_id"] == f"item-{left_out(user)}" or left_out(user) == 6
        assert 1 <= len(item["because"]) <= 2
        assert all(int(reason["item_id"][5:]) % 2 == user % 2 for reason in item["because"])
        assert sum(reason["contribution"] for reason in item["because"]) <= item["score"] * 1.01


@pytest.mark.parametrize(("form", "ending"), [("jsonl", "json"), ("parquet", "parquet")])
def test_lists_are_read_without_spark_and_exported_as_files(spark, shop, job, form: str, ending: str) -> None:
    rows = scored(spark, job, shop, "--export", form)
    root = shop.parent / "tables"
    table = deltalake.DeltaTable(root / "gold" / "recommendations").to_pyarrow_table(
        filters=[("model_id", "=", "a")], columns=["user_id", "items"]
    )
    by_delta = {row["user_id"]: [item["item_id"] for item in row["items"]] for row in table.to_pylist()}
    assert by_delta == {user: items_of(row) for user, row in rows.items() if user != "summary"}
    place = Path(rows["summary"]["counts"]["export"])
    assert place.is_relative_to(root)
    lines = []
    for file in sorted(place.glob(f"*.{ending}")):
        read = pq.ParquetFile(file).read().to_pylist() if form == "parquet" else file.read_text().splitlines()
        lines += [line if isinstance(line, dict) else json.loads(line) for line in read]
    assert len(lines) == len(by_delta)
    assert {line["user_id"]: [item["item_id"] for item in line["items"]] for line in lines} == by_delta


def test_polars_and_duckdb_open_the_lists_and_the_pages_loader_takes_them_to_a_store(spark, shop, job) -> None:
    expected = {user: items_of(row) for user, row in scored(spark, job, shop).items() if user != "summary"}
    path = str(shop.parent / "tables/gold/recommendations")
    names = pl.col("items").list.eval(pl.element().struct.field("item_id"))
    by_polars = pl.scan_delta(path).filter(pl.col("model_id") == "a").select("user_id", names).collect()
    assert dict(by_polars.iter_rows()) == expected
    lists = deltalake.DeltaTable(path).to_pyarrow_dataset()
    query = "SELECT user_id, [item.item_id FOR item IN items] FROM lists WHERE model_id = 'a'"
    with duckdb.connect() as connection:
        assert dict(connection.register("lists", lists).sql(query).fetchall()) == expected
    page = (Path(__file__).parents[2] / "docs/scoring.md").read_text(encoding="utf-8")
    loader = page[page.index("```python\n") + 10 :].partition("```")[0]
    store = Store()
    loader = loader.replace("data/demo/gold/recommendations", path).replace('"demo"', '"a"')
    exec(loader, {"store": store})
    assert store.held == {f"recommendations:{user}": items for user, items in expected.items()}


class Store:
    """A key-value store as its client looks."""

    def __init__(self) -> None:
        self.held: dict[str, list[str]] = {}

    def set(self, key: str, value: list[str]) -> None:
        self.held[key] = value


@pytest.mark.slow
def test_similar_items_are_of_one_taste_by_either_measure(spark, shop, job) -> None:
    summary = job(shop, "--run-id", "a", *WHEN, "--similar-items", "--set", "topk.neighbours=4", stages=("score_topk",))
    assert summary["exit_code"] == 0, summary
    rows = tables(spark, shop).read("gold.item_neighbours").collect()
    assert sorted((row["kind"], row["item_id"]) for row in rows) == sorted(
        (kind, f"item-{i}") for kind in ("cosine", "co_occurrence") for i in range(N)
    )
    for row in rows:
        own = int(row["item_id"][5:])
        scores = [item["score"] for item in row["items"]]
        assert len(row["items"]) == 4 and scores == sorted(scores, reverse=True) and max(scores) <= 1.0001
        assert all(int(item[5:]) % 2 == own % 2 and int(item[5:]) not in (own, 6) for item in items_of(row))
    factors = {row["item_index"]: row["factors"] for row in tables(spark, shop).read("gold.item_factors").collect()}
    index = {row["item_id"]: row["item_index"] for row in tables(spark, shop).read("gold.item_ids").collect()}
    unit = {item: np.array(factors[i]) / np.linalg.norm(factors[i]) for item, i in index.items()}
    for row in (row for row in rows if row["kind"] == "cosine"):
        others = unit.keys() - {row["item_id"], "item-6"}  # which is not eligible
        cosines = {item: float(unit[row["item_id"]] @ unit[item]) for item in others}
        assert [item["score"] for item in row["items"]] == pytest.approx(sorted(cosines.values())[:-5:-1], abs=1e-5)
        assert [cosines[item] for item in items_of(row)] == pytest.approx([item["score"] for item in row["items"]])
    bought = {u: {i for i in range(u % 2, N, 2) if i != left_out(u)} for u in range(N)}
    users = [{u for u in range(N) if i in bought[u]} for i in range(N)]
    (near,) = [row for row in rows if (row["kind"], row["item_id"]) == ("co_occurrence", "item-3")]
    for item in near["items"]:
        other = int(item["item_id"][5:])
        both = len(users[3] & users[other])
        assert item["score"] == pytest.approx(both / np.sqrt(len(users[3]) * len(users[other])))


@pytest.mark.slow
def test_a_killed_scoring_goes_on_after_its_last_part_and_ends_at_the_same_lists(spark, shop, job, monkeypatch) -> None:
    whole = scored(spark, job, shop)
    parts = ("--set", "topk.chunk_interactions=100")  # 264 interactions: three parts
    write = Tables.write_slice

    def dies_after_two(self, name: str, *arguments: Any) -> Commit:
        if name == score.PARTS and len(self.commits(name, {})) >= 2:
            raise KeyboardInterrupt
        return write(self, name, *arguments)

    monkeypatch.setattr(Tables, "write_slice", dies_after_two)
    killed = job(shop, "--run-id", "a", *WHEN, *parts, stages=("score_topk",))
    assert killed["exit_code"] == 75
    assert tables(spark, shop).read("gold.recommendations").where("model_id = 'a'").count() == N + 1, "not half a run"
    monkeypatch.setattr(Tables, "write_slice", write)
    again = scored(spark, job, shop, *parts)
    assert "2 of 3 parts are there already" in job.stderr
    for lists in (again, scored(spark, job, shop, *parts, "--anew")):
        assert {u: r for u, r in lists.items() if u != "summary"} == {u: r for u, r in whole.items() if u != "summary"}
        assert tables(spark, shop).read(score.PARTS).count() == 0


@pytest.mark.parametrize("arguments", [(), ("--users", "few.csv"), ("--users=few.csv",)])
def test_a_session_for_a_few_users_is_started_for_seconds(tmp_path, monkeypatch, arguments: tuple[str, ...]) -> None:
    asked = []

    def start(name: str, brief: bool) -> SparkSession:
        asked.append((name, brief))
        raise DependencyError("no session is started here")

    monkeypatch.setattr(runs, "spark_session", start)
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases()))
    monkeypatch.setattr("sys.argv", ["score_topk", "--config", str(config), "--run-id", "few", *arguments])
    assert score.main() == 69
    assert asked == [("recsys score_topk few", bool(arguments))]
