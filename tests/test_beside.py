"""A copy of a process that computes something beside it."""

import os

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


def test_a_copy_that_nobody_waits_for_ends(tmp_path) -> None:
    def work() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        os.read(os.pipe()[0], 1)  # for ever

    with beside(work):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            pass
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
