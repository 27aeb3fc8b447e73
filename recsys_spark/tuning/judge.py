"""How well a model's lists find what a sample of users did next: on the driver, in one process."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als.linalg import one_thread
from recsys_spark.topk.kernels import catalog, top_k
from recsys_spark.topk.orders import Orders, fill
from recsys_spark.topk.prior import Prior
from recsys_spark.topk.repeats import Repeats, add_repeats

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

_BATCH = 1024


@dataclass(frozen=True)
class Sample:
    """Users of a window, in CSR by user: items by dictionary index, what to find, and what is hidden.

    eligible (n_dictionary,) are the items that may be listed.
    """

    wanted_offsets: Longs
    wanted: Ints
    hidden_offsets: Longs
    hidden: Ints
    eligible: Flags

    @property
    def n_users(self) -> int:
        """Return how many users are judged."""
        return len(self.wanted_offsets) - 1


@dataclass(frozen=True)
class Histories:
    """The weighted histories of a sample's users as of its window: CSR by user, items by dictionary index."""

    offsets: Longs
    items: Ints
    weights: Floats


def ndcg(sample: Sample, lists: Ints) -> Doubles:
    """Return each user's NDCG of lists (n_users, k), dictionary indices, −1 at the end; see evaluation.metrics.

    >>> nothing = np.zeros(2, np.int64), np.zeros(0, np.int32)
    >>> sample = Sample(np.array([0, 2]), np.array([3, 5], np.int32), *nothing, np.ones(6, bool))
    >>> ndcg(sample, np.array([[3, 1]], np.int32)).round(3).tolist()
    [0.613]
    """
    k = lists.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[np.inf], np.cumsum(discounts)])
    size = len(sample.eligible)
    users = np.repeat(np.arange(sample.n_users), np.diff(sample.wanted_offsets))
    keys = np.sort(users * size + sample.wanted)
    cells = np.arange(sample.n_users)[:, None] * size + np.maximum(lists, 0)
    places = np.minimum(np.searchsorted(keys, cells), len(keys) - 1)
    hits = (keys[places] == cells) & (lists >= 0)
    return np.asarray(hits @ discounts / ideal[np.minimum(np.diff(sample.wanted_offsets), k)])


def popular_lists(sample: Sample, popularity: Floats, k: int) -> Ints:
    """Return everyone's list (n_users, k) of the most popular items that are eligible and not hidden."""
    found = np.full((sample.n_users, k), -1, np.int32)
    _fill_up(sample, popularity, found)
    return found


@dataclass(frozen=True)
class Ready:
    """A sample as a model of some items sees it: histories and hidden items by position, in CSR by user.

    items (n_items,) are the model's dictionary indices by position; served (n_users,): who has a history that it knows.
    """

    sample: Sample
    items: Ints
    offsets: Ints
    columns: Ints
    weights: Floats
    hidden_offsets: Longs
    hidden: Ints

    @cached_property
    def again(self) -> tuple[Longs, Longs]:
        """Return what of the histories is not hidden: offsets (n_users + 1,), and places in `columns`, (n,)."""
        size = len(self.items)
        histories, hidden = (
            np.repeat(np.arange(len(each) - 1), np.diff(each)) * size + positions
            for each, positions in ((self.offsets, self.columns), (self.hidden_offsets, self.hidden))
        )
        kept = ~np.isin(histories, hidden)
        return np.concatenate([[0], np.cumsum(kept)])[self.offsets], np.flatnonzero(kept)

    @cached_property
    def apart(self) -> tuple[Longs, Ints]:
        """Return hidden items and those of the histories, by position, in CSR by user."""
        offsets, places = self.again
        users = [np.repeat(np.arange(len(each) - 1), np.diff(each)) for each in (self.hidden_offsets, offsets)]
        order = np.argsort(np.concatenate(users), kind="stable")
        return self.hidden_offsets + offsets, np.concatenate([self.hidden, self.columns[places]])[order]

    @property
    def served(self) -> Flags:
        """Return who has a history that the model knows, (n_users,)."""
        return np.asarray(np.diff(self.offsets) > 0)


def ready(sample: Sample, histories: Histories, items: Ints) -> Ready:
    """Return a sample with its histories for a model of items (n_items,), dictionary indices by position."""
    places = np.full(len(sample.eligible), -1, np.int32)
    places[items] = np.arange(len(items), dtype=np.int32)
    known, hidden = places[histories.items], places[sample.hidden]
    before, hidden_before = (np.concatenate([[0], np.cumsum(each >= 0)]) for each in (known, hidden))
    return Ready(
        sample,
        items,
        before[histories.offsets].astype(np.int32),
        known[known >= 0],
        histories.weights[known >= 0],
        hidden_before[sample.hidden_offsets],
        hidden[hidden >= 0],
    )


def listed(
    given: Ready,
    users: Floats,
    items: Floats,
    popularity: Floats,
    weight: float,
    k: int,
    repeats: Repeats | None = None,
) -> Ints:
    """Return lists (n_users, k) by factors of users and items, with a popularity (n_dictionary,) as prior.

    With repeats, items of the history that are not hidden are raised.
    Who has no history that the model knows, or that says anything, gets the most popular items; so is filled what ends
    early.
    """
    sample = given.sample
    prior = Prior.of(popularity[given.items], items, weight)
    ranked = catalog(prior.with_items(items), sample.eligible[given.items])
    whole = prior.with_users(users, np.diff(given.offsets).astype(np.int64))
    apart, hidden = (given.hidden_offsets, given.hidden) if repeats is None else given.apart
    if repeats is not None:
        own, kept = given.again
        columns = given.columns[kept]
        raised = repeats.bonuses(given.weights[kept], given.items[columns])

    def rank(rows: slice) -> Ints:
        some = slice(rows.start, rows.stop + 1)
        places, scores = top_k(whole[rows], ranked, k, apart[some], hidden)
        if repeats is not None:
            add_repeats(whole[rows], ranked, own[some], columns, raised, places, scores)
        return np.where(places >= 0, given.items[places], -1).astype(np.int32)

    with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [slice(start, start + _BATCH) for start in range(0, sample.n_users, _BATCH)]
        lists = np.concatenate(list(pool.map(rank, parts)))
    lists[~(given.served & users.any(axis=1))] = -1
    _fill_up(sample, popularity, lists)
    return lists


def _fill_up(sample: Sample, popularity: Floats, lists: Ints) -> None:
    """Fill lists that end early with the most popular items."""
    if not (lists[:, -1] < 0).any():
        return
    order = Orders.of(popularity, sample.eligible)
    everyone = np.zeros(sample.n_users, np.int32)
    nothing = np.zeros(sample.n_users + 1, np.int64), np.zeros(0, np.int32)
    fill(order.starts, order.items, order.values, everyone, sample.hidden_offsets, sample.hidden, *nothing,
         np.zeros(sample.n_users, bool), np.full(len(sample.eligible), -1, np.int32), 0, lists,
         np.zeros(lists.shape, np.float32))  # fmt: skip
