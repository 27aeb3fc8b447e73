"""What models make of a history: written out by hand, blended, explained."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_spark.als.objective import Ials
from recsys_spark.als.trainer import rows_solve
from recsys_spark.topk.folds import AlsFold, Blend, SpectralFold, root_mean_squares
from recsys_spark.topk.orders import Orders
from recsys_spark.topk.prior import Prior, popularity_scales
from recsys_spark.topk.ranker import Model, Ranker, rank_chunk
from tests.topk.test_scorer import SEEN, table

N = 30


def vectors(seed: int, rank: int = 4) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((N, rank)))[0].astype(np.float32)


def spectral(b: float = 0.5, g: float = 0.5) -> SpectralFold:
    return SpectralFold.of(vectors(1), np.arange(1.0, N + 1), b, g)


def als() -> AlsFold:
    factors = np.random.default_rng(2).standard_normal((N, 3)).astype(np.float32)
    return AlsFold(rows_solve(factors, Ials(0.1, 0.01), 100, 1e-10))


def history(*items: int, weights: tuple[float, ...] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = np.ones(len(items)) if weights is None else np.array(weights)
    return np.array([0, len(items)], np.int32), np.array(items, np.int32), values.astype(np.float32)


@pytest.mark.parametrize(("b", "g"), [(0.5, 0.5), (0.3, 0.8), (0.5, 0.0)])
def test_a_user_with_one_item_by_arithmetic_written_out(b: float, g: float) -> None:
    """Score of item i for a user who had item q is D_i^g·D_q^−b·v_iᵀv_q, but for the size of all her scores."""
    v, degrees = vectors(1).astype(np.float64), np.arange(1.0, N + 1)
    expected = degrees**g * degrees[7] ** -b * (v @ v[7])
    expected /= np.sqrt((expected**2).mean())
    fold = spectral(b, g)
    (user,) = fold.user_factors(*history(7))
    assert fold.item_factors() @ user == pytest.approx(expected, abs=1e-5)


def test_the_scores_of_a_user_are_of_root_mean_square_1_and_double_weights_change_nothing() -> None:
    fold = spectral()
    once, twice = (fold.user_factors(*history(3, 9, 20, weights=w)) for w in ((1, 2, 1), (2, 4, 2)))
    scores = (once @ fold.item_factors().T)[0]
    assert np.sqrt((scores**2).mean()) == pytest.approx(1, abs=1e-5)
    assert once == pytest.approx(twice, rel=1e-5)


def test_spectra_give_the_size_of_scores() -> None:
    for fold in (als(), spectral()):
        users = fold.user_factors(*history(1, 4, 12))
        scores = users @ fold.item_factors().T
        assert root_mean_squares(fold, users) == pytest.approx(np.sqrt((scores**2).mean(axis=1)), rel=1e-4)


def test_a_blend_mixes_scores_of_one_size() -> None:
    first, second = als(), spectral()
    blend = Blend(first, second, 1.0)
    users = blend.user_factors(*history(1, 4, 12))
    one, other = (fold.user_factors(*history(1, 4, 12)) @ fold.item_factors().T for fold in (first, second))
    mixed = users @ blend.item_factors().T
    assert mixed == pytest.approx(one + other * np.sqrt((one**2).mean() / (other**2).mean()), abs=1e-4)


@pytest.mark.parametrize(("weight", "like"), [(0.0, "first"), (1e6, "second")])
def test_a_blend_of_weight_nothing_or_very_much_ranks_as_one_model(weight: float, like: str) -> None:
    blend = Blend(als(), spectral(), weight)
    alone = getattr(blend, like)
    seen = history(2, 5, 6)
    mixed, single = (fold.user_factors(*seen) @ fold.item_factors().T for fold in (blend, alone))
    assert np.argsort(-mixed[0])[:10].tolist() == np.argsort(-single[0])[:10].tolist()


def test_contributions_of_both_models_add_up_to_the_score() -> None:
    scales = np.linspace(0.5, 2, N).astype(np.float32)
    for fold in (als(), spectral(), Blend(als(), spectral(), 0.7)):
        every, none = np.ones(N, bool), np.full(N, -1, np.int32)
        model = Model.of("any", np.arange(N, dtype=np.int32), fold, every, none, scales=scales)
        offsets, items, weights = history(2, 5, 6, weights=(1, 2, 0.5))
        users = model.user_factors(offsets.astype(np.int64), items, weights)
        listed = np.array([0, 7, 29])
        scores = users @ (fold.item_factors() * scales[:, None])[listed].T
        assert model.explain(items, weights, listed).sum(axis=1) == pytest.approx(scores[0], abs=1e-4)


def test_a_listed_score_is_its_contributions_and_what_is_popular_whatever_the_kind() -> None:
    popularity = np.arange(N, 0, -1).astype(np.float32)
    every, none = np.ones(N, bool), np.full(N, -1, np.int32)
    rows = table([("a", item, SEEN) for item in (2, 5, 6)], [1, 2, 0.5])
    for fold in (als(), spectral(), Blend(als(), spectral(), 0.7)):
        prior = Prior.of(popularity, fold.item_factors(), 0.1, extra=0.4, min_history=6)  # β = 0.1 + 0.4·(1 − 3 / 6)
        scales = popularity_scales(popularity, 0.2)
        model = Model.of("any", np.arange(N, dtype=np.int32), fold, every, none, prior, scales)
        ranker = Ranker(
            pa.array([str(i) for i in range(N)]), none, Orders.of(popularity, every), model=model, reasons=3
        )
        (row,) = rank_chunk(rows, ranker, 5).to_pylist()
        for item in row["items"]:
            place = int(item["item_id"])
            parts = model.explain(*history(2, 5, 6, weights=(1, 2, 0.5))[1:], np.array([place]))[0]
            assert item["score"] == pytest.approx(parts.sum() + 0.3 * np.log1p(popularity[place]), abs=1e-4)
            shown = [reason["contribution"] for reason in item["because"]]
            assert shown == pytest.approx(sorted(parts[parts > 0], reverse=True), abs=1e-6)


def test_a_user_s_factors_do_not_depend_on_who_stands_beside_her() -> None:
    fold = Blend(als(), spectral(), 0.7)
    rng = np.random.default_rng(4)
    items = rng.integers(0, N, 50).astype(np.int32)
    weights = rng.random(50).astype(np.float32)
    together = fold.user_factors(np.arange(0, 51, 5, dtype=np.int32), items, weights)
    for u in range(10):
        own = slice(5 * u, 5 * u + 5)
        (alone,) = fold.user_factors(np.array([0, 5], np.int32), items[own], weights[own])
        assert alone.tobytes() == together[u].tobytes()


def test_arrays_that_are_shipped_come_back_in_their_places() -> None:
    blend = Blend(als(), spectral(), 0.5)
    empty = blend.with_arrays({name: array[:0] for name, array in blend.arrays().items()})
    whole = empty.with_arrays(blend.arrays())
    assert whole.item_factors().tobytes() == blend.item_factors().tobytes()
