"""Exact top-K of users × items: scores by sgemm in tiles that stay in cache, each tile ranked before it cools.

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

_CHUNK = 16  # items whose highest score is compared with a user's threshold at once
_STEP = 64  # tile sizes are multiples of it, so that sgemm's innermost kernel is never cut short


@dataclass(frozen=True)
class Catalog:
    """Items in descending order of their factors' norm (ties by position), as tiles ready for sgemm.

    factors (n_tiles, tile_items, rank) float32: the sorted items' factors, zeros after the last;
    items (n_places,) int32: the position that the caller gave the item of each place in that order;
    places (n_items,) int32: the reverse, −1 for an item that was not eligible;
    norms (n_tiles,) float64: the greatest norm of a tile, which is that of its first item.
    """

    factors: Floats
    items: Ints
    places: Ints
    norms: Doubles


def catalog(factors: Floats, eligible: NDArray[np.bool_] | None = None, *, tile_items: int = 256) -> Catalog:
    """Return the eligible (n_items,) of the items with factors (n_items, rank), in order and in tiles.

    Items that are not eligible are not in the catalog at all, so they cost nothing later. tile_items, a
    multiple of 64, changes the speed only.
    """
    _check_tile("tile_items", tile_items)
    n_items, rank = factors.shape
    norms = _norms(factors)
    order = np.argsort(-norms, kind="stable")
    items = order.astype(np.int32) if eligible is None else order[eligible[order]].astype(np.int32)
    n_tiles = -(-len(items) // tile_items)
    tiles = np.zeros((n_tiles, tile_items, rank), np.float32)
    tiles.reshape(-1, rank)[: len(items)] = factors[items]
    places = np.full(n_items, -1, np.int32)
    places[items] = np.arange(len(items), dtype=np.int32)
    return Catalog(tiles, items, places, norms[items[::tile_items]])


def top_k(
    users: Floats,
    cat: Catalog,
    k: int,
    hidden_offsets: Longs,
    hidden_items: Ints,
    *,
    tile_users: int = 256,
    batch_users: int = 4096,
) -> tuple[Ints, Floats]:
    """Return for each user the k items of the highest xᵀy that are not hidden, and these scores, best first.

    users (n_users, rank) float32; the items hidden from user u are hidden_items[hidden_offsets[u] :
    hidden_offsets[u + 1]], positions as given to `catalog`, in any order, repeated or not. Returns items
    (n_users, k) int32 and scores (n_users, k) float32, descending, ties by the lower position; after the
    last item that is left to a user, −1 and −inf.

    It is exact: an item is passed over only where |xᵀy| ≤ ‖x‖·‖y‖ (Cauchy–Schwarz; LEMP, Teflioudi et al.
    2015) rules it out, rounding included. tile_users, a multiple of 64, and batch_users change the speed
    only. The caller keeps BLAS to one thread. Raises ValueError where scores could overflow float32 or a
    factor is not finite.

    >>> import numpy as np
    >>> cat = catalog(np.array([[1, 0], [2, 0], [0, 3]], np.float32))
    >>> users = np.array([[1, 0], [1, 1]], np.float32)
    >>> items, scores = top_k(users, cat, 2, np.array([0, 1, 1]), np.array([1], np.int32))
    >>> items.tolist(), scores.tolist()  # item 1 is hidden from user 0
    ([[0, 2], [2, 1]], [[1.0, 0.0], [3.0, 2.0]])
    """
    _check_tile("tile_users", tile_users)
    n_users, rank = users.shape
    found = np.full((n_users, k), -1, np.int32)
    scores = np.full((n_users, k), -np.inf, np.float32)
    if k == 0 or n_users == 0 or len(cat.items) == 0:
        return found, scores
    norms = _norms(users)
    highest = norms.max() * cat.norms[0]
    if not highest < np.finfo(np.float32).max:
        raise ValueError(f"factors: scores may reach {highest}, float32 holds less; are all factors finite?")
    # |fl(xᵀy)| ≤ (1 + γ)·‖x‖·‖y‖ with γ ≤ 2·rank·2⁻²⁴ (Higham 2002, §3.1), and rank·2⁻¹²⁶ more for underflow.
    bounds = norms * (1 + rank * 2.0**-23)
    for start in range(0, n_users, batch_users):
        rows = slice(start, start + batch_users)
        offsets = hidden_offsets[start : start + batch_users + 1]
        hidden = _by_tile(offsets, hidden_items, cat.places, *cat.factors.shape[:2])
        _rank_batch(users[rows], bounds[rows], cat, hidden, tile_users, found[rows], scores[rows])
    return found, scores


def _rank_batch(
    users: Floats, bounds: Doubles, cat: Catalog, hidden: Hidden, tile_users: int, found: Ints, scores: Floats
) -> None:
    """Rank a batch of users (n, rank) into found and scores (n, k): for each tile of items all users not done.

    sgemm always sees one and the same shape, (tile_items, rank) × (rank, tile_users), so each score comes
    from the same instructions in the same order, wherever in a tile the user and the item stand.
    """
    n_tiles, tile_items, rank = cat.factors.shape
    starts, hidden_rows, hidden_users = hidden
    active = np.arange(len(users), dtype=np.int32)
    left = _tiles(users, tile_users)
    tile = np.empty((tile_items, tile_users), np.float32)
    for t in range(n_tiles):
        reach = bounds[active] * cat.norms[t] + rank * 2.0**-126
        going = reach >= scores[active, -1]
        n = int(np.count_nonzero(going))
        if n == 0:
            return
        if -(-n // tile_users) < len(left):  # a whole tile of users is saved
            active = active[going]
            left = _tiles(users[active], tile_users)
        items = cat.items[t * tile_items : (t + 1) * tile_items]
        cells = slice(starts[t], starts[t + 1])
        for i, factors in enumerate(left):
            np.dot(cat.factors[t], factors, out=tile)
            ranked = active[i * tile_users : (i + 1) * tile_users]
            _rank_tile(tile, items, ranked, hidden_rows[cells], hidden_users[cells], found, scores)


def _tiles(users: Floats, tile_users: int) -> Floats:
    """Return users (n, rank) in columns, as (n_tiles, rank, tile_users), zeros after the last."""
    n, rank = users.shape
    padded = np.zeros((-(-n // tile_users), tile_users, rank), np.float32)
    padded.reshape(-1, rank)[:n] = users
    return np.ascontiguousarray(padded.transpose(0, 2, 1))


@numba.njit(fastmath={"nnan", "nsz"}, nogil=True, cache=True)
def _rank_tile(
    tile: Floats, items: Ints, users: Ints, hidden_rows: Ints, hidden_users: Ints, found: Ints, scores: Floats
) -> None:
    """Insert a tile's scores (tile_items, tile_users) into the lists of its users, ascending, but for hidden cells.

    The hidden cells, ascending by user, of all users of the batch become −inf, as do rows after the last
    item. A list is sorted, its last score is the user's threshold. The maximum of a chunk of rows is taken
    for all users at once, a vector operation; only where it reaches the threshold are the scores looked at.
    """
    last = found.shape[1] - 1
    n = users.shape[0]
    h = np.searchsorted(hidden_users, users[0])
    for c in range(n):
        while h < hidden_users.shape[0] and hidden_users[h] < users[c]:
            h += 1
        while h < hidden_users.shape[0] and hidden_users[h] == users[c]:
            tile[hidden_rows[h], c] = -np.inf
            h += 1
    tile[items.shape[0] :] = -np.inf
    thresholds = scores[users, last]
    highest = np.empty(tile.shape[1], np.float32)
    for start in range(0, items.shape[0], _CHUNK):
        highest[:] = -np.inf
        for i in range(start, start + _CHUNK, 4):
            a, b, c, d = tile[i], tile[i + 1], tile[i + 2], tile[i + 3]
            for u in range(tile.shape[1]):
                highest[u] = max(highest[u], max(max(a[u], b[u]), max(c[u], d[u])))
        for u in range(n):
            if highest[u] >= thresholds[u]:
                stop = min(start + _CHUNK, items.shape[0])
                _insert(tile[start:stop, u], items[start:stop], found[users[u]], scores[users[u]])
                thresholds[u] = scores[users[u], last]


@numba.njit(nogil=True, cache=True)
def _insert(new: Floats, items: Ints, listed: Ints, best: Floats) -> None:
    """Insert what belongs there of new scores (n,) of items (n,) into a list (k,), highest first, lower item first.

    An empty place is (−inf, −1), which comes before every hidden score, so that these are never listed.
    """
    last = listed.shape[0] - 1
    for j in range(new.shape[0]):
        score, item = new[j], items[j]
        if score < best[last] or (score == best[last] and item > listed[last]):
            continue
        p = last
        while p > 0 and (best[p - 1] < score or (best[p - 1] == score and listed[p - 1] > item)):
            best[p], listed[p] = best[p - 1], listed[p - 1]
            p -= 1
        best[p], listed[p] = score, item


@numba.njit(nogil=True, cache=True)
def _by_tile(offsets: Longs, hidden: Ints, places: Ints, n_tiles: int, tile_items: int) -> Hidden:
    """Sort a batch's hidden cells by tile of items, then user, by counting: O(cells), no comparisons.

    Returns where each tile begins (n_tiles + 1,), and of the cells the item's row within its tile and the
    user, counted from the first of the batch.
    """
    starts = np.zeros(n_tiles + 1, np.int64)
    for q in range(offsets[0], offsets[-1]):
        place = places[hidden[q]]
        if place >= 0:
            starts[place // tile_items + 1] += 1
    for t in range(n_tiles):
        starts[t + 1] += starts[t]
    ends = starts[:-1].copy()
    rows = np.empty(starts[-1], np.int32)
    users = np.empty(starts[-1], np.int32)
    for u in range(offsets.shape[0] - 1):
        for q in range(offsets[u], offsets[u + 1]):
            place = places[hidden[q]]
            if place >= 0:
                t = place // tile_items
                rows[ends[t]] = place % tile_items
                users[ends[t]] = u
                ends[t] += 1
    return starts, rows, users


def _norms(factors: Floats) -> Doubles:
    """Return ‖row‖ of factors (n, rank) in float64, whose squares neither overflow nor underflow, exact to 1e-15."""
    squares = np.einsum("nr,nr->n", factors, factors, dtype=np.float64, casting="same_kind")
    return np.asarray(np.sqrt(squares), np.float64)


def _check_tile(name: str, size: int) -> None:
    if size < _STEP or size % _STEP:
        raise ValueError(f"{name}: {size} is not a positive multiple of {_STEP}")
