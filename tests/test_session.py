"""How the session's JVM is started."""

import os
import subprocess
import sys

import pytest

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
