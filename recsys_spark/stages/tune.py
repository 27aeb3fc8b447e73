"""Settings for a configuration, found on windows of the past before as_of: gold.trials, and a fragment of YAML."""

import datetime as dt
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from recsys_spark.als import trainer
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.objective import Ials
from recsys_spark.config import Holdout
from recsys_spark.errors import ConfigError, DataError
from recsys_spark.runs import Option, Run
from recsys_spark.runs import main as run_job
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages.events import latest_time, parsed_events
from recsys_spark.stages.features import with_core
from recsys_spark.stages.rankers import hides
from recsys_spark.topk.ranker import Model
from recsys_spark.transforms import events, interactions, splits
from recsys_spark.tuning.judge import judge, ndcg, popular_lists
from recsys_spark.tuning.plot import plot
from recsys_spark.tuning.search import Asked, Done, Search
from recsys_spark.tuning.window import Window, window

OPTIONS: dict[str, Option] = {
    "--out": {"metavar": "FOLDER", "default": "tuned", "help": "where RUN_ID.yaml and RUN_ID.svg go (default: tuned)"},
}

_NONE = "none"

Popular = tuple[str, dt.timedelta | None]  # a column of gold.item_features, and the half-life that it is tried with
_NOTHING_KNOWN = "gold.item_ids: no such table; run ingest and build_features first"


def tune(run: Run) -> None:
    """Search settings on windows before as_of; a run id given again goes on after the trials that are done."""
    config = run.config
    if config.als.objective != "ials":
        raise ConfigError(f"als.objective: {config.als.objective}: tuning knows the lists of `ials` only")
    if not run.tables.exists("gold.item_ids"):
        raise DataError(_NOTHING_KNOWN)
    started = time.monotonic()
    lives, popular = _tried(run)
    windows = _windows(run, list(lives.values()), popular)
    k = config.evaluation.k[0]
    lists = [np.mean([_popular(each, place, k) for each in windows]) for place in range(len(popular))]
    best_list = int(np.argmax(lists))
    run.say(f"tuning: the best popularity list has NDCG@{k} {lists[best_list]:.4f}, {_words(popular[best_list])}")
    done = _done(run)
    search = Search(config.tune, list(lives), [trial for trial, _ in done])
    while len(done) < config.tune.trials and time.monotonic() - started < 60 * config.tune.minutes:
        begun = time.monotonic()
        trial, best = _try(run, windows, list(lives), search.ask())
        search.tell(trial)
        done.append((trial, best))
        _save(
            run, len(done), trial, best, popular[best["popularity"]], float(lists[best_list]), time.monotonic() - begun
        )
        top = max(one.best for one, _ in done)
        run.say(f"trial {len(done)} of {config.tune.trials}: NDCG@{k} {trial.best:.4f} (best {top:.4f})"
                f"{', stopped' if trial.stopped else ''}: {trial.settings}, {best}")  # fmt: skip
    for each in windows:
        each.close()
    trial, best = max(done, key=lambda pair: pair[0].best)
    fragment = _fragment(lives, popular, best_list, trial, best)
    folder = Path(run.options.get("out") or "tuned")
    folder.mkdir(parents=True, exist_ok=True)
    head = (
        f"# Found by jobs/tune.py on {len(windows)} windows before {run.as_of}: NDCG@{k} {trial.best:.4f} there,\n"
        f"# the best popularity list {lists[best_list]:.4f}. Use it: --config CONF.yaml --config THIS.yaml\n"
    )
    text = head + yaml.safe_dump(fragment, sort_keys=False)
    (folder / f"{run.run_id}.yaml").write_text(text, encoding="utf-8")
    plot([one for one, _ in done], float(lists[best_list]), k, folder / f"{run.run_id}.svg")
    run.metrics = {"als": {f"ndcg@{k}": trial.best}, "popularity": {f"ndcg@{k}": float(lists[best_list])}}
    run.counts |= {"trials": len(done), "tuned": fragment, "written": str(folder / f"{run.run_id}.yaml")}
    run.outputs["gold.trials"] = run.tables.version("gold.trials")
    run.say(text)


