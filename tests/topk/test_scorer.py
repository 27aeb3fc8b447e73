import dataclasses
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark import workers
from recsys_spark.als.baseline import Baseline
from recsys_spark.als.objective import Explicit, Ials, Objective
from recsys_spark.als.trainer import rows_solve
from recsys_spark.topk import scorer
from recsys_spark.topk.baselines import ItemKnn
from recsys_spark.topk.folds import AlsFold, Blend, SpectralFold
from recsys_spark.topk.orders import Orders, fill
from recsys_spark.topk.prior import Prior
from recsys_spark.topk.ranker import ALLOWED, HIDDEN, HISTORY, SEGMENT, Model, Ranker, rank_chunk
from recsys_spark.topk.repeats import Repeats
from recsys_spark.topk.scorer import sorted_users
from tests.als.oracle import exact_rows, random_weights

N = 12
NAMES = pa.array([f"item-{i}" for i in range(N)])
EVERY = np.ones(N, bool)
NONE = np.full(N, -1, np.int32)
SEEN = HISTORY | HIDDEN
OBJECTIVE = Ials(0.2, 0.02)
POPULARITY = np.arange(N, 0, -1).astype(np.float32)

Row = tuple[str, int | None, int]


def table(rows: Sequence[Row], weights: Sequence[float] | None = None) -> pa.Table:
    users, items, kinds = zip(*rows, strict=True) if rows else ((), (), ())
    weights = [1.0] * len(users) if weights is None else weights
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "item_index": pa.array(items, pa.int32()),
            "weight": pa.array(weights, pa.float32()),
            "kind": pa.array(kinds, pa.int8()),
        }
    )


def seen(users: str, items: list[int | None]) -> list[Row]:
    return [(user, item, SEEN) for user, item in zip(users, items, strict=True)]


def popular(popularity: np.ndarray = POPULARITY, **others: object) -> Ranker:
    return dataclasses.replace(Ranker(NAMES, NONE, Orders.of(popularity, EVERY)), **others)


def model_of(
    factors: np.ndarray,
    items: np.ndarray,
    eligible: np.ndarray = EVERY,
    categories: np.ndarray = NONE,
    objective: Objective = OBJECTIVE,
    baseline: Baseline | None = None,
    prior: Prior | None = None,
) -> Model:
    fold = AlsFold(rows_solve(factors, objective, 100, 1e-10), baseline)
    return Model.of("als", items.astype(np.int32), fold, eligible, categories, prior)


def random_factors(n: int, rank: int = 3, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, rank)).astype(np.float32)


def listed(rows: Sequence[Row], ranker: Ranker, k: int, weights: Sequence[float] | None = None) -> list[list[str]]:
    lists = rank_chunk(table(rows, weights), ranker, k).to_pylist()
    return [[item["item_id"] for item in row["items"]] for row in lists]


@pytest.mark.parametrize("rows", [1, 3, 4, 100])
def test_chunks_hold_whole_users_in_order_and_lose_no_row(rows: int) -> None:
    users = "a" * 2 + "b" * 7 + "c" + "d" * 3
    items = [None, 5, *range(7), 3, None, 0, 2]
    whole = table(seen(users, items), np.arange(len(users)))
    shuffled = whole.take(np.random.default_rng(rows).permutation(len(users)))
    chunks = list(sorted_users(shuffled.to_batches(max_chunksize=2), rows))
    in_chunk = [set(chunk.column("user_id").to_pylist()) for chunk in chunks]
    assert pa.concat_tables(chunks).combine_chunks() == whole.combine_chunks()
    assert sum(map(len, in_chunk)) == len(set().union(*in_chunk)), "no user stands in two chunks"
    assert all(chunk.num_rows >= rows for chunk in chunks[:-1])


def test_popular_items_come_in_order_without_the_seen_and_ties_by_index() -> None:
    ranker = popular(np.array([5, 9, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0], np.float32))
    lists = rank_chunk(table(seen("aab", [1, 3, None])), ranker, 3).to_pylist()
    assert [[(item["item_id"], item["score"]) for item in row["items"]] for row in lists] == [
        [("item-2", 9), ("item-0", 5), ("item-4", 1)],
        [("item-1", 9), ("item-2", 9), ("item-0", 5)],
    ]
    assert {row["source"] for row in lists} == {"popular"}


