import hashlib
import shutil

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from pyspark.errors import PythonException
from pyspark.sql import SparkSession

from recsys_spark.als.initial import initial_factors
from recsys_spark.als.objective import Ials
from recsys_spark.als.passes import counts_pass, rows_pass, solve_block
from recsys_spark.als.trainer import Epoch, Settings, rows_solve, train
from recsys_spark.blocks import store
from recsys_spark.blocks.layout import BlockMissingError
from recsys_spark.errors import DataError
from recsys_spark.topk.folds import AlsFold
from tests.als.oracle import exact_rows, objective_of_cells, random_weights

OBJECTIVE = Ials(alpha0=0.2, regularization=0.02)


def blocks_of(
    spark: SparkSession, weights: sp.csr_matrix, n: int = 3, order: np.ndarray | None = None, parts: int = 2
) -> store.Blocks:
    coo = weights.tocoo()
    order = np.arange(coo.nnz) if order is None else order
    table = pa.table({"row": coo.row[order], "column": coo.col[order], "value": coo.data[order]})
    frame = spark.createDataFrame(table).repartition(parts)
    return store.build(frame, np.arange(weights.shape[1], dtype=np.int32), n)


def trained(blocks: store.Blocks, rank: int = 6, **settings) -> list[Epoch]:
    start = initial_factors(np.arange(len(blocks.columns)), rank, seed=1, scale=0.1)
    return list(train(blocks, start, OBJECTIVE, Settings(**{"epochs": 5, **settings})))


def digest(epochs: list[Epoch]) -> str:
    return hashlib.sha256(epochs[-1].factors.tobytes()).hexdigest()


def regularizations(weights: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    users = OBJECTIVE.row_regularization(np.diff(weights.indptr), weights.shape[1])
    items = OBJECTIVE.row_regularization(np.diff(weights.tocsc().indptr), weights.shape[0])
    return users, items


def test_the_objective_falls_and_stays_near_that_of_exact_solves(spark: SparkSession) -> None:
    weights = random_weights(80, 50, 0.2, seed=2)
    blocks = blocks_of(spark, weights)
    objectives = [epoch.objective for epoch in trained(blocks, epochs=12)]
    users, items = regularizations(weights)
    y = initial_factors(np.arange(50), 6, seed=1, scale=0.1).astype(np.float64)
    transposed = weights.T.tocsr()
    for _ in range(12):
        x = exact_rows(weights, weights.data, y, 0.2, users)
        y = exact_rows(transposed, transposed.data, x, 0.2, items)
    exact = objective_of_cells(weights, x, y, OBJECTIVE)
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[-1] <= 1.002 * exact
    blocks.close()


def test_folding_in_the_history_of_a_trained_user_gives_her_factors_to_the_byte(spark: SparkSession) -> None:
    weights = random_weights(60, 40, 0.2, seed=18)
    blocks = blocks_of(spark, weights)
    before, _ = trained(blocks)[-2:]  # the rows of the last epoch are solved against the factors before it
    fold = AlsFold(rows_solve(before.factors, OBJECTIVE, Settings(5).row_steps, Settings(5).row_shortfall))
    for rows, trained_rows in blocks.run(lambda block, _: (block.rows, block.load("rows-of-5")), None, "users"):
        histories = weights[rows].tocsr()
        histories.sort_indices()
        folded = fold.user_factors(histories.indptr, histories.indices, histories.data)
        assert folded.tobytes() == trained_rows.tobytes()
    blocks.close()


def test_either_side_may_move(spark: SparkSession) -> None:
    weights = random_weights(70, 30, 0.2, seed=3)
    objectives = []
    for matrix in (weights, weights.T.tocsr()):
        blocks = blocks_of(spark, matrix)
        objectives.append(trained(blocks, rank=2, epochs=30)[-1].objective)
        blocks.close()
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-3)


def test_the_factors_are_the_same_bytes_whatever_the_order_and_partitions_of_the_input(
    spark: SparkSession,
) -> None:
    weights = random_weights(50, 40, 0.2, seed=4)
    shuffled = np.random.default_rng(5).permutation(weights.nnz)
    digests = set()
    for order, parts in ((None, 1), (shuffled, 2), (shuffled[::-1], 5)):
        blocks = blocks_of(spark, weights, order=order, parts=parts)
        digests.add(digest(trained(blocks)))
        blocks.close()
    assert len(digests) == 1


def test_going_on_from_an_epoch_ends_at_the_bytes_of_an_uninterrupted_run(spark: SparkSession) -> None:
    blocks = blocks_of(spark, random_weights(50, 40, 0.2, seed=6))
    whole = trained(blocks)
    rest = list(
        train(blocks, whole[1].factors, OBJECTIVE, Settings(epochs=5), [epoch.objective for epoch in whole[:2]])
    )
    assert [epoch.number for epoch in rest] == [3, 4, 5]
    assert digest(rest) == digest(whole)
    blocks.close()


def test_lost_block_files_are_written_again_and_the_result_stays_the_same(spark: SparkSession) -> None:
    weights = random_weights(50, 40, 0.2, seed=7)
    blocks = blocks_of(spark, weights)
    whole = digest(trained(blocks))
    paths = [row["path"] for row in blocks.references.collect()]
    start = initial_factors(np.arange(40), 6, seed=1, scale=0.1)
    epochs = train(blocks, start, OBJECTIVE, Settings(epochs=5))
    kept = [next(epochs), next(epochs)]
    shutil.rmtree(paths[1])
    kept += list(epochs)
    assert digest(kept) == whole
    assert paths[1] not in [row["path"] for row in blocks.references.collect()]
    blocks.close()


