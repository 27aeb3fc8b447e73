"""What training needs of the tables: histories by index, and the side whose factors move."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark import memory
from recsys_spark.blocks import store
from recsys_spark.config import Als
from recsys_spark.errors import DataError
from recsys_spark.runs import Run
from recsys_spark.stages.models import FACTORS, VECTORS
from recsys_spark.transforms import ids, ratings


@dataclass(frozen=True)
class TrainingData:
    """Histories by row and column index, and the moving side's columns.

    mean and biases (item_index, bias) are what was taken off ratings, None where nothing was.
    """

    moving: str
    histories: DataFrame
    columns: NDArray[np.int32]
    hashes: NDArray[np.int64]
    n_blocks: int
    mean: float | None
    biases: DataFrame | None


def training_data(run: Run, inputs: dict[str, int]) -> TrainingData:
    """Read the core of silver.interactions at the versions given; raises ConfigError where training does not fit."""
    pairs = run.tables.read_slice("silver.interactions", {"as_of": run.as_of}, inputs["silver.interactions"]).where(
        "core"
    )
    sizes = pairs.agg(
        f.count_distinct("user_id").alias("users"),
        f.count_distinct("item_id").alias("items"),
        f.count(f.lit(1)).alias("n"),
    ).first()
    assert sizes is not None
    if not sizes["n"]:
        raise DataError(
            f"silver.interactions as of {run.as_of}: no pair is left to train on: all are hidden, weigh nothing or are "
            "held out; look at features.events, features.negative and features.half_life"
        )
    als = run.config.als
    moving = side_to_move(als, sizes["users"], sizes["items"])
    n_blocks = store.n_blocks(sizes["n"], als.block_interactions, als.min_blocks)
    n_rows, n_columns = (sizes["items"], sizes["users"]) if moving == "users" else (sizes["users"], sizes["items"])
    sizes_of_blocks = n_blocks, -(-sizes["n"] // n_blocks), -(-n_rows // n_blocks)
    if run.config.model.kind in FACTORS:
        bytes_of_one = memory.interaction_bytes(als.objective)
        need = memory.Need(n_columns, als.rank, *sizes_of_blocks, interaction_bytes=bytes_of_one)
        memory.check(run.spark, need, moving)
    if run.config.model.kind in VECTORS:
        spectral = run.config.spectral
        need = memory.Need(n_columns, spectral.rank, *sizes_of_blocks, memory.krylov_arrays(spectral.most_blocks))
        memory.check(run.spark, need, moving, "spectral.rank")
    users, items = (run.tables.read(name, inputs[name]) for name in ("gold.user_ids", "gold.item_ids"))
    values, mean, biases = _without_baseline(als, pairs.select("user_id", "item_id", "weight"))
    coded = ids.encode(values, users, items)
    row, column = ("item_index", "user_index") if moving == "users" else ("user_index", "item_index")
    histories = coded.select(f.col(row).alias("row"), f.col(column).alias("column"), f.col("weight").alias("value"))
    id_ = "user_id" if moving == "users" else "item_id"
    dictionary = users if moving == "users" else items
    present = (
        dictionary.join(pairs.select(id_).distinct(), id_, "left_semi")
        .select(f.col(column).alias("column"), f.xxhash64(id_).alias("hash"))
        .toArrow()
        .sort_by("column")
    )
    return TrainingData(
        moving,
        histories,
        present.column("column").to_numpy(),
        present.column("hash").to_numpy(),
        n_blocks,
        mean,
        None if biases is None else items.join(biases, "item_id").select("item_index", "bias"),
    )


def side_to_move(als: Als, n_users: int, n_items: int) -> str:
    """Return the side whose factors travel: the one configured, else the smaller, items where both are equal.

    >>> side_to_move(Als(), 2_500, 68_000), side_to_move(Als(), 9, 9), side_to_move(Als(moving_side="users"), 9, 1)
    ('users', 'items', 'users')
    """
    if als.moving_side != "auto":
        return als.moving_side
    return "users" if n_users < n_items else "items"


def _without_baseline(als: Als, pairs: DataFrame) -> tuple[DataFrame, float | None, DataFrame | None]:
    """Return the values to fit, and the mean and items' biases (item_id, bias) that were taken off them."""
    if als.objective != "explicit":
        return pairs, None, None
    mean = 0.0 if als.baseline == "none" else ratings.mean_rating(pairs)
    biases = ratings.item_biases(pairs, mean, als.damping) if als.baseline == "biases" else None
    return ratings.without_baseline(pairs, mean, biases, als.damping), mean, biases