def test_lists_are_those_of_dense_normal_equations_and_a_full_sort() -> None:
    """A model of ten of twelve items: what it does not know counts neither in the solve nor in the scores."""
    items = np.array([0, 1, 2, 4, 5, 6, 7, 9, 10, 11], np.int32)
    factors = random_factors(10, seed=1)
    weights = random_weights(6, N, 0.3, seed=2)
    weights.data[:] = 1
    users = "".join(chr(97 + u) * n for u, n in enumerate(np.diff(weights.indptr)))
    ranker = popular(model=model_of(factors, items))
    found = rank_chunk(table(seen(users, weights.indices.tolist())), ranker, 4).to_pylist()
    known = weights[:, items].tocsr()
    reg = Ials(0.2, 0.02).row_regularization(np.diff(known.indptr), 10)
    scores = exact_rows(known, known.data, factors.astype(np.float64), 0.2, reg) @ factors.T
    scores[known.nonzero()] = -np.inf
    for user, row in enumerate(found):
        best = np.argsort(-scores[user])[: min(4, np.isfinite(scores[user]).sum())]
        assert row["user_id"] == chr(97 + user) and row["source"] == "als"
        ranked = [item for item in row["items"] if item["score"] is not None]
        assert [item["item_id"] for item in ranked] == [f"item-{items[place]}" for place in best]
        assert np.allclose([item["score"] for item in ranked], scores[user][best], rtol=1e-3, atol=1e-4)


def test_users_keep_their_order_where_only_some_have_usable_history() -> None:
    ranker = popular(model=model_of(random_factors(4), np.array([0, 1, 2, 4])))
    found = rank_chunk(table(seen("abcd", [3, 0, 11, 2])), ranker, 2).to_pylist()
    assert [(row["user_id"], row["source"]) for row in found] == [
        ("a", "popular"), ("b", "als"), ("c", "popular"), ("d", "als"),
    ]  # fmt: skip
    assert [item["item_id"] for item in found[2]["items"]] == ["item-0", "item-1"]


def test_who_has_seen_almost_all_that_the_model_knows_gets_popular_items_from_outside_it() -> None:
    ranker = popular(model=model_of(random_factors(4), np.array([0, 1, 2, 4])))
    (row,) = rank_chunk(table(seen("aaaa", [0, 1, 2, 5])), ranker, 4).to_pylist()
    assert [item["item_id"] for item in row["items"]] == ["item-4", "item-3", "item-6", "item-7"]
    assert [item["score"] is None for item in row["items"]] == [False, True, True, True]
    assert row["source"] == "als"


def test_whoever_the_model_has_no_item_for_is_served_what_is_popular_and_the_source_says_so() -> None:
    ranker = popular(model=model_of(random_factors(4), np.arange(4)))
    rows = [
        *seen("aaaa", [0, 1, 2, 3]),
        ("b", 1, SEEN),
        ("b", 9, ALLOWED),
        *(("c", item, SEEN) for item in range(N)),
        ("d", 1, SEEN),
    ]
    lists = {row["user_id"]: row for row in rank_chunk(table(rows), ranker, 2).to_pylist()}
    assert [lists[user]["source"] for user in "abcd"] == ["popular", "popular", "popular", "als"]
    assert [(item["item_id"], item["score"]) for item in lists["a"]["items"]] == [("item-4", 8), ("item-5", 7)]
    assert [item["item_id"] for item in lists["b"]["items"]] == ["item-9"]
    assert lists["c"]["items"] == []


def test_history_that_is_not_hidden_is_listed_and_what_is_blocked_is_not() -> None:
    ranker = popular(model=model_of(np.eye(N, dtype=np.float32), np.arange(N)))
    rows = [("a", 5, HISTORY), ("a", 7, SEEN), ("a", 0, HIDDEN)]
    assert listed(rows, ranker, 3) == [["item-5", "item-1", "item-2"]]


