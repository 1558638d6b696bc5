"""A queue of sweeps: Ray Tune cannot run two at once on one Ray cluster.

Drivers run on the head. Each waiting driver has a ticket, which is a file that it holds locked. The
driver with the oldest ticket takes the lock of the cluster. When a process dies, however it dies,
the system releases its locks, so nobody waits for it.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from models.messages import plain
from tune_jobs import processes
from tune_jobs.errors import SweepError

QUEUE = ".geosweep/queue"  # in the home folder, a folder for each cluster
PAUSE = 1.0  # seconds between two attempts to become the first in the queue


@contextmanager
def place(address: str | None, sweep: str, say: Callable[[str], None]) -> Iterator[None]:
    """What a sweep needs of its cluster: its turn, or the nodes of its own Slurm job.

    Args:
        address: as for :func:`tune_jobs.processes.ray_running`, which connected this process.
        sweep: as for :func:`turn`.
        say: called with a sentence about what this sweep waits for, or has.

    Raises:
        SweepError: as by :func:`turn` and :func:`tune_jobs.cluster.allocation.joined`.
    """
    if address == processes.SLURM:
        from tune_jobs.cluster.allocation import joined

        with joined(say):
            yield
        return
    import ray

    with turn(ray.get_runtime_context().gcs_address, sweep, say):
        yield


@contextmanager
def turn(cluster: str, sweep: str, say: Callable[[str], None]) -> Iterator[None]:
    """Wait for the earlier sweeps on a cluster; later ones wait until the block ends.

    Args:
        cluster: its address.
        sweep: name of the sweep.
        say: called with a sentence about the sweeps ahead, whenever they change.

    Raises:
        SweepError: there is no home folder.
    """
    try:
        home = Path.home()
    except RuntimeError:
        raise SweepError("this user has no home folder, where sweeps queue; set HOME") from None
    place = home / QUEUE / re.sub(r"\W", "_", cluster)
    place.mkdir(parents=True, exist_ok=True)
    ticket = place / f"{time.time_ns():020d}-{os.getpid()}-{sweep}.ticket"
    running = FileLock(place / "running")  # whoever holds this runs; tickets only keep the order
    told = None
    with FileLock(ticket):
        try:
            while (ahead := _ahead(place, ticket)) or not _take(running):
                if ahead and ahead != told:
                    say(f"queued, one sweep at a time on a cluster; ahead: {', '.join(ahead)}")
                    told = ahead
                time.sleep(PAUSE)
            yield
        finally:
            ticket.unlink(missing_ok=True)
            running.release()


def busy() -> bool:
    """Whether a sweep on this machine runs or waits on any cluster."""
    held = False
    for ticket in (Path.home() / QUEUE).glob("*/*.ticket"):
        lock = FileLock(ticket)
        if _take(lock):
            lock.release()
        else:
            held = True
    return held


def _ahead(place: Path, ticket: Path) -> list[str]:
    """The sweeps whose tickets are older, in words. Deletes the tickets of processes that died."""
    found = []
    for other in sorted(place.glob("*.ticket")):
        if other.name >= ticket.name:
            break
        lock = FileLock(other)
        if _take(lock):
            other.unlink(missing_ok=True)
            lock.release()
            continue
        nanoseconds, process, sweep = other.stem.split("-", 2)
        since = datetime.fromtimestamp(int(nanoseconds) / 1e9)
        found.append(f"{plain(sweep)} (process {process}, here since {since:%Y-%m-%d %H:%M:%S})")
    return found


def _take(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
