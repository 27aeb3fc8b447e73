"""The kind of model for a configuration: ALS as it was tuned, spectral factors, or both, chosen on the same windows."""

import datetime as dt
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_spark.als.trainer import fold_solve
from recsys_spark.runs import Run
from recsys_spark.stages.windows import epochs_on
from recsys_spark.topk.folds import AlsFold
from recsys_spark.tuning.mixing import ALONE, Mixer, Point
from recsys_spark.tuning.search import ascend
from recsys_spark.tuning.window import Window


@dataclass(frozen=True)
class Chosen:
    """The kind that was chosen, and its worth; where the settings of every kind stand, and what is said of each."""

    kind: str
    value: float
    points: dict[str, Point]
    said: dict[str, str]


def choose_kind(
    run: Run, windows: list[Window], life: int, settings: Mapping[str, Any], best: Mapping[str, Any], minutes: float
) -> Chosen:
    """Choose among tune.kinds, around ALS with the settings, and the epochs and prior, that were best.

    Where als is among the kinds, another is taken only if its value is above that of ALS by more than two standard
    errors of their difference. No setting is tried after so many minutes.
    """
    tune, deadline = run.config.tune, time.monotonic() + 60 * minutes
    # As many vectors as the smallest window has: training, which knows more, refuses more than it has.
    most = min(min(len(each.items(life)[0]), each.blocks(life, settings["transform"]).n_rows) for each in windows) - 1
    ranks = sorted({min(rank, most) for rank in tune.spectral_ranks})
    mixer = Mixer(
        windows, [_trained(run, each, life, settings, best) for each in windows], life, settings["transform"],
        best["popularity"], run.config.spectral, max(ranks), run.config.evaluation.k[0],
    )  # fmt: skip
    served: dict[str, Any] = {
        "prior_weight": tune.prior_weights,
        "popularity_exponent": tune.popularity_exponents,
    }
    start = {"weight": 0.0, "prior_weight": float(best["prior_weight"]), "popularity_exponent": 0.0}
    topk, day = run.config.topk, dt.timedelta(days=1)
    again = topk.hide_seen is False and not run.config.evaluation.new_items_only
    if again or topk.repeat_weight:
        start["repeat_weight"] = topk.repeat_weight
        start["repeat_prior"] = topk.repeat_prior / day if topk.repeat_prior else 0.0
    if again:
        served["repeat_weight"] = tune.repeat_weights
        if run.config.source.columns.time is not None:
            served["repeat_prior"] = [run.config.tuning_horizon() / day * factor for factor in tune.repeat_priors]
    shape: dict[str, Any] = {
        "rank": ranks,
        "list_exponent": tune.list_exponents,
        "user_exponent": tune.exponents,
        "item_exponent": tune.exponents,
    }
    middle = {name: choices[len(choices) // 2] for name, choices in shape.items()}
    grids: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
        "als": (served, start),
        "spectral": (shape | served, start | middle | {"weight": ALONE}),
        "blend": ({"weight": tune.blend_weights} | shape | served, start | middle | {"weight": 1.0}),
    }

    def value(point: Point) -> float:
        return mixer.value(point) if time.monotonic() < deadline else -np.inf

    found: dict[str, Point] = {}
    said: dict[str, str] = {}
    for kind in ("als", "spectral", "blend"):
        if kind not in tune.kinds:
            continue
        with run.doing(f"settings of {kind}"):
            found[kind] = ascend(value, *grids[kind])
        said[kind] = f"{mixer.value(found[kind]):.4f}"
        if kind != "als" and "als" in found:
            gain, error = mixer.gain(found[kind], found["als"])
            said[kind] += f", {gain:+.4f} (standard error {error:.4f}) to als"
        run.say(f"{kind}: NDCG {said[kind]}: {json.dumps(found[kind])}")
    kind = best_kind(found, mixer)
    return Chosen(kind, mixer.value(found[kind]), found, said)


def best_kind(found: Mapping[str, Point], mixer: Mixer) -> str:
    """Return the kind of the highest value; beside als only of those whose gain over it is beyond doubt."""

    def beyond_doubt(kind: str) -> bool:
        gain, error = mixer.gain(found[kind], found["als"])
        return gain > 2 * error

    kinds = [kind for kind in found if "als" not in found or kind == "als" or beyond_doubt(kind)]
    return max(kinds, key=lambda kind: mixer.value(found[kind]))


def _trained(run: Run, window: Window, life: int, settings: Mapping[str, Any], best: Mapping[str, Any]) -> AlsFold:
    """Return ALS's fold of a window, trained with settings for the epochs that were best."""
    objective, epochs = epochs_on(run, window, life, settings, best["epochs"])
    *_, last = epochs
    return AlsFold(fold_solve(last.factors, objective, run.config.topk.shortfall))


def fragment_of(kind: str, point: Point) -> dict[str, Any]:
    """Return the sections of a configuration that a kind, where its settings stand, adds to those of ALS."""
    found: dict[str, Any] = {"model": {"kind": kind}}
    topk: dict[str, Any] = {"popularity_exponent": float(point["popularity_exponent"])}
    if "repeat_weight" in point:  # then nothing of what another file says of repeats is to remain
        days = point.get("repeat_prior", 0) if point["repeat_weight"] else 0
        topk["repeat_weight"] = float(point["repeat_weight"])
        topk["repeat_prior"] = f"{days * 86400:.0f}s" if days else None
    if kind != "als":
        found["spectral"] = {
            "rank": int(point["rank"]),
            "user_exponent": float(point["user_exponent"]),
            "item_exponent": float(point["item_exponent"]),
        }
        topk["spectral"] = {"exponent": float(point["list_exponent"])}
    if kind == "blend":
        topk["spectral"]["weight"] = float(point["weight"])
    return found | {"topk": topk}
