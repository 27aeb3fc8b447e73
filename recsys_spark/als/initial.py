"""Initial factors from a hash of (seed, id, column): the same for an id wherever it stands in the table."""

import numpy as np
from numpy.typing import NDArray


def initial_factors(hashes: NDArray[np.int64], rank: int, seed: int, scale: float) -> NDArray[np.float32]:
    """Return (n, rank) factors with mean 0 and standard deviation scale / √rank for ids with the given hashes.

    Each is the sum of four 16-bit uniform integers (nearly normal, and exact on every machine), from the
    finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) of hash, seed and column.

    >>> initial_factors(np.array([3, 5]), rank=2, seed=1, scale=0.1).shape
    (2, 2)
    """
    golden = 0x9E3779B97F4A7C15
    columns = (np.arange(1, rank + 1, dtype=np.uint64) + np.uint64(seed << 16)) * np.uint64(golden)
    bits = _mix(_mix(hashes.astype(np.uint64))[:, None] + columns[None, :])
    pieces = sum(((bits >> np.uint64(16 * place)) & np.uint64(0xFFFF)).astype(np.float64) for place in range(4))
    deviation = np.sqrt(4 * (65536.0**2 - 1) / 12)
    return ((pieces - 4 * 65535 / 2) / deviation * (scale / np.sqrt(rank))).astype(np.float32)


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
