"""What a model must beat: users' own frequent items, items that go with those of the history, and chance.

Each is a function from histories to one order of items a user, best first (`orders.Orders`), from which lists are
filled under the same rules as those of a model.
"""

from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_spark.topk.orders import Orders

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class BaselineModel(Protocol):
    """A kind of model that says for each user in which order items should be listed."""

    @property
    def name(self) -> str:
        """Return the kind, as gold.models has it."""
        ...

    def orders(self, users: pa.Array, offsets: Longs, items: Ints, weights: Floats, n_items: int) -> Orders:
        """Return an order for each user (n_users,) from histories in CSR form, items by dictionary index."""
        ...

    def contributions(self, items: Ints, weights: Floats, listed: Ints) -> Doubles:
        """Return what each item of one history contributes to the scores of listed items, (n_listed, n_history)."""
        ...


@dataclass(frozen=True)
class Frequent:
    """A user's own items, by weight: the list that is hard to beat where people come back for the same."""

    name: str = "frequent"

    def orders(self, users: pa.Array, offsets: Longs, items: Ints, weights: Floats, n_items: int) -> Orders:
        """Return each user's own items by descending weight, ties by position."""
        of = np.repeat(np.arange(len(users)), np.diff(offsets))
        order = np.lexsort((items, -weights, of))
        return Orders(offsets, items[order], weights[order])

    def contributions(self, items: Ints, weights: Floats, listed: Ints) -> Doubles:
        """Return the weights of listed items: each is its own reason."""
        return np.where(listed[:, None] == items, weights.astype(np.float64), 0.0)


@dataclass(frozen=True)
class ItemKnn:
    """Items that users of a history's items had too: score_i = Σ_j w_uj·s_ij over the nearest items of each j.

    The items near j are items[offsets[j] : offsets[j + 1]] with similarities beside them. (Sarwar et al., WWW 2001;
    Deshpande and Karypis, TOIS 2004.)
    """

    offsets: Longs
    items: Ints
    similarities: Floats
    name: str = "item_knn"

    def orders(self, users: pa.Array, offsets: Longs, items: Ints, weights: Floats, n_items: int) -> Orders:
        """Return for each user the items near those of the history, by descending score, ties by position."""
        return Orders(*_near(offsets, items, weights, self.offsets, self.items, self.similarities, n_items))

    def contributions(self, items: Ints, weights: Floats, listed: Ints) -> Doubles:
        """Return the terms w_uj·s_ij of each score."""
        sizes = self.offsets[items + 1] - self.offsets[items]
        of = np.repeat(np.arange(len(items)), sizes)
        cells = np.arange(len(of)) + np.repeat(self.offsets[items] - (np.cumsum(sizes) - sizes), sizes)
        order = np.argsort(listed)
        places = np.minimum(np.searchsorted(listed[order], self.items[cells]), len(listed) - 1)
        hits = listed[order][places] == self.items[cells]
        out = np.zeros((len(listed), len(items)))
        out[order[places[hits]], of[hits]] = weights[of[hits]].astype(np.float64) * self.similarities[cells[hits]]
        return out


@dataclass(frozen=True)
class Random:
    """Items by chance, the same for the same user and seed."""

    seed: int
    depth: int
    name: str = "random"

    def orders(self, users: pa.Array, offsets: Longs, items: Ints, weights: Floats, n_items: int) -> Orders:
        """Return for each user `depth` items beside as many as the history has, or all of them."""
        parts = []
        for user, size in zip(users.to_pylist(), np.diff(offsets), strict=True):
            rng = np.random.default_rng([self.seed, *str(user).encode()])
            parts.append(rng.permutation(n_items)[: self.depth + int(size)].astype(np.int32))
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        chosen = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return Orders(starts, chosen, np.zeros(len(chosen), np.float32))

    def contributions(self, items: Ints, weights: Floats, listed: Ints) -> Doubles:
        """Return nothing: chance has no reasons."""
        return np.zeros((len(listed), len(items)))


@numba.njit(nogil=True, cache=True)
def _near(
    offsets: Longs, items: Ints, weights: Floats, near_offsets: Longs, near: Ints, similarities: Floats, n_items: int
) -> tuple[Longs, Ints, Floats]:
    """Add up similarities over each history, and sort what they reach."""
    starts = np.zeros(len(offsets), np.int64)
    room = 0
    for u in range(len(offsets) - 1):
        size = 0
        for q in range(offsets[u], offsets[u + 1]):
            size += near_offsets[items[q] + 1] - near_offsets[items[q]]
        room += min(size, n_items)
    order = np.empty(room, np.int32)
    values = np.empty(room, np.float32)
    sums = np.zeros(n_items, np.float64)
    last = np.full(n_items, -1, np.int32)  # user who touched an item last
    touched = np.empty(n_items, np.int32)
    end = 0
    for u in range(len(offsets) - 1):
        n = 0
        for q in range(offsets[u], offsets[u + 1]):
            for p in range(near_offsets[items[q]], near_offsets[items[q] + 1]):
                if last[near[p]] != u:
                    last[near[p]] = u
                    touched[n] = near[p]
                    n += 1
                sums[near[p]] += weights[q] * similarities[p]
        own = np.sort(touched[:n])
        totals = sums[own]
        best = np.argsort(-totals, kind="mergesort")
        for place in best:
            if totals[place] > 0:
                order[end], values[end] = own[place], totals[place]
                end += 1
        sums[own] = 0
        starts[u + 1] = end
    return starts, order[:end], values[:end]
