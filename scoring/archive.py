"""NumPy archives with arrays of each stage: the files that trained trials leave for scoring."""

import re
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from scoring import storage
from scoring.problems import Problem

OF_A_STAGE = re.compile(r"([a-z_]+)([0-9]+)")  # name of an array in the file, such as own1
PIECE = 2**20  # bytes that are read at a time


class Archive:
    """An open archive. An array is read when it is asked for, as products can be large.

    A zip file has a checksum for each array, which is compared when the array is read. Reading
    raises :class:`scoring.storage.Damaged` if it differs, or if there is no such array of numbers.
    """

    def __init__(self, root: str, path: str, file: Any):
        self._at, self._stream = (root, path), file
        with storage.reading(*self._at):
            self._file = np.load(file, allow_pickle=False)
            for part in self._file.zip.infolist():  # each name is in the file twice
                self._file.zip.open(part).close()  # raises if the two differ
        self.stages: dict[int, list[str]] = {}
        """Names of the arrays of each stage."""
        for name in self._file.files:
            if match := OF_A_STAGE.fullmatch(name):
                self.stages.setdefault(int(match[2]), []).append(match[1])

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file: on NFS the folder of an open file cannot be deleted."""
        self._file.close()
        self._stream.close()

    def shared(self, name: str, *shape: int | None) -> np.ndarray:
        """An array of numbers that belongs to no stage.

        Args:
            name: of the array.
            shape: the required shape; None stands for any length.
        """
        with storage.reading(*self._at):
            found = self._read(name)
            fits = [wanted in (None, here) for wanted, here in zip(shape, found.shape, strict=True)]
            if found.dtype.kind not in "biuf" or not all(fits):
                raise ValueError(f"{name} holds {found.dtype} {found.shape}")
            return found

    def array(self, stage: int, name: str, *shape: int | None) -> np.ndarray:
        """An array of a stage, checked like an array from :meth:`shared`."""
        return self.shared(f"{name}{stage}", *shape)

    def problem(self, stage: int, m: int) -> Problem:
        """The assignment problem of m points that is stored under this number, e.g. a stage's."""
        names = [name for name in Problem._fields if name in self.stages.get(stage, [])]
        arrays: dict[str, Any] = {name: self.array(stage, name, *_shape(name, m)) for name in names}
        with storage.reading(*self._at):
            return Problem(**arrays)

    def text(self, name: str) -> str:
        """A text that belongs to no stage."""
        with storage.reading(*self._at):
            return str(self._read(name))

    def _read(self, name: str) -> np.ndarray:
        # First compare the checksum: a changed shape may ask for more memory than there is.
        with self._file.zip.open(f"{name}.npy") as part:
            while part.read(PIECE):
                pass
        return self._file[name]


def _shape(name: str, m: int) -> tuple[int | None, ...]:
    """The shape of a field of a problem with m points."""
    shapes = {"inner": (m, m), "x": (m, None), "y": (m, None), "collapsed": (None,)}
    shapes |= dict.fromkeys(("shift", "unit", "scale", "random_cost", "relative"), ())
    return (shapes | {"gram": (m * (m + 1) // 2,)}).get(name, (m,))


def write_archive(
    root: str,
    path: str,
    stages: Mapping[int, Mapping[str, Any]],
    lasting: bool = True,
    **shared: Any,
) -> None:
    """Write an archive into a sweep's folder.

    Args:
        root: the sweep's folder.
        path: of the file in it.
        stages: arrays of each stage, by name.
        lasting: as for :func:`scoring.storage.writing`.
        shared: arrays that belong to no stage.
    """
    arrays = dict(shared)
    for stage, named in stages.items():
        arrays |= {f"{name}{stage}": value for name, value in named.items()}
    with storage.writing(root, path, lasting) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def write_arrays(root: str, path: str, arrays: Iterable[tuple[str, Any]]) -> None:
    """Write named arrays into an archive one by one, so that they need not fit in memory."""
    with (
        storage.writing(root, path) as stream,
        zipfile.ZipFile(stream, "w", allowZip64=True) as file,
    ):
        for name, array in arrays:
            with file.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.asanyarray(array), allow_pickle=False)


def open_archive(root: str, path: str) -> Archive:
    """Open an archive in a sweep's folder.

    Raises:
        storage.Damaged: the file is damaged or missing.
    """
    file = storage.open_file(root, path)
    if file is None:
        raise storage.Damaged(root, path, "it is missing")
    return Archive(root, path, file)
