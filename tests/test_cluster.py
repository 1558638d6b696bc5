"""The cluster file, as far as it can be checked without a cloud."""

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parents[1] / "ray_cluster.yaml"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def cluster():
    return yaml.safe_load(FILE.read_text())


def test_ray_accepts_the_cluster_file(cluster):
    validate_config(prepare_config(cluster))


def test_every_node_starts_ray_with_the_token_and_nothing_listens_to_the_world(cluster):
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = cluster[commands][-1]
        assert "RAY_AUTH_MODE=token" in start
        assert "0.0.0.0" not in start
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]
