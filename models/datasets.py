"""Data sets as plain uint8 arrays, prepared once on a node and memory-mapped by its trials.

``digits`` comes with scikit-learn, and functions of users return others (:mod:`models.returned`).
The rest is read from ``NAME.npz`` in the data folder if it exists; otherwise torchvision downloads
and verifies it at first use. Prepared arrays are kept in the cache folder. A file lock keeps two
processes of a node from preparing the same data set.
"""

import glob
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock, Timeout

from models import returned
from models.archives import ARRAYS, SPLITS, Form, check_forms, check_labels, read, read_archive
from models.callables import Code
from models.config import DATASETS
from models.downloads import delete_damaged
from models.errors import DataError
from models.files import given_path, is_there, open_regular
from models.messages import first_line, plain
from models.order import spread

PREPARED = "prepared:"  # prefix of the source of a data set that is already in the cache
NOTICE, PATIENCE = 60.0, 3600.0  # seconds of waiting for another process, until a word, and an end
FLAT = 1e-6  # A channel with at most this deviation is constant, and is divided by LEVELS instead.
LEVELS = 255.0  # Divided by 1, padding of crops and noise of evaluations would outweigh images.
DIGITS_TEST = 500  # test images among the 1,797


@dataclass(frozen=True)
class Dataset:
    """Images uint8 (count, height, width, channels), labels int64 (count,)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    mean: tuple[float, ...]  # per channel, over the images to train on, in pixel values
    std: tuple[float, ...]  # likewise; 255 for a channel that is constant
    checksum: str = ""  # of the shapes and contents of the four arrays
    spread: Sequence[str] = ()  # splits in a random order, as their file is sorted by class

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        height, width, channels = self.x_train.shape[1:]
        return channels, height, width


def data_folder(given: str | None = None) -> Path | None:
    """The folder with ``NAME.npz`` files: the given one, else ``GEOSWEEP_DATA``, else None."""
    folder = given or os.environ.get("GEOSWEEP_DATA")
    return given_path(folder).resolve() if folder else None


def cache_folder() -> Path:
    """The folder of prepared arrays: ``GEOSWEEP_CACHE``, else ``~/.cache/geosweep``.

    Raises:
        DataError: the variable is not set, and this user has no home folder.
    """
    if given := os.environ.get("GEOSWEEP_CACHE"):
        return given_path(given).resolve()
    try:
        return Path("~/.cache/geosweep").expanduser().resolve()
    except RuntimeError:
        raise DataError(
            "this user has no home folder; set HOME, or GEOSWEEP_CACHE to a folder for prepared "
            "data sets"
        ) from None


def load(name: str, folder: str | None = None, verify: bool = False) -> Dataset:
    """Load a data set, after preparing it if this node has not done so yet.

    Args:
        name: one of ``models.config.DATASETS``, or the path of an ``.npz`` file with uint8
            images ``x_train``, ``x_test`` of shape (count, height, width[, channels]) and
            integer labels ``y_train``, ``y_test``; or from :func:`source_of`.
        folder: the data folder; see :func:`data_folder`.
        verify: compare the arrays in the cache with their checksum, and prepare them again if
            they differ. This takes about a second for a few hundred megabytes.

    Returns:
        The data set, with arrays mapped from the cache, so processes of a node share their memory.
        A split that is sorted by class is in the order of :func:`models.order.spread`.

    Raises:
        DataError: the data set is unknown, unreadable, malformed, or cannot be downloaded.
    """
    if name.startswith(PREPARED):
        return keep(name.removeprefix(PREPARED), _gone)
    source = _source(name, data_folder(folder))
    place = _arrays() / _key(name, source)
    where = plain(source or name)
    return _prepared(place, lambda: _checked(_raw(name, source), where), verify)


def from_code(code: Code) -> Dataset:
    """Call a user's function, and keep what it returns in the cache, under its content.

    Other data has another place in the cache, so running trials keep the data they began with.

    Raises:
        DataError: the function fails, or returns something that is no data set.
    """
    arrays = _checked(returned.read(code), returned.name(code))
    place = _arrays() / f"{returned.short_name(code.identity)[:100]}-{_checksum(arrays)}"
    return _prepared(place, lambda: arrays, verify=True)


def source_of(data: Dataset) -> str:
    """What :func:`load` takes to find a data set from :func:`from_code` again in the cache."""
    return PREPARED + data.checksum


def keep(checksum: str, fetch: Callable[[], IO[bytes]]) -> Dataset:
    """Load a data set by its checksum, after fetching it if this node does not have it yet.

    Args:
        checksum: a :attr:`Dataset.checksum`.
        fetch: opens an ``.npz`` archive of its four arrays.

    Raises:
        DataError: the fetched data set has another checksum, or cannot be written to the cache.
    """

    def fetched() -> dict[str, np.ndarray]:
        where = f"data set {checksum}"
        with fetch() as file:
            arrays = _checked(read_archive(file, where), where)
        if (found := _checksum(arrays)) != checksum:
            raise DataError(f"{where}: what was fetched has the checksum {found}")
        return arrays

    return kept(checksum) or _prepared(_arrays() / checksum, fetched)


def kept(checksum: str, verify: bool = False) -> Dataset | None:
    """The data set with a :attr:`Dataset.checksum` if the cache has it; ``verify`` as in load."""
    for about in _arrays().glob("[!.]*/about.json"):
        data = _mapped(about.parent)
        if data is not None and data.checksum == checksum:
            return _mapped(about.parent, verify)
    return None


def _gone() -> IO[bytes]:
    raise DataError(
        f"{plain(_arrays())}: the data set is no longer there; run the sweep again, which calls "
        "its function"
    )


def _arrays() -> Path:
    return cache_folder() / "arrays-2"


def _prepared(
    place: Path, prepare: Callable[[], dict[str, np.ndarray]], verify: bool = False
) -> Dataset:
    """Load a data set from the cache; if it is missing or damaged, one process prepares it."""
    data = _mapped(place, verify)
    if data is not None:
        return data
    lock = Path(f"{place}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(lock):
            data = _mapped(place, verify)
            if data is None:
                if is_there(place):
                    print(f"{plain(place)}: damaged; preparing it again", file=sys.stderr)
                try:
                    _prepare(place, prepare())
                except BaseException:
                    lock.unlink(missing_ok=True)
                    raise
                data = _mapped(place)
    except OSError as error:
        problem = f"{plain(error.strerror or error)} ({plain(error.filename or place)})"
        raise DataError(
            f"cannot write the cache {plain(place.parent)}: {problem}; set GEOSWEEP_CACHE to a "
            "folder that you may write to, with room for the data"
        ) from error
    if data is None:
        raise DataError(f"{plain(place)}: cannot be read again; is the disk full or failing?")
    return data


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock of the cache, which is released when the process ends, however it ends.

    Only on a file system without locks, a file stands for it. If its process was killed, others
    on that machine notice, but those on other machines wait.

    Raises:
        DataError: another process has the lock for too long.
    """
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=NOTICE)
        except Timeout:
            said = f"{plain(path)}: waiting for another process, which prepares this data set"
            print(said, file=sys.stderr)
            lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise DataError(
            f"{plain(path)}: another process has kept this lock for {PATIENCE / 60:.0f} minutes; "
            "if none prepares this data set any more, delete the file, or set GEOSWEEP_CACHE to a "
            "folder on a disk of this machine"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _mapped(place: Path, verify: bool = False) -> Dataset | None:
    """The arrays at a place in the cache, or None if they are missing or damaged."""
    files = [place / "about.json", *(place / f"{key}.npy" for key in ARRAYS)]
    try:
        if not all(file.is_file() for file in files):
            return None
        about = json.loads(files[0].read_text())
        about["std"] = [deviation if deviation > FLAT else LEVELS for deviation in about["std"]]
        # Copy-on-write maps share memory until it is changed; torch warns of read-only ones.
        arrays = {key: np.load(place / f"{key}.npy", mmap_mode="c") for key in ARRAYS}
        data = Dataset(**arrays, **about)
        check_forms({key: Form(array.dtype, array.shape) for key, array in arrays.items()}, "")
        whole = len(data.mean) == len(data.std) == data.x_train.shape[3] and data.classes > 0
    except (OSError, EOFError, ValueError, TypeError, AttributeError, LookupError):
        return None
    return data if whole and (not verify or data.checksum == _checksum(arrays)) else None


def locate(name: str, folder: str | None = None, beside: str = "") -> str:
    """A name to pass to :func:`load` that does not depend on the current directory.

    Args:
        name: as for :func:`load`.
        folder: the data folder.
        beside: where else to look for a relative path: the sweep file's folder; empty for nowhere.

    Raises:
        DataError: there is no such file, or it is not a regular one.
    """
    source = _source(name, data_folder(folder), beside)
    return name if source is None else str(source)


def is_here(name: str, folder: str | None = None) -> bool:
    """Whether :func:`load` finds the data set on this machine, without a download.

    Raises:
        DataError: there is no such file, or it is not a regular one.
    """
    source = _source(name, data_folder(folder))
    return source is not None or name == "digits" or _mapped(_arrays() / name) is not None


def _source(name: str, folder: Path | None, beside: str = "") -> Path | None:
    """The .npz file that holds the data set; None if it is bundled or from torchvision.

    Raises:
        DataError: there is no such file, or it is not a regular one.
    """
    named = name in DATASETS
    path = Path(f"{name}.npz") if named else given_path(name)
    folders = {} if named else {Path(): "the current folder"}
    folders |= {folder: "the data folder"} if folder else {}
    if beside and not named and (own := Path(beside).resolve()) != Path().resolve():
        folders[own] = "the sweep file's folder"
    for place in folders:
        if is_there(place / path):
            return _regular(place / path)
    if named:
        return None
    looked = [f"{called} {plain(place.absolute())}" for place, called in folders.items()]
    told = "" if path.is_absolute() else f" (looked in {' and '.join(looked)})"
    raise DataError(f"no such file: {plain(path)}{told}")


def _regular(path: Path) -> Path:
    try:
        open_regular(path).close()
        return path.resolve()
    except OSError as error:
        raise DataError(
            f"{plain(path)}: cannot be read: {plain(error.strerror or error)}"
        ) from error


def _key(name: str, source: Path | None) -> str:
    if source is None:
        return name
    stat = source.stat()
    mark = f"{source} {stat.st_size} {stat.st_mtime_ns} spread"
    stem = os.fsencode(source.stem)[:100].decode(errors="ignore")  # file names have 255 bytes
    return f"{stem}-{sha256(os.fsencode(mark)).hexdigest()[:12]}"


def _raw(name: str, source: Path | None) -> dict[str, np.ndarray]:
    if source is not None:
        return read(source)
    return _digits() if name == "digits" else _from_torchvision(name)


def _prepare(place: Path, arrays: dict[str, np.ndarray]) -> None:
    spread_out = _spread(arrays)
    images = arrays["x_train"]
    about = {
        "classes": int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1,
        "mean": images.mean(axis=(0, 1, 2), dtype=np.float64).tolist(),
        "std": images.std(axis=(0, 1, 2), dtype=np.float64).tolist(),
        "checksum": _checksum(arrays),
    } | ({"spread": spread_out} if spread_out else {})
    needed = sum(array.nbytes for array in arrays.values())
    if needed > (free := shutil.disk_usage(place.parent).free):
        raise DataError(
            f"cannot write the cache {plain(place.parent)}: {place.name} takes "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; make room, or set "
            "GEOSWEEP_CACHE to a folder on another disk"
        )
    for left in place.parent.glob(f".{glob.escape(place.name)}-{'[0-9a-f]' * 32}"):
        # A process that was killed left it: this one holds the lock.
        shutil.rmtree(left, ignore_errors=True)
    aside = place.with_name(f".{place.name}-{uuid.uuid4().hex}")
    aside.mkdir()
    try:
        for key, array in arrays.items():
            np.save(aside / f"{key}.npy", array)
        (aside / "about.json").write_text(json.dumps(about))
        for file in aside.iterdir():  # otherwise a crash after the rename could leave zeros
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if place.is_dir() and not place.is_symlink():  # a damaged data set, to be replaced
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _spread(arrays: dict[str, np.ndarray]) -> list[str]:
    """Bring splits that are sorted by class into a random order, and name them.

    Trials with the images in the order of the file have another checksum, so the two never mix.
    """
    sorted_by_class = []
    for split in SPLITS:
        order = spread(arrays[f"y_{split}"])
        if order is not None:
            sorted_by_class.append(split)
            for part in "xy":
                arrays[f"{part}_{split}"] = arrays[f"{part}_{split}"][order]
    return sorted_by_class


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = sha256()
    for key in ARRAYS:
        digest.update(f"{key} {arrays[key].shape}".encode())
        digest.update(arrays[key].tobytes())
    return digest.hexdigest()[:16]


def _digits() -> dict[str, np.ndarray]:
    """scikit-learn's 1,797 images of 8 x 8 pixels (0 to 16), always split in the same way."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[:DIGITS_TEST], order[DIGITS_TEST:]
    images, labels = np.asarray(images, np.uint8).reshape(-1, 8, 8), np.asarray(labels)
    return dict(
        zip(ARRAYS, (images[train], labels[train], images[test], labels[test]), strict=True)
    )


def _from_torchvision(name: str) -> dict[str, np.ndarray]:
    from torchvision import datasets

    kind = {
        "mnist": datasets.MNIST,
        "fashion_mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }[name]
    root = cache_folder() / "downloads"
    for path in delete_damaged(root, name, getattr(kind, "resources", ())):
        print(f"{plain(path)}: damaged; unpacking or downloading it again", file=sys.stderr)
    print(f"{plain(name)}: downloading to {plain(root)}", file=sys.stderr)
    try:
        train, test = (kind(str(root), train=train, download=True) for train in (True, False))
    except Exception as error:  # torchvision raises errors of urllib, http, ssl, tarfile, ...
        raise DataError(
            f"{name}: could not be downloaded; put a {name}.npz with {', '.join(ARRAYS)} into a "
            f"folder and name it with --data or GEOSWEEP_DATA ({first_line(error)}); if a file in "
            f"{root} is damaged, delete it"
        ) from error
    found = (train.data, train.targets, test.data, test.targets)
    return dict(zip(ARRAYS, map(np.asarray, found), strict=True))


def _checked(raw: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Check arrays; return images as uint8 (count, h, w, c) and labels as int64."""
    check_forms({key: Form(array.dtype, array.shape) for key, array in raw.items()}, where)
    check_labels(raw["y_train"], raw["y_test"], where)
    arrays = {}
    for split in SPLITS:
        x, y = raw[f"x_{split}"], raw[f"y_{split}"]
        arrays[f"x_{split}"] = np.ascontiguousarray(x if x.ndim == 4 else x[..., None])
        arrays[f"y_{split}"] = y.astype(np.int64)
    return arrays
