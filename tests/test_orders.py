"""Orders of workers that fail, in the words of Ray's own autoscaler."""

import logging
import stat
from contextlib import nullcontext
from types import SimpleNamespace
from unittest import mock

import pytest
import yaml
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.v2.instance_manager.common import InstanceUtil
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

from tune_jobs.cluster import jobs, orders
from tune_jobs.cluster.at import At
from tune_jobs.commands import cluster as commands

STAMP = "2026-11-28 16:48:37,640\tINFO x.py:1 -- "
CONFIG = {
    "cluster_name": "geosweep",
    "max_workers": 6,
    "provider": {"type": "aws", "region": "us-west-2"},
    "auth": {"ssh_user": "ubuntu"},
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "node_config": {}},
        "gpu": {"min_workers": 1, "max_workers": 4, "resources": {"GPU": 1}, "node_config": {}},
        "cpu": {"min_workers": 0, "max_workers": 2, "resources": {"CPU": 16}, "node_config": {}},
    },
    "setup_commands": [],
}


def step(worker: str, kind: str, before: str, after: str, why: str = "x") -> str:
    """The line that Ray logs when a worker goes from one status to another."""
    instance = Instance(instance_id=worker, instance_type=kind, status=getattr(Instance, before))
    update = InstanceUpdateEvent(new_instance_status=getattr(Instance, after), details=why)
    return STAMP + InstanceUtil.get_log_str_for_update(instance, update)


def fails(worker: str, kind: str = "gpu") -> str:
    why = "failed to install ray with errors: update-failed"
    return step(worker, kind, "RAY_INSTALLING", "RAY_INSTALL_FAILED", why)


def runs(worker: str, kind: str = "gpu") -> str:
    return step(worker, kind, "RAY_INSTALLING", "RAY_RUNNING")


def ends(worker: str, kind: str = "gpu") -> str:
    return step(worker, kind, "RAY_RUNNING", "RAY_STOPPED")


def test_a_launch_that_fails_is_shown_with_the_reason_of_the_provider(caplog, monkeypatch):
    def refuse(*words):
        raise NodeLaunchException("VcpuLimitExceeded", "more than your limit of 0", None)

    nothing = SimpleNamespace(
        get_cloud_node_config=lambda kind: {},
        get_node_resources=lambda kind: {},
        get_node_labels=lambda kind: {},
        get_config=lambda name, default=None: default,
    )
    provider = NodeProviderAdapter(
        SimpleNamespace(create_node_with_resources_and_labels=refuse),
        SimpleNamespace(get_cached_autoscaling_config=lambda: nothing),
    )
    logger = logging.getLogger(NodeProviderAdapter.__module__)
    for name, value in (("disabled", False), ("propagate", False), ("handlers", [caplog.handler])):
        monkeypatch.setattr(logger, name, value)  # Ray may have been started in this process
    with caplog.at_level(logging.INFO, logger=logger.name):
        for _ in range(2):
            provider._launch_nodes_by_type("gpu", 3, "request")
    (line,) = orders.explain(orders.read(STAMP + text for text in caplog.messages), "my.yaml")
    assert line.startswith("gpu: 6 launches failed, the last at 2026-11-28 16:48:37: ")
    assert "VcpuLimitExceeded: more than your limit of 0" in line
    assert "geosweep doctor --cluster my.yaml" in line


@pytest.fixture
def dashboard(monkeypatch):
    """A cluster without sweeps; ``log`` is the answer of its dashboard about the log of orders."""
    client = mock.Mock()
    client.list_jobs.return_value = []

    def get(method: str, path: str):
        text = client.log if "/logs/file?node_id=abc&filename=monitor.log" in path else ""
        nodes = {"data": {"result": {"result": [{"node_id": "abc"}]}}}
        return SimpleNamespace(status_code=client.status, text=text, json=lambda: nodes)

    client.status, client.log, client._do_request = 200, "", get
    monkeypatch.setattr(jobs, "connect", lambda *words: nullcontext(client))
    return client


