"""A file with the progress of a long solve, so that it can continue after a kill."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

PART = 2**26  # bytes that are digested at a time


class Checkpoint:
    """Arrays in one local file that belong to certain points; without a path, nothing is kept."""

    def __init__(self, path: str | None, *points: np.ndarray):
        self.path = path
        self._points = digest(points) if path else np.zeros(0, np.uint8)

    def read(self) -> dict[str, np.ndarray]:
        """The arrays in the file; empty if there is no file.

        Raises:
            ValueError: the file is not a checkpoint, has other points, or its folder is missing.
        """
        if self.path is not None and not os.path.isdir(os.path.dirname(os.path.abspath(self.path))):
            raise ValueError(f"{self.path}: its folder does not exist; create it")
        if self.path is None or not os.path.exists(self.path):
            return {}
        try:
            with open(self.path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            points = arrays.pop("points")
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as e:
            raise ValueError(
                f"{self.path}: is no checkpoint of a solve, or damaged; delete it, or give another"
                " name as checkpoint"
            ) from e
        if not np.array_equal(points, self._points):
            raise ValueError(
                f"{self.path}: is a checkpoint of other points; delete it, or give another name as"
                " checkpoint"
            )
        return arrays

    def write(self, arrays: Mapping[str, Any]) -> None:
        """Replace the file atomically."""
        if self.path is None:
            return
        aside = f"{self.path}.part"  # The next run replaces what a killed one left.
        try:
            with open(aside, "wb") as file:
                np.savez(file, points=self._points, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, self.path)
        finally:
            if os.path.exists(aside):
                os.remove(aside)

    def remove(self) -> None:
        """Delete the file, as the solve is done."""
        if self.path is not None and os.path.exists(self.path):
            os.remove(self.path)


def digest(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """A checksum of contiguous arrays, their shapes and types, as bytes."""
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(f"{array.shape} {array.dtype.str}".encode())
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, len(flat), PART):
            found.update(flat[start : start + PART].data)
    return np.frombuffer(found.digest(), np.uint8)
