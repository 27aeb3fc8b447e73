"""The file that makes hosts one cluster: spark-defaults.conf with a secret."""

from pathlib import Path

import pytest

from deploy.standalone.cluster import STANDALONE, secured


def test_the_file_with_the_secret_is_its_owners_alone_and_no_two_secrets_are_alike(tmp_path: Path) -> None:
    one, other = (secured(tmp_path / name) / "spark-defaults.conf" for name in ("one", "other"))
    assert one.stat().st_mode & 0o777 == 0o600
    assert one.read_text() != other.read_text()
    with pytest.raises(FileExistsError):
        secured(tmp_path / "one")


def test_the_file_protects_as_the_conf_of_the_jobs_does(tmp_path: Path) -> None:
    jobs = dict(line.split() for line in STANDALONE.read_text().splitlines() if not line.startswith("#"))
    cluster = dict(line.split() for line in (secured(tmp_path) / "spark-defaults.conf").read_text().splitlines())
    assert len(cluster.pop("spark.authenticate.secret")) == 64
    assert cluster == {name: jobs[name] for name in cluster} and "spark.network.crypto.cipher" in cluster
    assert cluster["spark.ui.killEnabled"] == "false"  # the pages of master and workers ask for no login
