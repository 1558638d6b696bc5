"""The watcher of a node: a spot machine that is taken away, and a worker whose head is gone."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray
import yaml
from ray import tune
from ray.cluster_utils import Cluster
from running import served

from tune_jobs.cluster import machines, turns, watch
from tune_jobs.driver import RETRIES

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:9"


class Metadata(BaseHTTPRequestHandler):
    """Stands in for the instance metadata service, version 2."""

    def do_PUT(self) -> None:
        asked = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200 if self.path == "/latest/api/token" and asked else 400, b"the token")

    def do_GET(self) -> None:
        notice = self.server.notice  # pyright: ignore[reportAttributeAccessIssue]
        if self.headers["X-aws-ec2-metadata-token"] != "the token":
            self.answer(401, b"")
        elif self.path != "/latest/meta-data/spot/instance-action" or notice is None:
            self.answer(404, b"not found")
        else:
            self.answer(200, notice)

    def answer(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


class Machine(ThreadingHTTPServer):
    """A machine's metadata service; ``url`` is where it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Metadata)
        self.notice: bytes | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def announce(self, seconds: float) -> None:
        """Say that this machine is taken away in so many seconds."""
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        said = {"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
        self.notice = json.dumps(said).encode()


@contextmanager
def machine() -> Iterator[Machine]:
    with Machine() as server, served(server):
        yield server


def test_a_notice_says_how_long_a_machine_has():
    with machine() as there:
        assert watch.seconds_left(there.url) is None
        there.announce(100)
        assert watch.seconds_left(there.url) == pytest.approx(100, abs=10)
        there.announce(-100)
        assert watch.seconds_left(there.url) == 0


@pytest.mark.parametrize(
    "notice", [b"", b"<html>", b"{}", b'{"time": "soon"}', b"[]"], ids=lambda text: text.decode()
)
def test_an_answer_that_is_no_notice_is_none(notice):
    with machine() as there:
        there.notice = notice
        assert watch.seconds_left(there.url) is None


def test_a_machine_that_is_not_on_aws_has_no_notice():
    assert watch.seconds_left(NOWHERE) is None


def watching(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "tune_jobs.cluster.watch", "--every", "0.1", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_worker_whose_head_is_gone_shuts_down(tmp_path):
    done = tmp_path / "off"
    with machine() as head:
        address = head.url.removeprefix("http://")
        words = ["--head", address, "--metadata", NOWHERE, "--patience", "0.5", "--cancel", "true"]
        watcher = watching(*words, "--shutdown", f"touch {done}")
        with pytest.raises(subprocess.TimeoutExpired):
            watcher.communicate(timeout=3)
        assert not done.exists()
    log, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 0
    assert done.exists()
    assert "no head" in log


STAND_IN = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
"""


@pytest.mark.parametrize("file", ["ray_cluster.yaml", "clusters/gcp.yaml"])
def test_a_worker_that_is_never_set_up_shuts_down_and_its_watcher_takes_that_over(
    tmp_path, monkeypatch, file
):
    kinds = yaml.safe_load((ROOT / file).read_text())["available_node_types"]
    nodes = {name: kind["node_config"] for name, kind in kinds.items()}
    assert not {"UserData", "metadata"} & nodes.pop("head").keys()
    given = [
        node.get("UserData") or {item["key"]: item["value"] for item in node["metadata"]["items"]}
        for node in nodes.values()
    ]
    assert given[0] == given[1]
    script = given[0] if isinstance(given[0], str) else given[0]["startup-script"]
    for name, text in (("shutdown", STAND_IN), ("sudo", '#!/bin/sh\nexec "$@"\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "script").write_text(script)
    (tmp_path / "script").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    subprocess.run([tmp_path / "script"], check=True)  # as cloud-init runs it, by its first line
    watch.main(["--head", "127.0.0.1:9", "--metadata", NOWHERE, "--patience", "0"])
    assert (tmp_path / "asked").read_text().splitlines() == ["-h +60", "-c", "-h now"]


def test_a_head_that_comes_back_in_time_keeps_its_workers(tmp_path, monkeypatch):
    there = iter([True, False, False, True, False, False, True])
    monkeypatch.setattr(watch, "answers", lambda head: next(there))
    monkeypatch.setattr(watch, "seconds_left", lambda metadata: None)
    now = 0
    monkeypatch.setattr(watch.time, "monotonic", lambda: now)
    worker = watch.Worker("head:1", shutdown=f"touch {tmp_path}/off")
    for now in range(0, 7 * 250, 250):  # noqa: B007
        assert worker.look()
    assert not (tmp_path / "off").exists()


def test_ray_is_told_once_and_stopped_shortly_before_a_machine_is_taken(tmp_path, monkeypatch):
    left = iter([None, 100.0, 95.0, 50.0, 19.0])
    told = []
    answers = iter([False, True])  # Ray does not hear it the first time
    monkeypatch.setattr(watch, "seconds_left", lambda metadata: next(left))
    monkeypatch.setattr(watch, "answers", lambda head: True)
    monkeypatch.setattr(watch, "drain", lambda *given: told.append(given) or next(answers))
    worker = watch.Worker("head:1", stop=f"touch {tmp_path}/stopped")
    assert [worker.look() for _ in range(4)] == [True] * 4
    assert told == [("head:1", 100.0, None), ("head:1", 95.0, None)]
    assert not (tmp_path / "stopped").exists()
    assert not worker.look()
    assert (tmp_path / "stopped").exists()


@pytest.mark.parametrize(("hours", "ends"), [(0.0, False), (2.0, True), (50.0, False)])
def test_a_head_without_sweeps_shuts_down_if_asked_to(tmp_path, monkeypatch, hours, ends):
    now, busy = 0.0, True
    monkeypatch.setattr(watch.time, "monotonic", lambda: now)
    head = watch.Head(hours, lambda: busy, lambda: None, shutdown=f"touch {tmp_path}/off")
    now = 20 * 3600.0
    assert head.look()
    now, busy = now + 3600, False
    assert head.look()
    now += 3600
    assert head.look() is not ends
    assert (tmp_path / "off").exists() is ends


def test_the_queue_is_busy_while_a_sweep_has_its_turn(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not turns.busy()
    with turns.turn("10.0.0.11:6379", "demo", print):
        assert turns.busy()
    assert not turns.busy()


@pytest.fixture
def cluster():
    """A head without CPUs, so that the trial is on one of the workers that come and go."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(600)  # a minute or two on a quiet machine
def test_a_trial_outlives_many_spot_machines_and_never_fails(cluster, tmp_path, monkeypatch):
    losses = 10 if os.environ.get("CI") else 4  # a machine takes seconds of computing

    class Spares(tune.Callback):  # as the driver of a sweep does
        spared = machines.Spared()

        def on_step_end(self, iteration, trials, **info):
            self.spared.look(trials)
            seen = {node for _, node in self.spared._known}
            (tmp_path / "seen").write_text(" ".join(seen))

    assert losses > RETRIES + 1
    monkeypatch.setattr(machines, "EVERY", 0.1)

    def train(config: dict) -> None:  # in here, so that Ray sends it to workers by value
        """Counts epochs, from its checkpoint on, and notes where it is; ends when told to."""
        folder, epoch = Path(config["folder"]), 0
        if there := tune.get_checkpoint():
            with there.as_directory() as kept:
                epoch = int(Path(kept, "epoch").read_text())
        with (folder / "starts").open("a") as stream:
            print(ray.get_runtime_context().get_node_id(), epoch, file=stream)
        while not (folder / "end").exists():
            epoch += 1
            with tempfile.TemporaryDirectory() as kept:
                Path(kept, "epoch").write_text(str(epoch))
                tune.report({"epoch": epoch}, checkpoint=tune.Checkpoint.from_directory(kept))
            time.sleep(0.2)

    tuner = tune.Tuner(
        tune.with_resources(train, {"CPU": 1}),
        param_space={"folder": str(tmp_path)},
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[Spares()],
            verbose=0,
        ),
    )
    ended = []
    sweep = threading.Thread(target=lambda: ended.append(tuner.fit()), daemon=True)
    sweep.start()

    def starts() -> list[str]:
        file = tmp_path / "starts"
        return file.read_text().split() if file.exists() else []

    def lived_on() -> list[str]:
        return starts()[::2]

    node = cluster.add_node(num_cpus=1)
    for loss in range(losses):
        until(lambda number=loss: len(lived_on()) > number)
        assert lived_on()[-1] == node.node_id
        (raylet,) = node.all_processes["raylet"]
        with machine() as there:
            there.announce(30)
            words = ["--head", cluster.address, "--metadata", there.url, "--goodbye", "40"]
            words += ["--cancel", "true"]
            # `ray stop` would stop every node here. The driver has less than two minutes to look.
            stop = f"until grep {node.node_id} {tmp_path}/seen; do sleep 0.1; done; "
            stop += f"kill {raylet.process.pid}"
            watcher = watching(*words, "--node", node.node_id, "--stop", stop)
            coming = cluster.add_node(num_cpus=1)
            log, _ = watcher.communicate(timeout=60)
        assert "takes this machine away" in log
        assert "not told" not in log
        cluster.remove_node(node)
        node = coming
    until(lambda: len(lived_on()) == losses + 1)
    (tmp_path / "end").touch()
    sweep.join(60)
    assert len(set(lived_on())) == losses + 1
    (results,) = ended
    assert results.num_errors == 0
    epochs = [int(epoch) for epoch in starts()[1::2]]
    assert epochs[0] == 0
    assert epochs == sorted(set(epochs))  # each time from where it was
