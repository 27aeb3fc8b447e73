"""The one place that builds a SparkSession."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark
from py4j.java_gateway import JavaClass
from pyspark import SparkContext
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

_DESCRIPTION = "spark.job.description"
_JVM = "spark.driver.extraJavaOptions"
# By which PySpark writes errors of queries on stderr, secrets and all; a job says its error itself.
_ERRORS = ("DataFrameQueryContextLogger", "SQLQueryContextLogger")

DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"

# What every session needs, wherever it runs; set at run time, so that spark-submit's sessions have it too.
RUNTIME = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.partitionOverwriteMode": "static",
    # A slice is one partition: with this its rows are not sorted by it before they are written.
    "spark.sql.maxConcurrentOutputFileWriters": "8",
    # Groups are of users, items and pairs, too many for the small map that Spark would look into before the large one.
    "spark.sql.codegen.aggregate.map.twolevel.enabled": "false",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # Spark's own times of twelve bytes take longer to write, more room, and have no bounds in a file's footer.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    "spark.databricks.delta.replaceWhere.constraintCheck.enabled": "true",
    # New tables keep what a model was trained on for a year, so that it can be trained again.
    "spark.databricks.delta.properties.defaults.deletedFileRetentionDuration": "interval 365 days",
    "spark.databricks.delta.properties.defaults.logRetentionDuration": "interval 365 days",
}

# What must be known when the session is built; a cluster's own properties are in conf/spark/.
EVERYWHERE = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
    "spark.executorEnv.MKL_NUM_THREADS": "1",
    "spark.executorEnv.NUMBA_NUM_THREADS": "1",
    # What Spark masks in its UI and event log: its own names of secrets, and those of storage accounts.
    "spark.redaction.regex": "(?i)secret|passw|passphrase|token|credential|signature|authorization|"
    "(?:api|access|account|private|shared)[._-]?key|(?:encryption|provided)[._-]?key(?:[._-]|$)|[.](?:pwd|pass|sig|sas|jwt|bearer)(?:[.]|$)",
}

_LOG4J = f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}"
# Spark runs much code of its own some thousand times and no more. Java's second compiler takes a third of the processor
# time of a job of minutes where it looks at whatever ran 5,000 times, as it does by itself. Where it is ten times as
# patient, it still compiles the loops over rows, and much less of all else.
_PATIENT = (
    "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000 "
    "-XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000"
)

# What a session on one machine needs to be quick.
LOCAL = {
    "spark.driver.memory": "6g",
    "spark.driver.maxResultSize": "4g",
    "spark.task.maxDirectResultSize": "64m",
    "spark.sql.shuffle.partitions": "8",
    "spark.ui.showConsoleProgress": "false",
    _JVM: f"{_LOG4J} {_PATIENT}",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.python.unix.domain.socket.enabled": "true",
}


# The options of a JVM that does little before it ends: its second compiler and a parallel collector cost more than they
# bring. Without the former Java has room for 48 MB of code, which a session fills in minutes: it then throws code away
# and compiles it again for as long as it lives.
SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=256m"


def spark_session(
    name: str, master: str | None = None, settings: dict[str, str] | None = None, brief: bool = False
) -> SparkSession:
    """Return the running session, made fit for Delta, or build one.

    Under spark-submit master and properties are the command's. Under plain `python` the master is
    `master`, else the variable SPARK_MASTER, else local[*], and the properties are LOCAL, each replaced
    by `settings`; the JVM of a brief session is SHORT_LIVED.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    under_submit = "PYSPARK_GATEWAY_PORT" in os.environ
    builder = SparkSession.builder.appName(name)
    properties = dict(EVERYWHERE)
    if not under_submit:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        builder = builder.master(master or os.environ.get("SPARK_MASTER", "local[*]"))
        properties |= LOCAL
        if brief:
            properties[_JVM] = f"{_LOG4J} {SHORT_LIVED}"
        if not delta_is_bundled():
            properties["spark.jars.packages"] = DELTA_PACKAGE
    for key, value in {**properties, **(settings or {})}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    for key, value in RUNTIME.items():
        session.conf.set(key, value)
    session.sparkContext.setLogLevel("ERROR")
    for logger in _ERRORS:
        PySparkLogger.getLogger(logger).setLevel(logging.CRITICAL)
    return session


@contextmanager
def described(context: SparkContext, text: str) -> Iterator[None]:
    """Name the Spark jobs of a with-block in words, in Spark's UI and event log; then those after it as before."""
    before = context.getLocalProperty(_DESCRIPTION)
    context.setJobDescription(text)
    try:
        yield
    finally:
        context.setLocalProperty(_DESCRIPTION, before)  # type: ignore[arg-type]


def has_delta(session: SparkSession) -> bool:
    """Whether Delta's classes are there in a running session."""
    return isinstance(session.sparkContext._jvm.io.delta.tables.DeltaTable, JavaClass)  # type: ignore[union-attr]


def delta_is_bundled() -> bool:
    """Whether the installed pyspark carries the Delta jar itself, as the images and `make install` see to."""
    return any((Path(pyspark.__file__).parent / "jars").glob("delta-spark_*.jar"))
