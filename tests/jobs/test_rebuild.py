"""A model is trained again, to the byte, from the versions of the tables that it was trained on."""

from pathlib import Path

import pytest

from recsys_spark.blocks import store
from recsys_spark.tables import Tables
from recsys_spark.version import code_version
from tests.jobs.shop import AS_OF, Job, configuration, purchases, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory) -> Path:
    folder, job = tmp_path_factory.mktemp("rebuild"), Job()
    config = configuration(folder, write_csv(folder / "log.csv", purchases()))
    assert job(config, "--run-id", "a", *WHEN, stages=("ingest", "build_features", "train_als"))["exit_code"] == 0
    return config


def tables(spark, config: Path) -> Tables:
    return Tables(spark, str(config.parent / "tables"))


def neighbours(spark, config: Path, model_id: str) -> list[tuple]:
    rows = tables(spark, config).read("gold.item_neighbours").where(f"model_id = '{model_id}'")
    return [tuple(row) for row in rows.select("item_id", "items").orderBy("item_id").collect()]


def test_a_model_is_rebuilt_after_its_inputs_have_changed(spark, shop) -> None:
    """Other rows, another slice in the same place, another configuration: the old versions alone decide."""
    job = Job()
    knn = ("--set", "model.kind=item_knn")
    near = job(shop, "--run-id", "near", *WHEN, *knn, stages=("train_als",))
    assert near["exit_code"] == 0 and "gold.item_neighbours" in near["outputs"]
    assert job(shop, "--run-id", "near", *WHEN, *knn, stages=("train_als",))["outputs"] == near["outputs"]
    late = [("user-1", "item-2", "2024-01-05 00:00:00"), ("new", "item-3", "2024-01-06 00:00:00")]
    write_csv(shop.parent / "more.csv", late)
    more = ("--set", f"source.path=[{shop.parent}/log.csv,{shop.parent}/more.csv]", "--set", "als.rank=3")
    assert job(shop, "--run-id", "b", *WHEN, *more, stages=("ingest", "build_features", "train_als"))["exit_code"] == 0
    rebuilt = job(shop, "--run-id", "again", *more, "--rebuild", "a", stages=("train_als",))
    assert rebuilt["exit_code"] == 0, rebuilt
    assert "model again is model a to the byte" in job.stderr
    assert "was trained by version" not in job.stderr, "it was by this one"
    near = job(shop, "--run-id", "near-again", *more, "--rebuild", "near", stages=("train_als",))
    assert near["exit_code"] == 0 and "model near-again is model near to the byte" in job.stderr
    now = job(shop, "--run-id", "near-now", *WHEN, *more, *knn, stages=("train_als",))
    assert now["exit_code"] == 0 and neighbours(spark, shop, "near-now") != neighbours(spark, shop, "near")
    models = {row["model_id"]: row for row in tables(spark, shop).read("gold.models").collect()}
    assert {model["code_version"] for model in models.values()} == {code_version()}
    assert models["again"]["inputs"] == models["a"]["inputs"] != models["b"]["inputs"]
    assert models["again"]["objective"] == models["a"]["objective"] != models["b"]["objective"]


def test_a_model_that_started_from_another_is_rebuilt_when_that_one_is_gone(spark, shop) -> None:
    job = Job()
    warm = ("--set", "als.warm_start=parent", "--set", "als.epochs=2")
    assert job(shop, "--run-id", "parent", *WHEN, stages=("train_als",))["exit_code"] == 0
    assert job(shop, "--run-id", "child", *WHEN, *warm, stages=("train_als",))["exit_code"] == 0
    for table in ("gold.models", "gold.item_factors"):
        spark.sql(f"DELETE FROM delta.`{tables(spark, shop).path(table)}` WHERE model_id = 'parent'")
    rebuilt = job(shop, "--run-id", "child-again", "--rebuild", "child", stages=("train_als",))
    assert rebuilt["exit_code"] == 0 and "model child-again is model child to the byte" in job.stderr, rebuilt
    inputs = {row["model_id"]: row["inputs"] for row in tables(spark, shop).read("gold.models").collect()}
    assert {"gold.models", "gold.item_factors"} < set(inputs["child"]) and inputs["child-again"] == inputs["child"]


