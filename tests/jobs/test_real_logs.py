"""Every configuration on its real log, from files to comparison; they skip where the log is absent."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from recsys_spark import config
from recsys_spark.tables import Tables
from tests.jobs.shop import Job

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[2]
SHIPPED = "../shared/data/"  # where the configurations look for the logs
CONFS = sorted(path.stem for path in (PROJECT / "conf").glob("*.yaml") if path.stem != "given_split")


def logs_of(path: Path) -> list[str]:
    """Overrides that look for a configuration's files where RECSYS_LOGS says, if it says anything."""
    folder, written = os.environ.get("RECSYS_LOGS"), yaml.safe_load(path.read_text(encoding="utf-8"))
    files = {
        key: section["path"] for key, section in written.items() if isinstance(section, dict) and "path" in section
    }
    return [
        f"{key}.path={folder}/{file.removeprefix(SHIPPED)}"
        for key, file in files.items()
        if folder and file.startswith(SHIPPED)
    ]


@pytest.mark.parametrize("name", CONFS)
def test_a_configuration_runs_to_its_end_with_full_lists_of_unseen_items(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(PROJECT)
    path = PROJECT / "conf" / f"{name}.yaml"
    places = [f"storage.root={tmp_path}/tables", *logs_of(path)]
    for source in config.load(str(path), places).source.path:
        if not source.startswith("package:") and not Path(source).exists():
            pytest.skip(f"{source} is absent")
    summary = Job()(path, "--run-id", "x", *(argument for place in places for argument in ("--set", place)))
    assert summary["exit_code"] == 0, summary
    kind = config.load(str(path)).model.kind
    assert summary["metrics"][kind]["ndcg@10"] > summary["metrics"]["popularity"]["ndcg@10"]
    tables = Tables(spark, f"{tmp_path}/tables")
    lists = tables.read("gold.recommendations")
    seen = tables.read("silver.interactions").select("user_id", "item_id")
    served = seen.select("user_id")
    if tables.exists("silver.users"):  # of whom only the segment is known, she is served what is popular there
        served = served.union(tables.read("silver.users").select("user_id"))
    assert lists.count() == served.distinct().count()
    assert lists.where(f.size("items") != 10).count() == 0
    shown = lists.select("user_id", f.explode("items.item_id").alias("item_id"))
    assert shown.join(seen, ["user_id", "item_id"], "left_semi").count() == 0


BUILD = ("ingest", "build_features")


def built(folder: Path, logs: Path, name: str, file: str, *overrides: str) -> dict[str, Any]:
    """The summary of ingest and build_features of a shipped configuration on its log."""
    places = [f"storage.root={folder}/tables", f"source.path={logs / file}", *overrides]
    arguments = [argument for place in places for argument in ("--set", place)]
    summary = Job()(PROJECT / "conf" / f"{name}.yaml", "--run-id", "x", *arguments, stages=BUILD)
    assert summary["exit_code"] == 0, summary
    return summary


def test_each_reason_refuses_as_many_rows_of_online_retail_as_were_published(
    spark: SparkSession, tmp_path: Path, logs: Path
) -> None:
    """Missing customers, cancellations, samples, postage, manual entries, bank charges; repeated lines; resellers."""
    file = "online-retail/online_retail.parquet"
    published = {"missing_user": 235_287, "returned": 18_446, "no_price": 70, "not_a_product": 2_857}
    counts = built(tmp_path, logs, "online_retail", file)["counts"]
    assert counts == {"rows": 1_044_847, "kept": 788_187, "refused": published}
    refused = Tables(spark, f"{tmp_path}/tables").read("silver.quarantine").where("reason = 'not_a_product'")
    codes = refused.groupBy(f.get_json_object("record", "$.StockCode").alias("code")).count().collect()
    assert {row["code"]: row["count"] for row in codes}.items() >= {
        "POST": 1802, "M": 691, "C2": 248, "BANK CHARGES": 31, "DOT": 16, "D": 5,
    }.items()  # fmt: skip
    heavy = ("source.duplicates=refuse", "source.heavy_users.events_a_day=200")
    counts = built(tmp_path, logs, "online_retail", file, *heavy)["counts"]
    assert {name: n for name, n in counts["refused"].items() if name in published} == published
    assert counts["refused"]["duplicate_line"] == 11_610
    assert counts["kept"] + sum(counts["refused"].values()) == 1_044_847
    table = pq.read_table(logs / file).to_pandas()
    good = table[
        table.CustomerID.notna() & (table.Quantity > 0) & (table.UnitPrice > 0) & table.StockCode.str.match("[0-9]{5}")
    ].drop_duplicates()
    past = good[good.InvoiceDate < "2011-11-01"]
    days = past.groupby(["CustomerID", past.InvoiceDate.dt.date]).size()
    robots = days[days > 200].reset_index().CustomerID.unique()
    assert counts["refused"]["too_many_events"] == good.CustomerID.isin(robots).sum() == 24_715


def test_the_three_event_types_of_retailrocket_weigh_what_the_configuration_says(
    spark: SparkSession, tmp_path: Path, logs: Path
) -> None:
    holdout = f"holdout.path={logs / 'retailrocket/test_buy_loo.csv'}"
    counts = built(tmp_path, logs, "retailrocket", "retailrocket/train_events.csv", holdout)["counts"]
    assert counts == {"rows": 97_381 + 2_174, "kept": 97_381 + 2_174, "refused": {}}
    pairs = Tables(spark, f"{tmp_path}/tables").read("silver.interactions").toPandas()
    log = pd.read_csv(logs / "retailrocket" / "train_events.csv")
    assert log.behaviour.value_counts().to_dict() == {"view": 75_374, "cart": 12_456, "buy": 9_551}
    log["weight"] = log.behaviour.map({"view": 0.3, "cart": 1.0, "buy": 2.0})
    expected = log.groupby(["user", "item"]).agg(
        weight=("weight", "sum"), events=("weight", "size"), types=("behaviour", lambda kinds: sorted(set(kinds)))
    )
    found = pairs.assign(user=pairs.user_id.astype(int), item=pairs.item_id.astype(int)).set_index(["user", "item"])
    found = found.loc[expected.index]
    assert len(pairs) == len(expected) == 77_230
    assert np.allclose(found.weight, np.log1p(expected.weight), rtol=0, atol=1e-8)
    assert (found.events == expected.events).all()
    assert [list(types) for types in found.event_types] == list(expected.types)
    assert not found.hidden.any()
