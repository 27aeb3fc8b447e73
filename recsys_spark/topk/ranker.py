"""From a chunk of users' histories to their lists: solve, rank, fill up with what is popular, explain."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_spark.topk.baselines import BaselineModel
from recsys_spark.topk.explain import Reasons, strongest
from recsys_spark.topk.folds import Fold
from recsys_spark.topk.kernels import Catalog, catalog, top_k, top_k_of
from recsys_spark.topk.lists import LISTS, named
from recsys_spark.topk.orders import Orders, fill
from recsys_spark.topk.prior import Prior
from recsys_spark.topk.repeats import Repeats, add_repeats

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

_CATALOG = "catalog"  # the name of a catalog's factors among a model's arrays

# What a row (user_id, item_index, weight, kind) of a user says; a row can say more than one thing.
HISTORY = 1  # the user had the item, with this weight
HIDDEN = 2  # the item is not shown to the user
ALLOWED = 4  # no other items than those so marked are shown to the user
SEGMENT = 8  # item_index is the number of the user's segment


@dataclass(frozen=True)
class Model:
    """A factor model that is ready to rank: how it folds histories in, and the catalog of its items.

    items (n,) are the dictionary indices of its items by position; places (n_dictionary,) the reverse, −1 where it has
    none. The catalog's factors are the fold's, times `scales` (n,) where they are given, with the column of the prior.
    """

    name: str
    items: Ints
    places: Ints
    fold: Fold
    catalog: Catalog
    prior: Prior | None = None
    scales: Floats | None = None

    @classmethod
    def of(
        cls,
        name: str,
        items: Ints,
        fold: Fold,
        eligible: Flags,
        categories: Ints,
        prior: Prior | None = None,
        scales: Floats | None = None,
    ) -> "Model":
        """Build from dictionary indices (n,), the fold of as many items, and what `Ranker` has for all items."""
        places = np.full(len(eligible), -1, np.int32)
        places[items] = np.arange(len(items), dtype=np.int32)
        factors = fold.item_factors()
        factors = factors if scales is None else factors * scales[:, None]
        factors = factors if prior is None else prior.with_items(factors)
        found = catalog(factors, eligible[items], categories[items])
        return cls(name, items, places, fold, found, prior, scales)

    def user_factors(self, offsets: Longs, columns: Ints, values: Floats) -> Floats:
        """Return users' factors (n_users, width of the catalog) from histories in CSR form, columns by position."""
        factors = self.fold.user_factors(offsets.astype(np.int32), columns, values)
        return factors if self.prior is None else self.prior.with_users(factors, np.diff(offsets))

    def told(self, factors: Floats) -> Flags:
        """Return of whom `user_factors` tell anything, (n_users,): a history may weigh nothing, or next to nothing."""
        own = factors if self.prior is None else factors[:, :-1]
        return np.asarray((own != 0).any(axis=1))

    def explain(self, columns: Ints, values: Floats, listed: Ints) -> Doubles:
        """Return what items of one history contribute to listed items' scores, (n_listed, n_history).

        columns (n_history,) are positions, listed (n_listed,) dictionary indices of items that the model has.
        """
        places = self.places[listed]
        parts = self.fold.contributions(columns, values, places)
        return parts if self.scales is None else parts * self.scales[places, None]

    def arrays(self) -> dict[str, Floats]:
        """Return its large arrays, for workers to map."""
        return {**self.fold.arrays(), _CATALOG: self.catalog.factors}

    def with_arrays(self, arrays: dict[str, Floats]) -> "Model":
        """Return the model with other arrays in the place of those of `arrays`."""
        return replace(
            self, fold=self.fold.with_arrays(arrays), catalog=replace(self.catalog, factors=arrays[_CATALOG])
        )


