"""Data sets as plain uint8 arrays, prepared once on a node and memory-mapped by its trials.

``digits`` comes with scikit-learn. The others are taken from ``NAME.npz`` in the data folder
if it is there, else through torchvision, which downloads and checks them at first use. What
is prepared lies in the cache folder, under a lock that everything on a node shares.
"""

import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock

from models.config import DATASETS

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
DIGITS_TEST = 500  # of 1,797


class DataError(ValueError):
    """A data set that is not there, or is not what it should be; the message says which."""


@dataclass(frozen=True)
class Dataset:
    """Images uint8 (count, height, width, channels), labels int64 (count,)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    mean: tuple[float, ...]  # per channel, of the train split, in pixel values
    std: tuple[float, ...]
    checksum: str = ""  # of the four arrays: shapes, images, labels

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        height, width, channels = self.x_train.shape[1:]
        return channels, height, width


def data_folder(given: str | None = None) -> Path | None:
    """Where to look for ``NAME.npz``: what is given, else ``GEOSWEEP_DATA``, else nowhere."""
    folder = given or os.environ.get("GEOSWEEP_DATA")
    return Path(folder).expanduser().resolve() if folder else None


def cache_folder() -> Path:
    """Where prepared arrays lie: ``GEOSWEEP_CACHE``, else ``~/.cache/geosweep``."""
    return Path(os.environ.get("GEOSWEEP_CACHE") or "~/.cache/geosweep").expanduser().resolve()


def load(name: str, folder: str | None = None) -> Dataset:
    """A data set, prepared first if this node has not done so yet.

    Args:
        name: one of ``models.config.DATASETS``, or the path of an ``.npz`` file with uint8
            images ``x_train``, ``x_test`` of shape (count, height, width[, channels]) and
            integer labels ``y_train``, ``y_test``.
        folder: the data folder; see :func:`data_folder`.

    Returns:
        Arrays mapped from the cache: processes of one node share their memory.

    Raises:
        DataError: unknown, unreadable, malformed, or impossible to download.
    """
    source = _source(name, data_folder(folder))
    place = _arrays() / _key(name, source)
    return _prepared(place, lambda: _checked(_raw(name, source), str(source or name)))


def keep(checksum: str, fetch: Callable[[], IO[bytes]]) -> Dataset:
    """A data set by its checksum, fetched first if this node has no such one yet.

    Args:
        checksum: a :attr:`Dataset.checksum`.
        fetch: hands out an ``.npz`` archive of its four arrays.

    Raises:
        DataError: what was fetched is not that data set, or cannot be kept.
    """

    def fetched() -> dict[str, np.ndarray]:
        where = f"data set {checksum}"
        with fetch() as file:
            arrays = _checked(_from_archive(file, where), where)
        if (found := _checksum(arrays)) != checksum:
            raise DataError(f"{where}: what was fetched has the checksum {found}")
        return arrays

    for about in _arrays().glob("[!.]*/about.json"):
        if json.loads(about.read_text())["checksum"] == checksum:
            return _mapped(about.parent)
    return _prepared(_arrays() / checksum, fetched)


def _arrays() -> Path:
    return cache_folder() / "arrays-2"


def _prepared(place: Path, prepare: Callable[[], dict[str, np.ndarray]]) -> Dataset:
    """The data set at a place in the cache, prepared if it is not there by one process of many."""
    if not place.exists():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{place}.lock"):
                if not place.exists():
                    _prepare(place, prepare())
        except OSError as error:
            raise DataError(f"cannot write the cache {place.parent}: {error}") from error
    return _mapped(place)


def _mapped(place: Path) -> Dataset:
    about = json.loads((place / "about.json").read_text())
    # Copy-on-write maps: shared until somebody writes, and torch takes them without a warning.
    arrays = {key: np.load(place / f"{key}.npy", mmap_mode="c") for key in ARRAYS}
    return Dataset(**arrays, **about)


def locate(name: str, folder: str | None = None) -> str:
    """A name for :func:`load` that does not depend on the current directory."""
    source = _source(name, data_folder(folder))
    return name if source is None else str(source)


def is_here(name: str, folder: str | None = None) -> bool:
    """Whether :func:`load` finds a data set on this machine, and downloads nothing.

    Raises:
        DataError: no such file.
    """
    source = _source(name, data_folder(folder))
    return source is not None or name == "digits" or (_arrays() / name).exists()


def _source(name: str, folder: Path | None) -> Path | None:
    """The .npz file that holds the data set, or None: bundled, or torchvision's."""
    if name in DATASETS:
        here = folder / f"{name}.npz" if folder else None
        return here if here and here.exists() else None
    path = Path(name).expanduser()
    for candidate in (path, folder / path if folder else path):
        if candidate.exists():
            return candidate.resolve()
    raise DataError(f"no such file: {path}")


