"""Seconds an epoch of ALS, beside implicit and Spark MLlib, on the same interactions, cores and session.

    python -m benchmarks.train --users 60000 --items 10000 --interactions 5000000 --rank 64 --peers implicit,mllib

An epoch's time is the median of those after the first. implicit runs with one BLAS thread and as many threads as
cores; MLlib on a cached input, as the difference of two fits divided by their difference in iterations.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from threadpoolctl import threadpool_limits

from benchmarks.machine import machine
from benchmarks.synthetic import interactions
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.objective import Ials
from recsys_spark.als.trainer import Settings, train
from recsys_spark.blocks import store
from recsys_spark.config import Als
from recsys_spark.session import spark_session

ALPHA0, REGULARIZATION = 0.1, 0.003


@contextmanager
def timed(rows: dict[str, float], name: str) -> Iterator[None]:
    """Put the seconds of a with-block under a name."""
    started = time.perf_counter()
    yield
    rows[name] = time.perf_counter() - started


def ours(frame: DataFrame, n: int, n_items: int, rank: int, epochs: int) -> dict[str, float]:
    """Train by this package: seconds from DataFrame to blocks, and an epoch's median."""
    rows: dict[str, float] = {}
    defaults = Als()
    with timed(rows, "prepare"):
        n_blocks = store.n_blocks(n, defaults.block_interactions, defaults.min_blocks)
        blocks = store.build(frame, np.arange(n_items, dtype=np.int32), n_blocks)
    start = initial_factors(np.arange(n_items), rank, 1, 0.1)
    done = list(train(blocks, start, Ials(ALPHA0, REGULARIZATION), Settings(epochs)))
    rows["epoch"] = statistics.median(epoch.seconds for epoch in done[1:])
    blocks.close()
    return rows


def implicit(table: pa.Table, shape: tuple[int, int], rank: int, epochs: int, cg: bool) -> dict[str, float]:
    """Train by implicit, conjugate gradient with 3 steps or Cholesky."""
    import scipy.sparse as sp
    from implicit.als import AlternatingLeastSquares

    row, column, value = (table.column(name).to_numpy() for name in ("row", "column", "value"))
    matrix = sp.csr_matrix((value, (row, column)), shape)
    model = AlternatingLeastSquares(
        factors=rank, iterations=epochs, regularization=1.0, dtype=np.float32, use_cg=cg, use_gpu=False,
        num_threads=os.cpu_count(), random_state=1,
    )  # fmt: skip
    seconds: list[float] = []
    with threadpool_limits(1):
        model.fit(matrix, show_progress=False, callback=lambda _, took, *__: seconds.append(took))
    return {"epoch": statistics.median(seconds[1:])}


def mllib(frame: DataFrame, rank: int) -> dict[str, float]:
    """Train by Spark MLlib: an epoch from the difference of two fits, prepare from what is left of the shorter."""
    times = {}
    for iterations in (1, 3):
        als = ALS(rank=rank, maxIter=iterations, implicitPrefs=True, userCol="row", itemCol="column",
                  ratingCol="value", numUserBlocks=4, numItemBlocks=4, seed=1)  # fmt: skip
        started = time.perf_counter()
        als.fit(frame)
        times[iterations] = time.perf_counter() - started
    epoch = (times[3] - times[1]) / 2
    return {"epoch": epoch, "prepare": times[1] - epoch}


def main() -> None:
    """Measure, print a table and the ratios, and write them as JSON."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (
        ("users", 60_000),
        ("items", 10_000),
        ("interactions", 5_000_000),
        ("rank", 64),
        ("epochs", 6),
    ):
        cli.add_argument(f"--{name}", type=int, default=default)
    cli.add_argument("--peers", default="implicit,mllib")
    cli.add_argument("--json", type=Path)
    given = cli.parse_args()
    table = interactions(given.users, given.items, given.interactions)
    spark = spark_session("benchmark: train")
    frame = spark.createDataFrame(table).repartition(4).cache()
    n = frame.count()
    rows = {"recsys-spark": ours(frame, n, given.items, given.rank, given.epochs)}
    ratios = {}
    if "implicit" in given.peers:
        shape = (given.users, given.items)
        for name, cg in (("cg", True), ("cholesky", False)):
            rows[f"implicit {name}"] = implicit(table, shape, given.rank, given.epochs if cg else 3, cg)
            ratios[f"epoch_vs_implicit_{name}"] = rows["recsys-spark"]["epoch"] / rows[f"implicit {name}"]["epoch"]
    if "mllib" in given.peers:
        rows["mllib"] = mllib(frame, given.rank)
        ratios["epoch_vs_mllib"] = rows["recsys-spark"]["epoch"] / rows["mllib"]["epoch"]
        ratios["prepare_vs_mllib"] = rows["recsys-spark"]["prepare"] / rows["mllib"]["prepare"]
    spark.stop()
    for name, seconds in rows.items():
        print(f"{name:20}", "  ".join(f"{what} {value:.2f} s" for what, value in seconds.items()))
    print("  ".join(f"{name} {value:.3f}" for name, value in ratios.items()))
    if given.json:
        arguments = {name: value for name, value in vars(given).items() if name != "json"}
        result = {"machine": machine(), "arguments": arguments | {"n": n}, "rows": rows, "ratios": ratios}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
