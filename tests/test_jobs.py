"""Sending sweeps to a cluster, as far as that goes without one."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import yaml
from cluster_user import said, write_token
from ray._private.utils import update_envs

from tune_jobs.cluster import jobs, reach
from tune_jobs.cluster.at import At
from tune_jobs.cluster.turns import turn
from tune_jobs.errors import SweepError
from tune_jobs.sweep import read

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(
    "command",
    [["submit", "demo"], ["submit", "demo", "--out", "/x"], ["logs"], ["stop"], ["fetch", "x"]],
)
def test_without_a_cluster_the_message_says_how_to_name_one(capsys, command):
    assert "--cluster FILE" in said(capsys, *command)


def test_no_token_no_such_file_and_no_such_address_are_said(capsys, file, home, monkeypatch):
    assert "no token" in said(capsys, "logs", "--cluster", file)
    write_token(home)
    assert "--cluster nowhere.yaml: no such file" in said(
        capsys, "logs", "--cluster", "nowhere.yaml"
    )
    assert "no Ray dashboard" in said(capsys, "logs", "--address", "http://127.0.0.1:1")
    (home / "other.yaml").write_text("dataset: digits\n")
    assert "no provider" in said(capsys, "down", "--cluster", str(home / "other.yaml"))


def test_a_sweep_that_is_wrong_is_refused_before_it_is_sent(capsys, file):
    assert "gamma" in said(capsys, "submit", "demo", "--set", "gamma=x", "--cluster", file)


def test_a_sweeps_folder_lies_below_the_clusters_storage(file, monkeypatch):
    assert reach.folder_there(file, None, "table4") == "/mnt/s/table4"
    assert reach.folder_there(file, "try", "table4") == "/mnt/s/try"
    assert reach.folder_there(file, "", "table4") == "/mnt/s/table4"
    assert reach.folder_there(file, "s3://bucket/try/", "table4") == "s3://bucket/try"
    assert reach.folder_there(file, "hdfs://host/try", "table4") == "hdfs://host/try"
    assert reach.folder_there(None, "/data/try", "table4") == "/data/try"
    with pytest.raises(SweepError, match="GEOSWEEP_STORAGE"):
        reach.folder_there(None, "try", "table4")
    monkeypatch.setenv("GEOSWEEP_STORAGE", "/mnt/here")
    assert reach.folder_there(None, None, "table4") == "/mnt/here/table4"


def test_a_folder_that_nobody_named_is_not_named_to_the_command_there_either():
    """So that it refuses one that has results of other cells, as it does here."""
    client, demo = mock.Mock(), read("demo")
    jobs.submit(client, demo, "/mnt/s/demo", [], named=False)
    jobs.submit(client, demo, "/mnt/s/other", [], named=True)
    unnamed, named = (call.kwargs for call in client.submit_job.call_args_list)
    assert "--out" not in unnamed["entrypoint"]
    assert unnamed["runtime_env"]["env_vars"]["GEOSWEEP_STORAGE"] == "/mnt/s"
    assert "--out /mnt/s/other" in named["entrypoint"]


@pytest.mark.parametrize("storage", ["s3://key:secret@bucket/s", "/mnt/$s"])
def test_a_storage_is_in_no_command_unless_ray_would_change_it_in_the_environment(storage):
    """All users of the head see commands, and Ray replaces $NAME in its environment."""
    client = mock.Mock()
    jobs.submit(client, read("demo"), f"{storage}/demo", [], named=False)
    sent = client.submit_job.call_args.kwargs
    with mock.patch.dict(os.environ):
        update_envs(sent["runtime_env"]["env_vars"])
        command = sent["entrypoint"].replace(" python ", " sh -c 'echo \"$GEOSWEEP_STORAGE\"' ")
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == f"{storage}\n"
    assert "secret" not in sent["entrypoint"]


@pytest.mark.parametrize(
    "comment",
    ["", "<<END", "$HOME `id` $(id) \\\\n \"'", "${HOME} ${GAMMA} $", "é" * 3000, "long " * 20_000],
    ids=["plain", "end", "shell", "dollars", "letters", "long"],
)
def test_a_sweep_file_reaches_the_command_there_as_it_is_and_leaves_no_file(tmp_path, comment):
    """The head's shell hands it over as standard input, from the environment."""
    file, client = tmp_path / "my $HOME.yaml", mock.Mock()
    file.write_text(f"gamma: 0\n# {comment}\n# END\nK: 1\n", "utf-8")
    jobs.submit(client, read(str(file)), "/mnt/s/out", ["--data", "/a b"], named=True)
    sent = client.submit_job.call_args.kwargs
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$GEOSWEEP_NAME|$4|$9|${10}" > said\ncat >> said\n')
    program.chmod(0o755)
    there = tmp_path / "there"
    there.mkdir()
    with mock.patch.dict(os.environ):
        update_envs(sent["runtime_env"]["env_vars"])  # as Ray does there
        environment = dict(os.environ) | {"TMPDIR": str(there)}
    environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    subprocess.run(sent["entrypoint"], shell=True, cwd=there, env=environment, check=True)
    first, _, rest = (there / "said").read_text().partition("\n")
    assert first == "my $HOME|-|--data|/a b"
    assert rest.rstrip() == file.read_text().rstrip()
    assert os.listdir(there) == ["said"]


