"""A small shop whose tastes are planted: even users buy even items, odd users odd ones, on known days."""

import datetime as dt
import json
import random
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from pyspark.sql import SparkSession

from recsys_spark import runs
from recsys_spark.stages import backtest, evaluate, features, score, train, tune
from recsys_spark.stages.pipeline import STAGES
from recsys_spark.tables import Tables

OPTIONS = {
    ("build_features",): features.OPTIONS,
    ("train_als",): train.OPTIONS,
    ("score_topk",): score.OPTIONS,
    ("evaluate",): evaluate.OPTIONS,
    ("tune",): tune.OPTIONS,
    ("backtest",): backtest.OPTIONS,
}

N = 24
AS_OF = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


def left_out(user: int) -> int:
    """The one item of her taste that a user buys only after AS_OF."""
    return (user + 2 * (user % 5)) % N


def purchases() -> list[tuple[str, str, str]]:
    """All purchases as (user, item, time): everything of a user's taste before AS_OF but one item, that one after."""
    rows = []
    for user in range(N):
        for item in range(user % 2, N, 2):
            late = item == left_out(user)
            moment = AS_OF + dt.timedelta(days=1 if late else -1 - (user * 7 + item) % 50, minutes=user)
            rows.append((f"user-{user}", f"item-{item}", f"{moment:%Y-%m-%d %H:%M:%S}"))
    return rows


def write_csv(
    path: Path,
    rows: list[tuple[str, ...]],
    header: str = "customer,product,bought_at",
    seed: int | None = None,
) -> Path:
    """Write rows as CSV, shuffled if a seed is given."""
    if seed is not None:
        rows = random.Random(seed).sample(rows, len(rows))
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


def source(log: Path, **more: str) -> dict[str, Any]:
    """The section of the shop's log; more: columns that it has beside user, item and time."""
    columns = {"user": "customer", "item": "product", "time": "bought_at", **more}
    return {"path": str(log), "format": "csv", "columns": columns}


def configuration(folder: Path, log: Path, **sections: Any) -> Path:
    """Write a configuration for the shop's log; tables go to folder/tables."""
    whole: dict[str, Any] = {
        "name": "shop",
        "storage": {"root": str(folder / "tables"), "runs": False},
        "source": source(log),
        "als": {"rank": 2, "epochs": 6, "alpha0": 0.05, "regularization": 0.001, "min_blocks": 2},
        "topk": {"k": 3},
        "evaluation": {"k": [1, 3], "report": False},
    } | sections
    # What nobody looks at here only costs time.
    whole["features"] = {"of_users": [], "of_items": [], **whole.get("features", {})}
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return path


def tables(spark: SparkSession, config: Path) -> Tables:
    """The tables of a configuration that `configuration` wrote."""
    return Tables(spark, str(config.parent / "tables"))


def contents(spark: SparkSession, config: Path) -> dict[str, list[str]]:
    """The rows of what build_features writes, but those of gold.profile that count the log's rows."""
    read = tables(spark, config).read
    names = (*features.SLICES, *features.DICTIONARIES)
    of_the_log = "measure NOT IN ('rows', 'refused')"
    rows = {name: read(name).where(of_the_log if name == "gold.profile" else "true").collect() for name in names}
    return {name: sorted(json.dumps(row.asDict(True), default=str, sort_keys=True) for row in found)
            for name, found in rows.items()}  # fmt: skip


def everything_written(root: Path) -> str:
    """All bytes under a folder as text, those of Parquet files as their rows."""
    texts = []
    for file in sorted(file for file in root.rglob("*") if file.is_file()):
        if file.suffix == ".parquet":
            texts.append(str(pq.ParquetFile(file).read().to_pylist()))
        else:
            texts.append(file.read_bytes().decode(errors="replace"))
    return "\n".join(texts)


class Job:
    """Runs stages as the command line does and reads the summary off stdout's last line."""

    def __init__(self) -> None:
        self.stderr = ""

    def __call__(self, config: Path, *arguments: str, stages: tuple[str, ...] = tuple(STAGES)) -> dict[str, Any]:
        argv = ["--config", str(config), *arguments]
        options = OPTIONS.get(stages, {})
        known = {**STAGES, "tune": tune.tune, "backtest": backtest.backtest}
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = runs.main("pipeline", {name: known[name] for name in stages}, "", argv, options=options)
        self.stderr = err.getvalue()
        summary: dict[str, Any] = json.loads(out.getvalue().splitlines()[-1])
        assert summary["exit_code"] == code
        return summary
