"""A night with faults: signals, kills, full and read-only disks, broken tables, two runs at once.

Every fault ends with the exit code that docs/operations.md says, no published table shows half a run, and the same
command with the same run id then ends at the tables of an undisturbed run.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import deltalake
import pytest
from pyspark.sql import DataFrame

from deploy.standalone.cluster import cluster
from recsys_spark.stages import evaluate, features, ingest, pipeline, score, train, tune
from recsys_spark.tables import Tables
from tests.cluster.processes import at_work, children, executors, kill_executor
from tests.cluster.submit import PROJECT, submit
from tests.jobs.shop import AS_OF, configuration, purchases, write_csv

pytestmark = pytest.mark.cluster

JOBS: dict[str, Callable[[], int]] = {
    "ingest": ingest.main,
    "build_features": features.main,
    "train_als": train.main,
    "score_topk": score.main,
    "evaluate": evaluate.main,
    "tune": tune.main,
    "pipeline": pipeline.main,
}
STAGES = list(pipeline.STAGES)
# By job, the one that leaves the tables that it begins with.
BEFORE = dict(zip(STAGES[1:], STAGES, strict=False)) | {"tune": "build_features"}
PYTHON = [sys.executable, "-c"]

# What says when and where a run was, and tables that are not published, or grow by a commit a step.
VOLATILE = {"seconds", "spectral_seconds", "_ingested_at", "decided_at", "config", "inputs"}
UNPUBLISHED = {"gold.runs", "gold.recommendations_parts"}
BY_STEPS = {"gold.item_factors", "gold.spectral_steps", "gold.trials"}
SPECTRAL = ("--set", "model.kind=spectral", "--set", "spectral.rank=2")

State = dict[str, list[str]]


def state(tables: Path) -> State:
    """Return the rows of every published table, in an order of their own, without what differs between any two runs."""
    found = {}
    for log in sorted({commit.parent for commit in tables.glob("*/*/_delta_log/*.json")}):
        name = f"{log.parent.parent.name}.{log.parent.name}"
        if name not in UNPUBLISHED:
            rows = deltalake.DeltaTable(str(log.parent)).to_pyarrow_table().to_pylist()
            kept = ({key: value for key, value in row.items() if key not in VOLATILE} for row in rows)
            found[name] = sorted(json.dumps(row, default=str, sort_keys=True) for row in kept)
    return found


def past_runs(tables: Path) -> list[dict[str, Any]]:
    rows = deltalake.DeltaTable(str(tables / "gold/runs")).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: row["started_at"])


@dataclass(frozen=True)
class Ended:
    """A job as an orchestrator sees it: its exit code, the object on stdout's last line, its log."""

    exit_code: int
    summary: dict[str, Any]
    log: str


