"""The cluster files: what Ray says to them, and which machines a made-up AWS gives for one."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
FILES = ["ray_cluster.yaml", "clusters/onprem.yaml"]
AWS = ROOT / "ray_cluster.yaml"

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
    document = (ROOT / "docs/cluster.md").read_text()
    assert "TCP 22, 6379 and 10002 to 20001" in document  # 10002 to 19999 are Ray's for its workers
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [command for command in file[commands] if "ray start" in command]
        assert "6379" in start
        assert "--node-manager-port=20000 --object-manager-port=20001" in start


def test_nodes_on_aws_are_watched_and_end_when_they_shut_themselves_down():
    file = yaml.safe_load(AWS.read_text())
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


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a made-up AWS has after Ray has asked it for the head and a node of each type."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "AWS_ACCESS_KEY_ID": "made-up",
        "AWS_SECRET_ACCESS_KEY": "made-up",
        "AWS_DEFAULT_REGION": "us-west-2",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("made_up_aws.py")), str(AWS)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_aws_is_asked_for_the_machines_that_the_file_names(made):
    kinds = {
        node["Tags"]["ray-user-node-type"]: (node["InstanceType"], node.get("InstanceLifecycle"))
        for node in made["nodes"]
    }
    assert kinds == {
        "head": ("m7i.2xlarge", None),
        "gpu": ("g6.xlarge", "spot"),
        "cpu": ("c7i.4xlarge", "spot"),
    }


def test_nodes_on_aws_say_whose_they_are_and_their_disks_go_with_them(made):
    for node in made["nodes"]:
        assert node["Tags"]["ray-cluster-name"] == "geosweep"
        kind = "head" if node["Tags"]["ray-user-node-type"] == "head" else "worker"
        assert node["Tags"]["ray-node-type"] == kind
        (disk,) = node["BlockDeviceMappings"]
        assert disk["Ebs"]["DeleteOnTermination"]
    disks = [(disk["Size"], disk["VolumeType"]) for disk in made["disks"]]
    assert disks == [(100, "gp3")] * 3


def test_on_aws_nothing_but_ssh_is_open_to_the_world(made):
    (group,) = made["groups"]
    assert group["GroupName"] == "geosweep"
    for node in made["nodes"]:
        assert [g["GroupId"] for g in node["SecurityGroups"]] == [group["GroupId"]]
    world = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in world] == [
        ("tcp", 22, 22)
    ]
    (inside,) = [rule for rule in group["IpPermissions"] if rule not in world]
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == [group["GroupId"]]


def test_nodes_on_aws_are_terminated_not_stopped(made):
    assert made["left"] == []
