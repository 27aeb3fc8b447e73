"""The compiled inner loops of ALS: rows solved by conjugate gradient, and the moving side's products.

Everything is float32 and in whatever orthogonal basis the caller chose. The sums within a row have a fixed
order, so that equal input gives equal bytes.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@numba.njit(fastmath=True, error_model="numpy", nogil=True, cache=True)
def solve_rows(
    offsets: Ints,
    columns: Ints,
    weights: Floats,
    targets: Floats,
    others: Floats,
    shared: Floats,
    regularization: Floats,
    steps: int,
    tolerance: float,
    out: Floats,
) -> None:
    """Solve (diag(shared + λ_u) + Σ w·y yᵀ) x = Σ t·y for every row u, into out (n_rows, rank).

    In the eigenbasis of YᵀY, where others (n_columns, rank) must be given, what all rows share is the
    diagonal `shared` = a0·eigenvalues (rank,). With S = diag(shared + λ_u)^-1/2 and x = S v the system is
    (I + Σ w·Sy (Sy)ᵀ) v = Σ t·Sy: the identity plus one rank-one term an entry, so conjugate gradient
    from v = 0 needs few steps, each O(n_u · rank). It stops at a residual of `tolerance` times its start.
    """
    rank = others.shape[1]
    scale = np.empty(rank, np.float32)
    residual = np.empty(rank, np.float32)
    direction = np.empty(rank, np.float32)
    image = np.empty(rank, np.float32)
    scaled = np.empty((1024, rank), np.float32)
    tiny = np.float32(1e-20)
    for u in range(offsets.shape[0] - 1):
        start = offsets[u]
        n = offsets[u + 1] - start
        x = out[u]
        if n > scaled.shape[0]:
            scaled = np.empty((n, rank), np.float32)
        for j in range(rank):
            scale[j] = np.float32(1) / np.sqrt(shared[j] + regularization[u])
            x[j] = 0
            residual[j] = 0
        for q in range(n):
            y = others[columns[start + q]]
            row = scaled[q]
            target = targets[start + q]
            for j in range(rank):
                row[j] = y[j] * scale[j]
                residual[j] += target * row[j]
        norm = np.float32(0)
        for j in range(rank):
            direction[j] = residual[j]
            norm += residual[j] * residual[j]
        first = norm
        for _ in range(steps):
            if norm <= tolerance * tolerance * first or norm < tiny:
                break
            for j in range(rank):
                image[j] = direction[j]
            for q in range(n):
                row = scaled[q]
                dot = np.float32(0)
                for j in range(rank):
                    dot += row[j] * direction[j]
                dot *= weights[start + q]
                for j in range(rank):
                    image[j] += dot * row[j]
            curvature = np.float32(0)
            for j in range(rank):
                curvature += direction[j] * image[j]
            length = norm / curvature
            new = np.float32(0)
            for j in range(rank):
                x[j] += length * direction[j]
                residual[j] -= length * image[j]
                new += residual[j] * residual[j]
            turn = new / norm
            for j in range(rank):
                direction[j] = residual[j] + turn * direction[j]
            norm = new
        for j in range(rank):
            x[j] *= scale[j]


@numba.njit(fastmath=True, error_model="numpy", nogil=True, cache=True)
def add_residuals(
    runs: Ints,
    starts: Ints,
    run_rows: Ints,
    weights: Floats,
    targets: Floats,
    rows: Floats,
    others: Floats,
    out: Floats,
) -> float:
    """out_i += Σ_u (t − w·s)·x_u over the entries, s = x_uᵀ y_i; return Σ w·s² − 2·t·s, the entries' loss."""
    rank = rows.shape[1]
    loss = 0.0
    for k in range(runs.shape[0]):
        y = others[runs[k]]
        sum_ = out[runs[k]]
        for q in range(starts[k], starts[k + 1]):
            x = rows[run_rows[q]]
            score = np.float32(0)
            for j in range(rank):
                score += x[j] * y[j]
            factor = targets[q] - weights[q] * score
            loss -= np.float64(score) * (np.float64(factor) + np.float64(targets[q]))
            for j in range(rank):
                sum_[j] += factor * x[j]
    return loss


@numba.njit(fastmath=True, error_model="numpy", nogil=True, cache=True)
def add_products(
    runs: Ints,
    starts: Ints,
    run_rows: Ints,
    weights: Floats,
    rows: Floats,
    directions: Floats,
    out: Floats,
) -> None:
    """out_i += Σ_u w·(x_uᵀ p_i)·x_u over the entries: the part of the moving side's systems that histories hold."""
    rank = rows.shape[1]
    for k in range(runs.shape[0]):
        p = directions[runs[k]]
        sum_ = out[runs[k]]
        for q in range(starts[k], starts[k + 1]):
            x = rows[run_rows[q]]
            dot = np.float32(0)
            for j in range(rank):
                dot += x[j] * p[j]
            dot *= weights[q]
            for j in range(rank):
                sum_[j] += dot * x[j]
