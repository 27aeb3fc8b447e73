"""How each kind of factor model folds a history in: from a user's items to factors, and from a score back to them.

A model is two things: what training found of its items, and a pure function from a history to a user's factors. All
that ranks, explains and blends asks for no more, so another model needs only another `Fold`.
"""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als.baseline import Baseline
from recsys_spark.als.linalg import eigenbasis, gramian, rotate
from recsys_spark.als.passes import Solve, solve_histories
from recsys_spark.spectral import kernels
from recsys_spark.spectral.passes import powers
from recsys_spark.topk.explain import contributions

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class Fold(Protocol):
    """What the top-K asks of a model of n items.

    Histories are in CSR form: offsets (n_users + 1,), columns (nnz,) positions among its items, values (nnz,).
    """

    @property
    def n_items(self) -> int:
        """Number of its items."""

    @property
    def spectrum(self) -> Floats:
        """Diagonal (width,) of the items' Gramian, which is diagonal: Σ_i (xᵀy_i)² = Σ_j spectrum_j·x_j²."""

    def item_factors(self) -> Floats:
        """Return items' factors (n_items, width)."""

    def user_factors(self, offsets: Ints, columns: Ints, values: Floats) -> Floats:
        """Return users' factors (n_users, width), each a function of her own history alone."""

    def contributions(self, columns: Ints, values: Floats, listed: Ints) -> Doubles:
        """Return what each item of one history contributes to the scores of listed items, (n_listed, n_history)."""

    def arrays(self) -> dict[str, Floats]:
        """Return its large arrays by name, for workers to map."""

    def with_arrays(self, arrays: dict[str, Floats]) -> Self:
        """Return the same with other arrays in their place."""


@dataclass(frozen=True)
class AlsFold:
    """ALS: a user's factors solve her own normal equations. Ratings are fitted beside a baseline."""

    solve: Solve
    baseline: Baseline | None = None

    @property
    def n_items(self) -> int:
        """Number of its items."""
        return len(self.solve.others)

    @property
    def spectrum(self) -> Floats:
        """Diagonal of the items' Gramian; a baseline's columns are not in it."""
        return self.solve.eigenvalues

    def item_factors(self) -> Floats:
        """Return items' factors."""
        return self.solve.others if self.baseline is None else self.baseline.with_items(self.solve.others)

    def user_factors(self, offsets: Ints, columns: Ints, values: Floats) -> Floats:
        """Return users' factors."""
        if self.baseline is None:
            return solve_histories(offsets, columns, values, self.solve)
        left, biases = self.baseline.residuals(offsets, columns, values)
        return self.baseline.with_users(solve_histories(offsets, columns, left, self.solve), biases)

    def contributions(self, columns: Ints, values: Floats, listed: Ints) -> Doubles:
        """Return the terms of each score, by the normal equations; of a rating, of what is beside its baseline."""
        if self.baseline is not None:
            values, _ = self.baseline.residuals(np.array([0, len(columns)], np.int32), columns, values)
        return contributions(self.solve, columns, values, listed)

    def arrays(self) -> dict[str, Floats]:
        """Return its large arrays."""
        return {"others": self.solve.others}

    def with_arrays(self, arrays: dict[str, Floats]) -> Self:
        """Return the same with other arrays."""
        return replace(self, solve=replace(self.solve, others=arrays["others"]))


