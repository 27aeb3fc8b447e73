"""Sums over users, resampled thousands of times without moving users: what intervals and p-values are made of.

What a user weighs in a replicate is a hash of (user, seed, replicate), of which SQL knows the same. So tasks resample
their own users alone, the sums of two comparisons of the same users use the same weights, and, being exact integers,
sums are the same bytes whatever the order and the partitions of the rows. Only sums come to the driver.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark.als.linalg import one_thread
from recsys_spark.evaluation import exact
from recsys_spark.schemas import USER_ID
from recsys_spark.workers import settle

ALL = "all users"
BLOCK = 256  # replicates at once: with _CHUNK users their weights stay in a core's cache
_CHUNK = 1024
_POINTS = -1  # the block that holds the sums themselves
_PRIMES = [
    np.uint64(prime)
    for prime in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
]

Longs = NDArray[np.int64]
Keys = NDArray[np.uint64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Resampling:
    """How often to resample, and which of all resamplings."""

    replicates: int = 2000
    seed: int = 1


@dataclass(frozen=True)
class Pairs:
    """What two models reached with the same users.

    keys (n,): a hash of each user's id; champion, challenger (n, m): metrics, NaN where one is not there.
    """

    keys: Keys
    champion: Doubles
    challenger: Doubles


@dataclass(frozen=True)
class Sums:
    """Sums over the users of a segment who have a metric with both models, for m metrics and R replicates.

    users (m,); high and low (2, m): of the champion's and the challenger's values, see `exact.split`. The others are
    of differences, challenger less champion, in multiples of 2⁻³⁰: moved (m,) without their signs, bootstrapped (R, m)
    with weights whose sums are weights (R, m), and flipped (R, m) of those whose sign is kept.
    """

    users: Longs
    high: Longs
    low: Longs
    moved: Longs
    bootstrapped: Longs
    weights: Longs
    flipped: Longs


def poisson_weights(keys: Keys, block: int, seed: int) -> NDArray[np.uint8]:
    """Return what users weigh in the replicates of a block, (n, BLOCK): Poisson of mean 1, by hash.

    Four replicates have the 16 bits each of a word, xxhash64(user, seed, replicate div 4), the lowest first; POISSON
    says what bits weigh. The multinomial weights of a bootstrap sample of n users tend to independent Poisson ones:
    Chamandy, Muralidharan, Najmi and Naidu, "Estimating Uncertainty for Massive Data Streams", Google 2012.
    """
    words = np.arange(BLOCK // 4) + block * (BLOCK // 4)
    return _WEIGHTS[_words(keys, seed, words).view(np.uint16)]


def kept_signs(keys: Keys, block: int, seed: int) -> NDArray[np.uint8]:
    """Return whose difference keeps its sign in the replicates of a block, (n, BLOCK): 1 or 0, evenly, by hash.

    64 replicates have a bit each of a word, xxhash64(user, seed, -1 - replicate div 64), the lowest first.
    """
    words = -1 - np.arange(BLOCK // 64) - block * (BLOCK // 64)
    return np.unpackbits(_words(keys, seed, words).view(np.uint8), axis=1, bitorder="little")


def partial_sums(
    pairs: Pairs, segments: Sequence[tuple[Longs, Longs]], resampling: Resampling
) -> Iterator[list[Longs]]:
    """Yield, block by block, for each segment what `whole` adds up.

    segments: of each the rows of its users and the columns of the metrics wanted.
    The first yield is the sums themselves, (6, m); the next are (3, BLOCK, m): bootstrapped, weights, flipped.
    Products are taken in float64, of integers whose sums stay below 2⁵³ for values below 32, and so are exact.
    """
    there = ~(np.isnan(pairs.champion) | np.isnan(pairs.challenger))
    champion, champion_low = exact.split(np.where(there, pairs.champion, 0.0))
    challenger, challenger_low = exact.split(np.where(there, pairs.challenger, 0.0))
    moved = np.abs(challenger - champion)
    points = np.stack([there.astype(np.int64), champion, challenger, champion_low, challenger_low, moved])
    yield [points[:, rows][:, :, columns].sum(axis=1) for rows, columns in segments]
    differences = (challenger - champion).astype(np.float64)
    counted = there.astype(np.float64)
    inputs = [(rows, differences[np.ix_(rows, columns)], counted[np.ix_(rows, columns)]) for rows, columns in segments]
    for block in range(n_blocks(resampling)):
        weights = poisson_weights(pairs.keys, block, resampling.seed).astype(np.float64)
        kept = kept_signs(pairs.keys, block, resampling.seed).astype(np.float64)
        yield [
            np.stack([weights[rows].T @ values, weights[rows].T @ counts, kept[rows].T @ values]).astype(np.int64)
            for rows, values, counts in inputs
        ]


def whole(blocks: Sequence[Longs], resampling: Resampling) -> Sums:
    """Return the sums of a segment from its blocks, which are sums of those of `partial_sums`, in their order."""
    users, champion, challenger, champion_low, challenger_low, moved = blocks[0]
    replicates = np.concatenate(blocks[1:], axis=1)[:, : resampling.replicates]
    high, low = np.stack([champion, challenger]), np.stack([champion_low, challenger_low])
    return Sums(users, high, low, moved, *replicates)


def n_blocks(resampling: Resampling) -> int:
    """Return how many blocks of replicates there are."""
    return -(-resampling.replicates // BLOCK)


def resampled(
    pairs: DataFrame, metrics: Sequence[str], judged: Sequence[str], resampling: Resampling
) -> dict[str, Sums]:
    """Return the sums of all users, for every metric, and of each segment, for those that are judged there.

    pairs: user_id string, champion and challenger map<string, double>, segments array<string>; one row a user.
    """
    chosen = np.array([metrics.index(name) for name in judged], np.int64)
    every = np.arange(len(metrics))

    def summed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settle()
        total: dict[tuple[str, int], Longs] = {}
        with one_thread():
            for batch in batches:
                for start in range(0, batch.num_rows, _CHUNK):
                    _add(total, batch.slice(start, _CHUNK), every, chosen, resampling)
        for (segment, block), values in total.items():
            yield _row(segment, block, values)

    def added(table: pa.Table) -> pa.Table:
        values = table.column("sums").combine_chunks()
        total = values.flatten().to_numpy().reshape(len(values), -1).sum(axis=0)
        return pa.Table.from_batches([_row(table["segment"][0].as_py(), table["block"][0].as_py(), total)])

    columns = [
        f.array(*(f.element_at(model, f.lit(name)) for name in metrics)).alias(model)
        for model in ("champion", "challenger")
    ]
    rows = (
        pairs.select(f.xxhash64(USER_ID).alias("key"), *columns, "segments")
        .mapInArrow(summed, _SCHEMA)
        .groupBy("segment", "block")
        .applyInArrow(added, _SCHEMA)
        .toArrow()
        .sort_by([("segment", "ascending"), ("block", "ascending")])
    )
    found: dict[str, list[Longs]] = {}
    for row in rows.to_batches():
        for segment, block, sums in zip(row["segment"].to_pylist(), row["block"].to_pylist(), row["sums"], strict=True):
            n = len(metrics) if segment == ALL else len(judged)
            shape = (6, n) if block == _POINTS else (3, BLOCK, n)
            found.setdefault(segment, []).append(sums.values.to_numpy().reshape(shape))
    return {segment: whole(blocks, resampling) for segment, blocks in found.items()}


_SCHEMA = "segment string, block int, sums array<bigint>"


def _add(
    total: dict[tuple[str, int], Longs], batch: pa.RecordBatch, every: Longs, chosen: Longs, resampling: Resampling
) -> None:
    """Add the sums of a batch (key, champion, challenger, segments) to those so far, by segment and block."""
    n = batch.num_rows
    champion, challenger = (
        pc.fill_null(batch.column(name).flatten(), np.nan).to_numpy(zero_copy_only=False).reshape(n, -1)
        for name in ("champion", "challenger")
    )
    pairs = Pairs(batch.column("key").to_numpy().view(np.uint64), champion, challenger)
    labels = batch.column("segments")
    names = labels.flatten().dictionary_encode()
    codes = names.indices.to_numpy(zero_copy_only=False)
    of = np.repeat(np.arange(n), pc.fill_null(pc.list_value_length(labels), 0).to_numpy(zero_copy_only=False))
    segments = {ALL: (np.arange(n), every)}
    segments |= {str(name): (of[codes == code], chosen) for code, name in enumerate(names.dictionary.to_pylist())}
    for block, sums in enumerate(partial_sums(pairs, list(segments.values()), resampling), start=_POINTS):
        for segment, values in zip(segments, sums, strict=True):
            key = (segment, block)
            total[key] = total[key] + values if key in total else values


def _row(segment: str, block: int, values: Longs) -> pa.RecordBatch:
    sums = pa.ListArray.from_arrays(pa.array([0, values.size], pa.int32()), pa.array(values.ravel(), pa.int64()))
    return pa.RecordBatch.from_arrays(
        [pa.array([segment], pa.string()), pa.array([block], pa.int32()), sums], names=["segment", "block", "sums"]
    )


def _words(keys: Keys, seed: int, numbers: Longs) -> Keys:
    """Return a hash of each key, the seed and each of some numbers, (len(keys), len(numbers))."""
    return xxhash64(numbers, xxhash64(np.array([seed]), keys)[:, None])


def xxhash64(numbers: Longs, before: Keys) -> Keys:
    """Return the hash of whole numbers after that of what stands before them, as Spark's xxhash64 does.

    Of 8 bytes: Collet, "xxHash fast digest algorithm", github.com/Cyan4973/xxHash.

    >>> xxhash64(np.array([1]), np.array([42], np.uint64)).view(np.int64)  # SELECT xxhash64(1L)
    array([-7001672635703045582])
    """
    one, two, three, four, five = _PRIMES
    mixed = before + (five + np.uint64(8)) ^ _turned(numbers.view(np.uint64) * two, 31) * one
    mixed = _turned(mixed, 27) * one + four
    mixed = (mixed ^ (mixed >> np.uint64(33))) * two
    mixed = (mixed ^ (mixed >> np.uint64(29))) * three
    return mixed ^ (mixed >> np.uint64(32))


def _turned(words: Keys, bits: int) -> Keys:
    """Return words with their upper bits below the lower ones."""
    return (words << np.uint64(bits)) | (words >> np.uint64(64 - bits))


def _poisson_steps() -> list[int]:
    """Return the least of 16 bits, read as a number, that weigh 1, 2, 3, …: the quantiles of a Poisson of mean 1."""
    below = np.cumsum(np.concatenate([[1.0], np.cumprod(1 / np.arange(1, 16))])) / np.e
    steps = np.searchsorted((np.arange(2**16) + 0.5) / 2**16, below, side="right")
    return [int(step) for step in steps if step < 2**16]


POISSON = _poisson_steps()
_WEIGHTS = np.searchsorted(POISSON, np.arange(2**16), side="right").astype(np.uint8)
