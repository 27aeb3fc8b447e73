"""Synthetic interactions: log-normal activity of users, Zipf popularity of items, from a fixed seed."""

import argparse
import os

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from pyspark.sql import DataFrame

from recsys_spark.session import spark_session


def interactions(n_users: int, n_items: int, n: int, seed: int = 0) -> pa.Table:
    """Return about n distinct pairs (row int, column int, value float 1), a little fewer where draws coincide."""
    rng = np.random.default_rng(seed)
    users = rng.lognormal(0, 1, n_users)
    items = 1 / np.arange(1, n_items + 1) ** 0.8
    drawn = rng.choice(n_users, n, p=users / users.sum()) * np.int64(n_items)
    pairs = np.unique(drawn + rng.choice(n_items, n, p=items / items.sum()))
    return pa.table(
        {
            "row": (pairs // n_items).astype(np.int32),
            "column": (pairs % n_items).astype(np.int32),
            "value": np.ones(len(pairs), np.float32),
        }
    )


def matrix(given: argparse.Namespace) -> sp.csr_matrix:
    """Return the interactions of a benchmark's users, items and interactions as a sparse matrix."""
    table = interactions(given.users, given.items, given.interactions)
    row, column, value = (table.column(name).to_numpy() for name in ("row", "column", "value"))
    return sp.csr_matrix((value, (row, column)), (given.users, given.items))


def cached(given: argparse.Namespace, name: str) -> DataFrame:
    """Return the same interactions in the cache of a session of its own."""
    spark = spark_session(name, settings={"spark.driver.memory": "12g"})
    table = interactions(given.users, given.items, given.interactions)
    frame = spark.createDataFrame(table).repartition(2 * (os.cpu_count() or 1)).cache()
    frame.count()
    return frame
