"""Baselines are models: trained, scored and evaluated by the same jobs; and moments in a row are a backtest."""

from pathlib import Path

import pytest

from recsys_spark.tables import Tables
from tests.jobs.shop import AS_OF, Job, N, configuration, left_out, purchases, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory) -> Path:
    folder, job = tmp_path_factory.mktemp("baselines"), Job()
    config = configuration(
        folder, write_csv(folder / "log.csv", purchases()), evaluation={"k": [1, 3], "report": False, "horizon": "10d"}
    )
    assert job(config, "--run-id", "a", *WHEN, stages=("ingest", "build_features"))["exit_code"] == 0
    return config


def test_item_knn_is_trained_and_finds_what_is_planted(spark, shop) -> None:
    job = Job()
    stages = ("train_als", "score_topk", "evaluate")
    summary = job(shop, "--run-id", "knn", *WHEN, "--set", "model.kind=item_knn", stages=stages)
    assert summary["exit_code"] == 0, summary
    assert summary["metrics"]["item_knn"]["ndcg@1"] == 1
    tables = Tables(spark, str(shop.parent / "tables"))
    model = tables.read("gold.models").where("model_id = 'knn'").first()
    assert (model["kind"], model["status"], set(model["inputs"])) == (
        "item_knn", "trained", {"silver.interactions", "gold.item_ids"},
    )  # fmt: skip
    lists = tables.read("gold.recommendations").where("model_id = 'knn'").collect()
    assert {row["user_id"]: row["items"][0]["item_id"] for row in lists} == {
        f"user-{user}": f"item-{left_out(user)}" for user in range(N)
    }
    assert {row["source"] for row in lists} == {"item_knn"}


def test_a_baseline_that_is_named_is_compared_and_a_first_champion_has_to_beat_it(spark, shop) -> None:
    """Neighbours find what is planted, so nothing can beat them, however far it is above the popular."""
    job = Job()
    frequent = ("--set", "model.kind=frequent")  # own items alone, which are hidden: then come the popular
    for run_id, kind in (("near", ("--set", "model.kind=item_knn")), ("often", frequent)):
        assert job(shop, "--run-id", run_id, *WHEN, *kind, stages=("train_als",))["exit_code"] == 0
    assert job(shop, "--run-id", "first", *WHEN, stages=("train_als", "score_topk"))["exit_code"] == 0
    beside = ("--baseline", "near", "--baseline", "often", "--promote", "--set", "gate.guards={}")
    judged = job(shop, "--run-id", "first", *WHEN, *beside, stages=("evaluate",))
    assert judged["exit_code"] == 0, judged
    assert judged["metrics"]["item_knn near"]["ndcg@1"] == judged["metrics"]["als"]["ndcg@1"] == 1
    gate = judged["counts"]["gate"]
    assert gate["compared_with"] == "item_knn near" and not gate["promoted"]
    assert any(reason.startswith("ndcg@1 is better than that of frequent often: ") for reason in gate["reasons"])
    rows = (
        Tables(spark, str(shop.parent / "tables")).read("gold.comparisons").where("comparison_id = 'first'").collect()
    )
    beside_it = [row for row in rows if row["champion"] != "item_knn near"]
    assert {row["champion"] for row in beside_it} == {
        "frequent often", "popularity", "popularity_decayed", "adoptions_decayed",
    }  # fmt: skip
    assert {(row["metric"], row["segment"]) for row in beside_it} == {("ndcg@1", "all users")}
    itself = job(shop, "--run-id", "x", *WHEN, "--model", "near", "--baseline", "near", stages=("evaluate",))
    assert itself["exit_code"] == 65 and "--baseline near" in itself["error"]


def test_moments_in_a_row_are_each_trained_on_their_past_alone(spark, shop, tmp_path) -> None:
    """Two moments ten days apart: at the first, nothing of what is left out until then has happened."""
    job = Job()
    plot = tmp_path / "time.svg"
    summary = job(shop, "--run-id", "back", *WHEN, "--moments", "2", "--plot", str(plot), stages=("backtest",))
    assert summary["exit_code"] == 0, summary
    tables = Tables(spark, str(shop.parent / "tables"))
    rows = tables.read("gold.backtests").where("metric = 'ndcg@1'").orderBy("as_of").collect()
    assert [row["as_of"].isoformat() for row in rows] == ["2024-02-20T00:00:00", "2024-03-01T00:00:00"]
    assert rows[1]["challenger_mean"] == 1 > rows[1]["champion_mean"]
    assert rows[1]["low"] <= rows[1]["difference"] <= rows[1]["high"]
    slices = tables.read("silver.interactions").groupBy("as_of").agg({"last_time": "max"}).collect()
    assert all(row[1] < row[0] for row in slices)
    assert "<svg" in plot.read_text()
