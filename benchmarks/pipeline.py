"""Seconds, bytes and memory of ingest and build_features on a synthetic dirty log, beside a sort of the same rows.

    python -m benchmarks.pipeline --interactions 20000000 --json data/bench-pipeline.json

The log has 5 % rows to refuse, each for a reason; user activity is log-normal, item popularity is Zipf's, two users are
robots. The measure is features_vs_sort: build_features over the time in which the same session reads the rows that
ingest wrote, sorts them by user and writes them as Delta; the sort runs before and after, and the faster one counts.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyspark.sql import SparkSession

from benchmarks.events import SETTINGS, Stage, stages
from benchmarks.machine import machine
from benchmarks.memory import peak_memory
from recsys_spark import runs
from recsys_spark.session import spark_session
from recsys_spark.stages.features import build_features
from recsys_spark.stages.ingest import ingest

_RUN = "bench"
_CHUNK = 2_000_000  # rows a file
_DAYS = 180
_BEGIN = 1_700_000_000  # seconds since 1970
_DIRT = {"missing_user": 0.02, "bad_time": 0.01, "unknown_event": 0.01, "bad_value": 0.005, "returned": 0.005}
_LIGHT = 0.02  # a stage with less of all task seconds is not looked at


def write_log(folder: Path, n: int, users: int, items: int, seed: int = 0) -> None:
    """Write n events as Parquet files of (user, item, at, kind, quantity), all text as delivered logs are."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0, 1, users)
    activity[:2] = activity.sum() / 1000  # two robots
    popular = 1 / np.arange(1, items + 1) ** 0.8
    user_of, item_of = activity.cumsum() / activity.sum(), popular.cumsum() / popular.sum()
    for place, begin in enumerate(range(0, n, _CHUNK)):
        size = min(_CHUNK, n - begin)
        chance = rng.random(size)
        edges = np.cumsum([0, *_DIRT.values()])
        broken = {
            name: (chance >= low) & (chance < high)
            for name, low, high in zip(_DIRT, edges[:-1], edges[1:], strict=True)
        }
        user = pa.array(np.searchsorted(user_of, rng.random(size)), mask=broken["missing_user"]).cast(pa.string())
        at = (_BEGIN + rng.integers(0, _DAYS * 86_400, size)).astype(str).astype(object)
        at[broken["bad_time"]] = "soon"
        kind = np.array(["view", "cart", "buy"], object)[rng.choice(3, size, p=[0.8, 0.13, 0.07])]
        kind[broken["unknown_event"]] = "hover"
        quantity = rng.integers(1, 9, size).astype(str).astype(object)
        quantity[broken["bad_value"]] = "many"
        quantity[broken["returned"]] = "-1"
        table = pa.table(
            {
                "user": user,
                "item": pa.array(np.searchsorted(item_of, rng.random(size))).cast(pa.string()),
                "at": pa.array(at, pa.string()),
                "kind": pa.array(kind, pa.string()),
                "quantity": pa.array(quantity, pa.string()),
            }
        )
        pq.write_table(table, folder / f"{place:05d}.parquet")


def configuration(folder: Path) -> dict[str, Any]:
    """Return the configuration of the log: rules, weights by type and age, all default features and two more."""
    return {
        "name": "synthetic",
        "storage": {"root": str(folder / "tables")},
        "source": {
            "path": str(folder / "log"),
            "columns": {"user": "user", "item": "item", "time": "at", "event": "kind", "value": "quantity"},
            "time_format": "seconds",
            "measures": {"quantity": "try_cast(quantity AS double)"},
        },
        "features": {
            "events": {"view": 0.3, "cart": 1.0, "buy": 2.0},
            "half_life": "60d",
            "transform": "log1p",
        },
    }


def sort_rows(spark: SparkSession, root: str, place: str) -> float:
    """Return the seconds in which the rows that ingest wrote are read, sorted by user and written."""
    spark.sparkContext.setJobGroup(f"{_RUN}/sort", "sort the rows by user")
    started = time.perf_counter()
    rows = spark.read.format("delta").load(f"{root}/bronze/events")
    rows.sort("user").write.format("delta").mode("overwrite").save(f"{root}/{place}")
    return time.perf_counter() - started


def measure(n: int, users: int, items: int, folder: Path) -> dict[str, Any]:
    """Run the stages in this process and return what they cost."""
    (folder / "log").mkdir()
    (folder / "events").mkdir()
    write_log(folder / "log", n, users, items)
    config = configuration(folder)
    path = folder / "synthetic.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    settings = {**SETTINGS, "spark.eventLog.dir": str(folder / "events")}
    with peak_memory() as peaks:
        spark = spark_session("benchmark", settings=settings)
        root, sorts = config["storage"]["root"], []
        seconds: dict[str, float] = {}
        argv = ["--config", str(path), "--run-id", _RUN]
        runs.main("ingest", {"ingest": timed(ingest, seconds, "ingest")}, "", argv)
        sorts.append(sort_rows(spark, root, "sorted_before"))
        code = runs.main("build_features", {"build_features": timed(build_features, seconds, "features")}, "", argv)
        sorts.append(sort_rows(spark, root, "sorted_after"))
        spark.stop()
    if code:
        raise SystemExit(code)
    (log,) = (folder / "events").iterdir()
    every = stages(log)
    mine = [stage for stage in every if stage.group == f"{_RUN}/build_features"]
    heavy = [stage for stage in mine if stage.seconds > _LIGHT * sum(one.seconds for one in mine)]
    uneven = max(heavy, key=share_of_slowest)
    return {
        "interactions": n,
        "users": users,
        "items": items,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "sort_seconds": [round(value, 1) for value in sorts],
        "features_vs_sort": round(seconds["features"] / min(sorts), 3),
        "shuffled_mb": {name: round(shuffled(every, name) / 1e6) for name in ("ingest", "build_features", "sort")},
        "peak_mb": {name: round(value) for name, value in peaks.items()},
        "slowest_task_share": round(share_of_slowest(uneven), 3),
        "slowest_task_stage": f"{uneven.name}: {uneven.tasks} tasks, {uneven.seconds:.1f} s",
        "machine": machine(),
    }


def timed(stage: runs.Stage, seconds: dict[str, float], name: str) -> runs.Stage:
    """Return a stage that notes its seconds."""

    def run(given: runs.Run) -> None:
        started = time.perf_counter()
        stage(given)
        seconds[name] = time.perf_counter() - started

    return run


def share_of_slowest(stage: Stage) -> float:
    """Return the share of a stage's task seconds that its slowest task took: 1 is a stage in one task."""
    return stage.slowest / max(stage.seconds, 1e-9)


def shuffled(every: list[Stage], job: str) -> int:
    """Return the bytes that a job's stages read of shuffles."""
    return sum(stage.shuffled for stage in every if stage.group == f"{_RUN}/{job}")


def main() -> None:
    """Measure, print a table, write JSON."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--interactions", type=int, default=20_000_000)
    arguments.add_argument("--users", type=int, default=200_000)
    arguments.add_argument("--items", type=int, default=20_000)
    arguments.add_argument("--json", type=Path, metavar="FILE")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.interactions, given.users, given.items, Path(folder))
    for name, value in found.items():
        print(f"{name:20} {value}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
