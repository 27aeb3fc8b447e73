"""Objectives: from the values of interactions to weights and targets, the weight of all cells, and the regularisation.

Every objective here is

    Σ_observed (w·s² − 2·t·s + c) + a0·Σ_all s² + Σ_u λ_u‖x_u‖² + Σ_i λ_i‖y_i‖²        s = x_uᵀ y_i

so that a row's normal equations are (a0·YᵀY + Σ w·y yᵀ + λ_u·I) x_u = Σ t·y, and one solver serves them all.
Values, weights, targets and constants are (nnz,), or (1,) where one number stands for all.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Counts = NDArray[np.integer]


class Objective(Protocol):
    """What the solver asks of an objective."""

    @property
    def a0(self) -> float:
        """Weight of all cells, observed or not."""

    def weights_targets(self, values: Floats) -> tuple[Floats, Floats]:
        """Return w and t of interactions with the given values."""

    def constants(self, values: Floats) -> Floats:
        """Return c, which makes an interaction's part of the objective a square."""

    def row_regularization(self, counts: Counts, n_others: int) -> Floats:
        """Return λ_u of rows with the given numbers of interactions, among n_others columns."""


@dataclass(frozen=True)
class Ials:
    """Implicit ALS: Σ_observed w·(s − 1)² + alpha0·Σ_all s², w the interaction's value.

    λ_u = λ·(n_u + alpha0·n_items)^ν. Rendle, Krichene, Zhang and Koren, "Revisiting the Performance of iALS on
    Item Recommendation Benchmarks", RecSys 2022, equations 1 to 4.
    """

    alpha0: float
    regularization: float
    nu: float = 1.0

    @property
    def a0(self) -> float:
        """Weight of all cells."""
        return self.alpha0

    def weights_targets(self, values: Floats) -> tuple[Floats, Floats]:
        """Return w = t = value."""
        return values, values

    def constants(self, values: Floats) -> Floats:
        """Return w."""
        return values

    def row_regularization(self, counts: Counts, n_others: int) -> Floats:
        """Return λ·(n_u + alpha0·n_others)^ν.

        >>> Ials(alpha0=0.5, regularization=0.1).row_regularization(np.array([0, 10]), n_others=20)
        array([1., 2.], dtype=float32)
        """
        size = counts.astype(np.float64) + self.alpha0 * n_others
        return (self.regularization * size**self.nu).astype(np.float32)


@dataclass(frozen=True)
class HuKorenVolinsky:
    """Confidence 1 + alpha·r that a preference is 1 where r was observed, confidence 1 that it is 0 elsewhere.

    Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, equation 3, with
    its λ at ν = 0; at ν = 1 Spark MLlib's ALS with implicitPrefs, which scales λ by a row's interactions.
    """

    alpha: float
    regularization: float
    nu: float = 1.0

    @property
    def a0(self) -> float:
        """Weight of all cells: 1."""
        return 1.0

    def weights_targets(self, values: Floats) -> tuple[Floats, Floats]:
        """Return w = alpha·r and t = 1 + alpha·r, of r = 0 as of what was never seen: 0 and 0.

        >>> HuKorenVolinsky(alpha=2, regularization=0.1).weights_targets(np.array([1, 3, 0], np.float32))
        (array([2., 6., 0.], dtype=float32), array([3., 7., 0.], dtype=float32))
        """
        weights = np.float32(self.alpha) * values
        return weights, self.constants(values)

    def constants(self, values: Floats) -> Floats:
        """Return the confidence, 1 + alpha·r, of which the preference is 1: of r = 0 it is 0."""
        return np.where(values > 0, 1 + np.float32(self.alpha) * values, np.float32(0))

    def row_regularization(self, counts: Counts, n_others: int) -> Floats:
        """Return λ·n_u^ν; of a row without interactions that of one."""
        return _by_count(self.regularization, counts, self.nu)


@dataclass(frozen=True)
class Explicit:
    """Σ_observed (s − r)²: ratings, or what is left of them once a mean and biases are taken off.

    λ_u = λ·n_u^ν. Zhou, Wilkinson, Schreiber and Pan, "Large-Scale Parallel Collaborative Filtering for the
    Netflix Prize", AAIM 2008, section 3.1; at ν = 1 Spark MLlib's ALS.
    """

    regularization: float
    nu: float = 1.0

    @property
    def a0(self) -> float:
        """Weight of all cells: none."""
        return 0.0

    def weights_targets(self, values: Floats) -> tuple[Floats, Floats]:
        """Return w = 1 and t = r."""
        return np.ones(1, np.float32), values

    def constants(self, values: Floats) -> Floats:
        """Return r²."""
        return values * values

    def row_regularization(self, counts: Counts, n_others: int) -> Floats:
        """Return λ·n_u^ν; of a row without interactions that of one."""
        return _by_count(self.regularization, counts, self.nu)


def _by_count(regularization: float, counts: Counts, nu: float) -> Floats:
    return (regularization * np.maximum(counts, 1).astype(np.float64) ** nu).astype(np.float32)
