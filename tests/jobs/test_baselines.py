"""Baselines are models: trained, scored and evaluated by the same jobs; and moments in a row are a backtest."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recsys_spark.tables import Tables
from tests.jobs.shop import AS_OF, Job, N, configuration, left_out, purchases, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())
THROUGH = ("train_als", "score_topk", "evaluate")


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
    summary = job(shop, "--run-id", "knn", *WHEN, "--set", "model.kind=item_knn", stages=THROUGH)
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


def test_similarities_of_item_knn_are_shrunk_as_the_dense_formula_says(spark, tmp_path) -> None:
    rng, shrinkage, nearest = np.random.default_rng(1), 7.5, 4
    matrix = rng.random((40, 12)) < rng.uniform(0.1, 0.9, 12)
    rows = [(f"user-{user}", f"item-{item}", "2024-01-05 00:00:00") for user, item in np.argwhere(matrix)]
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", rows))
    knn = ("model.kind=item_knn", f"model.shrinkage={shrinkage}", f"model.neighbours={nearest}")
    arguments = [part for setting in knn for part in ("--set", setting)]
    summary = Job()(config, "--run-id", "knn", *WHEN, *arguments, stages=("ingest", "build_features", "train_als"))
    assert summary["exit_code"] == 0, summary

    both = matrix.T.astype(np.int64) @ matrix
    alone = both.diagonal()
    tables = Tables(spark, str(tmp_path / "tables"))
    index = {row["item_id"]: row["item_index"] for row in tables.read("gold.item_ids").collect()}

    def expected(item: int, shrinkage: float) -> list[tuple[str, float]]:
        scores = (both[item] / (np.sqrt(alone[item] * alone) + shrinkage)).astype(np.float32)
        others = [(f"item-{other}", float(scores[other])) for other in np.flatnonzero(both[item]) if other != item]
        return sorted(others, key=lambda other: (-other[1], index[other[0]]))[:nearest]

    found = {row["item_id"]: row["items"] for row in tables.read("gold.item_neighbours").collect()}
    shrunk, plain = ({f"item-{item}": expected(item, by) for item in range(12)} for by in (shrinkage, 0.0))
    assert {item: [tuple(near) for near in items] for item, items in found.items()} == shrunk
    names = ({item: [name for name, _ in near] for item, near in these.items()} for these in (shrunk, plain))
    assert next(names) != next(names), "what is rare is near to less than without shrinkage"


def had(tables: Tables) -> set[tuple[str, str]]:
    """Who had what before AS_OF."""
    rows = tables.read_slice("silver.interactions", {"as_of": AS_OF}).collect()
    return {(row["user_id"], row["item_id"]) for row in rows}


def test_popularity_as_a_model_lists_what_the_popular_list_does(spark, shop) -> None:
    summary = Job()(shop, "--run-id", "popular", *WHEN, "--set", "model.kind=popularity", stages=THROUGH)
    assert summary["exit_code"] == 0, summary
    assert summary["metrics"]["popularity, trained"] == summary["metrics"]["popularity"]
    assert summary["metrics"]["popularity"] != summary["metrics"]["adoptions_decayed"]
    tables = Tables(spark, str(shop.parent / "tables"))
    past = had(tables)
    users = Counter(item for _, item in past)
    for row in tables.read("gold.recommendations").where("model_id = 'popular'").collect():
        listed = [item["item_id"] for item in row["items"]]
        open_to = sorted((users[item] for item in users if (row["user_id"], item) not in past), reverse=True)
        assert [users[item] for item in listed] == open_to[:3] and not {
            (row["user_id"], item) for item in listed
        } & past


def test_chance_as_a_model_is_the_same_for_the_same_seed_and_finds_what_chance_does(spark, shop) -> None:
    job, tables = Job(), Tables(spark, str(shop.parent / "tables"))
    chance = ("--set", "model.kind=random")

    def lists(run_id: str, *arguments: str) -> dict[str, list[str]]:
        assert job(shop, "--run-id", run_id, *WHEN, *chance, *arguments, stages=THROUGH[:2])["exit_code"] == 0
        rows = tables.read("gold.recommendations").where(f"model_id = '{run_id}'").collect()
        assert {row["source"] for row in rows} == {"random"}
        return {row["user_id"]: [item["item_id"] for item in row["items"]] for row in rows}

    listed = lists("chance")
    assert lists("chance-again") == listed != lists("another", "--set", "model.seed=7")
    assert len(listed) == N and all(len(set(items)) == 3 for items in listed.values())
    assert not {(user, item) for user, items in listed.items() for item in items} & had(tables)
    found = job(shop, "--run-id", "chance", *WHEN, *chance, stages=("evaluate",))["metrics"]["random"]
    hits = sum(f"item-{left_out(int(user[5:]))}" in items for user, items in listed.items())
    assert found["hit_rate@3"] == hits / N < 0.6, "3 of the 13 items that a user has not had, one of them wanted"
    assert found["coverage@3"] == len({item for items in listed.values() for item in items}) / N


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


def test_moments_of_a_log_whose_items_are_new_in_between_rank_them_too(spark, tmp_path) -> None:
    """Nothing is built before: the dictionary grows from moment to moment, by an item that everyone then buys."""
    early = [row for row in purchases() if row[2] < "2024-02-20"]
    late = [(f"user-{user}", "item-new", f"2024-02-25 00:00:{user:02}") for user in range(N // 2)]
    after = [(f"user-{user}", "item-new", f"2024-03-02 00:00:{user:02}") for user in range(N // 2, N)]
    config = configuration(
        tmp_path,
        write_csv(
            tmp_path / "log.csv", [*early, ("user-0", f"item-{left_out(0)}", "2024-02-21 00:00:00"), *late, *after]
        ),
        evaluation={"k": [1, 3], "horizon": "10d"},
    )
    job = Job()
    assert job(config, "--run-id", "a", stages=("ingest",))["exit_code"] == 0
    summary = job(config, "--run-id", "back", *WHEN, "--moments", "2", stages=("backtest",))
    assert summary["exit_code"] == 0, summary["error"]
    lists = Tables(spark, str(tmp_path / "tables")).read("gold.recommendations")
    listed = lists.where("model_id LIKE 'back-%' AND exists(items, item -> item.item_id = 'item-new')")
    assert {row["model_id"] for row in listed.select("model_id").distinct().collect()} == {"back-20240301T0000"}


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
