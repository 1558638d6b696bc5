"""Lets only one driver at a time hold a sweep's folder.

On a file system the holder takes a lock. The operating system releases it when the process ends,
however it ends.

An object store has no locks. There each driver writes a claim into ``holders/`` and then lists the
claims. If it finds another driver's claim, it deletes its own. Stores list a claim as soon as it
is written, so of two drivers at least the one that looks last sees the other. The holder rewrites
its claim every few seconds. A claim that is too old by the store's own clock belongs to a driver
that was killed. Claims also serve on a file system without locks (Lustre without ``-o flock``).
There the times of claims may come from the clocks of different machines.

Without conditional writes this has one gap. A driver that was cut off for a minute is taken for
dead and replaced. When it comes back, it may write at the same time as its successor for a moment,
until it finds its claim gone, or next to that of its successor, and stops. Both write the same,
whole files, so no trial is counted twice; at worst a trial is trained twice.
"""

import errno
import json
import os
import random
import socket
import threading
import time
import uuid
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from scoring import places, storage
from tune_jobs import signals
from tune_jobs.errors import SweepError

BEAT = 10.0  # seconds after which the holder rewrites its claim
DEAD = 60.0  # seconds; a younger claim is alive, an older one belongs to a dead driver
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # counts while a machine sleeps
LOCKLESS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems without locks
ATTEMPTS = 3  # a driver that sees another claim this many times gives up; before that it retries


@contextmanager
def hold(root: str) -> Iterator[None]:
    """Hold a sweep's folder for one driver.

    Raises:
        SweepError: another driver holds the folder, or it cannot be written; the message says
            which. Or another driver took the folder over, because this one showed no sign of
            life for a minute.
        scoring.storage.StoreError: a link in the folder leads out of it.
    """
    storage.refuse_links(root)
    for name in (places.LOCK, places.HOLDER) if storage.is_local(root) else ():
        if Path(root, name).is_dir():
            raise SweepError(f"{root}/{name}: a folder is in the place of a file; delete it")
    with _locked(root) if storage.is_local(root) else _claimed(root):
        yield


def holder(root: str) -> str | None:
    """Describe the driver that holds a sweep's folder now; None if there is none."""
    if not storage.is_local(root):
        return _claimant(root)
    if not Path(root, places.LOCK).exists():
        return None
    lock = _file_lock(root)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _who(root)
    except OSError as error:  # a link, which no driver locks, or a folder that cannot be written
        return _claimant(root) if error.errno in LOCKLESS else None
    lock.release()
    return _claimant(root)  # on a machine where the file system has no locks


def _claimant(root: str) -> str | None:
    """Who has a claim that was written a moment ago, or None."""
    now = time.time()  # close enough to the store's clock
    with suppress(storage.Damaged, OSError):
        for claim, beat in _beats(root).items():
            content = None
            if now - beat < DEAD:
                content = storage.read_file(root, f"{places.HOLDERS}/{claim}")
            if content is not None and not _ended(about := _about(content)):
                return about["who"]
    return None


def refuse_file(root: str) -> None:
    """Refuse a file in the place of a sweep's folder, or of a folder above it.

    Raises:
        SweepError: there is one.
    """
    places_above = () if "://" in root else (Path(root), *Path(root).parents)
    there = next((place for place in places_above if place.exists()), None)
    if there and not there.is_dir():
        raise SweepError(f"{there}: a file, where a folder should be; name another folder")


def unwritable(root: str, error: Exception) -> SweepError:
    """The error for a folder that cannot be written."""
    why = getattr(error, "strerror", None) or str(error)
    return SweepError(
        f"{root}: cannot be written: {why}; make it writable, or use another folder (a copy, or a "
        "new sweep with --out)"
    )


def _file_lock(root: str) -> FileLock:
    """The lock of a folder. It leaves no marker that outlives a killed process."""
    return FileLock(Path(root, places.LOCK), fallback_to_soft=False)


def _lock(root: str) -> FileLock | None:
    """Lock a folder; None on a file system that has no locks.

    Raises:
        SweepError: another driver holds the folder, or it cannot be written.
    """
    lock = _file_lock(root)
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=1)  # `holder` may have the lock for a moment
    except Timeout:
        raise _busy(root, _who(root)) from None
    except OSError as error:
        if error.errno in LOCKLESS:
            return None
        raise unwritable(root, error) from error
    return lock


def _busy(root: str, who: str, more: str = "") -> SweepError:
    return SweepError(f"{root}: {who} is running this sweep; wait for it, or stop it{more}")


@contextmanager
def _locked(root: str) -> Iterator[None]:
    note, lock = Path(root, places.HOLDER), _lock(root)
    if lock is None:
        with _claimed(root):
            if note.exists():  # of a driver on a machine where the file system has locks
                raise SweepError(
                    f"{note}: {_who(root)} has locked this folder, and here its file system has "
                    "no locks, so whether it still runs is not known; mount it with -o flock, or, "
                    "if it has ended, delete this file"
                )
            yield
        return
    try:
        try:
            storage.write_file(root, places.HOLDER, _here()["who"].encode(), lasting=False)
        except (OSError, pa.ArrowException) as error:
            raise unwritable(root, error) from error
        if other := _claimant(root):  # on a machine where the file system has no locks
            raise _busy(root, other)
        yield
    finally:
        with signals.ignored():  # a notebook keeps the lock as part of the last traceback
            note.unlink(missing_ok=True)
            lock.release()


