"""Training through faults: whatever is killed or deleted on the way, the model ends at the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.standalone.cluster import cluster
from recsys_spark.als import trainer
from recsys_spark.als.passes import rows_pass
from recsys_spark.blocks import store
from recsys_spark.blocks.layout import Block
from recsys_spark.stages import train
from tests.cluster.submit import PROJECT, digest, submit
from tests.jobs.shop import AS_OF, configuration, purchases, write_csv

pytestmark = pytest.mark.cluster

EPOCHS = 10
N_BLOCKS = 6
STRUCK = 3  # the epoch at which faults happen
TRAIN = PROJECT / "jobs/train_als.py"
PYTHON = [sys.executable, str(TRAIN)]

# Where the driver dies, and the epochs that are committed by then.
POINTS = {
    "after the blocks are built": 0,
    "in the users' job": STRUCK - 1,
    "between passes": STRUCK - 1,
    "before the commit": STRUCK - 1,
    "after the commit": STRUCK,
}


def train_to(point: str, marker: str = "") -> None:
    """Run the training of the command line until it dies at a point, by real signals; for a process of its own."""
    die = partial(os.killpg, os.getpgid(0), signal.SIGKILL)  # the driver is a Python and a Java process
    if point == "after the blocks are built":
        store.build = _then(store.build, die)
    elif point == "between passes":
        trainer.MovingSystem.solve = _first(die, trainer.MovingSystem.solve, STRUCK)  # type: ignore[method-assign]
    elif point == "before the commit":
        train._save = _first(die, train._save, STRUCK)
    elif point == "after the commit":
        train._save = _then(train._save, die, STRUCK)
    else:
        strike = die if point == "in the users' job" else partial(_die_once, marker)
        trainer.rows_pass = partial(_struck_rows_pass, strike)  # type: ignore[assignment]
    raise SystemExit(train.main())


def _first(die: Callable[[], None], work: Callable[..., Any], call: int) -> Callable[..., Any]:
    """Let a function's n-th call die before it starts."""
    calls = iter(range(1, EPOCHS + 1))
    return lambda *arguments: die() if next(calls) == call else work(*arguments)


def _then(work: Callable[..., Any], die: Callable[[], None], call: int = 1) -> Callable[..., Any]:
    """Let a function's n-th call die when it has ended."""
    calls = iter(range(1, EPOCHS + 1))
    return lambda *arguments: (work(*arguments), next(calls) == call and die())[0]


def _struck_rows_pass(strike: Callable[[], None], block: Block, argument: tuple[Any, int]) -> Any:
    if argument[1] == STRUCK:
        strike()
    return rows_pass(block, argument)


def _die_once(marker: str) -> None:
    """Kill this Python worker, the first that comes here."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Shop:
    """A configuration, tables that are ready to train on, and the digest of the model that training ends at."""

    config: Path
    tables: Path
    digest: str = ""

    def copy(self, folder: Path) -> Path:
        return shutil.copytree(self.tables, folder / "tables")

    def start(self, command: list[str], tables: Path) -> subprocess.Popen[bytes]:
        """Start a job on tables, in a process group of its own; beside them are its log and what Spark keeps."""
        environment = {
            "SPARK_MASTER": "local[2]",
            "SPARK_LOCAL_DIRS": str(tables.parent / "local"),
            **os.environ,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYTHONPATH": str(PROJECT),
            "PYSPARK_PYTHON": sys.executable,
        }
        arguments = ["--config", str(self.config), "--run-id", "a", "--as-of", AS_OF.isoformat()]
        with (tables.parent / "log").open("wb") as log:
            return subprocess.Popen(
                [*command, *arguments, "--set", f"storage.root={tables}"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, process: subprocess.Popen[bytes], tables: Path, exit_code: int = 0) -> str:
        """Wait for a job's end, as which an exit code is expected, and return its log."""
        try:
            process.wait(timeout=180)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        log = (tables.parent / "log").read_text(errors="replace")
        assert process.returncode == exit_code, log[-3000:]
        return log


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    als = {"rank": 2, "epochs": EPOCHS, "alpha0": 0.05, "regularization": 0.001, "min_blocks": N_BLOCKS}
    fresh = Shop(configuration(folder, write_csv(folder / "log.csv", purchases()), als=als), folder / "tables")
    for job in ("ingest", "build_features"):
        fresh.finish(fresh.start([sys.executable, str(PROJECT / f"jobs/{job}.py")], fresh.tables), fresh.tables)
    tables = fresh.copy(tmp_path_factory.mktemp("undisturbed"))
    fresh.finish(fresh.start(PYTHON, tables), tables)
    return Shop(fresh.config, fresh.tables, digest(tables))


