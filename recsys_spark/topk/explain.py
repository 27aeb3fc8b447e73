"""Why an item is listed: what each item of the history contributes to its score."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als.passes import Solve

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# From one history (columns, values) and listed items to what each of it contributes to each, (n_listed, n_history).
Explain = Callable[[Ints, Floats, Ints], Doubles]


@dataclass(frozen=True)
class Reasons:
    """What of the history contributed most to listed items, best first: both (n_users, k, most).

    items are dictionary indices, −1 where there are no more; parts what they contribute to the score.
    """

    items: Ints
    parts: Floats


def strongest(
    explain: Explain, offsets: Longs, columns: Ints, values: Floats, names: Ints, found: Ints, most: int
) -> Reasons:
    """Return the `most` of each user's history that contributed most to her listed items, and more than nothing.

    Histories are in CSR form, offsets (n_users + 1,), names (nnz,) the dictionary indices of columns; found (n_users,
    k) are dictionary indices, −1 at the end where there is none.
    """
    items = np.full((*found.shape, most), -1, np.int32)
    parts = np.zeros(items.shape, np.float32)
    for u in range(len(found)):
        own = slice(offsets[u], offsets[u + 1])
        listed = found[u][found[u] >= 0]
        if own.start == own.stop or len(listed) == 0:
            continue
        each = explain(columns[own], values[own], listed)
        best = np.argsort(-each, axis=1, kind="stable")[:, :most]
        chosen = np.take_along_axis(each, best, axis=1)
        cells = u, slice(len(listed)), slice(best.shape[1])
        items[cells], parts[cells] = np.where(chosen > 0, names[own][best], -1), chosen
    return Reasons(items, parts)


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
