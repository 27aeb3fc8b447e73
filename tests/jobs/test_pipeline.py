import hashlib
import html
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from recsys_spark import memory
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages import als
from recsys_spark.tables import Tables
from tests.jobs.shop import AS_OF, Job, N, configuration, left_out, purchases, source, write_csv

pytestmark = pytest.mark.usefixtures("spark")


@pytest.fixture
def job() -> Job:
    return Job()


@dataclass
class Shop:
    """The shop after a whole pipeline, for tests that only look."""

    config: Path
    summary: dict[str, Any]
    stderr: str


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder, job = tmp_path_factory.mktemp("shop"), Job()
    config = configuration(folder, write_csv(folder / "log.csv", purchases()))
    return Shop(config, job(config, "--run-id", "a", "--as-of", AS_OF.isoformat()), job.stderr)


def tables(spark: SparkSession, config: Path) -> Tables:
    return Tables(spark, str(config.parent / "tables"))


def factors_digest(spark: SparkSession, config: Path, model_id: str) -> str:
    rows = tables(spark, config).read("gold.item_factors").where(f.col("model_id") == model_id)
    found = rows.orderBy("epoch", "item_index").collect()
    assert found
    return hashlib.sha256(np.array([row["factors"] for row in found], np.float32).tobytes()).hexdigest()


def test_a_log_goes_in_and_every_users_planted_next_item_comes_out_first(spark, shop) -> None:
    summary = shop.summary
    assert (summary["run_id"], summary["job"], summary["status"]) == ("a", "pipeline", "ok")
    assert set(summary["seconds"]) == {"spark", "ingest", "build_features", "train_als", "score_topk", "evaluate"}
    assert set(summary["metrics"]) == {"als", "popularity", "popularity_decayed", "adoptions_decayed"}
    assert summary["metrics"]["als"]["ndcg@1"] == 1 > summary["metrics"]["popularity"]["ndcg@1"]
    lists = {row["user_id"]: row for row in tables(spark, shop.config).read("gold.recommendations").collect()}
    assert len(lists) == N
    assert all(lists[f"user-{user}"]["items"][0]["item_id"] == f"item-{left_out(user)}" for user in range(N))
    assert {row["source"] for row in lists.values()} == {"als"}
    assert "popularity_decayed" in shop.stderr, "the comparison is shown to people"
    assert "items move; kept are the factors after epoch 6\n" in shop.stderr
    assert "epoch 6 of 6: objective " in shop.stderr, "progress is seen in a log that nobody watches"


def test_no_list_holds_a_seen_item_and_every_list_is_full_and_in_order(spark, shop) -> None:
    read = tables(spark, shop.config).read
    seen = {(row["user_id"], row["item_id"]) for row in read("silver.interactions").collect()}
    for row in read("gold.recommendations").collect():
        scores = [item["score"] for item in row["items"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        assert not {(row["user_id"], item["item_id"]) for item in row["items"]} & seen


@pytest.mark.slow
def test_the_run_id_given_twice_ends_in_the_same_state(spark, shop, job) -> None:
    second = job(shop.config, "--run-id", "a", "--as-of", AS_OF.isoformat())
    measured = {name: second["outputs"][name] for name in ("gold.metrics", "gold.exposure")}
    assert second["outputs"] == {**shop.summary["outputs"], **measured}
    assert second["metrics"] == shop.summary["metrics"]
    assert tables(spark, shop.config).read("bronze.events").count() == len(purchases())
    assert tables(spark, shop.config).read("gold.metrics").count() == 4 * N


@pytest.mark.slow
@pytest.mark.parametrize("side", ["items", "users"])
def test_an_interrupted_training_goes_on_and_ends_at_the_same_bytes(spark, tmp_path, job, monkeypatch, side) -> None:
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases()))
    moving = ("--as-of", AS_OF.isoformat(), "--set", f"als.moving_side={side}")
    job(config, "--run-id", "whole", *moving, stages=("ingest", "build_features", "train_als"))
    save, save_items, lost = als._save, als._save_items, []

    def dies_after_two(run, data, epoch, note):
        save(run, data, epoch, note)
        if epoch.number == 2:
            raise KeyboardInterrupt

    def loses_a_block_before(run, blocks, *rest):
        if not lost:
            lost.append(blocks.paths[0])
            shutil.rmtree(lost[0])
        save_items(run, blocks, *rest)

    monkeypatch.setattr(als, "_save", dies_after_two)
    killed = job(config, "--run-id", "killed", *moving, stages=("train_als",))
    assert (killed["exit_code"], killed["status"]) == (75, "try_again")
    monkeypatch.setattr(als, "_save", save)
    monkeypatch.setattr(als, "_save_items", loses_a_block_before)
    again = job(config, "--run-id", "killed", *moving, stages=("train_als",))
    assert again["exit_code"] == 0 and "going on after epoch 2 of 6" in job.stderr, again
    assert len(lost) == (side == "users"), "where users move, the items are solved from them at the end"
    assert factors_digest(spark, config, "killed") == factors_digest(spark, config, "whole")


