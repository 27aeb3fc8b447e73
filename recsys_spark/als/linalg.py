"""Dense linear algebra of item-sized arrays: Gramians in float64 at the price of float32, eigenbases.

Everything runs on one BLAS thread, so that the bytes do not depend on the machine's cores.
"""

from contextlib import AbstractContextManager
from functools import cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_CHUNK = 4096


def gramian(factors: Floats) -> Doubles:
    """Return factorsᵀ·factors, (rank, rank); see `cross`."""
    return cross(factors, factors)


def cross(left: Floats, right: Floats) -> Doubles:
    """Return leftᵀ·right of arrays of n rows: float32 products of chunks of rows, summed in float64 in order."""
    total = np.zeros((left.shape[1], right.shape[1]))
    with one_thread():
        for start in range(0, len(left), _CHUNK):
            rows = slice(start, start + _CHUNK)
            total += left[rows].T @ right[rows]
    return total


def eigenbasis(gram: Doubles) -> tuple[Floats, Floats]:
    """Return eigenvalues (rank,), none below 0, and eigenvectors (rank, rank) in columns, as float32."""
    with one_thread():
        values, basis = np.linalg.eigh(gram)
    return np.maximum(values, 0).astype(np.float32), basis.astype(np.float32)


def rotate(factors: Floats, basis: Floats) -> Floats:
    """Return factors·basis."""
    with one_thread():
        return factors @ basis


def one_thread() -> AbstractContextManager[object]:
    """Hold BLAS to one thread within a with-block."""
    return _libraries().limit(limits=1)


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looking the libraries up anew costs more than a small product
