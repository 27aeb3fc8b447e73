"""Fetch Delta's jars into the installed pyspark, once: sessions then start without Ivy and without network."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark

from recsys_spark.session import DELTA_PACKAGE

# All that Delta needs beside what Spark carries. Its package also names Hadoop, Parquet, Jackson and others, of
# which Spark has its own versions, and the Kernel and Unity Catalog, which path-based tables never load.
# The last is copied last: where it lies, all lie.
_NEEDED = ("delta-storage", "delta-spark")


def main() -> int:
    """Resolve the package by Ivy and copy what is needed; exit 69 where it cannot be fetched."""
    jars = Path(pyspark.__file__).parent / "jars"
    _, artifact, version = DELTA_PACKAGE.split(":")
    if (jars / f"{artifact}-{version}.jar").exists():
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fetched, problem = _fetch(jars.parent, Path(folder))
        missing = [name for name in _NEEDED if name not in fetched]
        if missing:
            print(f"error: {DELTA_PACKAGE} cannot be fetched: {problem or 'it came without ' + ', '.join(missing)}; "
                  "check the network and run `make install` again (exit 69)", file=sys.stderr)  # fmt: skip
            return 69
        for name in _NEEDED:
            for old in jars.glob(f"{name}[-_]*.jar"):  # pip leaves it when it upgrades pyspark
                old.unlink()
            jar = fetched[name]
            shutil.copy(jar, jars / f".{jar.name}")
            (jars / f".{jar.name}").rename(jars / _file_name(jar))
    return 0


def _fetch(spark_home: Path, folder: Path) -> tuple[dict[str, Path], str]:
    """Download the package and all that it names; return the jars that are needed, or what went wrong."""
    program = folder / "nothing.py"  # for spark-submit to run once the jars are there
    program.write_text("", encoding="utf-8")
    command = [str(spark_home / "bin/spark-submit"), "--master", "local[1]", "--packages", DELTA_PACKAGE,
               "--conf", f"spark.jars.ivy={folder}", str(program)]  # fmt: skip
    own = {"SPARK_HOME": str(spark_home), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    environment = {**os.environ, **own}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    except subprocess.TimeoutExpired:
        return {}, "no answer within 15 minutes"
    found = {name: jar for jar in sorted(folder.glob("jars/*.jar")) for name in _NEEDED
             if re.match(rf"{name}[-_]", _file_name(jar))}  # fmt: skip
    words = [line.strip() for line in done.stderr.splitlines() if re.search(r"not found|Exception|rror", line)]
    return found, (words or ["" if done.returncode == 0 else f"spark-submit ended with {done.returncode}"])[0]


def _file_name(jar: Path) -> str:
    """The name of a jar that Ivy stored as organisation_artifact-version.jar."""
    return jar.name.partition("_")[2]


if __name__ == "__main__":
    raise SystemExit(main())
