"""The objectives beside Spark MLlib's own ALS, from MLlib's own start."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.als.objective import Explicit, HuKorenVolinsky, Ials, Objective
from recsys_spark.als.trainer import Settings, rows_solve, train
from tests.als.oracle import exact_rows, objective_of_cells, random_weights
from tests.als.test_trainer import blocks_of

RANK, REGULARIZATION = 5, 0.1


def factors_of(frame: DataFrame) -> np.ndarray:
    rows = frame.orderBy("id").toArrow()
    return np.array(rows.column("features").to_pylist(), np.float32)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_fit_from_mllibs_start_ends_at_mllibs_loss(spark: SparkSession, tmp_path: Path, implicit: bool) -> None:
    spark.sparkContext.setCheckpointDir(str(tmp_path))  # MLlib's lineage grows with every iteration
    ratings = random_weights(90, 60, 0.25, seed=11)
    rng = np.random.default_rng(12)
    tastes = rng.standard_normal((90, 2)) @ rng.standard_normal((2, 60))
    ratings.data = (3 + tastes[ratings.nonzero()] + rng.standard_normal(ratings.nnz) / 2).clip(1, 5).astype(np.float32)
    coo = ratings.tocoo()
    frame = spark.createDataFrame(
        list(zip(coo.row.tolist(), coo.col.tolist(), coo.data.tolist(), strict=True)),
        "user int, item int, rating float",
    ).cache()
    als = ALS(
        rank=RANK, regParam=REGULARIZATION, implicitPrefs=implicit, alpha=3.0, seed=5, userCol="user", itemCol="item",
        ratingCol="rating", numUserBlocks=1, numItemBlocks=1,
    )  # fmt: skip
    start = als.setMaxIter(0).fit(frame)
    ended = als.setMaxIter(40).fit(frame)
    objective: Objective = HuKorenVolinsky(3.0, REGULARIZATION) if implicit else Explicit(REGULARIZATION)
    theirs = objective_of_cells(ratings, factors_of(ended.userFactors), factors_of(ended.itemFactors), objective)
    blocks = blocks_of(spark, ratings.T.tocsr())  # MLlib solves the items first: its users are the side that moves
    ours = list(train(blocks, factors_of(start.userFactors), objective, Settings(40, row_shortfall=1e-6)))
    blocks.close()
    assert ours[-1].objective == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize(
    "objective", [Ials(0.2, 0.02), HuKorenVolinsky(4, 0.1), HuKorenVolinsky(4, 2, 0), Explicit(0.1)]
)
def test_the_objective_of_an_epoch_is_that_of_all_cells_written_out(spark: SparkSession, objective: Objective) -> None:
    values = random_weights(60, 40, 0.2, seed=12)
    blocks = blocks_of(spark, values)
    start = np.random.default_rng(1).standard_normal((40, RANK)).astype(np.float32) / 5
    before, epoch = train(blocks, start, objective, Settings(2, row_steps=100, row_shortfall=1e-10))
    blocks.close()
    weights, targets = objective.weights_targets(values.data)
    coded = sp.csr_matrix((np.broadcast_to(weights, values.nnz), values.indices, values.indptr), values.shape)
    reg = objective.row_regularization(np.diff(values.indptr), 40)
    # The epoch's factors are in the eigenbasis of those before them, and so are these rows.
    y = rows_solve(before.factors, objective, 100, 1e-6).others
    x = exact_rows(coded, targets, y.astype(np.float64), objective.a0, reg)
    assert epoch.objective == pytest.approx(objective_of_cells(values, x, epoch.factors, objective), rel=1e-4)


def test_weights_and_targets_are_those_of_the_papers() -> None:
    values = np.array([0.5, 2.0], np.float32)
    assert [array.tolist() for array in Ials(0.1, 1).weights_targets(values)] == [[0.5, 2.0], [0.5, 2.0]]
    assert [array.tolist() for array in HuKorenVolinsky(40, 1).weights_targets(values)] == [[20, 80], [21, 81]]
    assert [array.tolist() for array in Explicit(1).weights_targets(values)] == [[1.0], [0.5, 2.0]]


def test_the_regularisation_grows_with_a_rows_interactions_as_the_exponent_says() -> None:
    counts = np.array([1, 4, 0])
    assert HuKorenVolinsky(1, 0.5).row_regularization(counts, 10).tolist() == [0.5, 2.0, 0.5]
    assert HuKorenVolinsky(1, 0.5, nu=0).row_regularization(counts, 10).tolist() == [0.5, 0.5, 0.5]
    assert Explicit(0.5, nu=0.5).row_regularization(counts, 10).tolist() == [0.5, 1.0, 0.5]


def test_one_value_that_stands_for_all_gives_the_bytes_of_as_many(spark: SparkSession) -> None:
    weights = random_weights(30, 20, 0.3, seed=13)
    weights.data[:] = 1
    nearly = sp.csr_matrix((weights.data.copy(), weights.indices, weights.indptr), weights.shape)
    nearly.data[0] = np.nextafter(np.float32(1), np.float32(2))  # no longer all equal: stored one by one
    start = np.random.default_rng(1).standard_normal((20, RANK)).astype(np.float32) / 5
    ends = []
    for matrix in (weights, nearly):
        blocks = blocks_of(spark, matrix, n=1)
        ends.append(list(train(blocks, start, HuKorenVolinsky(4, 0.1), Settings(2)))[-1].factors)
        blocks.close()
    assert np.allclose(ends[0], ends[1], rtol=1e-4, atol=1e-6)