def _who(root: str) -> str:
    """Who has locked a sweep's folder, according to the note that the holder wrote."""
    with suppress(OSError):  # the holder has just started or ended, so there is no note
        return Path(root, places.HOLDER).read_text() or "another process"
    return "another process"


@contextmanager
def _claimed(root: str) -> Iterator[None]:
    mine = uuid.uuid4().hex
    claim = f"{places.HOLDERS}/{mine}"
    try:
        for attempt in range(ATTEMPTS):
            written = _now()
            _put(root, claim)
            other = _other(root, mine)
            if other is None:
                break
            storage.delete(root, claim)
            if attempt + 1 == ATTEMPTS:
                more = f"; one that was killed is taken for dead {DEAD:.0f} s after its last sign "
                raise _busy(root, other, f"{more}of life")
            time.sleep(random.uniform(0.2, 1.0))  # random, so two drivers do not collide again
    except (OSError, pa.ArrowException) as error:
        with suppress(OSError, pa.ArrowException, storage.StoreError):
            storage.delete(root, claim)  # a claim left behind keeps others out for a minute
        raise unwritable(root, error) from error
    done, lost = threading.Event(), threading.Event()

    def is_lost(last: float) -> bool:
        """Write the claim again, if it is still there and no other driver has taken over."""
        if mine not in _beats(root):
            return True
        _put(root, claim)
        # Late, the line above may have brought back a claim that was found dead and deleted. The
        # one who deleted it had a claim of its own by then.
        if _now() - last < DEAD - BEAT or _other(root, mine) is None:
            return False
        storage.delete(root, claim)
        return True

    def beat(last: float) -> None:
        while not done.wait(BEAT):
            now = _now()
            try:
                if is_lost(last):
                    lost.set()
                    interrupt_main()  # like Ctrl-C: running epochs finish, nothing new starts
                    return
            except (OSError, pa.ArrowException, storage.StoreError):
                continue  # the next attempt may succeed
            last = now

    beating = threading.Thread(target=beat, args=[written], daemon=True)
    beating.start()
    try:
        yield
    except KeyboardInterrupt:
        if not lost.is_set():
            raise
    finally:
        with signals.ignored():
            done.set()
            beating.join(BEAT)
            if not lost.is_set():
                storage.delete(root, claim)
    if lost.is_set():
        raise SweepError(
            f"{root}: another driver took this sweep over: nothing had been heard from this one "
            f"for {DEAD:.0f} s; what is done is kept"
        )


def _now() -> float:
    return time.clock_gettime(CLOCK)


def _put(root: str, claim: str) -> None:
    storage.write_file(root, claim, json.dumps(_here()).encode(), lasting=False)


def _beats(root: str) -> dict[str, float]:
    """When each claim was last written, in seconds of the store's clock."""
    return {info.base_name: info.mtime_ns / 1e9 for info in storage.infos(root, places.HOLDERS)}


def _other(root: str, mine: str) -> str | None:
    """A live driver that also claims the folder, or None. Deletes the claims of dead drivers."""
    beats = _beats(root)
    if mine not in beats:
        raise OSError("what was just written there is not listed")
    for claim, beat in beats.items():
        if claim == mine:
            continue
        content = None
        with suppress(FileNotFoundError):  # deleted while it was being read
            content = storage.read_file(root, f"{places.HOLDERS}/{claim}")
        if content is None:
            continue  # deleted since it was listed
        about = _about(content)
        if beats[mine] - beat < DEAD and not _ended(about):
            return about["who"]
        with suppress(FileNotFoundError):  # a third driver deleted it
            storage.delete(root, f"{places.HOLDERS}/{claim}")
    return None


def _here() -> dict[str, Any]:
    """Describe this process, so that others can name it and check whether it is alive."""
    return {
        "who": f"process {os.getpid()} on {socket.gethostname()}",
        "pid": os.getpid(),
        "machine": _machine(),
    }


def _about(claim: bytes) -> dict[str, Any]:
    """What a claim says. If a crash of its machine has damaged it, only its time counts."""
    with suppress(ValueError):
        about = json.loads(claim)
        if isinstance(about, dict) and _here().keys() <= about.keys():
            return about
    return {"who": "another process", "pid": 0, "machine": ""}


def _machine() -> str:
    """Boot and PID namespace: equal only for processes that see each other; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _ended(about: dict[str, Any]) -> bool:
    """Whether a process is known to have ended: it ran on this machine and no longer exists."""
    if not _machine() or about["machine"] != _machine():
        return False
    try:
        os.kill(about["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
