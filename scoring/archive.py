"""NumPy archives with arrays of each stage: the files that trained trials leave for scoring."""

import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from scoring import storage

OF_A_STAGE = re.compile(r"([a-z_]+)([0-9]+)")  # name of an array in the file, such as own1


class Archive:
    """An open archive. An array is read when it is asked for, as products can be large."""

    def __init__(self, file: Any):
        self._file = np.load(file, allow_pickle=False)
        self.stages: dict[int, list[str]] = {}
        """Names of the arrays of each stage."""
        for name in self._file.files:
            if match := OF_A_STAGE.fullmatch(name):
                self.stages.setdefault(int(match[2]), []).append(match[1])

    def shared(self, name: str) -> np.ndarray:
        """An array that belongs to no stage."""
        return self._file[name]

    def array(self, stage: int, name: str) -> np.ndarray:
        """An array of a stage."""
        return self._file[f"{name}{stage}"]


def write_archive(
    root: str, path: str, stages: Mapping[int, Mapping[str, Any]], **shared: Any
) -> None:
    """Write an archive into a sweep's folder.

    Args:
        root: the sweep's folder.
        path: of the file in it.
        stages: arrays of each stage, by name.
        shared: arrays that belong to no stage.
    """
    arrays = dict(shared)
    for stage, named in stages.items():
        arrays |= {f"{name}{stage}": value for name, value in named.items()}
    with storage.writing(root, path) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def open_archive(root: str, path: str) -> Archive | None:
    """Open an archive in a sweep's folder; None where there is none.

    Raises:
        zipfile.BadZipFile: the file is damaged.
    """
    file = storage.open_file(root, path)
    if file is None:
        return None
    try:
        return Archive(file)
    except ValueError as error:  # not a zip file at all
        raise zipfile.BadZipFile(str(error)) from error