def _tried(run: Run) -> tuple[dict[str, dt.timedelta | None], list[Popular]]:
    """Return the half-lives of weights by name, and what is popular, that are tried."""
    tune = run.config.tune
    if run.config.source.columns.time is None:
        return {_NONE: None}, [("popularity", None)]
    horizon = _horizon(run)
    lives = {f"{factor * horizon.total_seconds():.0f}s": factor * horizon for factor in tune.half_lives}
    decayed: list[Popular] = [
        (name, factor * horizon)
        for factor in tune.popularity_half_lives
        for name in ("popularity_decayed", "adoptions_decayed")
    ]
    return {_NONE: None, **lives}, [("popularity", None), *decayed]


def _horizon(run: Run) -> dt.timedelta:
    return run.config.tune.horizon or run.config.evaluation.horizon or dt.timedelta(days=28)


def _windows(run: Run, lives: list[dt.timedelta | None], popular: list[Popular]) -> list[Window]:
    """Return the windows, which see no event from as_of on, nor any that is held out."""
    config = run.config
    parsed, _ = parsed_events(run)
    run.as_of = run.as_of or latest_time(parsed)
    past, _ = splits.split(events.valid(parsed), run.as_of, config.evaluation.horizon, config.holdout)
    past = past.persist()
    found = []
    for number in range(config.tune.windows):
        if config.holdout is None and run.as_of is not None:
            horizon = _horizon(run)
            moment: dt.datetime | None = run.as_of - (number + 1) * horizon
            known, future = splits.split(past, moment, horizon, None)
        else:
            moment = run.as_of
            known, future = splits.split(past, None, None, Holdout(random=config.tune.holdout, seed=number + 1))
        with run.doing(f"window {number + 1} of {config.tune.windows}"):
            found.append(_window(run, known, future, moment, lives, popular))
        run.say(f"window {number + 1} of {config.tune.windows}"
                f"{f', from {moment:%Y-%m-%d %H:%M}' if config.holdout is None else ''}: "
                f"{found[-1].sample.n_users:,} users judged")  # fmt: skip
    past.unpersist()
    return found


