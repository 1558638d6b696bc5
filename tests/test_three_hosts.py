"""A cluster of three machines from nothing to a report and down again: ``make test-cluster``.

The machines are namespaces (hosts.py), the way there is SSH, and Ray starts as on any other
machines: ``ray up clusters/onprem.yaml``, with addresses, key and storage of this test.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
import yaml
from hosts import Hosts, missing
from mlflow.tracking import MlflowClient
from running import said_by

from analysis.results import load
from tune_jobs.cluster import reach

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(not (BIN.parent / "ready").exists(), reason="needs what make sets up"),
]

SWEEP = """
dataset: digits
architecture: [own_net.py:one, own_net.py:two]
gamma: [0, 1e-3]
epochs: 100
points: 60
epoch_points: 40
"""  # networks from a Python file that is sent along
SECOND = "dataset: digits\narchitecture: torchvision:resnet18\nepochs: 1\npoints: 60\n"
STOPPED = "dataset: digits\nlayers: fully_connected\nepochs: 100000\npoints: 60\n"
SCORES = ["lss", "lsr", "ots", "gap", "train_loss", "test_loss", "test_accuracy"]


class Cluster:
    """Three hosts, and a laptop that only SSH leads to them from."""

    def __init__(self, folder: Path, hosts: Hosts):
        self.folder, self.hosts = folder, hosts.hosts
        self.head, self.one, self.two = hosts.hosts
        self.file, self.storage = folder / "onprem.yaml", folder / "sweeps"
        for place in ("laptop", "ray", "tmp", "sweeps"):
            (folder / place).mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "laptop"),
            "RAY_TMPDIR": str(folder / "ray"),
            "TMPDIR": str(folder / "tmp"),
            "RAY_AUTH_MODE": "token",
        }
        for host in self.hosts:  # set up already: `make .venv/ready` finds it so
            (host.home / "geosweep").mkdir()
            (host.home / "geosweep" / ".venv").symlink_to(BIN.parent)
        content = yaml.safe_load((ROOT / "clusters" / "onprem.yaml").read_text())
        content["cluster_name"] = f"geosweep-test-{os.getpid()}"
        workers = [self.one.address, self.two.address]
        content["provider"] |= {"head_ip": self.head.address, "worker_ips": workers}
        content["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.key)}
        self._replace(content["setup_commands"], "/mnt/sweeps", str(self.storage))
        for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
            self._replace(content[commands], "ray start", "ray start --num-cpus=1")
        self.file.write_text(yaml.safe_dump(content))

    @staticmethod
    def _replace(commands: list[str], old: str, new: str) -> None:
        assert any(old in command for command in commands)
        commands[:] = [command.replace(old, new) for command in commands]

    def call(self, *command: str | Path, status: int = 0, **more: str) -> str:
        """What a command says on the laptop; it should end with an exit status."""
        return said_by(command, self.environment | more, status)

    def geosweep(self, *words: str, status: int = 0, **more: str) -> str:
        """What a command of geosweep says on the laptop."""
        command = [sys.executable, "-m", "tune_jobs.cli", *words, "--cluster", str(self.file)]
        return self.call(*command, status=status, **more)

    def submit(self, name: str, text: str) -> None:
        file = self.folder / f"{name}.yaml"
        file.write_text(text)
        shutil.copy(ROOT / "tests/own_net.py", self.folder)
        assert f"folder   {self.storage}/{name}\n" in self.geosweep("submit", str(file))

    def histories(self, name: str) -> dict[str, dict]:
        """What the sweep's trials have written beside their checkpoints, by trial."""
        files = (self.storage / name / "checkpoints").glob("[!.]*.json")
        return {file.stem: json.loads(file.read_text()) for file in files}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    with Hosts(folder / "hosts", ["head", "one", "two"]) as hosts:
        cluster = Cluster(folder, hosts)
        cluster.call("sh", "-c", f"umask 077; '{BIN}/ray' get-auth-token --generate")
        cluster.call(BIN / "ray", "up", "--yes", cluster.file)
        yield cluster