def test_status_of_a_cluster_shows_what_failed(dashboard, capsys):
    dashboard.log = "\n".join(
        [STAMP + "Failed to launch 1 nodes of type gpu: no", fails("a", "cpu")]
    )
    commands.show(None, At(cluster="my.yaml"))
    said = capsys.readouterr().out
    assert "no sweep was submitted" in said
    assert "failed   gpu: 1 launches failed" in said
    assert "failed   cpu: 1 setups failed in a row" in said


def test_status_of_a_cluster_says_when_it_does_not_know_what_failed(dashboard, capsys):
    dashboard.status = 500
    commands.show(None, At(cluster="my.yaml"))
    assert "whether orders failed is not known" in capsys.readouterr().err


def test_a_worker_that_starts_well_ends_the_count():
    refused = STAMP + "Failed to launch 1 nodes of type gpu: no"
    assert orders.explain(orders.read([refused, fails("a"), runs("b")])) == []
    assert orders.read([fails("a"), runs("b"), fails("c")])["gpu"].setups == 1


def test_types_are_counted_apart_and_other_lines_do_not_count():
    lines = [fails("a"), fails("b", "cpu"), "", "Update instance", STAMP + "Adding 1 node(s)."]
    assert {name: kind.setups for name, kind in orders.read(lines).items()} == {"gpu": 1, "cpu": 1}


@pytest.fixture
def head(tmp_path):
    """The cluster file and the log on a head, what was said, and the limiter."""
    config, log, said = tmp_path / "config.yaml", tmp_path / "monitor.log", []
    config.write_text(yaml.safe_dump(CONFIG))
    config.chmod(0o600)
    return SimpleNamespace(
        config=config, log=log, said=said, limit=orders.Limiter(config, log, said.append)
    )


def add(head, *lines: str) -> int:
    """Log lines and limit; the most GPU workers that Ray may have then."""
    with head.log.open("a") as stream:
        stream.writelines(f"{line}\n" for line in lines)
    head.limit()
    kinds = FileConfigReader(str(head.config)).get_cached_autoscaling_config()
    return kinds.get_node_type_configs()["gpu"].max_worker_nodes


def wanted(head) -> dict[str, int]:
    """What Ray would order now for trials that wait for a GPU."""
    config = FileConfigReader(str(head.config)).get_cached_autoscaling_config()
    waiting = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"GPU": 1})])
    request = SchedulingRequest(
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=waiting,
        disable_launch_config_check=True,
    )
    reply = ResourceDemandScheduler(
        SimpleNamespace(log_cluster_scheduling_update=lambda **words: None)
    ).schedule(request)
    return {order.instance_type: order.count for order in reply.to_launch}


def test_three_failed_setups_in_a_row_end_the_orders(head):
    head.limit()  # before there is a log
    assert wanted(head)["gpu"] >= 1
    assert add(head, fails("a"), fails("b")) == 4
    assert add(head, fails("c")) == 0
    assert "gpu" not in wanted(head)
    assert head.said == ["gpu: 3 setups failed in a row; at most 0 from now on"]
    assert add(head, fails("d")) == 0
    assert len(head.said) == 1
    assert stat.S_IMODE(head.config.stat().st_mode) == 0o600
    other = yaml.safe_load(head.config.read_text())["available_node_types"]["cpu"]
    assert other == CONFIG["available_node_types"]["cpu"]


def test_workers_that_run_stay_and_no_others_come(head):
    assert add(head, runs("a"), runs("b"), fails("c"), fails("d"), fails("e")) == 2
    assert add(head, ends("a")) == 1


def test_ray_up_starts_anew(head):
    assert add(head, fails("a"), fails("b"), fails("c")) == 0
    head.config.write_text(yaml.safe_dump(CONFIG))
    head.log.unlink()
    head.log.with_name("new").touch()  # takes the number of the old file, if that is free
    assert add(head, fails("d")) == 4


def test_a_line_that_is_half_written_is_read_when_it_is_whole(head):
    text = f"{fails('a')}\n{fails('b')}\n{fails('c')}\n"
    for end in (len(text) - 5, len(text)):
        head.log.write_text(text[:end])
        head.limit()
        assert bool(head.said) is (end == len(text))
