"""Does a prior of each user's own, or of her segment's, find more than one prior for all? On windows before as_of.

    python -m benchmarks.priors conf/completejourney.yaml conf/online_retail.yaml

The score is xᵀy + β_u·log(1 + popularity) + β_s·log(1 + popularity among the user's segment). By user, β_u =
β·max(0, 1 + c·z_u), with z_u how popular, in standard deviations, her history's items are in the mean (of their
logarithms, shrunk by ten items of the average). By segment, β_s is a share of β that is taken from it or comes on top.
ALS with the settings of the configuration: NDCG@10, the paired difference to one β for all, and its standard error.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from benchmarks.running import run_stages, setting
from recsys_spark.als.trainer import fold_solve
from recsys_spark.runs import Run
from recsys_spark.stages.windows import epochs_on, past_parts, window_on
from recsys_spark.topk.folds import AlsFold
from recsys_spark.topk.prior import Prior
from recsys_spark.transforms import interactions
from recsys_spark.tuning.judge import Ready, listed, ndcg, ready
from recsys_spark.tuning.window import Window

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

K = 10
TRENDS = (-0.5, -0.25, 0.25, 0.5)
SHARES = ((0.0, 0.5), (0.0, 1.0), (0.5, 1.0), (0.0, 2.0))  # of β: what is taken from it, what the segment has
TIMES = (1.5, 2.0, 3.0)  # β for all, so that a gain is not that of more β
SEGMENTS = 8


def trend(given: Ready, popularity: Floats) -> Doubles:
    """Return z (n_users,): how much each user's history is of what is popular, 0 for who has none."""
    logs = np.log1p(popularity[given.items].astype(np.float64))[given.columns]
    sizes = np.diff(given.offsets)
    sums = np.bincount(np.repeat(np.arange(len(sizes)), sizes), logs, len(sizes))
    means = (sums + 10 * logs.mean()) / (sizes + 10)
    out = np.zeros(len(sizes))
    out[given.served] = (means[given.served] - means[given.served].mean()) / means[given.served].std()
    return out


def by_segment(run: Run, known: DataFrame, future: DataFrame, moment: object) -> tuple[NDArray[np.int64], Floats]:
    """Return each judged user's segment (n_users,), −1 for none of the largest, and popularity (n_dictionary, S)."""
    features, tables = run.config.features, run.tables
    people = tables.read("silver.users")
    sizes = known.select("user_id").distinct().join(people, "user_id").groupBy("segment").count()
    names = [row["segment"] for row in sizes.orderBy(f.desc("count"), "segment").limit(SEGMENTS).collect()]
    wanted = interactions.wanted(future, known, features, run.config.evaluation).select("user_id").distinct()
    judged = wanted.orderBy(f.xxhash64("user_id"), "user_id").limit(run.config.tune.users)
    found = judged.join(people, "user_id", "left").orderBy(f.xxhash64("user_id"), "user_id").select("segment").collect()
    numbers = np.array([names.index(row["segment"]) if row["segment"] in names else -1 for row in found])
    kind, columns = run.config.topk.prior.popularity, []
    for name in names:
        own = known.join(people.where(f.col("segment") == name).select("user_id"), "user_id")
        values = interactions.popularities(own, features, moment, [features.popularity_half_life])  # type: ignore[arg-type]
        column = kind if kind == "popularity" else f"{kind}_0"
        whole = tables.read("gold.item_ids").join(values.select("item_id", column), "item_id", "left")
        table = whole.select("item_index", f.coalesce(column, f.lit(0.0)).alias("value")).toArrow()
        columns.append(table.sort_by("item_index").column("value").to_numpy().astype(np.float32))
    return numbers, np.stack(columns, axis=1)


def variants(
    run: Run, window: Window, segments: tuple[NDArray[np.int64], Floats] | None
) -> Iterator[tuple[str, Doubles]]:
    """Yield each prior's name and users' NDCG, that of one β for all first."""
    config = run.config
    chosen = {name: getattr(config.als, name) for name in ("rank", "regularization", "alpha0", "nu")}
    chosen["transform"] = config.features.transform
    objective, epochs = epochs_on(run, window, 0, chosen, config.als.epochs)
    *_, last = epochs
    fold = AlsFold(fold_solve(last.factors, objective, config.topk.shortfall))
    given = ready(window.sample, window.histories(0, config.features.transform), window.items(0)[0])
    popularity, items = window.popularities[0], fold.item_factors()
    prior = Prior.of(popularity[given.items], items, config.topk.prior.weight)
    wide = prior.with_items(items)
    base = prior.with_users(
        fold.user_factors(given.offsets, given.columns, given.weights), np.diff(given.offsets).astype(np.int64)
    )

    def value(users: Floats, items: Floats) -> Doubles:
        return ndcg(given.sample, listed(given, users, items, popularity, 0.0, K))

    yield "one for all", value(base, wide)
    for times in TIMES:
        users = base.copy()
        users[:, -1] *= times
        yield f"one for all, {times:g}β", value(users, wide)
    z = trend(given, popularity)
    for c in TRENDS:
        users = base.copy()
        users[:, -1] *= np.maximum(0, 1 + c * z).astype(np.float32)
        yield f"by user, c = {c:+.2f}", value(users, wide)
    if segments is None:
        return
    numbers, by = segments
    more = np.log1p(by[given.items]) * np.float32(prior.scale)
    for less, share in SHARES:
        own = np.zeros((len(base), by.shape[1]), np.float32)
        has = np.flatnonzero(numbers >= 0)
        own[has, numbers[has]] = share * base[has, -1]
        users = np.column_stack([base, own])
        users[has, base.shape[1] - 1] *= 1 - less
        name = f"by segment, β − {less:g}β, β_s = {share:g}β"
        yield name, value(users, np.column_stack([wide, more]))


def measure(run: Run) -> None:
    """Print a row a prior: mean over windows, difference to one prior for all, its standard error."""
    features, topk = run.config.features, run.config.topk
    popular = [(topk.prior.popularity, features.popularity_half_life)]
    found: dict[str, list[Doubles]] = {}
    for known, future, moment in past_parts(run):
        window = window_on(run, known, future, moment, [features.half_life], popular)  # type: ignore[arg-type]
        segments = by_segment(run, known, future, moment) if run.tables.exists("silver.users") else None
        for name, values in variants(run, window, segments):
            found.setdefault(name, []).append(values)
        window.close()
    first, *_ = found.values()
    for name, each in found.items():
        gains = [one - other for one, other in zip(each, first, strict=True)]
        error = np.sqrt(sum(gain.var(ddof=1) / len(gain) for gain in gains)) / len(gains)
        print(f"{run.config.name:<16} {name:<40} {np.mean([v.mean() for v in each]):.4f} "
              f"{np.mean([gain.mean() for gain in gains]):+.4f} ± {error:.4f}", flush=True)  # fmt: skip


def main() -> None:
    """Measure every configuration; its features must be there (ingest, build_features)."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("config", nargs="+")
    cli.add_argument("--set", action="append", default=[], dest="overrides")
    given = cli.parse_args()
    for config in given.config:
        argv = ["--config", config, "--run-id", "priors", *setting(given.overrides)]
        run_stages("priors", {"priors": measure}, argv)


if __name__ == "__main__":
    main()
