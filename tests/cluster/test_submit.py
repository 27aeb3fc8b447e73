"""The pipeline under spark-submit, on local[2] and on real standalone clusters: the same bytes as plain python."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.archive import archive
from deploy.standalone.cluster import cluster
from tests.cluster.processes import running
from tests.cluster.submit import PROJECT, digest, lists_digest, submit, submitted, vectors_digest
from tests.jobs.shop import AS_OF, configuration, purchases, write_csv

pytestmark = pytest.mark.cluster
PIPELINE = PROJECT / "jobs/pipeline.py"
CLUSTER = PROJECT / "deploy/standalone/cluster.py"
BLEND = {"model": {"kind": "blend"}, "spectral": {"rank": 2}}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as the zip that --py-files ships."""
    return archive(tmp_path_factory.mktemp("dist") / "recsys_spark.zip")


def run(command: list[str], folder: Path, seed: int, **sections: Any) -> Path:
    """Run the pipeline on the shop's shuffled log in a folder of its own; return the folder of its tables."""
    temporary = folder / "temporary"
    temporary.mkdir(parents=True)
    config = configuration(folder, write_csv(folder / "log.csv", purchases(), seed=seed), **sections)
    arguments = ["--config", str(config), "--run-id", "a", "--as-of", AS_OF.isoformat()]
    own = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "TMPDIR": str(temporary)}
    # Away from the checkout: workers must have the package from the zip alone.
    done = subprocess.run(
        [*command, *arguments],
        env={**os.environ, **own}, cwd=folder, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "ok"
    return folder / "tables"


def test_plain_python_spark_submit_and_a_standalone_cluster_end_at_the_same_bytes(
    package: Path, tmp_path: Path
) -> None:
    """A blend has what all kinds of factor models have: ALS's epochs, singular vectors, lists by both."""

    def digests_of(command: list[str], folder: str, seed: int) -> tuple[str, str, str]:
        tables = run(command, tmp_path / folder, seed, **BLEND)
        return digest(tables), vectors_digest(tables), lists_digest(tables)

    digests = {"python": digests_of([sys.executable, str(PIPELINE)], "python", seed=1)}
    zipped = ["--py-files", str(package)]
    for cores in (1, 2, 4):
        command = submit(f"local[{cores}]", PIPELINE, *zipped)
        digests[f"local[{cores}]"] = digests_of(command, f"local-{cores}", seed=cores)
    for workers in (1, 2):
        with cluster(workers) as (url, _):
            digests[f"{workers} workers"] = digests_of(submit(url, PIPELINE, *zipped), f"workers-{workers}", seed=9)
    assert len(set(digests.values())) == 1, digests


def test_one_command_starts_a_cluster_submits_the_pipeline_with_its_package_and_stops_all(tmp_path: Path) -> None:
    small = ["--conf", "spark.driver.memory=1g", "--conf", "spark.executor.memory=1g"]
    command = [sys.executable, str(CLUSTER), "--workers", "2", "--", *submitted(PIPELINE, *small)]
    there = tmp_path / "cluster"
    ran = run(command, there, seed=9), run([sys.executable, str(PIPELINE)], tmp_path / "python", seed=1)
    assert len({(digest(tables), lists_digest(tables)) for tables in ran}) == 1
    # Daemons, executors and the job have this folder in their command lines: their work or their tables are there.
    assert not [process for process in running() if str(there) in process.command]
    assert not list((there / "temporary").glob("recsys-*"))
