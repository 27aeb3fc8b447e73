import numpy as np
import pytest

from recsys_spark.als.kernels import add_residuals, solve_rows
from recsys_spark.als.linalg import eigenbasis, gramian
from recsys_spark.als.objective import Ials
from recsys_spark.blocks.layout import open_block, write_block
from tests.als.oracle import exact_rows, random_weights

OBJECTIVE = Ials(alpha0=0.3, regularization=0.05)


@pytest.mark.parametrize("rank", [1, 3, 16, 65])
def test_a_solve_to_the_end_equals_the_dense_normal_equations(rank: int) -> None:
    weights = random_weights(40, 30, 0.2, seed=rank)
    others = np.random.default_rng(1).standard_normal((30, rank)).astype(np.float32)
    reg = OBJECTIVE.row_regularization(np.diff(weights.indptr), 30)
    values, basis = eigenbasis(gramian(others))
    out = np.full((40, rank), np.nan, np.float32)
    solve_rows(
        weights.indptr, weights.indices, weights.data, weights.data, others @ basis,
        np.float32(0.3) * values, reg, 200, 1e-10, out,
    )  # fmt: skip
    exact = exact_rows(weights, weights.data, others.astype(np.float64), 0.3, reg)
    assert np.abs(out @ basis.T - exact).max() < 2e-4 * np.abs(exact).max()


def test_a_row_without_entries_has_factors_of_zero() -> None:
    out = np.full((1, 4), np.nan, np.float32)
    none = np.zeros(0, np.float32)
    solve_rows(np.zeros(2, np.int32), np.zeros(0, np.int32), none, none, np.ones((3, 4), np.float32),
               np.ones(4, np.float32), np.ones(1, np.float32), 8, 1e-2, out)  # fmt: skip
    assert (out == 0).all()


def test_a_long_row_is_solved_like_any_other() -> None:
    rng = np.random.default_rng(0)
    others = rng.standard_normal((3000, 8)).astype(np.float32)
    columns = np.arange(3000, dtype=np.int32)
    ones = np.ones(3000, np.float32)
    values, basis = eigenbasis(gramian(others))
    out = np.empty((1, 8), np.float32)
    reg = np.array([2.0], np.float32)
    solve_rows(
        np.array([0, 3000], np.int32),
        columns,
        ones,
        ones,
        others @ basis,
        np.float32(0.1) * values,
        reg,
        100,
        1e-10,
        out,
    )
    y = others.astype(np.float64)
    expected = np.linalg.solve(1.1 * y.T @ y + 2 * np.eye(8), y.sum(axis=0))
    assert np.allclose(out[0] @ basis.T, expected, rtol=1e-3, atol=1e-5)


def test_residuals_products_and_loss_are_those_of_the_formulas(tmp_path) -> None:
    weights = random_weights(700, 25, 0.1, seed=3)  # more rows than a tile
    coo = weights.tocoo()
    path, _ = write_block(tmp_path, coo.row.astype(np.int32), coo.col.astype(np.int32), coo.data, 25)
    block = open_block(str(path))
    rng = np.random.default_rng(4)
    x, y, p = (rng.standard_normal((n, 6)).astype(np.float32) for n in (700, 25, 25))
    targets = block.run_values * 3
    residual, products = np.zeros_like(y), np.zeros_like(y)
    args = (
        np.asarray(block.runs),
        np.asarray(block.starts),
        np.asarray(block.run_rows),
        np.asarray(block.run_values),
    )
    loss = add_residuals(*args, targets, x, y, residual)
    add_residuals(*args, np.zeros(1, np.float32), x, p, products)
    dense = weights.toarray().astype(np.float64)
    scores = x.astype(np.float64) @ y.T
    assert np.allclose(residual, ((dense * 3) - dense * scores).T @ x, rtol=1e-3, atol=1e-3)
    assert np.allclose(-products, (dense * (x.astype(np.float64) @ p.T)).T @ x, rtol=1e-3, atol=1e-3)
    assert loss == pytest.approx((dense * scores**2 - 2 * dense * 3 * scores).sum(), rel=1e-4)
