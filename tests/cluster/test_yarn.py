"""deploy/yarn/submit.sh on a real YARN: Hadoop's own mini cluster, a resource and a node manager on loopback."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.standalone.cluster import SPARK_HOME, end
from tests.cluster.submit import PROJECT, digest, packaged
from tests.jobs.shop import AS_OF, configuration, purchases, write_csv

pytestmark = pytest.mark.cluster

# The version of the Hadoop that Spark carries, whose classes it runs on.
(HADOOP,) = [
    jar.stem.removeprefix("hadoop-client-api-") for jar in (SPARK_HOME / "jars").glob("hadoop-client-api-*.jar")
]
SETTINGS = {
    "yarn.minicluster.yarn.nodemanager.resource.memory-mb": "10240",
    "yarn.nodemanager.vmem-check-enabled": "false",  # a JVM reserves more than it ever uses
    "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "99",
    "yarn.scheduler.minimum-allocation-mb": "256",
}


@dataclass(frozen=True)
class Yarn:
    conf: Path  # HADOOP_CONF_DIR
    logs: Path  # of the containers, below it


def jars(folder: Path) -> list[str]:
    """Fetch the mini cluster by Ivy, as `make install` fetches Delta; return the jars beside Spark's own."""
    (folder / "nothing.py").touch()
    package = f"org.apache.hadoop:hadoop-client-minicluster:{HADOOP}"
    command = [str(SPARK_HOME / "bin/spark-submit"), "--master", "local[1]", "--packages", package,
               "--conf", f"spark.jars.ivy={folder}", str(folder / "nothing.py")]  # fmt: skip
    own = {"SPARK_HOME": str(SPARK_HOME), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False, timeout=900)
    found = [str(jar) for jar in (folder / "jars").glob("*hadoop-client-minicluster*.jar")]
    assert found, done.stderr[-3000:]
    return [*found, str(SPARK_HOME / "jars/*")]


@pytest.fixture(scope="module")
def yarn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yarn]:
    folder = tmp_path_factory.mktemp("yarn")
    conf = folder / "conf"
    conf.mkdir()
    options = [word for name, value in SETTINGS.items() for word in ("-D", f"{name}={value}")]
    command = ["java", "-cp", ":".join(jars(folder)), "org.apache.hadoop.mapreduce.MiniHadoopClusterManager",
               "-nodfs", "-writeConfig", str(conf / "written.xml"), *options]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not (conf / "written.xml").exists():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        time.sleep(1)  # the file is written in one go, but not under another name first
        for name in ("yarn-site.xml", "core-site.xml"):
            shutil.copy(conf / "written.xml", conf / name)
        yield Yarn(conf, folder)
    finally:
        end(process)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as its operator has it: jobs, confs, the script, and the zip of `make zip`."""
    made = tmp_path_factory.mktemp("project")
    for part in ("conf", "jobs", "deploy/yarn"):
        shutil.copytree(PROJECT / part, made / part, ignore=shutil.ignore_patterns("__pycache__"))
    (made / "dist").mkdir()
    packaged(made / "dist/recsys_spark.zip")
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
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert here.returncode == 0, here.stderr[-3000:]
    done = run(home, there, yarn)
    assert done.returncode == 0, done.stderr[-4000:]
    executors = [log for log in yarn.logs.rglob("stderr") if "CoarseGrainedExecutorBackend" in log.read_text()]
    assert len(executors) == 2
    assert digest(there / "tables") == digest(plain / "tables")


def test_a_jobs_exit_code_is_the_scripts(home: Path, yarn: Yarn, tmp_path: Path) -> None:
    assert run(home, tmp_path, yarn, "--set", "colour=red").returncode == 78
