"""Errors as Spark, Delta and the system really raise them, and what a run makes of them."""

import datetime as dt
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from recsys_spark.blocks import store
from recsys_spark.config import Source
from recsys_spark.errors import DataError, DependencyError, JobError, TryAgainError
from recsys_spark.faults import job_error
from recsys_spark.files import list_files
from recsys_spark.sources import read_raw
from recsys_spark.tables import Tables

DISK_FULL = Path("/dev/full")


def a_full_disk_on_the_driver(spark: SparkSession, folder: Path) -> None:
    with DISK_FULL.open("wb", buffering=0) as file:
        file.write(b"x")


def a_full_disk_in_a_task(spark: SparkSession, folder: Path) -> None:
    def batches(given: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")
        yield from given

    spark.range(1).mapInArrow(batches, "id long").collect()


def a_full_heap(spark: SparkSession, folder: Path) -> None:
    spark.sparkContext._jvm.java.nio.ByteBuffer.allocate(2**31 - 16)  # type: ignore[union-attr]


def a_killed_python_worker(spark: SparkSession, folder: Path) -> None:
    def batches(given: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield from given

    spark.range(1).mapInArrow(batches, "id long").write.format("delta").save(str(folder / "table"))


def blocks_that_are_lost_before_each_pass(spark: SparkSession, folder: Path) -> None:
    histories = spark.createDataFrame([(0, 0, 1.0)], "row int, column int, value float")
    blocks = store.build(histories, np.zeros(1, np.int32), 1)

    def work() -> None:
        for path in blocks.paths:
            shutil.rmtree(path)
        blocks.run(lambda block, _: None, None, "a pass")

    blocks.repeat(work)


def storage_that_refuses_connections(spark: SparkSession, folder: Path) -> None:
    spark.range(1).write.format("delta").save("hdfs://127.0.0.1:1/table")


class Forbidding(BaseHTTPRequestHandler):
    """Storage that answers whatever it is asked that it may not be asked that."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def storage_that_refuses_access(spark: SparkSession, folder: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Forbidding) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            Tables(spark, f"webhdfs://127.0.0.1:{server.server_port}/tables").exists("gold.models")
        finally:
            server.shutdown()


def a_source_that_changed(spark: SparkSession, folder: Path) -> None:
    log = Source.model_validate({"path": str(folder / "log.csv"), "format": "csv"})
    file = folder / "log.csv"
    file.write_text("user,item\n" + 10 * "user-1,item-1\n")
    rows = read_raw(spark, log, list(list_files(spark, log, log.path)), "source", dt.datetime.now(dt.UTC))
    file.write_text("user,item\n" + 35 * "u,i\n")  # as many bytes, more lines than the first pass has counted
    rows.collect()


def a_broken_parquet_file(spark: SparkSession, folder: Path) -> None:
    spark.range(9).write.parquet(str(folder / "rows"))
    rows = spark.read.parquet(str(folder / "rows"))
    for file in (folder / "rows").glob("*.parquet"):
        file.write_bytes(bytes(file.stat().st_size))
    for crc in (folder / "rows").glob(".*.crc"):
        crc.unlink()
    rows.agg(f.sum("id")).collect()


def a_missing_file_of_a_table(spark: SparkSession, folder: Path) -> None:
    spark.range(9).write.format("delta").save(str(folder / "table"))
    for file in (folder / "table").glob("*.parquet"):
        file.unlink()
    spark.read.format("delta").load(str(folder / "table")).agg(f.sum("id")).collect()


def a_deleted_table(spark: SparkSession, folder: Path) -> None:
    spark.read.format("delta").load(str(folder / "nowhere")).collect()


def something_else(spark: SparkSession, folder: Path) -> None:
    spark.range(1).select(f.raise_error(f.lit("odd"))).collect()


CASES: list[tuple[Callable[[SparkSession, Path], None], type[JobError], str]] = [
    (a_full_disk_on_the_driver, DependencyError, "a disk is full"),
    (a_full_disk_in_a_task, DependencyError, "a disk is full"),
    (a_full_heap, DependencyError, "memory ran out"),
    (a_killed_python_worker, TryAgainError, "a Python worker was killed"),
    (blocks_that_are_lost_before_each_pass, TryAgainError, "blocks were lost 3 times in a row"),
    (storage_that_refuses_connections, DependencyError, "storage cannot be reached"),
    (storage_that_refuses_access, DependencyError, "storage refuses access"),
    (a_source_that_changed, TryAgainError, "files changed while they were read"),
    (a_broken_parquet_file, DataError, "missing or broken"),
    (a_missing_file_of_a_table, DataError, "missing or broken"),
    (a_deleted_table, DataError, "a table was deleted"),
    (something_else, JobError, "--debug shows where"),
]


@pytest.mark.skipif(not DISK_FULL.exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize(("work", "kind", "words"), CASES, ids=lambda case: getattr(case, "__name__", None))
def test_an_error_of_spark_or_the_system_ends_a_run_with_its_own_exit_code_in_one_line(
    spark: SparkSession, tmp_path: Path, work: Any, kind: type[JobError], words: str
) -> None:
    with pytest.raises(Exception) as caught:
        work(spark, tmp_path)
    meant = job_error(caught.value)
    assert type(meant) is kind and words in str(meant), caught.value
    assert "\n" not in str(meant)
    if kind is DataError and "broken" in words:
        assert ".parquet" in str(meant), "the file is named"


UNREACHED = (DependencyError, "storage cannot be reached")
REFUSED = (DependencyError, "storage refuses access")
ENDED = (TryAgainError, "Spark came to an end")
LOST = (TryAgainError, "executors were lost")

# What others say than those who can be made to say it here.
SAYINGS: dict[str, tuple[type[JobError], str]] = {
    "Unable to execute HTTP request: Connect to minio:9000 [minio/1.2.3.4] failed: Connection refused": UNREACHED,
    "java.nio.file.AccessDeniedException: s3a://b/x: S3Exception: (Service: S3, Status Code: 403)": REFUSED,
    "AWSBadRequestException: The provided token has expired. (Status Code: 400, ExpiredToken)": REFUSED,
    "org.apache.hadoop.security.token.SecretManager$InvalidToken: token (night) is expired": REFUSED,
    "An error occurred while trying to connect to the Java server: [Errno 111] Connection refused": ENDED,
    "Py4JNetworkError: Answer from Java side is empty": ENDED,
    "Task 0 in stage 5.0 failed 4 times: ExecutorLostFailure (executor 3 exited) Container killed, exit code 137": LOST,
    # An executor that is gone refuses connections, too.
    "FetchFailed(BlockManagerId(1, b)): Caused by: java.net.ConnectException: Connection refused": LOST,
    "java.io.IOException: Failed to connect to b:7337\nCaused by: java.net.ConnectException: Connection refused": LOST,
}


@pytest.mark.parametrize("words", SAYINGS, ids=lambda words: words.split(":")[0])
def test_an_error_means_what_its_words_say(words: str) -> None:
    kind, meaning = SAYINGS[words]
    meant = job_error(RuntimeError(words))
    assert type(meant) is kind and str(meant).startswith(meaning)
    assert kind is not TryAgainError or "run it again with the same --run-id" in str(meant)
    assert meaning != LOST[1] or "raise spark.executor.memoryOverhead or lower als.block_interactions" in str(meant)


def test_a_java_that_is_gone_is_no_storage_that_refuses_connections() -> None:
    with pytest.raises(OSError) as caught:
        socket.create_connection(("127.0.0.1", 1))
    assert str(job_error(caught.value)).startswith(ENDED[1])


def test_an_error_that_was_raised_on_purpose_stays_as_it_is() -> None:
    error = DataError(f"{os.sep}x: No space left on device")
    assert job_error(error) is error