def test_a_checkerboard_of_tastes_is_learned(spark: SparkSession) -> None:
    """Even users like even items; each has seen all but one of them, which must come out first."""
    n = 20
    dense = (np.arange(n)[:, None] + np.arange(n)[None, :]) % 2 == 0
    left_out = [(u, (u + 2 * (u % 5)) % n) for u in range(n)]
    dense = dense.astype(np.float32)
    for user, item in left_out:
        dense[user, item] = 0
    blocks = blocks_of(spark, sp.csr_matrix(dense))
    start = initial_factors(np.arange(n), 4, seed=1, scale=0.1)
    last = list(train(blocks, start, Ials(0.05, 0.001), Settings(epochs=15)))[-1]
    solve = rows_solve(last.factors, Ials(0.05, 0.001), 100, 1e-8)
    users = np.empty((n, 4), np.float32)
    for block, found in blocks.run(lambda block, a: (block.rows, solve_block(block, a)), solve, "users"):
        users[block] = found
    scores = np.where(dense > 0, -np.inf, users @ solve.others.T)
    assert [(u, int(scores[u].argmax())) for u in range(n)] == left_out
    blocks.close()


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_an_objective_that_is_no_number_stops_the_run(spark: SparkSession, weight: float) -> None:
    weights = random_weights(20, 10, 0.3, seed=8)
    weights.data[3] = weight
    blocks = blocks_of(spark, weights)
    with pytest.raises(DataError, match="epoch 1 of 5: the objective is"):
        trained(blocks)
    blocks.close()


def test_training_stops_where_an_epoch_improves_too_little_and_a_rerun_does_not_go_on(spark: SparkSession) -> None:
    blocks = blocks_of(spark, random_weights(60, 40, 0.2, seed=14))
    objectives = [epoch.objective for epoch in trained(blocks, epochs=50, tolerance=0.01)]
    falls = -np.diff(objectives) / objectives[:-1]
    assert 3 < len(objectives) < 50 and falls[-1] < 0.01 <= falls[:-1].min()
    start = initial_factors(np.arange(40), 6, seed=1, scale=0.1)
    assert list(train(blocks, start, OBJECTIVE, Settings(epochs=50, tolerance=0.01), objectives)) == []
    blocks.close()


def test_an_objective_that_rises_stops_the_run(spark: SparkSession) -> None:
    blocks = blocks_of(spark, random_weights(40, 30, 0.2, seed=15))
    first = trained(blocks, epochs=1)[0]
    with pytest.raises(DataError, match=r"epoch 2 of 5: the objective rose from .*; raise als\.regularization"):
        list(train(blocks, first.factors, OBJECTIVE, Settings(epochs=5), [first.objective / 2]))
    blocks.close()


def test_sums_added_in_pieces_on_executors_are_those_of_the_driver_to_the_byte(spark: SparkSession) -> None:
    blocks = blocks_of(spark, random_weights(300, 50, 0.2, seed=16), n=5)
    solve = rows_solve(initial_factors(np.arange(50), 6, 1, 0.1), OBJECTIVE, 8, 1e-4)
    size = solve.others.nbytes
    whole, rest = blocks.total(rows_pass, (solve, 1), "whole", size)
    for at_once in (2 * size, size // 2):
        pieces, same = blocks.total(rows_pass, (solve, 1), "pieces", size, at_once)
        assert pieces.tobytes() == whole.tobytes()
        assert [loss for _, loss in same] == [loss for _, loss in rest]
    blocks.close()


def test_a_block_that_is_lost_is_noticed_where_sums_are_added_in_pieces(spark: SparkSession) -> None:
    blocks = blocks_of(spark, random_weights(50, 40, 0.2, seed=17))
    shutil.rmtree(blocks.references.collect()[1]["path"])
    with pytest.raises(BlockMissingError, match=r"blocks \[\d\] are not"):
        blocks.total(counts_pass, 40, "counts", 320, at_once=100)
    blocks.close()


def test_a_column_that_is_not_named_is_an_error(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(0, 1, 1.0), (0, 2, 1.0), (0, 3, 1.0)], "row int, column int, value float")
    with pytest.raises(PythonException, match="column 2 is none of those that the blocks are built for"):
        store.build(frame, np.array([1, 3], np.int32), 1)


def test_a_block_yields_sums_of_the_moving_sides_size_only(spark: SparkSession) -> None:
    weights = random_weights(200, 10, 0.3, seed=9)
    blocks = blocks_of(spark, weights, n=2)
    solve = rows_solve(initial_factors(np.arange(10), 4, 1, 0.1), OBJECTIVE, 8, 1e-4)
    for residual, (gram, loss) in blocks.run(rows_pass, (solve, 1), "rows"):
        assert residual.shape == (10, 4) and gram.shape == (4, 4) and np.isscalar(loss)
    blocks.close()


def test_initial_factors_depend_on_the_ids_hash_and_the_column_only() -> None:
    hashes = np.array([12, -7, 99], np.int64)
    whole = initial_factors(hashes, 8, seed=3, scale=0.1)
    assert (initial_factors(hashes[::-1], 8, seed=3, scale=0.1) == whole[::-1]).all()
    assert np.allclose(initial_factors(hashes, 2, seed=3, scale=0.1), whole[:, :2] * 2)
    assert (initial_factors(hashes, 8, seed=4, scale=0.1) != whole).all()


def test_initial_factors_have_the_scale_asked_for() -> None:
    factors = initial_factors(np.arange(20_000), 16, seed=1, scale=0.1)
    assert factors.mean() == pytest.approx(0, abs=1e-4)
    assert factors.std() == pytest.approx(0.1 / 4, rel=0.01)
