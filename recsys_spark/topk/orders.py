"""Items in an order that many users share, or that each has alone: lists are filled from it, under the same rules."""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Orders:
    """Lists of items that are the same for many users, such as the popular of each segment, best first.

    List s is items[starts[s] : starts[s + 1]], int32 positions, with values, float32, beside them.
    """

    starts: Longs
    items: Ints
    values: Floats

    @classmethod
    def of(cls, values: Floats, eligible: NDArray[np.bool_]) -> "Orders":
        """Return one list: the eligible of all items (n_items,), best first, ties by position.

        Those of value 0 come last: who is to have k items has them though nothing happened of late.

        >>> Orders.of(np.array([0, 2, 0, 1, 3], np.float32), np.array([True, True, True, True, False])).items
        array([1, 3, 0, 2], dtype=int32)
        """
        items = np.flatnonzero(eligible).astype(np.int32)
        items = items[np.argsort(-values[items], kind="stable")]
        return cls(np.array([0, len(items)]), items, values[items].astype(np.float32))

    def within(self, eligible: NDArray[np.bool_] | None) -> "Orders":
        """Return the lists without what is not eligible, by position; all of them where it is None."""
        if eligible is None or eligible.all():
            return self
        kept = eligible[self.items]
        before = np.concatenate([[0], np.cumsum(kept)])
        return Orders(before[self.starts], self.items[kept], self.values[kept])


@numba.njit(nogil=True, cache=True)
def fill(
    starts: Longs,
    order: Ints,
    values: Floats,
    which: Ints,
    hidden_offsets: Longs,
    hidden: Ints,
    allowed_offsets: Longs,
    allowed: Ints,
    restricted: NDArray[np.bool_],
    categories: Ints,
    most: int,
    found: Ints,
    scores: Floats,
) -> None:
    """Fill the empty places (−1) at the end of lists (n_users, k) with the first items of `Orders` that may be there.

    which (n_users,) is each user's list among the orders, −1 for none. An item may not be hidden from the user (CSR of
    positions), nor in the list already, nor one of more than `most` (if > 0) of its category (n_items,), −1 for
    none; and where the user is restricted, (n_users,), it must be allowed. Scores of what is filled in are its
    values where the list was empty, else NaN: what came before has scores of another kind.
    """
    n_items = len(categories)
    not_to = np.full(n_items, -1, np.int32)
    places = np.full(n_items, -1, np.int64)  # of items in the list that a restricted user had last
    placed = -1
    for u in range(len(which)):
        k, n = found.shape[1], 0
        while n < k and found[u, n] >= 0:
            not_to[found[u, n]] = u
            n += 1
        if n == k or which[u] < 0:
            continue
        for q in range(hidden_offsets[u], hidden_offsets[u + 1]):
            not_to[hidden[q]] = u
        first, end = starts[which[u]], starts[which[u] + 1]
        if restricted[u] and which[u] != placed:
            if placed >= 0:
                places[order[starts[placed] : starts[placed + 1]]] = -1
            places[order[first:end]] = np.arange(first, end)
            placed = which[u]
        own = np.empty(0, np.int64)  # who is allowed a few items is not shown to the whole catalog
        if restricted[u]:
            own = np.sort(places[allowed[allowed_offsets[u] : allowed_offsets[u + 1]]])
            own = own[np.searchsorted(own, 0) :]
        was_empty = n == 0
        for i in range(len(own) if restricted[u] else end - first):
            q = own[i] if restricted[u] else first + i
            item = order[q]
            if not_to[item] == u:
                continue
            if most > 0 and categories[item] >= 0:
                same = 0
                for p in range(n):
                    same += categories[found[u, p]] == categories[item]
                if same >= most:
                    continue
            found[u, n] = item
            not_to[item] = u
            scores[u, n] = values[q] if was_empty else np.nan
            n += 1
            if n == k:
                break
