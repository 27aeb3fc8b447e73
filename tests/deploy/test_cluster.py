"""deploy/standalone/cluster.py with stand-ins for Spark's programs: nothing that it started is left when it ends."""

import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.archive import archive

PROJECT = Path(__file__).parents[2]

# Says what a master and a worker say once they are there, and stays.
DAEMON = """#!/bin/sh
echo "New state: ALIVE"
echo "Successfully registered with master"
echo "$SPARK_LOCAL_IP $SPARK_MASTER_OPTS $*" >>daemons
echo $$ >>"$STARTED"
exec sleep 60
"""
PROGRAM = """
import sys
from pathlib import Path
from deploy.standalone import cluster
cluster.SPARK_HOME = Path(sys.argv.pop(1))
raise SystemExit(cluster.main())
"""
# In spark-submit's place: notes where the secret is and what it was given, and comes to an end of its own when told to.
SUBMIT = """#!/bin/bash
trap "sleep 0.3; touch told; exit 75" TERM
echo "$SPARK_CONF_DIR" >conf
printf '%s\\n' "$@" >given
cp "$(sed -n '/^--py-files$/{n;p}' given)" package.zip
echo $$ >>"$STARTED"
"""
JOB = ["jobs/pipeline.py", "--config", "conf/shop.yaml", "--run-id", "a b"]


@dataclass(frozen=True)
class Started:
    """cluster.py, at work, and what it left in its folder."""

    process: subprocess.Popen[bytes]
    folder: Path

    def pids(self) -> list[int]:
        return [int(line) for line in (self.folder / "started").read_text().split()]

    def left(self) -> list[int]:
        return [pid for pid in self.pids() if Path(f"/proc/{pid}").exists()]


def start(folder: Path, command: str, *by: str) -> Started:
    """Start a master, two workers and a job that is a shell command, by a program if need be, such as nohup.

    Returns once the job is at work.
    """
    for part in ("bin", "temporary"):
        (folder / part).mkdir()
    for program, text in {"spark-class": DAEMON, "spark-submit": SUBMIT + command}.items():
        (folder / "bin" / program).write_text(text)
        (folder / "bin" / program).chmod(0o755)
    own = {"STARTED": str(folder / "started"), "TMPDIR": str(folder / "temporary"), "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        [*by, sys.executable, "-c", PROGRAM, str(folder), "--workers", "2", "--", *JOB],
        env={**os.environ, **own}, cwd=folder,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # which tests by nohup ignore
    )  # fmt: skip
    started = Started(process, folder)
    while not ((folder / "started").exists() and len(started.pids()) == 4):
        assert process.poll() is None
        time.sleep(0.02)
    return started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_command_master_and_workers_and_deletes_the_secret(
    tmp_path: Path, number: signal.Signals
) -> None:
    started = start(tmp_path, "while :; do sleep 0.05; done")
    secret = Path((tmp_path / "conf").read_text().strip()) / "spark-defaults.conf"
    assert secret.exists() and len(started.left()) == 4
    started.process.send_signal(number)
    time.sleep(0.1)
    started.process.terminate()  # a second one does not cut the end short
    assert started.process.wait(timeout=20) == 128 + number
    assert (tmp_path / "told").exists()  # and not killed
    assert started.left() == [] and list((tmp_path / "temporary").iterdir()) == []


def test_what_is_started_with_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    started = start(tmp_path, "while [ ! -e go ]; do sleep 0.05; done", "nohup")
    started.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    (tmp_path / "go").touch()
    assert started.process.wait(timeout=20) == 0


@pytest.mark.parametrize("code", [0, 75])
def test_the_jobs_code_is_the_clusters(tmp_path: Path, code: int) -> None:
    started = start(tmp_path, f"exit {code}")
    assert started.process.wait(timeout=20) == code
    assert started.left() == [] and list((tmp_path / "temporary").iterdir()) == []


def test_a_job_is_submitted_to_the_cluster_by_its_conf_with_the_package(tmp_path: Path) -> None:
    started = start(tmp_path, "exit 0")
    assert started.process.wait(timeout=20) == 0
    given = (tmp_path / "given").read_text().splitlines()
    own, job = given[: -len(JOB)], given[-len(JOB) :]
    assert job == JOB
    assert own[0] == "--master" and own[1].startswith("spark://127.0.0.1:")
    assert own[2:5] == ["--properties-file", str(PROJECT / "conf/spark/standalone.conf"), "--load-spark-defaults"]
    assert (tmp_path / "package.zip").read_bytes() == archive(tmp_path / "again.zip").read_bytes()


def test_daemons_listen_on_loopback_and_take_no_application_without_the_secret(tmp_path: Path) -> None:
    started = start(tmp_path, "exit 0")
    assert started.process.wait(timeout=20) == 0
    daemons = (tmp_path / "daemons").read_text().splitlines()
    assert [re.findall(r"deploy\.(\w+)\.", daemon) for daemon in daemons] == [["master"], ["worker"], ["worker"]]
    for daemon in daemons:
        assert daemon.startswith("127.0.0.1 -Dspark.master.rest.enabled=false ") and " --host 127.0.0.1 " in daemon


def test_the_package_is_zipped_with_all_its_sources_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(tmp_path / "dist/package.zip")) as file:
        names = file.namelist()
    sources = (found.relative_to(PROJECT) for found in (PROJECT / "recsys_spark").rglob("*") if found.is_file())
    left_out = {".pyc", ".properties", ".nbc", ".nbi"}
    assert set(names) == {source.as_posix() for source in sources if source.suffix not in left_out}
    assert names == sorted(names, key=Path)


def test_a_cluster_without_a_job_is_no_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROJECT / "deploy/standalone/cluster.py"), "--workers", "1", "--"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "after -- comes a job" in done.stderr
