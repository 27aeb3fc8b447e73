"""What a night costs at sizes that were not measured, from rates that were: the tables of docs/scaling.md.

    python -m benchmarks.cost

Every rate is a measured one (docs/benchmarks.md, benchmarks.pipeline) in core-seconds: the seconds, times the two cores
that they were measured on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from recsys_spark.memory import Need

_GB = 1e9
_HOUR = 3600

# Ingest and features, an event of a log with one row of twenty to refuse: 45.9 and 105.0 s for 20 million.
INGEST = 2 * 45.9 / 20e6
FEATURES = 2 * 105.0 / 20e6
# From a table to blocks, an interaction: "preparing", at most 2.8 s for 5 million.
BLOCK = 2 * 2.8 / 5e6
# An epoch, an interaction at rank 128: 2.54 s for 20 million.
EPOCH_128 = 2 * 2.54 / 20e6
# What an epoch moves, a byte, made, sent, received and added up: the skewed log's 20 million × 525 ns, less its
# arithmetic at rank 16, for 1.94 GB.
MOVE = (2 * 20e6 * 525e-9 - 20e6 * EPOCH_128 * 16 / 128) / 1.94e9
# Reading histories and writing lists, an interaction: 5.4 s for 5 million, all of a scoring job in one part. A
# larger log is ranked in several, each of which reads all histories: all readings but the first are left out.
LISTS = 2 * 5.4 / 5e6
# Folding in, an interaction at rank 128: 170,000 users a second, with 20 million among 200,000.
FOLD_128 = 2 / 170_000 / (20e6 / 200_000)
# Ranking, a user and item at rank 64, where norms rule out 83 % of the scores: 0.19 s for 60,000 × 10,000.
RANK_64 = 2 * 0.19 / (60_000 * 10_000)
# Comparing models, a judged user: docs/evaluation.md.
JUDGE = 20e-6
# What the driver does between passes by one thread, a byte of the moving side's array: assumed, not measured.
SERIAL = 10 / 1e9


@dataclass(frozen=True)
class Log:
    """Users, items and interactions; a night brings a hundredth of these anew, and judges a tenth of the users."""

    users: float
    items: float
    interactions: float


@dataclass(frozen=True)
class Cluster:
    """Executors of so many cores each; network: bytes a second of each executor's host, each way."""

    executors: int
    cores_each: int = 8
    network: float = 1.25e9  # 10 Gbit/s
    loss: float = 2.0  # seconds on a cluster beside those of the measured machine: stragglers, retries, slower cores

    @property
    def cores(self) -> int:
        """All of them."""
        return self.executors * self.cores_each


@dataclass(frozen=True)
class Cost:
    """A night on a cluster: hours by job, bytes that an epoch moves, and the memory that it takes."""

    blocks: int
    moved: float
    epoch: float
    hours: dict[str, float]
    worker: int
    executor_python: float
    driver_python: int
    block_disk: float


def cost(log: Log, cluster: Cluster, rank: int = 128, epochs: int = 16, passes: int = 2) -> Cost:
    """Count what a night costs. The items are the moving side: there are fewer of them.

    passes: Spark jobs of an epoch, each a broadcast of the items' array and one partial sum of its size a block.
    There is a block a core, so that a pass is one task a core.
    """
    blocks = cluster.cores
    need = Need(int(log.items), rank, blocks, int(log.interactions / blocks), int(log.users / blocks))
    moved = passes * need.moving * (blocks + cluster.executors)

    def spread(core_seconds: float) -> float:
        return cluster.loss * core_seconds / cluster.cores / _HOUR

    computed = EPOCH_128 * rank / 128 * log.interactions
    handled = max(MOVE * moved / cluster.cores, moved / (cluster.executors * cluster.network))
    epoch = cluster.loss * (computed / cluster.cores + handled) + SERIAL * need.moving
    fold = FOLD_128 * rank / 128 * log.interactions
    ranked = RANK_64 * rank / 64 * log.users * log.items
    hours = {
        "ingest": spread(INGEST * log.interactions / 100),
        "features, twice": 2 * spread(FEATURES * log.interactions),
        "blocks": spread(BLOCK * log.interactions),
        "training": epochs * epoch / _HOUR,
        "lists, three times": 3 * spread(LISTS * log.interactions + fold + ranked),
        "comparison": spread(JUDGE * log.users / 10),
    }
    workers = need.worker * cluster.cores_each
    return Cost(blocks, moved, epoch, hours, need.worker, workers, need.driver, 16 * log.interactions)


CASES = {
    "10 M": (Log(10e6, 100e3, 1e9), Cluster(4)),
    "100 M": (Log(100e6, 300e3, 10e9), Cluster(32)),
    "1 B": (Log(1e9, 1e6, 100e9), Cluster(256)),
}


def table() -> str:
    """Return the table of docs/scaling.md."""
    costs = {name: cost(log, cluster) for name, (log, cluster) in CASES.items()}
    lines: dict[str, Callable[[str], str]] = {
        "items, interactions": lambda name: f"{CASES[name][0].items:,.0f}, {CASES[name][0].interactions / 1e9:,.0f} B",
        "executors × cores": lambda name: f"{CASES[name][1].executors} × {CASES[name][1].cores_each}",
        "one array of the moving side": lambda name: f"{4 * CASES[name][0].items * 128 / 1e6:,.0f} MB",
        "moved an epoch": lambda name: f"{costs[name].moved / _GB:,.0f} GB",
        "seconds an epoch": lambda name: f"{costs[name].epoch:,.0f}",
        **{job: _minutes(costs, job) for job in next(iter(costs.values())).hours},
        "**a whole night**": lambda name: f"**{sum(costs[name].hours.values()):.1f} h**",
        "core-hours": lambda name: f"{sum(costs[name].hours.values()) * CASES[name][1].cores:,.0f}",
        "Python of an executor": lambda name: f"{costs[name].executor_python / _GB:.0f} GB",
        "Python of the driver": lambda name: f"{costs[name].driver_python / _GB:.1f} GB",
        "blocks on local disks": lambda name: f"{costs[name].block_disk / _GB:,.0f} GB",
    }
    head = f"| users | {' | '.join(CASES)} |\n|---|{'---|' * len(CASES)}\n"
    return head + "".join(
        f"| {what} | {' | '.join(value(name) for name in CASES)} |\n" for what, value in lines.items()
    )


def _minutes(costs: dict[str, Cost], job: str) -> Callable[[str], str]:
    def shown(name: str) -> str:
        minutes = 60 * costs[name].hours[job]
        return f"{minutes:.0f} min" if minutes >= 1 else "< 1 min"

    return shown


if __name__ == "__main__":
    print(table(), end="")
