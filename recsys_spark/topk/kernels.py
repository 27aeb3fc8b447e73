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

_CHUNK = 16  # items whose highest score is compared with a user's threshold at once
_TILES = 16  # tiles of users that a tile of items is multiplied with while it is in cache


@dataclass(frozen=True)
class Catalog:
    """Items in descending order of their factors' norm (ties by position), as padded tiles ready for sgemm.

    factors (n_tiles, tile_items, rank) float32: the sorted items' factors, zeros after the last;
    items (n_eligible,) int32: the position that the caller gave the item of each place in that order;
    places (n_items,) int32: the reverse, −1 for an item that is not eligible;
    norms (n_tiles,) float64: the greatest norm of a tile, which is that of its first item.
    """

    factors: Floats
    items: Ints
    places: Ints
    norms: Doubles


def catalog(factors: Floats, eligible: NDArray[np.bool_] | None = None, *, tile_items: int = 512) -> Catalog:
    """Return the catalog of the items with factors (n_items, rank), or of the eligible (n_items,) of them.

    What is not eligible is not in it at all, and so costs nothing later. tile_items, a power of two ≥ 16,
    changes the speed only.
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
    tiles.reshape(-1, rank)[: len(items)] = factors[items]
    places = np.full(n_items, -1, np.int32)
    places[items] = np.arange(len(items), dtype=np.int32)
    return Catalog(tiles, items, places, norms[items[::tile_items]])


def top_k(
    users: Floats, cat: Catalog, k: int, hidden_offsets: Longs, hidden_items: Ints, *, tile_users: int = 256
) -> tuple[Ints, Floats]:
    """Return for each user the k items of highest score xᵀy among those not hidden, and the scores.

    users (n_users, rank) float32; the items hidden from user u are hidden_items[hidden_offsets[u] :
    hidden_offsets[u + 1]], positions as given to `catalog`, in any order, repeated or not. Returns items
    (n_users, k) int32 and scores (n_users, k) float32, descending, ties by the lower position; after the
    last item that is left to a user, −1 and −inf.

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
    batch = _TILES * tile_users
    for start in range(0, len(users), batch):
        rows = slice(start, start + batch)
        offsets = hidden_offsets[start : start + batch + 1]
        hidden = _by_tile(offsets, hidden_items, cat.places, n_tiles, tile_items.bit_length() - 1)
        _rank_batch(users[rows], norms[rows], cat, hidden, tile_users, found[rows], scores[rows])
    return found, scores


