"""How near settings found within a training file come to the best of a dense grid that is judged on the test file.

    python -m benchmarks.given_split conf/lastfm_social.yaml --json data/bench-given-split.json

A log's random holdout is written as a train and a test file, for conf/given_split.yaml. `tune` sees the first alone:
once it searches what the grid has, ALS by itself, and once all that it knows, the kind of model too. The grid's best
has the advantage that it is chosen on the test file itself.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.running import run_stages, setting
from recsys_spark.als.trainer import fold_solve
from recsys_spark.runs import Run, Stage
from recsys_spark.session import spark_session
from recsys_spark.stages.evaluate import evaluate
from recsys_spark.stages.events import past_and_future
from recsys_spark.stages.features import build_features
from recsys_spark.stages.ingest import ingest
from recsys_spark.stages.score import score_topk
from recsys_spark.stages.train import train_als
from recsys_spark.stages.tune import OPTIONS, tune
from recsys_spark.stages.windows import NO_LIFE, epochs_on, tried, window_on
from recsys_spark.topk.folds import AlsFold
from recsys_spark.tuning.judge import Ready, Sample, listed, ready
from recsys_spark.tuning.window import Window

NAME = "given_split"
SPLIT = "conf/given_split.yaml"
K = 20
GRID = {
    "rank": (32, 64, 128),
    "regularization": (0.0003, 0.001, 0.003, 0.01, 0.03),
    "alpha0": (0.03, 0.1, 0.3, 1.0),
    "nu": (0.6, 0.8, 1.0),
}
EPOCHS = 16
BARE = ("tune.kinds=[als]", "tune.prior_weights=[0]", "tune.popularity_exponents=[0]")  # as the grid's points are
SEARCHES = {"settings": BARE, "whole": ()}


def files(run: Run) -> None:
    """Write the run's split as train.parquet and test.parquet beside its tables: one row a pair.

    As in published splits, the test file has no item that the other does not have.
    """
    train, test = (part.selectExpr("user_id AS user", "item_id AS item").distinct() for part in past_and_future(run))
    for name, pairs in (("train", train), ("test", test.join(train.select("item"), "item", "left_semi"))):
        pairs.select("user", "item").coalesce(1).write.parquet(f"{run.config.storage.root}/{name}.parquet")


def recall(sample: Sample, lists: NDArray[np.int32]) -> float:
    """Return the mean over users of the share of what is to be found that their lists (n_users, k) have."""
    found = [
        len(np.intersect1d(sample.wanted[start:end], own)) / (end - start)
        for own, start, end in zip(lists, sample.wanted_offsets[:-1], sample.wanted_offsets[1:], strict=True)
    ]
    return float(np.mean(found))


def grid(run: Run) -> None:
    """Leave in the run's counts what each point of the grid reaches on the test file."""
    known, future = past_and_future(run)
    _, popular = tried(run)
    window = window_on(run, known, future, None, [None], popular)
    given = ready(window.sample, window.histories(0, "sum"), window.items(0)[0])
    rows = []
    for values in product(*GRID.values()):
        chosen = dict(zip(GRID, values, strict=True))
        rows.append(chosen | {"recall": _reached(run, window, given, chosen)})
        run.progress(f"grid: {len(rows)}: {rows[-1]}")
    window.close()
    run.counts["grid"] = rows


def _reached(run: Run, window: Window, given: Ready, chosen: dict[str, Any]) -> float:
    objective, epochs = epochs_on(run, window, 0, chosen | {"transform": "sum", "half_life": NO_LIFE}, EPOCHS)
    *_, last = epochs
    fold = AlsFold(fold_solve(last.factors, objective, run.config.topk.shortfall))
    users = fold.user_factors(given.offsets, given.columns, given.weights)
    return recall(window.sample, listed(given, users, fold.item_factors(), window.popularities[0], 0.0, K))


def searched(name: str, argv: Sequence[str], folder: str) -> dict[str, Any]:
    """Tune on the training file; return what was found, and what it reaches on the test file by the product's jobs."""
    run_stages(NAME, {"ingest": ingest, "build_features": build_features}, [*argv, "--run-id", name])
    counts = run_stages(NAME, {"tune": tune}, [*argv, "--run-id", name, "--out", folder], OPTIONS)["counts"]
    judge: dict[str, Stage] = {"build_features": build_features, "train_als": train_als}
    judge |= {"score_topk": score_topk, "evaluate": evaluate}
    tuned = [*argv, "--config", f"{folder}/{name}.yaml", "--run-id", f"{name}-judged"]
    reached = run_stages(NAME, judge, tuned)["metrics"][counts["kind"]][f"recall@{K}"]
    found = {"settings": counts["found"][counts["kind"]], "kind": counts["kind"], "trials": counts["trials"]}
    return {"recall": reached} | found


def main() -> None:
    """Tune, try the grid, print both, write JSON."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("config", help="a log with a random holdout")
    cli.add_argument("--set", action="append", default=[], dest="overrides", help="of the search: tune.trials=20")
    cli.add_argument("--json", type=Path)
    given = cli.parse_args()
    spark_session("given split")
    with tempfile.TemporaryDirectory() as folder:
        make = {"ingest": ingest, "files": files}
        run_stages(NAME, make, ["--config", given.config, "--run-id", "files", "--set", f"storage.root={folder}/log"])
        split = [f"source.path={folder}/log/train.parquet/*.parquet"]
        split += [f"holdout.path={folder}/log/test.parquet/*.parquet", f"evaluation.k=[{K}, 10, 50]"]
        split += [f"storage.root={folder}/split", "evaluation.report=false", *given.overrides]
        argv = ["--config", SPLIT, *setting(split)]
        tuned = {name: searched(name, [*argv, *setting(more)], folder) for name, more in SEARCHES.items()}
        everyone = [*argv, "--run-id", "grid", "--set", "tune.users=100000"]
        points = run_stages(NAME, {"grid": grid}, everyone)["counts"]["grid"]
    best = max(points, key=lambda point: point["recall"])
    for name, found in tuned.items():
        print(f"recall@{K}: {name} {found['recall']:.4f} ({found['kind']}, {found['trials']} trials), best of "
              f"{len(points)} points of the grid {best['recall']:.4f}, ratio {found['recall'] / best['recall']:.3f}: "
              f"{found['settings']}; {best}")  # fmt: skip
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        rows = {
            "machine": machine(),
            "config": given.config,
            "tuned": tuned,
            "best": best,
            "grid": points,
        }
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
