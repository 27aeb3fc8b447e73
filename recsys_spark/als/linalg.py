"""Dense linear algebra of item-sized arrays: Gramians in float64 at the price of float32, eigenbases."""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_CHUNK = 4096


def gramian(factors: Floats) -> Doubles:
    """Return factorsᵀ·factors, (rank, rank): float32 products of chunks of rows, summed in float64 in order."""
    total = np.zeros((factors.shape[1], factors.shape[1]))
    with threadpool_limits(1):
        for start in range(0, len(factors), _CHUNK):
            chunk = factors[start : start + _CHUNK]
            total += chunk.T @ chunk
    return total


def eigenbasis(gram: Doubles) -> tuple[Floats, Floats]:
    """Return eigenvalues (rank,), none below 0, and eigenvectors (rank, rank) in columns, as float32."""
    with threadpool_limits(1):
        values, basis = np.linalg.eigh(gram)
    return np.maximum(values, 0).astype(np.float32), basis.astype(np.float32)


def rotate(factors: Floats, basis: Floats) -> Floats:
    """Return factors·basis, one BLAS thread, so that the bytes do not depend on the machine's cores."""
    with threadpool_limits(1):
        return factors @ basis
