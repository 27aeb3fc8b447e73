"""gold.recommendations against what happened from as_of on: gold.metrics, beside popularity on the same users."""

import dataclasses
import datetime as dt
from functools import reduce

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as f
from rich.table import Table

from recsys_spark.errors import DataError
from recsys_spark.evaluation import metrics
from recsys_spark.evaluation.exposure import exposure_of, item_counts
from recsys_spark.evaluation.lists import Catalogue, per_list
from recsys_spark.runs import Option, Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages import champions
from recsys_spark.stages.events import parsed_events
from recsys_spark.stages.known import as_timestamp
from recsys_spark.stages.models import model_of
from recsys_spark.stages.promote import Contest, check_past, compare, promote, rules_of
from recsys_spark.stages.rankers import (
    POPULARITIES,
    fallback_ranker,
    histories,
    items_by_index,
    popularity_ranker,
    with_popularities,
)
from recsys_spark.stages.report import Evaluated, write_report
from recsys_spark.stages.score import score_topk
from recsys_spark.stages.segments import segments
from recsys_spark.topk import scorer
from recsys_spark.transforms import events, interactions, splits
from recsys_spark.transforms.attributes import items_at

CHAMPION = "champion"
GATE: dict[str, Option] = {
    "--promote": {"action": "store_true", "help": "let the gate decide whether the model becomes the champion"},
}
OPTIONS: dict[str, Option] = GATE | {
    "--rollback": {"action": "store_true", "help": "make the champion before the present one champion again"},
    "--model": {"metavar": "ID", "help": "model to evaluate; without it, that of this run id, else the newest"},
}


def evaluate(run: Run) -> None:
    """Compare the model's lists with popularity of all time and decayed; write one row a user and model.

    With --promote the champion's lists are compared too, and the gate decides; --rollback undoes the last promotion.
    """
    if run.options.get("rollback"):
        champions.roll_back(run)
        return
    run.resolve_as_of()
    settings = run.config.evaluation
    model = model_of(run)
    champion = _reigning(run, model) if run.options.get("promote") else None
    past = run.tables.read_slice("silver.interactions", {"as_of": run.as_of})
    relevant = wanted(run, past).persist(StorageLevel.MEMORY_AND_DISK)
    n_users = relevant.select("user_id").distinct().count()
    if n_users == 0:
        run.say(f"evaluation: skipped, no event to compare with from {run.as_of} on")
        run.counts["evaluation"] = "skipped: no events from as_of on"
        return
    if max(settings.k) > run.config.topk.k:
        run.say(f"warning: evaluation.k = {max(settings.k)} is longer than the lists of topk.k = {run.config.topk.k}")
    name = f"{model['kind']}, trained" if model["kind"] in POPULARITIES else model["kind"]
    lists = _all_lists(run, past, relevant, name, model["model_id"], champion)
    items = catalogue(run, past)
    rows = reduce(
        DataFrame.unionByName,
        (
            measured(run, ranked, relevant, past, items)
            .withColumn("model", f.lit(of))
            .withColumn("model_id", f.lit(champion if of == CHAMPION else model["model_id"]))
            for of, ranked in lists.items()
        ),
    )
    rows = rows.join(segments(run, past, relevant, items), "user_id", "left")
    rows = rows.withColumn("run_id", f.lit(run.run_id)).withColumn("as_of", as_timestamp(run.as_of))
    where = {"run_id": run.run_id}
    with run.doing("measuring"):
        commit = run.tables.write_slice("gold.metrics", rows, where)
        written = run.tables.read_slice("gold.metrics", where, commit.version)
        run.metrics = metrics.means(written)
        shown = (ranked.withColumn("model", f.lit(of)) for of, ranked in lists.items())
        counts = item_counts(reduce(DataFrame.unionByName, shown), settings.k)
        whole = exposure_of(counts, len(items.item_ids), settings.k)
    for of, values in run.metrics.items():
        lifts = {k: values.get(f"popularity@{k}") for k in settings.k}
        values |= whole[of] | {
            f"popularity_lift@{k}": value / items.mean_popularity() for k, value in lifts.items() if value is not None
        }
    run.outputs["gold.metrics"] = commit.version
    run.counts["evaluated_users"] = n_users
    run.console.print(comparison(run, n_users))
    if run.options.get("promote") or settings.report:
        contest = _contest(run, name, model["model_id"], champion)
        effects = compare(run, written, contest)
        made = promote(run, effects, contest) if run.options.get("promote") else None
        if settings.report:
            write_report(run, Evaluated(model, contest, effects, made, lists[name], past, relevant, items, counts))
    for frame in (relevant, *lists.values()):
        frame.unpersist()


