"""Exact top-K of users × items: scores by sgemm in tiles that stay in cache, ranked before they cool.

No list, and no byte of a score, depends on tile sizes, on the batch of users or on their order.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Hidden = tuple[Longs, Ints, Ints]

_CHUNK = 64  # items whose highest score is compared with a user's bar at once
_TILES = 16  # tiles of users that a tile of items is multiplied with while it is in cache
_CANDIDATE_BYTES = 2**26  # of a batch's candidates; lists of thousands make batches smaller
_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Catalog:
    """Items in descending order of their factors' norm (ties by position), as padded tiles ready for sgemm.

    factors (n_tiles, tile_items, rank) float32: the sorted items' factors, zeros after the last;
    items (n_eligible,) int32: the position that the caller gave the item of each place in that order;
    places (n_items,) int32: the reverse, −1 for an item that is not eligible;
    norms (n_tiles,) float64: the greatest norm of a tile, which is that of its first item;
    categories (n_eligible,) int32: the category of the item of each place, −1 for none.
    """

    factors: Floats
    items: Ints
    places: Ints
    norms: Doubles
    categories: Ints | None = None


def catalog(
    factors: Floats,
    eligible: NDArray[np.bool_] | None = None,
    categories: Ints | None = None,
    *,
    tile_items: int = 512,
) -> Catalog:
    """Return the catalog of the items with factors (n_items, rank), or of the eligible (n_items,) of them.

    What is not eligible is not in it at all, and so costs nothing later. categories (n_items,) are for
    `top_k`'s most_of_one; −1 is none. tile_items, a power of two ≥ 64, changes the speed only.
    """
    if tile_items < _CHUNK or tile_items & (tile_items - 1):
        raise ValueError(f"tile_items: {tile_items} is not a power of two ≥ {_CHUNK}")
    n_items, rank = factors.shape
    norms = _norms(factors)
    if not np.isfinite(norms).all():
        raise ValueError("factors: one of an item's is not finite")
    order = np.argsort(-norms, kind="stable").astype(np.int32)
    items = order if eligible is None else order[eligible[order]]
    tiles = np.zeros((-(-len(items) // tile_items), tile_items, rank), np.float32)
    np.take(factors, items, axis=0, out=tiles.reshape(-1, rank)[: len(items)], mode="clip")  # "raise" makes a copy
    places = np.full(n_items, -1, np.int32)
    places[items] = np.arange(len(items), dtype=np.int32)
    return Catalog(tiles, items, places, norms[items[::tile_items]], None if categories is None else categories[items])


def top_k(
    users: Floats,
    cat: Catalog,
    k: int,
    hidden_offsets: Longs,
    hidden_items: Ints,
    *,
    most_of_one: int | None = None,
    tile_users: int = 256,
) -> tuple[Ints, Floats]:
    """Return for each user the k items of highest score xᵀy among those not hidden, and the scores.

    users (n_users, rank) float32; the items hidden from user u are hidden_items[hidden_offsets[u] :
    hidden_offsets[u + 1]], positions as given to `catalog`, in any order, repeated or not. Returns items
    (n_users, k) int32 and scores (n_users, k) float32, descending, ties by the lower position; after the
    last item that is left to a user, −1 and −inf. With most_of_one, a list holds at most so many items of
    one of the catalog's categories: the best of each, as if the list were filled from the top.

    It is exact: an item is passed over only where |xᵀy| ≤ ‖x‖·‖y‖ (Cauchy–Schwarz, as in LEMP: Teflioudi,
    Gemulla, Mykytiuk 2015) or its score by sgemm rules it out, rounding included. tile_users changes the
    speed only. The caller keeps BLAS to one thread. Raises ValueError where a factor is not
    finite, a score could overflow float32, or a hidden item is not one that `catalog` was given.

    >>> import numpy as np
    >>> cat = catalog(np.array([[1, 0], [2, 0], [0, 3]], np.float32))
    >>> users = np.array([[1, 0], [1, 1]], np.float32)
    >>> items, scores = top_k(users, cat, 2, np.array([0, 1, 1]), np.array([1], np.int32))
    >>> items.tolist(), scores.tolist()  # item 1 is hidden from user 0
    ([[0, 2], [2, 1]], [[1.0, 0.0], [3.0, 2.0]])
    """
    if len(hidden_items) and not 0 <= hidden_items.min() <= hidden_items.max() < len(cat.places):
        raise ValueError(f"hidden_items: one is not the position of one of the {len(cat.places)} items")
    n_tiles, tile_items, _ = cat.factors.shape
    found = np.full((len(users), k), -1, np.int32)
    scores = np.full((len(users), k), -np.inf, np.float32)
    if found.size == 0 or n_tiles == 0:
        return found, scores
    users = np.ascontiguousarray(users, np.float32)
    norms = _norms(users)
    if not norms.max() * cat.norms.max() < 1e38:
        raise ValueError("users: a factor is not finite, or scores may exceed float32; scale the factors")
    n_listed = min(k, len(cat.items))
    cap = _cap(cat, most_of_one)
    batch = tile_users * max(1, min(_TILES, _CANDIDATE_BYTES // (tile_users * 8 * _room(n_listed))))
    for start in range(0, len(users), batch):
        rows = slice(start, start + batch)
        offsets = hidden_offsets[start : start + batch + 1]
        hidden = _by_tile(offsets, hidden_items, cat.places, n_tiles, tile_items.bit_length() - 1)
        candidates, counts = _rank_batch(users[rows], norms[rows], cat, hidden, tile_users, n_listed, cap)
        starts = np.arange(len(counts)) * candidates.shape[1]
        _list(users[rows], cat.factors, cat.items, candidates.ravel(), starts, counts, *cap,
              found[rows, :n_listed], scores[rows, :n_listed])  # fmt: skip
    return found, scores


def top_k_of(
    users: Floats, cat: Catalog, k: int, offsets: Longs, items: Ints, *, most_of_one: int | None = None
) -> tuple[Ints, Floats]:
    """Return what `top_k` would if each user could be shown only some items: items[offsets[u] : offsets[u + 1]].

    They are positions as given to `catalog`, each once a user; those that are not eligible are passed over.
    """
    places = cat.places[items]
    known = places >= 0
    ends = np.concatenate([[0], np.cumsum(known)])[offsets]
    found = np.full((len(users), k), -1, np.int32)
    scores = np.full((len(users), k), -np.inf, np.float32)
    _list(np.ascontiguousarray(users, np.float32), cat.factors, cat.items, places[known], ends[:-1],
          np.diff(ends).astype(np.int32), *_cap(cat, most_of_one), found, scores)  # fmt: skip
    return found, scores


def _room(k: int) -> int:
    """Return how many candidates of a user are kept before the worse of them are dropped."""
    return 2 * k + 32


def _cap(cat: Catalog, most_of_one: int | None) -> tuple[Ints, int]:
    """Return the category of each place, −1 where none is limited, and how many items of one a list may hold."""
    if most_of_one is None:
        return np.full(1, -1, np.int32), 0
    if cat.categories is None:
        raise ValueError("most_of_one: the catalog has no categories")
    return cat.categories, most_of_one


def _rank_batch(
    users: Floats, norms: Doubles, cat: Catalog, hidden: Hidden, tile_users: int, k: int, cap: tuple[Ints, int]
) -> tuple[Ints, Ints]:
    """Return the candidates of users (n, rank): places (n, room), and how many they are (n,).

    All users that are not yet done go through a tile of items before the next. A float32 xᵀy, in whatever
    order it is summed, is off by at most γ·‖x‖·‖y‖, γ < rank·2⁻²³, and by less than 1e-33 for underflow
    (Higham 2002, §3.1). So no score is above ‖x‖·‖y‖ and this; a score by sgemm and the one that is listed
    differ by at most twice this, and two that differ by more than four times this are in the right order.
    """
    n_tiles, tile_items, rank = cat.factors.shape
    starts, hidden_columns, hidden_users = hidden
    errors = norms * (cat.norms[0] * rank * 2.0**-23) + 1e-33
    slack = (4 * errors).astype(np.float32)
    bars = np.full(len(users), _LOWEST, np.float32)
    reach = (norms * cat.norms[0] + 2 * errors).astype(np.float32)
    tops = np.full(len(users), _LOWEST, np.float32)
    counts = np.zeros(len(users), np.int32)
    places = np.empty((len(users), _room(k)), np.int32)
    scores = np.empty((len(users), _room(k)), np.float32)
    active, rows = np.arange(len(users), dtype=np.int32), users
    tile = np.empty((tile_users, tile_items), np.float32)
    for t in range(n_tiles):
        going = active[(norms * cat.norms[t] + errors >= bars)[active]]  # the others are done
        if len(going) == 0:
            break
        if len(going) + tile_users <= len(active):  # a whole tile of users is saved
            active, rows = going, users[going]
        first, end = t * tile_items, min((t + 1) * tile_items, len(cat.items))
        cells = slice(starts[t], starts[t + 1])
        for start in range(0, len(active), tile_users):
            ranked = active[start : start + tile_users]
            part = tile[: len(ranked)]
            np.dot(rows[start : start + tile_users], cat.factors[t].T, out=part)
            _hide(part, end - first, ranked, hidden_columns[cells], hidden_users[cells])
            _rank_tile(part, first, end - first, users, cat.factors, cat.items, ranked, slack, *cap,
                       k, reach, tops, bars, counts, places, scores)  # fmt: skip
    _drop_all(users, cat.factors, cat.items, slack, *cap, k, bars, counts, places, scores)
    return places, counts


def _norms(factors: Floats) -> Doubles:
    """Return the norms of factors (n, rank) in float64, where no square overflows or vanishes."""
    return np.asarray(np.sqrt(np.einsum("nr,nr->n", factors, factors, dtype=np.float64)))


@numba.njit(nogil=True, cache=True)
def _by_tile(offsets: Longs, hidden: Ints, places: Ints, n_tiles: int, bits: int) -> Hidden:
    """Sort a batch's hidden cells by tile (of 2^bits items), then user, by counting: O(cells).

    Returns where each tile begins (n_tiles + 1,), and of each cell the item's column within its tile and the
    user, counted from the first of the batch.
    """
    starts = np.zeros(n_tiles + 1, np.int64)
    for q in range(offsets[0], offsets[-1]):
        place = places[hidden[q]]
        if place >= 0:
            starts[(place >> bits) + 1] += 1
    starts = np.cumsum(starts)
    ends = starts[:-1].copy()
    columns = np.empty(starts[-1], np.int32)
    users = np.empty(starts[-1], np.int32)
    for u in range(offsets.shape[0] - 1):
        for q in range(offsets[u], offsets[u + 1]):
            place = places[hidden[q]]
            if place >= 0:
                t = place >> bits
                columns[ends[t]] = place - (t << bits)
                users[ends[t]] = u
                ends[t] += 1
    return starts, columns, users


@numba.njit(nogil=True, cache=True)
def _hide(tile: Floats, n_items: int, users: Ints, hidden_columns: Ints, hidden_users: Ints) -> None:
    """Set to −inf the hidden cells of a tile's users (both ascending), and the columns after its items."""
    first, end = np.searchsorted(hidden_users, users[0]), np.searchsorted(hidden_users, users[-1] + 1)
    u = 0
    for h in range(first, end):
        while users[u] < hidden_users[h]:
            u += 1
        if users[u] == hidden_users[h]:
            tile[u, hidden_columns[h]] = -np.inf
    tile[:, n_items:] = -np.inf


