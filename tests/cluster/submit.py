"""How tests on clusters submit jobs, and how they compare the models that these leave."""

import hashlib
from pathlib import Path
from typing import Any

import deltalake
import numpy as np

from deploy.standalone.cluster import SPARK_HOME
from recsys_spark.session import DELTA_PACKAGE, delta_is_bundled

PROJECT = Path(__file__).parents[2]


def submitted(job: Path, *options: str) -> list[str]:
    """Return what spark-submit gets beside the master to run a job, to which its arguments are added."""
    delta = [] if delta_is_bundled() else ["--packages", DELTA_PACKAGE]
    quiet = ["--conf", "spark.ui.enabled=false", "--conf", "spark.sql.shuffle.partitions=4"]
    return [*delta, *quiet, *options, str(job)]


def submit(master: str, job: Path, *options: str) -> list[str]:
    """Return the command that submits a job, to which its arguments are added."""
    return [str(SPARK_HOME / "bin/spark-submit"), "--master", master, *submitted(job, *options)]


def digest(tables: Path) -> str:
    """Return the SHA-256 of the items' factors after the last epoch, in the order of item_index."""
    rows = _by_item(tables / "gold/item_factors")
    last = max(row["epoch"] for row in rows)
    factors = [row["factors"] for row in rows if row["epoch"] == last]
    return hashlib.sha256(np.array(factors, np.float32).tobytes()).hexdigest()


def vectors_digest(tables: Path) -> str:
    """Return the SHA-256 of the items' singular vectors, in the order of item_index."""
    vectors = [row["vector"] for row in _by_item(tables / "gold/item_vectors")]
    return hashlib.sha256(np.array(vectors, np.float32).tobytes()).hexdigest()


def _by_item(table: Path) -> list[dict[str, Any]]:
    return deltalake.DeltaTable(str(table)).to_pyarrow_table().sort_by("item_index").to_pylist()


def lists_digest(tables: Path) -> str:
    """Return the SHA-256 of all lists with their scores, by user."""
    lists = deltalake.DeltaTable(str(tables / "gold/recommendations")).to_pyarrow_table().sort_by("user_id")
    rows = lists.select(["user_id", "items", "source"]).to_pylist()
    return hashlib.sha256(repr(rows).encode()).hexdigest()
