"""What an epoch does where the histories are: passes over blocks, each a pure function of block and arguments.

A pass over the moving side returns its part of a sum over blocks, (n_columns, rank), and what else is small.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als import kernels
from recsys_spark.als.linalg import gramian
from recsys_spark.als.objective import Objective
from recsys_spark.blocks.layout import Block

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Solve:
    """Arguments of a solve of the fixed side's rows.

    others (n_columns, rank) are the moving side's factors in the eigenbasis of their Gramian, eigenvalues
    (rank,) its spectrum; steps and shortfall bound the conjugate gradient.
    """

    others: Floats
    eigenvalues: Floats
    objective: Objective
    steps: int
    shortfall: float


@dataclass(frozen=True)
class Products:
    """Arguments of a pass over the moving side's directions (n_columns, rank) with the rows of an epoch."""

    directions: Floats
    objective: Objective
    epoch: int


def solve_histories(offsets: Ints, columns: Ints, values: Floats, solve: Solve) -> Floats:
    """Return the factors (n_rows, rank) of histories in CSR form, in the basis of `solve.others`.

    offsets (n_rows + 1,), columns (nnz,) positions on the moving side, values (nnz,) or (1,) those of the interactions.
    """
    weights, targets = solve.objective.weights_targets(values)
    out = np.empty((len(offsets) - 1, solve.others.shape[1]), np.float32)
    kernels.solve_rows(
        np.asarray(offsets),
        np.asarray(columns),
        np.asarray(weights),
        np.asarray(targets),
        solve.others,
        np.float32(solve.objective.a0) * solve.eigenvalues,
        solve.objective.row_regularization(np.diff(offsets), len(solve.others)),
        solve.steps,
        solve.shortfall,
        out,
    )
    return out


def solve_block(block: Block, solve: Solve) -> Floats:
    """Return the factors (n_rows, rank) of a block's rows, in the basis of `solve.others`."""
    return solve_histories(block.offsets, block.columns, block.values, solve)


def rows_pass(block: Block, argument: tuple[Solve, int]) -> tuple[Floats, tuple[Doubles, float]]:
    """Solve a block's rows, leave them beside it, and sum what the moving side needs of them.

    Returns the block's parts of Σ_u (t − w·s)·x_u, (n_columns, rank), of XᵀX, (rank, rank), and of the
    objective: observed cells and rows' regularisation.
    """
    solve, epoch = argument
    rows = solve_block(block, solve)
    block.drop("rows-of-*")
    block.save(f"rows-of-{epoch}", rows)
    residual = np.zeros_like(solve.others)
    loss = _add_residuals(block, *solve.objective.weights_targets(block.run_values), rows, solve.others, residual)
    squares = np.einsum("ij,ij->i", rows, rows)
    reg = solve.objective.row_regularization(np.diff(block.offsets), len(solve.others))
    constants = solve.objective.constants(block.values)
    loss += constants.sum(dtype=np.float64) * (len(block.columns) / max(len(constants), 1)) + float(
        reg.astype(np.float64) @ squares
    )
    return residual, (gramian(rows), float(loss))


def products_pass(block: Block, argument: Products) -> tuple[Floats, None]:
    """Return −Σ_u w·(x_uᵀ p_i)·x_u of a block, (n_columns, rank): the residual of targets of zero."""
    weights, _ = argument.objective.weights_targets(block.run_values)
    out = np.zeros_like(argument.directions)
    rows = block.load(f"rows-of-{argument.epoch}")
    _add_residuals(block, weights, np.zeros(1, np.float32), rows, argument.directions, out)
    return out, None


def _add_residuals(block: Block, weights: Floats, targets: Floats, rows: Floats, others: Floats, out: Floats) -> float:
    return kernels.add_residuals(
        np.asarray(block.runs),
        np.asarray(block.starts),
        np.asarray(block.run_rows),
        np.asarray(weights),
        np.asarray(targets),
        np.asarray(rows),
        others,
        out,
    )


def counts_pass(block: Block, n_columns: int) -> tuple[NDArray[np.int64], None]:
    """Return how many of a block's rows have each column, (n_columns,)."""
    return np.bincount(block.columns, minlength=n_columns), None