def test_a_rebuild_that_would_differ_is_an_error_and_one_by_another_program_is_told(spark, shop) -> None:
    path = tables(spark, shop).path("gold.item_factors")
    spark.sql(f"UPDATE delta.`{path}` SET factors = transform(factors, x -> 2 * x) WHERE model_id = 'a'")
    spark.sql(
        f"UPDATE delta.`{tables(spark, shop).path('gold.models')}` SET code_version = '0.1.0' WHERE model_id = 'a'"
    )
    job = Job()
    rebuilt = job(shop, "--run-id", "third", "--rebuild", "a", stages=("train_als",))
    assert rebuilt["exit_code"] == 70 and "differs from it" in rebuilt["error"]
    assert "warning: model a was trained by version 0.1.0 of this program" in job.stderr
    path = tables(spark, shop).path("gold.item_neighbours")
    spark.sql(f"UPDATE delta.`{path}` SET items = slice(items, 2, 2) WHERE model_id = 'near'")
    rebuilt = Job()(shop, "--run-id", "near-third", "--rebuild", "near", stages=("train_als",))
    assert rebuilt["exit_code"] == 70 and "differs from it" in rebuilt["error"]


def test_a_model_that_is_not_there_cannot_be_rebuilt(spark, shop) -> None:
    rebuilt = Job()(shop, "--run-id", "x", "--rebuild", "nobody", stages=("train_als",))
    assert rebuilt["exit_code"] == 65 and "--rebuild nobody" in rebuilt["error"]


def test_starting_from_a_model_in_a_table_that_forgets_too_soon_is_refused_before_blocks_are_built(
    spark, shop, monkeypatch
) -> None:
    def forgets_after(days: int) -> None:
        path = tables(spark, shop).path("gold.item_factors")
        kept = ", ".join(f"'delta.{what}RetentionDuration' = 'interval {days} days'" for what in ("deletedFile", "log"))
        spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ({kept})")

    def built(*_):
        raise AssertionError("blocks were built")

    job, cold = Job(), ("--run-id", "warm", *WHEN)
    warm = (*cold, "--set", "als.warm_start=a", "--set", "als.epochs=1")
    forgets_after(7)
    with monkeypatch.context() as patch:
        patch.setattr(store, "build", built)
        refused = job(shop, *warm, stages=("train_als",))
        assert refused["exit_code"] == 78 and "gold.item_factors keeps old versions for 7 days" in refused["error"]
        assert job(shop, *cold, stages=("train_als",))["exit_code"] == 70, "who starts from none reads no such table"
    forgets_after(365)
    assert job(shop, *warm, stages=("train_als",))["exit_code"] == 0 and "starting from model a" in job.stderr


def test_training_on_a_table_that_forgets_too_soon_is_refused(spark, shop) -> None:
    path = tables(spark, shop).path("gold.item_ids")
    spark.sql(
        f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.deletedFileRetentionDuration' = 'interval 7 days')"
    )
    trained = Job()(shop, "--run-id", "c", *WHEN, stages=("train_als",))
    assert trained["exit_code"] == 78 and "gold.item_ids keeps old versions for 7 days" in trained["error"]
    near = Job()(shop, "--run-id", "c", *WHEN, "--set", "model.kind=item_knn", stages=("train_als",))
    assert near["exit_code"] == 78 and "gold.item_ids keeps old versions for 7 days" in near["error"]
    allowed = Job()(shop, "--run-id", "c", *WHEN, "--set", "storage.keep=7d", stages=("train_als",))
    assert allowed["exit_code"] == 0, allowed