@numba.njit(fastmath={"nnan", "nsz"}, nogil=True, cache=True)
def _reaches(scores: Floats, bar: float) -> bool:
    """Return whether one of a few scores reaches a bar: vector comparisons, no branch."""
    found = False
    for i in range(scores.shape[0]):
        found |= scores[i] >= bar
    return found


@numba.njit(fastmath={"nnan", "nsz"}, nogil=True, cache=True)
def _number_at(scores: Floats, bar: np.float32) -> int:
    """Return how many scores reach a bar: vector comparisons, no branch."""
    n = 0
    for i in range(scores.shape[0]):
        n += scores[i] >= bar
    return n


@numba.njit(nogil=True, cache=True)
def _below_kth(scores: Floats, k: int, low: np.float32, high: np.float32) -> np.float32:
    """Return a number that at least k of the scores reach, near the k-th highest: by halves between low and high.

    At least k reach low, and none is above high.
    """
    for _ in range(12):
        middle = np.float32(low + (high - low) * np.float32(0.5))
        n = _number_at(scores, middle)
        if n < k:
            high = middle
            continue
        low = middle
        if n == k:
            break
    return low


@numba.njit(fastmath={"nnan", "nsz"}, nogil=True, cache=True)
def _highest(scores: Floats) -> np.float32:
    """Return the highest of scores (a multiple of 16): 16 at a time, then of these."""
    lanes = scores[:16].copy()
    for start in range(16, scores.shape[0], 16):
        part = scores[start : start + 16]
        for j in range(16):
            lanes[j] = max(lanes[j], part[j])
    highest: np.float32 = lanes.max()
    return highest


