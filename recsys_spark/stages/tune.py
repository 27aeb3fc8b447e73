"""Settings for a configuration, found on windows of the past before as_of: gold.trials, and a fragment of YAML."""

import datetime as dt
import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from recsys_spark.als.objective import Objective
from recsys_spark.als.trainer import DivergedError, fold_solve
from recsys_spark.config import Config
from recsys_spark.errors import ConfigError, DataError
from recsys_spark.local import local_frame
from recsys_spark.redaction import redacted_config
from recsys_spark.runs import Option, Run
from recsys_spark.runs import main as run_job
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages.mixing import choose_kind, fragment_of
from recsys_spark.stages.windows import NO_LIFE, Popular, epochs_on, past_windows, tried
from recsys_spark.topk.folds import AlsFold
from recsys_spark.tuning.judge import listed, ndcg, popular_lists, ready
from recsys_spark.tuning.mixing import Point
from recsys_spark.tuning.plot import plot
from recsys_spark.tuning.search import Asked, Done, Search, ascend, own_settings
from recsys_spark.tuning.window import Window

OPTIONS: dict[str, Option] = {
    "--out": {"metavar": "FOLDER", "default": "tuned", "help": "where RUN_ID.yaml and RUN_ID.svg go (default: tuned)"},
}

_SHARE_OF_TRIALS = 0.7  # of the minutes; the rest is for the choice of a kind
_LEAST_SECONDS = 30  # for that choice, whatever the trials took
_NOTHING_KNOWN = "gold.item_ids: no such table; run ingest and build_features first"


def tune(run: Run) -> None:
    """Search settings on windows before as_of; a run id given again goes on after the trials that are done."""
    config = run.config
    if config.als.objective != "ials":
        raise ConfigError(f"als.objective: {config.als.objective}: tuning knows the lists of `ials` only")
    if not run.tables.exists("gold.item_ids"):
        raise DataError(_NOTHING_KNOWN)
    if unknown := _not_judged(config):
        run.say(f"warning: the search judges lists that do not know {', '.join(unknown)}")
    started = time.monotonic()
    lives, popular = tried(run)
    windows = past_windows(run, list(lives.values()), popular)
    k = config.evaluation.k[0]
    lists = [np.mean([_popular(each, place, k) for each in windows]) for place in range(len(popular))]
    best_list = int(np.argmax(lists))
    run.say(f"tuning: the best popularity list has NDCG@{k} {lists[best_list]:.4f}, {_words(popular[best_list])}")
    done = _done(run)
    search = Search(config.tune, list(lives), own_settings(config, lives), [trial for trial, _ in done])
    seconds = 60 * config.tune.minutes
    for_trials = seconds if config.tune.kinds == ("als",) else _SHARE_OF_TRIALS * seconds
    # One at least: windows that took all the minutes to build are not in vain.
    while len(done) < config.tune.trials and (not done or time.monotonic() - started < for_trials):
        begun = time.monotonic()
        trial, best = _try(run, windows, list(lives), search.ask(), best_list)
        search.tell(trial)
        done.append((trial, best))
        _save(
            run, len(done), trial, best, popular[best["popularity"]], float(lists[best_list]), time.monotonic() - begun
        )
        top = max(one.best for one, _ in done)
        run.say(f"trial {len(done)} of {config.tune.trials}: NDCG@{k} {trial.best:.4f} (best {top:.4f})"
                f"{', stopped' if trial.stopped else ''}: {trial.settings}, {best}")  # fmt: skip
    trial, best = max(done, key=lambda pair: pair[0].best)
    life, left = list(lives).index(trial.settings["half_life"]), seconds - (time.monotonic() - started)
    chosen = choose_kind(run, windows, life, trial.settings, best, max(left, _LEAST_SECONDS) / 60)
    for each in windows:
        each.close()
    found = {
        kind: _fragment(lives, popular, best_list, trial, best, kind, point) for kind, point in chosen.points.items()
    }
    folder = Path(run.options["out"])
    folder.mkdir(parents=True, exist_ok=True)
    head = (
        f"# Found by jobs/tune.py on {len(windows)} windows before {run.as_of}: NDCG@{k} {chosen.value:.4f} there,\n"
        f"# the best popularity list {lists[best_list]:.4f}. Use it: --config CONF.yaml --config THIS.yaml\n"
    )
    text = head + yaml.safe_dump(found[chosen.kind], sort_keys=False)
    plot(
        [(one, {"epochs": where["epochs"], "prior.weight": where["prior_weight"],
                "popularity_half_life": _written(popular[where["popularity"]][1]) or NO_LIFE}) for one, where in done],
        float(lists[best_list]), k, folder / f"{run.run_id}.svg",
    )  # fmt: skip
    place = folder / f"{run.run_id}.yaml"
    part = place.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(place)  # whoever finds the file finds it whole
    run.metrics = {chosen.kind: {f"ndcg@{k}": chosen.value}, "popularity": {f"ndcg@{k}": float(lists[best_list])}}
    run.counts |= {
        "trials": len(done),
        "kinds": chosen.said,
        "kind": chosen.kind,
        "found": found,
        "written": str(place),
    }
    run.outputs["gold.trials"] = run.tables.version("gold.trials")
    run.say(text)
    if chosen.value <= lists[best_list]:
        run.say("warning: nothing that was found is above the best popularity list; go on with the same --run-id and "
                "higher tune.minutes and tune.trials")  # fmt: skip


