"""Merges the results of a sweep while it runs, so that the first to load them need not."""

from threading import Thread

from scoring.merging import MANY, merge
from scoring.schemas import TABLES

FEWEST = 2 * MANY  # new trials that are merged together, and
SHARE = 50  # at least 1 / SHARE of all, so that looking at all files costs little per trial


class Merger:
    """Merges in a thread of the driver's process.

    What is not merged, because the driver was killed or nothing can be written, is read from the
    trials' own files. So nothing here can lose a row or count one twice, and nothing here fails.

    Args:
        root: the sweep's folder.
        ended: how many trials have ended before.
    """

    def __init__(self, root: str, ended: int = 0):
        self._root = root
        self._ended, self._new = ended, 0
        self._running: Thread | None = None

    def add(self) -> None:
        """Note that a trial has ended, and merge if it is time and no merging is under way."""
        self._ended, self._new = self._ended + 1, self._new + 1
        busy = self._running is not None and self._running.is_alive()
        if is_due(self._new, self._ended) and not busy:
            self._new = 0
            # A daemon, because a process killed while merging leaves nothing wrong behind.
            self._running = Thread(target=_merge_beside, args=(self._root,), daemon=True)
            self._running.start()

    def finish(self) -> None:
        """Leave one merged file of each table with many files, when all trials have ended."""
        if self._running is not None:
            self._running.join()
        merge_all(self._root, finish=True)


def is_due(new: int, ended: int) -> bool:
    """Whether it is time to merge this many new trials, of all that have ended."""
    return new >= max(FEWEST, ended // SHARE)


def _merge_beside(root: str) -> None:
    """Merge every table, in a thread that the end of the program may interrupt."""
    try:
        merge_all(root)
    except RuntimeError:
        return  # Python is ending, and its pools of threads take no more work


def merge_all(root: str, finish: bool = False) -> None:
    """Merge every table; see :func:`scoring.merging.merge`."""
    for table in TABLES:
        merge(root, table, finish)
