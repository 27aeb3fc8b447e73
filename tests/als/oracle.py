"""ALS said slowly: dense normal equations in float64, and the objective written out over all cells."""

import numpy as np
import scipy.sparse as sp


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


def ials_objective(
    weights: np.ndarray, x: np.ndarray, y: np.ndarray, a0: float, reg_x: np.ndarray, reg_y: np.ndarray
) -> float:
    """Σ_observed w·(s − 1)² + a0·Σ_all s² + Σ λ|x|² + Σ λ|y|², over a dense matrix of weights (0: not observed)."""
    scores = x @ y.T
    observed = (weights * (scores - 1) ** 2).sum()
    everything = a0 * (scores**2).sum()
    return float(observed + everything + reg_x @ (x**2).sum(axis=1) + reg_y @ (y**2).sum(axis=1))


def random_weights(n_users: int, n_items: int, density: float, seed: int) -> sp.csr_matrix:
    """Random weights in which every user and item has an entry."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n_users, n_items)) < density, rng.integers(1, 5, (n_users, n_items)) / 2, 0)
    dense[np.arange(n_users), rng.integers(0, n_items, n_users)] = 1
    dense[rng.integers(0, n_users, n_items), np.arange(n_items)] = 1
    return sp.csr_matrix(dense.astype(np.float32))
