"""A copy of a process that computes something beside it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from analysis.beside import beside


def test_a_copy_returns_what_the_function_returns() -> None:
    with beside(lambda: (os.getpid(), 6 * 7)) as wait:
        process, answer = wait()
    assert process != os.getpid()
    assert answer == 42


def test_what_a_copy_raises_is_raised_where_it_is_waited_for(capfd) -> None:
    with beside(lambda: 1 // 0) as wait, pytest.raises(ZeroDivisionError):
        wait()
    assert capfd.readouterr().err == ""


def test_a_function_is_called_here_if_its_copy_dies() -> None:
    here = os.getpid()
    with beside(lambda: os.getpid() if os.getpid() == here else os._exit(9)) as wait:
        assert wait() == here


def test_a_function_is_called_here_if_its_copy_dies_in_the_middle_of_its_answer() -> None:
    here = os.getpid()

    def work() -> bytes:
        if os.getpid() != here:
            threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        return bytes(5_000_000)  # more than a pipe holds

    with beside(work) as wait:
        time.sleep(0.5)
        assert wait() == bytes(5_000_000)


def test_a_function_is_called_here_if_there_can_be_no_copy(monkeypatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with beside(os.getpid) as wait:
        assert wait() == os.getpid()


def test_a_copy_ends_with_a_process_that_is_killed(tmp_path) -> None:
    code = f"""
import os, time
from pathlib import Path
from analysis.beside import beside
def work():
    Path({str(tmp_path / "part")!r}).write_text(str(os.getpid()))
    os.rename({str(tmp_path / "part")!r}, {str(tmp_path / "pid")!r})
    time.sleep(600)
with beside(work) as wait:
    wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    while not (tmp_path / "pid").exists():
        time.sleep(0.01)
    copy = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{copy}").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_copy_that_nobody_waits_for_ends(tmp_path) -> None:
    def work() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        os.read(os.pipe()[0], 1)  # for ever

    with beside(work):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
