"""One lazy local Spark session for the whole run, and folders of its own for each test."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from pyspark.sql import SparkSession

from recsys_spark.session import SHORT_LIVED, spark_session

os.environ["PYSPARK_PYTHON"] = sys.executable

# How many examples a property test draws; one through Spark draws a twentieth of them, see tests/generated.py.
settings.register_profile("fast", max_examples=60, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)  # make test-slow
settings.load_profile("fast")

TEST_SETTINGS = {
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.driver.memory": "2g",
    "spark.ui.enabled": "false",
    "spark.executor.memoryOverhead": "1536",
    "spark.driver.extraJavaOptions": SHORT_LIVED,
}


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = spark_session("tests", master="local[2]", settings=TEST_SETTINGS)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def logs() -> Path:
    """Folder of the real event logs; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("RECSYS_LOGS", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real event logs: {folder} is absent (RECSYS_LOGS names another folder)")
    return folder
