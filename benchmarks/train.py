"""Seconds an epoch of ALS, beside implicit and Spark MLlib, on the same interactions, cores and session.

    python -m benchmarks.train --users 60000 --items 10000 --interactions 5000000 --rank 64 --epochs 16 \
        --peers implicit,mllib --json data/bench-train.json

Every system runs in a process of its own, one after another. An epoch's time is the median of those after the
first. implicit runs in float32 with one BLAS thread and as many threads as cores; MLlib on a cached input, with the
number of blocks that is fastest, its epoch from the difference of two fits.
"""

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pyspark.ml.recommendation import ALS

from benchmarks.machine import machine, measured
from benchmarks.memory import peak_memory
from benchmarks.synthetic import cached, matrix
from recsys_spark.als import kernels
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.linalg import eigenbasis, gramian, one_thread, rotate
from recsys_spark.als.objective import Ials
from recsys_spark.als.trainer import Settings, train
from recsys_spark.blocks import store
from recsys_spark.config import Als

OBJECTIVE = Ials(alpha0=0.1, regularization=0.003)

_WARM = 4  # runs that are not counted

Floats = NDArray[np.float32]


def ours(given: argparse.Namespace) -> dict[str, float]:
    """Train by this package: seconds from DataFrame to the first epoch, an epoch's median, the objective."""
    frame = cached(given, "benchmark: train")
    n_blocks = store.n_blocks(given.interactions, Als().block_interactions, os.cpu_count() or 1)
    columns = np.arange(given.items, dtype=np.int32)
    prepared = []
    with peak_memory() as peaks:
        for _ in range(_WARM + 3):  # as many before the first that counts as MLlib has fits
            started = time.perf_counter()
            blocks = store.build(frame, columns, n_blocks)
            prepared.append(time.perf_counter() - started)
            if len(prepared) < _WARM + 3:
                blocks.close()
        done = list(train(blocks, _start(given), OBJECTIVE, Settings(given.epochs)))
    blocks.close()
    return {
        "epoch": statistics.median(epoch.seconds for epoch in done[1:]),
        "jobs": statistics.mean(epoch.jobs for epoch in done[1:]),
        "prepare": statistics.median(prepared[_WARM:]),
        "objective": done[-1].objective,
        **{f"peak_{name}": size for name, size in peaks.items()},
    }


def mllib(given: argparse.Namespace) -> dict[str, float]:
    """Train by Spark MLlib: an epoch from the difference of two fits; what it takes to prepare from one of no epoch."""
    frame = cached(given, "benchmark: train")

    def fit(rank: int, iterations: int, n_blocks: int) -> float:
        als = ALS(rank=rank, maxIter=iterations, implicitPrefs=True, userCol="row", itemCol="column", seed=1,
                  ratingCol="value", numUserBlocks=n_blocks, numItemBlocks=n_blocks)  # fmt: skip
        started = time.perf_counter()
        als.fit(frame)
        return time.perf_counter() - started

    cores = os.cpu_count() or 1
    fit(8, 1, cores)  # warm
    tried = {n: fit(min(given.rank, 32), 1, n) for n in (cores, 2 * cores, 10)}
    best = min(tried, key=lambda n: tried[n])
    with peak_memory() as peaks:
        none = statistics.median(fit(given.rank, 0, best) for _ in range(3))
        short, long = (fit(given.rank, iterations, best) for iterations in (1, 3))
    return {
        "epoch": (long - short) / 2,
        "blocks": best,
        "prepare": none,
        **{f"peak_{name}": size for name, size in peaks.items()},
    }


def implicit(given: argparse.Namespace, cg: bool) -> dict[str, float]:
    """Train by implicit, conjugate gradient with 3 steps or Cholesky."""
    from implicit.als import AlternatingLeastSquares

    seconds: list[float] = []
    by_user = matrix(given)
    with one_thread(), peak_memory() as peaks:
        model = AlternatingLeastSquares(
            factors=given.rank, iterations=given.epochs, regularization=1.0, dtype=np.float32, use_cg=cg, use_gpu=False,
            num_threads=os.cpu_count(), random_state=1,
        )  # fmt: skip
        model.fit(by_user, show_progress=False, callback=lambda _, took, *__: seconds.append(took))
    return {"epoch": statistics.median(seconds[1:]), "peak_total": peaks["total"]}


