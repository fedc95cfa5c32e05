"""The examples in deploy/ against their schemas: Ray's own, and the part of KubeRay's RayJob that is made use of."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import ray.autoscaler
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML


def load(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


def test_the_cluster_is_valid_by_rays_schema(root: Path) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    cluster = load(root / "deploy/cluster.yaml")
    defaults = load(Path(ray.autoscaler.__file__).parent / "local/defaults.yaml")
    jsonschema.validate({**defaults, **cluster}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "setup_comands": []}, schema)


def test_the_cluster_is_prepared_as_ray_up_does(root: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = prepare_config(load(root / "deploy/cluster.yaml"))
    validate_config(cluster)
    workers = cluster["available_node_types"]["local.cluster.node"]["min_workers"]
    assert len(cluster["provider"]["worker_ips"]) == workers


def test_what_sets_a_node_up_names_its_home(root: Path, tmp_path: Path) -> None:
    """No shell reads a tilde within quotes, and pip does not either; a stand-in prints the words that arrive there."""
    (tmp_path / "netinv-env/bin").mkdir(parents=True)
    for name in ("python3", "netinv-env/bin/pip"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / name).chmod(0o755)
    words: list[str] = []
    for command in load(root / "deploy/cluster.yaml")["setup_commands"]:
        home = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        ran = subprocess.run(["/bin/bash", "-c", command], env=home, capture_output=True, text=True, check=True)
        words += ran.stdout.splitlines()
    assert not [word for word in words if "~" in word]
    assert words[-2:] == ["--editable", f"{tmp_path}/netinv[pipeline,s3]"]


class Part(BaseModel):
    """A part of a manifest, whose other fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Variable(Part):
    name: str
    value: str | None = None
    valueFrom: dict[str, dict[str, str]] | None = None


class ContainerSecurity(Part):
    allowPrivilegeEscalation: Literal[False]
    capabilities: dict[Literal["drop"], list[Literal["ALL"]]]


class PodSecurity(Part):
    runAsNonRoot: Literal[True]
    runAsUser: int = Field(gt=0)
    runAsGroup: int
    fsGroup: int
    seccompProfile: dict[Literal["type"], Literal["RuntimeDefault"]]


class Container(Part):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    image: str
    securityContext: ContainerSecurity
    env: list[Variable]
    ports: list[dict[Literal["name", "containerPort"], str | int]] = []
    resources: dict[Literal["requests", "limits"], dict[str, str]]


class PodSpec(Part):
    automountServiceAccountToken: Literal[False]
    securityContext: PodSecurity
    containers: list[Container] = Field(min_length=1)


class Template(Part):
    spec: PodSpec


class Head(Part):
    rayStartParams: dict[str, str]
    template: Template


class Workers(Head):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int


class ClusterSpec(Part):
    rayVersion: str
    authOptions: dict[Literal["mode"], Literal["token"]]
    headGroupSpec: Head
    workerGroupSpecs: list[Workers]


class JobSpec(Part):
    entrypoint: str
    runtimeEnvYAML: str
    backoffLimit: int
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    rayClusterSpec: ClusterSpec


class RayJob(Part):
    """Names and types as in the custom resource definition ray.io/v1 of KubeRay, of what is made use of."""

    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: dict[Literal["generateName"], str]
    spec: JobSpec


def test_the_job_is_valid_by_the_fields_of_kuberay(root: Path) -> None:
    manifest = load(root / "deploy/rayjob.yaml")
    job = RayJob.model_validate(manifest, strict=True)
    environment = YAML(typ="safe", pure=True).load(job.spec.runtimeEnvYAML)
    assert set(environment) == {"working_dir", "env_vars"}
    assert {"MLFLOW_TRACKING_URI", "NETINV_REMOTE"} == set(environment["env_vars"])
    for group in job.spec.rayClusterSpec.workerGroupSpecs:
        assert group.minReplicas <= group.replicas <= group.maxReplicas
    manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(ValidationError, match="replica"):
        RayJob.model_validate(manifest, strict=True)


def test_what_the_job_knows_alone_reaches_it_as_it_is_written(root: Path, tmp_path: Path) -> None:
    """KubeRay puts it into a shell of the pod that submits; a stand-in of ray prints the words that arrive there."""
    job = load(root / "deploy/rayjob.yaml")["spec"]["entrypoint"]
    (tmp_path / "ray").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "ray").chmod(0o755)
    submit = ["/bin/bash", "-ce", "--", f"ray job submit -- {job}"]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = subprocess.run(submit, env=path, capture_output=True, text=True, check=True).stdout.splitlines()
    assert words[:5] == ["job", "submit", "--", "bash", "-c"]
    assert "dvc remote add -f -d store $NETINV_REMOTE &&" in words[5]


@pytest.mark.filterwarnings("ignore")  # of MLflow's libraries
def test_the_tracking_server_answers_at_the_address_that_its_page_names(root: Path) -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    settings = dict(
        line.split("=", 1) for line in (root / "mlflow/server.env.example").read_text().splitlines() if "=" in line
    )
    address = re.search(r"docker compose up -d +# on http://(\S+);", (root / "mlflow/README.md").read_text())
    assert address
    assert is_allowed_host_header(settings["MLFLOW_ALLOWED_HOSTS"].split(","), address[1])


def test_no_service_of_the_tracking_server_is_root_or_has_the_stores_root_account(root: Path) -> None:
    services = load(root / "mlflow/compose.yaml")["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        if name == "owner":  # whose one command is to give a folder away, without a network
            assert (service["entrypoint"][0], service["cap_add"], service["network_mode"]) == (
                "chown",
                ["CHOWN"],
                "none",
            )
        elif name != "mlflow":  # whose image has a user
            assert service["user"].split(":")[0] not in ("root", "0"), name
    assert "USER mlflow" in (root / "mlflow/Dockerfile").read_text()
    store, server = services["minio"]["environment"], services["mlflow"]["environment"]
    assert server["AWS_ACCESS_KEY_ID"] != store["MINIO_ROOT_USER"]
    assert server["AWS_SECRET_ACCESS_KEY"] != store["MINIO_ROOT_PASSWORD"]
    policy = json.loads((root / "mlflow/s3_policy.json").read_text())
    resources = {resource for statement in policy["Statement"] for resource in statement["Resource"]}
    assert resources == {"arn:aws:s3:::mlflow", "arn:aws:s3:::mlflow/*"}
    secrets = {line.partition("=")[0] for line in (root / "mlflow/server.env.example").read_text().splitlines()}
    assert set(re.findall(r"\$\{(\w+):\?\}", (root / "mlflow/compose.yaml").read_text())) <= secrets


def test_the_versions_are_those_of_this_repository(root: Path) -> None:
    pinned = re.search(r"^ray==([\d.]+)", (root / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert load(root / "deploy/rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    assert f"rayproject/ray:{pinned[1]}-py311" in (root / "deploy/README.md").read_text()
