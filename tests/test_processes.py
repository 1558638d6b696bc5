"""Child processes import our code, whatever lies in the current folder, and leave nothing."""

import errno
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from unittest import mock

import psutil
import pytest
from filelock import FileLock

from tune_jobs import processes, signals
from tune_jobs.cluster import reach
from tune_jobs.errors import SweepError, full_disk, no_space
from tune_jobs.tuning import Setup

OURS = ("models", "scoring", "analysis", "tune_jobs")
MODULES = (*OURS, "ray", "json", "numpy", "mlflow", "torch", "yaml", "typing", "sitecustomize")
TINY = [f"--set={field}" for field in ("epochs=1", "gamma=0", "K=1", "network=resnet", "m=50")]


@pytest.fixture
def hostile(tmp_path):
    """A folder in which every import that finds it fails: as modules, and as packages."""
    for name in MODULES:
        package = tmp_path / name
        if name in ("scoring", "analysis", "torch"):
            package.mkdir()
            package = package / "__init__"
        package.with_suffix(".py").write_text(f"raise ImportError('{name} of the user')\n")
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("module", ["analysis.report", "tune_jobs.cli", "ray.scripts.scripts"])
def test_a_child_process_does_not_import_from_the_current_folder(hostile, module):
    command = processes.python("-m", module, "--help")
    environment = os.environ | processes.environment()
    done = subprocess.run(command, cwd=hostile, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-m', '{module}', '--help'])"
    done = subprocess.run(
        [sys.executable, "-c", inner], cwd=hostile, env=environment, capture_output=True, text=True
    )
    assert "of the user" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [["run", "demo", "--dry-run"], ["--version"]])
def test_a_command_does_not_import_from_the_current_folder(hostile, words):
    command = [str(Path(sys.executable).with_name("geosweep")), *words]
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of the user" not in done.stdout + done.stderr


def test_only_one_place_starts_python_and_it_never_imports_from_the_current_folder():
    assert processes.python("-m", "ray") == [sys.executable, "-P", "-m", "ray"]
    sources = [path for name in OURS for path in (processes.SOURCE / name).rglob("*.py")]
    starting = {path.name for path in sources if "sys.executable" in path.read_text()}
    assert starting == {"processes.py"}


