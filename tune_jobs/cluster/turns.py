"""One sweep at a time on a Ray cluster: Ray Tune does not bear two.

Drivers run on the head. Each that waits has a ticket, a file that it holds locked; the first of
them takes the lock of the cluster. The system drops the locks of a process that dies, however
it dies, so nobody waits for the dead.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

PAUSE = 1.0  # seconds between looks


@contextmanager
def turn(cluster: str, sweep: str, say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no earlier sweep is left on a cluster, and have it until the end of the block.

    Args:
        cluster: its address.
        sweep: name of the sweep.
        say: told in words whom this one waits for, when that changes.
    """
    place = Path.home() / ".geosweep" / "queue" / re.sub(r"\W", "_", cluster)
    place.mkdir(parents=True, exist_ok=True)
    ticket = place / f"{time.time_ns():020d}-{os.getpid()}-{sweep}.ticket"
    running = FileLock(place / "running")  # tickets are for the order alone
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


def _ahead(place: Path, ticket: Path) -> list[str]:
    """The sweeps whose tickets are older, in words; tickets of the dead are thrown away."""
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
        found.append(f"{sweep} (process {process}, here since {since:%Y-%m-%d %H:%M:%S})")
    return found


def _take(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
