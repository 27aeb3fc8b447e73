"""What training and ranking need of memory, counted from sizes, and what there is: what does not fit is not started.

docs/algorithm.md and docs/scoring.md ("Memory") have the same counts, docs/benchmarks.md measurements beside.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from recsys_spark.blocks.store import COLLECTED_BYTES
from recsys_spark.errors import ConfigError
from recsys_spark.workers import PIECE_BYTES

_MB = 1 << 20
_GB = 1 << 30

# A Python process with NumPy, Numba, PyArrow and pyspark imported.
INTERPRETER = 230 * _MB


@dataclass(frozen=True)
class Need:
    """What a training of n_columns moving rows at a rank needs, in blocks of so many interactions and rows.

    driver_arrays: of the moving side's size, that the driver holds at once; ALS's conjugate gradient 8.
    interaction_bytes: of a block's, mapped and decoded; more where each has a weight and a target of its own.
    """

    n_columns: int
    rank: int
    n_blocks: int
    block_interactions: int
    block_rows: int
    driver_arrays: int = 8
    interaction_bytes: int = 24

    @property
    def moving(self) -> int:
        """Bytes of one array of the moving side's size."""
        return 4 * self.n_columns * self.rank

    @property
    def worker(self) -> int:
        """Bytes of a Python worker: what it is sent, what it adds up, its result as bytes; a block and its rows.

        Building a block holds more of its interactions at once than a pass does, but no factors.
        """
        rows = 4 * self.block_rows * self.rank
        a_pass = 4 * self.moving + 2 * rows + self.interaction_bytes * self.block_interactions
        return INTERPRETER + max(a_pass, 64 * self.block_interactions)

    @property
    def results(self) -> int:
        """Bytes that a pass sends to the driver: every block's array, or their sum where executors add them."""
        parts = self.n_blocks * self.moving
        return parts if parts <= COLLECTED_BYTES else self.moving

    @property
    def driver(self) -> int:
        """Bytes of the Python driver: its arrays of the moving side, and the parts it adds up."""
        collected = min(self.n_blocks * self.moving, max(COLLECTED_BYTES, 2 * self.moving))
        return INTERPRETER + self.driver_arrays * self.moving + 2 * collected


@dataclass(frozen=True)
class Ranking:
    """What ranking by a model of n_items needs, whose factors are read from tables of these ranks, one or two.

    encrypted: are broadcasts, which a Python worker then reads at once: the factors to fold in and those to rank by.
    """

    n_items: int
    ranks: tuple[int, ...]
    encrypted: bool = False

    @property
    def read(self) -> int:
        """Bytes of the largest table of factors, which Spark sends to the driver as one result."""
        return 4 * self.n_items * max(self.ranks)

    @property
    def catalog(self) -> int:
        """Bytes of the items' factors side by side, with a column of the prior and two of a baseline."""
        return 4 * self.n_items * (sum(self.ranks) + 3)

    @property
    def worker(self) -> int:
        """Bytes of a Python worker: a piece of the factors on its way to the file that is mapped; names of items."""
        held = 2 * self.catalog if self.encrypted else min(self.catalog, PIECE_BYTES)
        return INTERPRETER + held + 120 * self.n_items

    @property
    def driver(self) -> int:
        """Bytes of the Python driver: factors as they fold histories in, as they rank, and in tiles; names of items."""
        return INTERPRETER + 3 * self.catalog + 200 * self.n_items


def interaction_bytes(objective: str) -> int:
    """Return `Need.interaction_bytes` of als.objective."""
    return 32 if objective == "hu_koren_volinsky" else 24


def krylov_arrays(most_blocks: int) -> int:
    """Return the arrays of the moving side's size that the search of singular vectors holds on the driver."""
    return 2 * most_blocks + 6  # the basis and its products; the next block


def check(spark: SparkSession, need: Need, side: str, setting: str = "als.rank", *, fixed: bool = False) -> None:
    """Raise ConfigError, with the numbers and the setting to change, where a training does not fit.

    setting: the name of the rank; fixed: the other side cannot move in the stead of this one.
    """
    what = f"{setting}: {need.rank}: {need.n_columns:,} moving {side} at this rank"
    other = "" if fixed else f" let the other side move (als.moving_side is not {side}),"
    remedy = f"lower {setting},{other} or"
    _check_result(spark, need.results, f"{what} are {{}} that each pass sends to the driver", remedy)
    _check_processes(spark, need.driver, need.worker, what, remedy, ", or lower als.block_interactions")


def check_ranking(spark: SparkSession, need: Ranking, model_id: str) -> None:
    """Raise ConfigError, with the numbers and what to change, where ranking by a model does not fit."""
    what = f"model {model_id}: {need.n_items:,} items at rank {' + '.join(map(str, need.ranks))}"
    remedy = "train at a lower rank or on fewer items (features.k_core), or"
    _check_result(spark, need.read, f"{what} are {{}} that the driver reads at once", remedy)
    _check_processes(spark, need.driver, need.worker, what, remedy)


def _check_result(spark: SparkSession, size: int, what: str, remedy: str) -> None:
    limit = _bytes(spark, str(spark.sparkContext.getConf().get("spark.driver.maxResultSize", "1g")))
    if limit and size > limit:
        raise ConfigError(
            f"{what.format(_gb(size))}, above spark.driver.maxResultSize of {_gb(limit)}: {remedy} raise that"
        )


def _check_processes(spark: SparkSession, driver: int, worker: int, what: str, remedy: str, or_else: str = "") -> None:
    context = spark.sparkContext
    conf = context.getConf()
    here = driver + (context.defaultParallelism * worker if str(context.master).startswith("local") else 0)
    there = available()
    if here > there:
        raise ConfigError(
            f"{what} need {_gb(here)} beside the JVM on this machine, which has {_gb(there)} left: {remedy} take a "
            "larger machine"
        )
    cores = int(str(conf.get("spark.executor.cores", "1")))
    for limit in ("spark.executor.pyspark.memory", "spark.executor.memoryOverhead"):
        size = conf.get(limit, None)
        if size and worker * cores > _process_bytes(spark, size):
            raise ConfigError(
                f"{what} need {_gb(worker)} in each of an executor's {cores} Python workers, above {limit} of {size}: "
                f"{remedy} raise that{or_else}"
            )


def available() -> int:
    """Return the bytes of memory that this machine, or the container around this process, has left."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return free
    # The page cache counts as used, but is given back when it is asked for.
    cached = re.findall(r"^(?:in)?active_file (\d+)$", _read("/sys/fs/cgroup/memory.stat"), re.M)
    return min(free, int(limit) - int(used) + sum(map(int, cached)))


def peak(pid: int | str = "self") -> int | None:
    """Return the most bytes of memory that a process had at once; None where the system does not tell.

    >>> peak() > 2**20, peak("nobody")
    (True, None)
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", _read(f"/proc/{pid}/status"), re.M)
    return int(found[1]) * 1024 if found else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


def _bytes(spark: SparkSession, size: str) -> int:
    utils = spark.sparkContext._jvm.org.apache.spark.network.util.JavaUtils  # type: ignore[union-attr]
    return int(utils.byteStringAsBytes(size))


def _process_bytes(spark: SparkSession, size: str) -> int:
    """Return the bytes of a process's memory, which Spark counts in MiB where it has no unit."""
    utils = spark.sparkContext._jvm.org.apache.spark.network.util.JavaUtils  # type: ignore[union-attr]
    return 2**20 * int(utils.byteStringAsMb(size))


def _gb(size: int) -> str:
    return f"{size / _GB:.1f} GB"