@pytest.mark.parametrize(
    ("given", "rest"), [(None, []), ("", []), (":", []), ("a::/b:.", ["a", "/b", "."])]
)
def test_the_path_of_children_has_no_folder_that_depends_on_where_they_run(
    given, rest, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    paths = processes.environment()["PYTHONPATH"].split(os.pathsep)
    assert paths == [str(processes.SOURCE), *(str(tmp_path / path) for path in rest)]


def listening(process: int) -> dict[str, set[str]]:
    """The addresses on which a process and its children accept connections, by their names."""
    found: dict[str, set[str]] = {}
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(process)
        for each in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                for one in each.net_connections():
                    if one.status == psutil.CONN_LISTEN:
                        found.setdefault(each.name(), set()).add(one.laddr.ip)
    return found


@pytest.mark.long
@pytest.mark.ray
def test_a_sweep_runs_in_a_folder_full_of_modules_with_our_names_and_no_network_reaches_it(hostile):
    """Ray puts the driver's current folder on the path of its workers, unless told otherwise."""
    command = [str(Path(sys.executable).with_name("geosweep")), "run", "demo", *TINY]
    temporary = hostile / "t"
    temporary.mkdir()
    environment = os.environ | {"RAY_TMPDIR": "/tmp", "TMPDIR": str(temporary)}
    environment.pop("HOME")  # where Ray would look for a token
    listens: dict[str, set[str]] = {}
    with (
        open(temporary / "said", "w+") as said,
        subprocess.Popen(
            command, cwd=hostile, env=environment, stdout=said, stderr=subprocess.STDOUT
        ) as sweep,
    ):
        while sweep.poll() is None:
            for name, addresses in listening(sweep.pid).items():
                listens.setdefault(name, set()).update(addresses)
            time.sleep(0.5)
        said.seek(0)
        printed = said.read()
    assert sweep.returncode == 0, printed
    assert "1 of 1 done" in printed
    assert "Token" not in printed
    assert {"gcs_server", "raylet"} <= listens.keys()
    assert any(name.startswith("ray::Dashboard") for name in listens)
    assert set().union(*listens.values()) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    (temporary / "said").unlink()
    assert (hostile / "runs/demo/report/index.html").exists()
    assert "of the user" not in printed
    assert list(temporary.iterdir()) == []


def test_the_temporary_folder_of_a_dead_sweep_is_deleted_and_one_in_use_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_TMPDIR", "")
    monkeypatch.setattr(processes, "LONGEST", 1000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    dead, alive, foreign = (tmp_path / f"{processes.SCRATCH}{name}" for name in "abc")
    for folder in (dead, alive, foreign):
        (folder / "session").mkdir(parents=True)
    (dead / processes.LOCK).touch()
    with FileLock(alive / processes.LOCK), processes.scratch() as folder:
        assert {path.name for path in tmp_path.iterdir()} == {
            alive.name,
            foreign.name,
            Path(folder).name,
        }
    assert not Path(folder).exists()


KILLED = """
import os, signal, sys
from tune_jobs import processes

processes.temporary_folders = lambda: [sys.argv[1]]
left, real = [int(sys.argv[2])], os.unlink

def unlink(*where, **options):
    real(*where, **options)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

with processes.scratch() as folder:
    for name in ("first", "second"):
        os.mkdir(f"{folder}/{name}")
        open(f"{folder}/{name}/spilled", "w").close()
    open(f"{folder}/file", "w").close()
    os.unlink = unlink
"""


@pytest.mark.slow
def test_a_sweep_killed_while_it_deletes_its_temporary_folder_leaves_it_to_the_next(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(processes, "temporary_folders", lambda: [str(tmp_path)])
    environment = os.environ | processes.environment()
    for deletions in range(1, 5):  # the fourth one is of the lock
        command = processes.python("-c", KILLED, str(tmp_path), str(deletions))
        done = subprocess.run(command, env=environment)
        assert done.returncode == -signal.SIGKILL
        (left,) = tmp_path.iterdir()
        assert (left / processes.LOCK).exists() == (deletions < 4)
        if deletions == 4:
            old = time.time() - processes.UNUSED - 1
            os.utime(left, (old, old))
        with processes.scratch() as folder:
            assert [str(path) for path in tmp_path.iterdir()] == [folder]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("alive", ["folder", "file", "link"])
def test_a_temporary_folder_without_a_lock_is_left_alone_while_anything_in_it_changes(
    tmp_path, monkeypatch, alive
):
    """A cleaner of /tmp may have deleted the lock of a sweep that runs for weeks."""
    place = tmp_path / "t"
    monkeypatch.setattr(processes, "temporary_folders", lambda: [str(place)])
    left, log = place / f"{processes.SCRATCH}a", tmp_path / "elsewhere"
    if alive == "link":
        place.mkdir()
        log.mkdir()
        left.symlink_to(log)
    else:
        log = left / "session" / "log"
        log.parent.mkdir(parents=True)
        log.touch()
    old = time.time() - processes.UNUSED - 1
    for path in {"folder": (log,), "file": (left, log.parent), "link": (log,)}[alive]:
        os.utime(path, (old, old))
    os.utime(left, (old, old), follow_symlinks=False)
    with processes.scratch():
        pass
    assert log.exists()


def test_variables_for_our_own_ray_are_gone_after_it_and_come_again_for_the_next(monkeypatch):
    monkeypatch.setattr(processes, "_private", processes._private.__wrapped__)
    monkeypatch.setitem(sys.modules, "ray", mock.Mock())
    before = dict(os.environ)
    with processes.guarded(None, here=True):
        assert os.environ == before  # Ray was imported before, and is as its importer wants it
    monkeypatch.delitem(sys.modules, "ray")
    monkeypatch.setattr(processes, "_private", functools.cache(processes._private))
    tokens = []
    for _ in range(2):
        with processes.guarded(None, here=True):
            assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
        assert os.environ == before
        monkeypatch.setitem(sys.modules, "ray", mock.Mock())
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) == 64
    with processes.guarded("auto", here=False):
        assert os.environ == before
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/of/the/job")
    with processes.guarded(processes.SLURM, here=False):
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert "RAY_AUTH_TOKEN" not in os.environ


TUNNEL = """
import os, signal, sys
from tune_jobs import processes
from tune_jobs.cluster import reach

reach.check = lambda *_: None
reach.cluster_file = lambda *_: {}
real, port = processes.python, sys.argv[1]
SSH = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
RAY = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SSH!r}])"
processes.python = lambda *words: real("-c", RAY) if words[0] == "-m" else real(*words)
with reach.tunnel("x.yaml", 8265, int(port)):
    assert reach.answers(int(port))
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "left"])
def test_a_tunnel_ends_with_its_command(how):
    port = reach._free_port()
    environment = os.environ | processes.environment()
    done = subprocess.run(processes.python("-c", TUNNEL, str(port), how), env=environment)
    assert done.returncode == (-signal.SIGKILL if how == "killed" else 0)
    until = time.monotonic() + 20
    while reach.answers(port) and time.monotonic() < until:
        time.sleep(0.05)
    assert not reach.answers(port)


def test_another_program_on_the_port_is_not_taken_for_the_tunnel_of_a_cluster(geosweep, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("provider: {type: local}")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = f"127.0.0.1:{port}: another program listens there"
        with pytest.raises(SweepError, match=told), reach.tunnel(str(file), reach.MLFLOW, port):
            pass
        status, said = geosweep("ui", "--cluster", str(file), "--port", str(port))
        assert status == 2
        assert f"127.0.0.1:{port}: " in said
        assert "choose another --port" in said


def test_another_version_of_ray_is_named_with_what_to_install(monkeypatch, tmp_path):
    told = "Version mismatch: The cluster was started with:\n Ray: 2.50\nThis process: Ray: 2.60"
    monkeypatch.setattr("ray.init", mock.Mock(side_effect=RuntimeError(told)))
    with pytest.raises(SweepError, match=r"with: Ray: 2.50 This process: .*constraints.txt"):
        processes._start("auto", False, str(tmp_path))


def test_a_child_has_ended_when_an_interrupt_comes_and_another_one():
    started = []

    def interrupted() -> None:
        with processes.child(["sleep", "60"]) as child:
            kill = child.kill
            child.kill = lambda: os.kill(os.getpid(), signal.SIGINT) or kill()
            started.append(child)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [child.returncode for child in started] == [-signal.SIGKILL]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere.invalid:6379", "a..b:6379", f"{'a' * 64}:1"],
)
def test_a_cluster_that_does_not_answer_is_named_at_once(address):
    with (
        pytest.raises(SweepError, match=f"Ray at {address}: .*; give the address of a running Ray"),
        processes.ray_running(address, here=False),
    ):
        raise AssertionError("it runs")


def test_ray_starts_and_ends_as_a_whole_however_often_it_is_interrupted(monkeypatch):
    """Half of its processes would be left otherwise, until a notebook ends."""
    done = []

    def slow(name: str, **_) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done.append(name)

    ray = mock.Mock(
        init=functools.partial(slow, "begun"), shutdown=functools.partial(slow, "ended")
    )
    ray.is_initialized.return_value = False
    monkeypatch.setitem(sys.modules, "ray", ray)
    with (
        pytest.raises(KeyboardInterrupt),
        signals.as_interrupt(),
        processes.ray_running(None, here=True),
    ):
        done.append("ran")
    assert done == ["begun", "ended"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("how", ["itself", "cause", "context", "text", "another"])
def test_a_full_disk_is_found_in_the_errors_that_it_led_to(how, number):
    full = OSError(number, os.strerror(number))
    error: BaseException = RuntimeError("Tune failed")
    if how == "itself":
        error = full
    elif how == "cause":
        error.__cause__ = full
    elif how == "context":
        error.__context__ = full
    elif how == "text":
        error = RuntimeError(f"worker: {full}")
    assert no_space(error) == no_space(str(error) if how == "text" else error) == (how != "another")
    if how != "another":
        found = full_disk(error, "/runs/demo")
        assert (found.errno, found.filename) == (number, "/runs/demo")


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "No space left on device"), (errno.EDQUOT, "Disk quota exceeded")],
)
def test_a_trial_that_finds_the_disk_full_is_not_tried_again(monkeypatch, number, says):
    """Ray Tune tries again what fails, so it reports the disk, and the driver ends the sweep."""
    from tune_jobs import driver, trial  # torch and Ray, which take seconds

    full = OSError(number, os.strerror(number), "/there/checkpoints/a.pt")
    reports = []
    monkeypatch.setattr(driver.tune, "report", reports.append)
    monkeypatch.setattr(trial, "run_trial", mock.Mock(side_effect=RuntimeError(f"torch: {full}")))
    driver.train_cell({}, Setup("/there", {}))
    here = mock.Mock(_root="/there", _scratch="/tmp")
    for result in reports:
        with pytest.raises(OSError, match=says) as raised:
            driver.Driver.on_trial_result(here, 0, [], None, result)
        assert raised.value.errno == number
        assert raised.value.filename == "/there/checkpoints/a.pt"
    with pytest.raises(OSError, match=says):  # as a scorer says it
        driver.Driver._failed(here, "a", f"scoring: {full}")
    assert len(reports) == 1
    driver.train_cell({}, Setup("/there", {}, shared=driver.nodes.Shared("token")))  # on a cluster
    with pytest.raises(OSError, match=says) as raised:
        driver.Driver.on_trial_result(here, 0, [], None, reports.pop())
    assert raised.value.filename == f"/there/checkpoints/a.pt on {socket.gethostname()}"
    monkeypatch.setattr(trial, "run_trial", mock.Mock(side_effect=OSError("gone")))
    with pytest.raises(OSError, match="gone"):
        driver.train_cell({}, Setup("/there", {}))
    assert len(reports) == 1
