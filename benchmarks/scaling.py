"""Seconds per interaction and bytes moved an epoch, as interactions and users grow, and with extreme users and items.

    python -m benchmarks.scaling --json data/bench-scaling.json --plot docs/images/scaling.svg
    python -m benchmarks.scaling --skew --json data/bench-skew.json

The number of blocks is the same throughout. Bytes are those of Spark's event log: results, shuffles, broadcasts.
With --skew a user who has 2 million items, and an item that every user has, stand in for as many interactions of
others.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.events import SETTINGS, moved
from benchmarks.machine import machine
from benchmarks.synthetic import interactions
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.objective import Ials
from recsys_spark.als.trainer import Settings, train
from recsys_spark.blocks import store
from recsys_spark.session import spark_session

Row = dict[str, float]

# (users, items, interactions): interactions grow at fixed sides, then users with them.
SIZES = [(200_000, 20_000, n * 10**6) for n in (5, 10, 20, 50)]
SIZES += [(n * 10_000, 20_000, n * 10**6) for n in (5, 10, 50)]


def measure(table: pa.Table, n_items: int, rank: int, epochs: int, n_blocks: int) -> Row:
    """Train in a session of its own: the median epoch's seconds, nanoseconds per interaction, and bytes moved."""
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, f"{folder}/interactions.parquet")
        Path(folder, "log").mkdir()
        settings = {**SETTINGS, "spark.eventLog.dir": f"file://{folder}/log", "spark.driver.memory": "6g"}
        spark = spark_session("benchmark: scaling", settings=settings)
        frame = spark.read.parquet(f"{folder}/interactions.parquet")
        blocks = store.build(frame, np.arange(n_items, dtype=np.int32), n_blocks)
        start = initial_factors(np.arange(n_items), rank, 1, 0.1)
        done = list(train(blocks, start, Ials(0.1, 0.003), Settings(epochs)))
        blocks.close()
        spark.stop()
        by_job = moved(next(Path(folder, "log").iterdir()))
    seconds = statistics.median(epoch.seconds for epoch in done[2:])
    last = f"epoch {epochs} of {epochs}: "
    return {
        "interactions": table.num_rows,
        "users": len(np.unique(table.column("row").to_numpy())),
        "seconds": seconds,
        "ns_per_interaction": seconds / table.num_rows * 1e9,
        "jobs": done[-1].jobs,
        "megabytes_moved": sum(size for job, size in by_job.items() if job.startswith(last)) / 1e6,
    }


def skewed(n_users: int, n_items: int, n: int, heavy: bool) -> pa.Table:
    """Return interactions, uniform over items; if heavy, user 0 has 2 million items and item 0 every user."""
    rng = np.random.default_rng(1)
    pairs = [rng.integers(0, n_users, n) * n_items + rng.integers(0, n_items, n)]
    if heavy:
        pairs = [pairs[0][: n - 2_000_000 - n_users], np.arange(2_000_000), np.arange(n_users) * n_items]
    distinct = np.unique(np.concatenate(pairs))
    row, column = (distinct // n_items).astype(np.int32), (distinct % n_items).astype(np.int32)
    return pa.table({"row": row, "column": column, "value": np.ones(len(distinct), np.float32)})


def plot(rows: list[Row], path: Path) -> None:
    """Draw seconds and megabytes by interactions."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for name, part in (("200,000 users", rows[:4]), ("100 interactions a user", rows[4:])):
        millions = [row["interactions"] / 1e6 for row in part]
        left.plot(millions, [row["seconds"] for row in part], marker="o", label=name)
        right.plot(millions, [row["megabytes_moved"] for row in part], marker="o", label=name)
    left.set(xlabel="million interactions", ylabel="seconds an epoch", ylim=0)
    right.set(xlabel="million interactions", ylabel="MB moved an epoch", ylim=0)
    left.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Measure, print a table, and write it as JSON and a plot."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("--rank", type=int, default=64)
    cli.add_argument("--epochs", type=int, default=8)
    cli.add_argument("--skew", action="store_true")
    cli.add_argument("--json", type=Path)
    cli.add_argument("--plot", type=Path)
    given = cli.parse_args()
    n_blocks = 2 * (os.cpu_count() or 1)
    if given.skew:
        rows = [
            measure(skewed(100_000, 2_100_000, 20_000_000, heavy), 2_100_000, 16, given.epochs, 2 * n_blocks)
            for heavy in (False, True)
        ]
        ratios = {"skewed_vs_even": rows[1]["ns_per_interaction"] / rows[0]["ns_per_interaction"]}
    else:
        rows = [measure(interactions(*size), size[1], given.rank, given.epochs, n_blocks) for size in SIZES]
        ratios = {
            "ns_per_interaction_50M_vs_5M": rows[3]["ns_per_interaction"] / rows[0]["ns_per_interaction"],
            "megabytes_moved_50M_vs_5M": rows[3]["megabytes_moved"] / rows[0]["megabytes_moved"],
        }
    for row in rows:
        print(
            "  ".join(f"{name} {value:,.4g}" if value < 1e4 else f"{name} {value:,.0f}" for name, value in row.items())
        )
    print("  ".join(f"{name} {value:.3f}" for name, value in ratios.items()))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        arguments = {"rank": given.rank, "epochs": given.epochs, "skew": given.skew}
        result = {"machine": machine(), "arguments": arguments, "rows": rows, "ratios": ratios}
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
