"""deploy/kubernetes/submit.sh with Spark's own client: the driver's pod that it asks an API server for.

The server is a recorder: it says yes to everything, as nothing of a cluster is here. What is judged is Spark's side.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.standalone.cluster import SPARK_HOME

pytestmark = pytest.mark.cluster

PROJECT = Path(__file__).parents[2]
IMAGE = "registry.example.com/recsys-spark:0.1.0"
JOB = ["jobs/pipeline.py", "--config", "/etc/recsys/shop.yaml", "--run-id", "night", "--promote"]


@contextmanager
def api_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the address of a server and the objects that were made on it."""
    made: list[dict[str, Any]] = []

    class Recorder(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found = json.loads(body) if body else {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}
            if body and "kind" in found:
                found.setdefault("metadata", {}).update(uid=f"uid-{len(made)}", resourceVersion="1")
                if match := re.search(r"/namespaces/([^/]+)/", self.path):
                    found["metadata"].setdefault("namespace", match[1])
                made.append(found)
            text = json.dumps(found).encode()
            self.send_response(200 if self.command != "POST" else 201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", made
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one submission made: the script where it lies, Spark's own spark-submit, which does not wait here."""
    home = tmp_path_factory.mktemp("project")
    for part in ("conf", "deploy/kubernetes"):
        shutil.copytree(PROJECT / part, home / part)
    (home / "submit").write_text(
        "#!/bin/sh\n"
        f'exec {SPARK_HOME}/bin/spark-submit --conf spark.kubernetes.submission.waitAppCompletion=false "$@"\n'
    )
    (home / "submit").chmod(0o755)
    with api_server() as (address, found):
        own = {"RECSYS_API": address, "RECSYS_IMAGE": IMAGE, "SPARK_SUBMIT": str(home / "submit"),
               "PYSPARK_PYTHON": sys.executable}  # fmt: skip
        done = subprocess.run(
            [str(home / "deploy/kubernetes/submit.sh"), *JOB],
            env={**os.environ, **own}, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return found


@pytest.fixture
def pod(made: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [one for one in made if one["kind"] == "Pod"]
    return found


def test_the_driver_runs_the_job_of_the_image_with_the_arguments_given(pod: dict[str, Any]) -> None:
    (container,) = pod["spec"]["containers"]
    assert container["image"] == IMAGE
    assert container["args"][0] == "driver"
    place = container["args"].index(f"local:///opt/recsys-spark/{JOB[0]}")
    assert container["args"][place + 1 :] == JOB[1:]
    assert pod["metadata"]["namespace"] == "recsys" and pod["spec"]["serviceAccountName"] == "recsys"


def test_the_drivers_pod_keeps_what_the_template_says(pod: dict[str, Any]) -> None:
    template = yaml.safe_load((PROJECT / "deploy/kubernetes/pod.yaml").read_text())["spec"]
    (container,), (written,) = pod["spec"]["containers"], template["containers"]
    assert pod["spec"]["securityContext"] == template["securityContext"]
    assert container["securityContext"] == written["securityContext"]
    assert container["envFrom"] == written["envFrom"]
    for mount in written["volumeMounts"]:
        assert {**mount, "mountPath": mount["mountPath"]}.items() <= next(
            one for one in container["volumeMounts"] if one["name"] == mount["name"]
        ).items()
    # Spark takes the volume of the template for its local files, by its name.
    assert next(one["value"] for one in container["env"] if one["name"] == "SPARK_LOCAL_DIRS") == "/var/spark-local"


def test_the_driver_has_the_memory_and_the_properties_of_the_conf(
    made: list[dict[str, Any]], pod: dict[str, Any]
) -> None:
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == f"{(6 + 4) * 1024}Mi"
    (properties,) = [
        one["data"]["spark.properties"] for one in made
        if one["kind"] == "ConfigMap" and "spark.properties" in one.get("data", {})
    ]  # fmt: skip
    given = dict(line.split("=", 1) for line in properties.splitlines() if "=" in line and not line.startswith("#"))
    lines = (PROJECT / "conf/spark/kubernetes.conf").read_text().splitlines()
    for name, value in (line.split() for line in lines if not line.startswith("#")):
        assert given[name].replace("\\", "") == value
    assert "secret" not in properties.replace("spark.kubernetes", "").lower()
