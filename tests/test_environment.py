"""Odd surroundings: each works, or one line says what to do before anything starts."""

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models import datasets
from models.errors import DataError
from models.files import open_text
from tune_jobs import folder, processes, surroundings
from tune_jobs.errors import SweepError
from tune_jobs.terminal import output

GEOSWEEP = str(Path(sys.executable).with_name("geosweep"))
LONG = "/tmp/" + "long" * 30  # no socket fits into it


@pytest.mark.parametrize("text", ["two", "-1", "nan", "inf", "1e99", "1,5", " "])
def test_a_number_of_gpus_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("GEOSWEEP_GPUS", text)
    with pytest.raises(SweepError, match=r"GEOSWEEP_GPUS = .* should be a number of GPUs"):
        processes.expected_gpus()


@pytest.mark.parametrize(("text", "gpus"), [(None, None), ("", None), ("0", 0), ("0.5", 0.5)])
def test_gpus_that_are_to_come_are_read_from_the_environment(text, gpus, monkeypatch):
    monkeypatch.delenv("GEOSWEEP_GPUS", raising=False)
    if text is not None:
        monkeypatch.setenv("GEOSWEEP_GPUS", text)
    assert processes.expected_gpus() == gpus


@pytest.mark.parametrize(("storage", "folder_of"), [("", "runs"), (None, "runs"), ("out", "out")])
def test_an_empty_storage_counts_as_not_set(storage, folder_of, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEOSWEEP_STORAGE", raising=False)
    if storage is not None:
        monkeypatch.setenv("GEOSWEEP_STORAGE", storage)
    assert folder.path_of("demo") == str(Path(folder_of, "demo").absolute())


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A user without a home folder, without an account and without a name."""
    for name in ("HOME", "GEOSWEEP_CACHE", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 12345)


def test_without_a_home_folder_one_line_says_what_to_set(nobody, geosweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="set HOME, or GEOSWEEP_CACHE"):
        datasets.cache_folder()
    for command in (["run", "demo", "--dry-run"], ["sync", "out"], ["report", "out"]):
        code, said = geosweep(*command)
        assert (code, len(said.splitlines())) == (2, 1)
        assert "no home folder" in said
    assert os.listdir(tmp_path) == []  # above all no folder that is called ~
    monkeypatch.setenv("GEOSWEEP_CACHE", "cache")
    assert datasets.cache_folder() == tmp_path / "cache"


def test_a_user_without_an_account_gets_a_name_and_the_cache_for_a_home(
    nobody, monkeypatch, tmp_path
):
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path))
    surroundings.prepare()
    assert getpass.getuser() == "user12345"
    assert Path.home() == tmp_path


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user"
)
def test_a_user_without_an_account_can_use_every_command(tmp_path):
    tmp_path.chmod(0o777)
    # The capability lets that user read this source, wherever it is; it does not let it write.
    user = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    clean = {k: v for k, v in os.environ.items() if k not in ("HOME", "USER", "LOGNAME")}
    clean["GEOSWEEP_CACHE"] = str(tmp_path / "cache")
    if subprocess.run([*user, sys.executable, "-c", ""], env=clean).returncode:
        pytest.skip("this machine does not let another user read the source")
    done = subprocess.run(
        [*user, GEOSWEEP, "run", "demo", "--dry-run", "--out", str(tmp_path / "out")],
        env=clean,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("demo: 16 cells")
    assert (tmp_path / "cache").stat().st_uid == 12345


@pytest.mark.parametrize("kind", ["a file", "no folder", "read only"])
def test_a_cache_that_cannot_be_written_says_which_variable_to_set(kind, tmp_path, monkeypatch):
    place = tmp_path / "cache"
    if kind == "a file":
        place.touch()
    elif kind == "no folder":
        place = Path("/proc/none")
    else:
        place = Path("/sys/kernel")
    monkeypatch.setenv("GEOSWEEP_CACHE", str(place))
    with pytest.raises(DataError, match=r"cannot write the cache .*; set GEOSWEEP_CACHE to a fold"):
        datasets.load("digits")


@pytest.mark.parametrize("value", [LONG, "/nowhere/at/all", "/proc/self", "/etc/passwd", "", "t"])
@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_that_ray_cannot_use_is_passed_over(name, value, monkeypatch, tmp_path):
    for other in ("RAY_TMPDIR", "TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    if value == "/proc/self" and os.access(value, os.W_OK):
        monkeypatch.setattr(os, "access", lambda path, mode: path != "/proc/self")
    with processes.scratch() as empty:
        assert Path(empty).parent in (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
        assert len(empty) <= processes.LONGEST + 25


def test_without_any_temporary_folder_nothing_starts(geosweep, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, said = geosweep("run", "demo", "--dry-run", "--out", str(tmp_path / "out"))
    assert (code, len(said.splitlines())) == (2, 1)
    assert "set RAY_TMPDIR to one that you may write to" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["run", "demo", "--dry-run"], ["sweeps"], ["status", "out"]])
def test_in_a_folder_that_was_deleted_one_line_says_to_leave_it(
    command, geosweep, monkeypatch, tmp_path
):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    code, said = geosweep(*command)
    assert (code, len(said.splitlines())) == (2, 1)
    assert "the current folder was deleted" in said


@pytest.fixture(params=["/dev/fd/{}", "/proc/self/fd/{}", "-", "/dev/stdin"])
def pipe(request):
    """A function that puts a text into a pipe; the name under which a sweep in it can be run."""
    stdin, opened = os.dup(0), []

    def put(text: str) -> str:
        reads, writes = os.pipe()
        os.write(writes, text.encode())
        os.close(writes)
        opened.append(reads)
        if "{}" in request.param:
            return request.param.format(reads)
        os.dup2(reads, 0)
        return request.param

    yield put
    os.dup2(stdin, 0)
    for number in (stdin, *opened):
        os.close(number)


def test_a_sweep_may_come_through_a_pipe_and_its_name_from_a_field_or_an_option(
    pipe, geosweep, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEOSWEEP_NAME", raising=False)
    for text, options in (("name: mine\n", []), ("gamma: 0\n", ["--set", "name=mine"])):
        code, said = geosweep("run", pipe(text), "--dry-run", *options)
        assert code == 0, said
        assert said.startswith("mine: 1 cells")
        assert "runs/mine (none done there)" in said
    code, said = geosweep("run", pipe("gamma: 0\n"), "--dry-run")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "give it a name: field, or --set name=NAME" in said
    code, said = geosweep("run", pipe("gamma: x\n"), "--dry-run")
    assert code == 2
    assert "line 1: gamma = 'x'" in said
    monkeypatch.setenv("GEOSWEEP_NAME", "theirs, too")
    assert geosweep("run", pipe("gamma: 0\n"), "--dry-run")[1].startswith("theirs, too: 1 cells")


@pytest.mark.parametrize("number", [0, 9_999, 999_999, 10**30])
def test_a_pipe_that_nobody_opened_is_refused(number):
    with pytest.raises(OSError, match=r"a device|No such file|Bad file|an? .*, not a regular"):
        open_text(f"/dev/fd/{number}" if number else os.devnull)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_take_no_file_and_fail_nothing(closed, tmp_path):
    """Without a stream, the next file would get its number, and what is printed would go there."""
    out = tmp_path / "out"
    code = "from tune_jobs import surroundings as s; s.prepare(); f = open('mine', 'w')"
    code += "; import os, subprocess; subprocess.run('echo no; echo no >&2', shell=True)"
    code += "; print('no'); os._exit(f.fileno() < 3)"
    done = subprocess.run(["sh", "-c", f'{sys.executable} -c "{code}" {closed}'], cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "mine").read_text() == ""
    assert not out.exists()


@pytest.mark.parametrize("name", ["COLUMNS", "TERMINAL_WIDTH"])
@pytest.mark.parametrize("width", ["0", "1", "-5", "many", "", "1e9", "999999999", "9" * 5000])
def test_a_width_that_is_none_is_not_taken_for_the_terminals(name, width, geosweep, monkeypatch):
    monkeypatch.setenv(name, width)
    code, said = geosweep("sweeps")
    assert code == 0
    assert "18  yes        CIFAR-10, K = 1 (Table 4)" in said
    assert name not in os.environ
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((1, 1)))
    assert output().width >= surroundings.NARROWEST


def test_without_colours_none_are_shown(geosweep, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in geosweep("sweeps")[1]


@pytest.mark.parametrize("text", ["0", "-3", "99999999999", "1e9", "many", "nan", ""])
def test_a_number_of_failures_has_bounds(text, geosweep):
    for command in ("run", "submit"):
        code, said = geosweep(command, "demo", "--max-failures", text)
        assert (code, len(said.splitlines())) == (2, 1)
        assert "--max-failures" in said


@pytest.mark.parametrize("text", ["0", "-3", "65536", "many"])
def test_a_port_has_bounds(text, geosweep):
    code, said = geosweep("ui", "demo", "--port", text)
    assert (code, len(said.splitlines())) == (2, 1)
    assert "--port" in said
