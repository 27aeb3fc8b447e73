"""Who is compared: a model, the champion or baselines, and the lists that each would have served."""

import dataclasses
import datetime as dt
from collections.abc import Mapping

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as f

from recsys_spark.errors import ConfigError, DataError
from recsys_spark.evaluation.gate import less_is_better
from recsys_spark.runs import Run
from recsys_spark.stages import champions
from recsys_spark.stages.known import interactions_commit, weights_of
from recsys_spark.stages.models import model_of
from recsys_spark.stages.promote import Contest, check_past, gate_of, rules_of
from recsys_spark.stages.rankers import (
    POPULARITIES,
    fallback_ranker,
    histories,
    known,
    number_of_rows,
    popularity_ranker,
    with_popularities,
)
from recsys_spark.stages.score import score_topk
from recsys_spark.topk import scorer
from recsys_spark.transforms import interactions, splits

CHAMPION = "champion"


def reigning(run: Run, model: Row) -> str | None:
    """Return the champion that a model is to be compared with.

    None where there is none. A run that decided already compares the same two again, by the same rules.
    """
    made = champions.decision_of(run)
    if made is not None and made["action"] != "promote":
        raise DataError(f"--promote: run {run.run_id} is a {made['action']} already; give another --run-id")
    if made is not None and made["challenger"] != model["model_id"]:
        raise ConfigError(f"--run-id {run.run_id}: it decided about {made['challenger']}; give another --run-id")
    if made is not None and made["gate"] not in (None, gate_of(run.config)):
        raise ConfigError(f"--run-id {run.run_id}: it decided by gate: {made['gate']}; give another --run-id")
    champion = made["champion_before"] if made else champions.champion_of(run)
    if champion == model["model_id"]:
        raise DataError(f"--promote: model {champion} is the champion already; train another one")
    return champion


def served(run: Run, model_id: str) -> Row:
    """Return the row of another model, its lists as of the run's as_of made where they are missing."""
    other = dataclasses.replace(run, options={"model": model_id}, outputs={}, counts={})
    model = model_of(other)
    check_past(run, model)
    score_topk(champions.with_own_settings(other, model))
    return model


def rivals(run: Run, model: Row, champion: str | None) -> dict[str, Row]:
    """Return the trained models to compare one with, by name, their lists made: champion and --baseline."""
    found: dict[str, Row] = {}
    if champion is not None:
        found[CHAMPION] = served(run, champion)
    for model_id in run.options.get("baseline") or ():
        if model_id == model["model_id"]:
            raise DataError(f"--baseline {model_id}: that is the model to evaluate; name another one")
        other = served(run, model_id)
        found[f"{other['kind']} {model_id}"] = other
    return found


def contest(run: Run, name: str, challenger: str, champion: str | None, deciding: bool) -> Contest:
    """Say with whom the gate compares: with the champion, else with the baseline that is best on the primary metric.

    The best was chosen by the users that are to judge, so in deciding the other baselines are looked at as well.
    """
    if champion is not None:
        return Contest(name, challenger, CHAMPION, champion, champion)
    primary = rules_of(run.config).primary
    sign = -1 if less_is_better(primary) else 1
    ordered = sorted(
        (-sign * values.get(primary, 0.0), other) for other, values in run.metrics.items() if other != name
    )
    best, *others = (other for _, other in ordered)
    return Contest(name, challenger, best, best, None, tuple(others) if deciding else ())


def all_lists(
    run: Run, events: DataFrame, past: DataFrame, relevant: DataFrame, models: Mapping[str, Row]
) -> dict[str, DataFrame]:
    """Return the lists of trained models, the run's own first, and of popularity, for the users of `relevant`.

    events: those before as_of; past: their pairs, as silver.interactions has them. Users without history get what they
    would be served.
    """
    users = relevant.select("user_id").distinct()
    rows = histories(run, past, users)
    n_rows = number_of_rows(run, past)
    k, context = run.config.topk.k, run.spark.sparkContext
    here = known(run)
    lists, popular = {}, scorer.ship(context, fallback_ranker(run, here))
    here.pairs.unpersist()
    for place, (of, model) in enumerate(models.items()):
        own = run if place == 0 else champions.with_own_settings(run, model)
        shipped = popular
        if weights_of(own) != weights_of(run):
            there = known(own)
            shipped = scorer.ship(context, fallback_ranker(own, there))
            there.pairs.unpersist()
        listed = _lists_of(run, model["model_id"]).join(users, "user_id", "left_semi")
        new = users.join(listed, "user_id", "left_anti")
        fallback = scorer.recommend(histories(run, past, new), n_rows, shipped, k)
        lists[of] = listed.unionByName(fallback, allowMissingColumns=True)
    items, life = here.items, run.config.evaluation.popularity_half_life
    if life is not None:
        items = with_popularities(items, decayed(run, events, life))
    for popularity in POPULARITIES:
        shipped = scorer.ship(context, popularity_ranker(run, items, popularity))
        lists[popularity] = scorer.recommend(rows, n_rows, shipped, k)
    return {of: ranked.select("user_id", "items", "source").persist() for of, ranked in lists.items()}


def _lists_of(run: Run, model_id: str) -> DataFrame:
    """Read the lists of a model; raise DataError where there are none, or none of these histories."""
    where = {"model_id": model_id, "as_of": run.as_of}
    made, mend = run.tables.find("gold.recommendations", where), f"run score_topk --model {model_id} first"
    if made is None:
        raise DataError(f"gold.recommendations: no lists of model {model_id} as of {run.as_of}; {mend}")
    if made.note["from"]["silver.interactions"] != interactions_commit(run).version:
        raise DataError(f"gold.recommendations: features were built again since the lists of {model_id}; {mend}")
    return run.tables.read_slice("gold.recommendations", where, made.version)


def decayed(run: Run, events: DataFrame, half_life: dt.timedelta) -> DataFrame:
    """Return (item_id, popularity_decayed, adoptions_decayed) of events before as_of, with a half-life of their own."""
    learnt = splits.learnt_from(run.config.holdout)
    found = interactions.popularities(events, run.config.features, run.as_of, [half_life], learnt)
    names = ("popularity_decayed", "adoptions_decayed")
    return found.select("item_id", *(f.col(f"{name}_0").alias(name) for name in names))
