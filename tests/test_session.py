"""How the session's JVM is started, and how its Python workers end."""

import os
import signal
import subprocess
import sys

import pytest
from pyspark.sql import SparkSession

from recsys_spark.session import LOCAL, SHORT_LIVED

OPTIONS = """
from recsys_spark.session import spark_session
jvm = spark_session("options", "local[1]", {"spark.driver.memory": "512m"}, brief=%s).sparkContext._jvm
print(*jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments())
"""


@pytest.mark.parametrize(
    ("brief", "wanted"), [(True, SHORT_LIVED), (False, LOCAL["spark.driver.extraJavaOptions"])], ids=["brief", "long"]
)
def test_the_jvm_of_a_session_has_the_options_that_suit_its_length(brief: bool, wanted: str) -> None:
    own = {name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"}
    done = subprocess.run([sys.executable, "-c", OPTIONS % brief], env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    options = done.stdout.split()
    assert set(wanted.split()) <= set(options)
    assert any(option.startswith("-Dlog4j2.configurationFile=") for option in options)
    assert {option for option in options if option.startswith("-XX:Tier")} <= set(wanted.split())


FAREWELL = """
import socket
import recsys_spark
here, there = socket.socketpair()
there.close()
here.send(b"the worker was idle, and Spark has closed its socket")
"""


def test_a_worker_whose_socket_spark_has_closed_ends_without_a_word() -> None:
    own = {**os.environ, "PYTHON_UNIX_DOMAIN_ENABLED": "True"}
    done = subprocess.run([sys.executable, "-c", FAREWELL], env=own, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_workers_are_told_so_and_the_driver_is_not(spark: SparkSession) -> None:
    def handlers(_: object) -> list[bool]:
        import recsys_spark  # noqa: F401

        return [signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL]

    assert spark.sparkContext.parallelize([0, 1], 2).mapPartitions(handlers).collect() == [True, True]
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
