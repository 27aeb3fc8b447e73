"""The pipeline under spark-submit, on local[2] and on a real standalone cluster: the same bytes as plain python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.standalone.cluster import cluster
from tests.cluster.submit import PROJECT, digest, lists_digest, packaged, submit
from tests.jobs.shop import AS_OF, configuration, purchases, write_csv

pytestmark = pytest.mark.cluster
PIPELINE = PROJECT / "jobs/pipeline.py"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as the zip that --py-files ships."""
    return packaged(tmp_path_factory.mktemp("dist") / "recsys_spark.zip")


def run(command: list[str], folder: Path, seed: int) -> tuple[str, str]:
    """Run the pipeline on the shop's shuffled log in a folder of its own; return digests of item factors and lists."""
    folder.mkdir()
    config = configuration(folder, write_csv(folder / "log.csv", purchases(), seed=seed))
    arguments = ["--config", str(config), "--run-id", "a", "--as-of", AS_OF.isoformat()]
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    # Away from the checkout: workers must have the package from the zip alone.
    done = subprocess.run(
        [*command, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "ok"
    return digest(folder / "tables"), lists_digest(folder / "tables")


def test_plain_python_spark_submit_and_a_standalone_cluster_end_at_the_same_bytes(
    package: Path, tmp_path: Path
) -> None:
    digests = {"python": run([sys.executable, str(PIPELINE)], tmp_path / "python", seed=1)}
    zipped = ["--py-files", str(package)]
    for cores in (1, 2, 4):
        command = submit(f"local[{cores}]", PIPELINE, *zipped)
        digests[f"local[{cores}]"] = run(command, tmp_path / f"local-{cores}", seed=cores)
    for workers in (1, 2):
        with cluster(workers) as (url, _):
            digests[f"{workers} workers"] = run(submit(url, PIPELINE, *zipped), tmp_path / f"workers-{workers}", seed=9)
    assert len(set(digests.values())) == 1, digests
