"""The search for settings, on a shop where an old fashion and a new one are planted."""

import datetime as dt
import json
import random
from pathlib import Path

import pytest
import yaml

from recsys_spark import memory
from recsys_spark.als.trainer import DivergedError
from recsys_spark.stages import tune
from recsys_spark.tables import Tables
from tests.jobs.shop import AS_OF, Job, configuration, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())
SMALL = {
    "windows": 2, "horizon": "10d", "trials": 3, "ranks": [2, 4], "epochs": [2, 4], "half_lives": [1], "minutes": 5,
    "popularity_half_lives": [0.5, 2], "prior_weights": [0, 0.1, 10], "transforms": ["sum"], "seed": 3,
}  # fmt: skip


def fashions() -> list[tuple[str, str, str]]:
    """Everyone buys at random, for 115 days, from ten items that are new every twenty days, the first of them most."""
    rng = random.Random(1)
    rows = set()
    for user in range(40):
        for _ in range(60):
            days = rng.randrange(0, 115)
            item = 10 * ((days + 5) // 20) + min(int(rng.expovariate(0.5)), 9)
            moment = AS_OF + dt.timedelta(days=days - 100, minutes=user)
            rows.add((f"user-{user}", f"item-{item}", f"{moment:%Y-%m-%d %H:%M:%S}"))
    return sorted(rows)


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory) -> Path:
    folder, job = tmp_path_factory.mktemp("fashions"), Job()
    config = configuration(folder, write_csv(folder / "log.csv", fashions()), tune=SMALL)
    assert job(config, "--run-id", "a", *WHEN, stages=("ingest", "build_features"))["exit_code"] == 0
    return config


def searched(config: Path, run_id: str, out: Path, *arguments: str) -> dict:
    job = Job()
    summary = job(config, "--run-id", run_id, *WHEN, "--out", str(out), *arguments, stages=("tune",))
    assert summary["exit_code"] == 0, summary
    return summary


def test_a_search_finds_what_is_new_and_its_settings_are_a_configuration(spark, shop, tmp_path) -> None:
    summary = searched(shop, "whole", tmp_path)
    found = summary["counts"]["found"][summary["counts"]["kind"]]
    assert found["topk"]["prior"]["weight"] > 0 and found["topk"]["prior"]["popularity"] != "popularity"
    assert summary["metrics"]["als"]["ndcg@1"] >= summary["metrics"]["popularity"]["ndcg@1"]
    assert yaml.safe_load((tmp_path / "whole.yaml").read_text()) == found
    assert "<svg" in (tmp_path / "whole.svg").read_text()
    job = Job()
    tuned = job(shop, "--config", str(tmp_path / "whole.yaml"), "--run-id", "b", *WHEN)
    assert tuned["exit_code"] == 0, tuned["error"]
    model = Tables(spark, str(shop.parent / "tables")).read("gold.models").where("model_id = 'b'").first()
    assert json.loads(model["config"])["als"]["rank"] == found["als"]["rank"]


def test_a_search_that_goes_on_ends_where_an_uninterrupted_one_does(spark, shop, tmp_path) -> None:
    searched(shop, "parts", tmp_path, "--set", "tune.trials=1")
    searched(shop, "parts", tmp_path)
    searched(shop, "once", tmp_path)
    trials = Tables(spark, str(shop.parent / "tables")).read("gold.trials").drop("seconds")
    parts, once = (
        [row.asDict() | {"study": None} for row in trials.where(f"study = '{study}'").orderBy("trial").collect()]
        for study in ("parts", "once")
    )
    assert len(once) == 3 and parts == once


def test_a_run_id_that_searched_by_another_configuration_is_refused(shop, tmp_path) -> None:
    searched(shop, "taken", tmp_path, "--set", "tune.trials=1")
    again = ("--run-id", "taken", *WHEN, "--out", str(tmp_path), "--set", "tune.ranks=[2]")
    other = Job()(shop, *again, stages=("tune",))
    assert other["exit_code"] == 78 and "give a run id of its own" in other["error"]


