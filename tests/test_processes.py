"""Child processes import our code, whatever lies in the current folder, and leave nothing."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tune_jobs import processes
from tune_jobs.errors import no_space

MODULES = ("models", "scoring", "analysis", "tune_jobs", "ray", "json", "numpy", "mlflow", "torch")
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


@pytest.mark.parametrize("module", ["analysis.report", "tune_jobs.cli"])
def test_a_child_process_does_not_import_from_the_current_folder(hostile, module):
    command = processes.python(module, "--help")
    environment = os.environ | processes.environment()
    done = subprocess.run(command, cwd=hostile, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-m', '{module}', '--help'])"
    done = subprocess.run(
        [sys.executable, "-c", inner], cwd=hostile, env=environment, capture_output=True, text=True
    )
    assert "of the user" not in done.stderr


@pytest.mark.ray
def test_a_sweep_runs_in_a_folder_full_of_modules_with_our_names(hostile):
    """Ray puts the driver's current folder on the path of its workers, unless told otherwise."""
    command = [str(Path(sys.executable).with_name("geosweep")), "run", "demo", *TINY]
    temporary = hostile / "t"
    temporary.mkdir()
    environment = os.environ | {"RAY_TMPDIR": "/tmp", "TMPDIR": str(temporary)}
    done = subprocess.run(
        command, cwd=hostile, env=environment, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 done" in done.stdout
    assert (hostile / "runs/demo/report/index.html").exists()
    assert "of the user" not in done.stdout + done.stderr
    assert list(temporary.iterdir()) == []


def test_the_temporary_folder_of_a_dead_sweep_is_deleted_and_one_in_use_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_TMPDIR", "")
    monkeypatch.setattr(processes, "LONGEST", 1000)
    monkeypatch.setattr(processes.tempfile, "tempdir", str(tmp_path))
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


def test_a_long_temporary_folder_is_not_used(monkeypatch):
    """A socket's path has 107 characters; Ray needs most of them."""
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 20)
    monkeypatch.setattr(processes.tempfile, "tempdir", "/tmp/" + "long" * 20)
    with processes.scratch() as folder:
        assert len(folder) < 45


@pytest.mark.parametrize("how", ["itself", "cause", "context", "text", "another"])
def test_a_full_disk_is_found_in_the_errors_that_it_led_to(how):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    error: BaseException = RuntimeError("Tune failed")
    if how == "itself":
        error = full
    elif how == "cause":
        error.__cause__ = full
    elif how == "context":
        error.__context__ = full
    elif how == "text":
        error = RuntimeError(f"worker: {full}")
    assert no_space(error) == (how != "another")
