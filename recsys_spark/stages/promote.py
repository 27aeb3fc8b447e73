"""The gate at work: the challenger against the champion, gold.comparisons, and one row of gold.champion."""

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as f
from rich.table import Table
from rich.text import Text

from recsys_spark.config import Config
from recsys_spark.errors import ConfigError, DataError
from recsys_spark.evaluation import comparison, exposure, gate
from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.resampling import ALL, Resampling
from recsys_spark.local import local_frame
from recsys_spark.redaction import redacted_config
from recsys_spark.runs import Run
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages import champions


@dataclass(frozen=True)
class Contest:
    """Who is compared with whom: the names of their rows in gold.metrics, the models' ids, the reigning champion.

    rival_id is the name of a baseline where there is no champion; others are then the baselines beside it.
    """

    challenger: str
    challenger_id: str
    rival: str
    rival_id: str
    champion: str | None
    others: tuple[str, ...] = ()


def compare(run: Run, metrics: DataFrame, contest: Contest) -> tuple[list[Effect], dict[str, Effect]]:
    """Compare, write gold.comparisons, and return the effects against the rival, and those against the others by name.

    metrics: the run's rows of gold.metrics. With the others it is the primary metric of all users that is compared.
    """
    settings = run.config.gate
    rules = rules_of(run.config)
    names = sorted(run.metrics[contest.challenger].keys() & run.metrics[contest.rival].keys())
    per_user = [name for name in names if name.partition("@")[0] not in exposure.METRICS]
    missing = sorted(set(rules.judged()) - set(per_user))
    if missing:
        raise ConfigError(f"gate: {', '.join(missing)}: not measured; diversity needs items.columns.category")
    resampling = Resampling(settings.replicates, settings.seed)
    nowhere = f.array().cast("array<string>")
    with run.doing("comparing"):
        effects = comparison.compare(
            paired(metrics, contest.rival, contest.challenger),
            per_user,
            rules.judged(),
            resampling,
            settings.confidence,
            settings.power,
            settings.min_segment_users,
        )
        check_shared(rules.judged(), effects, contest.rival)
        others = {}
        for other in contest.others:
            pairs = paired(metrics, other, contest.challenger).withColumn("segments", nowhere)
            found = comparison.compare(pairs, [rules.primary], [], resampling, settings.confidence, settings.power)
            check_shared([rules.primary], found, other)
            (others[other],) = found
        _write(run, contest, {contest.rival_id: effects} | {other: [effect] for other, effect in others.items()})
    return effects, others


def check_shared(judged: list[str], effects: list[Effect], rival: str) -> None:
    """Raise DataError where the gate judges a metric that no user has under both models."""
    nobody = sorted(set(judged) - {effect.metric for effect in effects if effect.segment == ALL})
    if nobody:
        raise DataError(
            f"gate: no user has {', '.join(nobody)} under both this model and {rival}, so that there is nothing to "
            "compare; let gate.primary and gate.guards name other metrics"
        )


def promote(run: Run, effects: list[Effect], others: Mapping[str, Effect], contest: Contest) -> Row:
    """Let the gate decide, record and show it; return the row of gold.champion.

    effects, others: see `compare`. A run decides once: given again, it finds its decision made.
    """
    verdict = gate.decide(effects, rules_of(run.config), others)
    lists = run.tables.find("gold.recommendations", {"model_id": contest.challenger_id, "as_of": run.as_of})
    topk = lists.note["from"]["topk"] if lists else {}
    decision = {
        "action": "promote",
        "promoted": verdict.promoted,
        "challenger": contest.challenger_id,
        "champion": contest.challenger_id if verdict.promoted else contest.champion,
        "comparison_id": run.run_id,
        "reasons": verdict.reasons(),
        "ranking": json.dumps({name: topk[name] for name in champions.RANKING if name in topk}, sort_keys=True),
        "gate": gate_of(run.config),
    }
    made = champions.record(run, contest.champion, decision)
    show(run, effects, contest, made)
    return made


