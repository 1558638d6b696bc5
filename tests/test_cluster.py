"""The cluster files: what Ray says to them, and which machines a made-up AWS gives for one."""

import json
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


def test_homes_that_are_shared_are_set_up_by_one_machine_at_a_time():
    setup = yaml.safe_load((ROOT / "clusters/onprem.yaml").read_text())["setup_commands"]
    assert setup[-1] == "cd ~/geosweep && flock .setup make .venv/ready"
    written = [command for command in setup if command.startswith("echo")]
    assert all(command.endswith("> ~/geosweep/environment.$HOSTNAME") for command in written)
    assert "mv ~/geosweep/environment.$HOSTNAME ~/geosweep/environment" in setup
