"""The image: its Dockerfile read and linted, and built for real, step by step, in a chroot in the place of Docker.

The stand-in for the base image is a Debian of the same release by debootstrap, with its own Python 3.11.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.dockerfile import SYSTEM, Stage, build, instructions, run
from tests.jobs.shop import AS_OF, configuration, purchases, write_csv

PROJECT = Path(__file__).parents[2]
DOCKERFILE = PROJECT / "deploy/docker/Dockerfile"
CONSTRAINTS = PROJECT / "deploy/docker/constraints.txt"


def test_hadolint_has_nothing_to_say() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint has no binary for this platform")
    done = subprocess.run([str(program), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_pinned_in_two_stages_and_runs_as_185() -> None:
    found = instructions(DOCKERFILE.read_text(encoding="utf-8"))
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", dict(reversed(found))["ARG"])
    assert [words for name, words in found if name == "FROM"] == ["${BASE} AS build", "${BASE}"]
    assert [words for name, words in found if name == "USER"] == ["185"]
    last_stage = found[max(place for place, (name, _) in enumerate(found) if name == "FROM") :]
    fetching = re.compile(r"\bpip3? install|\bcurl\b|\bwget\b|--packages\b")  # apt alone, for Java and tini
    assert not [words for name, words in last_stage if name == "RUN" and fetching.search(words)]


def test_constraints_pin_every_package_that_the_image_installs_within_the_projects_bounds() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [Requirement(one) for one in [*project["dependencies"], *project["optional-dependencies"]["tune"]]]
    lines = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    for one in named:
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one
    needed: set[str] = set()
    ahead = named
    while ahead:
        one = ahead.pop()
        name = canonicalize_name(one.name)
        if name not in needed and (one.marker is None or one.marker.evaluate({"extra": ""})):
            needed.add(name)
            ahead += [Requirement(more) for more in distribution(one.name).requires or ()]
    assert needed == set(pinned)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if os.getuid() != 0 or shutil.which("debootstrap", path=SYSTEM["PATH"]) is None:
        pytest.skip("the image is built in a chroot: by root, with debootstrap (apt-get install debootstrap)")
    work = tmp_path_factory.mktemp("image")
    base = work / "base"
    packages = "--include=python3,python3-venv,ca-certificates"
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", packages, "bookworm", str(base)],
        env=SYSTEM, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    # Debian's own sources lack the security updates that the base image has.
    (base / "etc/apt/sources.list").write_bytes(b"")
    for source in Path("/etc/apt/sources.list.d").glob("debian.sources"):
        shutil.copy2(source, base / "etc/apt/sources.list.d/")
    yield build(DOCKERFILE, PROJECT, base, work)
    shutil.rmtree(work)  # two gigabytes


@pytest.mark.image
def test_the_image_runs_the_pipeline_as_its_user_without_any_network(image: Stage) -> None:
    data = image.root / "data"
    data.mkdir()
    config = configuration(data, write_csv(data / "log.csv", purchases()))
    text = config.read_text().replace(str(data), "/data")
    config.write_text(text)
    for path in (data, *data.iterdir()):
        os.chown(path, 185, 0)
    job = ["python", "jobs/pipeline.py", "--config", "/data/shop.yaml", "--run-id", "a", "--as-of", AS_OF.isoformat()]
    done = run(image, [*image.entrypoint, *job], network=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "ok"
    owners = {file.stat().st_uid for file in (data / "tables").rglob("*")}
    assert owners == {185}


@pytest.mark.image
def test_the_entrypoint_starts_a_driver_as_kubernetes_asks_for_it(image: Stage) -> None:
    conf = image.root / "opt/spark/conf"
    (conf / "spark.properties").write_text("spark.master=local[1]\nspark.ui.enabled=false\n")
    arguments = ["driver", "--properties-file", "/opt/spark/conf/spark.properties", "--class",
                 "org.apache.spark.deploy.PythonRunner", "local:///opt/recsys-spark/jobs/ingest.py"]  # fmt: skip
    done = run(image, [*image.entrypoint, *arguments, "--help"], network=False, SPARK_DRIVER_BIND_ADDRESS="127.0.0.1")
    assert done.returncode == 0 and "--run-id" in done.stdout, done.stderr[-3000:]
    wrong = run(image, [*image.entrypoint, *arguments], network=False, SPARK_DRIVER_BIND_ADDRESS="127.0.0.1")
    assert wrong.returncode == 64  # the job's own code is the container's


@pytest.mark.image
def test_the_entrypoint_starts_an_executor_with_the_jvms_options_in_order(image: Stage) -> None:
    options = {f"SPARK_JAVA_OPT_{number}": f"-Dorder={number}" for number in range(11)}
    variables = {
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@127.0.0.1:1", "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "1", "SPARK_EXECUTOR_MEMORY": "256m", "SPARK_APPLICATION_ID": "app",
        "SPARK_EXECUTOR_POD_IP": "127.0.0.1", "SPARK_RESOURCE_PROFILE_ID": "0", "SPARK_EXECUTOR_POD_NAME": "pod",
    }  # fmt: skip
    done = run(image, [*image.entrypoint, "executor"], network=False, **variables, **options)
    # Spark's executor itself has begun, with all it needs on its class path, and finds no driver at this address.
    assert done.returncode == 1 and "/127.0.0.1:1" in done.stderr, done.stderr[-3000:]


@pytest.mark.image
def test_nothing_of_the_image_belongs_to_its_user_but_a_home(image: Stage) -> None:
    done = run(image, ["find", "/opt", "-user", "185", "-o", "-perm", "-o+w", "!", "-type", "l"], network=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert not (image.root / "var/lib/apt/lists").exists() or not list((image.root / "var/lib/apt/lists").iterdir())
