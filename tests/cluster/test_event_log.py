"""What Spark's own event log says of a pipeline on two workers: what moved, in whose words, and no secret."""

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.standalone.cluster import cluster
from tests.cluster.submit import PROJECT, submit
from tests.jobs.shop import configuration, everything_written, write_csv

pytestmark = pytest.mark.cluster

USERS, ITEMS, OF_A_USER, RANK, BLOCKS, EPOCHS = 4000, 300, 30, 16, 4, 3
SECRETS = {"spark.hadoop.fs.s3a.secret.key": "Hoot-0wl-1", "spark.hadoop.fs.azure.account.key.acme.net": "Barn-0wl-2"}
OPTION = "Snowy-0wl-3"


@dataclass
class Night:
    """A pipeline's words, the events of its log, and all that it wrote."""

    words: str
    log: str
    events: list[dict[str, Any]]
    written: str

    def jobs(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["Event"] == "SparkListenerJobStart"]

    def tasks(self, description: str) -> dict[int, list[dict[str, Any]]]:
        """Return the tasks of each job whose description matches."""
        found = {}
        for job in self.jobs():
            if re.search(description, job["Properties"].get("spark.job.description", "")):
                stages = job["Stage IDs"]
                found[job["Job ID"]] = [
                    event
                    for event in self.events
                    if event["Event"] == "SparkListenerTaskEnd" and event["Stage ID"] in stages
                ]
        return found


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = tmp_path_factory.mktemp("night")
    chance = random.Random(1)
    rows = [(f"user-{u}", f"item-{i}") for u in range(USERS) for i in chance.sample(range(ITEMS), OF_A_USER)]
    log = write_csv(folder / "log.csv", rows, "user,item")
    config = configuration(
        folder,
        log,
        source={"path": str(log), "format": "csv", "options": {"password": OPTION}},
        holdout={"random": 0.1},
        als={"rank": RANK, "epochs": EPOCHS, "min_blocks": BLOCKS, "moving_side": "items"},
        model={"kind": "blend"},
        spectral={"rank": RANK},
        topk={"k": 5},
        storage={"root": str(folder / "tables")},
        evaluation={"k": [5], "report": True},
    )
    events = folder / "events"
    events.mkdir()
    properties = {
        **SECRETS,
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    (folder / "night.conf").write_text("".join(f"{name} {value}\n" for name, value in properties.items()))
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(PROJECT)}
    with cluster(workers=2) as (url, _):
        command = submit(url, PROJECT / "jobs/pipeline.py", "--properties-file", str(folder / "night.conf"))
        done = subprocess.run(
            [*command, "--config", str(config), "--run-id", "night", "--log", "json", "--debug"],
            env={**environment, "SPARK_LOCAL_IP": "127.0.0.1"},
            cwd=folder, capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    (file,) = events.iterdir()
    text = file.read_text()
    return Night(
        done.stdout + done.stderr, text, [json.loads(line) for line in text.splitlines()],
        everything_written(folder / "tables"),
    )  # fmt: skip


def shuffled(tasks: list[dict[str, Any]]) -> int:
    metrics = [task["Task Metrics"] for task in tasks]
    read = (each["Shuffle Read Metrics"] for each in metrics)
    return sum(each["Remote Bytes Read"] + each["Local Bytes Read"] for each in read) + sum(
        each["Shuffle Write Metrics"]["Shuffle Bytes Written"] for each in metrics
    )


@pytest.mark.parametrize(
    ("jobs", "least"),
    [
        (r"^epoch \d+ of \d+: (rows|step \d+)$", 2 * EPOCHS),  # an epoch is a job for the rows, and at least one step
        (r"^step \d+ of at most \d+$", 3),  # of the singular vectors
    ],
)
def test_no_job_of_an_epoch_or_a_step_moves_a_history(night: Night, jobs: str, least: int) -> None:
    epochs = night.tasks(jobs)
    assert len(epochs) >= least
    assert {task["Task Info"]["Executor ID"] for tasks in epochs.values() for task in tasks} == {"0", "1"}
    histories = USERS * OF_A_USER * 9 // 10 * 8  # bytes of an index and a weight each
    moving = ITEMS * RANK * 4
    # Beside the moving side's arrays: a rank by rank matrix of doubles, and what Spark says of a task.
    bound = BLOCKS * (moving + RANK * RANK * 8 + 8192)
    assert bound < histories / 5, "the bound tells the two apart"
    for job, tasks in epochs.items():
        assert len(tasks) == BLOCKS
        assert shuffled(tasks) == 0, job
        assert BLOCKS * moving <= sum(task["Task Metrics"]["Result Size"] for task in tasks) <= bound, job
        read = sum(task["Task Metrics"]["Input Metrics"]["Bytes Read"] for task in tasks)
        assert read <= BLOCKS * 16384, "of the cache, where the blocks lie"
    building = [task for tasks in night.tasks("^histories to blocks$").values() for task in tasks]
    assert shuffled(building) > histories / 4, "the one piece of work that does move them shows (compressed)"


def test_every_job_has_its_stage_and_words_that_say_what_it_does(night: Night) -> None:
    told = [
        (job["Properties"].get("spark.jobGroup.id"), job["Properties"].get("spark.job.description"))
        for job in night.jobs()
    ]
    assert len(told) > 20
    groups = {group for group, _ in told}
    stages = ("ingest", "build_features", "train_als", "score_topk", "evaluate", "report")
    assert groups <= {f"night/{stage}" for stage in stages} and len(groups) >= 5
    assert not [words for _, words in told if not words]
    words = {words for _, words in told}
    assert {"write gold.recommendations", "write silver.interactions", "write gold.runs"} <= words


def test_no_secret_of_spark_or_of_the_configuration_is_written_anywhere(night: Night) -> None:
    assert "user-1" in night.written and "night/train_als" in night.log, "the search finds what is there"
    for secret in (*SECRETS.values(), OPTION):
        assert secret not in night.words
        assert secret not in night.written
        assert secret not in night.log
    assert all(name in night.log for name in SECRETS), "the names of the settings are there"