def _rank_batch(
    users: Floats, norms: Doubles, cat: Catalog, hidden: Hidden, tile_users: int, found: Ints, scores: Floats
) -> None:
    """Rank users (n, rank) into found and scores (n, k): for each tile of items all users not yet done.

    A float32 xᵀy, in whatever order it is summed, is off by at most γ·‖x‖·‖y‖, γ < rank·2⁻²³, and by less
    than 1e-33 for underflow (Higham 2002, §3.1). So no score is above ‖x‖·‖y‖ and this, and two ways to
    compute a score differ by at most twice this.
    """
    n_tiles, tile_items, rank = cat.factors.shape
    starts, hidden_rows, hidden_users = hidden
    active = np.arange(len(users), dtype=np.int32)
    columns = _columns(users, tile_users)
    tile = np.empty((tile_items, tile_users), np.float32)
    for t in range(n_tiles):
        reach = norms * cat.norms[t]
        errors = reach * (rank * 2.0**-23) + 1e-33
        going = active[(reach + errors >= scores[:, -1])[active]]  # the others are done
        if len(going) == 0:
            return
        if -(-len(going) // tile_users) < len(columns):  # a whole tile of users is saved
            active = going
            columns = _columns(users[active], tile_users)
        items = cat.items[t * tile_items : (t + 1) * tile_items]
        cells = slice(starts[t], starts[t + 1])
        for i, block in enumerate(columns):
            np.dot(cat.factors[t], block, out=tile)
            ranked = active[i * tile_users : (i + 1) * tile_users]
            _hide(tile, len(items), ranked, hidden_rows[cells], hidden_users[cells])
            _rank_tile(tile, cat.factors[t], items, users, ranked, errors, t == 0, found, scores)


def _columns(users: Floats, tile_users: int) -> Floats:
    """Return users (n, rank) in columns, as (n_tiles, rank, tile_users), zeros after the last."""
    n, rank = users.shape
    padded = np.zeros((-(-n // tile_users), tile_users, rank), np.float32)
    padded.reshape(-1, rank)[:n] = users
    return np.ascontiguousarray(padded.transpose(0, 2, 1))


def _norms(factors: Floats) -> Doubles:
    """Return the norms of factors (n, rank) in float64, where no square overflows or vanishes."""
    return np.asarray(np.sqrt(np.einsum("nr,nr->n", factors, factors, dtype=np.float64)))


@numba.njit(nogil=True, cache=True)
def _by_tile(offsets: Longs, hidden: Ints, places: Ints, n_tiles: int, bits: int) -> Hidden:
    """Sort a batch's hidden cells by tile (of 2^bits items), then user, by counting: O(cells).

    Returns where each tile begins (n_tiles + 1,), and of each cell the item's row within its tile and the
    user, counted from the first of the batch.
    """
    starts = np.zeros(n_tiles + 1, np.int64)
    for q in range(offsets[0], offsets[-1]):
        place = places[hidden[q]]
        if place >= 0:
            starts[(place >> bits) + 1] += 1
    starts = np.cumsum(starts)
    ends = starts[:-1].copy()
    rows = np.empty(starts[-1], np.int32)
    users = np.empty(starts[-1], np.int32)
    for u in range(offsets.shape[0] - 1):
        for q in range(offsets[u], offsets[u + 1]):
            place = places[hidden[q]]
            if place >= 0:
                t = place >> bits
                rows[ends[t]] = place - (t << bits)
                users[ends[t]] = u
                ends[t] += 1
    return starts, rows, users


@numba.njit(nogil=True, cache=True)
def _hide(tile: Floats, n_items: int, users: Ints, hidden_rows: Ints, hidden_users: Ints) -> None:
    """Set to −inf the hidden cells of a tile's users (both ascending), and the rows after its items."""
    first, end = np.searchsorted(hidden_users, users[0]), np.searchsorted(hidden_users, users[-1] + 1)
    u = 0
    for h in range(first, end):
        while users[u] < hidden_users[h]:
            u += 1
        if users[u] == hidden_users[h]:
            tile[hidden_rows[h], u] = -np.inf
    tile[n_items:] = -np.inf


@numba.njit(fastmath={"nnan", "nsz"}, nogil=True, cache=True)
def _kth_of_groups(tile: Floats, k: int) -> Floats:
    """Return no more than each user's k-th highest score in a tile: the k-th highest of 2·k groups' maxima.

    A group is some rows. Its maximum falls down the sorted lists of all users at once, a vector operation a
    place: the higher stays, the lower falls on. It spares most of a first tile's insertions.
    """
    kth = np.full((k, tile.shape[1]), -np.inf, np.float32)
    size = tile.shape[0] // (2 * k)
    for group in range(2 * k if size else 0):
        falling = tile[group * size].copy()
        for i in range(group * size + 1, group * size + size):
            for u in range(tile.shape[1]):
                falling[u] = max(falling[u], tile[i, u])
        for q in range(k):
            for u in range(tile.shape[1]):
                higher = max(kth[q, u], falling[u])
                falling[u] = min(kth[q, u], falling[u])
                kth[q, u] = higher
    bound: Floats = kth[k - 1]
    return bound


@numba.njit(fastmath={"nnan", "nsz", "reassoc", "contract"}, nogil=True, cache=True)
def _score(users: Floats, u: int, factors: Floats, i: int) -> np.float32:
    """Return xᵀy in an order of its own: sgemm's, on some processors, depends on the place in the tile."""
    total: np.float32 = np.float32(0)
    for j in range(users.shape[1]):
        total += users[u, j] * factors[i, j]
    return total


@numba.njit(fastmath={"nnan", "nsz"}, nogil=True, cache=True)
def _rank_tile(
    tile: Floats,
    factors: Floats,
    items: Ints,
    users: Floats,
    ranked: Ints,
    errors: Doubles,
    first: bool,
    found: Ints,
    scores: Floats,
) -> None:
    """Insert a tile's items (n,) into the sorted lists of the `ranked` of the users (n_users, rank).

    The sgemm's scores, tile (tile_items, tile_users), −inf where hidden, are within 2·errors (n_users,) of
    the scores that are listed. The maximum of a chunk of them is taken for all users at once, a vector
    operation; only where it comes so near to a user's last listed score are they looked at one by one.
    """
    last = found.shape[1] - 1
    bars = _kth_of_groups(tile, last + 1) if first else np.full(tile.shape[1], -np.inf, np.float32)
    for u in range(ranked.shape[0]):
        slack = 2 * errors[ranked[u]]
        bars[u] = max(bars[u] - slack, scores[ranked[u], last]) - slack
    highest = np.empty(tile.shape[1], np.float32)
    for start in range(0, items.shape[0], _CHUNK):
        highest[:] = -np.inf
        for i in range(start, start + _CHUNK, 4):
            a, b, c, d = tile[i], tile[i + 1], tile[i + 2], tile[i + 3]
            for u in range(tile.shape[1]):
                highest[u] = max(highest[u], max(max(a[u], b[u]), max(c[u], d[u])))
        for u in range(ranked.shape[0]):
            if highest[u] < bars[u]:
                continue
            user = ranked[u]
            for i in range(start, min(start + _CHUNK, items.shape[0])):
                if tile[i, u] < bars[u] or tile[i, u] == -np.inf:
                    continue
                item, score, p = items[i], _score(users, user, factors, i), last
                if score < scores[user, p] or (score == scores[user, p] and item > found[user, p]):
                    continue
                while p > 0 and (
                    score > scores[user, p - 1] or (score == scores[user, p - 1] and item < found[user, p - 1])
                ):
                    scores[user, p], found[user, p] = scores[user, p - 1], found[user, p - 1]
                    p -= 1
                scores[user, p], found[user, p] = score, item
                bars[u] = max(bars[u], scores[user, last] - 2 * errors[user])