@pytest.mark.slow
def test_a_model_started_from_an_earlier_one_reaches_its_loss_in_fewer_epochs(spark, shop, job) -> None:
    with_latest = ("--as-of", AS_OF.isoformat(), "--set", "als.warm_start=latest", "--set", "als.epochs=1")
    assert job(shop.config, "--run-id", "warm", *with_latest, stages=("train_als",))["exit_code"] == 0
    assert f"starting from model a, which knows {N} of {N} items" in job.stderr
    models = {row["model_id"]: row for row in tables(spark, shop.config).read("gold.models").collect()}
    assert (models["warm"]["started_from"], models["a"]["started_from"]) == ("a", None)
    assert models["warm"]["objective"][0] <= models["a"]["objective"][-1]


@pytest.mark.slow
def test_a_model_to_start_from_that_does_not_fit_is_refused(spark, shop, job) -> None:
    start = ("--run-id", "cold", "--as-of", AS_OF.isoformat(), "--set", "als.warm_start=a")
    other = job(shop.config, *start, "--set", "als.rank=3", stages=("train_als",))
    assert other["exit_code"] == 65 and "a: its rank is 2 and its items moved; this" in other["error"]
    other = job(shop.config, *start, "--set", "als.warm_start=never", stages=("train_als",))
    assert other["exit_code"] == 65 and "als.warm_start: never: " in other["error"]


@pytest.mark.slow
def test_ratings_are_predicted_with_their_baseline(spark, tmp_path, job) -> None:
    """Everyone rates all but two items, her taste 5 and the rest 2: of the two, that of her taste is first, near 5."""
    hidden = {(user, left_out(user)) for user in range(N)} | {(user, (left_out(user) + 3) % N) for user in range(N)}
    rows = [
        (f"user-{user}", f"item-{item}", "5" if (user + item) % 2 == 0 else "2")
        for user in range(N)
        for item in range(N)
        if (user, item) not in hidden
    ]
    log = write_csv(tmp_path / "log.csv", rows, "user,item,stars")
    config = configuration(
        tmp_path,
        log,
        source={"path": str(log), "format": "csv", "columns": {"value": "stars"}},
        features={"value": "multiply", "transform": "mean"},
        als={"objective": "explicit", "rank": 2, "epochs": 12, "regularization": 0.005},
    )
    summary = job(config, "--run-id", "a")
    assert summary["exit_code"] == 0, summary
    read = tables(spark, config).read
    assert read("gold.models").first()["mean"] == pytest.approx(3.5, abs=0.01)
    for row in read("gold.recommendations").collect():
        user = int(row["user_id"].removeprefix("user-"))
        assert [item["item_id"] for item in row["items"]] == [
            f"item-{left_out(user)}",
            f"item-{(left_out(user) + 3) % N}",
        ]
        assert [item["score"] for item in row["items"]] == pytest.approx([5, 2], abs=0.3)
    near = ("--similar-items", "--set", f"topk.neighbours={N - 1}")
    assert job(config, "--run-id", "a", *near, stages=("score_topk",))["exit_code"] == 0
    for row in read("gold.item_neighbours").where("kind = 'cosine'").collect():
        own = int(row["item_id"][5:]) % 2
        scores = {int(item["item_id"][5:]): item["score"] for item in row["items"]}
        alike = [score for item, score in scores.items() if item % 2 == own]
        others = [score for item, score in scores.items() if item % 2 != own]
        assert min(alike) > 0.5 and max(others) < -0.5, "mean and biases say nothing of what is alike"