@pytest.mark.parametrize("with_model", [False, True])
def test_who_has_an_allow_list_gets_nothing_else_and_in_the_same_order(with_model: bool) -> None:
    ranker = popular(model=model_of(random_factors(N), np.arange(N)) if with_model else None)
    rows = [("a", 5, SEEN), ("b", 5, SEEN), *(("b", item, ALLOWED) for item in (1, 5, 6, 8)), ("c", None, ALLOWED)]
    whole, some, nothing = listed(rows, ranker, N)
    assert some == [item for item in whole if item in ("item-1", "item-6", "item-8")]
    assert nothing == []


def test_what_is_not_eligible_is_in_no_list_yet_counts_as_history() -> None:
    eligible = EVERY.copy()
    eligible[[0, 5]] = False
    factors = random_factors(N)
    full = model_of(factors, np.arange(N))
    part = Ranker(NAMES, NONE, Orders.of(POPULARITY, eligible), model=model_of(factors, np.arange(N), eligible))
    rows = [("a", 5, HISTORY), ("a", 3, HISTORY), ("b", None, HISTORY)]
    everything, _ = listed(rows, popular(model=full), N)
    own, fallback = listed(rows, part, N)
    assert own == [item for item in everything if item not in ("item-0", "item-5")]
    assert fallback == [f"item-{i}" for i in range(N) if eligible[i]]


def test_items_of_no_weight_reach_no_neighbour_twice() -> None:
    """Three items of weight 0 and one that counts, each with the same three neighbours."""
    near = np.tile(np.array([3, 4, 5], np.int32), 4)
    offsets = np.array([0, 3, 6, 9, 9, 9, 12], np.int64)  # of items 0, 1, 2 and 5
    model = ItemKnn(offsets, near, np.full(12, 0.5, np.float32))
    history, weights = np.array([0, 1, 2, 5], np.int32), np.array([0, 0, 0, 1], np.float32)
    found = model.orders(pa.array(["u"]), np.array([0, 4]), history, weights, 6)
    assert found.items.tolist() == [3, 4, 5] and found.values.tolist() == [0.5] * 3


def test_a_history_of_no_weight_is_served_what_is_popular() -> None:
    ranker = popular(model=model_of(random_factors(4), np.array([0, 1, 2, 4])))
    rows, nothing = seen("aa", [1, 2]), [0.0, 0.0]
    assert listed(rows, ranker, 3, nothing) == listed(rows, popular(), 3, nothing) != listed(rows, ranker, 3)


def test_an_empty_eligible_list_gives_empty_lists() -> None:
    nothing = np.zeros(N, bool)
    model = model_of(random_factors(N), np.arange(N), nothing)
    ranker = Ranker(NAMES, NONE, Orders.of(POPULARITY, nothing), model=model)
    assert listed(seen("ab", [1, None]), ranker, 3) == [[], []]


def test_the_popular_of_a_segment_come_first_then_those_of_all() -> None:
    segments = Orders(np.array([0, 2, 3]), np.array([7, 3, 9], np.int32), np.array([5, 4, 8], np.float32))
    rows = [("a", 0, SEGMENT), ("b", 1, SEGMENT), ("b", 9, SEEN), ("c", 1, SEGMENT), ("d", None, HISTORY)]
    lists = rank_chunk(table(rows), popular(segments=segments), 3).to_pylist()
    assert [(row["source"], [item["item_id"] for item in row["items"]]) for row in lists] == [
        ("segment", ["item-7", "item-3", "item-0"]),
        ("popular", ["item-0", "item-1", "item-2"]),
        ("segment", ["item-9", "item-0", "item-1"]),
        ("popular", ["item-0", "item-1", "item-2"]),
    ]
    assert [item["score"] for item in lists[0]["items"]] == [5, 4, None]


def capped(order: list[int], categories: np.ndarray, most: int, k: int) -> list[int]:
    """Fill a list from the top of an order."""
    taken: dict[int, int] = {}
    chosen: list[int] = []
    for item in order:
        category = int(categories[item])
        if len(chosen) < k and (category < 0 or taken.get(category, 0) < most):
            chosen.append(item)
            taken[category] = taken.get(category, 0) + 1
    return chosen


