"""Items that a user comes back to, ranked among those that are new to her: exactly, by two lists that are merged."""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from recsys_spark.topk.kernels import Catalog, score_of

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

COMEBACKS = ("events", "users", "user_days")  # what of items `comebacks` takes

_USERS_AT_THE_MEAN = 10  # who come back to an item as often as to others, added to its own


@dataclass(frozen=True)
class Repeats:
    """How much the scores of items of the own history are raised: weight·log(1 + total + prior of the item).

    The total of a pair grows with how often, and with decay how lately, the user had the item; where `logged`,
    histories have log(1 + total) in its place. prior (n_dictionary,), if any, is τ·r_i, the times that users at large
    come back to the item in a time τ (`comebacks`): total + τ·r_i is, but for a factor that all pairs share, the mean
    of a Poisson rate after its Gamma prior, of mean r_i and worth τ of watching, has met the user's own events.
    """

    weight: float
    logged: bool = False
    prior: Floats | None = None

    def bonuses(self, values: Floats, items: Ints) -> Floats:
        """Return what scores are raised by, (nnz,), of a history's values and items by dictionary index, (nnz,) each.

        >>> Repeats(2.0, prior=np.array([0, 2], np.float32)).bonuses(
        ...     np.array([0, 1], np.float32), np.array([0, 1], np.int32)
        ... ).round(3).tolist()
        [0.0, 2.7730000019073486]
        """
        totals = np.maximum(values.astype(np.float64), 0)
        totals = np.expm1(totals) if self.logged else totals
        if self.prior is not None:
            totals = totals + self.prior[items]
        return (self.weight * np.log1p(totals)).astype(np.float32)


def comebacks(events: Doubles, users: Doubles, user_days: Doubles) -> Doubles:
    """Return how often a day a user who has had an item comes back to it, (n_items,).

    events and users of each item, and user_days, the days since a user's first event, summed over its users, (n_items,)
    each. An item of few users is drawn to the mean of all, as by ten users more who are like the others.

    >>> comebacks(np.array([30.0, 1]), np.array([10.0, 1]), np.array([200.0, 20])).round(4).tolist()
    [0.0955, 0.0826]
    """
    total = float(user_days.sum())
    if not total:
        return np.zeros(len(events))
    mean = float((events - users).sum()) / total
    more = _USERS_AT_THE_MEAN * total / float(users.sum())
    return np.asarray((events - users + more * mean) / (user_days + more))


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
