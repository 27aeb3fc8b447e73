"""Top-K for all users: our kernel and job beside the bare matrix product, implicit and Spark MLlib.

    python -m benchmarks.topk --users 60000 --items 10000 --interactions 5000000 --rank 64 --k 10 \
        --peers implicit,mllib --json data/bench-topk.json

All take the same factors, trained for a few epochs (MLlib its own: its model can be given none), and the same
histories, on the same cores. The bare product computes all scores, tile by tile into a buffer that stays in cache, and
looks at none. Medians of three.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from benchmarks.counting import computed_scores
from benchmarks.machine import machine
from benchmarks.synthetic import interactions
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.linalg import one_thread
from recsys_spark.als.objective import Ials
from recsys_spark.als.passes import solve_histories
from recsys_spark.als.trainer import Settings, fold_solve, train
from recsys_spark.blocks import store
from recsys_spark.session import spark_session
from recsys_spark.topk import scorer
from recsys_spark.topk.folds import AlsFold
from recsys_spark.topk.kernels import catalog, top_k
from recsys_spark.topk.orders import Orders
from recsys_spark.topk.ranker import Model, Ranker

OBJECTIVE = Ials(alpha0=0.1, regularization=0.003)
CORES = os.cpu_count() or 1

Floats = NDArray[np.float32]


def median_seconds(work: Callable[[], object], times: int = 3) -> float:
    """Return the median of so many runs of some work, after one that is not counted."""
    seconds = []
    for _ in range(times + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def in_threads(work: Callable[[slice], object], n: int, batch: int = 4096) -> None:
    """Do work on batches of users, one thread a core."""
    with one_thread(), ThreadPoolExecutor(CORES) as pool:
        list(pool.map(work, [slice(begin, min(begin + batch, n)) for begin in range(0, n, batch)]))


def bare_product(users: Floats, items: Floats) -> float:
    """Return the seconds that sgemm takes for all scores, in the tiles of the kernel."""
    columns = np.ascontiguousarray(users.T)

    def work(rows: slice) -> None:
        out = np.empty((512, 256), np.float32)
        for begin in range(rows.start, rows.stop - 255, 256):
            part = np.ascontiguousarray(columns[:, begin : begin + 256])
            for tile in range(0, len(items) - 511, 512):
                np.dot(items[tile : tile + 512], part, out=out)

    whole = len(users) * len(items) / ((len(users) // 256 * 256) * (len(items) // 512 * 512))
    return median_seconds(lambda: in_threads(work, len(users))) * whole


def kernel(users: Floats, items: Floats, k: int, seen: sp.csr_matrix) -> float:
    """Return the seconds of our kernel with the seen filter."""
    found = catalog(items)
    offsets = seen.indptr.astype(np.int64)

    def work(rows: slice) -> object:
        return top_k(users[rows], found, k, offsets[rows.start : rows.stop + 1], seen.indices)

    return median_seconds(lambda: in_threads(work, len(users)))


def share_of_scores(users: Floats, items: Floats, k: int, seen: sp.csr_matrix) -> float:
    """Return the share of scores that are computed."""
    found = catalog(items)
    with one_thread(), computed_scores() as sizes:
        top_k(users, found, k, seen.indptr.astype(np.int64), seen.indices)
    return sum(sizes) / (len(users) * found.factors.shape[0] * found.factors.shape[1])


def in_shards(users: Floats, items: Floats, k: int, seen: sp.csr_matrix, n_shards: int) -> float:
    """Return the seconds of the kernel on shards of the catalog, each by itself, whose lists are merged.

    What the scorer does not do; asserts that the lists are those of one pass.
    """
    cuts = np.linspace(0, len(items), n_shards + 1).astype(int)
    numbers = np.arange(len(items))
    shards = [catalog(items, (first <= numbers) & (numbers < end)) for first, end in itertools.pairwise(cuts)]
    offsets = seen.indptr.astype(np.int64)
    found = np.empty((len(users), k), np.int32)

    def work(rows: slice) -> None:
        own = offsets[rows.start : rows.stop + 1]
        found[rows] = merged([top_k(users[rows], shard, k, own, seen.indices) for shard in shards])[0]

    seconds = median_seconds(lambda: in_threads(work, len(users)))
    assert np.array_equal(found, top_k(users, catalog(items), k, offsets, seen.indices)[0])
    return seconds


def merged(lists: Sequence[tuple[NDArray[np.int32], Floats]]) -> tuple[NDArray[np.int32], Floats]:
    """Return the best of lists (n_users, k) of items and scores, as `top_k` would have found them in one catalog."""
    items, scores = (np.concatenate(each, axis=1) for each in zip(*lists, strict=True))
    best = np.lexsort((items, -scores), axis=1)[:, : lists[0][0].shape[1]]
    return np.take_along_axis(items, best, axis=1), np.take_along_axis(scores, best, axis=1)


def job(spark: SparkSession, pairs: DataFrame, n: int, ranker: Ranker, k: int) -> float:
    """Return the seconds of the whole Spark job: histories read, users solved and ranked, lists written."""
    with tempfile.TemporaryDirectory() as folder:
        return median_seconds(
            lambda: (
                scorer.recommend(pairs, n, scorer.ship(spark.sparkContext, ranker), k)
                .write.format("delta")
                .mode("overwrite")
                .save(f"{folder}/lists")
            )
        )


def implicit(users: Floats, items: Floats, k: int, seen: sp.csr_matrix) -> float:
    """Return the seconds of implicit's recommend with its filter."""
    from implicit.cpu.topk import topk

    def work(rows: slice) -> object:
        return topk(items, users[rows], k, filter_query_items=seen[rows], num_threads=CORES)

    def everyone() -> None:
        with one_thread():
            for begin in range(0, len(users), 4096):
                work(slice(begin, begin + 4096))

    return median_seconds(everyone)


