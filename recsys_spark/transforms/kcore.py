"""The k-core of users and items: the largest part in which everyone has at least k partners (Seidman 1983)."""

from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from recsys_spark.blocks.layout import Block
from recsys_spark.blocks.store import Blocks

Flags = NDArray[np.bool_]


def core_columns(blocks: Blocks, k: int, most_rounds: int | None = None) -> Flags:
    """Return which columns belong to the k-core, (n_columns,): one pass over the blocks a round, to the fixed point.

    A row belongs to it if at least k of its columns do, so that columns alone are the state of a round. After
    `most_rounds` what is left is returned, where some columns may have fewer than k rows.
    """
    kept = np.ones(len(blocks.columns), bool)
    rounds = 0
    while rounds != most_rounds:
        rounds += 1
        label = f"{k}-core, round {rounds}: {int(kept.sum())} columns left"
        counts = sum(blocks.repeat(partial(blocks.run, _counts, (kept, k), label)))
        smaller = kept & (counts >= k)
        if (smaller == kept).all():
            break
        kept = smaller
    return kept


def core_rows(blocks: Blocks, kept: Flags, k: int) -> DataFrame:
    """Return (row) of the rows with at least k of the kept columns."""

    def rows(block: Block, kept: Flags) -> pa.RecordBatch:
        return pa.RecordBatch.from_pydict({"row": pa.array(block.rows[_row_counts(block, kept) >= k], pa.int32())})

    return blocks.frame(rows, kept, "row int")


def _row_counts(block: Block, kept: Flags) -> NDArray[np.int64]:
    before = np.concatenate([[0], np.cumsum(kept[block.columns])])
    return before[block.offsets[1:]] - before[block.offsets[:-1]]


def _counts(block: Block, argument: tuple[Flags, int]) -> NDArray[np.int64]:
    kept, k = argument
    rows = np.repeat(_row_counts(block, kept) >= k, np.diff(block.offsets))
    return np.bincount(block.columns[rows], minlength=len(kept))
