"""clusters/kuberay.yaml against the fields that KubeRay knows, and as Ray's autoscaler reads it."""

import copy
import os
import tomllib
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from raycluster import PART, beyond, published, unused

ROOT = Path(__file__).parents[1]
CLOUD = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def objects():
    """The objects in the file, by kind."""
    content = (ROOT / "clusters/kuberay.yaml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(content)}


def pods(cluster):
    """The pods of the head and of each group."""
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def errors(cluster, schema=PART):
    return [error.message for error in Draft202012Validator(schema).iter_errors(cluster)]


def test_kuberay_knows_the_fields(objects):
    Draft202012Validator.check_schema(PART)
    assert errors(objects["RayCluster"]) == []


def test_the_part_of_the_definition_has_exactly_the_fields_of_the_file(objects):
    assert unused(PART, objects["RayCluster"]) == set()


DEFINITION = """
spec:
  versions:
    - name: v1alpha1
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          required: [size]
          properties:
            kind: {type: string}
            mode: {type: string, enum: [a, b]}
            size:
              anyOf: [{type: integer}, {type: string}]
              pattern: ^[0-9]+$
              x-kubernetes-int-or-string: true
            pods: {type: array, items: {type: object, properties: {name: {type: string}}}}
            free: {type: object, additionalProperties: {type: string}}
"""


def test_a_published_definition_refuses_what_kubectl_refuses(tmp_path):
    (tmp_path / "definition.yaml").write_text(DEFINITION)
    whole = published(tmp_path / "definition.yaml")
    good = {"mode": "a", "size": 3, "pods": [{"name": "x"}], "free": {"y": "z"}}
    assert errors(good, whole) == []
    for wrong in (
        {"size": "x"},
        {"mode": "c"},
        {"other": 1},
        {"pods": [{"names": "x"}]},
        {"free": {"y": 1}},
    ):
        assert len(errors(good | wrong, whole)) == 1
    assert len(errors({"mode": "a"}, whole)) == 1
    part = {
        "type": "object",
        "required": ["size", "mode"],
        "properties": {
            "mode": {"type": "string", "enum": ["a"]},
            "pods": {"type": "array", "items": {"type": "object"}},
        },
    }
    assert list(beyond(part, whole)) == []
    part["properties"] |= {"mode": {"type": "string"}, "pods": {"type": "object"}, "more": {}}
    part["required"] = []
    assert [said.split(":")[0] for said in beyond(part, whole)] == ["", ".mode", ".pods", ".more"]


@pytest.mark.skipif(
    "RAYCLUSTER_CRD" not in os.environ,
    reason="RAYCLUSTER_CRD names no file with KubeRay's definition (ray.io_rayclusters.yaml)",
)
def test_the_whole_published_definition_accepts_the_file(objects):
    whole = published(os.environ["RAYCLUSTER_CRD"])
    assert errors(objects["RayCluster"], whole) == []
    assert list(beyond(PART, whole)) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("authOption",), {"mode": "token"}),
        (("authOptions", "mode"), "tokens"),
        (("autoscalerOptions", "version"), 2),
        (("headGroupSpec", "resources", "CPU"), 0),
        (("headGroupSpec", "rayStartParams", "disable-usage-stats"), True),
        (("headGroupSpec", "template", "spec", "serviceAccount"), "geosweep"),
        (("workerGroupSpecs", 0, "minReplicas"), "0"),
        (("workerGroupSpecs", 0, "template", "spec", "containers"), []),
    ],
)
def test_a_field_that_kubernetes_would_refuse_is_found(objects, place, value):
    cluster = copy.deepcopy(objects["RayCluster"])
    inside = cluster["spec"]
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = value
    assert errors(cluster)


def test_the_autoscaler_sees_the_same_kinds_of_nodes_as_on_aws(objects):
    cluster = copy.deepcopy(objects["RayCluster"])
    cluster["metadata"]["namespace"] = "default"
    found = _derive_autoscaling_config_from_ray_cr(cluster)
    kinds = found["available_node_types"]
    for name, cloud in CLOUD["available_node_types"].items():
        kind = kinds["headgroup" if name == "head" else name]
        asked = {key: kind["resources"][key] for key in cloud["resources"]}
        assert asked == cloud["resources"]
        assert kind["max_workers"] == cloud.get("max_workers", 0)
    assert found["idle_timeout_minutes"] == CLOUD["idle_timeout_minutes"]


def test_pods_have_the_environment_of_nodes_on_aws(objects):
    given = objects["ConfigMap"]["data"]
    lines = [c for c in CLOUD["setup_commands"] if c.startswith("echo 'export ")]
    exported = dict(c.split("export ", 1)[1].split("'")[0].split("=", 1) for c in lines)
    exported.pop("PATH")  # the image has it
    exported.pop("RAY_AUTH_MODE")  # KubeRay sets it
    assert given == exported
    (name,) = {objects[kind]["metadata"]["name"] for kind in objects}
    for pod in pods(objects["RayCluster"]):
        assert pod["serviceAccountName"] == name
        assert pod["restartPolicy"] == "Never"
        for container in pod["containers"]:
            assert container["envFrom"] == [{"configMapRef": {"name": name}}]


def test_the_dashboard_asks_for_a_token_and_is_on_loopback_like_mlflow(objects):
    spec = objects["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    assert (
        "mlflow server --host 127.0.0.1"
        in pods(objects["RayCluster"])[0]["containers"][1]["args"][0]
    )
    assert "0.0.0.0" not in (ROOT / "clusters/kuberay.yaml").read_text()


def test_the_image_has_what_the_project_needs(objects):
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={objects['RayCluster']['spec']['rayVersion']}" in pinned
    lines = (ROOT / "clusters/Dockerfile").read_text().splitlines()
    copied = " ".join(line for line in lines if line.startswith("COPY")).split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    needed = {"Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    needed |= {name.removesuffix("*") for name in packages}
    assert needed <= set(copied)
    kept = (ROOT / "clusters/Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in needed} <= set(kept)