def mllib(spark: SparkSession, frame: DataFrame, rank: int, k: int) -> float:
    """Return the seconds of MLlib's recommendForAllUsers, without filter, from a model of its own, one iteration."""
    from pyspark.ml.recommendation import ALS

    model = ALS(rank=rank, maxIter=1, implicitPrefs=True, userCol="row", itemCol="column", ratingCol="value").fit(frame)
    return median_seconds(lambda: model.recommendForAllUsers(k).write.format("noop").mode("overwrite").save())


def _equal_norms(n: int, rank: int) -> Floats:
    """Return random directions (n, rank), of which the bound on norms rules out none."""
    directions = np.random.default_rng(n).standard_normal((n, rank))
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    """Measure, print a table and the ratios, and write them as JSON."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("users", 60_000), ("items", 10_000), ("interactions", 5_000_000), ("rank", 64), ("k", 10)):
        cli.add_argument(f"--{name}", type=int, default=default)
    cli.add_argument("--epochs", type=int, default=4)
    cli.add_argument("--peers", default="implicit,mllib")
    cli.add_argument("--json", type=Path)
    given = cli.parse_args()
    table = interactions(given.users, given.items, given.interactions)
    row, column, value = (table.column(name).to_numpy() for name in ("row", "column", "value"))
    seen = sp.csr_matrix((value, (row, column)), (given.users, given.items))
    spark = spark_session("benchmark: topk", settings={"spark.driver.memory": "10g"})
    with tempfile.TemporaryDirectory() as folder:
        spark.createDataFrame(table).repartition(2 * CORES).write.parquet(f"{folder}/interactions")
        frame = spark.read.parquet(f"{folder}/interactions")
        blocks = store.build(frame, np.arange(given.items, dtype=np.int32), 2 * CORES)
        start = initial_factors(np.arange(given.items), given.rank, 1, 0.1)
        factors = list(train(blocks, start, OBJECTIVE, Settings(given.epochs)))[-1].factors
        blocks.close()
        solve = fold_solve(factors, OBJECTIVE, 1e-6)
        users = np.empty((given.users, given.rank), np.float32)
        parts = [slice(begin, begin + 4096) for begin in range(0, given.users, 4096)]

        def fold_in() -> None:
            with ThreadPoolExecutor(CORES) as pool:
                solved = pool.map(
                    lambda rows: solve_histories(
                        seen.indptr[rows.start : rows.stop + 1], seen.indices, seen.data, solve
                    ),
                    parts,
                )
                for rows, found in zip(parts, solved, strict=True):
                    users[rows] = found

        rows = {
            "fold-in": median_seconds(fold_in),
            "bare product": bare_product(users, solve.others),
            "kernel": kernel(users, solve.others, given.k, seen),
            "kernel, nothing pruned": kernel(
                _equal_norms(given.users, given.rank), _equal_norms(given.items, given.rank), given.k, seen
            ),
        }
        rows["kernel, 4 shards merged"] = in_shards(users, solve.others, given.k, seen, 4)
        share = share_of_scores(users, solve.others, given.k, seen)
        ids = pa.array([f"item-{i}" for i in range(given.items)])
        everything = np.ones(given.items, bool)
        none = np.full(given.items, -1, np.int32)
        popular = Orders.of(np.bincount(column, minlength=given.items).astype(np.float32), everything)
        model = Model.of("als", np.arange(given.items, dtype=np.int32), AlsFold(solve), everything, none)
        ranker = Ranker(ids, none, popular, model=model)
        pairs = scorer.history_rows(
            frame.select(
                f.concat(f.lit("user-"), f.col("row")).alias("user_id"),
                f.col("column").alias("item_index"),
                f.col("value").alias("weight"),
            ),
            hide=f.lit(True),
        )
        rows["job"] = job(spark, pairs, len(row), ranker, given.k)
        if "implicit" in given.peers:
            rows["implicit"] = implicit(users, solve.others, given.k, seen)
        if "mllib" in given.peers:
            rows["mllib"] = mllib(spark, frame.cache(), given.rank, given.k)
        spark.stop()
    ratios = {
        "topk_vs_gemm": rows["kernel"] / rows["bare product"],
        "topk_vs_gemm_unpruned": rows["kernel, nothing pruned"] / rows["bare product"],
        "shards_vs_one_pass": rows["kernel, 4 shards merged"] / rows["kernel"],
        "job_vs_gemm": rows["job"] / rows["bare product"],
        "share_of_scores": share,
        "fold_in_users_a_second": given.users / rows["fold-in"],
    }
    ratios |= {f"topk_vs_{name}": rows["kernel"] / rows[name] for name in ("implicit", "mllib") if name in rows}
    for name, seconds in rows.items():
        print(f"{name:24} {seconds:8.2f} s")
    print("  ".join(f"{name} {ratio:,.3f}" for name, ratio in ratios.items()))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        arguments = {name: value for name, value in vars(given).items() if name != "json"}
        result = {"machine": machine(), "arguments": arguments, "rows": rows, "ratios": ratios}
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
