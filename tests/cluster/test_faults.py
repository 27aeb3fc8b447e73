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
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from deploy.standalone.cluster import cluster
from recsys_spark.als import trainer
from recsys_spark.als.passes import rows_pass
from recsys_spark.blocks import store
from recsys_spark.blocks.layout import Block
from recsys_spark.errors import TryAgainError
from recsys_spark.stages import als, train
from tests.cluster.processes import kill_executor, running
from tests.cluster.submit import PROJECT, digest, submit
from tests.jobs.shop import AS_OF, configuration, purchases, write_csv

pytestmark = pytest.mark.cluster

EPOCHS = 8
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


def train_to(point: str, victim: str = "") -> None:
    """Run the training of the command line until a real signal strikes at a point; for a process of its own."""
    die = partial(os.killpg, os.getpgid(0), signal.SIGKILL)  # the driver is a Python and a Java process
    if point == "after the blocks are built":
        store.build = _striking(store.build, 1, after=die)
    elif point == "between passes":
        strike = partial(kill_executor, int(victim)) if victim else die
        trainer.MovingSystem.solve = _striking(trainer.MovingSystem.solve, STRUCK, before=strike)
    elif point == "before the commit":
        als._save = _striking(als._save, STRUCK, before=die)
    elif point == "after the commit":
        als._save = _striking(als._save, STRUCK, after=die)
    elif point == "in every try of the users' job":
        trainer.rows_pass = partial(_struck_rows_pass, _kill_own_executor)
    else:
        trainer.rows_pass = partial(_struck_rows_pass, partial(_die_once, victim) if victim else die)
    raise SystemExit(train.main())


def _striking(
    work: Callable[..., Any],
    call: int,
    before: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> Callable[..., Any]:
    """Strike before or after the n-th call of a function."""
    calls = count(1)

    def struck(*arguments: Any) -> Any:
        now = next(calls) == call
        if now and before:
            before()
        result = work(*arguments)
        if now and after:
            after()
        return result

    return struck


def _struck_rows_pass(strike: Callable[[], None], block: Block, argument: tuple[Any, int]) -> Any:
    if argument[1] == STRUCK:
        strike()
    return rows_pass(block, argument)


def _die_once(marker: str) -> None:
    """Kill this Python worker if it is the first that comes here."""
    with suppress(FileExistsError):
        Path(marker).touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_own_executor() -> None:
    """Kill the executor whose task this is: it has started the process that started this Python worker."""
    parents = {process.pid: process.parent for process in running()}
    os.kill(parents[os.getppid()], signal.SIGKILL)


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
            **os.environ,
            "SPARK_MASTER": "local[2]",
            "SPARK_LOCAL_DIRS": str(tables.parent / "local"),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYTHONPATH": str(PROJECT),
            "PYSPARK_PYTHON": sys.executable,
        }
        arguments = ["--config", str(self.config), "--run-id", "a", "--as-of", AS_OF.isoformat()]
        with (tables.parent / "log").open("wb") as log:
            return subprocess.Popen(
                [*command, *arguments, "--set", f"storage.root={tables}"],
                env=environment,
                cwd=tables.parent,
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
    log, deadline = tables.parent / "log", time.monotonic() + 180
    while not commit.exists():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.01)


@pytest.mark.parametrize("point", POINTS)
def test_a_driver_killed_at_any_point_goes_on_to_the_same_bytes(point: str, shop: Shop, tmp_path: Path) -> None:
    tables = shop.copy(tmp_path)
    process = shop.start([sys.executable, "-c", launcher(point)], tables)
    shop.finish(process, tables, exit_code=-signal.SIGKILL)
    log = shop.finish(shop.start(PYTHON, tables), tables)
    went_on = f"going on after epoch {POINTS[point]} of"
    assert (went_on in log) if POINTS[point] else ("going on" not in log)
    assert digest(tables) == shop.digest


@pytest.mark.parametrize("moment", ["after a commit", "between passes"])
def test_an_executor_killed_in_an_epoch_is_replaced_and_the_model_ends_at_the_same_bytes(
    moment: str, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, job = shop.copy(tmp_path), tmp_path / "job.py"
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    with cluster(workers=2) as (url, workers):
        job.write_text(launcher(moment, str(workers[0])))
        process = shop.start(submit(url, TRAIN if moment == "after a commit" else job), tables)
        if moment == "after a commit":
            wait_for_epoch(STRUCK, tables, process)
            kill_executor(workers[0])
        log = shop.finish(process, tables)
    assert "Lost executor" in log
    assert digest(tables) == shop.digest


def test_executors_lost_again_and_again_say_try_again_and_the_rerun_ends_at_the_same_bytes(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, job = shop.copy(tmp_path), tmp_path / "job.py"
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    job.write_text(launcher("in every try of the users' job"))
    tries = ("--conf", "spark.task.maxFailures=2")  # a new executor takes its time
    with cluster(workers=2) as (url, _):
        log = shop.finish(shop.start(submit(url, job, *tries), tables), tables, exit_code=TryAgainError.exit_code)
        assert "executors were lost again and again" in log and "raise spark.executor.memoryOverhead" in log
        log = shop.finish(shop.start(submit(url, TRAIN), tables), tables)
    assert f"going on after epoch {STRUCK - 1} of" in log
    assert digest(tables) == shop.digest


def test_a_python_worker_killed_in_its_task_is_replaced_and_the_model_ends_at_the_same_bytes(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, job, marker = shop.copy(tmp_path), tmp_path / "job.py", tmp_path / "killed"
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    job.write_text(launcher("in the users' job", str(marker)))
    with cluster(workers=2) as (url, _):
        shop.finish(shop.start(submit(url, job), tables), tables)
    assert marker.exists()
    assert digest(tables) == shop.digest


def test_a_python_worker_killed_on_one_machine_says_try_again_and_the_rerun_ends_at_the_same_bytes(
    shop: Shop, tmp_path: Path
) -> None:
    tables, point, marker = shop.copy(tmp_path), "in the users' job", tmp_path / "killed"
    process = shop.start([sys.executable, "-c", launcher(point, str(marker))], tables)
    log = shop.finish(process, tables, exit_code=TryAgainError.exit_code)
    assert marker.exists() and "a Python worker was killed" in log
    log = shop.finish(shop.start(PYTHON, tables), tables)
    assert f"going on after epoch {POINTS[point]} of" in log
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
