"""The manifests against their schemas, unknown fields refused, and against the image and the confs.

The schemas are the Spark operator's own models (kubeflow-spark-api, generated from its API's specification) and those
of Kubernetes (kubernetes-validate).
"""

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubeflow_spark_api.models import SparkV1beta2SparkApplication
from pydantic import ValidationError

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "deploy/kubernetes"
DOCKERFILE = (PROJECT / "deploy/docker/Dockerfile").read_text()
CONF = dict(
    line.split()
    for line in (PROJECT / "conf/spark/kubernetes.conf").read_text().splitlines()
    if not line.startswith("#")
)
# By property, the field of a SparkApplication that says the same.
FIELDS = {
    "spark.executor.instances": ("executor", "instances"),
    "spark.executor.cores": ("executor", "cores"),
    "spark.executor.memory": ("executor", "memory"),
    "spark.executor.memoryOverhead": ("executor", "memoryOverhead"),
    "spark.driver.memory": ("driver", "memory"),
    "spark.driver.memoryOverhead": ("driver", "memoryOverhead"),
}


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


@pytest.fixture
def application() -> dict[str, Any]:
    (found,) = manifests("spark-application.yaml")
    return copy.deepcopy(found)  # YAML's anchors are one object


@pytest.fixture
def night() -> dict[str, Any]:
    return next(one for one in manifests("night.yaml") if one["kind"] == "CronJob")


def pod_of(cron_job: dict[str, Any]) -> dict[str, Any]:
    return cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def checked(application: dict[str, Any]) -> None:
    """Refuse what the operator's models refuse, and the fields that they do not know."""
    assert SparkV1beta2SparkApplication.from_dict(application).to_dict() == application


def test_the_spark_application_is_one_by_the_operators_models(application: dict[str, Any]) -> None:
    assert (application["apiVersion"], application["kind"]) == ("sparkoperator.k8s.io/v1beta2", "SparkApplication")
    checked(application)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "executor", "instance"], 2),
        (["spec", "restartPolicy", "onFailureRetries"], "2"),
        (["spec", "mainApplicationFile"], None),
        (["spec", "driver", "podSecurityContext", "runAsUsr"], 185),
        (["spec", "sparkConf", "spark.authenticate"], True),
    ],
)
def test_a_mistake_in_the_spark_application_would_be_found(
    application: dict[str, Any], path: list[str], value: Any
) -> None:
    section = application
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    with pytest.raises((ValidationError, AssertionError)):
        checked(application)


@pytest.mark.parametrize("name", ["account.yaml", "night.yaml"])
def test_every_other_manifest_is_one_by_the_schemas_of_kubernetes(name: str) -> None:
    for manifest in manifests(name):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_pod_template_is_a_pod_once_spark_has_added_an_image() -> None:
    (template,) = manifests("pod.yaml")
    template["metadata"] = {"name": "driver"}
    template["spec"]["containers"][0]["image"] = "recsys-spark"
    kubernetes_validate.validate(template, kubernetes_validate.latest_version(), strict=True)


