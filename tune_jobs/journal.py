"""The file of a search's study: Optuna's journal in a sweep's folder, local or not."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from scoring import checked, storage
from scoring.places import STUDY


class Journal:
    """A journal for Optuna's ``JournalStorage``. Only the driver writes to it.

    It has the methods of Optuna's ``BaseJournalBackend``, which is not its base here because
    Optuna takes a moment to load.

    Args:
        root: the sweep's folder.
    """

    def __init__(self, root: str):
        self._root, self._held = root, False
        self._lines = (storage.read_file(root, STUDY) or b"").splitlines()

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The entries from a number on; only these are looked at."""
        return [checked.load(line) for line in self._lines[log_number_from:]]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries; the file has them when this returns, or at the end of :meth:`at_once`."""
        self._lines += map(checked.dump, logs)
        if not self._held:
            self._write()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Write what is added in this context as a whole, so that a kill leaves all or nothing."""
        before, self._held = len(self._lines), True
        try:
            yield
        finally:
            self._held = False
        if len(self._lines) > before:
            self._write()

    def _write(self) -> None:
        content = b"".join(line + b"\n" for line in self._lines)
        storage.write_file(self._root, STUDY, content)
