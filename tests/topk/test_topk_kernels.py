from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from benchmarks.topk import merged
from recsys_spark.topk.kernels import catalog, top_k, top_k_of


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def brute_force(users, factors, k, offsets, hidden, eligible=None):
    """Every score in float64, −inf where hidden or not eligible; a stable sort leaves ties by position."""
    scores = users.astype(np.float64) @ factors.astype(np.float64).T
    for u in range(len(users)):
        scores[u, hidden[offsets[u] : offsets[u + 1]]] = -np.inf
    if eligible is not None:
        scores[:, ~eligible] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=1)
    short = ((0, 0), (0, k - order.shape[1]))
    items = np.pad(np.where(np.isinf(best), -1, order), short, constant_values=-1)
    return items, np.pad(best, short, constant_values=-np.inf)


def integers(rng, n, rank, high=3):
    """Factors whose float32 products and sums are exact, and often equal."""
    return rng.integers(-high, high + 1, (n, rank)).astype(np.float32)


def hide(rng, n_users, n_items, mean):
    """Hidden items in no order, some of them twice."""
    sizes = rng.poisson(mean, n_users) if n_items else np.zeros(n_users, int)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return offsets, rng.integers(0, max(n_items, 1), offsets[-1]).astype(np.int32)


NONE = np.zeros(0, np.int32)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_users=st.integers(0, 150),
    n_items=st.integers(0, 400),
    rank=st.integers(1, 40),
    k=st.integers(0, 60),
    mean=st.sampled_from([0, 3, 300]),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
    twins=st.sampled_from([1, 3, 100]),
)
def test_lists_and_scores_are_those_of_a_stable_sort_where_arithmetic_is_exact(
    seed, n_users, n_items, rank, k, mean, share, twins
):
    rng = np.random.default_rng(seed)
    users, factors = integers(rng, n_users, rank), integers(rng, n_items, rank)
    factors = factors[rng.permutation(n_items) // twins]  # so many items have the same factors
    factors *= rng.choice([1, 1, 8], (n_items, 1)).astype(np.float32)  # some norms high, so that most are pruned
    offsets, hidden = hide(rng, n_users, n_items, mean)
    eligible = None if share is None else rng.random(n_items) < share
    items, scores = top_k(users, catalog(factors, eligible, tile_items=64), k, offsets, hidden, tile_users=9)
    expected_items, expected_scores = brute_force(users, factors, k, offsets, hidden, eligible)
    assert items.dtype == np.int32 and scores.dtype == np.float32
    assert np.array_equal(items, expected_items)
    assert np.array_equal(scores, expected_scores)


@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 60),
    most=st.integers(1, 4),
    n_categories=st.sampled_from([1, 7, 60]),
)
def test_at_most_so_many_of_a_category_are_listed_as_if_lists_were_filled_from_the_top(seed, k, most, n_categories):
    rng = np.random.default_rng(seed)
    users, factors = integers(rng, 30, 4), integers(rng, 300, 4)
    categories = rng.integers(-1, n_categories, 300).astype(np.int32)
    categories[rng.random(300) < 0.7] = 0  # most are of one category
    offsets, hidden = hide(rng, 30, 300, 10)
    cat = catalog(factors, categories=categories, tile_items=64)
    items, scores = top_k(users, cat, k, offsets, hidden, most_of_one=most, tile_users=9)
    order, best = brute_force(users, factors, 300, offsets, hidden)
    for u in range(30):
        taken = np.zeros(n_categories + 1, int)
        expected = []
        for item, score in zip(order[u], best[u], strict=True):
            category = categories[item] if item >= 0 else -1
            if item >= 0 and len(expected) < k and (category < 0 or taken[category] < most):
                expected.append((item, score))
                taken[category] += 1
        n = len(expected)
        assert list(zip(items[u, :n], scores[u, :n], strict=True)) == expected
        assert (items[u, n:] == -1).all()


def test_a_list_from_allowed_items_is_what_is_left_of_the_whole_one():
    rng = np.random.default_rng(15)
    users, factors = (rng.standard_normal((n, 16)).astype(np.float32) for n in (50, 400))
    eligible = rng.random(400) < 0.8
    cat = catalog(factors, eligible)
    allowed = [np.sort(rng.permutation(400)[: rng.integers(0, 40)]).astype(np.int32) for _ in range(50)]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in allowed])])
    others = [np.setdiff1d(np.arange(400, dtype=np.int32), own) for own in allowed]
    hidden_offsets = np.concatenate([[0], np.cumsum([len(own) for own in others])])
    whole = top_k(users, cat, 12, hidden_offsets, np.concatenate(others))
    some = top_k_of(users, cat, 12, offsets, np.concatenate(allowed))
    assert np.array_equal(whole[0], some[0]) and whole[1].tobytes() == some[1].tobytes()


