"""Lets only one driver at a time hold a sweep's folder.

On a file system the holder takes a lock. The operating system releases it when the process ends,
however it ends.

An object store has no locks. There each driver writes a claim into ``holders/`` and then lists the
claims. If it finds another driver's claim, it deletes its own. Stores list a claim as soon as it
is written, so of two drivers at least the one that looks last sees the other. The holder rewrites
its claim every few seconds. A claim that is too old by the store's own clock belongs to a driver
that was killed.

Without conditional writes this has one gap. A driver that was cut off for a minute is taken for
dead and replaced. When it comes back, it may write at the same time as its successor for a moment,
until it finds its claim gone and stops. Both write the same, whole files, so no trial is counted
twice; at worst a trial is trained twice.
"""

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
        now = time.time()  # close enough to the store's clock for a status message
        alive = [claim for claim, beat in _beats(root).items() if now - beat < DEAD]
        claims = (storage.read_file(root, f"{places.HOLDERS}/{claim}") for claim in alive)
        return next((json.loads(claim)["who"] for claim in claims if claim), None)
    if not Path(root, places.LOCK).exists():
        return None
    lock = FileLock(Path(root, places.LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _who(root)
    except OSError:  # a link, which no driver locks, or a folder that cannot be written
        return None
    lock.release()
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


@contextmanager
def _locked(root: str) -> Iterator[None]:
    note = Path(root, places.HOLDER)
    lock = FileLock(Path(root, places.LOCK))
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=1)  # `holder` may have the lock for a moment
    except OSError as error:
        if not isinstance(error, Timeout):
            raise unwritable(root, error) from error
        raise SweepError(
            f"{root}: {_who(root)} is running this sweep; wait for it, or stop it"
        ) from None
    try:
        try:
            storage.write_file(root, places.HOLDER, _here()["who"].encode())
        except (OSError, pa.ArrowException) as error:
            raise unwritable(root, error) from error
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
            _put(root, claim)
            other = _other(root, mine)
            if other is None:
                break
            storage.delete(root, claim)
            if attempt + 1 == ATTEMPTS:
                raise SweepError(
                    f"{root}: {other} is running this sweep; wait for it, or stop it; one that "
                    f"was killed is taken for dead {DEAD:.0f} s after its last sign of life"
                )
            time.sleep(random.uniform(0.2, 1.0))  # random, so two drivers do not collide again
    except (OSError, pa.ArrowException) as error:
        with suppress(OSError, pa.ArrowException, storage.StoreError):
            storage.delete(root, claim)  # a claim left behind keeps others out for a minute
        raise unwritable(root, error) from error
    done, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            try:
                if mine not in _beats(root):
                    lost.set()
                    interrupt_main()  # like Ctrl-C: running epochs finish, nothing new starts
                    return
                _put(root, claim)
            except (OSError, storage.StoreError):
                continue  # the next attempt may succeed

    beating = threading.Thread(target=beat, daemon=True)
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


def _put(root: str, claim: str) -> None:
    storage.write_file(root, claim, json.dumps(_here()).encode())


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
        about = json.loads(content)
        if beats[mine] - beat < DEAD and not _ended(about):
            return about["who"]
        storage.delete(root, f"{places.HOLDERS}/{claim}")
    return None


def _here() -> dict[str, Any]:
    """Describe this process, so that others can name it and check whether it is alive."""
    return {
        "who": f"process {os.getpid()} on {socket.gethostname()}",
        "pid": os.getpid(),
        "machine": _machine(),
    }


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