def measured(run: Run, ranked: DataFrame, relevant: DataFrame, past: DataFrame, items: Catalogue) -> DataFrame:
    """Return user_id, relevant and all metrics that one user's list has by itself, of the users of `relevant`.

    Where items that a user had before may be wanted, accuracy is there of new and of repeated ones apart, too.
    """
    settings = run.config.evaluation

    def accuracy(wanted: DataFrame) -> DataFrame:
        return metrics.per_user(ranked, wanted, settings.k, settings.recall_divides_by, len(items.item_ids))

    found = [per_list(ranked, items, settings.k)]
    if not settings.new_items_only:
        pair, had = ["user_id", "item_id"], past.select("user_id", "item_id")
        for name, how in (("new", "left_anti"), ("repeated", "left_semi")):
            found.append(_prefixed(accuracy(relevant.join(had, pair, how)), f"{name}_"))
    whole, none = accuracy(relevant), f.create_map().cast("map<string, double>")
    for number, more in enumerate(found):
        whole = whole.join(more.select("user_id", f.col("metrics").alias(f"_{number}")), "user_id", "left")
    every = f.map_concat("metrics", *(f.coalesce(f"_{number}", none) for number in range(len(found))))
    return whole.select("user_id", "relevant", every.alias("metrics"))


def _prefixed(measured: DataFrame, prefix: str) -> DataFrame:
    return measured.withColumn("metrics", f.transform_keys("metrics", lambda name, _: f.concat(f.lit(prefix), name)))


def catalogue(run: Run, past: DataFrame) -> Catalogue:
    """Return the items that lists are drawn from: those with an event before as_of, with their categories."""
    items = run.tables.read_slice("gold.item_features", {"as_of": run.as_of}).select("item_id", "users")
    category = f.lit(None).cast("string").alias("category")
    if run.tables.exists("silver.items"):
        known = items_at(run.tables.read("silver.items"), run.as_of).select("item_id", "category")
        items, category = items.join(known, "item_id", "left"), f.col("category")
    table = items.select("item_id", "users", category).toArrow().sort_by("item_id").combine_chunks()
    categories = table.column("category").combine_chunks()
    codes = categories.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Catalogue(
        pa.array(table.column("item_id").combine_chunks(), pa.string()),
        table.column("users").to_numpy(),
        past.select("user_id").distinct().count(),
        None if categories.null_count == len(categories) else codes,
    )


def _reigning(run: Run, model: Row) -> str | None:
    """Return the champion that a model is to be compared with, its lists made where they are missing.

    None where there is none. A run that decided already compares with the champion of that time.
    """
    made = champions.decision_of(run)
    if made is not None and made["action"] != "promote":
        raise DataError(f"--promote: run {run.run_id} is a {made['action']} already; give another --run-id")
    champion = made["champion_before"] if made else champions.champion_of(run)
    check_past(run, [model])
    if champion == model["model_id"]:
        raise DataError(f"--promote: model {champion} is the champion already; train another one")
    if champion is not None:
        other = dataclasses.replace(run, options={"model": champion}, outputs={}, counts={})
        reigning = model_of(other)
        check_past(run, [reigning])
        score_topk(champions.as_promoted(other, reigning))
    return champion


