"""Sweeps on a cluster of several nodes: what runs where, and what every node needs first."""

import io
import time
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from models import datasets
from models.archives import ARRAYS
from models.errors import DataError
from scoring import places, storage
from tune_jobs import driver, service, sweep
from tune_jobs.cluster import nodes
from tune_jobs.errors import SweepError

pytestmark = [pytest.mark.ray, pytest.mark.long]  # a Ray of its own

SWEEP = """
layers: fully_connected
network: [plain, resnet]
gamma: [1e-3, 1e-2]
epochs: 1
points: 60
epoch_points: 40
"""


@pytest.fixture(scope="module")
def cluster(object_store_server):
    """A CPU node where the driver is, and one with two CPUs and, so it says, a GPU.

    The second one does not reach the object store.
    """
    cluster = Cluster()
    cluster.add_node(num_cpus=1, include_dashboard=False)
    elsewhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    cluster.add_node(num_cpus=2, num_gpus=1, env_vars=elsewhere)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def run(path, text, monkeypatch, root=None):
    """The state of a sweep at its end; each trial leaves the node it trained on, and when."""
    (path / "seen").mkdir(exist_ok=True)

    def train_cell(config, setup):  # Ray grants a GPU that does not exist; train without it
        from tune_jobs.trial import run_trial

        context, begun = ray.get_runtime_context(), time.time()
        run_trial(config, replace(setup, gpus=0))
        seen = [context.get_node_id(), str(setup.gpus), str(begun), str(time.time())]
        (path / "seen" / f"{config['network']}-{config['gamma']}").write_text(" ".join(seen))

    monkeypatch.setattr(driver, "train_cell", train_cell)
    (path / "sweep.yaml").write_text(text)
    found, address = sweep.read(str(path / "sweep.yaml")), ray.get_runtime_context().gcs_address
    request = service.check(found, root or str(path / "out"), None, address)
    state = service.run(request, Console(file=io.StringIO(), width=120))
    seen = [file.read_text().split() for file in (path / "seen").iterdir()]
    return state, [(node, float(gpus), float(a), float(b)) for node, gpus, a, b in seen]


def scorers():
    """The nodes that the scorers of this sweep live on."""
    actors = ray._private.state.actors().values()
    alive = [a for a in actors if a["ActorClassName"] == "Scorer" and a["State"] == "ALIVE"]
    return {a["Address"]["NodeID"] for a in alive}


def ids(gpu):
    alive = [node for node in ray.nodes() if node["Alive"]]
    return {node["NodeID"] for node in alive if bool(node["Resources"].get("GPU")) == gpu}


def test_trials_share_a_gpu_and_scorers_stay_off_its_node(cluster, tmp_path, monkeypatch):
    where = set()
    collect = driver.Driver._collect

    def watched(self, timeout=0):
        where.update(scorers())
        collect(self, timeout)

    monkeypatch.setattr(driver.Driver, "_collect", watched)
    two = SWEEP.replace("[1e-3, 1e-2]", "1e-3") + "resources: {cpus: 1, gpus: 0.5}"
    two = two.replace("epochs: 1", "epochs: 60")  # The first must not end before the second starts.
    state, seen = run(tmp_path, two, monkeypatch)
    assert [row["status"] for row in state.rows.values()] == ["done"] * 2
    assert {node for node, *_ in seen} == ids(gpu=True)
    assert {gpus for _, gpus, *_ in seen} == {0.5}
    assert max(begun for *_, begun, _ in seen) < min(ended for *_, ended in seen)  # side by side
    assert where == ids(gpu=False)
    assert storage.list_files(str(tmp_path / "out"), places.NODES) == []


def test_trials_that_fill_every_cpu_do_not_keep_scorers_from_finishing_them(
    cluster, tmp_path, monkeypatch
):
    state, seen = run(tmp_path, SWEEP + "resources: {cpus: 1, gpus: 0}", monkeypatch)
    assert [row["status"] for row in state.rows.values()] == ["done"] * 4
    assert {node for node, *_ in seen} == ids(gpu=False) | ids(gpu=True)


def test_a_folder_that_a_node_does_not_share_is_named_before_anything_trains(
    cluster, object_store, tmp_path, monkeypatch
):
    root = f"{object_store}/{tmp_path.name}"
    with pytest.raises(SweepError, match=r"on every node: .*--out") as told:
        run(tmp_path, SWEEP, monkeypatch, root)
    assert str(told.value).count("AWS Error NETWORK_CONNECTION") == 1  # the other node has it
    assert list((tmp_path / "seen").iterdir()) == []
    assert storage.list_files(root, "checkpoints") == []


def test_a_node_that_comes_later_looks_for_the_folder_and_takes_the_data_from_there_once(
    tmp_path, monkeypatch
):
    root, data = str(tmp_path / "out"), datasets.load("digits")
    where = (root, "digits", {"digits": "/nowhere/on/this/node.npz"}, None)
    shared = nodes.Shared("token", {"digits": data.checksum})
    with pytest.raises(nodes.NotShared, match="out: not the driver's folder on"):
        nodes.load(*where, shared)
    storage.write_file(root, f"{places.NODES}/token", b"")
    arrays = {key: getattr(data, key) for key in ARRAYS}
    with storage.writing(root, places.dataset(data.checksum)) as stream:
        np.savez(stream, **arrays)
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "another node"))
    taken = nodes.load(*where, shared)
    storage.delete(root, places.DATA)
    again = nodes.load(*where, shared)
    for key in ARRAYS:
        np.testing.assert_array_equal(getattr(taken, key), arrays[key])
        assert getattr(again, key).filename == getattr(taken, key).filename
    assert (taken.checksum, taken.mean) == (data.checksum, data.mean)


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def zeroed(path):
    content = bytearray(path.read_bytes())
    content[5000:6000] = bytes(1000)
    path.write_bytes(content)


def unlinked(path):
    path.unlink()


@pytest.mark.parametrize("damage", [emptied, cut, zeroed, unlinked])
def test_damaged_data_in_the_folder_is_named_and_the_next_run_writes_it_again(
    tmp_path, monkeypatch, damage
):
    root, data = str(tmp_path / "out"), datasets.load("digits")
    names = {"digits": data.checksum}
    request = mock.Mock(root=root, checksums=names, sources={"digits": "digits"}, data=None)
    path = tmp_path / "out" / places.dataset(data.checksum)
    nodes._put_data(request)
    storage.write_file(root, f"{places.NODES}/token", b"")
    damage(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOSWEEP_CACHE", str(tmp_path / "another node"))
        with pytest.raises(DataError, match=f"^{path}: .*; the next geosweep run writes"):
            nodes.load(root, "digits", {}, None, nodes.Shared("token", names))
    nodes._put_data(request)
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "another node"))
    taken = nodes.load(root, "digits", {}, None, nodes.Shared("token", names))
    assert taken.checksum == data.checksum
    written = path.stat().st_mtime_ns
    nodes._put_data(request)
    assert path.stat().st_mtime_ns == written


def test_data_that_is_not_what_it_should_be_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path))
    content = io.BytesIO()
    data = datasets.load("digits")
    np.savez(content, **{key: getattr(data, key)[:300] for key in ARRAYS})
    content.seek(0)
    with pytest.raises(DataError, match="has the checksum"):
        datasets.keep("0123456789abcdef", lambda: content)
    with pytest.raises(DataError, match="cannot be read as"):
        datasets.keep("0123456789abcdef", io.BytesIO)