@dataclass(frozen=True)
class SpectralFold:
    """Spectral: a user's factors are the sum of her items' `others`, (n, rank), times their weights.

    An item's own factors are `others` times its scale, (n,). A user's are as long as makes the root mean square of her
    scores over all items 1.
    """

    others: Floats
    scales: Floats
    spectrum: Floats

    @classmethod
    def of(cls, vectors: Floats, degrees: Doubles, column_exponent: float, item_exponent: float) -> "SpectralFold":
        """Build from singular vectors V (n, rank) and the items' sums of values D (n,).

        Histories are folded in by D^−column_exponent·V, items are D^item_exponent·V.
        """
        own = vectors * powers(degrees, item_exponent)[:, None].astype(np.float32)
        spectrum, basis = eigenbasis(gramian(own))
        others = rotate(vectors * powers(degrees, -column_exponent)[:, None].astype(np.float32), basis)
        return cls(others, powers(degrees, column_exponent + item_exponent).astype(np.float32), spectrum)

    @property
    def n_items(self) -> int:
        """Number of its items."""
        return len(self.others)

    def item_factors(self) -> Floats:
        """Return items' factors."""
        return self.others * self.scales[:, None]

    def user_factors(self, offsets: Ints, columns: Ints, values: Floats) -> Floats:
        """Return users' factors."""
        found = np.zeros((len(offsets) - 1, self.others.shape[1]), np.float32)
        kernels.gather(np.asarray(offsets), np.asarray(columns), np.asarray(values), np.asarray(self.others), found)
        return found / _at_least_tiny(root_mean_squares(self, found))[:, None]

    def contributions(self, columns: Ints, values: Floats, listed: Ints) -> Doubles:
        """Return the terms of each score."""
        parts = self.others[columns].astype(np.float64) * values[:, None]
        total = parts.sum(axis=0, keepdims=True).astype(np.float32)
        items = self.others[listed].astype(np.float64) * self.scales[listed, None]
        return (items @ parts.T) / _at_least_tiny(root_mean_squares(self, total))[0]

    def arrays(self) -> dict[str, Floats]:
        """Return its large arrays."""
        return {"others": self.others}

    def with_arrays(self, arrays: dict[str, Floats]) -> Self:
        """Return the same with other arrays."""
        return replace(self, others=arrays["others"])


@dataclass(frozen=True)
class Blend:
    """Two models of the same items side by side: scores of the first, and `weight` times those of the second.

    The second's are scaled for each user to the root mean square of the first's, so that a weight of 1 is an even mix.
    """

    first: Fold
    second: Fold
    weight: float

    @property
    def n_items(self) -> int:
        """Number of its items."""
        return self.first.n_items

    @property
    def spectrum(self) -> Floats:
        """Diagonals of both Gramians; what both have in common is not in it."""
        return np.concatenate([self.first.spectrum, self.second.spectrum])

    def item_factors(self) -> Floats:
        """Return items' factors."""
        return np.column_stack([self.first.item_factors(), self.second.item_factors()])

    def user_factors(self, offsets: Ints, columns: Ints, values: Floats) -> Floats:
        """Return users' factors."""
        first, second = (each.user_factors(offsets, columns, values) for each in (self.first, self.second))
        return self.joined(first, second)

    def joined(self, first: Floats, second: Floats) -> Floats:
        """Return users' factors of those of both models, (n_users, width) each."""
        return np.column_stack([first, second * self._shares(first, second)[:, None]])

    def _shares(self, first: Floats, second: Floats) -> Floats:
        sizes = root_mean_squares(self.first, first) / _at_least_tiny(root_mean_squares(self.second, second))
        return np.float32(self.weight) * sizes

    def contributions(self, columns: Ints, values: Floats, listed: Ints) -> Doubles:
        """Return the terms of each score, both models' together."""
        offsets = np.array([0, len(columns)], np.int32)
        first, second = (each.user_factors(offsets, columns, values) for each in (self.first, self.second))
        share = self._shares(first, second)[0]
        return self.first.contributions(columns, values, listed) + share * self.second.contributions(
            columns, values, listed
        )

    def arrays(self) -> dict[str, Floats]:
        """Return the large arrays of both."""
        return {
            f"{place}.{name}": array
            for place, fold in (("first", self.first), ("second", self.second))
            for name, array in fold.arrays().items()
        }

    def with_arrays(self, arrays: dict[str, Floats]) -> Self:
        """Return the same with other arrays."""
        first, second = (
            {name.removeprefix(f"{place}."): array for name, array in arrays.items() if name.startswith(f"{place}.")}
            for place in ("first", "second")
        )
        return replace(self, first=self.first.with_arrays(first), second=self.second.with_arrays(second))


def root_mean_squares(fold: Fold, users: Floats) -> Floats:
    """Return the root mean square over all items of each user's scores, (n_users,), of factors (n_users, width)."""
    squares = np.einsum("ij,ij,j->i", users, users, fold.spectrum, dtype=np.float64)
    return np.sqrt(squares / max(fold.n_items, 1)).astype(np.float32)


def _at_least_tiny(values: Floats) -> Floats:
    return np.maximum(values, np.float32(1e-30))