@pytest.mark.slow
def test_a_run_id_with_another_configuration_or_other_inputs_is_refused(spark, tmp_path, job) -> None:
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases()))
    stages = ("ingest", "build_features", "train_als")
    job(config, "--run-id", "a", "--as-of", AS_OF.isoformat(), stages=stages)
    other = job(config, "--run-id", "a", "--as-of", AS_OF.isoformat(), "--set", "als.rank=5", stages=stages)
    assert other["exit_code"] == 78 and "give a run id of its own" in other["error"]
    train = ("--run-id", "a", "--as-of", AS_OF.isoformat())
    other = job(config, *train, "--set", "model.kind=popularity", stages=("train_als",))
    assert other["exit_code"] == 78 and '"kind": "popularity"' in other["error"]
    assert tables(spark, config).read("gold.models").first()["kind"] == "als"
    job(config, "--run-id", "b", "--as-of", AS_OF.isoformat(), "--set", "features.half_life=9d", stages=stages[:2])
    other = job(config, *train, stages=("train_als",))
    assert other["exit_code"] == 78 and re.search(r'trained before from .*"interactions": \d', other["error"])


def test_a_training_that_there_is_no_memory_for_is_refused_before_it_starts(spark, shop, job, monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**28)
    summary = job(shop.config, "--run-id", "large", "--as-of", AS_OF.isoformat(), stages=("train_als",))
    assert summary["exit_code"] == 78
    assert re.search(rf"als\.rank: 2: {N} moving items at this rank need \d\.\d GB beside the JVM", summary["error"])
    assert tables(spark, shop.config).read("gold.item_factors").where("model_id = 'large'").isEmpty()


@pytest.mark.slow
def test_shuffled_rows_give_the_same_features_and_the_same_factors_to_the_byte(spark, tmp_path, job) -> None:
    seen = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        config = configuration(
            folder, write_csv(folder / "log.csv", purchases(), seed=seed), features={"half_life": "30d"}
        )
        job(
            config,
            "--run-id",
            "a",
            "--as-of",
            AS_OF.isoformat(),
            stages=("ingest", "build_features", "train_als"),
        )
        read = tables(spark, config).read
        features = [sorted(map(tuple, read(name).collect())) for name in ("silver.interactions", "gold.item_features")]
        seen.append((features, factors_digest(spark, config, "a")))
    assert seen[0] == seen[1]


@pytest.mark.slow
def test_either_moving_side_finds_the_planted_items(spark, shop, job) -> None:
    other = job(shop.config, "--run-id", "b", "--as-of", AS_OF.isoformat(), "--set", "als.moving_side=users")
    assert other["metrics"]["als"]["ndcg@1"] == 1
    models = {row["model_id"]: row for row in tables(spark, shop.config).read("gold.models").collect()}
    assert (models["a"]["moving_side"], models["b"]["moving_side"]) == ("items", "users")
    assert models["a"]["objective"] == sorted(models["a"]["objective"], reverse=True)


@pytest.mark.slow
def test_only_the_last_and_every_nth_epoch_are_kept(spark, tmp_path, job) -> None:
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases()))
    job(config, "--run-id", "a", "--as-of", AS_OF.isoformat(), "--set", "als.keep_every=2", "--set", "als.epochs=5",
        stages=("ingest", "build_features", "train_als"))  # fmt: skip
    epochs = tables(spark, config).read("gold.item_factors").select("epoch").distinct().collect()
    assert sorted(row["epoch"] for row in epochs) == [2, 4, 5]
    assert "kept are the factors after epoch 2, 4, 5" in job.stderr


@pytest.mark.slow
def test_training_ends_where_an_epoch_improves_too_little(spark, shop, job) -> None:
    early = ("--as-of", AS_OF.isoformat(), "--run-id", "early", "--set", "als.epochs=50", "--set", "als.tolerance=0.01")
    assert job(shop.config, *early, stages=("train_als",))["exit_code"] == 0
    (model,) = tables(spark, shop.config).read("gold.models").where("model_id = 'early'").collect()
    falls = -np.diff(model["objective"]) / model["objective"][:-1]
    assert 2 < model["epochs"] == len(model["objective"]) < 50 and falls[-1] < 0.01 <= falls[:-1].min()
    assert job(shop.config, *early, stages=("train_als",))["exit_code"] == 0
    assert "model early is trained already" in job.stderr


@pytest.mark.slow
def test_a_log_of_which_nothing_weighs_is_an_error_of_the_data(tmp_path, job) -> None:
    features = {"value": "threshold", "value_threshold": 10.0}
    log = write_csv(tmp_path / "log.csv", [(*row, "1") for row in purchases()], "customer,product,bought_at,units")
    config = configuration(tmp_path, log, features=features, source=source(log, value="units"))
    summary = job(config, "--run-id", "a", "--as-of", AS_OF.isoformat(), stages=("ingest", "build_features"))
    assert summary["exit_code"] == 0
    summary = job(config, "--run-id", "a", "--as-of", AS_OF.isoformat(), stages=("train_als",))
    assert summary["exit_code"] == 65 and "no pair is left to train on" in summary["error"]