def _key(name: str, source: Path | None) -> str:
    if source is None:
        return name
    stat = source.stat()
    mark = f"{source} {stat.st_size} {stat.st_mtime_ns}"
    return f"{source.stem}-{sha256(mark.encode()).hexdigest()[:12]}"


def _raw(name: str, source: Path | None) -> dict[str, np.ndarray]:
    if source is not None:
        return _from_npz(source)
    return _digits() if name == "digits" else _from_torchvision(name)


def _prepare(place: Path, arrays: dict[str, np.ndarray]) -> None:
    images = arrays["x_train"]
    about = {
        "classes": int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1,
        "mean": images.mean(axis=(0, 1, 2), dtype=np.float64).tolist(),
        "std": np.maximum(images.std(axis=(0, 1, 2), dtype=np.float64), 1e-6).tolist(),
        "checksum": _checksum(arrays),
    }
    aside = place.with_name(f".{place.name}-{uuid.uuid4().hex}")
    aside.mkdir()
    try:
        for key, array in arrays.items():
            np.save(aside / f"{key}.npy", array)
        (aside / "about.json").write_text(json.dumps(about))
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = sha256()
    for key in ARRAYS:
        digest.update(f"{key} {arrays[key].shape}".encode())
        digest.update(arrays[key].tobytes())
    return digest.hexdigest()[:16]


def _digits() -> dict[str, np.ndarray]:
    """scikit-learn's 1,797 images of 8 x 8 pixels (0 to 16), split once and for all."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[:DIGITS_TEST], order[DIGITS_TEST:]
    images, labels = np.asarray(images, np.uint8).reshape(-1, 8, 8), np.asarray(labels)
    return {
        "x_train": images[train],
        "y_train": labels[train],
        "x_test": images[test],
        "y_test": labels[test],
    }


def _from_npz(source: Path) -> dict[str, np.ndarray]:
    try:
        with open(source, "rb") as file:  # numpy leaves a broken one open
            return _from_archive(file, str(source))
    except OSError as error:
        raise DataError(f"{source}: cannot be read as an .npz archive: {error}") from error


def _from_archive(file: IO[bytes], where: str) -> dict[str, np.ndarray]:
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, Mapping):
            raise DataError(
                f"{where}: a single array, not an .npz archive that holds {', '.join(ARRAYS)}"
            )
        missing = [key for key in ARRAYS if key not in archive]
        if missing:
            raise DataError(
                f"{where}: has no {', '.join(missing)}; an .npz data set holds "
                f"{', '.join(ARRAYS)} (found: {', '.join(archive) or 'nothing'})"
            )
        return {key: archive[key] for key in ARRAYS}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib, pickle and numpy each raise their own
        raise DataError(f"{where}: cannot be read as an .npz archive: {error}") from error


def _from_torchvision(name: str) -> dict[str, np.ndarray]:
    from torchvision import datasets

    kind = {
        "mnist": datasets.MNIST,
        "fashion_mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }[name]
    root = cache_folder() / "downloads"
    print(f"{name}: downloading to {root}", file=sys.stderr)
    try:
        train, test = (kind(str(root), train=train, download=True) for train in (True, False))
    except Exception as error:  # urllib, http, ssl, tarfile, RuntimeError: all mean the same here
        raise DataError(
            f"{name}: could not be downloaded; put a {name}.npz with {', '.join(ARRAYS)} into a "
            f"folder and name it with --data or GEOSWEEP_DATA ({str(error).splitlines()[0]})"
        ) from error
    return {
        "x_train": np.asarray(train.data),
        "y_train": np.asarray(train.targets),
        "x_test": np.asarray(test.data),
        "y_test": np.asarray(test.targets),
    }


def _checked(raw: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Images as uint8 (count, h, w, c) and labels as int64, or what is wrong with them."""
    arrays = {}
    for split in ("train", "test"):
        x, y = raw[f"x_{split}"], raw[f"y_{split}"]
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or min(x.shape) == 0:
            raise DataError(
                f"{where}: x_{split} is {x.dtype} {x.shape}; should be uint8 images of shape "
                "(count, height, width) or (count, height, width, channels)"
            )
        if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
            raise DataError(
                f"{where}: y_{split} is {y.dtype} {y.shape}; should be {len(x)} integer labels"
            )
        if y.min() < 0:
            raise DataError(f"{where}: y_{split} has the label {y.min()}; labels start at 0")
        arrays[f"x_{split}"] = np.ascontiguousarray(x if x.ndim == 4 else x[..., None])
        arrays[f"y_{split}"] = y.astype(np.int64)
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise DataError(f"{where}: train and test images differ in size")
    unseen = set(arrays["y_test"].tolist()) - set(arrays["y_train"].tolist())
    if unseen:
        raise DataError(f"{where}: y_test has labels that y_train has not: {sorted(unseen)[:5]}")
    return arrays
