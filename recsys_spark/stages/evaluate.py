"""gold.recommendations against what happened from as_of on: gold.metrics and gold.exposure, beside popularity."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as f
from rich.table import Table

from recsys_spark.evaluation import exposure, metrics
from recsys_spark.evaluation.lists import Catalogue, per_list
from recsys_spark.runs import Option, Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages import champions
from recsys_spark.stages.contestants import all_lists, contest, reigning, rivals
from recsys_spark.stages.events import past_and_future
from recsys_spark.stages.known import as_timestamp
from recsys_spark.stages.models import model_of
from recsys_spark.stages.promote import check_past, compare, promote
from recsys_spark.stages.rankers import POPULARITIES
from recsys_spark.stages.report import Evaluated, write_report
from recsys_spark.stages.segments import segments
from recsys_spark.transforms import interactions
from recsys_spark.transforms.attributes import items_at

GATE: dict[str, Option] = {
    "--promote": {"action": "store_true", "help": "let the gate decide whether the model becomes the champion"},
}
OPTIONS: dict[str, Option] = GATE | {
    "--rollback": {"action": "store_true", "help": "make the champion before the present one champion again"},
    "--baseline": {
        "action": "append",
        "metavar": "ID",
        "help": "another trained model, such as item_knn, to compare with; the first champion has to beat it, too",
    },
    "--model": {"metavar": "ID", "help": "model to evaluate; without it, that of this run id, else the newest"},
}


def evaluate(run: Run) -> None:
    """Compare the model's lists with popularity of all time and decayed; write one row a user and model.

    With --promote the champion's lists are compared too, and the gate decides; --rollback undoes the last promotion.
    --baseline adds a model to what is compared.
    """
    if run.options.get("rollback"):
        champions.roll_back(run)
        return
    run.resolve_as_of()
    settings = run.config.evaluation
    model = model_of(run)
    check_past(run, model)
    # A run that decided does not compare anything else later: its comparison is what the decision rests on.
    deciding = bool(run.options.get("promote")) or champions.decision_of(run) is not None
    champion = reigning(run, model) if deciding else None
    past = run.tables.read_slice("silver.interactions", {"as_of": run.as_of})
    events, future = past_and_future(run)
    relevant = wanted(run, past, future).persist(StorageLevel.MEMORY_AND_DISK)
    n_users = relevant.select("user_id").distinct().count()
    if n_users == 0:
        run.say(f"evaluation: skipped, no event to compare with from {run.as_of} on")
        run.counts["evaluation"] = "skipped: no events from as_of on"
        return
    if max(settings.k) > run.config.topk.k:
        run.say(f"warning: evaluation.k = {max(settings.k)} is longer than the lists of topk.k = {run.config.topk.k}")
    name = f"{model['kind']}, trained" if model["kind"] in POPULARITIES else model["kind"]
    models = {name: model} | rivals(run, model, champion)
    lists = all_lists(run, events, past, relevant, models)
    items = catalogue(run, past)
    of_models = reduce(DataFrame.unionByName, (ranked.withColumn("model", f.lit(of)) for of, ranked in lists.items()))
    ids = f.create_map(*(f.lit(part) for of in lists for part in (of, models.get(of, model)["model_id"])))
    rows = measured(run, of_models, list(lists), relevant, past, items).withColumn("model_id", ids[f.col("model")])
    rows = rows.join(segments(run, past, relevant, items), "user_id", "left")
    with run.doing("measuring"):
        written = _write(run, "gold.metrics", rows)
        exposed = _write(run, "gold.exposure", exposure.item_counts(of_models, catalogued(run), settings.k))
        run.metrics, whole = metrics.means(written), exposure.exposure(exposed)
    for of, values in run.metrics.items():
        values |= whole[of]
    run.counts["evaluated_users"] = n_users
    for table in tables_of_means(run, n_users):
        run.console.print(table)
    if deciding or settings.report:
        against = contest(run, name, model["model_id"], champion, deciding)
        effects, others = compare(run, written, against)
        made = promote(run, effects, others, against) if deciding else None
        if settings.report:
            found = Evaluated(model, against, effects, others, made, lists[name], past, relevant, items, exposed)
            write_report(run, found)
    for frame in (relevant, *lists.values()):
        frame.unpersist()


def _write(run: Run, table: str, rows: DataFrame) -> DataFrame:
    """Write the run's rows of a table, and return them as they were written."""
    whole = rows.withColumn("run_id", f.lit(run.run_id)).withColumn("as_of", as_timestamp(run.as_of))
    where = {"run_id": run.run_id}
    run.outputs[table] = run.tables.write_slice(table, whole, where).version
    return run.tables.read_slice(table, where, run.outputs[table])


