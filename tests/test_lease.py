"""Who holds a folder on a file system without locks, and after a claim was written late."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock._unix
import pytest

from scoring import places, storage
from tune_jobs import lease
from tune_jobs.errors import SweepError

LOCKLESS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]  # Lustre, NFS 3 without lockd, FUSE
ELSEWHERE = b'{"who": "process 7 on elsewhere", "pid": 7, "machine": "another"}'


def lose_locks(patch, number=errno.ENOSYS):
    def lock(_):
        raise OSError(number, os.strerror(number))

    patch.setattr(filelock._unix, "lock_fd_nonblocking", lock)


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "out")


@pytest.mark.parametrize("number", LOCKLESS)
def test_without_locks_one_driver_at_a_time_holds_the_folder(root, monkeypatch, number):
    lose_locks(monkeypatch, number)
    monkeypatch.setattr(lease, "ATTEMPTS", 1)
    for _ in range(2):
        with lease.hold(root):
            assert f"process {os.getpid()} on " in lease.holder(root)
            with pytest.raises(SweepError, match=rf"process {os.getpid()} on .*; wait for it"):
                lease.hold(root).__enter__()
        assert lease.holder(root) is None


KILLED = """
import errno, os, signal, sys
import filelock._unix
from tune_jobs import lease

def lock(_):
    raise OSError(errno.ENOSYS, "no locks")

filelock._unix.lock_fd_nonblocking = lock
with lease.hold(sys.argv[1]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_without_locks_a_folder_is_free_after_its_driver_was_killed(root, monkeypatch):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED, root], env=environment)
    assert done.returncode == -9
    assert len(storage.list_files(root, places.HOLDERS)) == 1
    lose_locks(monkeypatch)
    assert lease.holder(root) is None
    with lease.hold(root):
        assert len(storage.list_files(root, places.HOLDERS)) == 1


@pytest.mark.parametrize("claim", [ELSEWHERE, b"", b"[]", b'{"who": "x"}'])
def test_a_claim_from_elsewhere_counts_for_a_minute_even_if_a_crash_has_damaged_it(
    root, monkeypatch, claim
):
    lose_locks(monkeypatch)
    monkeypatch.setattr(lease, "ATTEMPTS", 1)
    storage.write_file(root, f"{places.HOLDERS}/x", claim)
    with pytest.raises(SweepError, match="is taken for dead 60 s after its last sign of life"):
        lease.hold(root).__enter__()
    before = time.time() - lease.DEAD - 1
    os.utime(f"{root}/{places.HOLDERS}/x", (before, before))
    with lease.hold(root):
        assert "x" not in storage.list_files(root, places.HOLDERS)


def test_machines_with_and_without_locks_do_not_hold_a_folder_together(root, monkeypatch):
    with lease.hold(root), pytest.MonkeyPatch.context() as patch:
        lose_locks(patch)
        with pytest.raises(SweepError, match=r"\.holder: process .* -o flock, .* delete this file"):
            lease.hold(root).__enter__()
    storage.write_file(root, f"{places.HOLDERS}/x", ELSEWHERE)
    assert lease.holder(root) == "process 7 on elsewhere"
    with pytest.raises(SweepError, match="process 7 on elsewhere is running this sweep"):
        lease.hold(root).__enter__()
    storage.delete(root, f"{places.HOLDERS}/x")
    with lease.hold(root):
        pass
    assert not Path(root, places.HOLDER).exists()


def cut_off(monkeypatch):
    """Make the next sign of life of a driver hang; what lets it arrive, and how long it took."""
    hangs, arrives, real = threading.Event(), threading.Event(), lease._put
    slept = [0.0]

    def put(root, claim):
        if threading.current_thread() is not threading.main_thread():
            hangs.set()
            assert arrives.wait(10)
        real(root, claim)

    def now():
        return time.monotonic() + slept[0]

    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "_put", put)
    monkeypatch.setattr(lease, "_now", now)
    return hangs, arrives, slept


@pytest.mark.parametrize("successor", [True, False])
def test_a_sign_of_life_that_arrives_late_revives_no_claim_that_was_taken_over(
    root, monkeypatch, successor
):
    hangs, arrives, slept = cut_off(monkeypatch)
    Path(root).mkdir()

    def drive():
        with lease._claimed(root):
            (mine,) = storage.list_files(root, places.HOLDERS)
            assert hangs.wait(10)
            slept[0] = lease.DEAD  # the machine was asleep
            if successor:  # who found the claim dead
                storage.write_file(root, f"{places.HOLDERS}/other", ELSEWHERE)
                storage.delete(root, f"{places.HOLDERS}/{mine}")
            arrives.set()
            before = lease._beats(root).get(mine, 0.0)
            for _ in range(100):
                time.sleep(0.05)
                if not successor and lease._beats(root)[mine] > before:
                    return

    if successor:
        with pytest.raises(SweepError, match="another driver took this sweep over"):
            drive()
        assert storage.list_files(root, places.HOLDERS) == ["other"]
    else:
        drive()
        assert storage.list_files(root, places.HOLDERS) == []
