"""Sums of doubles as exact integers: the same values give the same bytes in whatever order and partitions they come.

A value is taken as the nearest multiple of 2⁻⁶⁰, which every double from 1/256 up is itself; smaller ones are rounded
no worse than a double is. Its parts are summed apart, so that no sum overflows a long below 2³³ values.
"""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql import functions as f

FRACTION_BITS = 60
LOW_BITS = 30

Longs = NDArray[np.int64]


def summed(value: Column) -> list[Column]:
    """Return the aggregates, by the names that `total` knows, that sum a column of doubles exactly."""
    whole = f.floor(value)
    fraction = f.rint((value - whole) * float(2**FRACTION_BITS)).cast("bigint")
    return [
        f.sum(whole).alias("whole"),
        f.sum(f.shiftright(fraction, LOW_BITS)).alias("high"),
        f.sum(fraction.bitwiseAND(2**LOW_BITS - 1)).alias("low"),
    ]


def total(sums: Mapping[str, int]) -> Fraction:
    """Return the exact sum of what `summed` aggregated.

    >>> total({"whole": 1, "high": 2**29, "low": 0})
    Fraction(3, 2)
    """
    return joined((int(sums["whole"]) << LOW_BITS) + int(sums["high"]), int(sums["low"]))


def split(values: NDArray[np.float64]) -> tuple[Longs, Longs]:
    """Return the multiples of 2⁻³⁰ nearest to values, and what is left of each in multiples of 2⁻⁶⁰.

    >>> split(np.array([0.5, 2.0**-60]))
    (array([536870912,         0]), array([0, 1]))
    """
    scaled = values * float(2**LOW_BITS)
    high = np.rint(scaled)
    return high.astype(np.int64), np.rint((scaled - high) * float(2**LOW_BITS)).astype(np.int64)


def joined(high: int, low: int) -> Fraction:
    """Return the value of sums of what `split` returned."""
    return Fraction((high << LOW_BITS) + low, 1 << FRACTION_BITS)