@pytest.mark.parametrize(("rank", "k"), [(1, 10), (64, 10), (65, 50), (300, 300)])
def test_scores_of_real_factors_are_the_best_of_float64_within_rounding(rank, k):
    rng = np.random.default_rng(rank)
    users = rng.standard_normal((300, rank)).astype(np.float32)
    factors = (rng.standard_normal((3000, rank)) * rng.lognormal(0, 1, (3000, 1))).astype(np.float32)
    offsets, hidden = hide(rng, 300, 3000, 40)
    items, scores = top_k(users, catalog(factors), k, offsets, hidden)
    _, expected = brute_force(users, factors, k, offsets, hidden)
    size = np.linalg.norm(users, axis=1)[:, None] * np.linalg.norm(factors, axis=1).max()
    assert (np.abs(scores - expected) <= 1e-6 * size).all()
    exact = np.einsum("ur,ukr->uk", users.astype(np.float64), factors[items].astype(np.float64))
    assert (np.abs(scores - exact) <= 1e-6 * size).all()  # each score is of the item beside it
    assert all(len(set(row)) == k for row in items.tolist())
    assert not any(set(items[u]) & set(hidden[offsets[u] : offsets[u + 1]]) for u in range(300))


def test_no_byte_depends_on_tile_sizes_batches_or_order_of_users():
    rng = np.random.default_rng(5)
    for rank in (1, 3, 64, 129):
        users = rng.standard_normal((700, rank)).astype(np.float32)
        factors = (rng.standard_normal((1500, rank)) * rng.lognormal(0, 0.5, (1500, 1))).astype(np.float32)
        offsets, hidden = hide(rng, 700, 1500, 30)
        items, scores = top_k(users, catalog(factors), 20, offsets, hidden)
        for tile_items, tile_users in [(64, 7), (64, 192), (256, 64), (1024, 1)]:
            order = rng.permutation(700)
            shuffled = [hidden[offsets[u] : offsets[u + 1]] for u in order]
            again = top_k(
                users[order],
                catalog(factors, tile_items=tile_items),
                20,
                np.concatenate([[0], np.cumsum([len(h) for h in shuffled])]),
                np.concatenate(shuffled),
                tile_users=tile_users,
            )
            assert again[0].tobytes() == items[order].tobytes()
            assert again[1].tobytes() == scores[order].tobytes()


@pytest.mark.parametrize("n_shards", [2, 3, 7])
def test_lists_of_shards_of_the_catalog_merge_to_those_of_one_pass(n_shards):
    rng = np.random.default_rng(n_shards)
    users, factors = (rng.standard_normal((n, 24)).astype(np.float32) for n in (90, 1000))
    factors[500:] = factors[:500]  # each item has a twin in another shard
    offsets, hidden = hide(rng, 90, 1000, 20)
    shard = rng.integers(0, n_shards, 1000)
    parts = [top_k(users, catalog(factors, shard == s), 30, offsets, hidden) for s in range(n_shards)]
    for found, expected in zip(merged(parts), top_k(users, catalog(factors), 30, offsets, hidden), strict=True):
        assert found.tobytes() == expected.tobytes()


def test_a_user_alone_gets_the_bytes_that_he_gets_among_others():
    rng = np.random.default_rng(6)
    users, factors = (rng.standard_normal((n, 32)).astype(np.float32) for n in (300, 900))
    offsets, hidden = hide(rng, 300, 900, 20)
    cat = catalog(factors)
    items, scores = top_k(users, cat, 15, offsets, hidden)
    for u in (0, 63, 64, 299):
        alone = top_k(users[u : u + 1], cat, 15, offsets[u : u + 2], hidden)
        assert alone[0].tobytes() == items[u].tobytes() and alone[1].tobytes() == scores[u].tobytes()