@numba.njit(fastmath={"nnan", "nsz", "reassoc", "contract"}, nogil=True, cache=True)
def score_of(user: Floats, factors: Floats, place: int) -> np.float32:
    """Return xᵀy of the item in a place, in an order of its own: sgemm's may depend on the place in the tile."""
    total: np.float32 = np.float32(0)
    item = factors[place // factors.shape[1], place % factors.shape[1]]
    for j in range(user.shape[0]):
        total += user[j] * item[j]
    return total


@numba.njit(nogil=True, cache=True)
def _sort(scores: Floats, places: Ints, items: Ints) -> None:
    """Sort candidates (n,) in place, by descending score, ties by the items' position."""
    if len(scores) > 64:  # what is left for the insertion below is to order the ties
        order = np.argsort(-scores, kind="mergesort")
        scores[:], places[:] = scores[order], places[order]
    for q in range(1, len(scores)):
        score, place, p = scores[q], places[q], q
        while p > 0 and (scores[p - 1] < score or (scores[p - 1] == score and items[places[p - 1]] > items[place])):
            scores[p], places[p] = scores[p - 1], places[p - 1]
            p -= 1
        scores[p], places[p] = score, place


@numba.njit(nogil=True, cache=True)
def _best(
    user: Floats, factors: Floats, items: Ints, places: Ints, scores: Floats, categories: Ints, most: int, k: int
) -> int:
    """Score candidates (n,) in the way that is listed, and move the best k, sorted, to the front; return their number.

    Of a category (n_places,) that is not −1, at most `most` are among them.
    """
    for q in range(len(places)):
        scores[q] = score_of(user, factors, places[q])
    _sort(scores, places, items)
    n = 0
    for q in range(len(places)):
        if n == k:
            break
        if most > 0 and categories[places[q]] >= 0:
            same = 0
            for p in range(n):
                same += categories[places[p]] == categories[places[q]]
            if same == most:
                continue
        scores[n], places[n] = scores[q], places[q]
        n += 1
    return n


@numba.njit(nogil=True, cache=True)
def _list(
    users: Floats,
    factors: Floats,
    items: Ints,
    places: Ints,
    starts: Longs,
    counts: Ints,
    categories: Ints,
    most: int,
    found: Ints,
    scores: Floats,
) -> None:
    """Write each user's best candidates, counts[u] places from starts[u] on, into found and scores (n_users, k)."""
    for u in range(len(users)):
        own = places[starts[u] : starts[u] + counts[u]]
        listed = np.empty(len(own), np.float32)
        n = _best(users[u], factors, items, own, listed, categories, most, found.shape[1])
        for q in range(n):
            found[u, q], scores[u, q] = items[own[q]], listed[q]


@numba.njit(nogil=True, cache=True)
def _bar_of_capped(scores: Floats, places: Ints, slack: float, categories: Ints, most: int, k: int) -> float:
    """Return the score below which no candidate (n,), nor any item to come, can be among the best k.

    A candidate that its own category rules out gets the score −inf.
    """
    order = np.argsort(-scores)
    n = 0
    for q in range(len(order)):
        score, category = scores[order[q]], categories[places[order[q]]]
        same, last = 0, score
        if category >= 0:
            for p in range(q):
                if same < most and categories[places[order[p]]] == category:
                    same, last = same + 1, scores[order[p]]
        if same < most:
            n += 1
            if n == k:
                return score - slack
        elif score < last - slack:
            scores[order[q]] = -np.inf
    return _LOWEST


@numba.njit(fastmath={"nnan", "nsz"}, nogil=True, cache=True)
def _rank_tile(
    tile: Floats,
    first: int,
    n_items: int,
    users: Floats,
    factors: Floats,
    items: Ints,
    ranked: Ints,
    slack: Floats,
    categories: Ints,
    most: int,
    k: int,
    reach: Floats,
    tops: Floats,
    bars: Floats,
    counts: Ints,
    places: Ints,
    scores: Floats,
) -> None:
    """Add to the candidates of the `ranked` of the users what in a tile's n_items may be among their best k.

    tile (n_ranked, tile_items) are the scores by sgemm of the places from `first` on, −inf where hidden. Only where
    one of a chunk of them reaches the user's bar are they looked at one by one. places and scores (n_users, room) are
    a user's candidates, tops (n_users,) the highest of their scores, reach (n_users,) the most that one could be.
    """
    room = places.shape[1]
    for row in range(ranked.shape[0]):
        u, own = ranked[row], tile[row]
        bar, before = bars[u], counts[u]
        if first == 0 and most == 0 and _number_at(own, -reach[u]) >= k:
            bar = max(bar, _below_kth(own, k, -reach[u], _highest(own)) - slack[u])
        for start in range(0, n_items, _CHUNK):
            if not _reaches(own[start : start + _CHUNK], bar):
                continue
            for part in range(start, start + _CHUNK, 16):
                if not _reaches(own[part : part + 16], bar):
                    continue
                for i in range(part, part + 16):
                    if own[i] < bar:
                        continue
                    if counts[u] == room:
                        bars[u] = bar
                        _raise_bar(u, k, slack, most, reach, tops, bars, counts, scores)
                        _drop(users[u], factors, items, slack[u], categories, most, k, bars, counts, places, scores, u)
                        bar, before = bars[u], 0
                    places[u, counts[u]], scores[u, counts[u]] = first + i, own[i]
                    counts[u] += 1
                    tops[u] = max(tops[u], own[i])
        bars[u] = bar
        if counts[u] > before:
            _raise_bar(u, k, slack, most, reach, tops, bars, counts, scores)


@numba.njit(nogil=True, cache=True)
def _raise_bar(
    u: int, k: int, slack: Floats, most: int, reach: Floats, tops: Floats, bars: Floats, counts: Ints, scores: Floats
) -> None:
    """Raise the bar of user u to what k of her candidates reach, less what rounding may change."""
    if most == 0 and counts[u] >= k:
        low = max(bars[u], -reach[u])
        bars[u] = max(bars[u], _below_kth(scores[u, : counts[u]], k, low, tops[u]) - slack[u])


@numba.njit(nogil=True, cache=True)
def _drop(
    user: Floats,
    factors: Floats,
    items: Ints,
    slack: float,
    categories: Ints,
    most: int,
    k: int,
    bars: Floats,
    counts: Ints,
    places: Ints,
    scores: Floats,
    u: int,
) -> None:
    """Drop the candidates of user u below the bar; where too many are left, all but the best k."""
    n = counts[u]
    own, of_own = scores[u, :n], places[u, :n]
    if most > 0:
        bars[u] = max(bars[u], _bar_of_capped(own, of_own, slack, categories, most, k))
    left = 0
    for q in range(n):
        if own[q] >= bars[u]:
            own[left], of_own[left] = own[q], of_own[q]
            left += 1
    if 4 * left > 3 * places.shape[1]:
        left = _best(user, factors, items, of_own[:left], own[:left], categories, most, k)
    counts[u] = left


@numba.njit(nogil=True, cache=True)
def _drop_all(
    users: Floats,
    factors: Floats,
    items: Ints,
    slack: Floats,
    categories: Ints,
    most: int,
    k: int,
    bars: Floats,
    counts: Ints,
    places: Ints,
    scores: Floats,
) -> None:
    for u in range(len(users)):
        _drop(users[u], factors, items, slack[u], categories, most, k, bars, counts, places, scores, u)