def rules_of(config: Config) -> gate.Rules:
    """Return the gate's rules, with every metric's k written out."""
    settings, k = config.gate, config.evaluation.k[0]

    def at_k(name: str) -> str:
        return name if "@" in name else f"{name}@{k}"

    return gate.Rules(
        at_k(settings.primary),
        settings.confidence,
        {at_k(name): margin for name, margin in settings.guards.items()},
        settings.segment_margin,
        settings.least_gain,
    )


def gate_of(config: Config) -> str:
    """Return the settings that a decision is made by, as gold.champion keeps them."""
    return json.dumps(config.gate.model_dump(mode="json"), sort_keys=True)


def paired(metrics: DataFrame, rival: str, challenger: str) -> DataFrame:
    """Return (user_id, champion, challenger, segments) of rows of gold.metrics: the metrics of both, a row a user."""

    def of(model: str, *columns: Column | str) -> DataFrame:
        return metrics.where(f.col("model") == model).select("user_id", *columns)

    champion = of(rival, f.col("metrics").alias("champion"))
    return champion.join(of(challenger, f.col("metrics").alias("challenger"), "segments"), "user_id")


def check_past(run: Run, model: Row) -> None:
    """Raise DataError where a model was trained on events that it is to predict."""
    if run.as_of is not None and model["as_of"] is not None:
        trained = model["as_of"].astimezone(dt.UTC)
        if trained > run.as_of:
            raise DataError(
                f"model {model['model_id']} learned from events before {trained}, after the as_of {run.as_of} of "
                "this comparison: it knows what it should predict; compare at a later --as-of"
            )
    held_out, its_own = redacted_config(run.config.model_dump(mode="json"))["holdout"], json.loads(model["config"])
    if held_out is not None and its_own.get("holdout") != held_out:
        raise DataError(
            f"model {model['model_id']} was trained with holdout {json.dumps(its_own['holdout'])}, this comparison "
            f"holds out {json.dumps(held_out)}: it may know what it should predict; train one with the same holdout"
        )


def show(run: Run, effects: list[Effect], contest: Contest, made: Row) -> None:
    """Show a person the decision, its reasons and the effects it rests on."""
    table = Table(
        title=f"{contest.challenger_id} against {contest.rival_id}: {run.config.gate.confidence:.0%} intervals",
        title_justify="left",
    )
    for name in ("metric", "users of", "users", "before", "after", "difference", "interval", "p (Holm)", "detectable"):
        table.add_column(name, justify="left" if name in ("metric", "users of") else "right")
    judged = rules_of(run.config).judged()
    for effect in effects:
        if effect.metric in judged and (effect.segment == ALL or effect.metric == judged[0]):
            table.add_row(
                effect.metric, Text(effect.segment), f"{effect.users:,}", f"{effect.champion:.4f}",
                f"{effect.challenger:.4f}", f"{effect.difference:+.4f}", f"{effect.low:+.4f} to {effect.high:+.4f}",
                f"{effect.p_adjusted:.3f}", f"{effect.detectable:.4f}",
            )  # fmt: skip
    run.console.print(table)
    run.say(
        f"{made['challenger']} is {'promoted' if made['promoted'] else 'not promoted'}; champion: {made['champion']}"
    )
    for reason in made["reasons"]:
        run.say(f"  {reason}")
    run.counts["gate"] = {
        "promoted": made["promoted"],
        "champion": made["champion"],
        "compared_with": contest.rival_id,
        "reasons": list(made["reasons"]),
    }


def _write(run: Run, contest: Contest, effects: Mapping[str, list[Effect]]) -> None:
    """Write the effects, by the id of who was compared with, as the run's rows of gold.comparisons."""
    schema = SCHEMAS["gold.comparisons"]
    rows = []
    for rival, effect in ((rival, effect) for rival, found in effects.items() for effect in found):
        row = {
            "comparison_id": run.run_id,
            "as_of": run.as_of,
            "confidence": run.config.gate.confidence,
            **vars(effect),
            "champion_mean": effect.champion,
            "challenger_mean": effect.challenger,
            "challenger": contest.challenger_id,
            "champion": rival,
        }
        rows.append(tuple(row[name] for name in schema.names))
    frame = local_frame(run.spark, rows, schema).coalesce(1)
    commit = run.tables.write_slice("gold.comparisons", frame, {"comparison_id": run.run_id})
    run.outputs["gold.comparisons"] = commit.version