@given(seed=st.integers(0, 2**32 - 1), most=st.integers(1, 3), k=st.integers(1, N), n_categories=st.integers(1, 5))
def test_no_list_holds_more_of_a_category_than_it_may_and_lists_are_filled_up_with_others(
    seed: int, most: int, k: int, n_categories: int
) -> None:
    rng = np.random.default_rng(seed)
    categories = rng.integers(-1, n_categories, N).astype(np.int32)
    items = np.sort(rng.permutation(N)[:8])
    factors = random_factors(8, seed=seed)
    ranker = Ranker(
        NAMES, categories, Orders.of(POPULARITY, EVERY), model=model_of(factors, items, categories=categories)
    )
    rows: list[Row] = [("a", int(items[0]), SEEN), ("a", int(items[1]), HISTORY)]
    whole = [int(item[5:]) for item in listed(rows, ranker, N)[0]]
    known = [item for item in whole if item in items]
    rest = [item for item in range(N) if item not in items]  # by popularity
    free = dataclasses.replace(ranker, most_of_category=most)
    assert [int(item[5:]) for item in listed(rows, free, k)[0]] == capped(known + rest, categories, most, k)


@given(seed=st.integers(0, 2**32 - 1), most=st.integers(0, 2), k=st.integers(1, N + 1))
def test_empty_places_are_filled_as_by_going_through_each_users_list(seed: int, most: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(N)[: rng.integers(0, N + 1)].astype(np.int32) for _ in range(3)]
    n_users, categories = 20, rng.integers(-1, 3, N).astype(np.int32)
    which, restricted = rng.integers(-1, 3, n_users).astype(np.int32), rng.random(n_users) < 0.6
    hidden, allowed = ([rng.permutation(N)[: rng.integers(0, n)].astype(np.int32) for _ in which] for n in (4, N))
    found = np.full((n_users, k), -1, np.int32)
    for own, unseen in zip(found, hidden, strict=True):
        start = np.setdiff1d(rng.permutation(N)[: rng.integers(0, k + 1)], unseen)
        start = capped(list(start), categories, most or N, k)
        own[: len(start)] = start
    expected = []
    for u, list_of in enumerate(which):
        rest = orders[list_of] if list_of >= 0 else []
        may = set(allowed[u]) if restricted[u] else set(range(N))
        have = [int(item) for item in found[u] if item >= 0]
        more = [int(item) for item in rest if item in may - set(hidden[u]) - set(have)]
        expected.append(capped(have + more, categories, most or N, k))
    (starts, order), (hidden_at, hides), (allowed_at, allows) = (
        (np.concatenate([[0], np.cumsum([len(each) for each in lists])]), np.concatenate(lists))
        for lists in (orders, hidden, allowed)
    )
    fill(starts, order, order.astype(np.float32), which, hidden_at, hides, allowed_at, allows, restricted, categories,
         most, found, np.full((n_users, k), np.nan, np.float32))  # fmt: skip
    assert [[int(item) for item in own if item >= 0] for own in found] == expected


def test_the_contributions_of_the_history_add_up_to_the_score() -> None:
    factors = random_factors(N, 5)
    weights = [0.5, 2.0, 1.0]
    model = model_of(factors, np.arange(N))
    x = model.user_factors(np.array([0, 3]), np.array([1, 4, 9], np.int32), np.array(weights, np.float32))
    parts = model.explain(np.array([1, 4, 9]), np.array(weights, np.float32), np.array([2, 7]))
    assert parts.shape == (2, 3)
    assert np.allclose(parts.sum(axis=1), (x @ model.fold.item_factors()[[2, 7]].T)[0], rtol=1e-4, atol=1e-6)


