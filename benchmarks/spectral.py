"""Singular vectors of normalised interactions, beside SciPy's svds and Spark MLlib's computeSVD, on the same cores.

    python -m benchmarks.spectral --users 60000 --items 10000 --interactions 5000000 --rank 128 --tolerance 0.01 \
        --peers mllib --json data/bench-spectral.json

Every system runs in a process of its own. `recsys-spark` stops as the job does, once a step changes no squared
singular value by more than the tolerance; `recsys-spark, residuals` only once every vector's residual is as small as
svds asks for at the same tolerance, ‖A·v − θ·v‖ ≤ tolerance·θ. Times are from the matrix, or from blocks, to vectors.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from benchmarks.machine import machine, measured
from benchmarks.memory import peak_memory
from benchmarks.synthetic import cached, matrix
from recsys_spark.als.initial import initial_factors
from recsys_spark.blocks import store
from recsys_spark.config import Als, Spectral
from recsys_spark.spectral.passes import powers
from recsys_spark.spectral.subspace import Subspace
from recsys_spark.spectral.trainer import Settings, column_degrees, iterate

EXPONENT = 0.5

Doubles = NDArray[np.float64]


def normalised(given: argparse.Namespace) -> sp.csr_matrix:
    """Return D_users^−a · R · D_items^−a in float32."""
    whole = matrix(given)
    users, items = (sp.diags(powers(np.asarray(whole.sum(axis), np.float64).ravel(), -EXPONENT)) for axis in (1, 0))
    return (users @ whole @ items).tocsr().astype(np.float32)


def ours(given: argparse.Namespace, residuals: bool) -> dict[str, float]:
    """Iterate over blocks; the best of three runs."""
    frame = cached(given, "benchmark: spectral")
    n_blocks = store.n_blocks(given.interactions, Als().block_interactions, os.cpu_count() or 1)
    blocks = store.build(frame, np.arange(given.items, dtype=np.int32), n_blocks)
    settings = Settings(EXPONENT, EXPONENT, 1e-12 if residuals else given.tolerance, 500)
    seconds = []
    with peak_memory() as peaks:
        for _ in range(3):
            started = time.perf_counter()
            start = initial_factors(np.arange(given.items), given.rank, 1, 1.0)
            space = Subspace(start, Spectral().most_blocks)
            steps = []
            for step in iterate(blocks, space, column_degrees(blocks, given.items), settings):
                steps.append(step.seconds)
                if residuals and (space.residuals() <= given.tolerance * space.values).all():
                    break
            space.vectors()
            seconds.append(time.perf_counter() - started)
    blocks.close()
    return {
        "seconds": min(seconds),
        "steps": len(steps),
        "step": statistics.median(steps),
        **{f"peak_{name}": size for name, size in peaks.items()},
        **_spectrum(space.values),
    }


def scipys(given: argparse.Namespace, tolerance: float) -> dict[str, float]:
    """Call svds (ARPACK)."""
    whole = normalised(given)
    started = time.perf_counter()
    _, values, _ = svds(whole, k=given.rank, tol=tolerance, random_state=1)
    return {"seconds": time.perf_counter() - started, **_spectrum(np.sort(values)[::-1].astype(np.float64) ** 2)}


def mllib(given: argparse.Namespace) -> dict[str, float]:
    """Call RowMatrix.computeSVD, whose tolerance is its own."""
    from pyspark.mllib.linalg import SparseVector
    from pyspark.mllib.linalg.distributed import RowMatrix

    spark = cached(given, "benchmark: spectral").sparkSession
    whole = normalised(given)
    rows = [
        SparseVector(given.items, whole.indices[begin:end], whole.data[begin:end].astype(np.float64))
        for begin, end in zip(whole.indptr, whole.indptr[1:], strict=False)
    ]
    rows_of = RowMatrix(spark.sparkContext.parallelize(rows, 2 * (os.cpu_count() or 1)), len(rows), given.items)
    # Kept as the JVM's vectors: what Python's RDD keeps would be unpickled anew for every product.
    rows_of._java_matrix_wrapper._java_model.rows().cache().count()
    started = time.perf_counter()
    values = np.array(rows_of.computeSVD(given.rank, computeU=False).s)
    return {"seconds": time.perf_counter() - started, **_spectrum(values**2)}


def _spectrum(values: Doubles) -> dict[str, float]:
    """Return squared singular values by number, to be compared with the tight ones."""
    return {f"value_{place}": float(value) for place, value in enumerate(values)}


SYSTEMS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "recsys-spark": lambda given: ours(given, residuals=False),
    "recsys-spark, residuals": lambda given: ours(given, residuals=True),
    "svds": lambda given: scipys(given, given.tolerance),
    "svds, tight": lambda given: scipys(given, 1e-6),
    "mllib": mllib,
}


def main() -> None:
    """Measure, print a table and the ratios, and write them as JSON."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("users", 60_000), ("items", 10_000), ("interactions", 5_000_000), ("rank", 128)):
        cli.add_argument(f"--{name}", type=int, default=default)
    cli.add_argument("--tolerance", type=float, default=Spectral().tolerance)
    cli.add_argument("--peers", default="", help="mllib: computeSVD too, which takes minutes")
    cli.add_argument("--json", type=Path)
    cli.add_argument("--system", choices=SYSTEMS, help=argparse.SUPPRESS)
    given = cli.parse_args()
    if given.system:
        print(json.dumps(SYSTEMS[given.system](given)))
        return
    rows = {name: measured("benchmarks.spectral", name) for name in SYSTEMS if name != "mllib" or name in given.peers}
    spectra = {name: np.array([row.pop(f"value_{place}") for place in range(given.rank)]) for name, row in rows.items()}
    for name, row in rows.items():
        row["error"] = float(np.abs(spectra[name] / spectra["svds, tight"] - 1).max())
        print(f"{name:24}", "  ".join(f"{what} {value:,.3g}" for what, value in row.items()))
    own, strict = rows["recsys-spark"]["seconds"], rows["recsys-spark, residuals"]["seconds"]
    ratios = {"spectral_vs_svds": own / rows["svds"]["seconds"], "residuals_vs_svds": strict / rows["svds"]["seconds"]}
    if "mllib" in rows:
        ratios["spectral_vs_mllib"] = own / rows["mllib"]["seconds"]
    print("  ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        arguments = {name: value for name, value in vars(given).items() if name not in ("json", "system")}
        whole = {"machine": machine(), "arguments": arguments, "rows": rows, "ratios": ratios}
        given.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