@dataclass(frozen=True)
class Ranker:
    """All that turns histories into lists.

    item_ids, categories (int32, −1 for none) are by dictionary index, (n_dictionary,). Lists are of `model`, or of
    `baseline` (whose eligible items are those of `may`, by dictionary index). Who has no history that it knows, or
    everyone where there is neither, gets the popular items of the own segment, then those of all; they fill up the
    lists of others too, where there are too few items, without a score. With `repeats`, scores of items of the history
    that are not hidden are raised; then most_of_category is None. With only_seen nothing else than they is listed.
    """

    item_ids: pa.Array
    categories: Ints
    popular: Orders
    segments: Orders | None = None
    model: Model | None = None
    baseline: BaselineModel | None = None
    may: Flags | None = None
    most_of_category: int | None = None
    reasons: int = 0
    repeats: Repeats | None = None
    only_seen: bool = False


@dataclass(frozen=True)
class _Cells:
    """Cells of users in CSR form: offsets (n_users + 1,), dictionary indices and weights (nnz,)."""

    offsets: Longs
    items: Ints
    weights: Floats

    def of(self, chosen: Flags) -> "_Cells":
        """Return the cells of chosen users, (n_users,)."""
        if chosen.all():
            return self
        sizes = np.diff(self.offsets)
        kept = np.repeat(chosen, sizes)
        return _Cells(np.concatenate([[0], np.cumsum(sizes[chosen])]), self.items[kept], self.weights[kept])

    def where(self, kept: Flags) -> "_Cells":
        """Return the cells that are kept, (nnz,)."""
        if kept.all():
            return self
        before = np.concatenate([[0], np.cumsum(kept)])
        return _Cells(before[self.offsets], self.items[kept], self.weights[kept])

    def at(self, places: Ints) -> "_Cells":
        """Return the cells whose items have a place, with it in the item's stead."""
        found = places[self.items]
        return replace(self, items=found).where(found >= 0)

    def without(self, others: "_Cells", n_items: int) -> "_Cells":
        """Return the cells that are not among others of the same users."""
        return self.where(~np.isin(self._keys(n_items), others._keys(n_items)))

    def within(self, others: "_Cells", n_items: int) -> "_Cells":
        """Return the cells that are among others of the same users."""
        return self.where(np.isin(self._keys(n_items), others._keys(n_items)))

    def beside(self, others: "_Cells") -> "_Cells":
        """Return the cells of both, user by user."""
        users = np.concatenate([each._users() for each in (self, others)])
        order = np.argsort(users, kind="stable")
        items = np.concatenate([self.items, others.items])[order]
        weights = np.concatenate([self.weights, others.weights])[order]
        return _Cells(self.offsets + others.offsets, items, weights)

    def _users(self) -> Longs:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def _keys(self, n_items: int) -> Longs:
        return self._users() * n_items + self.items


