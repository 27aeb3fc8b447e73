"""The iteration: a pass over the blocks a step, until the singular values stand still.

The model is PureSVD (Cremonesi, Koren and Turrin, RecSys 2010) of normalised interactions, as in graph filtering
(Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021). docs/algorithm.md has the whole.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.blocks.store import Blocks
from recsys_spark.errors import DataError
from recsys_spark.spectral.passes import Product, degrees_pass, powers, product_pass
from recsys_spark.spectral.subspace import Subspace

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """How long to iterate, on which matrix; exponents are of rows' and columns' sums of values."""

    row_exponent: float
    column_exponent: float
    tolerance: float
    steps: int


@dataclass(frozen=True)
class Step:
    """A step: the matrix's product with the directions asked for (n_columns, width), and what it changed.

    values (rank,) are the squared singular values found so far; change is the largest of a value against that of the
    step before, as a share of it.
    """

    number: int
    product: Floats
    values: Doubles
    change: float
    seconds: float


def column_degrees(blocks: Blocks, n_columns: int) -> Doubles:
    """Return the sums of values by column, (n_columns,)."""
    total = blocks.repeat(lambda: blocks.total(degrees_pass, n_columns, "values of each column", 8 * n_columns))
    degrees: Doubles = total[0]
    return degrees


def iterate(
    blocks: Blocks, space: Subspace, degrees: Doubles, settings: Settings, done: Iterable[Floats] = ()
) -> Iterator[Step]:
    """Yield the steps after those whose products are `done`, until they change no value by more than the tolerance.

    Of `done` one product is asked for at a time.

    space begins as those steps did, and holds the vectors at the end. degrees (n_columns,). Raises DataError where a
    value is no number, TryAgainError where blocks are lost again and again.
    """
    scale = powers(degrees, -settings.column_exponent).astype(np.float32)[:, None]
    number, change = 0, np.inf

    def take(product: Floats) -> float:
        before = space.values
        space.add(product)
        return _change(before, space.values)

    for product in done:
        number, change = number + 1, take(product)
    while number < settings.steps and change > settings.tolerance and space.directions is not None:
        number += 1
        started = time.perf_counter()
        argument = Product(space.directions * scale, settings.row_exponent)
        label = f"step {number} of at most {settings.steps}"

        def one(argument: Product = argument, label: str = label) -> Floats:
            found: Floats = blocks.total(product_pass, argument, label, argument.directions.nbytes)[0]
            return found

        product = blocks.repeat(one) * scale
        if not np.isfinite(product).all():
            raise DataError(f"{label}: a product is not a number; look at the weights")
        change = take(product)
        yield Step(number, product, space.values, change, time.perf_counter() - started)


def _change(before: Doubles, after: Doubles) -> float:
    """Return the largest change of a value as a share of it; values of a millionth of the first count as that much."""
    if len(before) != len(after):
        return np.inf
    return float((np.abs(after - before) / np.maximum(after, 1e-6 * max(after[0], 1e-30))).max())
