"""Reads ``.npz`` files of users, and checks the rules that every data set follows.

An archive may come from anyone. A small one can unpack to more memory than the machine has, so
sizes and types are checked in the headers before an array is unpacked.
"""

import math
import os
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from models.errors import DataError
from models.files import open_regular
from models.messages import first_line, plain, several

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
SPLITS = ("train", "test")

MOST_CLASSES = 100_000  # limits the network, which has an output for each class
MOST_IN_IMAGE = 2**22  # values: 1024 x 1024 pixels of four channels
CHANNELS = 4  # Refuse images whose second axis is at most this and last axis longer.
NPY = b"\x93NUMPY"

IMAGES = "uint8 images of shape (count, height, width) or (count, height, width, channels)"


class Form(NamedTuple):
    """The type and shape in the header of an array."""

    dtype: np.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{plain(self.dtype, 40)} {plain(self.shape, 60)}"

    @property
    def bytes(self) -> int:
        """Memory of the unpacked array."""
        return math.prod(self.shape) * self.dtype.itemsize


def read(source: Path) -> dict[str, np.ndarray]:
    """Read the four arrays of an ``.npz`` file.

    Raises:
        DataError: it is not a regular file, not an archive, or breaks a rule of this module.
    """
    try:
        with open_regular(source) as file:
            return read_archive(file, plain(source))
    except OSError as error:
        problem = plain(error.strerror or error)
        raise DataError(f"{plain(source)}: cannot be read as an .npz archive: {problem}") from error


def read_archive(file: IO[bytes], where: str) -> dict[str, np.ndarray]:
    """Read the four arrays of an open ``.npz`` archive; ``where`` names it in messages.

    Raises:
        DataError: it is not an archive, or breaks a rule of this module.
    """
    try:
        if file.read(len(NPY)) == NPY:
            raise DataError(
                f"{where}: a single array, not an .npz archive that holds {', '.join(ARRAYS)}"
            )
        file.seek(0)
        with zipfile.ZipFile(file) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of headers written by Python 2
            members = _members(archive.infolist(), where)
            forms = {key: _form(archive, member, where) for key, member in members.items()}
            check_forms(forms, where)
            check_memory(forms, where)
            labels = {key: _array(archive, members[key]) for key in ("y_train", "y_test")}
            check_labels(labels["y_train"], labels["y_test"], where)
            images = {key: _array(archive, members[key]) for key in ("x_train", "x_test")}
            return {key: (images | labels)[key] for key in ARRAYS}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib, struct and NumPy raise different types
        raise DataError(
            f"{where}: cannot be read as an .npz archive: {first_line(error)}"
        ) from error


def _members(infos: Iterable[zipfile.ZipInfo], where: str) -> dict[str, zipfile.ZipInfo]:
    """Find the members that hold the four arrays."""
    found: dict[str, zipfile.ZipInfo] = {}
    names = []
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in found:
            raise DataError(f"{where}: holds {name} twice; save the file again")
        names.append(name)
        if name in ARRAYS:
            found[name] = info
    missing = [key for key in ARRAYS if key not in found]
    if missing:
        raise DataError(
            f"{where}: has no {', '.join(missing)}; an .npz data set holds {', '.join(ARRAYS)} "
            f"(found: {several(names) or 'nothing'})"
        )
    return found


def _form(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Form:
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)  # type: ignore[arg-type]
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)  # type: ignore[arg-type]
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(member)  # type: ignore[arg-type]
        else:
            raise ValueError(f"{info.filename} has the npy version {version}")
        header = member.tell()
    key, form = info.filename.removesuffix(".npy"), Form(dtype, shape)
    if dtype.hasobject:
        raise DataError(
            f"{where}: {key} cannot be read: it is {form}, pickled Python objects; "
            f"save {'images as uint8' if key.startswith('x') else 'labels as integers'}"
        )
    if header + form.bytes != info.file_size:
        raise DataError(
            f"{where}: {key} is damaged: its header says {form}, {form.bytes:,} bytes, and "
            f"{info.file_size - header:,} follow; save the file again"
        )
    return form


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)  # type: ignore[arg-type]


