"""What the iteration does where the histories are: passes over blocks, each a pure function of block and arguments.

R̃ = D_rows^−p · R · D_columns^−q, D the sums of a row's or column's values. The columns' scales are applied by the
caller, to what is sent and to what comes back; the rows' where the rows are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.blocks.layout import TILE, Block
from recsys_spark.spectral import kernels

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Product:
    """Arguments of a pass: the columns' directions (n_columns, width), scaled, and the rows' exponent p."""

    directions: Floats
    row_exponent: float


def degrees_pass(block: Block, n_columns: int) -> tuple[Doubles, None]:
    """Return the sums of a block's values by column, (n_columns,)."""
    values = np.broadcast_to(block.values, len(block.columns))
    return np.bincount(block.columns, values, minlength=n_columns).astype(np.float64), None


def product_pass(block: Block, argument: Product) -> tuple[Floats, None]:
    """Return a block's part of Rᵀ·D_rows^−2p·R·directions, (n_columns, width)."""
    out = np.zeros_like(argument.directions)
    scales = powers(row_degrees(block), -2 * argument.row_exponent).astype(np.float32)
    kernels.add_products(
        np.asarray(block.offsets),
        np.asarray(block.columns),
        np.asarray(block.values),
        np.asarray(block.runs),
        np.asarray(block.starts),
        np.asarray(block.run_rows),
        np.asarray(block.run_values),
        scales,
        TILE,
        argument.directions,
        out,
    )
    return out, None


def rows_of(block: Block, directions: Floats) -> Floats:
    """Return R·directions of a block's rows, (n_rows, width)."""
    out = np.zeros((len(block.rows), directions.shape[1]), np.float32)
    kernels.gather(np.asarray(block.offsets), np.asarray(block.columns), np.asarray(block.values), directions, out)
    return out


def row_degrees(block: Block) -> Doubles:
    """Return the sums of a block's values by row, (n_rows,)."""
    out = np.empty(len(block.rows))
    kernels.degrees(np.asarray(block.offsets), np.asarray(block.values), out)
    return out


def powers(degrees: Doubles, exponent: float) -> Doubles:
    """Return degrees to a power, 0 where there is nothing.

    >>> powers(np.array([4.0, 0.0]), -0.5).tolist()
    [0.5, 0.0]
    """
    return np.where(degrees > 0, np.maximum(degrees, 1e-30) ** exponent, 0.0)