def exact(given: argparse.Namespace) -> dict[str, float]:
    """Return the objective after as many epochs of exact solves from the same start."""
    by_user = matrix(given)
    by_item = by_user.T.tocsr()
    n_users, n_items = by_user.shape
    reg_users = OBJECTIVE.row_regularization(np.diff(by_user.indptr), n_items)
    reg_items = OBJECTIVE.row_regularization(np.diff(by_item.indptr), n_users)
    y = _start(given)
    for _ in range(given.epochs):
        x = _solved(by_user, y, reg_users)
        y = _solved(by_item, x, reg_items)
    loss = OBJECTIVE.a0 * float((gramian(x) * gramian(y)).sum())
    loss += float(reg_users.astype(np.float64) @ (x * x).sum(axis=1) + reg_items.astype(np.float64) @ (y * y).sum(1))
    rows = np.repeat(np.arange(n_users), np.diff(by_user.indptr))
    for begin in range(0, by_user.nnz, 1 << 20):
        part = slice(begin, begin + (1 << 20))
        scores = np.einsum("ij,ij->i", x[rows[part]], y[by_user.indices[part]])
        loss += float((by_user.data[part] * (scores - 1) ** 2).sum(dtype=np.float64))
    return {"objective": loss}


def _solved(by_row: sp.csr_matrix, others: Floats, reg: Floats) -> Floats:
    """Solve every row until float32 can do no better; the tests hold this kernel against dense normal equations."""
    values, basis = eigenbasis(gramian(others))
    rotated = rotate(others, basis)
    out = np.empty((by_row.shape[0], others.shape[1]), np.float32)

    def part(begin: int) -> None:
        rows = slice(begin, begin + 4096)
        offsets = by_row.indptr[begin : begin + 4097]
        kernels.solve_rows(offsets, by_row.indices, by_row.data, by_row.data, rotated,
                           np.float32(OBJECTIVE.a0) * values, reg[rows], 1000, 1e-12, out[rows])  # fmt: skip

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(part, range(0, len(out), 4096)))
    return rotate(out, basis.T)


def _start(given: argparse.Namespace) -> Floats:
    return initial_factors(np.arange(given.items), given.rank, 1, 0.1)


SYSTEMS = {
    "recsys-spark": ours,
    "exact": exact,
    "implicit cg": lambda given: implicit(given, cg=True),
    "implicit cholesky": lambda given: implicit(given, cg=False),
    "mllib": mllib,
}


def _arguments() -> argparse.Namespace:
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("--users", type=int, default=60_000)
    cli.add_argument("--items", type=int, default=10_000)
    cli.add_argument("--interactions", type=int, default=5_000_000)
    cli.add_argument("--rank", type=int, default=64)
    cli.add_argument("--epochs", type=int, default=16)
    cli.add_argument(
        "--peers",
        default="implicit,mllib",
        help="of implicit (or implicit cg, implicit cholesky) and mllib",
    )
    cli.add_argument("--json", type=Path)
    cli.add_argument("--system", choices=SYSTEMS, help=argparse.SUPPRESS)
    return cli.parse_args()


def ratios(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return ours by theirs, of what was measured."""
    own = rows["recsys-spark"]
    found = {}
    for name in ("implicit cg", "implicit cholesky", "mllib"):
        if name in rows:
            found[f"epoch_vs_{name.replace(' ', '_')}"] = own["epoch"] / rows[name]["epoch"]
    if "mllib" in rows:
        found["prepare_vs_mllib"] = own["prepare"] / rows["mllib"]["prepare"]
        found["peak_memory_vs_mllib"] = own["peak_total"] / rows["mllib"]["peak_total"]
    found["objective_vs_exact"] = own["objective"] / rows["exact"]["objective"]
    return found


def main() -> None:
    """Measure, print a table and the ratios, and write them as JSON."""
    given = _arguments()
    if given.system:
        print(json.dumps(SYSTEMS[given.system](given)))
        return
    wanted = {"recsys-spark", "exact", *given.peers.split(",")}
    chosen = [name for name in SYSTEMS if {name, name.split()[0]} & wanted]
    rows = {name: measured("benchmarks.train", name) for name in chosen}
    for name, row in rows.items():
        print(f"{name:20}", "  ".join(f"{what} {value:,.2f}" for what, value in row.items()))
    found = ratios(rows)
    print("  ".join(f"{name} {value:.4f}" for name, value in found.items()))
    if given.json:
        arguments: dict[str, Any] = {
            name: value for name, value in vars(given).items() if name not in ("json", "system")
        }
        result = {"machine": machine(), "arguments": arguments, "rows": rows, "ratios": found}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
