"""How the session's JVM is started."""

import os
import subprocess
import sys

from recsys_spark.session import LOCAL, SHORT_LIVED

OPTIONS = """
from recsys_spark.session import spark_session
jvm = spark_session("options", "local[1]", {"spark.driver.memory": "512m"}, brief=True).sparkContext._jvm
print(*jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments())
"""


def test_the_jvm_of_a_brief_session_has_the_options_of_a_short_life_beside_those_of_all() -> None:
    own = {name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"}
    done = subprocess.run([sys.executable, "-c", OPTIONS], env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = [*SHORT_LIVED.split(), *LOCAL["spark.driver.extraJavaOptions"].split()]
    assert set(wanted) <= set(done.stdout.split())