def _contest(run: Run, name: str, challenger: str, champion: str | None) -> Contest:
    """Say with whom the gate compares: with the champion, else with the baseline that is best on the primary metric."""
    if champion is not None:
        return Contest(name, challenger, CHAMPION, champion, champion)
    primary = rules_of(run.config).primary
    best = max((other for other in run.metrics if other != name), key=lambda other: run.metrics[other][primary])
    return Contest(name, challenger, best, best, None)


def wanted(run: Run, past: DataFrame) -> DataFrame:
    """Return the distinct (user_id, item_id) to be found: of the horizon, of the chosen events, new to the user."""
    parsed, _ = parsed_events(run)
    settings = run.config.evaluation
    _, future = splits.split(events.valid(parsed), run.as_of, settings.horizon, run.config.holdout)
    return interactions.wanted(future, past, run.config.features, settings)


def _all_lists(
    run: Run, past: DataFrame, relevant: DataFrame, name: str, model_id: str, champion: str | None
) -> dict[str, DataFrame]:
    """Return each model's lists for the users of `relevant`; users without history get what they would be served."""
    users = relevant.select("user_id").distinct()
    rows = histories(run, past, users)
    n_rows = rows.count()
    k = run.config.topk.k
    items, context = items_by_index(run), run.spark.sparkContext
    lists, popular = {}, scorer.ship(context, fallback_ranker(run, items))
    for of, served_id in ((name, model_id), (CHAMPION, champion)):
        if served_id is not None:
            every = run.tables.read_slice("gold.recommendations", {"model_id": served_id, "as_of": run.as_of})
            served = every.join(users, "user_id", "left_semi")
            new = users.join(served, "user_id", "left_anti")
            fallback = scorer.recommend(histories(run, past, new), n_rows, popular, k)
            lists[of] = served.unionByName(fallback, allowMissingColumns=True)
    life = run.config.evaluation.popularity_half_life
    if life is not None:
        items = with_popularities(run, items, decayed(run, life))
    for popularity in POPULARITIES:
        shipped = scorer.ship(context, popularity_ranker(run, items, popularity))
        lists[popularity] = scorer.recommend(rows, n_rows, shipped, k)
    return {of: ranked.select("user_id", "items", "source").persist() for of, ranked in lists.items()}


def decayed(run: Run, half_life: dt.timedelta) -> DataFrame:
    """Return (item_id, popularity_decayed, adoptions_decayed) of the run's past, with a half-life of their own."""
    parsed, _ = parsed_events(run)
    past, _ = splits.split(events.valid(parsed), run.as_of, run.config.evaluation.horizon, run.config.holdout)
    found = interactions.popularities(past, run.config.features, run.as_of, [half_life])
    names = ("popularity_decayed", "adoptions_decayed")
    return found.select("item_id", *(f.col(f"{name}_0").alias(name) for name in names))


def comparison(run: Run, n_users: int) -> Table:
    """Draw the means as a table for people: a row a model, the best of each metric marked."""
    k = run.config.evaluation.k[0]
    apart = [] if run.config.evaluation.new_items_only else ["new_ndcg", "repeated_ndcg"]
    shown = ("ndcg", "recall", "precision", "map", "mrr", "hit_rate", *apart, "coverage")
    names = [f"{name}@{k}" for name in shown if any(f"{name}@{k}" in values for values in run.metrics.values())]
    table = Table(
        title=f"{run.config.name} as of {run.as_of or 'its holdout'}: {n_users:,} users", title_justify="left"
    )
    table.add_column("model")
    for name in names:
        table.add_column(name, justify="right")
    for model, values in run.metrics.items():
        best = [values[name] == max(other[name] for other in run.metrics.values()) for name in names]
        cells = [
            f"[bold]{values[name]:.4f}[/]" if top else f"{values[name]:.4f}"
            for name, top in zip(names, best, strict=True)
        ]
        table.add_row(model, *cells)
    return table


def main() -> int:
    """Run the job from the command line."""
    return run_job("evaluate", {"evaluate": evaluate}, __doc__ or "", options=OPTIONS)
