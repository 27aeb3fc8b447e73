from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from recsys_spark.topk.baselines import BaselineModel, Frequent, ItemKnn, Random
from recsys_spark.topk.orders import Orders
from recsys_spark.topk.ranker import HISTORY, Ranker, rank_chunk
from tests.topk.test_scorer import EVERY, NAMES, NONE, POPULARITY, SEEN, Row, listed, table

N = len(NAMES)


def ranker_of(baseline: BaselineModel, may: np.ndarray = EVERY) -> Ranker:
    return Ranker(NAMES, NONE, Orders.of(POPULARITY, may), baseline=baseline, may=may)


def near(pairs: dict[int, list[tuple[int, float]]]) -> ItemKnn:
    counts = [len(pairs.get(item, ())) for item in range(N)]
    flat = [pair for item in range(N) for pair in pairs.get(item, ())]
    return ItemKnn(
        np.concatenate([[0], np.cumsum(counts)]),
        np.array([item for item, _ in flat], np.int32),
        np.array([score for _, score in flat], np.float32),
    )


def test_frequent_items_are_the_users_own_by_weight_then_the_popular() -> None:
    rows: list[Row] = [("a", 3, HISTORY), ("a", 5, HISTORY), ("a", 8, HISTORY), ("b", None, HISTORY)]
    lists = rank_chunk(table(rows, [1, 7, 2, 0]), ranker_of(Frequent()), 4).to_pylist()
    assert [[item["item_id"] for item in row["items"]] for row in lists] == [
        ["item-5", "item-8", "item-3", "item-0"],
        ["item-0", "item-1", "item-2", "item-3"],
    ]
    assert [row["source"] for row in lists] == ["frequent", "popular"]
    assert [item["score"] for item in lists[0]["items"]] == [7, 2, 1, None]


def test_item_knn_adds_similarities_over_the_history() -> None:
    """Of 4 is 1 · .5 + 2 · .4 = 1.3, of 6 is 1 · .9, of 7 is 2 · .3."""
    knn = near({1: [(4, 0.5), (6, 0.9)], 2: [(4, 0.4), (7, 0.3), (1, 0.8)]})
    rows: list[Row] = [("a", 1, SEEN), ("a", 2, SEEN)]
    lists = rank_chunk(table(rows, [1, 2]), ranker_of(knn), 4).to_pylist()
    assert [(item["item_id"], item["score"]) for item in lists[0]["items"]] == [
        ("item-4", pytest.approx(1.3)),
        ("item-6", pytest.approx(0.9)),
        ("item-7", pytest.approx(0.6)),
        ("item-0", None),
    ]


def test_what_is_not_eligible_is_in_no_baselines_list() -> None:
    may = EVERY.copy()
    may[[4, 0]] = False
    knn = near({1: [(4, 0.5), (6, 0.9)]})
    assert listed([("a", 1, SEEN)], ranker_of(knn, may), 3) == [["item-6", "item-2", "item-3"]]


def test_item_knn_is_the_product_of_histories_and_similarities() -> None:
    rng = np.random.default_rng(1)
    dense = np.where(rng.random((N, N)) < 0.4, rng.integers(1, 9, (N, N)), 0).astype(np.float64)
    knn = near({j: [(i, dense[i, j]) for i in range(N) if dense[i, j]] for j in range(N)})
    history = np.where(rng.random((5, N)) < 0.3, rng.integers(1, 4, (5, N)), 0)
    rows = [(f"u{u}", int(i), HISTORY) for u in range(5) for i in np.flatnonzero(history[u])]
    weights = [float(history[int(user[1]), item]) for user, item, _ in rows]
    scores = history @ dense.T
    for row in rank_chunk(table(rows, weights), ranker_of(knn), N).to_pylist():
        own = scores[int(row["user_id"][1])]
        best = [i for i in np.argsort(-own, kind="stable") if own[i] > 0]
        ranked = [item for item in row["items"] if item["score"] is not None]
        assert [item["item_id"] for item in ranked] == [f"item-{i}" for i in best]
        assert [item["score"] for item in ranked] == [own[i] for i in best]


def test_reasons_of_neighbours_add_up_to_the_score_and_own_frequent_items_are_their_own_reason() -> None:
    rng = np.random.default_rng(2)
    dense = np.where(rng.random((N, N)) < 0.4, rng.integers(1, 9, (N, N)), 0)
    knn = near({j: [(i, float(dense[i, j])) for i in range(N) if dense[i, j]] for j in range(N)})
    rows: list[Row] = [("a", item, SEEN) for item in (1, 4, 9)]
    (row,) = rank_chunk(table(rows, [2, 1, 3]), replace(ranker_of(knn), reasons=N), N).to_pylist()
    ranked = [item for item in row["items"] if item["score"] is not None]
    assert len(ranked) > 3
    for item in ranked:
        own = dense[int(item["item_id"][5:])]
        expected = {f"item-{j}": w * own[j] for j, w in ((1, 2), (4, 1), (9, 3)) if own[j]}
        assert {reason["item_id"]: reason["contribution"] for reason in item["because"]} == expected
        assert sum(expected.values()) == item["score"]
    assert all(item["because"] == [] for item in row["items"] if item["score"] is None)
    again: list[Row] = [("a", item, HISTORY) for item in (1, 4)]
    (row,) = rank_chunk(table(again, [2, 1]), replace(ranker_of(Frequent()), reasons=2), 2).to_pylist()
    assert [item["because"] for item in row["items"]] == [
        [{"item_id": "item-1", "contribution": 2}],
        [{"item_id": "item-4", "contribution": 1}],
    ]
    (row,) = rank_chunk(table(rows), replace(ranker_of(Random(1, 5)), reasons=2), 2).to_pylist()
    assert [item["because"] for item in row["items"]] == [[], []]


def test_chance_lists_each_item_about_as_often_and_the_same_user_the_same() -> None:
    rows: list[Row] = [(f"u{u:04}", 0, SEEN) for u in range(2000)]
    lists = listed(rows, ranker_of(Random(1, 5)), 3)
    counts = np.bincount([int(item[5:]) for row in lists for item in row], minlength=N)
    assert counts[0] == 0 and (np.abs(counts[1:] - 6000 / 11) < 4 * np.sqrt(6000 / 11)).all()
    assert listed(rows[7:8], ranker_of(Random(1, 5)), 3) == [lists[7]]
    assert listed(rows, ranker_of(Random(2, 5)), 3) != lists


def test_an_order_for_nobody_is_empty() -> None:
    nobody = pa.array([], pa.string()), np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    for baseline in (Frequent(), Random(1, 5), near({})):
        assert baseline.orders(*nobody, N).items.tolist() == []
