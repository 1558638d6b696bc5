"""Where scorers are placed, and what happens when one dies."""

import os
import signal
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import ray
from numpy.testing import assert_allclose, assert_array_equal
from ray.cluster_utils import Cluster
from ray.exceptions import RayActorError, RayTaskError

from scoring import actors, large
from scoring.actors import Pool, capacity
from scoring.problems import assignment_problem

pytestmark = [pytest.mark.ray, pytest.mark.long]  # a Ray of its own


def node(name, gpus=0, alive=True, cpus=8):
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": float(cpus), "GPU": gpus}}


def test_scorers_go_to_nodes_without_a_gpu_if_there_are_any():
    assert capacity([node("head"), node("accelerator", gpus=4), node("cpu")]) == {
        "head": 8,
        "cpu": 8,
    }


def test_scorers_share_nodes_with_gpus_where_there_are_no_others():
    assert capacity([node("one", gpus=1), node("two", gpus=2)]) == {"one": 8, "two": 8}


def test_a_node_gets_a_scorer_for_each_of_its_cpus_up_to_eight_and_at_least_one():
    assert capacity([node("small", cpus=2), node("head", cpus=0), node("large", cpus=96)]) == {
        "small": 2,
        "head": 1,
        "large": 8,
    }


def test_dead_nodes_get_no_scorer():
    assert capacity([node("gone", alive=False), node("here")]) == {"here": 8}


@ray.remote(num_cpus=0)
class Puppet:
    """A scorer that only notes its node; words in a trial's name say how it ends."""

    def finish(self, root: str, trial: str, released_at: datetime, share: int) -> None:
        tries = Path(root, trial)
        before = tries.read_text() if tries.exists() else ""
        tries.write_text(before + ray.get_runtime_context().get_node_id() + "\n")
        if "always" in trial or ("once" in trial and not before):
            os._exit(1)
        if "wrong" in trial:
            raise ValueError("not a trial")
        while "slow" in trial and not Path(root, "go").exists():
            time.sleep(0.05)


@pytest.fixture(autouse=True)
def puppets(monkeypatch):
    monkeypatch.setattr(actors, "Scorer", Puppet)
    monkeypatch.setattr(actors, "PATIENCE", 0.0)


@pytest.fixture(scope="module")
def cluster():
    """A head that declares a GPU, so that scorers avoid it, and a node for one scorer."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1})
    cluster.node = cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def ended(pool, seconds=60):
    """Wait until a pool has nothing left; returns how its trials ended."""
    found, until = {}, time.monotonic() + seconds
    while pool.left and time.monotonic() < until:
        found |= dict(pool.collect(timeout=0.2))
    assert not pool.left
    return found


def tries(root, trial):
    """The nodes on which a trial was started."""
    return (root / trial).read_text().split() if (root / trial).exists() else []


def begun(pool, root, trial, nodes, seconds=60):
    """Wait until a trial has been started on these nodes."""
    until = time.monotonic() + seconds
    while tries(root, trial) != nodes and time.monotonic() < until:
        assert list(pool.collect(timeout=0.1)) == []
    assert tries(root, trial) == nodes


def test_a_trial_whose_scorer_dies_goes_to_another_one_and_twice_at_most(cluster, tmp_path):
    pool = Pool(str(tmp_path))
    for trial in ("once", "always", "wrong", "well"):
        pool.submit(trial)
    found = ended(pool)
    assert {found["once"], found["well"]} == {None}
    assert isinstance(found["wrong"], RayTaskError)
    assert "died" in str(found["always"])
    numbers = [len(tries(tmp_path, trial)) for trial in ("once", "always", "wrong", "well")]
    assert numbers == [2, 1 + actors.RETRIES, 1, 1]


def test_a_scorer_without_work_ends(cluster, tmp_path, monkeypatch):
    pool = Pool(str(tmp_path))
    pool.submit("well")
    ended(pool)
    (scorer,) = pool._free
    list(pool.collect())
    assert pool._free == [scorer]
    monkeypatch.setattr(actors, "IDLE", 0.0)
    list(pool.collect())
    assert pool._free == []
    calls = (scorer.actor.finish.remote(str(tmp_path), "well", None, 1) for _ in range(1000))
    with pytest.raises(RayActorError):  # it may answer a few until it has ended
        any(ray.get(call, timeout=30) for call in calls)


def test_the_passes_of_a_large_assignment_are_spread_over_nodes_and_survive_kills(
    cluster, monkeypatch
):
    from scoring import transport

    monkeypatch.setattr(transport, "HELD", 0)  # no problem is too small
    nodes = {one["NodeID"]: 1 for one in ray.nodes() if one["Alive"]}
    monkeypatch.setattr(actors, "capacity", lambda _: nodes)
    monkeypatch.setattr(large, "integers", lambda: False)  # searchers need no torch
    known, searched = [], actors._searched
    monkeypatch.setattr(actors, "_searched", lambda *a: known.append(a[0]) or searched(*a))
    x, y = np.random.default_rng(0).normal(size=(2, 1200, 12))
    problem, cost = assignment_problem(x, y), ((x[:, None] - y) ** 2).sum(-1)
    wanted = transport.solve(problem, threads=1)
    with actors.across_nodes():
        steps = transport.solving(problem, threads=1)
        next(steps)
        found = ray._private.state.actors().values()
        alive = [a for a in found if (a["ActorClassName"], a["State"]) == ("Searcher", "ALIVE")]
        assert {actor["Address"]["NodeID"] for actor in alive} == {*nodes}
        os.kill(alive[0]["Pid"], signal.SIGKILL)  # it starts again
        for _ in range(7):
            next(steps)
        for searcher in known[0][:]:
            ray.kill(searcher)  # for good: the rest is done here
        result = large.ended(steps)
    assert not known[-1]
    assert wanted.ties == 0
    assert_array_equal(result.permutation, wanted.permutation)
    assert_allclose(result.optimal_cost, wanted.optimal_cost, rtol=1e-12)
    assert_allclose(result.psi, wanted.psi, rtol=1e-9, atol=1e-9)
    assert result.suboptimality <= 1e-9
    assert (cost - result.phi[:, None] - result.psi).min() >= -1e-9 * cost.max()  # the proof


def test_a_node_that_dies_takes_no_trial_with_it(cluster, tmp_path):
    pool = Pool(str(tmp_path))
    pool.submit("slow")
    first = cluster.node.node_id
    begun(pool, tmp_path, "slow", [first])
    cluster.remove_node(cluster.node, allow_graceful=False)
    second = cluster.add_node(num_cpus=1).node_id
    begun(pool, tmp_path, "slow", [first, second])
    (tmp_path / "go").touch()
    assert ended(pool) == {"slow": None}
    assert tries(tmp_path, "slow") == [first, second]
