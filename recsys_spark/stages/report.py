"""From an evaluated run to reports/RUN_ID/report.html: what the page shows, collected from frames and tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as f

from recsys_spark.evaluation import exposure, gate
from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.lists import Catalogue
from recsys_spark.evaluation.report import queries
from recsys_spark.evaluation.report.content import (
    Customer,
    Listed,
    Moment,
    Profile,
    Query,
    Reason,
    Report,
    Shares,
    Verdict,
    popularity_shares,
    profile_of,
)
from recsys_spark.evaluation.report.page import page
from recsys_spark.evaluation.resampling import Resampling
from recsys_spark.runs import Run
from recsys_spark.stages.known import names_of
from recsys_spark.stages.promote import Contest, rules_of
from recsys_spark.tables import Commit

_CUSTOMERS = 12
_HISTORY = 8
_WANTED = 20
_LISTED = 20


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found, and the frames it found it in.

    effects, others: see `promote.compare`. made: the row of gold.champion, None where no decision was asked for. lists:
    user_id, items, source of the challenger; past: user_id, item_id, weight; relevant: user_id, item_id; exposed: the
    run's rows of gold.exposure.
    """

    model: Row
    contest: Contest
    effects: list[Effect]
    others: Mapping[str, Effect]
    made: Row | None
    lists: DataFrame
    past: DataFrame
    relevant: DataFrame
    items: Catalogue
    exposed: DataFrame


def write_report(run: Run, evaluated: Evaluated) -> None:
    """Write the page, and say where it is."""
    with run.doing("writing the report"):
        text = page(report(run, evaluated))
        place = run.tables.write_text(f"reports/{run.run_id}/report.html", text)
    run.counts["report"] = place
    run.say(f"report: {place}")


def report(run: Run, evaluated: Evaluated) -> Report:
    """Return what the page shows."""
    contest, made = evaluated.contest, evaluated.made
    rules, backtest = rules_of(run.config), run.tables.find("gold.backtests", {})
    versions = {f"{name}, version": str(version) for name, version in sorted(run.outputs.items())}
    return Report(
        dataset=run.config.name,
        run_id=run.run_id,
        as_of=f"{run.as_of:%Y-%m-%d %H:%M}" if run.as_of else "its holdout",
        users=int(run.counts["evaluated_users"]),
        items=len(evaluated.items.item_ids),
        challenger=contest.challenger_id,
        rival=contest.rival_id,
        compared=(contest.challenger, contest.rival),
        primary=rules.primary,
        judged=rules.judged(),
        margins=rules.guards,
        least_gain=rules.least_gain,
        confidence=run.config.gate.confidence,
        power=run.config.gate.power,
        effects=evaluated.effects,
        means=run.metrics,
        ks=sorted(run.config.evaluation.k),
        queries=_queries(run, evaluated, backtest),
        verdict=None if made is None else _verdict(made, gate.decide(evaluated.effects, rules, evaluated.others)),
        objective=evaluated.model["objective"] or (),
        popularity=_popularity(evaluated, run.config.evaluation.k[0]),
        profile=_profile(run),
        moments=_moments(run, backtest, rules.primary),
        customers=customers(run, evaluated),
        made={"model": contest.challenger_id, "code": str(evaluated.model["code_version"]), **versions},
    )


def _queries(run: Run, evaluated: Evaluated, backtest: Commit | None) -> list[Query]:
    """Return the queries that give the figures of the page again, of those parts that it has."""
    contest, settings, rules = evaluated.contest, run.config.gate, rules_of(run.config)

    def rows(table: str, condition: str) -> str:
        return queries.rows(run.tables.path(table), condition)

    own = f"run_id = '{run.run_id}'"
    metrics, exposed = rows("gold.metrics", own), rows("gold.exposure", own)
    effects = queries.effects(
        metrics,
        contest.challenger,
        {contest.rival: (), **dict.fromkeys(contest.others, (rules.primary,))},
        rules.judged(),
        evaluated.effects,
        Resampling(settings.replicates, settings.seed),
        settings.confidence,
        settings.power,
        settings.min_segment_users,
    )
    found = [
        Query("means", "The means of all models: the tables, and the pictures by the length of the list.",
              queries.means(metrics)),
        Query("differences", "Users, means and differences of all metrics, segments and rivals, in seconds. difference "
              "∓ 1.96 · standard_error is nearly the interval, at 95% confidence.",
              queries.differences(metrics, contest.challenger)),
        Query("comparison", "All rows of the comparison, with interval, p, p after Holm and what was detectable: "
              "gold.comparisons, from single users. Its replicates are drawn again, which takes minutes, and of "
              "millions of users hours.", effects),
        Query("what is shown", "Coverage, Gini coefficient and lift, which are of all lists together, not of one user, "
              "and so have no interval.", exposure.QUERY.format(counts=exposed)),
        Query("popularity", "Shares of list places by popularity of the item.",
              queries.shares(exposed, run.config.evaluation.k[0])),
    ]  # fmt: skip
    if evaluated.model["objective"]:
        model = rows("gold.models", f"model_id = '{contest.challenger_id}'")
        found.append(Query("training", "The objective by epoch.", queries.objective(model)))
    if backtest is not None:
        moments = rows("gold.backtests", f"backtest_id = '{backtest.note['slice']['backtest_id']}'")
        words = "The moments of the backtest, of which each is a run with a page of its own."
        found.append(Query("over time", words, queries.moments(moments, rules.primary)))
    if run.tables.exists("gold.profile"):
        moment = "IS NULL" if run.as_of is None else f"= TIMESTAMP '{run.as_of}'"
        found.append(Query("data", "What the log is like.", queries.profile(rows("gold.profile", f"as_of {moment}"))))
    return found


