"""The objective: from interaction weights to (w, t), the weight of all cells, and the regularisation.

Every objective here is Σ_observed (w·s² − 2·t·s) + a0·Σ_all s² + Σ_u λ_u|x_u|² + Σ_i λ_i|y_i|² + constant, with
s = x_uᵀ y_i, so that a row's normal equations are (a0·YᵀY + Σ w·y yᵀ + λ_u·I) x_u = Σ t·y.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Ials:
    """Implicit ALS with weights on the observed and alpha0 on all cells.

    Rendle, Krichene, Zhang and Koren, "Revisiting the Performance of iALS on Item Recommendation
    Benchmarks", RecSys 2022, equations 1 to 4: Σ_observed w·(s − 1)² + alpha0·Σ_all s² and
    λ_u = λ·(n_u + alpha0·n_items)^ν.
    """

    alpha0: float
    regularization: float
    nu: float = 1.0

    def weights_targets(self, values: Floats) -> tuple[Floats, Floats]:
        """Return w and t of interactions of the given weights."""
        return values, values

    def constant(self, values: Floats) -> float:
        """Return Σ t²/w, which makes the objective a sum of squares."""
        return float(values.sum(dtype=np.float64))

    def row_regularization(self, counts: NDArray[np.integer], n_others: int) -> Floats:
        """Return λ_u of rows with the given numbers of interactions.

        >>> Ials(alpha0=0.5, regularization=0.1).row_regularization(np.array([0, 10]), n_others=20)
        array([1., 2.], dtype=float32)
        """
        size = counts.astype(np.float64) + self.alpha0 * n_others
        return (self.regularization * size**self.nu).astype(np.float32)