def check_forms(forms: Mapping[str, Form], where: str) -> None:
    """Check that types and shapes are those of a data set.

    Raises:
        DataError: an array is wrong; the message says which, what it is and what it should be.
    """
    for split in SPLITS:
        x, y = forms[f"x_{split}"], forms[f"y_{split}"]
        if x.dtype != np.uint8 or len(x.shape) not in (3, 4) or min(x.shape) <= 0:
            fix = ""
            if x.dtype.kind == "f":
                fix = "; for values from 0 to 1: (255 * x).round().astype(numpy.uint8)"
            elif x.dtype.kind in "iu" and x.dtype != np.uint8:
                fix = "; for values from 0 to 255: x.astype(numpy.uint8)"
            elif x.dtype.kind == "b":
                fix = "; 255 * x.astype(numpy.uint8)"
            raise DataError(f"{where}: x_{split} is {x}; should be {IMAGES}{fix}")
        if len(x.shape) == 4 and x.shape[1] <= CHANNELS < x.shape[3]:
            raise DataError(
                f"{where}: x_{split} is {x}: the channels come first; should be {IMAGES}: "
                "x.transpose(0, 2, 3, 1)"
            )
        if (values := math.prod(x.shape[1:])) > MOST_IN_IMAGE:
            raise DataError(
                f"{where}: x_{split} is {x}: an image has {values:,} values; should be at most "
                f"{MOST_IN_IMAGE:,}, so make them smaller"
            )
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            one_axis_too_many = len(y.shape) > 1 and math.prod(y.shape) == x.shape[0]
            fix = ".ravel()" if one_axis_too_many else ""
            fix += ".astype(numpy.int64)" if y.dtype.kind in "fb" else ""
            fix = f"; use y{fix}" if fix else ""
            raise DataError(
                f"{where}: y_{split} is {y}; should be {x.shape[0]} integer labels{fix}"
            )
    if _image(forms["x_train"]) != _image(forms["x_test"]):
        raise DataError(
            f"{where}: train and test images differ in size: "
            f"{forms['x_train']} and {forms['x_test']}"
        )


def _image(form: Form) -> tuple[int, ...]:
    height, width, *channels = form.shape[1:]
    return height, width, *(channels or [1])


def check_labels(train: np.ndarray, test: np.ndarray, where: str) -> None:
    """Check that labels are at least 0 and not too large, and that the train split has them all.

    Raises:
        DataError: a label is negative or too large, or the train split lacks a test label.
    """
    for split, y in zip(SPLITS, (train, test), strict=True):
        least, most = int(y.min()), int(y.max())
        if least < 0:
            raise DataError(f"{where}: y_{split} has the label {least}; labels start at 0")
        if most >= MOST_CLASSES:
            raise DataError(
                f"{where}: y_{split} has the label {most}; should be below {MOST_CLASSES}: "
                "number the classes 0, 1, 2, ..."
            )
    unseen = np.setdiff1d(test, train)
    if len(unseen):
        raise DataError(f"{where}: y_test has labels that y_train has not: {unseen[:5].tolist()}")


def check_memory(forms: Mapping[str, Form], where: str) -> None:
    """Check that memory is enough for the arrays, and for the train images as float64.

    Raises:
        DataError: memory is too small.
    """
    unpacked = sum(form.bytes for form in forms.values())
    needed = unpacked + 8 * forms["x_train"].bytes
    if needed > (there := memory()):
        raise DataError(
            f"{where}: takes {unpacked / 1e9:.1f} GB unpacked (x_train: {forms['x_train']}) and "
            f"{needed / 1e9:.1f} GB while its mean and deviation are computed; this machine has "
            f"{there / 1e9:.1f} GB; keep fewer or smaller images"
        )


def memory() -> float:
    """Memory of this machine, or of its container if that has less, in bytes."""
    there = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        return min(there, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no limit, or another kind of machine
        return there
