"""The rating expected before any factor: taken off histories before they are solved, put back into scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Baseline:
    """The rating that is expected of a user and an item: mean + user's bias + item's bias.

    item_biases (n_items,) of the model's items. A user's bias is Σ (r − mean − b_i) / (n_u + damping) over her
    ratings, and 0 where damping is None. Koren, "Factor in the Neighbors", TKDD 2010, section 2.1.
    """

    mean: float
    item_biases: Floats
    damping: float | None

    def residuals(self, offsets: Ints, columns: Ints, ratings: Floats) -> tuple[Floats, Floats]:
        """Return what histories in CSR form leave to explain (nnz,), and the users' biases (n_users,).

        >>> residuals, biases = Baseline(3.0, np.array([0.5], np.float32), damping=1.0).residuals(
        ...     np.array([0, 1]), np.array([0]), np.array([4.5], np.float32)
        ... )
        >>> residuals.tolist(), biases.tolist()
        ([0.5], [0.5])
        """
        left = ratings - np.float32(self.mean) - self.item_biases[columns]
        counts = np.diff(offsets)
        if self.damping is None:
            return left, np.zeros(len(counts), np.float32)
        users = np.repeat(np.arange(len(counts)), counts)
        sums = np.bincount(users, left, minlength=len(counts))
        biases = (sums / np.maximum(counts + self.damping, 1e-9)).astype(np.float32)
        return left - biases[users], biases

    def with_items(self, factors: Floats) -> Floats:
        """Return items' factors (n_items, rank) with two columns more: the items' biases, and 1."""
        return np.column_stack([factors, self.item_biases, np.ones(len(factors), np.float32)])

    def with_users(self, factors: Floats, biases: Floats) -> Floats:
        """Return users' factors (n_users, rank) with two columns more, so that a score is a rating."""
        return np.column_stack([factors, np.ones(len(factors), np.float32), np.float32(self.mean) + biases])
