"""The kernels of the assignment solver are compiled once, not by every process that needs them."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock

from scoring import assignment


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """The folder of compiled kernels, with nothing in it yet."""
    source = tmp_path / "kernels.py"
    source.touch()
    (tmp_path / "kept").mkdir()
    stats = SimpleNamespace(cache_path=str(tmp_path / "kept"))
    matched = SimpleNamespace(stats=stats)
    fake = SimpleNamespace(__file__=str(source), matched=matched, spread_out=lambda *_: None)
    monkeypatch.setattr(assignment, "kernels", fake)
    return tmp_path / "kept"


@pytest.mark.parametrize(("newer", "compiles"), [(None, 1), (-9, 1), (9, 0)])
def test_kernels_are_compiled_where_there_are_none_or_their_source_is_newer(
    kept, monkeypatch, newer, compiles
):
    called = []
    monkeypatch.setattr(assignment, "compile_kernels", lambda: called.append(1))
    if newer is not None:
        index = kept / "kernels.matched-1.py311.nbi"
        index.touch()
        at = kept.with_name("kernels.py").stat().st_mtime + newer
        os.utime(index, (at, at))
    assignment._compile_once.__wrapped__()
    assert len(called) == compiles


def test_who_comes_while_another_process_compiles_waits_for_it(kept, monkeypatch):
    solved = []
    monkeypatch.setattr(assignment, "_solved", lambda *_: solved.append(1))
    with FileLock(kept / "kernels.lock"):
        waiting = threading.Thread(target=assignment.compile_kernels)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert solved == []
    waiting.join(30)
    assert solved == [1, 1]  # both precisions


def test_the_folder_of_compiled_kernels_can_be_written_to():
    assert os.access(assignment._kept(), os.W_OK)
    inner = np.eye(3)
    (found,) = assignment.match(lambda start, stop, m: inner[start:stop, :m], [3], np.zeros(3))
    assert found.permutation.tolist() == [0, 1, 2]
    assert list(assignment._kept().glob("kernels.*.nbi"))
