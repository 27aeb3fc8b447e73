"""deploy/standalone/cluster.py with stand-ins for Spark's daemons: nothing that it started is left when it ends."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

# Says what a master and a worker say once they are there, and stays.
DAEMON = """#!/bin/sh
echo "New state: ALIVE"
echo "Successfully registered with master"
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
# Notes where the secret is, and comes to an end of its own when it is told to.
COMMAND = 'trap "sleep 0.3; touch told; exit 75" TERM; echo "$SPARK_CONF_DIR" >conf; echo $$ >>"$STARTED"; '


@dataclass(frozen=True)
class Started:
    """cluster.py, at work, and what it left in its folder."""

    process: subprocess.Popen[bytes]
    folder: Path

    def pids(self) -> list[int]:
        return [int(line) for line in (self.folder / "started").read_text().split()]

    def left(self) -> list[int]:
        return [pid for pid in self.pids() if Path(f"/proc/{pid}").exists()]


def start(folder: Path, command: str) -> Started:
    """Start a master, two workers and a shell command; return once that is at work."""
    for part in ("bin", "temporary"):
        (folder / part).mkdir()
    (folder / "bin/spark-class").write_text(DAEMON)
    (folder / "bin/spark-class").chmod(0o755)
    own = {"STARTED": str(folder / "started"), "TMPDIR": str(folder / "temporary"), "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), "--workers", "2", "--", "bash", "-c", COMMAND + command],
        env={**os.environ, **own}, cwd=folder,
    )  # fmt: skip
    started = Started(process, folder)
    while not ((folder / "started").exists() and len(started.pids()) == 4):
        assert process.poll() is None
        time.sleep(0.02)
    return started


def test_sigterm_ends_command_master_and_workers_and_deletes_the_secret(tmp_path: Path) -> None:
    started = start(tmp_path, "while :; do sleep 0.05; done")
    secret = Path((tmp_path / "conf").read_text().strip()) / "spark-defaults.conf"
    assert secret.exists() and len(started.left()) == 4
    started.process.terminate()
    time.sleep(0.1)
    started.process.terminate()  # a second one does not cut the end short
    assert started.process.wait(timeout=20) == 143
    assert (tmp_path / "told").exists()  # and not killed
    assert started.left() == [] and list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("code", [0, 75])
def test_the_commands_code_is_the_clusters(tmp_path: Path, code: int) -> None:
    started = start(tmp_path, f"exit {code}")
    assert started.process.wait(timeout=20) == code
    assert started.left() == [] and list((tmp_path / "temporary").iterdir()) == []
