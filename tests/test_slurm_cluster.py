"""Sweeps on a real Slurm of two nodes, from nothing to a report: ``make test-cluster``."""

import json
import os
import sys
import time
from datetime import UTC
from pathlib import Path

import pandas as pd
import pytest
import slurm
from running import said_by

from analysis.results import load

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(slurm.missing() is not None, reason=slurm.missing() or ""),
]

FILE = """
storage: {folder}/my sweeps
time: "00:10:00"
nodes: {nodes}
cpus: 1
grace: 60
setup: export GEOSWEEP_CACHE="{folder}/cache"
"""
SWEEP = """
dataset: digits
layers: fully_connected
gamma: [0, 1e-3, 1e-2]
epochs: 60
points: 60
epoch_points: 40
"""  # three cells on two nodes, so that one has not begun when the time is over


class Site:
    """A Slurm cluster, and its login node, which is this machine."""

    def __init__(self, folder: Path, cluster: slurm.Cluster):
        self.folder, self.cluster = folder, cluster
        self.storage = folder / "my sweeps"
        for nodes in (1, 2):
            (folder / f"{nodes}.yaml").write_text(FILE.format(folder=folder, nodes=nodes))
        (folder / "sweep.yaml").write_text(SWEEP)
        self.environment = os.environ | cluster.environment | {"HOME": str(folder)}
        self.environment |= {"TMPDIR": "/tmp", "OMP_NUM_THREADS": "1"}

    def geosweep(self, nodes: int, *words: str, status: int = 0) -> str:
        """What a command says."""
        command = [sys.executable, "-m", "tune_jobs.cli", *words]
        command += ["--slurm", str(self.folder / f"{nodes}.yaml")]
        return said_by(command, self.environment, status)

    def submit(self, nodes: int, *words: str) -> tuple[Path, str]:
        """Submit the sweep; the job's folder, and Slurm's number of it."""
        said = self.geosweep(nodes, "submit", str(self.folder / "sweep.yaml"), *words)
        job = self.storage / ".jobs" / said.split()[1]
        return job, (job / "slurm.txt").read_text()

    def epochs(self, name: str) -> list[int]:
        """How far the trials of a sweep are that have begun."""
        files = (self.storage / name / "checkpoints").glob("[!.]*.json")
        return [json.loads(file.read_text())["epochs"][-1]["epoch"] for file in files]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with slurm.Cluster(folder / "slurm") as cluster:
        yield Site(folder, cluster)


@pytest.fixture(scope="module")
def swept(site):
    """The sweep done on two nodes, in two starts; its job, and when the first start ended."""
    job, number = site.submit(2)
    other, cancelled = site.submit(1, "--out", "other", "--set", "epochs=100000")
    wait(lambda: len(site.epochs("sweep")) >= 2 and min(site.epochs("sweep")) >= 2)
    wait(lambda: site.epochs("other"))
    assert (job / "token").stat().st_mode & 0o777 == 0o600
    assert not (other / "token").exists()  # one node: in no file at all
    # Two jobs on one node at once, of which one ends.
    places, ours = site.cluster.ports(cancelled), site.cluster.ports(number)
    assert len(places) > 3
    assert not {*places} & {*ours}
    assert {*places.values()} <= {"0100007F", "0000000000000000FFFF00000100007F"}  # loopback
    site.cluster.call("scancel", cancelled)
    # Slurm sends this signal so many seconds before the time limit.
    site.cluster.call("scancel", "--batch", "--signal=USR1", number)
    wait(lambda: "goes back into the queue" in (job / "log").read_text())
    ended = pd.Timestamp.now(UTC)
    assert not (job / "token").exists()
    wait(lambda: not site.cluster.processes(cancelled))
    said = site.geosweep(2, "logs", job.name, "--follow")
    assert "3 of 3 done" in said
    return job, number, cancelled, places, ended


def wait(look, patience: float = 300) -> None:
    until = time.monotonic() + patience
    while not look():
        assert time.monotonic() < until, look
        time.sleep(0.2)


def test_a_job_near_its_time_limit_goes_back_into_the_queue_and_goes_on(site, swept):
    job, number, *_, ended = swept
    log = (job / "log").read_text()
    assert f"start 2 of Slurm job {number}" in log
    assert log.count("2 nodes") == 2
    assert "go on from a checkpoint)" in log
    results = load(str(site.storage / "sweep"))
    assert list(results.trials.status) == ["done"] * 3
    before = 0
    for _, epochs in results.epochs.groupby("trial"):
        assert list(epochs.epoch) == list(range(61))  # every epoch once
        assert epochs.finished_at.is_monotonic_increasing
        before += (epochs.finished_at < ended).sum()
    assert 4 <= before < 3 * 61


def test_after_scancel_no_process_and_no_port_is_left(site, swept):
    _, _, cancelled, places, _ = swept
    assert not site.cluster.processes(cancelled)
    assert not {*places} & {*site.cluster.ports(cancelled)}
    lines = site.geosweep(1, "status").splitlines()
    assert [line.split()[1] for line in lines] == ["state", "succeeded", "stopped"]


def test_when_a_job_has_ended_only_what_it_says_is_left(site, swept):
    job, number, *_ = swept
    wait(lambda: not site.cluster.processes(number), 30)
    assert {file.name for file in job.iterdir()} == {
        "ended.json",
        "job.json",
        "job.sh",
        "log",
        "slurm.txt",
        "sweep.yaml",
    }


def test_a_stopped_sweep_keeps_its_epochs_and_is_continued_by_submitting_it_again(site, swept):
    epochs = max(site.epochs("other"))
    job, _ = site.submit(1, "--out", "other", "--set", "epochs=100000")
    wait(lambda: max(site.epochs("other")) > epochs)
    assert "submit it again to continue" in site.geosweep(1, "stop", job.name)
    assert "begun, go on from a checkpoint" in site.geosweep(1, "status", "other")
    assert "stopped: 0 of 3 done" in site.geosweep(1, "logs", job.name)


def test_results_and_report_are_fetched_like_those_of_other_clusters(site, swept, tmp_path):
    said = site.geosweep(2, "fetch", "sweep", "--out", str(tmp_path / "here"))
    assert "trials   3 of 3" in said
    assert (tmp_path / "here/report/index.html").stat().st_size > 10_000
    assert load(str(tmp_path / "here")).epochs.epoch.max() == 60
