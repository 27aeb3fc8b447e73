"""Why an item is listed: what each item of the history contributes to its score."""

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als.passes import Solve

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def contributions(solve: Solve, columns: Ints, values: Floats, listed: Ints) -> Doubles:
    """Return what the items of one history contribute to the scores of listed items, (n_listed, n_history).

    columns (n_history,) and listed (n_listed,) are positions among solve.others (n, rank), values (n_history,) those of
    the history. With A = a0·YᵀY + λ_u + Σ w·y yᵀ a user's factors are x = A⁻¹·Σ t·y, so the score of item i is
    xᵀy_i = Σ_q t_q·y_qᵀA⁻¹y_i: the terms of this sum. (Hu, Koren and Volinsky 2008, section 5.)
    """
    weights, targets = (
        np.broadcast_to(each.astype(np.float64), len(columns)) for each in solve.objective.weights_targets(values)
    )
    history = solve.others[columns].astype(np.float64)
    counts = np.array([len(columns)])
    system = (history.T * weights) @ history
    np.fill_diagonal(
        system,
        system.diagonal()
        + solve.objective.a0 * solve.eigenvalues
        + solve.objective.row_regularization(counts, len(solve.others)),
    )
    return np.linalg.solve(system, solve.others[listed].astype(np.float64).T).T @ (history.T * targets)