def test_relabelling_the_items_relabels_the_lists():
    rng = np.random.default_rng(7)
    users, factors = (rng.standard_normal((n, 24)).astype(np.float32) for n in (100, 800))
    offsets, hidden = hide(rng, 100, 800, 20)
    new = rng.permutation(800).astype(np.int32)  # the new position of each item
    moved = np.empty_like(factors)
    moved[new] = factors
    items, scores = top_k(users, catalog(factors), 12, offsets, hidden)
    moved_items, moved_scores = top_k(users, catalog(moved), 12, offsets, new[hidden])
    assert np.array_equal(moved_items, new[items])
    assert moved_scores.tobytes() == scores.tobytes()


def test_tiles_that_the_bound_rules_out_are_not_multiplied_and_users_who_are_done_leave_the_others(monkeypatch):
    """Of 64 tiles with norms from 64 down to 1, all users need the first; 70 of 900, who hide it, need more."""
    rng = np.random.default_rng(16)
    factors = np.ones((64 * 64, 1), np.float32) * np.repeat(np.arange(64, 0, -1, dtype=np.float32), 64)[:, None]
    users = np.ones((900, 1), np.float32)
    late = np.sort(rng.permutation(900)[:70])
    sizes = np.zeros(900, np.int64)
    sizes[late] = 40 * 64
    offsets, hidden = np.concatenate([[0], np.cumsum(sizes)]), np.tile(np.arange(40 * 64, dtype=np.int32), 70)
    shapes, dot = [], np.dot

    def counted(left, right, out):
        shapes.append(len(left))
        return dot(left, right, out=out)

    monkeypatch.setattr(np, "dot", counted)
    cat = catalog(factors, tile_items=64)
    items, _ = top_k(users, cat, 10, offsets, hidden, tile_users=100)
    expected, _ = brute_force(users, factors, 10, offsets, hidden)
    assert np.array_equal(items, expected)
    # The first tile for everyone, the second too where rounding leaves it open, then 38 or 39 for the 70 alone.
    assert 900 + 39 * 70 <= sum(shapes) <= 2 * 900 + 41 * 70


def test_a_tie_with_an_item_of_a_later_tile_goes_to_the_lower_position():
    factors = np.ones((1000, 2), np.float32)
    factors[500:, 1] = 2  # longer, so first in the catalog, but equal to a user who looks at column 0 only
    user = np.array([[1, 0]], np.float32)
    items, scores = top_k(user, catalog(factors, tile_items=64), 3, np.zeros(2, np.int64), NONE)
    assert items.tolist() == [[0, 1, 2]] and scores.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("seed", range(10))
def test_a_score_that_rounding_lifts_to_or_over_the_bound_is_not_pruned(seed):
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(256)
    lengths = 1 - rng.permutation(300)[:, None] * 2.0**-30
    factors = (direction * lengths).astype(np.float32)  # parallel to the users: ‖x‖·‖y‖ is the score, but for rounding
    users = (direction * np.array([[1], [1 / 3], [1e-18]])).astype(np.float32)
    every = top_k(users, catalog(factors), 300, np.zeros(4, np.int64), NONE)  # k = n_items: nothing is pruned
    some = top_k(users, catalog(factors, tile_items=64), 5, np.zeros(4, np.int64), NONE)
    assert np.array_equal(some[0], every[0][:, :5]) and np.array_equal(some[1], every[1][:, :5])


def test_scores_that_differ_by_the_order_of_their_sums_alone_are_ranked_as_listed():
    rng = np.random.default_rng(13)
    values = rng.standard_normal(200)
    factors = np.array([rng.permutation(values) for _ in range(1000)], np.float32)  # the same sum, but for rounding
    users = np.ones((40, 200), np.float32) * rng.uniform(-1, 1, (40, 1)).astype(np.float32)
    nothing = np.zeros(41, np.int64)
    every = top_k(users, catalog(factors), 1000, nothing, NONE)  # every item listed, by the score that is shown
    some = top_k(users, catalog(factors, tile_items=64), 10, nothing, NONE)
    assert np.array_equal(some[0], every[0][:, :10]) and np.array_equal(some[1], every[1][:, :10])
    assert len(np.unique(every[1][0])) > 4  # scores do differ


def test_users_with_factors_of_zero_get_the_first_items_that_are_not_hidden():
    rng = np.random.default_rng(9)
    factors = rng.standard_normal((500, 8)).astype(np.float32)
    offsets, hidden = np.array([0, 0, 2], np.int64), np.array([1, 0], np.int32)
    items, scores = top_k(np.zeros((2, 8), np.float32), catalog(factors), 3, offsets, hidden)
    assert items.tolist() == [[0, 1, 2], [2, 3, 4]] and (scores == 0).all()


