"""One driver at a time: who holds a sweep's folder.

On a file system that is a lock, which the system gives back whatever becomes of its holder. An
object store has no locks. There every driver that wants the folder puts a claim of its own into
``holders/``, looks whether there is another one, and if so takes its own back: of two, the one that
looked last has seen the other, since what was put is listed from then on. The holder puts its claim
again every few seconds; one that is old by the store's own clock is of a driver that was killed.

What this cannot promise, without puts that depend on what is there: a driver that was cut off for
a minute, and taken for dead, may write for a moment beside the one that took over, until it finds
its claim gone and stops. Both write the same files, whole ones, so no trial is counted twice; at
worst one is trained twice.
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
from tune_jobs.errors import SweepError

BEAT = 10.0  # seconds between two signs of life of a holder
DEAD = 60.0  # seconds without one after which it is taken for dead
ATTEMPTS = 3  # of drivers that want a folder in the same moment


@contextmanager
def hold(root: str) -> Iterator[None]:
    """Hold a sweep's folder for one driver.

    Raises:
        SweepError: another one has it, or it cannot be written; the message says which. Or it
            was taken over by another one, because nothing was heard from this one for a minute.
    """
    with _locked(root) if storage.is_local(root) else _claimed(root):
        yield


def holder(root: str) -> str | None:
    """The driver that holds a sweep's folder now, in words; None if there is none."""
    if not storage.is_local(root):
        now = time.time()  # close enough to the store's clock to say so
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
    lock.release()
    return None


def unwritable(root: str, error: Exception) -> SweepError:
    """What to say of a folder that cannot be written."""
    return SweepError(f"{root}: cannot be written: {error}; choose a folder with --out")


@contextmanager
def _locked(root: str) -> Iterator[None]:
    note = Path(root, places.HOLDER)
    lock = FileLock(Path(root, places.LOCK))
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=1)  # `holder` has it for a moment
    except OSError as error:
        if not isinstance(error, Timeout):
            raise unwritable(root, error) from error
        raise SweepError(
            f"{root}: {_who(root)} is running this sweep; wait for it, or stop it"
        ) from None
    try:
        try:
            note.write_text(_here()["who"])
        except OSError as error:
            raise unwritable(root, error) from error
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _who(root: str) -> str:
    """Who has locked a sweep's folder, as it says itself."""
    with suppress(OSError):  # it has just begun, or ended
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
            time.sleep(random.uniform(0.2, 1.0))  # or two of us always see each other
    except (OSError, pa.ArrowException) as error:
        with suppress(OSError, pa.ArrowException, storage.StoreError):
            storage.delete(root, claim)  # or it would keep others out for a minute
        raise unwritable(root, error) from error
    done, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            try:
                if mine not in _beats(root):
                    lost.set()
                    interrupt_main()  # as Ctrl-C does: epochs end, nothing new begins
                    return
                _put(root, claim)
            except (OSError, storage.StoreError):
                continue  # the next one may come through

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    except KeyboardInterrupt:
        if not lost.is_set():
            raise
    finally:
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
    """When each claim was put last, in seconds of the store's clock."""
    return {info.base_name: info.mtime_ns / 1e9 for info in storage.infos(root, places.HOLDERS)}


def _other(root: str, mine: str) -> str | None:
    """Another driver that is alive and claims the folder; claims of dead ones are deleted."""
    beats = _beats(root)
    if mine not in beats:
        raise OSError("what was just written there is not listed")
    for claim, beat in beats.items():
        if claim == mine:
            continue
        content = None
        with suppress(FileNotFoundError):  # taken back between the two steps of reading it
            content = storage.read_file(root, f"{places.HOLDERS}/{claim}")
        if content is None:
            continue  # taken back meanwhile
        about = json.loads(content)
        if beats[mine] - beat < DEAD and not _ended(about):
            return about["who"]
        storage.delete(root, f"{places.HOLDERS}/{claim}")
    return None


def _here() -> dict[str, Any]:
    """This process, for others to name it, and to see whether it is there."""
    return {
        "who": f"process {os.getpid()} on {socket.gethostname()}",
        "pid": os.getpid(),
        "machine": _machine(),
    }


def _machine() -> str:
    """What is the same for two processes only if they can see each other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _ended(about: dict[str, Any]) -> bool:
    """Whether a process is known to have ended: it was one of this machine, and is not there."""
    if not _machine() or about["machine"] != _machine():
        return False
    try:
        os.kill(about["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