def test_a_search_whose_largest_rank_does_not_fit_is_refused_before_a_trial(spark, shop, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**29)  # three Python processes alone are more
    asked = ("--run-id", "large", *WHEN, "--out", str(tmp_path))
    refused = Job()(shop, *asked, stages=("tune",))
    assert refused["exit_code"] == 78 and refused["error"].startswith("tune.ranks: 4: "), refused
    assert "0.5 GB left: lower tune.ranks, or take a larger machine" in refused["error"]
    trials = Tables(spark, str(shop.parent / "tables"))
    assert not trials.exists("gold.trials") or trials.read("gold.trials").where("study = 'large'").isEmpty()


def test_settings_that_diverge_are_a_trial_worth_nothing_and_the_search_goes_on(
    spark, shop, tmp_path, monkeypatch
) -> None:
    whole, asked = tune.epochs_on, []

    def first_diverges(*given):
        asked.append(given)
        objective, epochs = whole(*given)
        return objective, diverging() if len(asked) == 1 else epochs

    def diverging():
        raise DivergedError("the objective rose")
        yield

    monkeypatch.setattr(tune, "epochs_on", first_diverges)
    searched(shop, "diverged", tmp_path)
    trials = Tables(spark, str(shop.parent / "tables")).read("gold.trials").where("study = 'diverged'")
    values = [(row["value"], row["stopped"]) for row in trials.orderBy("trial").collect()]
    assert values[0] == (0.0, True) and len(values) == 3 and max(values)[0] > 0


def test_a_search_whose_minutes_are_over_before_it_begins_has_one_trial_of_the_settings_that_are_there(
    spark, shop, tmp_path
) -> None:
    says = ("--set", "als.rank=2", "--set", "als.regularization=0.05", "--set", "features.half_life=12d")
    found = searched(shop, "hurried", tmp_path, "--set", "tune.minutes=0.001", *says)
    assert found["counts"]["trials"] == 1 and (tmp_path / "hurried.yaml").is_file()
    trial = Tables(spark, str(shop.parent / "tables")).read("gold.trials").where("study = 'hurried'").first()
    asked = json.loads(trial["settings"])
    assert (asked["rank"], asked["regularization"], asked["half_life"]) == (2, 0.05, "864000s")


def test_a_search_that_finds_nothing_above_the_best_list_says_so(shop, tmp_path, monkeypatch) -> None:
    said = []
    monkeypatch.setattr(tune.Run, "say", lambda run, text: said.append(text))
    worse = ("--set", "tune.prior_weights=[0]", "--set", "tune.kinds=[als]", "--set", "tune.trials=1")
    searched(shop, "worse", tmp_path, *worse)
    assert said[-1].startswith("warning: nothing that was found is above the best popularity list; go on")


def test_windows_lie_a_step_apart_and_end_before_as_of(shop, tmp_path) -> None:
    job, few = Job(), ("--set", "tune.trials=1", "--set", "tune.kinds=[als]")
    summary = job(shop, "--run-id", "apart", *WHEN, "--out", str(tmp_path), *few, "--set", "tune.step=30d",
                  stages=("tune",))  # fmt: skip
    assert summary["exit_code"] == 0, summary
    for number in (1, 2):
        begin = AS_OF - number * dt.timedelta(days=30)
        assert f"window {number} of 2, from {begin:%Y-%m-%d %H:%M}: " in job.stderr


def test_no_event_from_as_of_on_changes_what_is_found(spark, shop, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    early = [row for row in fashions() if row[2] < f"{AS_OF:%Y-%m-%d}"]
    log = write_csv(tmp_path / "other" / "log.csv", early)
    config = configuration(tmp_path / "other", log, tune=SMALL | {"trials": 1})
    Job()(config, "--run-id", "a", *WHEN, stages=("ingest", "build_features"))
    without = searched(config, "w", tmp_path)["metrics"]
    assert without == searched(shop, "w", tmp_path, "--set", "tune.trials=1")["metrics"]
