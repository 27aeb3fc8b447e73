"""Several moments in a row, each model trained on its past and judged by what came then: gold.backtests."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as f
from rich.table import Table

from recsys_spark.config import utc
from recsys_spark.errors import ConfigError, DataError
from recsys_spark.evaluation.resampling import ALL
from recsys_spark.runs import Option, Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages.evaluate import evaluate
from recsys_spark.stages.events import parsed_events
from recsys_spark.stages.features import build_features
from recsys_spark.stages.promote import rules_of
from recsys_spark.stages.score import score_topk
from recsys_spark.stages.train import train_als
from recsys_spark.transforms import splits

STAGES = {"build_features": build_features, "train_als": train_als, "score_topk": score_topk, "evaluate": evaluate}
OPTIONS: dict[str, Option] = {
    "--moments": {
        "type": int,
        "default": 4,
        "metavar": "N",
        "help": "how many moments, each a horizon before the next",
    },
    "--plot": {"metavar": "FILE", "help": "draw the primary metric over time as an SVG"},
}


def backtest(run: Run) -> None:
    """Train and judge a model as of each moment, the last being as_of; show the primary metric over time.

    Every moment is a run of its own, RUN_ID-MOMENT, with its tables' slices, so that a rerun finds what is done.
    """
    horizon = run.config.evaluation.horizon
    if run.as_of is None or horizon is None or run.config.holdout is not None:
        raise ConfigError("backtest: needs a log with time, as_of and evaluation.horizon, and no holdout")
    parsed = parsed_events(run)
    first = parsed.where(f.col("reason").isNull()).agg(f.min("time")).first()
    if first is None or first[0] is None:
        raise DataError("backtest: bronze.events has no valid event of these files; run ingest first")
    last = run.as_of + horizon - dt.timedelta(microseconds=1)
    moments = splits.sliding(utc(first[0]), last, horizon, run.options.get("moments") or 4)
    # A moment is compared with its best popularity list: gold.comparisons has the interval.
    config = run.config.model_copy(update={"evaluation": run.config.evaluation.model_copy(update={"report": True})})
    ids = []
    for moment in moments:
        own = dataclasses.replace(
            run, config=config, run_id=f"{run.run_id}-{moment:%Y%m%dT%H%M}", as_of=moment,
            outputs={}, metrics={}, seconds={}, counts={}, options={},
        )  # fmt: skip
        for name, stage in STAGES.items():
            run.spark.sparkContext.setJobGroup(f"{own.run_id}/{name}", name)
            run.tables.seen.clear()  # each stage is a job of its own: it reads what those before it wrote
            stage(own)
        ids.append(own.run_id)
    found = _written(run, ids)
    run.outputs["gold.backtests"] = run.tables.write_slice("gold.backtests", found, {"backtest_id": run.run_id}).version
    rows = run.tables.read_slice("gold.backtests", {"backtest_id": run.run_id}).orderBy("as_of").collect()
    primary = rules_of(run.config).primary
    shown = [row for row in rows if row["metric"] == primary]
    table = Table(title=f"{run.config.name}: {primary} at {len(shown)} moments", title_justify="left")
    for name in ("as of", "users", "model", "best list", "", "difference", "interval"):
        table.add_column(name, justify="left" if name in ("as of", "") else "right")
    for row in shown:
        table.add_row(
            f"{row['as_of']:%Y-%m-%d %H:%M}", f"{row['users']:,}", f"{row['challenger_mean']:.4f}",
            f"{row['champion_mean']:.4f}", row["champion"], f"{row['difference']:+.4f}",
            f"{row['low']:+.4f} to {row['high']:+.4f}",
        )  # fmt: skip
    run.console.print(table)
    run.metrics = {f"{row['as_of']:%Y-%m-%dT%H:%M}": {primary: row["challenger_mean"]} for row in shown}
    if run.options.get("plot"):
        _plot(shown, primary, Path(run.options["plot"]))


def _written(run: Run, ids: list[str]) -> DataFrame:
    """Return the comparisons of all users that the moments' runs wrote, as rows of gold.backtests."""
    comparisons = run.tables.read("gold.comparisons").where(
        f.col("comparison_id").isin(ids) & (f.col("segment") == ALL)
    )
    return comparisons.drop("segment", "confidence", "p_adjusted", "detectable").withColumn(
        "backtest_id", f.lit(run.run_id)
    )


def _plot(rows: Sequence[Row], metric: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    times: list[Any] = [row["as_of"] for row in rows]
    figure, axis = plt.subplots(figsize=(7, 3.2))
    for name, column, colour in (("model", "challenger_mean", "tab:blue"), ("best list", "champion_mean", "tab:gray")):
        axis.plot(times, [row[column] for row in rows], marker="o", color=colour, label=name)
    low, high = ([row["champion_mean"] + row[end] for row in rows] for end in ("low", "high"))
    axis.fill_between(times, low, high, color="tab:blue", alpha=0.15, linewidth=0)
    axis.set(ylabel=metric, ylim=(0, None))
    axis.legend()
    figure.autofmt_xdate()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> int:
    """Run the job from the command line."""
    return run_job("backtest", {"backtest": backtest}, __doc__ or "", options=OPTIONS)