class Page:
    """``geosweep watch`` of a sweep on the cluster, on the laptop, until the end of ``with``."""

    def __init__(self, cluster: Cluster, name: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port, self.run = probe.getsockname()[1], ""
        self.said = cluster.folder / "watch.log"
        command = [sys.executable, "-m", "tune_jobs.cli", "watch", name, f"--port={self.port}"]
        with self.said.open("w") as said:
            self._process = subprocess.Popen(
                [*command, "--cluster", cluster.file],
                cwd=ROOT,
                env=cluster.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(60) == 130, self.said.read_text()

    def data(self, wanted: Callable[[dict], Any]) -> dict | None:
        """What the page is sent of the sweep, once it answers and that is as wanted."""
        assert self._process.poll() is None, self.said.read_text()
        try:
            asked = {"run": self.run, "since": "0"}  # of a page that has been here before
            found = requests.get(f"http://127.0.0.1:{self.port}/data", asked, timeout=20).json()
        except requests.ConnectionError:
            return None
        self.run = found["run"]
        return found if wanted(found) else None


@pytest.fixture(scope="module")
def swept(cluster, tmp_path_factory):
    """The sweep done on the cluster, with one worker killed, and its page open meanwhile.

    Returns:
        The trial that was on that worker, when, and what the page had then and after the end.
    """
    wait(lambda: all(host.processes("raylet/raylet") for host in cluster.hosts), 120)
    cluster.submit("sweep", SWEEP)
    cluster.submit("second", SECOND)

    def trial_on_two():
        for trial, history in cluster.histories("sweep").items():
            on_two = history["summary"].get("host") == "two"
            if on_two and 5 <= history["epochs"][-1]["epoch"] < 90:
                return trial
        return None

    with Page(cluster, "sweep") as page:
        trial = wait(trial_on_two, 200)
        cluster.two.lock_out()  # else the head would start Ray there again
        (raylet,) = cluster.two.processes("raylet/raylet")
        cluster.two.kill(raylet)
        killed = time.time()
        during = wait(lambda: page.data(lambda data: data["running"] and data["curves"]), 120)
        log = cluster.geosweep("logs", "sweep", "--follow")
        after = wait(lambda: page.data(lambda data: not data["running"]), 60)
    assert "4 of 4 done" in log
    assert not cluster.two.processes("raylet/raylet")
    cluster.two.let_in()
    cluster.geosweep("logs", "second", "--follow")
    return trial, killed, during, after


@pytest.fixture(scope="module")
def home(cluster, swept):
    """The sweep's folder, brought home."""
    target = cluster.folder / "home"
    said = cluster.geosweep("fetch", "sweep", "--out", str(target))
    assert "trials   4 of 4" in said
    return target


@pytest.fixture
def laptop(cluster, monkeypatch):
    """This process is on the laptop; its home folder."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return cluster.environment["HOME"]


def wait(look, patience: float):
    """What ``look`` finds, once it finds something."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.3)
    raise TimeoutError(f"not in {patience} s: {look}")


def test_trials_run_on_every_host(cluster, swept):
    hosts = {history["summary"]["host"] for history in cluster.histories("sweep").values()}
    assert hosts == {"head", "one", "two"}


def test_the_page_of_a_sweep_shows_it_while_it_runs_and_after_its_end(cluster, swept):
    *_, during, after = swept
    assert (during["name"], during["planned"]) == ("sweep", 4)
    assert during["folder"] == f"{cluster.storage}/sweep"
    assert "running" in {trial["status"] for trial in during["trials"]}
    assert [trial["status"] for trial in after["trials"]] == ["done"] * 4
    assert [[row[0] for row in curve] for _, curve in after["curves"].values()] == [
        [*range(101)]
    ] * 4
    for trial, (_, curve) in during["curves"].items():
        assert after["curves"][trial][1][: len(curve)] == curve
    assert not cluster.head.processes("analysis.watch")  # it ends with the command


def test_trials_of_a_killed_worker_go_on_elsewhere_from_their_checkpoints(home, swept):
    trial, killed, *_ = swept
    epochs = load(str(home)).epochs
    epochs = epochs[epochs.trial == trial]
    assert list(epochs.epoch) == list(range(101))
    finished = epochs.finished_at.map(lambda moment: moment.timestamp())
    assert (finished.diff().dropna() > 0).all()
    assert 5 <= (finished < killed).sum() < 101  # those before were not trained again


def test_the_same_file_and_seed_give_equal_results_on_one_machine(cluster, home, swept, tmp_path):
    out = tmp_path / "out"
    file = str(cluster.folder / "sweep.yaml")
    command = [sys.executable, "-m", "tune_jobs.cli", "run", file, "--out", str(out)]
    with tempfile.TemporaryDirectory(prefix="gs", dir="/tmp") as short:  # for paths of sockets
        cluster.call(*command, RAY_AUTH_MODE="disabled", RAY_TMPDIR=short)
    here, there = (load(str(root)) for root in (out, home))
    for table, key in (("trials", []), ("epochs", ["epoch"]), ("tracks", ["epoch", "stage"])):
        ours, theirs = (
            getattr(results, table).sort_values(["trial", *key]) for results in (here, there)
        )
        assert list(ours.trial) == list(theirs.trial)
        for name in SCORES:
            if name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_results_report_and_runs_in_mlflow_come_home(cluster, home, laptop):
    assert (home / "report" / "index.html").stat().st_size > 10_000
    with reach.tunnel(str(cluster.file), reach.MLFLOW) as port:
        theirs = load("sweep", tracking_uri=f"http://127.0.0.1:{port}")
    mine = load("sweep", tracking_uri=f"sqlite:///{home}/mlflow.db")
    assert len(theirs.epochs) == 4 * 101
    for table in ("trials", "epochs"):
        pd.testing.assert_frame_equal(getattr(mine, table), getattr(theirs, table))
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'sweep'")
    pages = [
        artifact.path
        for run in client.search_runs([experiment.experiment_id])
        for artifact in client.list_artifacts(run.info.run_id, "report")
    ]
    assert "report/index.html" in pages


def test_a_second_sweep_queues_and_says_behind_which(cluster, swept):
    assert "queued, one sweep at a time on a cluster; ahead: sweep (" in cluster.geosweep(
        "logs", "second"
    )
    states = [line.split()[1:] for line in cluster.geosweep("status").splitlines()[1:]]
    assert [(state, Path(folder).name) for state, _, _, folder in states] == [
        ("succeeded", "sweep"),
        ("succeeded", "second"),
    ]
    first, second = (cluster.histories(name).values() for name in ("sweep", "second"))
    ended = max(history["epochs"][-1]["finished_at"] for history in first)
    assert ended < min(history["summary"]["started_at"] for history in second)
    assert [h["summary"]["network"] for h in second] == ["torchvision:resnet18"]
    networks = {h["summary"]["network"].partition("#")[0] for h in first}
    assert networks == {"own_net.py:one", "own_net.py:two"}


def test_trained_networks_are_evaluated_on_the_cluster(cluster, home, swept, tmp_path):
    words = ("evaluate", "sweep", "noise", "--set", "noise.levels=0,64", "--no-report", "--follow")
    assert "4 of 4 done" in cluster.geosweep(*words)
    cluster.geosweep("fetch", "sweep", "--out", str(tmp_path / "home"))
    rows = load(str(tmp_path / "home")).robustness
    assert set(rows.level) == {0, 64}
    assert rows.trial.nunique() == 4


def test_a_stopped_sweep_keeps_its_epochs(cluster, swept):
    cluster.submit("stopped", STOPPED)
    wait(lambda: cluster.histories("stopped"), 120)
    assert "submit it again to continue" in cluster.geosweep("stop", "stopped")
    assert "1 begun, go on from a checkpoint" in cluster.geosweep("status", "stopped")
    assert "stopped: 0 of 1 done" in cluster.geosweep("logs", "stopped")


def test_requests_without_the_token_are_refused(cluster, swept, laptop, monkeypatch):
    with reach.tunnel(str(cluster.file), reach.DASHBOARD) as port:
        jobs = f"http://127.0.0.1:{port}/api/jobs/"
        assert requests.get(jobs, timeout=20).status_code == 401
        wrong = {"Authorization": f"Bearer {'0' * 64}"}
        assert requests.get(jobs, headers=wrong, timeout=20).status_code in (401, 403)
        ours = Path(laptop, ".ray", "auth_token").read_text().strip()
        right = {"Authorization": f"Bearer {ours}"}
        assert requests.get(jobs, headers=right, timeout=20).status_code == 200
    said = cluster.geosweep("status", status=2, RAY_AUTH_TOKEN="0" * 64)
    assert "not the cluster's token" in said
    said = cluster.geosweep("status", status=2, HOME=str(cluster.folder / "tmp"))
    assert "no token" in said
    # The scheduler's own port, too, from a machine of the same network.
    address = f"{cluster.head.address}:6379"
    ask = [BIN / "ray", "status", "--address", address]
    cluster.call(*ask, status=1, RAY_AUTH_MODE="disabled")
    assert "Resources" in cluster.call(*ask)


def test_nothing_listens_beyond_loopback_and_the_clusters_own_network(cluster, swept):
    for host in cluster.hosts:
        networks = json.loads(host.run("ip", "-j", "address"))
        assert [network["ifname"] for network in networks] == ["lo", "eth0"]
        listening = [line.split()[3] for line in host.run("ss", "-ltnH").splitlines()]
        ports = {int(place.rpartition(":")[2]): place.rpartition(":")[0] for place in listening}
        assert 22 in ports
        if host is cluster.head:
            assert ports[reach.DASHBOARD] == ports[reach.MLFLOW] == "127.0.0.1"
        places = {place.removeprefix("[::ffff:").rstrip("]") for place in ports.values()}
        everywhere = {"0.0.0.0", "*"}  # Ray's ports, behind its token
        assert places <= {"127.0.0.1", host.address, *everywhere}
    for port in (reach.DASHBOARD, reach.MLFLOW):
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://{cluster.head.address}:{port}", timeout=5)


def test_taken_down_nothing_is_left_running(cluster, swept):
    assert any(host.processes("raylet/raylet") for host in cluster.hosts)
    assert cluster.geosweep("down").endswith("down\n")

    def only_ssh():
        return not any(
            "sshd" not in args for host in cluster.hosts for args in host.processes().values()
        )

    wait(only_ssh, 20)
    assert "no head is running; ray up starts one" in cluster.geosweep("status", status=2)