def test_a_sweep_file_that_no_environment_holds_is_refused_before_it_is_sent(tmp_path):
    (tmp_path / "long.yaml").write_text(f"gamma: 0\n# {'long' * 40_000}")
    client = mock.Mock()
    with pytest.raises(SweepError, match="larger than 120,000 bytes"):
        jobs.submit(client, read(str(tmp_path / "long.yaml")), "/mnt/s/out", [])
    client.submit_job.assert_not_called()


def test_a_job_is_found_by_its_id_its_folder_and_that_folders_name():
    client = mock.Mock()
    client.list_jobs.return_value = known = [
        mock.Mock(
            submission_id=f"job-{number}",
            start_time=number,
            metadata={jobs.SWEEP: "demo", jobs.FOLDER: folder},
        )
        for number, folder in enumerate(["/mnt/s/demo", "/mnt/s/try-2"])
    ]
    for which, job in (("job-0", 0), ("/mnt/s/demo", 0), ("demo", 0), ("try-2", 1), (None, 1)):
        assert At().find(client, which) is known[job]
    with pytest.raises(SweepError, match="no such job or folder"):
        At().find(client, "table4")


def noted(name: str, folder: str):
    return mock.Mock(submission_id="job", metadata={jobs.SWEEP: name, jobs.FOLDER: folder})


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "/etc", "a\0", "\ud800"])
def test_a_sweeps_name_from_a_job_is_that_of_one_folder_or_refused(name):
    for good in ("table4 (2)", "-x", "a\nb"):
        assert jobs.metadata(noted(good, "/x"), jobs.SWEEP) == good
    with pytest.raises(SweepError, match=r"job: geosweep.sweep = .*should"):
        jobs.metadata(noted(name, "/x"), jobs.SWEEP)


@pytest.mark.parametrize(
    "folder", ["", "x", "-x", "file:///etc", "/mnt/../etc", "s3://b/../c", "s3:///x"]
)
def test_a_sweeps_folder_from_a_job_is_a_whole_path_or_uri_or_refused(folder):
    older = ("/mnt/./x", "/mnt/x/", "hdfs://host/x")  # submitted with an older version
    for good in ("/mnt/s/a b", "s3://bucket/x", "gs://bucket", *older):
        assert jobs.metadata(noted("x", good), jobs.FOLDER) == good
    with pytest.raises(SweepError, match=r"job: geosweep.folder = .*should"):
        jobs.metadata(noted("x", folder), jobs.FOLDER)