@dataclass(frozen=True)
class Shop:
    """A configuration, and the tables after jobs that nothing disturbed: first those of a pipeline's stages."""

    config: Path
    snapshots: Path
    states: dict[str, State]

    def before(self, name: str, folder: Path) -> Path:
        """Copy the tables that a job begins with."""
        return self.after(BEFORE[name], folder) if name in BEFORE else folder / "tables"

    def after(self, name: str, folder: Path, *options: str) -> Path:
        """Copy the tables that a job leaves which nothing disturbs."""
        self.end_of(name, *options)
        return shutil.copytree(self.snapshots / "".join((name, *options)), folder / "tables")

    def end_of(self, name: str, *options: str) -> State:
        """Return the state in which a job ends that nothing disturbs."""
        key = "".join((name, *options))
        if key not in self.states:
            folder = self.snapshots.parent / f"{key}-undisturbed"
            tables = self.before(name, folder)
            self.run(job(name), tables, *options)
            self.states[key] = state(tables)
            tables.rename(self.snapshots / key)
        return self.states[key]

    def start(
        self, command: list[str], tables: Path, *more: str, run_id: str = "a", words: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a job in a process group of its own; its words and what Spark keeps are beside the tables."""
        beside = (words or tables.parent) / f"run-{run_id}-{time.monotonic_ns()}"
        beside.mkdir(parents=True)
        environment = {
            **os.environ,
            "SPARK_MASTER": "local[2]",
            "SPARK_LOCAL_DIRS": os.environ.get("SPARK_LOCAL_DIRS", str(beside / "local")),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYTHONPATH": str(PROJECT),
            "PYSPARK_PYTHON": sys.executable,
        }
        arguments = ["--config", str(self.config), "--run-id", run_id, "--as-of", AS_OF.isoformat(), *more]
        with (beside / "stdout").open("wb") as out, (beside / "stderr").open("wb") as err:
            process = subprocess.Popen(
                [*command, *arguments, "--set", f"storage.root={tables}"],
                env=environment, cwd=beside, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
        process.beside = beside  # type: ignore[attr-defined]
        return process

    def end(self, process: subprocess.Popen[bytes], seconds: float = 240) -> Ended:
        """Wait for a job's end."""
        try:
            process.wait(timeout=seconds)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        out, err = ((process.beside / name).read_text(errors="replace") for name in ("stdout", "stderr"))  # type: ignore[attr-defined]
        lines = out.splitlines()
        summary = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        return Ended(process.returncode, summary, f"{out}\n{err}")

    def run(self, command: list[str], tables: Path, *more: str, exit_code: int = 0, run_id: str = "a") -> Ended:
        """Run a job to its end, which is expected to be as an exit code says."""
        ended = self.end(self.start(command, tables, *more, run_id=run_id))
        assert ended.exit_code == exit_code, ended.log[-4000:]
        assert not ended.summary or ended.summary["exit_code"] == exit_code
        return ended


def job(name: str) -> list[str]:
    """The command of a job as people run it."""
    return [sys.executable, str(PROJECT / f"jobs/{name}.py")]


def struck(*arguments: object) -> str:
    """The program of a job that meets a fault."""
    return f"from tests.cluster import test_operations; test_operations.strike{tuple(map(str, arguments))!r}"


def strike(name: str, table: str, when: str, fault: str, *arguments: str) -> None:
    """Run a job of the command line that meets a fault where it writes, or reads, a table; for its own process."""
    act = partial(FAULTS[fault], *arguments)
    writes = ("write_slice", "append_step", "extend", "write_bronze")
    for method in ("read",) if when == "on reading" else writes:
        setattr(Tables, method, _struck(getattr(Tables, method), table, when, act))
    raise SystemExit(JOBS[name]())


def _struck(work: Callable[..., Any], table: str, when: str, act: Callable[..., Any]) -> Callable[..., Any]:
    done: list[str] = []

    def works(self: Tables, *arguments: Any) -> Any:
        mine = not done and table == (arguments[0] if isinstance(arguments[0], str) else "bronze.events")
        if mine and when == "within":
            arguments = tuple(act(each) if isinstance(each, DataFrame) else each for each in arguments)
        if mine and when in ("before", "on reading"):
            act()
        result = work(self, *arguments)
        if mine and when == "after":
            act()
        if mine:
            done.append(when)
        return result

    return works


def _slowly(marker: str, frame: DataFrame) -> DataFrame:
    """Make a frame take minutes, and leave a marker as soon as a task works on it."""

    def batches(given: Iterator[Any]) -> Iterator[Any]:
        Path(marker).touch()
        time.sleep(120)
        yield from given

    return frame.mapInArrow(batches, frame.schema)


def _overtaken(table: str, calls: str, times: str, frame: DataFrame) -> DataFrame:
    """Let another writer put one row in a table's place while a frame is written to it, so many times."""

    def batches(given: Iterator[Any]) -> Iterator[Any]:
        with Path(calls).open("a") as file:
            file.write(".")
        if Path(calls).stat().st_size <= int(times):
            rows = deltalake.DeltaTable(table).to_pyarrow_table()
            deltalake.write_deltalake(table, rows[:1], mode="overwrite")
        yield from given

    return frame.mapInArrow(batches, frame.schema)


def _remount(options: str, folder: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


FAULTS: dict[str, Callable[..., Any]] = {
    "die": lambda: os.killpg(os.getpgid(0), signal.SIGKILL),  # the driver is a Python and a Java process
    "kill executor": lambda worker: kill_executor(int(worker)),
    "kill worker": lambda worker: os.kill(int(worker), signal.SIGKILL),
    "delete": shutil.rmtree,
    "work slowly": _slowly,
    "overtake": _overtaken,
    "remount": _remount,
}


def keep_snapshots(folder: str) -> None:
    """Run the pipeline and copy the tables after each stage; for a process of its own."""

    def keeping(name: str, stage: Callable[[Any], None]) -> Callable[[Any], None]:
        def kept(run: Any) -> None:
            stage(run)
            shutil.copytree(run.tables.root, Path(folder) / name)

        return kept

    for name, stage in pipeline.STAGES.items():
        pipeline.STAGES[name] = keeping(name, stage)
    raise SystemExit(pipeline.main())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    config = configuration(
        folder,
        write_csv(folder / "log.csv", purchases()),
        als={"rank": 2, "epochs": 3, "alpha0": 0.05, "regularization": 0.001, "min_blocks": 2},
        topk={"k": 3, "chunk_interactions": 100},
        tune={"windows": 1, "horizon": "10d", "trials": 2, "users": 24, "ranks": [2], "epochs": [2], "kinds": ["als"],
              "half_lives": [1], "popularity_half_lives": [1]},
        storage={},
    )  # fmt: skip
    fresh = Shop(config, folder / "snapshots", {})
    program = f"from tests.cluster import test_operations; test_operations.keep_snapshots({str(fresh.snapshots)!r})"
    fresh.run([*PYTHON, program], folder / "tables")
    fresh.states.update({name: state(fresh.snapshots / name) for name in STAGES})
    assert all(fresh.states["evaluate"][name] for name in ("gold.metrics", "gold.recommendations", "gold.models"))
    return fresh


def assert_nothing_is_half_published(tables: Path, name: str, shop: Shop, *options: str) -> None:
    """Every table is as it was before the job, or as the undisturbed job leaves it."""
    before = shop.end_of(BEFORE[name]) if name in BEFORE else {}
    after = shop.end_of(name, *options)
    for table, rows in state(tables).items():
        if table not in BY_STEPS:
            assert rows in ([], before.get(table, []), after.get(table, [])), table


def wait_for(marker: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while not marker.exists():
        assert process.poll() is None and time.monotonic() < deadline, "the job ended before the fault"
        time.sleep(0.05)


# The table in whose writing each job is asked to end.
SLOW = {
    "ingest": "bronze.events",
    "build_features": "silver.interactions",
    "train_als": "gold.item_factors",
    "score_topk": "gold.recommendations",
    "evaluate": "gold.metrics",
    "tune": "gold.trials",
}


@pytest.mark.parametrize(
    ("name", "number", "whom"),
    [
        *((name, signal.SIGTERM, "Python") for name in SLOW),
        ("train_als", signal.SIGTERM, "the process group"),
        ("score_topk", signal.SIGINT, "Python"),
    ],
)
def test_a_job_that_is_asked_to_end_does_so_in_30_seconds_and_can_be_run_again(
    name: str, number: signal.Signals, whom: str, shop: Shop, tmp_path: Path
) -> None:
    tables, marker = shop.before(name, tmp_path), tmp_path / "working"
    process = shop.start([*PYTHON, struck(name, SLOW[name], "within", "work slowly", marker)], tables)
    wait_for(marker, process)
    asked = time.monotonic()
    os.kill(process.pid, number) if whom == "Python" else os.killpg(process.pid, number)
    ended = shop.end(process)
    assert time.monotonic() - asked < 30
    assert ended.exit_code == 75, ended.log[-4000:]
    word = "terminated by SIGTERM" if number == signal.SIGTERM else "interrupted"
    assert (ended.summary["status"], word in ended.summary["error"]) == ("try_again", True)
    assert_nothing_is_half_published(tables, name, shop)
    if whom == "Python":
        last = past_runs(tables)[-1]
        assert (last["job"], last["stage"], last["status"], last["exit_code"]) == (name, name, "try_again", 75)
    shop.run(job(name), tables)
    assert state(tables) == shop.end_of(name)


@pytest.mark.parametrize(
    ("name", "when", "table"),
    [
        ("ingest", "before", "bronze.events"),
        ("ingest", "after", "bronze.events"),
        ("build_features", "after", "silver.quarantine"),
        ("build_features", "after", "gold.user_ids"),
        ("build_features", "after", "gold.user_features"),
        ("build_features", "after", "gold.item_features"),
        ("build_features", "before", "silver.interactions"),
        ("build_features", "after", "silver.interactions"),
        ("build_features", "before", "gold.profile"),
        ("train_als", "before", "gold.models"),
        ("train_als", "after", "gold.models"),
        ("score_topk", "after", "gold.recommendations_parts"),
        ("score_topk", "before", "gold.recommendations"),
        ("score_topk", "after", "gold.recommendations"),
        ("evaluate", "before", "gold.metrics"),
        ("evaluate", "after", "gold.metrics"),
        ("evaluate", "after", "gold.exposure"),
        ("tune", "before", "gold.trials"),
        ("tune", "after", "gold.trials"),
    ],
)
def test_a_driver_killed_at_any_phase_leaves_no_half_tables_and_its_rerun_ends_as_if_nothing_had_been(
    name: str, when: str, table: str, shop: Shop, tmp_path: Path
) -> None:
    tables = shop.before(name, tmp_path)
    shop.run([*PYTHON, struck(name, table, when, "die")], tables, exit_code=-signal.SIGKILL)
    assert_nothing_is_half_published(tables, name, shop)
    again = shop.run(job(name), tables)
    if (name, when) == ("score_topk", "after"):
        assert ("1 of 3 parts are there" if table.endswith("parts") else "are there already") in again.log
    if (name, when) == ("tune", "after"):
        assert "going on after trial 1" in again.log
    assert state(tables) == shop.end_of(name)
    parts = tables / "gold/recommendations_parts"
    assert not parts.exists() or not deltalake.DeltaTable(str(parts)).to_pyarrow_table().num_rows


@pytest.mark.parametrize(
    ("when", "table"),
    [("after", "gold.spectral_steps"), ("before", "gold.item_vectors"), ("after", "gold.item_vectors")],
)
def test_a_driver_killed_while_it_looks_for_singular_vectors_goes_on_to_the_same_model(
    when: str, table: str, shop: Shop, tmp_path: Path
) -> None:
    tables = shop.before("train_als", tmp_path)
    shop.run([*PYTHON, struck("train_als", table, when, "die")], tables, *SPECTRAL, exit_code=-signal.SIGKILL)
    assert_nothing_is_half_published(tables, "train_als", shop, *SPECTRAL)
    again = shop.run(job("train_als"), tables, *SPECTRAL)
    assert ("spectral: going on after step" in again.log) == ((when, table) != ("after", "gold.item_vectors"))
    assert state(tables) == shop.end_of("train_als", *SPECTRAL)


def test_a_driver_whose_jvm_is_killed_says_try_again(shop: Shop, tmp_path: Path) -> None:
    tables, marker = shop.before("train_als", tmp_path), tmp_path / "working"
    slow = struck("train_als", "gold.item_factors", "within", "work slowly", marker)
    process = shop.start([*PYTHON, slow], tables)
    wait_for(marker, process)
    (jvm,) = children(process.pid, "org.apache.spark.deploy.SparkSubmit")
    os.kill(jvm, signal.SIGKILL)
    ended = shop.end(process)
    assert ended.exit_code == 75, ended.log[-4000:]
    assert (ended.summary["status"], "Spark came to an end" in ended.summary["error"]) == ("try_again", True)
    shop.run(job("train_als"), tables)
    assert state(tables) == shop.end_of("train_als")


@pytest.mark.parametrize(
    ("when", "table"),
    [("before", "gold.comparisons"), ("after", "gold.comparisons"), ("after", "gold.champion")],
)
def test_a_driver_killed_around_its_decision_decides_once_and_by_the_same_comparison(
    when: str, table: str, shop: Shop, tmp_path: Path
) -> None:
    tables = shop.before("evaluate", tmp_path)
    shop.run([*PYTHON, struck("evaluate", table, when, "die")], tables, "--promote", exit_code=-signal.SIGKILL)
    assert ("gold.champion" in state(tables)) == (table == "gold.champion")
    assert_nothing_is_half_published(tables, "evaluate", shop, "--promote")
    shop.run(job("evaluate"), tables, "--promote")
    found = state(tables)
    (decision,) = map(json.loads, found["gold.champion"])
    assert decision["comparison_id"] == decision["run_id"] == "a"
    assert found == shop.end_of("evaluate", "--promote")


@pytest.mark.parametrize("victim", ["executor", "worker"])
@pytest.mark.parametrize(
    ("name", "when", "table"),
    [
        ("ingest", "before", "bronze.events"),
        ("build_features", "before", "silver.interactions"),
        ("train_als", "before", "gold.item_factors"),
        ("score_topk", "before", "gold.recommendations_parts"),
        ("evaluate", "before", "gold.metrics"),
        ("tune", "on reading", "gold.user_ids"),  # when a window's pairs are cached on both executors
    ],
)
def test_an_executor_or_worker_killed_in_a_job_is_made_up_for(
    name: str, when: str, table: str, victim: str, shop: Shop, tmp_path: Path
) -> None:
    tables, program = shop.before(name, tmp_path), tmp_path / "job.py"
    with cluster(workers=2) as (url, workers):
        program.write_text(struck(name, table, when, f"kill {victim}", workers[0]))
        ended = shop.run(submit(url, program), tables)
    assert "Lost executor" in ended.log
    assert state(tables) == shop.end_of(name)


@pytest.mark.parametrize(
    ("name", "whom", "exit_code"),
    [
        ("train_als", "Python", 75),
        ("score_topk", "Python", 75),
        ("train_als", "spark-submit", 143),  # the JVM's own code: no job can give it another one
        ("score_topk", "the process group", 143),
    ],
)
def test_a_job_on_a_cluster_that_is_asked_to_end_does_so_in_30_seconds_and_leaves_no_executor(
    name: str, whom: str, exit_code: int, shop: Shop, tmp_path: Path
) -> None:
    tables, program, marker = shop.before(name, tmp_path), tmp_path / "job.py", tmp_path / "working"
    program.write_text(struck(name, SLOW[name], "within", "work slowly", marker))
    with cluster(workers=2) as (url, workers):
        process = shop.start(submit(url, program), tables)
        wait_for(marker, process)
        (python,) = children(process.pid, str(program))
        deadline = time.monotonic() + 30
        if whom == "the process group":
            os.killpg(process.pid, signal.SIGTERM)
        else:
            os.kill(python if whom == "Python" else process.pid, signal.SIGTERM)
        ended = shop.end(process)
        while executors(workers) or at_work(python):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert time.monotonic() < deadline
        assert ended.exit_code == exit_code, ended.log[-4000:]
        assert_nothing_is_half_published(tables, name, shop)
        if whom == "Python":
            assert (ended.summary["status"], ended.summary["exit_code"]) == ("try_again", 75)
            assert past_runs(tables)[-1]["status"] == "try_again"
        shop.run(submit(url, PROJECT / f"jobs/{name}.py"), tables)
    assert state(tables) == shop.end_of(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of a size that a pipeline does not find enough."""
    yield from mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=300k", "tmpfs")


def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_under_the_tables_ends_a_run_as_unavailable_and_more_space_mends_it(
    shop: Shop, small_disk: Path
) -> None:
    tables = small_disk / "tables"
    ended = shop.run(job("pipeline"), tables, exit_code=69)
    assert "a disk is full" in ended.summary["error"] and ended.summary["status"] == "unavailable"
    assert_nothing_is_half_published(tables, "evaluate", shop)
    _remount("size=64m", str(small_disk))
    shop.run(job("pipeline"), tables)
    assert state(tables) == shop.end_of("evaluate")


def test_a_full_disk_under_sparks_local_directories_ends_a_run_as_unavailable(
    shop: Shop, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = shop.before("train_als", tmp_path)
    (small_disk / "filler").write_bytes(bytes(280 * 1024))
    with monkeypatch.context() as patch:
        patch.setenv("SPARK_LOCAL_DIRS", str(small_disk))
        ended = shop.run(job("train_als"), tables, exit_code=69)
    assert "a disk is full" in ended.summary["error"]
    assert_nothing_is_half_published(tables, "train_als", shop)
    shop.run(job("train_als"), tables)
    assert state(tables) == shop.end_of("train_als")


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "behind").mkdir()
    yield from mounted(tmp_path / "bound", "--bind", str(tmp_path / "behind"))


def test_tables_that_can_only_be_read_from_a_moment_on_end_a_run_and_writable_ones_mend_it(
    shop: Shop, bound: Path
) -> None:
    tables, words = shop.before("score_topk", bound), bound.parent / "words"
    strikes = struck("score_topk", "gold.recommendations", "before", "remount", "ro,bind", bound)
    ended = shop.end(shop.start([*PYTHON, strikes], tables, words=words))
    assert (ended.exit_code, ended.summary["status"]) == (69, "unavailable"), ended.log[-4000:]
    assert "can only be read" in ended.summary["error"]
    assert "warning: gold.runs lacks this run" in ended.log
    assert_nothing_is_half_published(tables, "score_topk", shop)
    refused = shop.end(shop.start(job("score_topk"), tables, words=words))
    assert (refused.exit_code, "storage.root" in refused.summary["error"]) == (78, True)
    _remount("rw,bind", str(bound))
    shop.run(job("score_topk"), tables)
    assert state(tables) == shop.end_of("score_topk")


def test_two_pipelines_at_once_on_one_root_both_end_and_no_event_counts_twice(shop: Shop, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    both = [shop.start(job("pipeline"), tables, run_id=run_id) for run_id in ("a", "b")]
    for process in both:
        ended = shop.end(process)
        assert ended.exit_code == 0, ended.log[-4000:]
    found, alone = state(tables), shop.end_of("evaluate")
    for name in ("bronze.events", "silver.interactions", "gold.user_features", "gold.item_features", "gold.profile"):
        assert found[name] == alone[name], name
    for name in ("gold.user_ids", "gold.item_ids"):
        assert len(found[name]) == len(alone[name])
    for name in ("gold.recommendations", "gold.metrics", "gold.models"):
        assert len(found[name]) == 2 * len(alone[name]), name
    for run_id in ("a", "b"):
        mine = [json.loads(row) for row in found["gold.recommendations"] if json.loads(row)["model_id"] == run_id]
        lists = {row["user_id"]: [item["item_id"] for item in row["items"]] for row in mine}
        first = {
            json.loads(row)["user_id"]: json.loads(row)["items"][0]["item_id"] for row in alone["gold.recommendations"]
        }
        assert {user: items[0] for user, items in lists.items()} == first
    assert {(row["run_id"], row["status"]) for row in past_runs(tables)} == {("a", "ok"), ("b", "ok")}


def test_two_pipelines_of_one_run_id_at_once_leave_the_tables_of_one(shop: Shop, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    both = [shop.start(job("pipeline"), tables) for _ in range(2)]
    ends = [shop.end(process) for process in both]
    codes = sorted(ended.exit_code for ended in ends)
    assert codes[0] == 0 and codes[1] in (0, 75, 78), "\n".join(ended.log[-3000:] for ended in ends)
    assert state(tables) == shop.end_of("evaluate")


@pytest.mark.parametrize("times", [1, 99])
def test_a_commit_that_another_writer_comes_before_is_tried_again_and_five_times_at_most(
    times: int, shop: Shop, tmp_path: Path
) -> None:
    tables, calls = shop.after("evaluate", tmp_path, "--promote"), tmp_path / "calls"
    overtaken = tables / "gold/comparisons"
    program = struck("evaluate", "gold.comparisons", "within", "overtake", overtaken, calls, times)
    ended = shop.run([*PYTHON, program], tables, "--promote", exit_code=0 if times == 1 else 75)
    found, alone = state(tables), shop.end_of("evaluate", "--promote")
    if times > 1:
        assert "gold.comparisons: another writer came first 5 times" in ended.summary["error"]
        (others,) = found.pop("gold.comparisons")
        assert others in alone["gold.comparisons"] and found.items() <= alone.items()
        shop.run(job("evaluate"), tables, "--promote")
        found = state(tables)
    assert calls.read_text() == "." * (2 if times == 1 else 5)
    assert found == alone


@pytest.mark.parametrize(
    ("table", "name", "writer"),
    [
        ("bronze.events", "build_features", "bronze.events"),
        ("silver.interactions", "train_als", "build_features"),
        ("gold.item_ids", "train_als", "gold.item_ids"),
        ("gold.models", "score_topk", "train_als"),
        ("gold.item_factors", "score_topk", "gold.item_factors"),
        ("gold.recommendations", "evaluate", "gold.recommendations"),
    ],
)
def test_a_table_deleted_between_two_stages_is_named_with_the_job_that_writes_it(
    table: str, name: str, writer: str, shop: Shop, tmp_path: Path
) -> None:
    tables = shop.before(name, tmp_path)
    shutil.rmtree(tables / table.replace(".", "/"))
    ended = shop.run(job(name), tables, exit_code=65)
    assert writer in ended.summary["error"] and "Traceback" not in ended.log
    assert past_runs(tables)[-1]["status"] == "bad_data"


def break_files(table: Path) -> None:
    """Overwrite the middle of every data file, and its footer."""
    files = [table / path for path in deltalake.DeltaTable(str(table)).file_uris()]
    assert files
    for file in files:
        file.write_bytes(b"PAR1" + bytes(file.stat().st_size - 8) + b"PAR0")
        file.with_name(f".{file.name}.crc").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("table", "reader", "mends"),
    [
        ("silver.interactions", "train_als", ["build_features", "--anew"]),
        ("gold.recommendations", "evaluate", ["score_topk", "--anew"]),
    ],
)
def test_a_broken_file_of_a_table_is_told_and_the_job_that_writes_it_mends_it(
    table: str, reader: str, mends: list[str], shop: Shop, tmp_path: Path
) -> None:
    tables = shop.before(reader, tmp_path)
    break_files(tables / table.replace(".", "/"))
    ended = shop.run(job(reader), tables, exit_code=65)
    assert "missing or broken" in ended.summary["error"] and ".parquet" in ended.summary["error"]
    name, *more = mends
    shop.run(job(name), tables, *more)
    shop.run(job(reader), tables)
    assert state(tables) == shop.end_of(reader)