def test_a_mistake_in_the_night_would_be_found(night: dict[str, Any]) -> None:
    pod_of(night)["containers"][0]["environment"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(night, kubernetes_validate.latest_version(), strict=True)


def test_the_spark_application_says_what_the_conf_says(application: dict[str, Any]) -> None:
    spec = application["spec"]
    said = dict(spec["sparkConf"])
    for name, (side, field) in FIELDS.items():
        assert name not in said
        said[name] = str(spec[side][field])
    assert said == CONF


def test_all_pods_have_the_same_rights_and_are_the_images_user(
    application: dict[str, Any], night: dict[str, Any]
) -> None:
    (template,) = manifests("pod.yaml")
    pods = [template["spec"]["securityContext"], pod_of(night)["securityContext"]]
    containers = [template["spec"]["containers"][0], pod_of(night)["containers"][0]]
    for side in ("driver", "executor"):
        pods.append(application["spec"][side]["podSecurityContext"])
        containers.append(application["spec"][side])
    assert all(pod == pods[0] for pod in pods)
    assert all(one["securityContext"] == containers[0]["securityContext"] for one in containers)
    assert f"USER {pods[0]['runAsUser']}\n" in DOCKERFILE


def test_what_the_manifests_run_is_in_the_image(application: dict[str, Any], night: dict[str, Any]) -> None:
    home = "/opt/recsys-spark/"
    assert f"WORKDIR {home.rstrip('/')}\n" in DOCKERFILE
    container = pod_of(night)["containers"][0]
    launcher = next(one["value"] for one in container["env"] if one["name"] == "RECSYS_LAUNCHER")
    files = [
        application["spec"]["mainApplicationFile"].removeprefix(f"local://{home}"),
        container["command"][1],
        *(word.split("=")[-1] for word in shlex.split(launcher) if word.endswith((".conf", ".yaml"))),
    ]
    assert len(files) == 4
    for file in files:
        assert (PROJECT / file).is_file()
        assert any(
            f"COPY {folder} {folder}\n" in DOCKERFILE for folder in (Path(file).parts[0], str(Path(file).parent))
        )
    assert container["command"][0] == "/opt/entrypoint.sh"
    assert f"COPY deploy/docker/entrypoint.sh {container['command'][0]}\n" in DOCKERFILE
    assert container["image"] in launcher and application["spec"]["image"] == container["image"]


def test_executors_have_an_account_that_may_do_nothing_and_no_token(
    application: dict[str, Any], night: dict[str, Any]
) -> None:
    accounts = manifests("account.yaml")
    driver, executor = [one["metadata"]["name"] for one in accounts if one["kind"] == "ServiceAccount"]
    (binding,) = [one for one in accounts if one["kind"] == "RoleBinding"]
    assert [one["name"] for one in binding["subjects"]] == [driver]
    (token,) = [one["automountServiceAccountToken"] for one in accounts if "automountServiceAccountToken" in one]
    assert (executor, token) == (accounts[2]["metadata"]["name"], False)

    assert application["spec"]["driver"]["serviceAccount"] == pod_of(night)["serviceAccountName"] == driver
    assert application["spec"]["executor"]["serviceAccount"] == executor
    # Elsewhere Spark starts the executors' pods; the template's account, if it had one, would come first.
    name = "spark.kubernetes.authenticate.executor.serviceAccountName="
    launcher = next(one["value"] for one in pod_of(night)["containers"][0]["env"] if one["name"] == "RECSYS_LAUNCHER")
    assert f"{name}{executor}" in shlex.split(launcher)
    assert f"{name}${{RECSYS_EXECUTOR_ACCOUNT:-{executor}}}" in (FOLDER / "submit.sh").read_text()
    assert not [key for key in manifests("pod.yaml")[0]["spec"] if key.startswith("serviceAccount")]


def test_a_night_that_hangs_ends_before_the_next(night: dict[str, Any]) -> None:
    assert night["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 20 * 3600


def test_a_disrupted_pod_is_replaced_and_a_night_that_ended_by_its_own_code_is_not(night: dict[str, Any]) -> None:
    disrupted, ended = night["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    # First: a job that a drain ends has a code too, 75.
    assert (disrupted["action"], disrupted["onPodConditions"]) == ("Ignore", [{"type": "DisruptionTarget"}])
    script = (PROJECT / "deploy/cron/nightly.sh").read_text()
    final = {
        int(code) for codes in re.findall(r"^ +([\d| ]+)\) break", script, re.MULTILINE) for code in codes.split("|")
    }
    assert ended["action"] == "FailJob" and ended["onExitCodes"]["operator"] == "In"
    assert set(ended["onExitCodes"]["values"]) == final | {69, 75} > {64, 65, 70, 78}
