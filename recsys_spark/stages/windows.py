"""Windows of the past that settings are judged on: what was known at a moment, and what came after it."""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark import memory
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.objective import Objective
from recsys_spark.als.trainer import Epoch, train
from recsys_spark.config import Config, Holdout
from recsys_spark.errors import DataError
from recsys_spark.runs import Run
from recsys_spark.stages.events import number_and_end, parsed_events
from recsys_spark.stages.features import with_core
from recsys_spark.stages.models import VECTORS, objective_of, settings_of
from recsys_spark.stages.rankers import hides
from recsys_spark.transforms import events, interactions, splits
from recsys_spark.tuning.window import Window, window

NO_LIFE = "none"

Popular = tuple[str, dt.timedelta | None]  # a column of gold.item_features, and the half-life that it is tried with


def tried(run: Run) -> tuple[dict[str, dt.timedelta | None], list[Popular]]:
    """Return the half-lives of weights by name, and what is popular, that are tried."""
    tune = run.config.tune
    if run.config.source.columns.time is None:
        return {NO_LIFE: None}, [("popularity", None)]
    span = run.config.tuning_horizon()
    lives = {f"{factor * span.total_seconds():.0f}s": factor * span for factor in tune.half_lives}
    decayed: list[Popular] = [
        (name, factor * span)
        for factor in tune.popularity_half_lives
        for name in ("popularity_decayed", "adoptions_decayed")
    ]
    return {NO_LIFE: None, **lives}, [("popularity", None), *decayed]


def epochs_on(
    run: Run, window: Window, life: int, chosen: Mapping[str, Any], epochs: int
) -> tuple[Objective, Iterator[Epoch]]:
    """Return the objective of chosen settings, and so many epochs of training with them on what a window knew.

    chosen: rank, regularization, alpha0, nu and transform; life: the place of the half-life.
    """
    als = run.config.als.model_copy(
        update={name: chosen[name] for name in ("rank", "regularization", "alpha0", "nu")}
        | {"epochs": epochs, "tolerance": 0.0}
    )
    objective = objective_of(als)
    start = initial_factors(window.items(life)[1], als.rank, als.seed, als.init_scale)
    return objective, train(window.blocks(life, chosen["transform"]), start, objective, settings_of(als))


def past_windows(run: Run, lives: list[dt.timedelta | None], popular: list[Popular]) -> list[Window]:
    """Return the windows, which see no event from as_of on, nor any that is held out.

    Raises ConfigError where the largest rank that is to be tried on one of them does not fit memory.
    """
    config, found = run.config, []
    for number, (known, future, moment) in enumerate(past_parts(run), start=1):
        with run.doing(f"window {number} of {config.tune.windows}"):
            found.append(window_on(run, known, future, moment, lives, popular))
            for setting, need in needs(config, *_sizes(found[-1])).items():
                memory.check(run.spark, need, "items", setting, fixed=True)
        run.say(f"window {number} of {config.tune.windows}"
                f"{f', from {moment:%Y-%m-%d %H:%M}' if moment and config.holdout is None else ''}: "
                f"{found[-1].sample.n_users:,} users judged")  # fmt: skip
    return found


def needs(config: Config, n_items: int, n_users: int, n_pairs: int, n_blocks: int) -> dict[str, memory.Need]:
    """Return what the largest ranks to be tried need on a window of so many items, users and pairs, by their settings.

    Beside one training the driver holds what it has of the other windows: of ALS the factors, as they were trained and
    as they fold histories in; of singular vectors those of each pair of exponents, of all windows.
    """
    tune = config.tune
    blocks = n_blocks, -(-n_pairs // n_blocks), -(-n_users // n_blocks)
    bytes_of_one = memory.interaction_bytes(config.als.objective)
    als = memory.Need(n_items, max(tune.ranks), *blocks, interaction_bytes=bytes_of_one)
    found = {"tune.ranks": replace(als, driver_arrays=als.driver_arrays + 2 * (tune.windows - 1))}
    if VECTORS & set(tune.kinds):
        rank = min(max(tune.spectral_ranks), n_items - 1, n_users - 1)
        kept = tune.windows * len(tune.exponents) ** 2
        arrays = memory.krylov_arrays(config.spectral.most_blocks) + kept
        found["tune.spectral_ranks"] = memory.Need(n_items, rank, *blocks, arrays)
    return found


def _sizes(window: Window) -> tuple[int, int, int, int]:
    """Return a window's items, users and pairs that are trained on, and its blocks."""
    core = window.pairs.where("core").agg(f.count_distinct("user_index"), f.count(f.lit(1))).first()
    assert core is not None
    return window.core.num_rows, core[0], core[1], window.n_blocks


def past_parts(run: Run) -> Iterator[tuple[DataFrame, DataFrame, dt.datetime | None]]:
    """Yield each window's events: those known, those to be found, and the moment between them, if there is time."""
    config = run.config
    length = config.tuning_horizon()
    parsed = parsed_events(run)
    run.as_of = run.as_of or number_and_end(events.valid(parsed))[1]
    past, _ = splits.split(events.valid(parsed), run.as_of, config.evaluation.horizon, config.holdout)
    past = past.persist()
    for number in range(1, config.tune.windows + 1):
        if config.holdout is None and run.as_of is not None:
            moment = run.as_of - number * (config.tune.step or length)
            yield *splits.split(past, moment, length, None), moment
        else:
            yield *splits.split(past, None, None, Holdout(random=config.tune.holdout, seed=number)), run.as_of
    past.unpersist()


def window_on(
    run: Run,
    known: DataFrame,
    future: DataFrame,
    moment: dt.datetime | None,
    lives: list[dt.timedelta | None],
    popular: list[Popular],
) -> Window:
    """Return a window on what was known, at a moment if there is time, and what is to be found."""
    config = run.config
    pairs = interactions.pair_totals(known, config.features, moment, lives).persist()
    n_pairs = pairs.count()
    marked = with_core(run, pairs, n_pairs, "total_0")  # that without a half-life
    wanted = interactions.wanted(future, pairs, config.features, config.evaluation)
    if n_pairs == 0 or wanted.isEmpty():
        raise DataError(f"tune: nothing to learn from, or to find, in the window from {moment}; lower "
                        "tune.windows or tune.horizon")  # fmt: skip
    active = config.topk.active_within
    built = window(
        marked,
        n_pairs,
        wanted,
        interactions.popularities(known, config.features, moment, _lives(popular), splits.learnt_from(config.holdout)),
        _columns(popular),
        run.tables.read("gold.user_ids"),
        run.tables.read("gold.item_ids"),
        hides(config.topk.hide_seen),
        config.als.block_interactions,
        config.als.min_blocks,
        config.tune.users,
        None if active is None or moment is None else moment - active,
    )
    built.pairs.count()
    marked.unpersist()
    pairs.unpersist()
    return built


def _lives(popular: list[Popular]) -> list[dt.timedelta]:
    return list(dict.fromkeys(life for _, life in popular if life is not None))


def _columns(popular: list[Popular]) -> list[str]:
    """Return the columns of `interactions.popularities` that hold what is tried."""
    lives = _lives(popular)
    return [name if life is None else f"{name}_{lives.index(life)}" for name, life in popular]