def rank_chunk(table: pa.Table, ranker: Ranker, k: int) -> pa.RecordBatch:
    """Return the lists of a table's users, in their order, as `lists.LISTS`.

    table: user_id string, sorted; item_index int; weight float; kind int: what the row says, see HISTORY and others.
    """
    users, offsets = _runs(table.column("user_id"))
    n, kinds = len(users), table.column("kind").to_numpy()
    indices = pc.fill_null(table.column("item_index"), -1).to_numpy()
    rows = _Cells(offsets, indices, table.column("weight").to_numpy())
    history, hidden, allowed = (rows.where((kinds & kind > 0) & (indices >= 0)) for kind in (HISTORY, HIDDEN, ALLOWED))
    restricted = np.diff(rows.where(kinds & ALLOWED > 0).offsets) > 0
    if ranker.only_seen:
        free = np.repeat(~restricted, np.diff(history.offsets))
        allowed = history.where(free).beside(history.within(allowed, len(ranker.item_ids)))
        restricted = np.ones(n, bool)
    found = np.full((n, k), -1, np.int32)
    scores = np.full((n, k), np.nan, np.float32)
    source = np.full(n, "popular", object)
    reasons: Reasons | None = None
    served = np.zeros(n, bool)
    if ranker.model is not None:
        model, most = ranker.model, ranker.most_of_category
        known = history.at(model.places)
        counts = np.diff(known.offsets)
        factors = model.user_factors(known.offsets, known.items, known.weights)
        served = (counts > 0) & model.told(factors)
        free, bound, n_items = served & ~restricted, served & restricted, len(ranker.item_ids)
        raised, apart = history, hidden  # what is ranked with a bonus, and what is not ranked without one
        if ranker.repeats is not None:
            raised = history.without(hidden, n_items)
            apart = hidden.beside(raised)
        for chosen in (free, bound):
            if not chosen.any():
                continue
            of = apart if chosen is free else allowed.without(apart, n_items)
            cells = of.of(chosen).at(model.places)
            rank = top_k if chosen is free else top_k_of
            places, best = rank(factors[chosen], model.catalog, k, cells.offsets, cells.items, most_of_one=most)
            if ranker.repeats is not None:
                again = raised if chosen is free else raised.within(allowed, n_items)
                cells = again.of(chosen).at(model.places)
                more = ranker.repeats.bonuses(cells.weights, model.items[cells.items])
                add_repeats(factors[chosen], model.catalog, cells.offsets, cells.items, more, places, best)
            found[chosen] = np.where(places >= 0, model.items[places], -1)
            scores[chosen] = best
        served &= found[:, 0] >= 0
        source[served] = model.name
        if model.prior is not None:
            source[served & model.prior.blends(counts)] = f"{model.name}+popular"
        if ranker.reasons:
            names = model.items[known.items]
            reasons = strongest(model.explain, known.offsets, known.items, known.weights, names, found, ranker.reasons)
    elif ranker.baseline is not None:
        own = ranker.baseline.orders(users, history.offsets, history.items, history.weights, len(ranker.item_ids))
        _fill(ranker, own.within(ranker.may), np.arange(n, dtype=np.int32), hidden, allowed, restricted, found, scores)
        served = found[:, 0] >= 0
        source[served] = ranker.baseline.name
        if ranker.reasons:
            reasons = strongest(ranker.baseline.contributions, history.offsets, history.items, history.weights,
                                history.items, found, ranker.reasons)  # fmt: skip
    if (found[:, -1] < 0).any():
        segment = _segments(rows, kinds)
        if ranker.segments is not None:
            _fill(ranker, ranker.segments, segment, hidden, allowed, restricted, found, scores)
            source[~served & (found[:, 0] >= 0)] = "segment"
        _fill(ranker, ranker.popular, np.zeros(n, np.int32), hidden, allowed, restricted, found, scores)
    items = named(found, scores, ranker.item_ids, reasons)
    return pa.RecordBatch.from_arrays([users, items, pa.array(source, pa.string())], schema=LISTS)


def _runs(column: pa.ChunkedArray) -> tuple[pa.Array, Longs]:
    """Return the distinct values of a sorted column and where each begins, one more for the end."""
    encoded = pc.run_end_encode(column.combine_chunks())
    return encoded.values, np.concatenate([[0], encoded.run_ends.to_numpy().astype(np.int64)])


def _segments(rows: _Cells, kinds: NDArray[np.int8]) -> Ints:
    """Return each user's segment (n_users,), −1 for none."""
    cells = rows.where(kinds & SEGMENT > 0)
    out = np.full(len(rows.offsets) - 1, -1, np.int32)
    has = np.diff(cells.offsets) > 0
    out[has] = cells.items[cells.offsets[:-1][has]]
    return out


def _fill(
    ranker: Ranker,
    orders: Orders,
    which: Ints,
    hidden: _Cells,
    allowed: _Cells,
    restricted: Flags,
    found: Ints,
    scores: Floats,
) -> None:
    fill(orders.starts, orders.items, orders.values, which, hidden.offsets, hidden.items, allowed.offsets,
         allowed.items, restricted, ranker.categories, ranker.most_of_category or 0, found, scores)  # fmt: skip
