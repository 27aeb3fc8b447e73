"""Rows of the driver as a frame: the same as createDataFrame makes, but by Arrow."""

import datetime as dt
import os
import time
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from recsys_spark.local import local_frame

SCHEMA = (
    "a string, b int, c bigint, d double, e boolean, f timestamp, g map<string,bigint>, h array<double>, "
    "i map<int,double>, j array<struct<k: string, l: double>>, m map<string,string>"
)
AWARE = dt.datetime(2024, 3, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))
ROWS = [
    ("ä", 1, 2**40, 0.5, True, AWARE, {"x": 1, "w": 2}, [1.0, None], {1: 0.25}, [("k", 1.5), (None, None)], {}),
    (None,) * 11,
    ("", -1, 0, float("inf"), False, dt.datetime(2024, 7, 1, 12), {}, [], {}, [], {"y": None}),
]


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """Python's clock in a zone that is not Spark's, in which a time without one is another moment."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "America/New_York"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize("rows", [ROWS, ROWS[1:2], []])
def test_rows_are_those_that_spark_would_make_of_them(spark: SparkSession, elsewhere: None, rows: list) -> None:
    found, expected = local_frame(spark, rows, SCHEMA), spark.createDataFrame(rows, SCHEMA)
    assert found.schema == expected.schema
    assert found.collect() == expected.collect()


def test_no_python_worker_is_asked(spark: SparkSession) -> None:
    plan = local_frame(spark, iter([(1, "a")]), "x int, y string")._jdf.queryExecution().executedPlan().toString()
    assert plan.startswith("LocalTableScan")