def _not_judged(config: Config) -> list[str]:
    """Return the settings, of those that are given, by which lists are served but not judged."""
    topk = config.topk
    given = {
        "topk.only_seen": topk.only_seen,
        "topk.eligible": topk.eligible,
        "topk.allowed": topk.allowed,
        "topk.blocked": topk.blocked,
        "topk.most_of_category": topk.most_of_category,
        "topk.prior.new_users": topk.prior.new_users,
    }
    return [name for name, value in given.items() if value]


def _popular(each: Window, place: int, k: int) -> float:
    return float(ndcg(each.sample, popular_lists(each.sample, each.popularities[place], k)).mean())


def _try(
    run: Run, windows: list[Window], lives: list[str], asked: Asked, best_list: int
) -> tuple[Done, dict[str, Any]]:
    """Train on every window, judge after each rung of epochs; return the trial, and its epochs and prior where best."""
    chosen, tune = asked.settings, run.config.tune
    life = lives.index(chosen["half_life"])
    objectives, runs = zip(*(epochs_on(run, each, life, chosen, max(tune.epochs)) for each in windows), strict=True)
    values: dict[int, float] = {}
    best: dict[str, Any] = {"value": -1.0}
    prior = {"popularity": float(best_list), "weight": float(tune.prior_weights[len(tune.prior_weights) // 2])}
    stopped = False
    for number in range(1, max(tune.epochs) + 1):
        try:
            factors = [next(epochs).factors for epochs in runs]
        except DivergedError:  # the worst that settings can do: they are told from all others by a value of nothing
            stopped = True
            if not values:
                values[tune.epochs[0]] = 0.0
                best = {
                    "value": 0.0,
                    "epochs": tune.epochs[0],
                    "popularity": best_list,
                    "prior_weight": prior["weight"],
                }
            break
        if number not in tune.epochs:
            continue
        value = _worth(run, windows, factors, objectives[0], life, chosen["transform"])
        grids = {"popularity": range(len(windows[0].popularities)), "weight": tune.prior_weights}
        prior = ascend(value, grids, prior)
        values[number] = value(prior)
        if values[number] > best["value"]:
            best = {"value": values[number], "epochs": number, "popularity": int(prior["popularity"]),
                    "prior_weight": prior["weight"]}  # fmt: skip
        if asked.falls_behind(values[number]) and number < max(tune.epochs):
            stopped = True
            break
    return Done(chosen, values, stopped), best


def _worth(
    run: Run,
    windows: list[Window],
    factors: list[NDArray[np.float32]],
    objective: Objective,
    life: int,
    transform: str,
) -> Callable[[Mapping[str, float]], float]:
    """Return a function of a prior, popularity (by its place) and weight: the mean over windows of users' mean NDCG."""
    k, topk, prepared = run.config.evaluation.k[0], run.config.topk, []
    days = topk.repeat_prior / dt.timedelta(days=1) if topk.repeat_prior else 0.0
    for each, own in zip(windows, factors, strict=True):
        fold = AlsFold(fold_solve(own, objective, topk.shortfall))
        given = ready(each.sample, each.histories(life, transform), each.items(life)[0])
        users = fold.user_factors(given.offsets, given.columns, given.weights)
        again = each.repeats(topk.repeat_weight, days, transform)
        prepared.append((each, given, users, fold.item_factors(), again))

    @cache
    def worth(popularity: int, weight: float) -> float:
        lists = (
            (each, listed(given, users, items, each.popularities[popularity], weight, k, again))
            for each, given, users, items, again in prepared
        )
        return float(np.mean([ndcg(each.sample, found).mean() for each, found in lists]))

    return lambda prior: worth(int(prior["popularity"]), prior["weight"])


def _done(run: Run) -> list[tuple[Done, dict[str, Any]]]:
    """Return the trials that an earlier try of this run finished.

    Raises ConfigError where they were of other windows or another configuration.
    """
    if not run.tables.exists("gold.trials"):
        return []
    before = run.tables.find("gold.trials", {"study": run.run_id})
    if before is not None and before.note.get("identity", _identity(run)) != _identity(run):
        raise ConfigError(f"--run-id {run.run_id}: it searched as of another moment or by another configuration; give "
                          "a run id of its own")  # fmt: skip
    rows = run.tables.read_slice("gold.trials", {"study": run.run_id}).orderBy("trial").collect()
    _, popular = tried(run)
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
    frame = local_frame(run.spark, [tuple(row[name] for name in schema.names)], schema).coalesce(1)
    note = {"identity": _identity(run)}
    run.tables.append_step("gold.trials", frame, {"study": run.run_id}, number, note, ("study",))


def _identity(run: Run) -> dict[str, Any]:
    """Return what decides the worth of settings, but how many are tried."""
    sections = {"source", "features", "holdout", "als", "spectral", "topk", "evaluation", "tune"}
    chosen = redacted_config(run.config.model_dump(mode="json", include=sections))
    for budget in ("trials", "minutes"):
        del chosen["tune"][budget]
    return {"as_of": run.as_of.isoformat() if run.as_of else None, "config": chosen}


def _fragment(
    lives: dict[str, dt.timedelta | None],
    popular: list[Popular],
    best_list: int,
    trial: Done,
    best: dict[str, Any],
    kind: str,
    point: Point,
) -> dict[str, Any]:
    """Return the sections of a configuration that say what was found for a kind."""
    chosen, more = trial.settings, fragment_of(kind, point)
    name, life = popular[best["popularity"]]
    features = {"transform": chosen["transform"], "half_life": _written(lives[chosen["half_life"]])}
    if life is not None:
        features["popularity_half_life"] = _written(life)
    prior = {"weight": float(point["prior_weight"]), "popularity": name}
    topk = {"prior": prior, "fallback": name} | more["topk"]
    judged_by = popular[best_list][1]
    evaluation = {"popularity_half_life": _written(judged_by)} if judged_by is not None else {}
    als = {name: chosen[name] for name in ("rank", "regularization", "alpha0", "nu")} | {"epochs": best["epochs"]}
    found = more | {"features": features, "als": als, "topk": topk}
    return found | ({"evaluation": evaluation} if evaluation else {})


def _written(life: dt.timedelta | None) -> str | None:
    return None if life is None else f"{life.total_seconds():.0f}s"


def _words(popular: Popular) -> str:
    name, life = popular
    return f"by {name}" if life is None else f"by {name} with a half-life of {life}"


def main() -> int:
    """Run the job from the command line."""
    return run_job("tune", {"tune": tune}, __doc__ or "", options=OPTIONS)
