"""The cluster files for `ray up`: what Ray says to them, and what nodes are given."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
FILES = ["ray_cluster.yaml", "clusters/gcp.yaml", "clusters/onprem.yaml"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=FILES)
def cluster(request):
    return yaml.safe_load((ROOT / request.param).read_text())


def test_ray_accepts_the_cluster_files(cluster):
    validate_config(prepare_config(cluster))


def test_every_node_has_the_token_and_what_people_look_at_is_on_loopback(cluster):
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command for command in cluster["setup_commands"])
    head = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "mlflow server --host 127.0.0.1" in head
    assert "0.0.0.0" not in json.dumps(cluster)


def test_nodes_are_given_what_it_takes_to_set_geosweep_up(cluster):
    mounted = {source for source in cluster["file_mounts"].values() if "~" not in source}
    assert all((ROOT / source).exists() for source in mounted)
    assert mounted >= {"Makefile", "pyproject.toml", "constraints.txt", "README.md"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert mounted >= {name.removesuffix("*") for name in packages}


def test_the_document_names_the_ports_that_nodes_of_ones_own_use():
    file = yaml.safe_load((ROOT / "clusters/onprem.yaml").read_text())
    document = (ROOT / "docs/machines.md").read_text()
    assert "TCP 22, 6379 and 10002 to 20001" in document  # 10002 to 19999 are Ray's for its workers
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [command for command in file[commands] if "ray start" in command]
        assert "6379" in start
        assert "--node-manager-port=20000 --object-manager-port=20001" in start


def test_nodes_on_aws_are_watched_and_end_when_they_shut_themselves_down():
    file = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    (head,) = [c for c in file["head_start_ray_commands"] if "tune_jobs.cluster.watch" in c]
    (worker,) = [c for c in file["worker_start_ray_commands"] if "tune_jobs.cluster.watch" in c]
    assert "--head" not in head
    assert "--head $RAY_HEAD_IP:6379" in worker
    for kind in file["available_node_types"].values():
        assert kind["node_config"]["InstanceInitiatedShutdownBehavior"] == "terminate"


def test_homes_that_are_shared_are_set_up_by_one_machine_at_a_time():
    setup = yaml.safe_load((ROOT / "clusters/onprem.yaml").read_text())["setup_commands"]
    assert setup[-1] == "cd ~/geosweep && flock .setup make .venv/ready"
    written = [command for command in setup if command.startswith("echo")]
    assert all(command.endswith("> ~/geosweep/environment.$HOSTNAME") for command in written)
    assert "mv ~/geosweep/environment.$HOSTNAME ~/geosweep/environment" in setup


def test_every_type_of_node_in_a_cloud_has_the_storage_s_rights(cluster):
    """Ray gives an account to the head only; workers use the bucket, too."""
    storage = " ".join(cluster["setup_commands"]).split("GEOSWEEP_STORAGE=")[1].split("'")[0]
    rights = {"s3": "IamInstanceProfile", "gs": "serviceAccounts"}.get(storage.partition(":")[0])
    kinds = cluster.get("available_node_types", {})
    if rights is None:
        assert cluster["provider"]["type"] == "local"  # a path that every machine has
    else:
        assert kinds
        (given,) = {json.dumps(kind["node_config"].get(rights)) for kind in kinds.values()}
        assert given != "null"


def test_types_of_nodes_in_a_cloud_say_what_they_have(cluster):
    """Ray only warns if it cannot find out, and then starts no node with a GPU."""
    kinds = cluster.get("available_node_types", {})
    assert all("CPU" in kind["resources"] for kind in kinds.values())
    assert not kinds or kinds["gpu"]["resources"]["GPU"] == 1


def test_the_gcp_file_does_on_nodes_what_the_aws_file_does():
    aws, gcp = (yaml.safe_load((ROOT / name).read_text()) for name in FILES[:2])
    for key in ("file_mounts", "initialization_commands", "worker_start_ray_commands"):
        assert gcp[key] == aws[key]
    assert gcp["head_start_ray_commands"] == aws["head_start_ray_commands"]
    there = [c.replace("gs://", "s3://") for c in gcp["setup_commands"]]
    assert [c for c in aws["setup_commands"] if c not in there] == [
        "echo 'export AWS_DEFAULT_REGION=us-west-2' >> ~/geosweep/environment"
    ]


def test_new_machines_are_left_alone_until_they_have_set_themselves_up():
    wait, update, install = yaml.safe_load((ROOT / FILES[0]).read_text())["initialization_commands"]
    assert wait.startswith("cloud-init status --wait")
    assert update.startswith("for try in ")
    assert "DEBIAN_FRONTEND=noninteractive" in install


@pytest.mark.parametrize("address", ["", "10.0.0.11"])
def test_a_head_of_one_s_own_does_not_start_without_its_address(address):
    commands = yaml.safe_load((ROOT / "clusters/onprem.yaml").read_text())[
        "head_start_ray_commands"
    ]
    environment = {"RAY_CLOUD_INSTANCE_ID": address} if address else {}
    done = subprocess.run(
        ["bash", "-c", commands[0]], env=environment, capture_output=True, text=True
    )
    assert done.returncode == (0 if address else 1)
    assert ("RAY_UP_enable_autoscaler_v2" in done.stderr) == (not address)