def test_reasons_are_the_items_of_the_history_that_contributed_most() -> None:
    factors = np.zeros((N, 2), np.float32)
    factors[:6, 0], factors[6:, 1] = np.linspace(1, 0.5, 6), np.linspace(1, 0.5, 6)
    ranker = popular(model=model_of(factors, np.arange(N)), reasons=1)
    lists = rank_chunk(table(seen("aab", [1, 8, None])), ranker, N - 2).to_pylist()
    for item in lists[0]["items"]:
        expected = "item-1" if int(item["item_id"][5:]) < 6 else "item-8"
        assert [reason["item_id"] for reason in item["because"]] == [expected]
        assert 0 < item["because"][0]["contribution"] <= item["score"] * 1.001
    assert all(item["because"] == [] for item in lists[1]["items"]), "what is popular has no reasons"


def test_reasons_of_ratings_add_up_to_what_is_above_the_baseline() -> None:
    factors = random_factors(N, 2)
    biases = np.linspace(-1, 1, N).astype(np.float32)
    model = model_of(factors, np.arange(N), objective=Explicit(0.1, 1.0), baseline=Baseline(3.0, biases, 5.0))
    (row,) = rank_chunk(table(seen("aaa", [0, 3, 8]), [5, 1, 4]), popular(model=model, reasons=3), 2).to_pylist()
    history = np.array([0, 3, 8], np.int32), np.array([5, 1, 4], np.float32)
    _, (user_bias,) = model.fold.baseline.residuals(np.array([0, 3]), *history)
    for item in row["items"]:
        place = int(item["item_id"][5:])
        parts = model.explain(*history, np.array([place]))[0]
        assert item["score"] == pytest.approx(3.0 + user_bias + biases[place] + parts.sum(), abs=1e-3)
        assert [reason["contribution"] for reason in item["because"]] == pytest.approx(
            sorted(parts[parts > 0], reverse=True), rel=1e-3
        )


def test_a_prior_is_added_to_scores_and_a_large_one_ranks_by_popularity() -> None:
    factors, popularity = random_factors(N), np.random.default_rng(1).permutation(N).astype(np.float32)
    plain = {
        item["item_id"]: item["score"]
        for item in rank_chunk(table(seen("a", [0])), popular(model=model_of(factors, np.arange(N))), N).to_pylist()[0][
            "items"
        ]
    }
    for weight in (0.1, 1e4):
        model = model_of(factors, np.arange(N), prior=Prior.of(popularity, factors, weight))
        (row,) = rank_chunk(table(seen("a", [0])), popular(model=model), N).to_pylist()
        for item in row["items"]:
            place = int(item["item_id"][5:])
            expected = plain[item["item_id"]] + weight * np.log1p(popularity[place])
            assert item["score"] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert [item["item_id"] for item in row["items"]] == [f"item-{i}" for i in np.argsort(-popularity) if i != 0]


def test_users_with_little_history_get_more_of_the_prior_and_their_lists_say_so() -> None:
    factors, popularity = random_factors(N), np.zeros(N, np.float32)
    popularity[11] = 100
    model = model_of(factors, np.arange(N), prior=Prior.of(popularity, factors, 0.0, extra=100.0, min_history=2))
    rows = [("a", 0, SEEN), ("b", 0, SEEN), ("b", 1, SEEN), ("c", None, SEEN)]
    lists = rank_chunk(table(rows), popular(model=model), 3).to_pylist()
    assert [row["source"] for row in lists] == ["als+popular", "als", "popular"]
    assert lists[0]["items"][0]["item_id"] == "item-11"
    plain = listed(rows, popular(model=model_of(factors, np.arange(N))), 3)
    assert [item["item_id"] for item in lists[1]["items"]] == plain[1]


def test_a_user_alone_gets_the_list_that_she_gets_among_others() -> None:
    rng = np.random.default_rng(4)
    ranker = popular(model=model_of(random_factors(N, 6), np.arange(N)), reasons=2)
    rows = [(chr(97 + u), int(item), SEEN) for u in range(20) for item in np.sort(rng.permutation(N)[: u % 6])]
    whole = rank_chunk(table(rows), ranker, 4)
    for place, user in enumerate(whole.column("user_id").to_pylist()):
        alone = rank_chunk(table([row for row in rows if row[0] == user]), ranker, 4)
        assert alone.to_pylist() == whole.slice(place, 1).to_pylist()


