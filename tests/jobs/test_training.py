"""What a model is trained on, and from where its training starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_spark.als import trainer
from recsys_spark.als.initial import initial_factors
from recsys_spark.config import Als
from recsys_spark.stages.models import INDEX, STATE
from tests.jobs.shop import AS_OF, Job, N, configuration, purchases, source, tables, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())
BUILD = ("ingest", "build_features")
BOUGHT = [(*row, "buy") for row in purchases()]
MOMENT = "2024-02-01 12:00:00"


def kinds_of_events(folder: Path, rows: list[tuple[str, ...]], **features: Any) -> Path:
    """Write a log of purchases and looks, and its configuration, by which a look weighs nothing."""
    log = write_csv(folder / "log.csv", rows, "customer,product,bought_at,kind")
    events = {"buy": 1.0, "look": 0.0}
    return configuration(folder, log, source=source(log, event="kind"), features={"events": events, **features})


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory) -> Path:
    """The shop with two models, of moved items and of moved users."""
    config, job = kinds_of_events(tmp_path_factory.mktemp("training"), BOUGHT), Job()
    assert job(config, *WHEN, stages=BUILD)["exit_code"] == 0
    for moving in ("items", "users"):
        trained = job(config, "--run-id", moving, *WHEN, "--set", f"als.moving_side={moving}", stages=("train_als",))
        assert trained["exit_code"] == 0, trained
    return config


def factors(spark, config: Path, model_id: str, moving: str = "items") -> np.ndarray:
    """The last factors of a model's moving side, (n, rank), in the order of their indices."""
    rows = tables(spark, config).read(STATE[moving]).where(f"model_id = '{model_id}'").orderBy(INDEX[moving]).collect()
    return np.array([row["factors"] for row in rows], np.float32)


@pytest.mark.parametrize("k_core", [1, 2])
def test_pairs_that_weigh_nothing_change_no_byte_of_a_model(spark, shop, tmp_path, k_core) -> None:
    """Two users looked at an item that nobody bought, and one looks at all things: they have factors of nothing."""
    looked = [("user-0", "item-1"), ("user-0", "zz-looked"), ("user-5", "zz-looked"),
              *(("zz-watcher", f"item-{item}") for item in range(N))]  # fmt: skip
    again = (*BOUGHT[1][:2], MOMENT, "look")  # of what is bought: an event more, no weight more
    looks = [(user, item, MOMENT, "look") for user, item in looked]
    config, job = kinds_of_events(tmp_path, [*BOUGHT, *looks, again], k_core=k_core), Job()
    summary = job(config, "--run-id", "items", *WHEN, stages=(*BUILD, "train_als"))
    assert summary["exit_code"] == 0, summary
    pairs = tables(spark, config).read("silver.interactions").where("NOT core").collect()
    assert sorted((row["user_id"], row["item_id"]) for row in pairs) == sorted(looked)
    assert {(row["weight"], row["hidden"]) for row in pairs} == {(0.0, False)}
    assert factors(spark, config, "items").tobytes() == factors(spark, shop, "items").tobytes()
    (unsold,) = tables(spark, config).read("gold.item_features").where("item_id = 'zz-looked'").collect()
    assert (unsold["users"], unsold["popularity"], unsold["popularity_decayed"]) == (2, 0.0, 0.0)


@pytest.mark.parametrize("moving", ["items", "users"])
def test_who_is_known_starts_where_the_earlier_model_ended_and_who_is_new_at_her_hash(
    spark, shop, monkeypatch, moving
) -> None:
    rows = [(f"user-{user}", "item-new", MOMENT, "buy") for user in range(0, N, 2)]
    rows += [("user-new", f"item-{item}", MOMENT, "buy") for item in range(0, N, 2)]
    write_csv(shop.parent / "more.csv", rows, "customer,product,bought_at,kind")
    more = ("--set", f"source.path=[{shop.parent}/log.csv,{shop.parent}/more.csv]")
    starts, whole = [], trainer.train

    def remembered(blocks, factors, *rest):
        starts.append(factors.copy())
        return whole(blocks, factors, *rest)

    monkeypatch.setattr(trainer, "train", remembered)
    job, settings = Job(), (f"als.warm_start={moving}", f"als.moving_side={moving}", "als.epochs=1")
    chosen = tuple(part for one in settings for part in ("--set", one))
    warm = job(shop, "--run-id", f"warm-{moving}", *WHEN, *more, *chosen, stages=(*BUILD, "train_als"))
    assert warm["exit_code"] == 0, warm
    assert f"starting from model {moving}, which knows {N} of {N + 1} {moving}" in job.stderr
    earlier, (start,) = factors(spark, shop, moving, moving), starts
    assert start[:N].tobytes() == earlier.tobytes()
    (row,) = spark.sql(f"SELECT xxhash64('{moving[:-1]}-new')").collect()
    als = Als()
    assert start[N:].tobytes() == initial_factors(np.array([row[0]]), 2, als.seed, als.init_scale).tobytes()
    found = factors(spark, shop, f"warm-{moving}", moving)
    assert found.shape == start.shape and (np.abs(found - start).max(axis=1) > 0).all(), "all of them were trained"
    assert factors(spark, shop, f"warm-{moving}").shape == (N + 1, 2)
    (model,) = tables(spark, shop).read("gold.models").where(f"model_id = 'warm-{moving}'").collect()
    assert (model["started_from"], model["moving_side"]) == (moving, moving)