def test_fetch_takes_no_name_from_a_job_for_a_path(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for words, job in (
        (["fetch"], noted("demo", "/mnt/../x")),
        (["fetch", "--out", "here"], noted("demo", "file:///etc")),
    ):
        with (
            mock.patch.object(jobs, "connect"),
            mock.patch.object(jobs, "find", return_value=job),
            mock.patch.object(reach, "fetch") as fetched,
        ):
            assert "should" in said(capsys, *words, "--address", "http://127.0.0.1:1")
            assert not fetched.called
    assert "its last part should" in said(capsys, "fetch", "s3://bucket/..")
    assert list((tmp_path / "cwd").iterdir()) == []


def test_two_folders_of_one_sweep_are_fetched_into_two(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for there in ("/mnt/s/demo", "/mnt/s/try-2"):
        with (
            mock.patch.object(jobs, "connect"),
            mock.patch.object(jobs, "find", return_value=noted("demo", there)),
            mock.patch.object(reach, "fetch", side_effect=SweepError("gone")) as fetched,
        ):
            assert "gone" in said(capsys, "fetch", "--address", "http://127.0.0.1:1")
        assert fetched.call_args[0][1:3] == (there, f"{tmp_path}/runs/{Path(there).name}")


SSH = """#!/bin/sh
while [ "$1" != rsync ]; do shift; done
exec sh -c "$*"
"""


@pytest.mark.parametrize("lacking", ["rsync", "ssh"])
def test_a_program_that_copying_needs_is_named_if_it_is_not_installed(
    lacking, tmp_path, monkeypatch
):
    for program in {"rsync", "ssh"} - {lacking}:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match=f"^/mnt/s/demo: .*{lacking} is not installed on this"):
        reach.fetch("c.yaml", "/mnt/s/demo", str(tmp_path / "here"))
    assert not (tmp_path / "here").exists()


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_links_that_lead_out_of_a_folder_are_not_fetched(tmp_path, home, monkeypatch):
    """With Ray's own rsync, through a stand-in for ssh that runs the command here."""
    bin, there, here = (tmp_path / name for name in ("bin", "there", "here"))
    for place in (bin, there / "results", here):
        place.mkdir(parents=True)
    (bin / "ssh").write_text(SSH)
    (bin / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    name = f"test{os.getpid()}"
    provider = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []}
    config = {"cluster_name": name, "provider": provider, "auth": {"ssh_user": "me"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    (there / "results/a.txt").write_text("a")
    (there / "results/.trials.0123456789ab.merged").write_text("made again here")
    (there / "results/same").symlink_to("a.txt")
    (there / "results/out").symlink_to("../../secret")
    (there / "whole").symlink_to("/etc/passwd")
    (there / "sweep.json").write_text("{}")
    try:
        subprocess.run([sys.executable, "-c", HEAD, yaml.safe_dump(config)], check=True)
        reach.fetch(str(tmp_path / "c.yaml"), str(there), str(here))
        read = partial(reach.read, str(tmp_path / "c.yaml"), str(there))
        assert (read("sweep.json"), read("whole"), read("nothing")) == (b"{}", None, None)
    finally:
        for left in Path("/tmp/ray").glob(f"cluster-{name}.*"):
            left.unlink()
    found = {str(path.relative_to(here)) for path in here.rglob("*")}
    assert found == {"results", "results/a.txt", "results/same", "sweep.json"}


HEAD = """
import sys, yaml
from ray.autoscaler._private.local.node_provider import LocalNodeProvider
from ray.autoscaler._private.local.config import bootstrap_local

config = bootstrap_local(yaml.safe_load(sys.argv[1]) | {"available_node_types": {}})
found = LocalNodeProvider(config["provider"], config["cluster_name"])
tags = {"ray-node-type": "head", "ray-node-status": "up-to-date", "ray-node-name": "head"}
found.create_node({}, tags, 1)
"""


def test_what_is_sent_is_the_code_and_nothing_that_was_made_of_it():
    with jobs.package() as folder:
        assert sorted(os.listdir(folder)) == sorted(jobs.PACKAGES)
        files = {str(path.relative_to(folder)) for path in Path(folder).rglob("*")}
        assert {"tune_jobs/cli.py", "tune_jobs/sweeps/demo.yaml", "analysis/report.html"} <= files
        assert not any("__pycache__" in name for name in files)
        with tempfile.TemporaryDirectory() as archive:  # as Ray makes one
            assert Path(archive).parent == Path(folder).parent
    assert not Path(folder).parent.exists()
    assert Path(tempfile.gettempdir()) != Path(folder).parent


def test_of_a_folder_in_a_store_comes_home_what_is_of_use_there(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    merged = "results/.trials.0123456789ab.merged"
    names = ("results/trials/a.parquet", "report/index.html", "checkpoints/a.pt", ".ray/x", merged)
    for name in names:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name)
    (there / "sweep.json").write_text("{}")
    for _ in range(2):  # again, over what is there
        reach.fetch(None, f"file://{there}", str(here))
    found = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    assert found == {"results/trials/a.parquet", "report/index.html", "sweep.json"}
    with pytest.raises(SweepError, match="cannot be copied"):
        reach.fetch(None, f"file://{tmp_path}/nowhere", str(here))
    with pytest.raises(SweepError, match="--cluster FILE"):
        reach.fetch(None, "/mnt/s/table4", str(here))


def take(name: str, log: str, seconds: float) -> None:
    def say(text: str) -> None:
        with open(log, "a") as stream:
            print(name, text, file=stream)

    with turn("10.0.0.11:6379", name, say):
        say("begins")
        time.sleep(seconds)
        say("ends")


@pytest.mark.long
def test_sweeps_take_turns_in_their_order_and_nobody_waits_for_the_killed(tmp_path):
    log = str(tmp_path / "log")
    Path(log).touch()
    fork = multiprocessing.get_context("spawn")
    waits = {"killed": 600, "gone": 600, "third": 0.1, "last": 0}
    drivers = {}
    for name, seconds in waits.items():
        drivers[name] = fork.Process(target=take, args=(name, log, seconds))
        drivers[name].start()
        sign = "killed begins" if name == "killed" else f"{name} queued"
        until = time.monotonic() + 60
        while sign not in Path(log).read_text():
            assert time.monotonic() < until, Path(log).read_text()
            time.sleep(0.1)
    for name in ("gone", "killed"):  # one that waits, and the one that all wait for
        os.kill(drivers[name].pid, signal.SIGKILL)
    for driver in drivers.values():
        driver.join(60)
    lines = Path(log).read_text().splitlines()
    order = [line for line in lines if line.endswith(("begins", "ends"))]
    assert order[1:] == ["third begins", "third ends", "last begins", "last ends"]
    assert "last queued, one sweep at a time on a cluster; ahead: killed (" in "\n".join(lines)
