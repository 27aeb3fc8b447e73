"""Which kind of model a search takes, where tastes are planted, and that what it judges is what is served."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as f

from recsys_spark.als.trainer import fold_solve
from recsys_spark.config import Config, Spectral
from recsys_spark.log import Log
from recsys_spark.runs import Run
from recsys_spark.stages.mixing import Chosen, best_kind, choose_kind, fragment_of
from recsys_spark.stages.windows import epochs_on
from recsys_spark.tables import Tables
from recsys_spark.topk.folds import AlsFold, Blend, Fold, SpectralFold
from recsys_spark.topk.orders import Orders
from recsys_spark.topk.prior import Prior, popularity_scales
from recsys_spark.topk.ranker import HIDDEN, HISTORY, Model, Ranker, rank_chunk
from recsys_spark.topk.repeats import Repeats
from recsys_spark.tuning.judge import listed, ndcg, ready
from recsys_spark.tuning.mixing import ALONE, Mixer
from recsys_spark.tuning.window import Window, window

TASTES, ITEMS, FANS = 40, 4, 5  # tastes, items of each, and users
N_ITEMS, N_USERS = TASTES * ITEMS, TASTES * FANS
SETTINGS = {"rank": 3, "regularization": 0.01, "alpha0": 0.1, "nu": 1.0, "transform": "sum"}
BEST = {"epochs": 8, "popularity": 0, "prior_weight": 0.0}
VECTORS, K = 8, 5


def left_out(user: int) -> int:
    """The one item of her taste that a user does not have, and is to find."""
    return user % TASTES * ITEMS + user // TASTES % ITEMS


def tastes(spark: SparkSession, judged: int, hide: Column | None = None) -> Window:
    """A window on users who each know three of the four items of a taste; so many of them are judged by the fourth."""
    known = [
        (f"user-{user:03}", f"item-{item:03}", True, False, 1, 1.0)
        for user in range(N_USERS)
        for item in range(user % TASTES * ITEMS, (user % TASTES + 1) * ITEMS)
        if item != left_out(user)
    ]
    marked = spark.createDataFrame(
        known, "user_id string, item_id string, core boolean, hidden boolean, events long, total_0 double"
    )
    wanted = [(f"user-{user:03}", f"item-{left_out(user):03}") for user in range(judged)]
    popular = [(f"item-{item:03}", 1.0 + item * 37 % N_ITEMS, 4, 4, 40.0) for item in range(N_ITEMS)]
    ids = {"user": N_USERS, "item": N_ITEMS}
    users, items = (
        spark.createDataFrame([(f"{name}-{n:03}", n) for n in range(size)], f"{name}_id string, {name}_index int")
        for name, size in ids.items()
    )
    return window(
        marked,
        len(known),
        spark.createDataFrame(wanted, "user_id string, item_id string"),
        spark.createDataFrame(popular, "item_id string, popularity double, events long, users long, user_days double"),
        ["popularity"],
        users,
        items,
        f.lit(True) if hide is None else hide,
        block_interactions=10_000,
        min_blocks=1,
        most_users=N_USERS,
    )


def run_of(spark: SparkSession, folder: Path) -> Run:
    """A run that chooses among all kinds, each with one setting, whose two parts start from other directions."""
    tune = {
        "windows": 1, "spectral_ranks": [VECTORS], "exponents": [0.5], "list_exponents": [0.5], "blend_weights": [1],
        "prior_weights": [0], "popularity_exponents": [0],
    }  # fmt: skip
    sections = {"evaluation": {"k": [1]}, "tune": tune, "spectral": {"seed": 2}}
    config = Config.model_validate({"name": "tastes", "source": {"path": "log.csv"}, **sections})
    return Run(spark, config, Tables(spark, str(folder)), "tuning", None, Log("tune"))


def chosen(run: Run, judged: int) -> tuple[Chosen, dict[str, float]]:
    """The kind that is taken where so many users are judged, and what each kind is worth to them."""
    own = tastes(run.spark, judged)
    found = choose_kind(run, [own], 0, SETTINGS, BEST, minutes=10)
    own.close()
    return found, {kind: float(said.split(",")[0]) for kind, said in found.said.items()}


def test_a_blend_is_taken_where_neither_part_alone_has_room_for_all_tastes(spark: SparkSession, tmp_path: Path) -> None:
    """Of forty tastes three factors of ALS hold some and eight singular vectors others."""
    found, worth = chosen(run_of(spark, tmp_path), N_USERS)
    assert found.kind == "blend" and found.points["blend"]["weight"] == 1
    assert found.value == pytest.approx(worth["blend"], abs=1e-4)
    assert worth["blend"] > max(worth["als"], worth["spectral"]) + 0.05


def test_als_stays_where_the_gain_is_within_two_standard_errors(spark: SparkSession, tmp_path: Path) -> None:
    """The same models, of which the blend finds more: but one of two users says nothing."""
    found, worth = chosen(run_of(spark, tmp_path), 2)
    assert worth["blend"] > worth["als"] and found.kind == "als" and found.value == worth["als"]


def test_the_best_of_the_kinds_whose_gain_is_beyond_doubt_is_taken_not_the_best_of_all() -> None:
    """The gain of spectral factors is the largest, and within its error; with als not among the kinds it is taken."""

    values, errors = {"als": 0.1, "spectral": 0.1041, "blend": 0.104}, {"spectral": 0.003, "blend": 0.001}
    told = SimpleNamespace(value=values.get, gain=lambda kind, als: (values[kind] - values[als], errors[kind]))
    points = {kind: kind for kind in values}
    assert best_kind(points, told) == "blend"
    del points["blend"]
    assert best_kind(points, told) == "als"
    del points["als"]
    assert best_kind(points, told) == "spectral"


POINT = {"weight": 0.0, "prior_weight": 0.1, "popularity_exponent": 0.0}


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [
        ({"repeat_weight": 0.0, "repeat_prior": 31.0}, (0, None)),
        ({"repeat_weight": 1.0, "repeat_prior": 0.0}, (1, None)),
        ({"repeat_weight": 1.0, "repeat_prior": 7.0}, (1, 7)),
    ],
)
def test_settings_found_of_repeats_take_the_place_of_those_of_the_configuration(repeats, expected) -> None:
    found = fragment_of("als", {**POINT, **repeats})["topk"]
    prior = None if found["repeat_prior"] is None else int(found["repeat_prior"].removesuffix("s")) / 86400
    assert (found["repeat_weight"], prior) == expected
    assert "repeat_weight" not in fragment_of("als", POINT)["topk"], "nothing is said of what was not asked"


def trained(run: Run, own: Window) -> AlsFold:
    """ALS's fold of a window after two epochs."""
    objective, epochs = epochs_on(run, own, 0, SETTINGS, 2)
    *_, last = epochs
    return AlsFold(fold_solve(last.factors, objective, run.config.topk.shortfall))


