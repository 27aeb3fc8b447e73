"""The k-core against its definition, by sets."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from recsys_spark.blocks import store
from recsys_spark.transforms.kcore import core_columns, core_rows
from tests.generated import through_spark

Pairs = set[tuple[int, int]]
N = 12


def found(spark: SparkSession, pairs: Pairs, k: int, rounds: int | None = None) -> Pairs:
    """The pairs of which both sides are in the core."""
    histories = spark.createDataFrame([(*pair, 1.0) for pair in sorted(pairs)], "row int, column int, value double")
    blocks = store.build(histories, np.arange(N, dtype=np.int32), 2)
    kept = core_columns(blocks, k, rounds)
    rows = {row[0] for row in core_rows(blocks, kept, k).collect()}
    blocks.close()
    return {(row, column) for row, column in pairs if row in rows and kept[column]}


def cut(pairs: Pairs, side: int, k: int) -> Pairs:
    partners = Counter(pair[side] for pair in pairs)
    return {pair for pair in pairs if partners[pair[side]] >= k}


def core(pairs: Pairs, k: int) -> Pairs:
    """What is left when users and items of fewer than k partners are cut again and again."""
    while (smaller := cut(cut(pairs, 0, k), 1, k)) != pairs:
        pairs = smaller
    return pairs


@pytest.mark.generated
@pytest.mark.parametrize("k", [2, 3])
def test_the_core_is_what_is_left_when_nobody_has_fewer_than_k_partners(spark: SparkSession, k: int) -> None:
    @through_spark()
    @given(st.sets(st.tuples(st.integers(0, 15), st.integers(0, N - 1)), min_size=25, max_size=60))
    def check(pairs: Pairs) -> None:
        assert found(spark, pairs, k) == core(pairs, k)

    check()


def test_a_round_cuts_users_then_items_and_a_chain_takes_many(spark: SparkSession) -> None:
    """A chain u0 – i0 – u1 – i1 – … has no 2-core, and loses a user and an item at each end in a round."""
    chain = {(n, n) for n in range(10)} | {(n + 1, n) for n in range(9)}
    assert found(spark, chain, 2) == set()
    for rounds in (1, 2, 3):
        left = chain
        for _ in range(rounds):
            left = cut(cut(left, 0, 2), 1, 2)
        assert found(spark, chain, 2, rounds) == cut(left, 0, 2) != set()
