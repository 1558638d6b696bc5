"""Machines that a driver asks for."""

import time

import pytest
import ray
from ray.cluster_utils import Cluster

from tune_jobs.cluster.machines import Demand

pytestmark = [pytest.mark.ray, pytest.mark.long]  # a Ray of its own


@pytest.fixture
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_waiting_assignments_ask_for_cpu_workers_and_no_longer_than_they_wait(cluster, monkeypatch):
    monkeypatch.delenv("GEOSWEEP_SCORING", raising=False)
    nothing = Demand()
    nothing.look(100)
    assert not nothing._asked
    monkeypatch.setenv("GEOSWEEP_SCORING", "scoring")
    demand = Demand()
    demand.look(17)
    assert len(demand._asked) == 2
    time.sleep(1)
    demand.look(9)  # nobody came
    assert len(demand._asked) == 1
    (asked,) = demand._asked
    cluster.add_node(num_cpus=1, resources={"scoring": 1})
    assert ray.get(asked, timeout=60) is None
    demand.look(0)
    assert not demand._asked
