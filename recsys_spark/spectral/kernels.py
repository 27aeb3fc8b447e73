"""The compiled inner loops of the spectral model: sums over histories, and the product that the iteration is made of.

float32 throughout, degrees in float64; sums have a fixed order. Values are (nnz,), or (1,) where one stands for all.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from recsys_spark.als.kernels import add_weighted

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@numba.njit(error_model="numpy", nogil=True, cache=True)
def degrees(offsets: Ints, values: Floats, out: Doubles) -> None:
    """out_u = Σ_q w_q over the entries of every row u, (n_rows,)."""
    each = min(len(values) - 1, 1)
    for u in range(len(offsets) - 1):
        total = 0.0
        for q in range(offsets[u], offsets[u + 1]):
            total += values[q * each]
        out[u] = total


@numba.njit(error_model="numpy", nogil=True, cache=True)
def gather(offsets: Ints, columns: Ints, values: Floats, others: Floats, out: Floats) -> None:
    """out_u += Σ_q w_q·y_q over the entries of every row u, y_q = others[columns[q]]; out (n_rows, width)."""
    each = min(len(values) - 1, 1)
    for u in range(len(offsets) - 1):
        start, end = offsets[u], offsets[u + 1]
        add_weighted(others, columns[start:end], 0, values[start * each :], each, out[u])


@numba.njit(fastmath=True, error_model="numpy", nogil=True, cache=True)
def add_products(
    offsets: Ints,
    columns: Ints,
    values: Floats,
    runs: Ints,
    starts: Ints,
    run_rows: Ints,
    run_values: Floats,
    scales: Floats,
    tile: int,
    others: Floats,
    out: Floats,
) -> None:
    """out_i += Σ_u w_ui·x_u with x_u = scales_u·Σ_i w_ui·y_i, over a block's rows; out, others (n_columns, width).

    The arrays are a block's, cut into tiles of so many rows: a tile's x stay in cache until its columns are summed.
    """
    width = others.shape[1]
    each, each_run = min(len(values) - 1, 1), min(len(run_values) - 1, 1)
    rows = np.empty((tile, width), np.float32)
    n_rows = len(offsets) - 1
    k = 0
    for first in range(0, n_rows, tile):
        last = min(first + tile, n_rows)
        for u in range(first, last):
            x = rows[u - first]
            x[:] = 0
            start, end = offsets[u], offsets[u + 1]
            add_weighted(others, columns[start:end], 0, values[start * each :], each, x)
            for j in range(width):
                x[j] *= scales[u]
        while k < len(runs) and run_rows[starts[k]] < last:
            start, end = starts[k], starts[k + 1]
            add_weighted(rows, run_rows[start:end], first, run_values[start * each_run :], each_run, out[runs[k]])
            k += 1