def test_popularity_as_a_model_of_rank_1_is_a_stable_sort():
    popularity = np.random.default_rng(10).geometric(0.2, 2000).astype(np.float32)
    items, scores = top_k(np.ones((3, 1), np.float32), catalog(popularity[:, None]), 100, np.zeros(4, np.int64), NONE)
    order = np.argsort(-popularity, kind="stable")[:100]
    assert np.array_equal(items, [order] * 3) and np.array_equal(scores, [popularity[order]] * 3)


def test_whoever_has_everything_hidden_gets_an_empty_list_and_disturbs_no_one():
    rng = np.random.default_rng(11)
    users, factors = integers(rng, 3, 5), integers(rng, 700, 5)
    everything = np.tile(np.arange(700, dtype=np.int32), 3)  # three times over
    for u in range(3):
        offsets = np.zeros(4, np.int64)
        offsets[u + 1 :] = len(everything)
        items, scores = top_k(users, catalog(factors), 4, offsets, everything)
        expected, _ = brute_force(users, factors, 4, offsets, everything)
        assert (items[u] == -1).all() and np.isneginf(scores[u]).all()
        assert np.array_equal(items, expected) and (np.delete(items, u, 0) >= 0).all()


def test_a_list_longer_than_what_is_left_ends_with_empty_places():
    factors = np.array([[1.0], [-3.0], [2.0], [-5.0]], np.float32)
    eligible = np.array([True, True, True, False])
    items, scores = top_k(
        np.ones((1, 1), np.float32),
        catalog(factors, eligible),
        4,
        np.array([0, 2]),
        np.array([0, 3], np.int32),
    )
    assert items.tolist() == [[2, 1, -1, -1]]
    assert scores.tolist() == [[2, -3, -np.inf, -np.inf]]


@pytest.mark.parametrize("eligible", [None, np.zeros(0, bool)])
def test_an_empty_catalog_gives_empty_lists(eligible):
    cat = catalog(np.zeros((0, 3), np.float32), eligible)
    items, scores = top_k(np.ones((2, 3), np.float32), cat, 2, np.zeros(3, np.int64), NONE)
    assert items.tolist() == [[-1, -1]] * 2 and np.isneginf(scores).all()


def test_places_and_items_are_each_others_reverse_and_norms_descend():
    rng = np.random.default_rng(12)
    factors = rng.standard_normal((300, 4)).astype(np.float32)
    eligible = rng.random(300) < 0.7
    cat = catalog(factors, eligible, tile_items=64)
    assert np.array_equal(cat.items[cat.places[eligible]], np.flatnonzero(eligible))
    assert (cat.places[~eligible] == -1).all()
    norms = np.linalg.norm(factors[cat.items].astype(np.float64), axis=1)
    assert (np.diff(norms) <= 0).all()
    assert np.allclose(cat.norms, norms[::64], rtol=1e-12)


def test_items_of_one_norm_stay_in_the_order_of_their_positions():
    lengths = np.random.default_rng(14).integers(1, 4, 1000)
    cat = catalog(lengths[:, None].astype(np.float32))
    assert np.array_equal(cat.items, np.lexsort([np.arange(1000), -lengths]))


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_users_that_float32_cannot_score_are_refused(value):
    users = np.array([[1, 1], [1, value]], np.float32)
    with pytest.raises(ValueError, match="users: a factor is not finite, or scores may exceed float32"):
        top_k(users, catalog(np.ones((4, 2), np.float32)), 1, np.zeros(3, np.int64), NONE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_items_whose_factors_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="factors: one of an item's is not finite"):
        catalog(np.array([[1, 1], [1, value]], np.float32))


@pytest.mark.parametrize("item", [-1, 4])
def test_a_hidden_item_outside_the_catalog_is_refused(item):
    cat = catalog(np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match="not the position of one of the 4 items"):
        top_k(np.ones((1, 3), np.float32), cat, 1, np.array([0, 1]), np.array([item], np.int32))


def test_a_tile_size_that_is_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match="tile_items: 96 is not a power of two"):
        catalog(np.ones((4, 3), np.float32), tile_items=96)
