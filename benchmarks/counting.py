"""How many scores ranking computes: the sizes of the matrix products that it asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np


@contextmanager
def computed_scores() -> Iterator[list[int]]:
    """Yield a list that holds, after the with-block, the sizes of the results of all calls of `numpy.dot` within.

    >>> with computed_scores() as sizes:
    ...     product = np.dot(np.ones((2, 5)), np.ones((5, 3)))
    >>> sizes
    [6]
    """
    sizes: list[int] = []
    dot: Any = np.dot

    def counted(left: Any, right: Any, out: Any = None) -> Any:
        product = dot(left, right, out=out)
        sizes.append(np.size(product))
        return product

    with mock.patch.object(np, "dot", counted):
        yield sizes