def _window(
    run: Run,
    known: DataFrame,
    future: DataFrame,
    moment: dt.datetime | None,
    lives: list[dt.timedelta | None],
    popular: list[Popular],
) -> Window:
    config = run.config
    pairs = interactions.pair_totals(known, config.features, moment, lives).persist()
    n_pairs = pairs.count()
    marked = with_core(run, pairs, n_pairs)
    wanted = interactions.wanted(future, pairs, config.features, config.evaluation)
    if n_pairs == 0 or wanted.isEmpty():
        raise DataError(f"tune: nothing to learn from, or to find, in the window from {moment}; lower tune.windows")
    active = config.topk.active_within
    built = window(
        marked,
        n_pairs,
        wanted,
        interactions.popularities(known, config.features, moment, _lives(popular)),
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


def _popular(each: Window, place: int, k: int) -> float:
    return float(ndcg(each.sample, popular_lists(each.sample, each.popularities[place], k)).mean())


def _try(run: Run, windows: list[Window], lives: list[str], asked: Asked) -> tuple[Done, dict[str, Any]]:
    """Train on every window, judge after each rung of epochs; return the trial, and its epochs and prior where best."""
    config, chosen = run.config, asked.settings
    als, tune = config.als, config.tune
    objective = Ials(chosen["alpha0"], chosen["regularization"], chosen["nu"])
    settings = trainer.Settings(
        max(tune.epochs), 0.0, als.row_steps, als.row_shortfall, als.moving_steps, als.moving_shortfall
    )
    life = lives.index(chosen["half_life"])
    runs = []
    for each in windows:
        start = initial_factors(each.hashes, chosen["rank"], als.seed, als.init_scale)
        runs.append(trainer.train(each.blocks(life, chosen["transform"]), start, objective, settings))
    values: dict[int, float] = {}
    best: dict[str, Any] = {"value": -1.0}
    stopped = False
    for number in range(1, max(tune.epochs) + 1):
        factors = [next(epochs).factors for epochs in runs]
        if number not in tune.epochs:
            continue
        grids = [
            _grid(run, each, own, objective, life, chosen["transform"])
            for each, own in zip(windows, factors, strict=True)
        ]
        means = np.mean(grids, axis=0)
        popularity, weight = np.unravel_index(int(np.argmax(means)), means.shape)
        values[number] = float(means.max())
        if values[number] > best["value"]:
            best = {"value": values[number], "epochs": number, "popularity": int(popularity),
                    "prior_weight": tune.prior_weights[int(weight)]}  # fmt: skip
        if asked.falls_behind(values[number]) and number < max(tune.epochs):
            stopped = True
            break
    return Done(chosen, values, stopped), best


def _grid(
    run: Run, each: Window, factors: NDArray[np.float32], objective: Ials, life: int, transform: str
) -> list[list[float]]:
    """Return the mean NDCG for each popularity (rows) and weight of it as a prior."""
    solve = trainer.rows_solve(factors, objective, 100, run.config.topk.shortfall)
    uncapped = np.full(len(each.sample.eligible), -1, np.int32)
    model = Model.of("als", each.columns, solve, each.sample.eligible, uncapped)
    priors = [(popularity, run.config.tune.prior_weights) for popularity in each.popularities]
    return judge(each.sample, each.histories(life, transform), model, priors, run.config.evaluation.k[0])


def _done(run: Run) -> list[tuple[Done, dict[str, Any]]]:
    """Return the trials that an earlier try of this run finished."""
    if not run.tables.exists("gold.trials"):
        return []
    rows = run.tables.read_slice("gold.trials", {"study": run.run_id}).orderBy("trial").collect()
    _, popular = _tried(run)
    keys = [(name, None if life is None else life.total_seconds()) for name, life in popular]
    found = []
    for row in rows:
        trial = Done(json.loads(row["settings"]), dict(sorted(row["values"].items())), row["stopped"])
        best = {"value": row["value"], "epochs": row["epochs"], "prior_weight": row["prior_weight"]}
        found.append((trial, best | {"popularity": keys.index((row["prior_popularity"], row["popularity_half_life"]))}))
    if found:
        run.say(f"tuning: going on after trial {len(found)}")
    return found


def _save(
    run: Run, number: int, trial: Done, best: dict[str, Any], popular: Popular, best_list: float, took: float
) -> None:
    row = {
        "study": run.run_id,
        "trial": number,
        "settings": json.dumps(trial.settings, sort_keys=True),
        "values": trial.values,
        "stopped": trial.stopped,
        "epochs": best["epochs"],
        "value": best["value"],
        "prior_weight": float(best["prior_weight"]),
        "prior_popularity": popular[0],
        "popularity_half_life": None if popular[1] is None else popular[1].total_seconds(),
        "popularity_value": best_list,
        "seconds": took,
    }
    schema = SCHEMAS["gold.trials"]
    frame = run.spark.createDataFrame([tuple(row[name] for name in schema.names)], schema).coalesce(1)
    run.tables.append_step("gold.trials", frame, {"study": run.run_id}, number, {}, ("study",))


def _fragment(
    lives: dict[str, dt.timedelta | None],
    popular: list[Popular],
    best_list: int,
    trial: Done,
    best: dict[str, Any],
) -> dict[str, Any]:
    """Return the sections of a configuration that say what was found."""
    chosen = trial.settings
    features: dict[str, Any] = {"transform": chosen["transform"]}
    prior: dict[str, Any] = {"weight": float(best["prior_weight"])}
    topk: dict[str, Any] = {"prior": prior}
    evaluation: dict[str, Any] = {}
    if len(popular) > 1:
        features["half_life"] = _written(lives[chosen["half_life"]])
        name, life = popular[best["popularity"]]
        if life is not None:
            features["popularity_half_life"] = _written(life)
        prior["popularity"] = topk["fallback"] = name
        if popular[best_list][1] is not None:
            evaluation["popularity_half_life"] = _written(popular[best_list][1])
    else:
        prior["popularity"] = "popularity"
    als = {name: chosen[name] for name in ("rank", "regularization", "alpha0", "nu")} | {"epochs": best["epochs"]}
    found = {"features": features, "als": als, "topk": topk}
    return found | ({"evaluation": evaluation} if evaluation else {})


def _written(life: dt.timedelta | None) -> str | None:
    return None if life is None else f"{life.total_seconds():.0f}s"


def _words(popular: Popular) -> str:
    name, life = popular
    return f"by {name}" if life is None else f"by {name} with a half-life of {life}"


def main() -> int:
    """Run the job from the command line."""
    return run_job("tune", {"tune": tune}, __doc__ or "", options=OPTIONS)
