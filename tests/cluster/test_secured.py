"""A cluster with a secret: jobs run by conf/spark/standalone.conf, strangers get nothing, nobody sees the secret."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.standalone.cluster import STANDALONE, cluster, secured
from tests.cluster.processes import executors, running
from tests.cluster.submit import PROJECT, digest, submit
from tests.jobs.shop import AS_OF, configuration, purchases, write_csv

pytestmark = pytest.mark.cluster
PIPELINE = PROJECT / "jobs/pipeline.py"


@dataclass(frozen=True)
class Secured:
    url: str
    conf: Path
    workers: list[int]

    @property
    def secret(self) -> str:
        return (self.conf / "spark-defaults.conf").read_text().split()[-1]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    conf = secured(tmp_path_factory.mktemp("conf"))
    with cluster(workers=2, conf=conf) as (url, workers):
        yield Secured(url, conf, workers)


def start(command: list[str], folder: Path, conf: Path) -> subprocess.Popen[str]:
    """Start the pipeline on the shop's log in a folder of its own."""
    config = configuration(folder, write_csv(folder / "log.csv", purchases()))
    own = {
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(PROJECT),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONF_DIR": str(conf),
    }
    return subprocess.Popen(
        [*command, "--config", str(config), "--run-id", "a", "--as-of", AS_OF.isoformat()],
        env={**os.environ, **own}, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def as_documented(url: str) -> list[str]:
    """The command of the documentation, with less memory and fewer partitions for a small log."""
    small = ["--conf", "spark.driver.memory=1g", "--conf", "spark.executor.memory=1g"]
    return submit(url, PIPELINE, "--properties-file", str(STANDALONE), "--load-spark-defaults", *small)


def until_it_ends(process: subprocess.Popen[str], seconds: float = 400) -> Iterator[None]:
    """Yield twice a second while a process runs, which is killed if it takes too long."""
    deadline = time.monotonic() + seconds
    try:
        while process.poll() is None:
            assert time.monotonic() < deadline
            yield
            time.sleep(0.5)
    finally:
        process.kill()  # nothing where it has ended


def test_a_job_on_a_cluster_with_a_secret_ends_at_the_bytes_of_plain_python_and_shows_the_secret_nowhere(
    guarded: Secured, tmp_path: Path
) -> None:
    plain, safe = tmp_path / "plain", tmp_path / "safe"
    for folder in (plain, safe):
        folder.mkdir()
    here = start([sys.executable, str(PIPELINE)], plain, tmp_path)
    _, stderr = here.communicate(timeout=900)
    assert here.returncode == 0, stderr[-3000:]
    process = start(as_documented(guarded.url), safe, guarded.conf)
    started, seen = 0, False
    for _ in until_it_ends(process):
        started = max(started, len(executors(guarded.workers)))
        seen = seen or any(guarded.secret in each.command for each in running())
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr[-3000:]
    assert started == 2 and not seen
    assert guarded.secret not in stdout + stderr
    assert not any(guarded.secret.encode() in file.read_bytes() for file in safe.rglob("*") if file.is_file())
    assert digest(safe / "tables") == digest(plain / "tables")


@pytest.mark.parametrize("who", ["with another secret", "without a secret"])
def test_a_stranger_gets_no_executor(who: str, guarded: Secured, tmp_path: Path) -> None:
    if who == "with another secret":
        process = start(as_documented(guarded.url), tmp_path, secured(tmp_path / "other"))
    else:
        process = start(submit(guarded.url, PIPELINE, "--conf", "spark.driver.memory=1g"), tmp_path, tmp_path)
    for _ in until_it_ends(process):
        assert executors(guarded.workers) == []
    _, stderr = process.communicate()
    assert process.returncode != 0
    assert not (tmp_path / "tables").exists(), stderr[-3000:]


def test_the_conf_without_a_secret_is_refused_before_anything_starts(guarded: Secured, tmp_path: Path) -> None:
    process = start(as_documented(guarded.url), tmp_path, tmp_path)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode != 0 and "spark.authenticate.secret" in stderr
