"""What is popular now, added to a model's scores as one more column of the factors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Prior:
    """Adds β_u·log(1 + popularity_i) to a score.

    values (n_items,) are the items' column: the logarithm times a scale, by which a user's β is divided, so that the
    column is as long as the factors and the bound ‖x‖·‖y‖ stays near the scores. β_u = weight for everyone, and
    extra·(1 − n_u / min_history) more for users with fewer than min_history items. With a large weight lists are those
    of the most popular items.
    """

    values: Floats
    scale: float
    weight: float
    extra: float = 0.0
    min_history: int = 0

    @classmethod
    def of(
        cls, popularity: Floats, factors: Floats, weight: float, extra: float = 0.0, min_history: int = 0
    ) -> "Prior":
        """Build from the popularity (n_items,) of a model's items and their factors (n_items, rank)."""
        logs = np.log1p(popularity.astype(np.float64))
        squares = float(np.einsum("ij,ij->", factors, factors, dtype=np.float64))
        scale = float(np.sqrt(squares / max(float(np.einsum("i,i->", logs, logs)), 1e-30))) or 1.0
        return cls((logs * scale).astype(np.float32), scale, weight, extra, min_history)

    def with_items(self, factors: Floats) -> Floats:
        """Return items' factors (n_items, rank) with one column more."""
        return np.column_stack([factors, self.values])

    def with_users(self, factors: Floats, counts: Longs) -> Floats:
        """Return users' factors (n_users, rank) with one column more; counts (n_users,) are of their items."""
        little = np.maximum(1 - counts / max(self.min_history, 1), 0) if self.min_history else np.zeros(len(counts))
        return np.column_stack([factors, (self.weight + self.extra * little) / self.scale]).astype(np.float32)

    def blends(self, counts: Longs) -> NDArray[np.bool_]:
        """Return which users are given more of what is popular than others, (n_users,)."""
        return (counts < self.min_history) & (self.extra > 0)


def popularity_scales(popularity: Floats, exponent: float) -> Floats:
    """Return what items' factors are multiplied by, (n_items,): (1 + popularity)^exponent over its mean.

    >>> popularity_scales(np.array([0.0, 8.0], np.float32), 0.5).tolist()
    [0.5, 1.5]
    """
    powers = (1 + popularity.astype(np.float64)) ** exponent
    return (powers / powers.mean()).astype(np.float32)