@pytest.mark.slow
def test_a_run_without_events_to_come_skips_the_evaluation_and_says_so(spark, tmp_path, job) -> None:
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases()))
    summary = job(config, "--run-id", "night")
    assert summary["exit_code"] == 0 and summary["metrics"] == {}
    assert "skipped" in job.stderr
    slices = tables(spark, config).read("gold.recommendations").select("as_of").distinct().collect()
    assert [row["as_of"].isoformat() for row in slices] == ["2024-03-02T00:23:01"]


@pytest.mark.slow
def test_who_is_cut_from_the_core_is_served_by_what_of_it_she_has_or_else_by_the_popular(spark, tmp_path, job) -> None:
    some = [("casual", f"item-{item}", "2024-02-01 00:00:00") for item in (4, 8)]
    rows = [*purchases(), *some, ("newcomer", "oddity", "2024-02-01 00:00:00")]
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", rows), features={"k_core": 3})
    job(config, "--run-id", "a", "--as-of", AS_OF.isoformat())
    read = tables(spark, config).read
    lists = {row["user_id"]: row for row in read("gold.recommendations").collect()}
    assert lists["newcomer"]["source"] == "popular" and len(lists["newcomer"]["items"]) == 3
    assert lists["user-1"]["source"] == lists["casual"]["source"] == "als"
    assert all(int(item["item_id"][5:]) % 2 == 0 for item in lists["casual"]["items"])
    out = {row["user_id"] for row in read("silver.interactions").where("not core").collect()}
    assert out == {"newcomer", "casual"}
    popularity = {row["item_id"]: row["popularity"] for row in read("gold.item_features").collect()}
    best = sorted(popularity.values(), reverse=True)[:3]
    assert [popularity[item["item_id"]] for item in lists["newcomer"]["items"]] == best


@pytest.mark.slow
def test_a_published_split_is_compared_with_its_test_file(spark, tmp_path, job) -> None:
    rows = [row[:2] for row in purchases() if row[2] < f"{AS_OF:%Y-%m-%d}"]
    test = [row[:2] for row in purchases() if row[2] >= f"{AS_OF:%Y-%m-%d}"]
    train_file = write_csv(tmp_path / "train.csv", rows, "user,item")
    config = configuration(
        tmp_path,
        train_file,
        source={"path": str(train_file), "format": "csv"},
        holdout={"path": str(write_csv(tmp_path / "test.csv", test, "user,item"))},
        evaluation={"k": [1, 3], "report": True},
    )
    summary = job(config, "--run-id", "a", "--set", "als.epochs=12")
    assert summary["metrics"]["als"]["recall@1"] == 1
    assert summary["counts"]["evaluated_users"] == N
    page = Path(summary["counts"]["report"]).read_text(encoding="utf-8")
    assert "shop · as of its holdout · run a" in page and "Events by day" not in page
    query = html.unescape(page.partition('id="query-data"')[2].partition("<code>")[2].partition("</code>")[0])
    lines = {(row["measure"], row["key"]): row["value"] for row in spark.sql(query).collect()}
    assert "as_of IS NULL" in query and lines["events", None] == len(rows)


@pytest.mark.slow
def test_a_random_holdout_is_never_trained_on(spark, tmp_path, job) -> None:
    log = write_csv(tmp_path / "log.csv", purchases())
    config = configuration(tmp_path, log, holdout={"random": 0.25, "seed": 3})
    summary = job(config, "--run-id", "a")
    held = tables(spark, config).read("gold.metrics").where("model = 'als'").agg(f.sum("relevant")).first()[0]
    assert tables(spark, config).read("silver.interactions").count() == len(purchases()) - held
    assert held == N * 3, "a quarter of twelve items a user"
    assert summary["counts"]["evaluated_users"] == N
    other = job(config, "--run-id", "b", "--model", "a", "--set", "holdout.seed=4", stages=("evaluate",))
    assert other["exit_code"] == 65 and "it may know what it should predict" in other["error"]


def test_a_file_that_was_delivered_again_with_other_rows_replaces_its_old_ones(spark, tmp_path, job) -> None:
    log = write_csv(tmp_path / "log.csv", purchases())
    config = configuration(tmp_path, log)
    job(config, "--run-id", "a", stages=("ingest",))
    write_csv(log, [*purchases(), ("user-0", "item-99", "2024-01-01 00:00:00")])
    os.utime(log, (2_000_000_000, 2_000_000_000))
    job(config, "--run-id", "b", stages=("ingest",))
    bronze = tables(spark, config).read("bronze.events")
    assert bronze.count() == len(purchases()) + 1
    assert bronze.select("_file", "_line").distinct().count() == len(purchases()) + 1


