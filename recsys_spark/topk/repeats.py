"""Items that a user comes back to, ranked among those that are new to her: exactly, by two lists that are merged."""

import numba
import numpy as np
from numpy.typing import NDArray

from recsys_spark.topk.kernels import Catalog, score_of

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


def bonuses(values: Floats, weight: float) -> Floats:
    """Return weight·log(1 + value) of the interactions of histories, (nnz,): what their items' scores are raised by.

    A value grows with how often, and with decay how lately, the user had the item.

    >>> bonuses(np.array([0, 1], np.float32), 2.0).round(3).tolist()
    [0.0, 1.3860000371932983]
    """
    return (weight * np.log1p(np.maximum(values.astype(np.float64), 0))).astype(np.float32)


def add_repeats(
    users: Floats, cat: Catalog, offsets: Longs, positions: Ints, raised: Floats, found: Ints, scores: Floats
) -> None:
    """Merge items of histories into lists that have none of them: found and scores (n_users, k), as of `top_k`.

    users (n_users, rank) are their factors; positions (nnz,) as given to `catalog`, each once a user, and raised (nnz,)
    what is added to their scores, user by user from offsets (n_users + 1,). What is not eligible is passed over. Ties
    go to the lower position.
    """
    _merge(np.ascontiguousarray(users, np.float32), cat.factors, cat.places, offsets, positions, raised, found, scores)


@numba.njit(nogil=True, cache=True)
def _merge(
    users: Floats,
    factors: Floats,
    places: Ints,
    offsets: Longs,
    positions: Ints,
    raised: Floats,
    found: Ints,
    scores: Floats,
) -> None:
    k = found.shape[1]
    for u in range(len(users)):
        for q in range(offsets[u], offsets[u + 1]):
            item = positions[q]
            if places[item] < 0:
                continue
            score = score_of(users[u], factors, places[item]) + raised[q]
            p = k
            while p > 0 and (
                found[u, p - 1] < 0
                or scores[u, p - 1] < score
                or (scores[u, p - 1] == score and found[u, p - 1] > item)
            ):
                p -= 1
            for r in range(k - 1, p, -1):
                found[u, r], scores[u, r] = found[u, r - 1], scores[u, r - 1]
            if p < k:
                found[u, p], scores[u, p] = item, score
