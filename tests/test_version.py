"""What a model says of the program that made it is the same wherever the program's sources lie."""

import re
import subprocess
import sys
from pathlib import Path

import recsys_spark
from deploy.archive import archive
from recsys_spark.version import code_version, hash_of_sources

ASK = "import recsys_spark, recsys_spark.version as v; print(recsys_spark.__file__, v.code_version())"


def test_a_checkout_and_the_zip_that_executors_get_are_the_same_version(tmp_path: Path) -> None:
    zipped = archive(tmp_path / "recsys_spark.zip")
    asked = subprocess.run([sys.executable, "-c", ASK], cwd=tmp_path, env={"PYTHONPATH": str(zipped)},
                           check=True, capture_output=True, text=True)  # fmt: skip
    place, version = asked.stdout.split()
    assert place.startswith(str(zipped)) and version == code_version()
    assert re.fullmatch(re.escape(recsys_spark.__version__) + r"\+[0-9a-f]{12}", version)


def test_only_names_and_contents_of_sources_count(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "a.py").write_text("x = 1\n")
    (inner / "b.py").write_text("y = 2\n")
    before = hash_of_sources(tmp_path)
    (inner / "page.css").write_text("a {}")
    (tmp_path / "a.pyc").write_bytes(b"\0")
    assert hash_of_sources(tmp_path) == before
    seen = {before}
    for change in (
        lambda: (inner / "b.py").write_text("y = 3\n"),
        lambda: (inner / "b.py").rename(tmp_path / "b.py"),
        lambda: (tmp_path / "b.py").rename(tmp_path / "c.py"),
        lambda: (tmp_path / "c.py").write_text(""),
    ):
        change()
        seen.add(hash_of_sources(tmp_path))
    assert len(seen) == 5