@pytest.mark.parametrize("kind", [SEEN, HISTORY, HIDDEN, ALLOWED])
def test_a_user_with_a_hundred_thousand_items_changes_nothing_for_others_and_takes_room_for_those_alone(
    kind: int,
) -> None:
    """Room: at most 400 bytes an item, where as much for each of five hundred restricted users would be 250 MB."""
    n, many = 120_000, 100_000
    rng = np.random.default_rng(3)
    every, none = np.ones(n, bool), np.full(n, -1, np.int32)
    model = model_of(random_factors(n), np.arange(n), every, none)
    popularity = Orders.of(np.arange(n, 0, -1).astype(np.float32), every)
    ranker = Ranker(pa.array([f"item-{i}" for i in range(n)]), none, popularity, model=model)
    others = [
        (f"user-{u:03}", int(item), SEEN if q < 3 else ALLOWED)
        for u in range(500)
        for q, item in enumerate(rng.integers(0, n, 6))
    ]
    heavy: list[Row] = [("x", 0, HISTORY), *(("x", int(item), kind) for item in range(1, many))]
    peaks, lists = [], []
    for rows in (table(others), table([*others, *heavy])):
        rank_chunk(rows, ranker, 5)  # what is compiled and made once
        tracemalloc.start()
        lists.append(rank_chunk(rows, ranker, 5).to_pylist())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert lists[1][:-1] == lists[0]
    assert len(lists[1][-1]["items"]) == 5
    assert peaks[1] - peaks[0] < 400 * many


@pytest.mark.parametrize("seed", range(6))
def test_what_a_user_comes_back_to_is_ranked_among_what_is_new(seed: int) -> None:
    """Against scores of all items with the bonus added, sorted; one user is restricted, some items are hidden."""
    rng = np.random.default_rng(seed)
    items = [int(item) for item in rng.permutation(N)[:5]]
    weights = [1.0, 5.0, 0.5, 3.0, 2.0]
    kinds = [HISTORY, HISTORY, SEEN, HISTORY, HISTORY]
    others = [int(item) for item in rng.permutation(N)[:7]]
    users = [("a", items[q], kinds[q]) for q in range(5)]
    bound = [("b", items[q], kinds[q]) for q in range(5)] + [("b", item, ALLOWED) for item in others]
    model = model_of(random_factors(N, 4, seed), np.arange(N))
    prior = rng.random(N).astype(np.float32)
    ranker = popular(model=model, repeats=Repeats(0.05, prior=prior))
    given = table([*users, *bound], [*weights, *weights, *[0.0] * len(others)])
    rows = rank_chunk(given, ranker, 6).to_pylist()
    x = model.user_factors(np.array([0, 5]), np.array(items, np.int32), np.array(weights, np.float32))[0]
    scores = model.fold.item_factors() @ x
    for item, weight in zip(items, weights, strict=True):
        scores[item] += 0.05 * np.log1p(weight + prior[item])
    scores[items[2]] = -np.inf
    free = [item for item in np.argsort(-scores) if np.isfinite(scores[item])][:6]
    assert [item["item_id"] for item in rows[0]["items"]] == [f"item-{item}" for item in free]
    assert [item["score"] for item in rows[0]["items"]] == pytest.approx(scores[free].tolist(), abs=1e-5)
    only = [item for item in np.argsort(-scores) if item in others and np.isfinite(scores[item])][:6]
    listed = [item["item_id"] for item in rows[1]["items"] if item["score"] is not None]
    assert listed == [f"item-{item}" for item in only]
    again = rank_chunk(given, dataclasses.replace(ranker, only_seen=True), 6).to_pylist()
    for row, among in zip(again, (items, set(items) & set(others)), strict=True):
        own = [item for item in np.argsort(-scores) if item in among and np.isfinite(scores[item])]
        assert [item["item_id"] for item in row["items"]] == [f"item-{item}" for item in own], "nothing else fills up"