def _verdict(made: Row, decision: gate.Decision) -> Verdict:
    """Return what was decided. Where a run is given again under other rules, what is not looked at any more is open."""
    passed = {check.reason: check.passed for check in decision.checks}
    reasons = [Reason(words, passed.get(words)) for words in made["reasons"]]
    return Verdict(made["promoted"], made["champion"], reasons)


def _moments(run: Run, backtest: Commit | None, metric: str) -> list[Moment]:
    """Return the moments of a backtest, oldest first."""
    if backtest is None:
        return []
    rows = run.tables.read_slice("gold.backtests", backtest.note["slice"], backtest.version).where(
        f.col("metric") == metric
    )
    found = rows.orderBy("as_of").collect()
    times = [f"{row['as_of']:%Y-%m-%d %H:%M}" for row in found]
    midnight = all(time.endswith(" 00:00") for time in times)
    return [
        Moment(time.removesuffix(" 00:00") if midnight else time, row["users"], row["challenger_mean"],
               row["champion_mean"], row["low"], row["high"])
        for time, row in zip(times, found, strict=True)
    ]  # fmt: skip


def customers(run: Run, evaluated: Evaluated) -> list[Customer]:
    """Return a dozen evaluated users, chosen by a hash of their ids: history, list and what they then wanted."""
    sample = evaluated.relevant.select("user_id").distinct().orderBy(f.xxhash64("user_id"), "user_id").limit(_CUSTOMERS)
    users = [row["user_id"] for row in sample.collect()]
    mine = f.col("user_id").isin(users)
    lists = {row["user_id"]: row for row in evaluated.lists.where(mine).collect()}
    weighty = f.array_sort(f.collect_list(f.struct((-f.col("weight")).alias("weight"), "item_id")))
    history = evaluated.past.where(mine).groupBy("user_id").agg(f.count("*").alias("n"), weighty.alias("items"))
    had = {
        row["user_id"]: (row["n"], [item["item_id"] for item in row["items"][:_HISTORY]]) for row in history.collect()
    }
    wanted: dict[str, list[str]] = {user: [] for user in users}
    for row in evaluated.relevant.where(mine).collect():
        wanted[row["user_id"]].append(row["item_id"])
    names = names_of(run, _mentioned(lists, had, wanted))
    return [_customer(user, lists.get(user), *had.get(user, (0, [])), sorted(wanted[user]), names) for user in users]


def _mentioned(
    lists: Mapping[str, Any], had: Mapping[str, tuple[int, list[str]]], wanted: Mapping[str, list[str]]
) -> set[str]:
    listed = [item for row in lists.values() for item in row["items"] or ()]
    because = [reason for item in listed for reason in item["because"] or ()]
    return {
        *(item["item_id"] for item in (*listed, *because)),
        *(item for _, items in had.values() for item in items),
        *(item for items in wanted.values() for item in items),
    }


def _customer(
    user: str, row: Row | None, n_history: int, history: Iterable[str], wanted: list[str], names: Mapping[str, str]
) -> Customer:
    items = (row["items"] if row else None) or []
    ids = {item["item_id"] for item in items}
    listed = [
        Listed(
            names[item["item_id"]],
            item["item_id"] in wanted,
            [names[reason["item_id"]] for reason in item["because"] or ()],
        )
        for item in items[:_LISTED]
    ]
    found = [Listed(names[item], item in ids) for item in sorted(wanted, key=lambda item: item not in ids)]
    source = str(row["source"]) if row else "nothing"
    return Customer(user, source, [names[item] for item in history], n_history, listed, found[:_WANTED], len(found),
                    len(items))  # fmt: skip


def _profile(run: Run) -> Profile | None:
    if not run.tables.exists("gold.profile"):
        return None
    rows = run.tables.read_slice("gold.profile", {"as_of": run.as_of}).select("measure", "key", "value").collect()
    return profile_of(map(tuple, rows), names_of(run, {row["key"] for row in rows if row["measure"] == "top_item"}))


def _popularity(evaluated: Evaluated, k: int) -> Shares:
    two, ids = (evaluated.contest.challenger, evaluated.contest.rival), evaluated.items.item_ids
    lists = f.element_at("shown", f.lit(k)).alias("lists")
    exposed = evaluated.exposed.where(f.col("model").isin(*two)).select("model", "item_id", lists)
    counts = exposed.where("lists > 0").toArrow()
    shown: dict[str, NDArray[np.int64]] = {}
    for model in two:
        own = counts.filter(pc.equal(counts.column("model"), model))
        at = pc.index_in(ids, own.column("item_id").combine_chunks())
        shown[model] = pc.fill_null(own.column("lists").take(at), 0).to_numpy().astype(np.int64)
    return popularity_shares(evaluated.items.users, shown)
