"""ALS said slowly: dense normal equations in float64, and the objective written out over all cells."""

import numpy as np
import scipy.sparse as sp

from recsys_spark.als.objective import HuKorenVolinsky, Ials, Objective


def exact_rows(
    weights: sp.csr_matrix, targets: np.ndarray, others: np.ndarray, a0: float, reg: np.ndarray
) -> np.ndarray:
    """Solve (a0·YᵀY + Σ w·y yᵀ + λ_u) x = Σ t·y for every row."""
    gram = a0 * others.T @ others
    out = np.zeros((weights.shape[0], others.shape[1]))
    for u in range(weights.shape[0]):
        entries = slice(weights.indptr[u], weights.indptr[u + 1])
        y = others[weights.indices[entries]]
        system = gram + y.T @ (weights.data[entries, None] * y) + reg[u] * np.eye(others.shape[1])
        out[u] = np.linalg.solve(system, y.T @ targets[entries])
    return out


def objective_of_cells(values: sp.csr_matrix, x: np.ndarray, y: np.ndarray, objective: Objective) -> float:
    """Write the objective out, cell by cell of a dense matrix in float64, as the papers have it."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    seen = np.zeros(values.shape, bool)
    seen[values.nonzero()] = True
    r, s = values.toarray().astype(np.float64), x @ y.T
    match objective:
        case Ials(alpha0=a0):
            cells = np.where(seen, r * (s - 1) ** 2, 0) + a0 * s**2
        case HuKorenVolinsky(alpha=alpha):
            cells = np.where(seen, (1 + alpha * r) * (1 - s) ** 2, s**2)
        case _:
            cells = np.where(seen, (r - s) ** 2, 0)
    reg_x = objective.row_regularization(seen.sum(axis=1), values.shape[1]).astype(np.float64)
    reg_y = objective.row_regularization(seen.sum(axis=0), values.shape[0]).astype(np.float64)
    return float(cells.sum() + reg_x @ (x**2).sum(axis=1) + reg_y @ (y**2).sum(axis=1))


def random_weights(n_users: int, n_items: int, density: float, seed: int) -> sp.csr_matrix:
    """Random weights in which every user and item has an entry."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n_users, n_items)) < density, rng.integers(1, 5, (n_users, n_items)) / 2, 0)
    dense[np.arange(n_users), rng.integers(0, n_items, n_users)] = 1
    dense[rng.integers(0, n_users, n_items), np.arange(n_items)] = 1
    return sp.csr_matrix(dense.astype(np.float32))
