"""deploy/yarn/submit.sh on a real YARN: Hadoop's own resource manager and node manager, on loopback."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.archive import archive
from deploy.standalone.cluster import SPARK_HOME, end, free_ports
from tests.cluster.submit import PROJECT, digest
from tests.jobs.shop import AS_OF, configuration, purchases, write_csv

pytestmark = pytest.mark.cluster

# The version of the Hadoop that Spark carries, whose classes it runs on.
(HADOOP,) = [
    jar.stem.removeprefix("hadoop-client-api-") for jar in (SPARK_HOME / "jars").glob("hadoop-client-api-*.jar")
]
PACKAGES = [
    f"org.apache.hadoop:hadoop-client-minicluster:{HADOOP}",  # the daemons
    "org.bouncycastle:bcpkix-jdk18on:1.82",  # which the resource manager's certificates need
]
DAEMON = "org.apache.hadoop.yarn.server"
RESOURCES = "yarn.resourcemanager"
NODE = "yarn.nodemanager"


@dataclass(frozen=True)
class Yarn:
    conf: Path  # HADOOP_CONF_DIR
    logs: Path  # of the containers, below it


def settings(folder: Path) -> dict[str, str]:
    """What the two daemons and their clients read: every server on a free port of loopback."""
    names = [f"{RESOURCES}.{name}" for name in ("address", "scheduler.address", "resource-tracker.address",
                                                "admin.address", "webapp.address")]  # fmt: skip
    names += [f"{NODE}.{name}" for name in ("address", "localizer.address", "webapp.address")]
    return {
        **{name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(len(names)), strict=True)},
        f"{RESOURCES}.hostname": "127.0.0.1",
        f"{RESOURCES}.scheduler.class": f"{DAEMON}.resourcemanager.scheduler.fifo.FifoScheduler",
        f"{NODE}.hostname": "127.0.0.1",
        f"{NODE}.local-dirs": str(folder / "local"),
        f"{NODE}.log-dirs": str(folder / "logs"),
        f"{NODE}.resource.memory-mb": "10240",
        f"{NODE}.vmem-check-enabled": "false",  # a JVM reserves more than it ever uses
        f"{NODE}.disk-health-checker.max-disk-utilization-per-disk-percentage": "99",
        "yarn.scheduler.minimum-allocation-mb": "256",
    }


def jars(folder: Path) -> list[str]:
    """Fetch the daemons by Ivy, as `make install` fetches Delta; return the class path, Spark's own jars first."""
    (folder / "nothing.py").touch()
    command = [str(SPARK_HOME / "bin/spark-submit"), "--master", "local[1]", "--packages", ",".join(PACKAGES),
               "--conf", f"spark.jars.ivy={folder}", str(folder / "nothing.py")]  # fmt: skip
    own = {"SPARK_HOME": str(SPARK_HOME), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return [str(SPARK_HOME / "jars/*"), str(folder / "jars/*")]


@pytest.fixture(scope="module")
def yarn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yarn]:
    folder = tmp_path_factory.mktemp("yarn")
    conf = folder / "conf"
    conf.mkdir()
    known = settings(folder)
    properties = (f"<property><name>{key}</name><value>{value}</value></property>" for key, value in known.items())
    (conf / "yarn-site.xml").write_text(f"<configuration>{''.join(properties)}</configuration>")
    classes = ":".join([str(conf), *jars(folder)])
    web = f"http://{known[f'{RESOURCES}.webapp.address']}/ws/v1/cluster/nodes"
    processes = {}
    try:
        for daemon in ("resourcemanager.ResourceManager", "nodemanager.NodeManager"):
            with (folder / daemon).open("wb") as log:
                processes[daemon] = subprocess.Popen(
                    ["java", "-Xmx512m", "-cp", classes, f"{DAEMON}.{daemon}"], cwd=folder, stdout=log,
                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
        deadline = time.monotonic() + 120
        while not running(web):
            for daemon, process in processes.items():
                assert process.poll() is None and time.monotonic() < deadline, (folder / daemon).read_text()[-3000:]
            time.sleep(0.5)
        yield Yarn(conf, folder / "logs")
    finally:
        for process in processes.values():
            end(process)


def running(web: str) -> bool:
    """Whether the resource manager has a node."""
    try:
        with urllib.request.urlopen(web, timeout=5) as answer:
            nodes = json.load(answer)["nodes"] or {}
    except OSError:
        return False
    return [node["state"] for node in nodes.get("node", [])] == ["RUNNING"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as its operator has it: jobs, confs, the script, and the zip of `make zip`."""
    made = tmp_path_factory.mktemp("project")
    for part in ("conf", "jobs", "deploy/yarn"):
        shutil.copytree(PROJECT / part, made / part, ignore=shutil.ignore_patterns("__pycache__"))
    archive(made / "dist/recsys_spark.zip")
    return made


def run(home: Path, folder: Path, yarn: Yarn, *options: str) -> subprocess.CompletedProcess[str]:
    config = configuration(folder, write_csv(folder / "log.csv", purchases()))
    small = {
        "spark.driver.memory": "1g", "spark.executor.memory": "1g", "spark.executor.memoryOverhead": "1g",
        "spark.executor.cores": "1", "spark.yarn.am.memory": "512m", "spark.sql.shuffle.partitions": "4",
        "spark.yarn.stagingDir": f"file://{folder}/staging",
    }  # fmt: skip
    own = {"HADOOP_CONF_DIR": str(yarn.conf), "RECSYS_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    confs = [word for name, value in small.items() for word in ("--conf", f"{name}={value}")]
    job = ["jobs/pipeline.py", "--config", str(config), "--run-id", "a", "--as-of", AS_OF.isoformat()]
    return subprocess.run(
        [str(home / "deploy/yarn/submit.sh"), *confs, *job, *options],
        env={**os.environ, **own}, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip


def test_the_pipeline_runs_on_yarn_to_the_bytes_of_plain_python(home: Path, yarn: Yarn, tmp_path: Path) -> None:
    plain, there = tmp_path / "plain", tmp_path / "yarn"
    for folder in (plain, there):
        folder.mkdir()
    config = configuration(plain, write_csv(plain / "log.csv", purchases()))
    job = [sys.executable, str(PROJECT / "jobs/pipeline.py"), "--config", str(config), "--run-id", "a"]
    here = subprocess.run(
        [*job, "--as-of", AS_OF.isoformat()], env={**os.environ, "PYTHONPATH": str(PROJECT)}, cwd=plain,
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert here.returncode == 0, here.stderr[-3000:]
    done = run(home, there, yarn)
    assert done.returncode == 0, done.stderr[-4000:]
    executors = [log for log in yarn.logs.rglob("stderr") if "INFO YarnCoarseGrainedExecutorBackend" in log.read_text()]
    assert len(executors) == 2
    assert digest(there / "tables") == digest(plain / "tables")


def test_a_jobs_exit_code_is_the_scripts(home: Path, yarn: Yarn, tmp_path: Path) -> None:
    assert run(home, tmp_path, yarn, "--set", "colour=red").returncode == 78