def test_a_file_that_is_corrected_to_its_header_alone_leaves_no_row(spark, tmp_path, job) -> None:
    (tmp_path / "log").mkdir()
    write_csv(tmp_path / "log" / "1.csv", purchases())
    wrong = write_csv(tmp_path / "log" / "2.csv", [("user-0", "item-99", "2024-01-01 00:00:00")])
    config = configuration(tmp_path, tmp_path / "log")
    for rows in (len(purchases()) + 1, len(purchases())):
        assert job(config, "--run-id", "a", stages=("ingest",))["exit_code"] == 0
        assert tables(spark, config).read("bronze.events").count() == rows
        write_csv(wrong, [])
        os.utime(wrong, (2_000_000_000, 2_000_000_000))


ERRORS = {
    "an unknown key": (["--set", "als.ranks=3"], 78, "als.ranks: unknown key"),
    "a value out of bounds": (
        ["--set", "als.rank=0"],
        78,
        "als.rank: 0: input should be greater than or equal to 1",
    ),
    "a missing file": (["--set", "source.path=/nowhere/log.csv"], 65, "/nowhere/log.csv"),
    "a missing column": (["--set", "source.columns.user=buyer"], 65, "buyer"),
    "an as_of before all data": (["--as-of", "2001-01-01"], 65, "2001-01-01"),
    "a root that cannot be written": (
        ["--set", "storage.root=/proc/tables"],
        78,
        "storage.root: /proc/tables",
    ),
    "a root that does not answer": (
        ["--set", "storage.root=hdfs://no.such.host.invalid:1/tables"],
        69,
        "storage.root: hdfs://no.such.host.invalid:1/tables: storage cannot be reached",
    ),
    "a root that refuses connections": (
        ["--set", "storage.root=hdfs://127.0.0.1:1/tables"],
        69,
        "storage.root: hdfs://127.0.0.1:1/tables: storage cannot be reached",
    ),
    "a filter that does not parse": (["--set", "source.filters={odd: 'product ><'}"], 78, "odd"),
    "an override without value": (["--set", "als.rank"], 64, "write it as key=value"),
    "an unknown argument": (["--speed", "9"], 64, "--help"),
    "a run id with a slash": (["--run-id", "a/b"], 64, "--run-id 'a/b'"),
    "a run id above the root": (["--run-id", "../a"], 64, "--run-id '../a'"),
    "a run id that is SQL": (["--run-id", "a' OR '1'='1"], 64, "letters, digits and"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_is_one_line_with_its_exit_code_and_nothing_is_written(spark, tmp_path, job, what: str) -> None:
    arguments, code, words = ERRORS[what]
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases()))
    summary = job(config, *arguments)
    assert summary["exit_code"] == code
    assert words in summary["error"]
    assert len(job.stderr.strip().splitlines()) <= 2 and "Traceback" not in job.stderr
    assert not (tmp_path / "tables").exists()


def test_a_missing_configuration_names_the_file(job, tmp_path) -> None:
    summary = job(tmp_path / "no.yaml")
    assert (summary["exit_code"], summary["run_id"] is not None) == (78, True)
    assert "no.yaml: no such configuration file" in summary["error"]
    assert json.loads(json.dumps(summary)) == summary


def test_commits_that_wrote_no_slice_are_none_of_any(spark, tmp_path) -> None:
    """A property that was set, a VACUUM, an OPTIMIZE have no note of ours."""
    own, nothing = Tables(spark, str(tmp_path)), spark.createDataFrame([], SCHEMAS["silver.quarantine"])
    written = own.write_slice("silver.quarantine", nothing, {})
    spark.sql(f"ALTER TABLE delta.`{own.path('silver.quarantine')}` SET TBLPROPERTIES ('delta.appendOnly' = 'false')")
    assert own.version("silver.quarantine") == written.version + 1
    assert [commit.version for commit in own.commits("silver.quarantine", {})] == [written.version]


def test_nothing_in_the_place_of_nothing_is_written_though_delta_has_nothing_to_commit(spark, tmp_path) -> None:
    """silver.quarantine of a log without refused rows, built again under another configuration."""
    empty = spark.createDataFrame([], SCHEMAS["silver.quarantine"])
    written = [Tables(spark, str(tmp_path)).write_slice("silver.quarantine", empty, {}).version for _ in range(3)]
    assert written == sorted(written)
    assert Tables(spark, str(tmp_path)).read("silver.quarantine", written[-1]).count() == 0
