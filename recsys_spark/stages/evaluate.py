"""gold.recommendations against what happened from as_of on: gold.metrics, beside popularity on the same users."""

from functools import reduce

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as f
from rich.table import Table

from recsys_spark.evaluation import metrics
from recsys_spark.runs import Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages.events import parsed_events
from recsys_spark.stages.features import as_timestamp
from recsys_spark.stages.models import model_of
from recsys_spark.stages.rankers import fallback_ranker, histories, popularity_ranker
from recsys_spark.topk import scorer
from recsys_spark.transforms import events, interactions, splits


def evaluate(run: Run) -> None:
    """Compare the model's lists with popularity of all time and decayed; write one row a user and model."""
    run.resolve_as_of()
    settings = run.config.evaluation
    model = model_of(run)
    past = run.tables.read_slice("silver.interactions", {"as_of": run.as_of})
    relevant = wanted(run, past).persist(StorageLevel.MEMORY_AND_DISK)
    n_users = relevant.select("user_id").distinct().count()
    if n_users == 0:
        run.say(f"evaluation: skipped, no event to compare with from {run.as_of} on")
        run.counts["evaluation"] = "skipped: no events from as_of on"
        return
    if max(settings.k) > run.config.topk.k:
        run.say(f"warning: evaluation.k = {max(settings.k)} is longer than the lists of topk.k = {run.config.topk.k}")
    lists = _all_lists(run, past, relevant, model["model_id"])
    n_items = run.tables.read_slice("gold.item_features", {"as_of": run.as_of}).count()
    users = reduce(
        DataFrame.unionByName,
        (
            metrics.per_user(ranked, relevant, settings.k, settings.recall_divides_by).withColumn("model", f.lit(name))
            for name, ranked in lists.items()
        ),
    )
    rows = (
        users.withColumn("run_id", f.lit(run.run_id))
        .withColumn("model_id", f.lit(model["model_id"]))
        .withColumn("as_of", as_timestamp(run.as_of))
    )
    where = {"run_id": run.run_id}
    with run.doing("comparing"):
        commit = run.tables.write_slice("gold.metrics", rows, where)
        run.metrics = metrics.means(run.tables.read_slice("gold.metrics", where, commit.version))
        shown = (ranked.withColumn("model", f.lit(name)) for name, ranked in lists.items())
        for name, values in metrics.coverage(reduce(DataFrame.unionByName, shown), n_items, settings.k).items():
            run.metrics[name] |= values
    for frame in (relevant, *lists.values()):
        frame.unpersist()
    run.outputs["gold.metrics"] = commit.version
    run.counts["evaluated_users"] = n_users
    run.console.print(comparison(run, n_users))


def wanted(run: Run, past: DataFrame) -> DataFrame:
    """Return the distinct (user_id, item_id) to be found: of the horizon, of the chosen events, new to the user."""
    parsed, _ = parsed_events(run)
    settings = run.config.evaluation
    _, future = splits.split(events.valid(parsed), run.as_of, settings.horizon, run.config.holdout)
    if settings.events is not None:
        future = future.where(f.col("event").isin(*settings.events))
    future = future.where(~interactions.is_negative(run.config.features))
    pairs = future.select("user_id", "item_id").distinct()
    if settings.new_items_only:
        pairs = pairs.join(past.select("user_id", "item_id"), ["user_id", "item_id"], "left_anti")
    return pairs


def _all_lists(run: Run, past: DataFrame, relevant: DataFrame, model_id: str) -> dict[str, DataFrame]:
    """Return each model's lists for the users of `relevant`; users without history get what they would be served."""
    users = relevant.select("user_id").distinct().persist()
    rows = histories(run, past, users)
    n_rows = rows.count()
    k = run.config.topk.k
    served = run.tables.read_slice("gold.recommendations", {"model_id": model_id, "as_of": run.as_of})
    new = users.join(served, "user_id", "left_anti")
    fallback = scorer.recommend(histories(run, past, new), n_rows, fallback_ranker(run), k)
    lists = {"als": served.unionByName(fallback, allowMissingColumns=True)}
    for name in ("popularity", "popularity_decayed"):
        lists[name] = scorer.recommend(rows, n_rows, popularity_ranker(run, name), k)
    return {name: ranked.select("user_id", "items").persist() for name, ranked in lists.items()}


def comparison(run: Run, n_users: int) -> Table:
    """Draw the means as a table for people: a row a model, the best of each metric marked."""
    k = run.config.evaluation.k[0]
    names = [f"{name}@{k}" for name in ("ndcg", "recall", "precision", "map", "mrr", "hit_rate", "coverage")]
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
    return run_job("evaluate", {"evaluate": evaluate}, __doc__ or "")
