"""How well models find what comes next, beside the best popularity list: one log, several kinds of model, some folds.

    python -m benchmarks.quality conf/movielens.yaml --tune --kinds als,blend,item_knn --folds 5

Each fold has another seed of `holdout`; a user's value is the mean over the folds in which she is judged. Intervals are
of the paired difference over users (docs/evaluation.md). The best list is the best of the three on these very users, to
its favour. With --tune, `tune` first finds the settings of each kind in what the fold leaves to learn from, and the
model `chosen` is that of the kind which it takes there.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import yaml
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from benchmarks.machine import machine
from benchmarks.running import run_stages, setting
from recsys_spark.config import FactorKind, load
from recsys_spark.evaluation.comparison import Effect, compare
from recsys_spark.evaluation.resampling import Resampling
from recsys_spark.runs import Stage
from recsys_spark.session import spark_session
from recsys_spark.stages.evaluate import evaluate
from recsys_spark.stages.features import build_features
from recsys_spark.stages.ingest import ingest
from recsys_spark.stages.promote import paired
from recsys_spark.stages.rankers import POPULARITIES
from recsys_spark.stages.score import score_topk
from recsys_spark.stages.train import train_als
from recsys_spark.stages.tune import OPTIONS, tune
from recsys_spark.tables import Tables

PREPARE = {"ingest": ingest, "build_features": build_features}
JUDGE = {"build_features": build_features, "train_als": train_als, "score_topk": score_topk, "evaluate": evaluate}
CHOSEN = "chosen"


def measured(
    config: Sequence[str], kinds: Sequence[str], folds: int, overrides: Sequence[str], root: Path, *, tuned: bool
) -> DataFrame:
    """Run a log's jobs for each fold and kind; return (user_id, model, metrics), the mean over folds.

    tuned: find settings in each fold, and have the kind that was chosen there as a model of its own, CHOSEN.
    """
    spark = spark_session("quality")
    whole = load(config, overrides)
    random = whole.holdout is not None and whole.holdout.path is None
    if folds > 1 and not random:
        raise SystemExit("--folds: the configuration has no random holdout, so all folds would be the same")
    found = []
    for fold in range(1, folds + 1):
        own = [f"storage.root={root / str(fold)}", "evaluation.report=false", *overrides]
        own += [f"holdout.seed={fold}"] if folds > 1 else []
        _run(config, "features", PREPARE, own)
        settings, taken = _found(config, kinds, own, root / f"{fold}-settings") if tuned else ({}, None)
        for kind in kinds:
            files = [*config, settings[kind]] if kind in settings else config
            _run(files, kind, JUDGE, [*own, f"model.kind={kind}"])
        rows = Tables(spark, str(root / str(fold))).read("gold.metrics")
        first = (f.col("run_id") == kinds[0]) | ~f.col("model").isin(
            *POPULARITIES
        )  # the lists of each run are the same
        found.append(rows.where(first).select("user_id", "model", f.explode("metrics")))
        if taken:
            found.append(found[-1].where(f.col("model") == taken).withColumn("model", f.lit(CHOSEN)))
    means = reduce(DataFrame.unionByName, found).groupBy("user_id", "model", "key").agg(f.avg("value").alias("value"))
    entries = f.map_from_entries(f.array_sort(f.collect_list(f.struct("key", "value")))).alias("metrics")
    return means.groupBy("user_id", "model").agg(entries).persist()


def _found(
    config: Sequence[str], kinds: Sequence[str], overrides: Sequence[str], folder: Path
) -> tuple[dict[str, str], str]:
    """Search settings; return a file of them for each kind of factors, and the kind that was chosen."""
    among = f"tune.kinds=[{', '.join(kind for kind in kinds if kind in get_args(FactorKind))}]"
    counts = _run(config, "tuned", {"tune": tune}, [*overrides, among], ["--out", str(folder)])
    print(f"{folder.name}: {counts['kind']} of {counts['kinds']}, {counts['trials']} trials: {counts['found']}")
    files = {}
    for kind, settings in counts["found"].items():
        files[kind] = str(folder / f"{kind}.yaml")
        Path(files[kind]).write_text(yaml.safe_dump(settings), encoding="utf-8")
    return files, counts["kind"]


def _run(
    config: Sequence[str],
    run_id: str,
    stages: Mapping[str, Stage],
    overrides: Sequence[str],
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Run stages; return what they counted."""
    argv = [word for file in config for word in ("--config", file)]
    argv += ["--run-id", run_id, *setting(overrides), *arguments]
    counts: dict[str, Any] = run_stages("quality", stages, argv, OPTIONS)["counts"]
    return counts


def effect(users: DataFrame, rival: str, challenger: str, metric: str) -> Effect:
    """Return what a model changes for the users that another model serves too, on one metric."""
    pairs = paired(users.withColumn("segments", f.array().cast("array<string>")), rival, challenger)
    return compare(pairs, [metric], [], Resampling())[0]


def table(users: DataFrame, kinds: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row a metric and model, with its difference to the best list and to the first kind."""
    rows = []
    for metric in metrics:
        value = f.avg(f.element_at("metrics", f.lit(metric)))
        means = {row["model"]: row["mean"] for row in users.groupBy("model").agg(value.alias("mean")).collect()}
        best = max((name for name in POPULARITIES if name in means), key=lambda name: means[name])
        for name in [*POPULARITIES, *kinds]:
            if means.get(name) is None:
                continue
            row: dict[str, Any] = {"metric": metric, "model": name, "mean": means[name], "best_list": best}
            if name in kinds:
                for against, rival in (("list", best), ("first", kinds[0])):
                    if rival != name:
                        found = effect(users, rival, name, metric)
                        row[against] = [found.difference, found.low, found.high, found.p]
                        row["users"] = found.users
            rows.append(row)
    return rows


def main() -> None:
    """Measure, print a table, write JSON."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("config", nargs="+", help="configurations, later ones over earlier ones")
    cli.add_argument(
        "--kinds", default="als,item_knn", help="values of model.kind; the first is compared with the rest"
    )
    cli.add_argument("--folds", type=int, default=1)
    cli.add_argument("--tune", action="store_true", help="find settings and kind in each fold, as jobs/tune.py does")
    cli.add_argument("--metrics", default="ndcg@10")
    cli.add_argument("--set", action="append", default=[], dest="overrides")
    cli.add_argument("--json", type=Path)
    given = cli.parse_args()
    kinds = given.kinds.split(",")
    with tempfile.TemporaryDirectory() as folder:
        users = measured(given.config, kinds, given.folds, given.overrides, Path(folder), tuned=given.tune)
        rows = table(users, [*kinds, CHOSEN] if given.tune else kinds, given.metrics.split(","))
    for row in rows:
        parts = [
            f"{row[name][0]:+.4f} [{row[name][1]:+.4f}, {row[name][2]:+.4f}] to {rival}"
            for name, rival in (("list", row["best_list"]), ("first", kinds[0]))
            if name in row
        ]
        print(f"{row['metric']:<16} {row['model']:<20} {row['mean']:.4f}  {'  '.join(parts)}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(
            json.dumps({"machine": machine(), "arguments": given.config, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
