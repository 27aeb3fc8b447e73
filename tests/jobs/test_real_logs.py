"""Every configuration on its real log, from files to comparison; they skip where the log is absent."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from recsys_spark import config
from recsys_spark.tables import Tables
from tests.jobs.shop import Job

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[2]
CONFS = sorted(path.stem for path in (PROJECT / "conf").glob("*.yaml") if path.stem != "given_split")


@pytest.mark.parametrize("name", CONFS)
def test_a_configuration_runs_to_its_end_with_full_lists_of_unseen_items(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(PROJECT)
    path = PROJECT / "conf" / f"{name}.yaml"
    for source in config.load(str(path)).source.path:
        if not source.startswith("package:") and not Path(source).exists():
            pytest.skip(f"{source} is absent")
    summary = Job()(path, "--run-id", "x", "--set", f"storage.root={tmp_path}/tables")
    assert summary["exit_code"] == 0, summary
    assert summary["metrics"]["als"]["ndcg@10"] > summary["metrics"]["popularity"]["ndcg@10"]
    tables = Tables(spark, f"{tmp_path}/tables")
    lists = tables.read("gold.recommendations")
    seen = tables.read("silver.interactions").select("user_id", "item_id")
    assert lists.count() == seen.select("user_id").distinct().count()
    assert lists.where(f.size("items") != 10).count() == 0
    shown = lists.select("user_id", f.explode("items.item_id").alias("item_id"))
    assert shown.join(seen, ["user_id", "item_id"], "left_semi").count() == 0