def measured(
    run: Run, ranked: DataFrame, models: Sequence[str], relevant: DataFrame, past: DataFrame, items: Catalogue
) -> DataFrame:
    """Return model, user_id, relevant and all metrics that one user's list has by itself, of the users of `relevant`.

    ranked: the lists of these models. Where items that a user had before may be wanted, accuracy is there of new and of
    repeated ones apart, too.
    """
    settings, keys = run.config.evaluation, ["model", "user_id"]
    every = f.explode(f.array(*map(f.lit, models))).alias("model")

    def accuracy(wanted: DataFrame) -> DataFrame:
        of_all = wanted.select("*", every)
        return metrics.per_user(ranked, of_all, settings.k, settings.recall_divides_by, len(items.item_ids))

    found = [per_list(ranked, items, settings.k)]
    if not settings.new_items_only:
        pair, had = ["user_id", "item_id"], past.select("user_id", "item_id")
        for name, how in (("new", "left_anti"), ("repeated", "left_semi")):
            found.append(_prefixed(accuracy(relevant.join(had, pair, how)), f"{name}_"))
    whole, none = accuracy(relevant), f.create_map().cast("map<string, double>")
    for number, more in enumerate(found):
        whole = whole.join(more.select(*keys, f.col("metrics").alias(f"_{number}")), keys, "left")
    every_metric = f.map_concat("metrics", *(f.coalesce(f"_{number}", none) for number in range(len(found))))
    return whole.select(*keys, "relevant", every_metric.alias("metrics"))


def _prefixed(measured: DataFrame, prefix: str) -> DataFrame:
    return measured.withColumn("metrics", f.transform_keys("metrics", lambda name, _: f.concat(f.lit(prefix), name)))


def catalogued(run: Run) -> DataFrame:
    """Return (item_id, users) of the items that lists are drawn from: those with an event before as_of."""
    return run.tables.read_slice("gold.item_features", {"as_of": run.as_of}).select("item_id", "users")


def catalogue(run: Run, past: DataFrame) -> Catalogue:
    """Return the items that lists are drawn from, with their categories."""
    items = catalogued(run)
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


def wanted(run: Run, past: DataFrame, future: DataFrame) -> DataFrame:
    """Return the distinct (user_id, item_id, known) to be found: of the horizon's events, the chosen ones.

    They are new to the user unless evaluation.new_items_only is false. known: whether the item is in the catalogue,
    that is, had an event before as_of.
    """
    pairs = interactions.wanted(future, past, run.config.features, run.config.evaluation)
    known = catalogued(run).select("item_id", f.lit(True).alias("known"))
    return pairs.join(f.broadcast(known), "item_id", "left").fillna(False, ["known"])


def tables_of_means(run: Run, n_users: int) -> list[Table]:
    """Draw the means as tables for people, a row a model: of accuracy, the best of each marked; of what is shown."""
    apart = () if run.config.evaluation.new_items_only else ("new_ndcg", "repeated_ndcg")
    title = f"{run.config.name} as of {run.as_of or 'its holdout'}: {n_users:,} users"
    accuracy = _table_of_means(run, title, ("ndcg", "recall", "precision", "map", "mrr", "hit_rate", *apart), True)
    return [accuracy, _table_of_means(run, "what is shown", (*exposure.METRICS, "novelty", "diversity"), False)]


def _table_of_means(run: Run, title: str, shown: Sequence[str], best: bool) -> Table:
    """Draw the means of metrics, at the first length, of all models that have any; best: whether more is better."""
    k = run.config.evaluation.k[0]
    names = [f"{name}@{k}" for name in shown if any(f"{name}@{k}" in values for values in run.metrics.values())]
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    most = {}
    for name in names:
        table.add_column(name, justify="right")
        most[name] = max(values[name] for values in run.metrics.values() if name in values)
    for model, values in run.metrics.items():
        cells = [f"{values[name]:.4f}" if name in values else "" for name in names]
        bold = [best and values.get(name) == most[name] for name in names]
        table.add_row(model, *(f"[bold]{cell}[/]" if top else cell for cell, top in zip(cells, bold, strict=True)))
    return table


def main() -> int:
    """Run the job from the command line."""
    return run_job("evaluate", {"evaluate": evaluate}, __doc__ or "", options=OPTIONS)