def test_what_histories_say_in_logarithms_is_raised_as_if_it_were_plain() -> None:
    totals, items = np.array([0.0, 0.5, 40.0], np.float32), np.array([2, 0, 1], np.int32)
    prior = np.array([1.0, 2.0, 3.0], np.float32)
    plain = Repeats(0.5, prior=prior).bonuses(totals, items)
    assert Repeats(0.5, logged=True, prior=prior).bonuses(np.log1p(totals), items) == pytest.approx(plain, rel=1e-5)
    assert plain == pytest.approx(0.5 * np.log1p([3.0, 1.5, 42.0]), rel=1e-6)


def test_lists_are_the_same_bytes_whatever_the_partitions_and_the_order_of_rows(spark, monkeypatch) -> None:
    """Two hundred users' lists with scores and reasons, by a blend of two models with a prior."""
    rng = np.random.default_rng(7)
    users = np.repeat(np.arange(200), 4)
    rows = pa.table(
        {
            "user_id": pa.array([f"user-{u}" for u in users]),
            "item_index": pa.array(np.concatenate([rng.permutation(N)[:4] for _ in range(200)]), pa.int32()),
            "weight": pa.array(rng.random(len(users)), pa.float32()),
            "kind": pa.array(np.full(len(users), SEEN), pa.int8()),
        }
    )
    als = AlsFold(rows_solve(random_factors(N, 5), OBJECTIVE, 100, 1e-10))
    spectral = SpectralFold.of(random_factors(N, 4, seed=8), POPULARITY.astype(np.float64), 0.5, 0.5)
    prior = Prior.of(POPULARITY, als.item_factors(), 0.01, 0.1, 6)
    model = Model.of("blend", np.arange(N, dtype=np.int32), Blend(als, spectral, 0.8), EVERY, NONE, prior)
    shipped = scorer.ship(spark.sparkContext, popular(model=model, reasons=2))
    found = set()
    for seed, partition, chunk in ((0, 10**6, 10**6), (1, 90, 7), (2, 300, 50)):
        monkeypatch.setattr(scorer, "_ROWS_A_PARTITION", partition)
        monkeypatch.setattr(scorer.sorted_users, "__defaults__", (chunk,))
        frame = spark.createDataFrame(rows.take(np.random.default_rng(seed).permutation(len(users))))
        lists = scorer.recommend(frame.repartition(seed + 1), len(users), shipped, 5).toArrow().sort_by("user_id")
        found.add(repr(lists.to_pylist()))
    assert len(found) == 1
    assert lists.num_rows == 200 and set(lists.column("source").to_pylist()) == {"blend+popular"}


def test_a_catalog_that_travels_in_many_pieces_gives_the_bytes_of_one(spark, monkeypatch) -> None:
    """Three thousand items in six tiles: pieces of a tile, of some rows of factors, of the whole."""
    n, rng = 3000, np.random.default_rng(9)
    every, none = np.ones(n, bool), np.full(n, -1, np.int32)
    factors = (rng.standard_normal((n, 8)) * rng.lognormal(0, 1, (n, 1))).astype(np.float32)
    model = model_of(factors, np.arange(n), every, none)
    popularity = Orders.of(np.ones(n, np.float32), every)
    ranker = Ranker(pa.array([f"item-{i}" for i in range(n)]), none, popularity, model=model, reasons=1)
    users = [f"user-{u}" for u in np.repeat(np.arange(100), 5)]
    rows = spark.createDataFrame(table([(user, int(rng.integers(n)), SEEN) for user in users]))
    found, pieces = set(), []
    for size in (2**27, 512 * 8 * 4, 1000):
        monkeypatch.setattr(workers, "PIECE_BYTES", size)
        pieces.append([len(workers.Shared.of(spark.sparkContext, array).pieces) for array in model.arrays().values()])
        shipped = scorer.ship(spark.sparkContext, ranker)
        found.add(repr(scorer.recommend(rows, 500, shipped, 7).toArrow().sort_by("user_id").to_pylist()))
    assert len(found) == 1
    assert pieces[0] == [1, 1] and pieces[1] == [6, 6] and min(pieces[2]) > 90
