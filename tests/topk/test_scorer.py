import numpy as np
import pyarrow as pa
import pytest

from recsys_spark.als.objective import Ials
from recsys_spark.als.trainer import rows_solve
from recsys_spark.topk.scorer import Ranker, popularity_ranker, rank_chunk, whole_users, with_model
from tests.als.oracle import exact_rows, random_weights

NAMES = pa.array([f"item-{i}" for i in range(12)])


def table(users: list[str], items: list[int | None]) -> pa.Table:
    weights = pa.array([1.0] * len(users), pa.float32())
    return pa.table({"user_id": users, "item_index": pa.array(items, pa.int32()), "weight": weights})


@pytest.mark.parametrize("rows", [1, 3, 4, 100])
def test_chunks_hold_whole_users_in_order_and_lose_no_row(rows: int) -> None:
    users = ["a"] * 2 + ["b"] * 7 + ["c"] + ["d"] * 3
    whole = table(users, list(range(len(users))))
    chunks = list(whole_users(iter(whole.to_batches(max_chunksize=2)), rows))
    seen = [set(chunk.column("user_id").to_pylist()) for chunk in chunks]
    assert pa.concat_tables(chunks).column("item_index").to_pylist() == list(range(len(users)))
    assert sum(map(len, seen)) == len(set().union(*seen)), "no user stands in two chunks"


def test_popular_items_come_in_order_without_the_seen_and_ties_by_index() -> None:
    popularity = np.array([5, 9, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0], np.float32)
    lists = rank_chunk(table(["a", "a", "b"], [1, 3, None]), popularity_ranker(NAMES, popularity), 3).to_pylist()
    assert [[item["item_id"] for item in row["items"]] for row in lists] == [
        ["item-2", "item-0", "item-4"],
        ["item-1", "item-2", "item-0"],
    ]
    assert {row["source"] for row in lists} == {"popular"}


def ranker_of(factors: np.ndarray, items: np.ndarray) -> Ranker:
    popularity = np.arange(12, 0, -1).astype(np.float32)
    solve = rows_solve(factors, Ials(0.2, 0.02), 100, 1e-10)
    return with_model(popularity_ranker(NAMES, popularity), items, solve)


def test_lists_are_those_of_dense_normal_equations_and_a_full_sort() -> None:
    """A model of ten of twelve items: what it does not know counts neither in the solve nor in the lists."""
    items = np.array([0, 1, 2, 4, 5, 6, 7, 9, 10, 11], np.int32)
    factors = np.random.default_rng(1).standard_normal((10, 3)).astype(np.float32)
    weights = random_weights(6, 12, 0.3, seed=2)
    weights.data[:] = 1
    users = np.repeat([f"u{u}" for u in range(6)], np.diff(weights.indptr)).tolist()
    found = rank_chunk(table(users, weights.indices.tolist()), ranker_of(factors, items), 4).to_pylist()
    known = weights[:, items].tocsr()
    reg = Ials(0.2, 0.02).row_regularization(np.diff(known.indptr), 10)
    scores = exact_rows(known, known.data, factors.astype(np.float64), 0.2, reg) @ factors.T
    scores[known.nonzero()] = -np.inf
    for user, row in enumerate(found):
        best = np.argsort(-scores[user])[: min(4, np.isfinite(scores[user]).sum())]
        assert row["user_id"] == f"u{user}" and row["source"] == "als"
        ranked = [item for item in row["items"] if item["score"] is not None]
        assert [item["item_id"] for item in ranked] == [f"item-{items[place]}" for place in best]
        assert np.allclose([item["score"] for item in ranked], scores[user][best], rtol=1e-3, atol=1e-4)


def test_users_keep_their_order_where_only_some_have_usable_history() -> None:
    items = np.array([0, 1, 2, 4], np.int32)
    factors = np.random.default_rng(3).standard_normal((4, 2)).astype(np.float32)
    found = rank_chunk(table(["a", "b", "c", "d"], [3, 0, 11, 2]), ranker_of(factors, items), 2).to_pylist()
    assert [(row["user_id"], row["source"]) for row in found] == [
        ("a", "popular"), ("b", "als"), ("c", "popular"), ("d", "als"),
    ]  # fmt: skip
    assert [item["item_id"] for item in found[2]["items"]] == ["item-0", "item-1"]


def test_who_has_seen_almost_all_that_the_model_knows_gets_popular_items_from_outside_it() -> None:
    items = np.array([0, 1, 2, 4], np.int32)
    factors = np.random.default_rng(3).standard_normal((4, 2)).astype(np.float32)
    seen = [0, 1, 2, 5]
    (row,) = rank_chunk(table(["a"] * 4, seen), ranker_of(factors, items), 4).to_pylist()
    assert [item["item_id"] for item in row["items"]] == ["item-4", "item-3", "item-6", "item-7"]
    assert [item["score"] is None for item in row["items"]] == [False, True, True, True]
    assert row["source"] == "als"
