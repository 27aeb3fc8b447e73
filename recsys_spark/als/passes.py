"""What an epoch does where the histories are: three passes over blocks, each a pure function of block and arguments."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als import kernels
from recsys_spark.als.linalg import gramian
from recsys_spark.als.objective import Ials
from recsys_spark.blocks.layout import Block

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Solve:
    """Arguments of a solve of the fixed side's rows.

    others (n_columns, rank) are the moving side's factors in the eigenbasis of their Gramian, eigenvalues
    (rank,) its spectrum; steps and tolerance bound the conjugate gradient.
    """

    others: Floats
    eigenvalues: Floats
    objective: Ials
    steps: int
    tolerance: float


@dataclass(frozen=True)
class Solved:
    """What the driver gets of a block: sums, never a row.

    gram (rank, rank) is the block's part of XᵀX; residual (n_columns, rank) of Σ_u (t − w·s)·x_u; loss of
    the observed cells' and rows' objective.
    """

    gram: NDArray[np.float64]
    residual: Floats
    loss: float


@dataclass(frozen=True)
class Products:
    """Arguments of a pass over the moving side's directions (n_columns, rank) with the rows of an epoch."""

    directions: Floats
    objective: Ials
    epoch: int


def solve_histories(offsets: Ints, columns: Ints, values: Floats, solve: Solve) -> Floats:
    """Return the factors (n_rows, rank) of histories in CSR form, in the basis of `solve.others`.

    offsets (n_rows + 1,), columns (nnz,) positions on the moving side, values (nnz,) interaction weights.
    """
    weights, targets = solve.objective.weights_targets(values)
    out = np.empty((len(offsets) - 1, solve.others.shape[1]), np.float32)
    kernels.solve_rows(
        np.asarray(offsets),
        np.asarray(columns),
        np.asarray(weights),
        np.asarray(targets),
        solve.others,
        np.float32(solve.objective.alpha0) * solve.eigenvalues,
        solve.objective.row_regularization(np.diff(offsets), len(solve.others)),
        solve.steps,
        solve.tolerance,
        out,
    )
    return out


def solve_block(block: Block, solve: Solve) -> Floats:
    """Return the factors (n_rows, rank) of a block's rows, in the basis of `solve.others`."""
    return solve_histories(block.offsets, block.columns, block.values, solve)


def rows_pass(block: Block, argument: tuple[Solve, int]) -> Solved:
    """Solve a block's rows, leave them beside it, and sum what the moving side needs of them."""
    solve, epoch = argument
    rows = solve_block(block, solve)
    block.drop("rows-of-*")
    block.save(f"rows-of-{epoch}", rows)
    weights, targets = solve.objective.weights_targets(block.run_values)
    residual = np.zeros_like(solve.others)
    loss = kernels.add_residuals(
        np.asarray(block.runs),
        np.asarray(block.starts),
        np.asarray(block.run_rows),
        np.asarray(weights),
        np.asarray(targets),
        rows,
        solve.others,
        residual,
    )
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    reg = solve.objective.row_regularization(np.diff(block.offsets), len(solve.others))
    loss += solve.objective.constant(block.values) + float(reg @ squares)
    return Solved(gramian(rows), residual, loss)


def products_pass(block: Block, argument: Products) -> Floats:
    """Return Σ_u w·(x_uᵀ p_i)·x_u of a block, (n_columns, rank)."""
    weights, _ = argument.objective.weights_targets(block.run_values)
    out = np.zeros_like(argument.directions)
    kernels.add_products(
        np.asarray(block.runs),
        np.asarray(block.starts),
        np.asarray(block.run_rows),
        np.asarray(weights),
        block.load(f"rows-of-{argument.epoch}"),
        argument.directions,
        out,
    )
    return out


def counts_pass(block: Block, n_columns: int) -> NDArray[np.int64]:
    """Return how many of a block's rows have each column, (n_columns,)."""
    return np.bincount(block.columns, minlength=n_columns)
