"""The compiled inner loops of ALS: rows solved by conjugate gradient, and the moving side's residual.

Everything is float32 and in whatever orthogonal basis the caller chose. The sums within a row have a fixed
order, so that equal input gives equal bytes. Entries are taken four at a time: each number of the vector that
they share is then loaded once for four. Weights and targets are (nnz,), or (1,) where one number stands for all.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@numba.njit(fastmath=True, error_model="numpy", nogil=True)
def add_weighted(others: Floats, columns: Ints, first: int, targets: Floats, each: int, out: Floats) -> None:
    """out += Σ_q t_q·y_q over the entries of one row, y_q = others[columns[q] − first], t_q = targets[q · each]."""
    n, rank = len(columns), others.shape[1]
    q = 0
    while q + 4 <= n:
        a, b = others[columns[q] - first], others[columns[q + 1] - first]
        c, d = others[columns[q + 2] - first], others[columns[q + 3] - first]
        of_a, of_b = targets[q * each], targets[(q + 1) * each]
        of_c, of_d = targets[(q + 2) * each], targets[(q + 3) * each]
        for j in range(rank):
            out[j] += of_a * a[j] + of_b * b[j] + of_c * c[j] + of_d * d[j]
        q += 4
    while q < n:
        y = others[columns[q] - first]
        for j in range(rank):
            out[j] += targets[q * each] * y[j]
        q += 1


@numba.njit(fastmath=True, error_model="numpy", nogil=True)
def _add_low_rank(others: Floats, columns: Ints, weights: Floats, each: int, vector: Floats, out: Floats) -> None:
    """out += Σ_q w_q·(y_qᵀ vector)·y_q over the entries of one row, as in `add_weighted`."""
    n, rank = len(columns), others.shape[1]
    q = 0
    while q + 4 <= n:
        a, b, c, d = others[columns[q]], others[columns[q + 1]], others[columns[q + 2]], others[columns[q + 3]]
        of_a, of_b, of_c, of_d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for j in range(rank):
            of_a += a[j] * vector[j]
            of_b += b[j] * vector[j]
            of_c += c[j] * vector[j]
            of_d += d[j] * vector[j]
        of_a *= weights[q * each]
        of_b *= weights[(q + 1) * each]
        of_c *= weights[(q + 2) * each]
        of_d *= weights[(q + 3) * each]
        for j in range(rank):
            out[j] += of_a * a[j] + of_b * b[j] + of_c * c[j] + of_d * d[j]
        q += 4
    while q < n:
        y = others[columns[q]]
        dot = np.float32(0)
        for j in range(rank):
            dot += y[j] * vector[j]
        dot *= weights[q * each]
        for j in range(rank):
            out[j] += dot * y[j]
        q += 1


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
    shortfall: float,
    out: Floats,
) -> None:
    """Solve (diag(shared + λ_u) + Σ w·y yᵀ) x = Σ t·y for every row u, into out (n_rows, rank).

    In the eigenbasis of YᵀY, where others (n_columns, rank) must be given, what all rows share is the
    diagonal `shared` = a0·eigenvalues (rank,). With S = diag(shared + λ_u)^-1/2 and x = S v the system is
    (I + S·Σ w·y yᵀ·S) v = S·Σ t·y: the identity plus one rank-one term an entry, so conjugate gradient
    from v = 0 needs few steps, each O(n_u · rank). What the objective can still fall by is at most
    ‖residual‖², as no eigenvalue is below 1: it stops once that is a share `shortfall` of what it fell by.
    """
    rank = others.shape[1]
    each_weight, each_target = min(len(weights) - 1, 1), min(len(targets) - 1, 1)
    scale = np.empty(rank, np.float32)
    residual = np.empty(rank, np.float32)
    direction = np.empty(rank, np.float32)
    vector = np.empty(rank, np.float32)  # the direction, scaled
    image = np.empty(rank, np.float32)
    tiny = np.float32(1e-20)
    for u in range(offsets.shape[0] - 1):
        start, end = offsets[u], offsets[u + 1]
        history = columns[start:end]
        x = out[u]
        for j in range(rank):
            scale[j] = np.float32(1) / np.sqrt(shared[j] + regularization[u])
            x[j] = 0
            residual[j] = 0
        add_weighted(others, history, 0, targets[start * each_target :], each_target, residual)
        norm = np.float32(0)
        for j in range(rank):
            residual[j] *= scale[j]
            direction[j] = residual[j]
            norm += residual[j] * residual[j]
        gain = np.float32(0)
        for _ in range(steps):
            if norm <= shortfall * gain or norm < tiny:
                break
            for j in range(rank):
                vector[j] = scale[j] * direction[j]
                image[j] = 0
            _add_low_rank(others, history, weights[start * each_weight :], each_weight, vector, image)
            curvature = np.float32(0)
            for j in range(rank):
                image[j] = direction[j] + scale[j] * image[j]
                curvature += direction[j] * image[j]
            length = norm / curvature
            gain += length * norm
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
    """out_i += Σ_u (t − w·s)·x_u over the entries, s = x_uᵀ y_i; return Σ w·s² − 2·t·s, the entries' loss.

    With t = 0 it is minus the product of the moving side's systems with y, without what all of them share.
    """
    rank = rows.shape[1]
    each_weight, each_target = min(len(weights) - 1, 1), min(len(targets) - 1, 1)
    loss = 0.0
    for k in range(runs.shape[0]):
        y = others[runs[k]]
        sum_ = out[runs[k]]
        q, end = starts[k], starts[k + 1]
        while q + 4 <= end:
            a, b, c, d = rows[run_rows[q]], rows[run_rows[q + 1]], rows[run_rows[q + 2]], rows[run_rows[q + 3]]
            of_a, of_b, of_c, of_d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for j in range(rank):
                of_a += a[j] * y[j]
                of_b += b[j] * y[j]
                of_c += c[j] * y[j]
                of_d += d[j] * y[j]
            to_a, to_b = targets[q * each_target], targets[(q + 1) * each_target]
            to_c, to_d = targets[(q + 2) * each_target], targets[(q + 3) * each_target]
            by_a = to_a - weights[q * each_weight] * of_a
            by_b = to_b - weights[(q + 1) * each_weight] * of_b
            by_c = to_c - weights[(q + 2) * each_weight] * of_c
            by_d = to_d - weights[(q + 3) * each_weight] * of_d
            loss -= np.float64(
                of_a * (by_a + to_a) + of_b * (by_b + to_b) + of_c * (by_c + to_c) + of_d * (by_d + to_d)
            )
            for j in range(rank):
                sum_[j] += by_a * a[j] + by_b * b[j] + by_c * c[j] + by_d * d[j]
            q += 4
        while q < end:
            x = rows[run_rows[q]]
            score = np.float32(0)
            for j in range(rank):
                score += x[j] * y[j]
            target = targets[q * each_target]
            factor = target - weights[q * each_weight] * score
            loss -= np.float64(score * (factor + target))
            for j in range(rank):
                sum_[j] += factor * x[j]
            q += 1
    return loss
