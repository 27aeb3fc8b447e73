"""Spectral and blended models through the jobs: trained, gone on with, rebuilt, scored, evaluated, neighboured."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from recsys_spark.spectral import trainer
from recsys_spark.stages import train
from recsys_spark.tables import Tables
from tests.jobs.shop import AS_OF, Job, N, configuration, left_out, purchases, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())
SECTIONS = {"spectral": {"rank": 2, "tolerance": 1e-4}, "model": {"kind": "blend"}}


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory) -> Path:
    folder, job = tmp_path_factory.mktemp("spectral"), Job()
    config = configuration(folder, write_csv(folder / "log.csv", purchases()), **SECTIONS)
    assert job(config, "--run-id", "a", *WHEN, stages=("ingest", "build_features", "train_als"))["exit_code"] == 0
    return config


def tables(spark, config: Path) -> Tables:
    return Tables(spark, str(config.parent / "tables"))


def digest(spark, config: Path, model_id: str) -> str:
    rows = tables(spark, config).read("gold.item_vectors").where(f"model_id = '{model_id}'").orderBy("item_index")
    vectors = np.array([row["vector"] for row in rows.collect()], np.float32)
    assert vectors.shape == (N, 2)
    return hashlib.sha256(vectors.tobytes()).hexdigest()


def lists(spark, config: Path, run_id: str, *arguments: str) -> dict[str, list[str]]:
    job = Job()
    scored = job(config, "--run-id", run_id, *WHEN, "--model", "a", *arguments, stages=("score_topk",))
    assert scored["exit_code"] == 0, scored
    rows = tables(spark, config).read("gold.recommendations").where("model_id = 'a'").collect()
    assert {row["source"] for row in rows} == {"blend"}
    return {row["user_id"]: [item["item_id"] for item in row["items"]] for row in rows}


def test_a_blend_has_both_kinds_of_factors_and_finds_what_was_left_out(spark, shop) -> None:
    found = lists(spark, shop, "b")
    assert len(found) == N
    assert all(found[f"user-{user}"][0] == f"item-{left_out(user)}" for user in range(N))
    (model,) = tables(spark, shop).read("gold.models").where("model_id = 'a'").collect()
    assert (model["kind"], model["epochs"]) == ("blend", 6)
    first, *rest = model["spectral_change"]
    assert first is None and rest[-1] <= 1e-4 < min(rest[:-1]), "it ends by the tolerance, and no sooner"
    assert len(model["spectral_seconds"]) == 1 + len(rest) and min(model["spectral_seconds"]) > 0
    assert tables(spark, shop).read("gold.spectral_steps").count() == 0, "steps are for going on only"


def test_a_spectral_run_id_is_of_its_own_side_and_blocks(shop) -> None:
    job, asked = Job(), ("--run-id", "own", *WHEN, "--set", "model.kind=spectral")
    assert job(shop, *asked, stages=("train_als",))["exit_code"] == 0
    for other in ("als.moving_side=users", "als.min_blocks=3", "als.block_interactions=7"):
        assert job(shop, *asked, "--set", other, stages=("train_als",))["exit_code"] == 78, other
    assert job(shop, *asked, "--set", "als.rank=9", stages=("train_als",))["exit_code"] == 0, "no part of it"


def test_a_blend_of_weight_nothing_lists_what_als_does(spark, shop) -> None:
    job = Job()
    assert job(shop, "--run-id", "als", *WHEN, "--set", "model.kind=als", stages=("train_als",))["exit_code"] == 0
    blended = lists(spark, shop, "c", "--set", "topk.spectral.weight=0")
    assert job(shop, "--run-id", "d", *WHEN, "--model", "als", stages=("score_topk",))["exit_code"] == 0
    model = tables(spark, shop).read("gold.models").where("model_id = 'als'").first()
    assert model["spectral_change"] is model["spectral_seconds"] is None
    alone = tables(spark, shop).read("gold.recommendations").where("model_id = 'als'").collect()
    assert blended == {row["user_id"]: [item["item_id"] for item in row["items"]] for row in alone}


def test_reasons_of_a_blend_are_of_the_user_s_taste(spark, shop) -> None:
    lists(spark, shop, "e", "--set", "topk.reasons=3")
    for row in tables(spark, shop).read("gold.recommendations").where("model_id = 'a'").collect():
        parity = int(row["user_id"][5:]) % 2
        because = [reason["item_id"] for reason in row["items"][0]["because"]]
        assert because and all(int(item[5:]) % 2 == parity for item in because)


@pytest.mark.parametrize("moving", ["items", "users"])
def test_a_killed_run_goes_on_after_its_last_step_to_the_same_bytes(spark, shop, monkeypatch, moving) -> None:
    job = Job()
    kind = ("--set", "model.kind=spectral", "--set", f"als.moving_side={moving}")
    whole = job(shop, "--run-id", f"whole-{moving}", *WHEN, *kind, stages=("train_als",))
    assert whole["exit_code"] == 0, whole
    passes = 0
    product_pass = trainer.product_pass

    def failing(block, argument):
        raise OSError("the disk is gone")

    total = trainer.Blocks.total

    def counted(blocks, task, *rest):
        nonlocal passes
        passes += task is product_pass
        return total(blocks, failing if passes == 3 else task, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Blocks, "total", counted)
        killed = job(shop, "--run-id", f"killed-{moving}", *WHEN, *kind, stages=("train_als",))
    assert killed["exit_code"] != 0
    steps = tables(spark, shop).read("gold.spectral_steps").where(f"model_id = 'killed-{moving}'")
    assert steps.select("step").distinct().count() == 2
    again = job(shop, "--run-id", f"killed-{moving}", *WHEN, *kind, stages=("train_als",))
    assert again["exit_code"] == 0 and "going on after step 2" in job.stderr
    assert digest(spark, shop, f"killed-{moving}") == digest(spark, shop, f"whole-{moving}")
    ours, other = (
        tables(spark, shop).read("gold.models").where(f"model_id = '{name}-{moving}'").first()
        for name in ("killed", "whole")
    )
    assert ours["spectral_change"] == other["spectral_change"], "it tells of the steps before it was killed, too"
    assert len(ours["spectral_seconds"]) == len(other["spectral_seconds"]) > 2


def test_a_run_that_ended_between_its_vectors_and_its_row_tells_of_its_steps(spark, shop, monkeypatch) -> None:
    job, asked, told = Job(), ("--run-id", "between", *WHEN, "--set", "model.kind=spectral"), []

    def dies(*_, **found):
        told.append(found)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "register", dies)
        assert job(shop, *asked, stages=("train_als",))["exit_code"] == 75
    assert job(shop, *asked, stages=("train_als",))["exit_code"] == 0
    model = tables(spark, shop).read("gold.models").where("model_id = 'between'").first()
    assert len(model["spectral_change"]) > 2
    for column in ("spectral_change", "spectral_seconds"):
        assert model[column] == told[0][column], "of the steps that the earlier try made"


def test_another_configuration_under_the_same_run_id_is_refused(spark, shop) -> None:
    other = Job()(shop, "--run-id", "a", *WHEN, "--set", "spectral.rank=3", stages=("train_als",))
    assert other["exit_code"] == 78 and "trained before" in other["error"]


def test_a_blend_is_rebuilt_to_the_byte(spark, shop) -> None:
    job = Job()
    rebuilt = job(shop, "--run-id", "again", "--rebuild", "a", stages=("train_als",))
    assert rebuilt["exit_code"] == 0, rebuilt
    assert "model again is model a to the byte" in job.stderr
    assert digest(spark, shop, "again") == digest(spark, shop, "a")


def test_a_rank_beyond_the_items_is_refused(spark, shop) -> None:
    refused = Job()(shop, "--run-id", "wide", *WHEN, "--set", "spectral.rank=24", stages=("train_als",))
    assert refused["exit_code"] == 78 and "spectral.rank: 24" in refused["error"]


def test_similar_items_and_evaluation_know_the_kinds(spark, shop) -> None:
    job = Job()
    near = job(shop, "--run-id", "near", *WHEN, "--model", "whole-items", "--similar-items", stages=("score_topk",))
    assert near["exit_code"] == 0 and near["counts"]["items_by_cosine"] == N
    judged = job(shop, "--run-id", "judged", *WHEN, "--model", "a", stages=("evaluate",))
    assert judged["exit_code"] == 0, judged
    assert judged["metrics"]["blend"]["ndcg@1"] == pytest.approx(1.0)