def served(own: Window, fold: Fold, prior: float, exponent: float, repeats: Repeats | None = None) -> np.ndarray:
    """The lists, by item, that the scorer makes for a window's users; items of theirs that are to be hidden are."""
    popularity, every, none = own.popularities[0], np.ones(N_ITEMS, bool), np.full(N_ITEMS, -1, np.int32)
    weighed = Prior.of(popularity, fold.item_factors(), prior)
    model = Model.of("any", own.items(0)[0], fold, every, none, weighed, popularity_scales(popularity, exponent))
    names = pa.array([str(item) for item in range(N_ITEMS)])
    hidden = own.own.column("hide").to_numpy()
    histories = pa.table(
        {
            "user_id": pa.array([f"{place:03}" for place in own.own.column("user").to_pylist()]),
            "item_index": own.own.column("item_index"),
            "weight": own.own.column("total_0").cast(pa.float32()),
            "kind": pa.array(np.where(hidden, HISTORY | HIDDEN, HISTORY).astype(np.int8)),
        }
    )
    ranker = Ranker(names, none, Orders.of(popularity, every), model=model, repeats=repeats)
    rows = rank_chunk(histories, ranker, K).to_pylist()
    return np.array([[int(item["item_id"]) for item in row["items"]] for row in rows], np.int32)


def test_own_items_are_raised_where_lists_are_judged_as_where_they_are_served(spark: SparkSession, tmp_path) -> None:
    """Of the first half of all items those of the own history are hidden; the others may be listed again."""
    run, half = run_of(spark, tmp_path), N_ITEMS // 2
    own = tastes(spark, N_USERS, hide=f.col("item_index") < half)
    als, again = trained(run, own), own.repeats(0.3, 7.0, "sum")
    given = ready(own.sample, own.histories(0, "sum"), own.items(0)[0])
    users = als.user_factors(given.offsets, given.columns, given.weights)
    judged = listed(given, users, als.item_factors(), own.popularities[0], 0.05, K, again)
    assert np.array_equal(judged, served(own, als, prior=0.05, exponent=0.0, repeats=again))
    histories = list(zip(own.own.column("user").to_pylist(), own.own.column("item_index").to_pylist(), strict=True))
    repeated = [item for user, item in histories if item in judged[user]]
    assert repeated and min(repeated) >= half
    own.close()


@pytest.mark.parametrize("weight", [0, 0.7, ALONE])
def test_the_lists_that_are_judged_are_those_that_are_served(spark: SparkSession, tmp_path: Path, weight) -> None:
    """Of all kinds, with what is popular both as an exponent and as a prior."""
    run, point = run_of(spark, tmp_path), {"weight": weight, "popularity_exponent": 0.3, "prior_weight": 0.05}
    own = tastes(spark, N_USERS)
    als = trained(run, own)
    mixer = Mixer([own], [als], 0, "sum", 0, Spectral(), VECTORS, K)
    shape = {"user_exponent": 0.4, "item_exponent": 0.5, "rank": 6, "list_exponent": 0.25}
    judged = mixer.of_users({**point, **shape})[0]
    vectors, degrees = mixer._singular(0, 0.4, 0.5)
    spectral = SpectralFold.of(np.ascontiguousarray(vectors[:, :6]), degrees, 0.5, 0.25)
    fold = {0: als, ALONE: spectral}.get(weight, Blend(als, spectral, weight))
    lists = served(own, fold, prior=0.05, exponent=0.3)
    assert np.array_equal(ndcg(own.sample, lists), judged)
    assert not np.array_equal(mixer.of_users({**point, **shape, "popularity_exponent": 0.0})[0], judged)
    own.close()