def launcher(point: str, *more: str) -> str:
    return f"from tests.cluster import test_faults; test_faults.train_to{(point, *more)!r}"


def wait_for_epoch(epoch: int, tables: Path, process: subprocess.Popen[bytes]) -> None:
    """Return as soon as an epoch is committed."""
    commit = tables / f"gold/item_factors/_delta_log/{epoch - 1:020}.json"
    while not commit.exists():
        assert process.poll() is None, (tables.parent / "log").read_text(errors="replace")[-3000:]
        time.sleep(0.01)


def children(parent: int) -> list[int]:
    """Return the pids of a process's children."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # a process that has ended meanwhile
            if f"\nPPid:\t{parent}\n" in status.read_text():
                found.append(int(status.parent.name))
    return found


@pytest.mark.parametrize("point", POINTS)
def test_a_driver_killed_at_any_point_goes_on_to_the_same_bytes(point: str, shop: Shop, tmp_path: Path) -> None:
    tables = shop.copy(tmp_path)
    process = shop.start([sys.executable, "-c", launcher(point)], tables)
    shop.finish(process, tables, exit_code=-signal.SIGKILL)
    log = shop.finish(shop.start(PYTHON, tables), tables)
    went_on = f"going on after epoch {POINTS[point]} of"
    assert (went_on in log) if POINTS[point] else ("going on" not in log)
    assert digest(tables) == shop.digest


def test_an_executor_killed_in_the_middle_is_replaced_and_the_model_ends_at_the_same_bytes(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = shop.copy(tmp_path)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path / "local"))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    with cluster(workers=2) as (url, workers):
        process = shop.start(submit(url, TRAIN), tables)
        wait_for_epoch(STRUCK, tables, process)
        (executor,) = children(workers[0])
        assert b"CoarseGrainedExecutorBackend" in Path(f"/proc/{executor}/cmdline").read_bytes()
        os.kill(executor, signal.SIGKILL)
        log = shop.finish(process, tables)
    assert "Lost executor" in log
    assert digest(tables) == shop.digest


def test_a_python_worker_killed_in_its_task_is_replaced_and_the_model_ends_at_the_same_bytes(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = shop.copy(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    job, marker = tmp_path / "job.py", tmp_path / "killed"
    job.write_text(launcher("a Python worker", str(marker)))
    with cluster(workers=2) as (url, _):
        shop.finish(shop.start(submit(url, job), tables), tables)
    assert marker.exists()
    assert digest(tables) == shop.digest


def test_a_deleted_block_is_built_again_and_the_model_ends_at_the_same_bytes(shop: Shop, tmp_path: Path) -> None:
    tables = shop.copy(tmp_path)
    process = shop.start(PYTHON, tables)
    wait_for_epoch(STRUCK, tables, process)
    blocks = set(tmp_path.glob("local/**/recsys-blocks/*.block"))
    assert len(blocks) == N_BLOCKS
    shutil.rmtree(min(blocks))
    wait_for_epoch(STRUCK + 2, tables, process)
    assert set(tmp_path.glob("local/**/recsys-blocks/*.block")) - blocks
    shop.finish(process, tables)
    assert digest(tables) == shop.digest
