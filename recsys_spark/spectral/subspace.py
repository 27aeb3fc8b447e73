"""The leading eigenvectors of a symmetric matrix that is known by its products alone: block Krylov, Rayleigh-Ritz.

Musco and Musco, "Randomized Block Krylov Methods for Stronger and Faster Approximate Singular Value Decomposition",
NeurIPS 2015; restarted with the Ritz vectors, as in Wu and Simon, "Thick-Restart Lanczos Method", SIAM 2000.
"""

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als.linalg import cross, one_thread

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# What rounding leaves of nothing: a residual, as a share of the largest value; a squared length, as one of the longest.
_CONVERGED = 1e-6
_DEPENDENT = 1e-6


class Subspace:
    """A basis of at most `most` blocks of directions (n, ≤ width), their products with the matrix, and its Ritz values.

    Ask for `directions`, give their product to `add`, and so on, until the Ritz values change no more.
    """

    def __init__(self, start: Floats, most: int) -> None:
        """Begin with directions (n, width) that are independent; most, 2 or more, counts the arrays kept of this size.

        Twice as many are kept: the basis and its products.
        """
        self._width = start.shape[1]
        self._most = most
        self._basis: list[Floats] = []
        self._products: list[Floats] = []
        self._projected: Doubles = np.zeros((0, 0))
        self._ritz: Floats = np.zeros((0, 0), np.float32)
        self.directions: Floats | None = _orthonormal(start, [], 0.0)
        self.values: Doubles = np.zeros(0)

    def add(self, product: Floats) -> None:
        """Take the matrix's product with `directions`; find Ritz values (width,), descending, and the next directions.

        `directions` is None once the basis holds all that the matrix maps into it.
        """
        assert self.directions is not None
        self._basis.append(self.directions)
        self._products.append(product)
        column = np.concatenate([cross(each, product) for each in self._basis])
        size, own = len(self._projected), product.shape[1]
        grown = np.zeros((size + own, size + own))
        grown[:size, :size] = self._projected
        grown[:, size:] = column
        grown[size:, :size] = column[:size].T
        grown[size:, size:] = (column[size:] + column[size:].T) / 2
        self._projected = grown
        with one_thread():
            values, vectors = np.linalg.eigh(grown)
        self.values = np.maximum(values[::-1][: self._width], 0)
        self._ritz = vectors[:, ::-1][:, : self._width].astype(np.float32)
        if len(self._basis) < self._most:
            rest = product
        else:
            kept, product = _combined(self._basis, self._ritz), _combined(self._products, self._ritz)
            self._basis, self._products, self._projected = [kept], [product], np.diag(self.values)
            self._ritz = np.eye(len(self.values), dtype=np.float32)
            rest = product - kept * self.values.astype(np.float32)
        self.directions = _orthonormal(rest, self._basis, _CONVERGED * self.values[0])

    def vectors(self) -> Floats:
        """Return the Ritz vectors (n, width) that belong to `values`."""
        return _combined(self._basis, self._ritz)

    def residuals(self) -> Doubles:
        """Return ‖A·v − θ·v‖ of every Ritz vector v and value θ, (width,): how far it is from an eigenvector."""
        rest = _combined(self._products, self._ritz) - self.vectors() * self.values.astype(np.float32)
        return np.sqrt(np.einsum("ij,ij->j", rest, rest, dtype=np.float64))


def _combined(parts: list[Floats], weights: Floats) -> Floats:
    """Return the parts side by side times weights, (n, width)."""
    out = np.zeros((len(parts[0]), weights.shape[1]), np.float32)
    start = 0
    with one_thread():
        for part in parts:
            out += part @ weights[start : start + part.shape[1]]
            start += part.shape[1]
    return out


def _orthonormal(block: Floats, basis: list[Floats], least: float) -> Floats | None:
    """Return an orthonormal basis of what a block (n, width) has outside a basis; None where that is nothing.

    Columns that have no more than a length of `least` there are left out.
    """
    block = _outside(block, basis)
    lengths = np.sqrt(np.einsum("ij,ij->j", block, block, dtype=np.float64))
    block = block[:, lengths > least] / lengths[lengths > least].astype(np.float32)
    for _ in range(2):  # the first time leaves what rounding made of near equals
        block = _outside(block, basis)
        with one_thread():
            squares, vectors = np.linalg.eigh(cross(block, block))
        kept = squares > _DEPENDENT * squares.max(initial=0)
        if not kept.any():
            return None
        with one_thread():
            block = block @ (vectors[:, kept] / np.sqrt(squares[kept])).astype(np.float32)
    return block


def _outside(block: Floats, basis: list[Floats]) -> Floats:
    for each in basis:
        with one_thread():
            block = block - each @ cross(each, block).astype(np.float32)
    return block
