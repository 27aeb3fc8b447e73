"""Fetch Delta's jars into the installed pyspark, once: sessions then start without Ivy and without network."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark

from recsys_spark.session import DELTA_PACKAGE, delta_is_bundled

# What Delta needs at run time that Spark does not carry itself; the rest of its dependencies are for other engines.
_NEEDED = re.compile(r"(delta-spark|delta-storage|delta-kernel|unitycatalog|jts-core).*")


def main() -> int:
    """Resolve the package by Ivy and copy what pyspark lacks; exit 69 where it cannot be fetched."""
    if delta_is_bundled():
        return 0
    jars = Path(pyspark.__file__).parent / "jars"
    have = {_artifact(jar.name) for jar in jars.glob("*.jar")}
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(jars.parent / "bin" / "spark-submit"), "--master", "local[1]", "--packages", DELTA_PACKAGE,
            "--conf", f"spark.jars.ivy={folder}", "--conf", "spark.ui.enabled=false", _nothing(Path(folder)),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = sorted(Path(folder).glob("jars/*.jar"))
        if done.returncode or not fetched:
            words = [line.strip() for line in done.stderr.splitlines() if "not found" in line or "Exception" in line]
            print(f"error: {DELTA_PACKAGE} cannot be fetched: {(words or ['no reason given'])[0]}; "
                  "check the network and run make install again", file=sys.stderr)  # fmt: skip
            return 69
        # Ivy names a jar organisation_artifact-version.jar.
        names = {jar: jar.name.partition("_")[2] for jar in fetched}
        chosen = {jar: name for jar, name in names.items() if _NEEDED.match(name) and _artifact(name) not in have}
        for jar, name in sorted(chosen.items(), key=lambda pair: pair[1].startswith("delta-spark")):
            shutil.copy(jar, jars / f".{name}")
            (jars / f".{name}").rename(jars / name)
    return 0


def _artifact(name: str) -> str:
    """The name of a jar without its version."""
    return re.sub(r"-\d[\w.\-]*\.jar$", "", name)


def _nothing(folder: Path) -> str:
    """A program that does nothing, for spark-submit to run once the jars are there."""
    program = folder / "nothing.py"
    program.write_text("", encoding="utf-8")
    return str(program)


if __name__ == "__main__":
    raise SystemExit(main())
