"""People come back: seen items are listed among new ones, and judged apart from them."""

import datetime as dt
from pathlib import Path

import pytest

from recsys_spark.tables import Tables
from tests.jobs.shop import AS_OF, Job, N, configuration, left_out, purchases, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())
AGAIN = {"topk": {"k": 3, "hide_seen": False}, "evaluation": {"k": [1, 3], "new_items_only": False, "report": False}}


def favourite(user: int) -> int:
    return (left_out(user) + 2) % N


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory) -> Path:
    """Everyone buys a favourite every third day, before as_of and after it."""
    folder, job = tmp_path_factory.mktemp("repeats"), Job()
    rows = purchases()
    for user in range(N):
        for day in (*range(-30, 0, 3), 2):
            moment = AS_OF + dt.timedelta(days=day, minutes=user)
            rows.append((f"user-{user}", f"item-{favourite(user)}", f"{moment:%Y-%m-%d %H:%M:%S}"))
    config = configuration(folder, write_csv(folder / "log.csv", rows), **AGAIN)
    assert job(config, "--run-id", "a", *WHEN, stages=("ingest", "build_features", "train_als"))["exit_code"] == 0
    return config


def scored(spark, config: Path, run_id: str, *arguments: str) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Lists by user, and the model's means."""
    job = Job()
    for stage in ("score_topk", "evaluate"):
        done = job(config, "--run-id", run_id, *WHEN, "--model", "a", *arguments, stages=(stage,))
        assert done["exit_code"] == 0, done
    rows = Tables(spark, str(config.parent / "tables")).read("gold.recommendations").where("model_id = 'a'").collect()
    return {row["user_id"]: [item["item_id"] for item in row["items"]] for row in rows}, done["metrics"]["als"]


def test_a_favourite_comes_first_and_what_is_new_is_judged_apart(spark, shop) -> None:
    lists, means = scored(spark, shop, "b", "--set", "topk.repeat_weight=5")
    assert all(lists[f"user-{user}"][0] == f"item-{favourite(user)}" for user in range(N))
    assert means["repeated_ndcg@1"] == means["ndcg@1"] == 1
    assert means["new_ndcg@1"] == 0, "the first place is the favourite's"


def test_a_list_of_what_to_buy_again_has_nothing_else(spark, shop) -> None:
    lists, means = scored(spark, shop, "d", "--set", "topk.repeat_weight=5", "--set", "topk.repeat_prior=30d",
                          "--set", "topk.only_seen=true")  # fmt: skip
    assert all(lists[f"user-{user}"][0] == f"item-{favourite(user)}" for user in range(N))
    others = [user for user in range(N) if left_out(user) != favourite(user)]
    assert not any(f"item-{left_out(user)}" in lists[f"user-{user}"] for user in others)
    assert means["repeated_ndcg@1"] == 1


def test_with_seen_items_hidden_only_new_ones_are_found(spark, shop) -> None:
    lists, means = scored(spark, shop, "c", "--set", "topk.hide_seen=true", "--set", "topk.repeat_weight=5")
    assert all(lists[f"user-{user}"][0] == f"item-{left_out(user)}" for user in range(N))
    assert means["new_ndcg@1"] == 1 and means["repeated_ndcg@1"] == 0


def test_own_frequent_items_are_a_model_to_beat(spark, shop) -> None:
    job = Job()
    kind = ("--set", "model.kind=frequent")
    done = job(shop, "--run-id", "own", *WHEN, *kind, stages=("train_als", "score_topk", "evaluate"))
    assert done["metrics"]["frequent"]["repeated_ndcg@1"] == 1
