"""Files in a sweep's folder, on a disk or in an object store. A file appears once complete.

A folder is a path, or any URI that ``pyarrow.fs`` opens. On a file system (a disk, a mounted path)
a file is written under another name, and renamed when it is complete. An object store (``s3://``,
``gs://``) has no rename. There, an object appears when its upload is completed, and replaces an
earlier one. But Arrow completes an upload whenever its stream is closed, even after an error
half-way, and cannot abandon one. So the content is collected on this machine first, and uploaded
in one call. A process killed here leaves no file behind.

An object store needs no more than what S3 promises: an object that was put can be read and listed
from then on. Needs pyarrow only.
"""

import errno
import mmap
import os
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs

from scoring.places import ASIDE

OBJECT_STORES = ("s3", "gcs")
AZURE = ("abfs", "abfss", "az", "adl", "wasb", "wasbs")
PATIENCE = 60.0  # When an object store does not answer, repeat the call for this many seconds.
PASSING = ("NETWORK_CONNECTION", "SLOW_DOWN", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE")
PASSING += ("REQUEST_TIMEOUT", "THROTTLING", "UNAVAILABLE")
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)


class StoreError(RuntimeError):
    """A file in a sweep's folder is damaged or foreign; the message names it."""


class Damaged(StoreError):
    """A file in a sweep's folder is not what geosweep wrote there.

    Args:
        root: the sweep's folder.
        path: of the file in it.
        reason: what is wrong with it.
    """

    def __init__(self, root: str, path: str, reason: str):
        super().__init__(root, path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.args[0]}/{self.path}: torn: {self.reason}"


@contextmanager
def reading(root: str, path: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file's content is read into :class:`Damaged`.

    Damaged bytes make the readers of JSON, zip files, arrays and weights raise errors of many
    types. Running out of memory or of space on the disk, or an object store that does not answer,
    says nothing about the file.
    """
    try:
        yield
    except (StoreError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # EINVAL: a damaged file makes its reader look before its beginning
        if is_away(error):
            raise Unreachable(f"{root}: cannot be reached: {error}") from error
        line = next(iter(str(error).splitlines()), "")
        raise Damaged(root, path, f"{type(error).__name__}: {line}"[:200]) from error


class Unreachable(StoreError):
    """A sweep's folder cannot be reached or written; the message says why."""


def open_folder(root: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a sweep's folder, and its path in it. A path without ``://`` is local.

    Raises:
        ValueError: there is no such kind of URI, or it is Azure's.
    """
    refuse(root)
    return _opened(root) if "://" in root else (pafs.LocalFileSystem(), root)


def subfolder(folder: str, name: str) -> str:
    """A folder of any name in a folder, which is a path or a URI.

    >>> subfolder("runs", "50%"), subfolder("s3://bucket/runs/", "50%")
    ('runs/50%', 's3://bucket/runs/50%25')
    """
    return f"{folder.rstrip('/')}/{quote(name) if '://' in folder else name}"


def refuse(root: str) -> None:
    """Refuse Azure's storage. Arrow may open it, but it is neither a disk nor an object store here.

    Raises:
        ValueError: the URI is one of Azure's storage.
    """
    kind, uri, _ = root.partition("://")
    if uri and kind.lower() in AZURE:
        raise ValueError("Azure's storage is not supported")


@lru_cache(maxsize=64)
def _opened(root: str) -> tuple[pafs.FileSystem, str]:
    if root.startswith("s3://"):  # a small file in one request, not in three
        root += f"{'&' if '?' in root else '?'}allow_delayed_open=true"
    fs, base = pafs.FileSystem.from_uri(root)
    return fs, base.rstrip("/")


def is_local(root: str) -> bool:
    """Whether a sweep's folder is a path on this machine; mounted file systems count."""
    return open_folder(root)[0].type_name == "local"


@contextmanager
def writing(root: str, path: str, lasting: bool = True) -> Iterator[Any]:
    """A binary stream into a file of a sweep's folder, which appears when it is complete.

    After a failure, an earlier file of that name is still there, and nothing else.

    Args:
        root: the sweep's folder.
        path: of the file in it.
        lasting: wait until the file also survives a power failure, which takes a disk some
            milliseconds. Files that are written often, or can be made again, need not last; see
            :func:`settle`.
    """
    fs, base = open_folder(root)
    if fs.type_name in OBJECT_STORES:
        with tempfile.TemporaryFile() as collected:
            yield collected
            _patiently(root, _put, fs, f"{base}/{path}", collected)
        return
    folder, _, name = f"{base}/{path}".rpartition("/")
    try:
        _make_folder(fs, base, folder, must_exist=root in _required)
    except (FileExistsError, NotADirectoryError) as error:
        if fs.get_file_info(base).is_file:
            raise StoreError(f"{root}: is a file, not a folder; move it away") from error
        above = [at for at in folders_above(path) if fs.get_file_info(f"{base}/{at}").is_file]
        if not above:
            raise
        raise Damaged(root, above[0], "a file is in its place") from error
    aside = f"{folder}/.{name}.{uuid.uuid4().hex}"
    try:
        with fs.open_output_stream(aside) as stream:
            yield stream
        if lasting and fs.type_name == "local":  # else the name could last without the content
            _sync(aside)
        try:
            fs.move(aside, f"{folder}/{name}")
        except IsADirectoryError as error:
            raise Damaged(root, path, "a folder is in its place") from error
        if lasting and fs.type_name == "local":
            _sync(folder)
    except BaseException:
        if fs.get_file_info(aside).type != pafs.FileType.NotFound:
            fs.delete_file(aside)
        raise


def settle(root: str, *paths: str) -> None:
    """Make files last that were written without; those that are not there are left out."""
    fs, base = open_folder(root)
    if fs.type_name != "local":
        return
    files = [at for path in paths if os.path.exists(at := f"{base}/{path}")]
    for at in (*files, *dict.fromkeys(map(os.path.dirname, files))):
        _sync(at)


def _sync(path: str) -> None:
    """Wait until a file's content, or the names in a folder, would survive a power failure.

    Some file systems cannot do this, most often not for folders.
    """
    try:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise OSError(error.errno, error.strerror, path) from error


def refuse_links(root: str, path: str = "") -> None:
    """Refuse to write into a folder in which a symbolic link leads out of it.

    The sweep's folder itself may be a link, and links inside it may lead to each other. Object
    stores have no links.

    Args:
        root: the sweep's folder.
        path: the part of it that is going to be written; by default all.

    Raises:
        StoreError: the message names a link and where it leads.
    """
    if not is_local(root):
        return
    base = os.path.realpath(open_folder(root)[1])
    top = os.path.join(base, path) if path else base
    found = [] if top == base else [top]
    for folder, folders, files in os.walk(top):
        found += [os.path.join(folder, name) for name in (*folders, *files)]
    for each in found:
        if os.path.islink(each) and not f"{os.path.realpath(each)}/".startswith(f"{base}/"):
            raise StoreError(
                f"{each}: is a link that leads out of the folder, to {os.readlink(each)}; "
                "delete it, or put what it leads to in its place"
            )


_required: set[str] = set()


def require(root: str) -> None:
    """Make this process never create the sweep's folder; if it is deleted, writing fails."""
    _required.add(root)


def _make_folder(fs: pafs.FileSystem, base: str, folder: str, must_exist: bool) -> None:
    """Create a folder inside a sweep's folder, and the sweep's folder unless it must exist."""
    if fs.type_name != "local":
        fs.create_dir(folder, recursive=True)
        return
    if not must_exist and not os.path.isdir(base):
        fs.create_dir(base, recursive=True)
        _sync(os.path.dirname(os.path.abspath(base)))
    for at in folders_above(f"{folder.removeprefix(base)}/x"[1:]):
        try:
            os.mkdir(f"{base}/{at}")
        except FileExistsError:
            if not os.path.isdir(f"{base}/{at}"):
                raise
        else:
            _sync(os.path.dirname(f"{base}/{at}"))


def folders_above(path: str) -> list[str]:
    """The subfolders that a path inside a sweep's folder goes through, the outermost first.

    >>> folders_above("results/trials/a.parquet")
    ['results', 'results/trials']
    """
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _put(fs: pafs.FileSystem, path: str, file: IO[bytes]) -> None:
    """Upload the content of a temporary file as a whole."""
    file.flush()
    size = os.fstat(file.fileno()).st_size
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def put() -> None:
        with fs.open_output_stream(path) as stream:
            stream.write(content)

    # Ctrl-C only reaches the main thread. Between the two lines of put() it would replace an
    # earlier object by an empty one.
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(put).result()


def write_file(root: str, path: str, content: bytes | pa.Buffer, lasting: bool = True) -> None:
    """Write a file in a sweep's folder as a whole; see :func:`writing`."""
    with writing(root, path, lasting) as stream:
        stream.write(content)


def open_file(root: str, path: str) -> pa.NativeFile | None:
    """Open a file in a sweep's folder to read and seek in; None if there is none.

    Raises:
        Damaged: a folder is in its place.
    """
    return _patiently(root, _open, root, path)


def _open(root: str, path: str) -> pa.NativeFile | None:
    fs, base = open_folder(root)
    kind = fs.get_file_info(f"{base}/{path}").type
    if kind == pafs.FileType.Directory:
        raise Damaged(root, path, "a folder is in its place")
    return fs.open_input_file(f"{base}/{path}") if kind == pafs.FileType.File else None


def read_file(root: str, path: str) -> bytes | None:
    """The content of a file in a sweep's folder; None if there is none.

    Raises:
        Damaged: a folder is in its place.
    """

    def read() -> bytes | None:
        file = _open(root, path)
        if file is None:
            return None
        with file:
            return file.read()

    return _patiently(root, read)


def read_buffer(root: str, path: str) -> pa.Buffer:
    """The content of an existing file in a sweep's folder, without a copy."""
    fs, base = open_folder(root)

    def read() -> pa.Buffer:
        with fs.open_input_stream(f"{base}/{path}") as stream:
            return stream.read_buffer()

    return _patiently(root, read)


def infos(root: str, folder: str, hidden: bool = False) -> list[pafs.FileInfo]:
    """Names, kinds, sizes and times of everything in a subfolder; hidden files only on request.

    Raises:
        Damaged: a file is in the place of the subfolder.
    """
    fs, base = open_folder(root)
    selector = pafs.FileSelector(f"{base}/{folder}", allow_not_found=True)
    try:
        found = _patiently(root, fs.get_file_info, selector)
    except NotADirectoryError as error:
        raise Damaged(root, folder, "a file is in its place") from error
    return [info for info in found if hidden or not info.base_name.startswith(".")]


def list_files(root: str, folder: str) -> list[str]:
    """Names in a subfolder, sorted, except hidden files (which are still being written)."""
    return sorted(info.base_name for info in infos(root, folder))


def delete(root: str, path: str) -> None:
    """Delete a file or a subfolder of a sweep's folder, if it is there."""
    fs, base = open_folder(root)
    kind = _patiently(root, fs.get_file_info, f"{base}/{path}").type
    try:
        if kind == pafs.FileType.Directory:
            _patiently(root, fs.delete_dir, f"{base}/{path}")
        elif kind == pafs.FileType.File:
            _patiently(root, fs.delete_file, f"{base}/{path}")
    except FileNotFoundError:
        if is_local(root):
            raise  # an object store may have deleted it, while its answer was lost


def set_aside(root: str, path: str) -> str:
    """Move a damaged or foreign file, or a folder, out of the way, and return its new path."""
    fs, base = open_folder(root)
    if fs.type_name not in OBJECT_STORES:
        _make_aside(fs, f"{base}/{ASIDE}")
    if path == ASIDE:
        return f"{ASIDE}/{ASIDE}"
    place = f"{ASIDE}/{path.replace('/', '-')}"
    if _patiently(root, fs.get_file_info, f"{base}/{place}").type != pafs.FileType.NotFound:
        place += f".{uuid.uuid4().hex[:6]}"
    _patiently(root, _move, fs, f"{base}/{path}", f"{base}/{place}")
    return place


def _make_aside(fs: pafs.FileSystem, place: str) -> None:
    """Create the folder of damaged files. A file in its place is moved into it."""
    spare = f"{place}.{uuid.uuid4().hex}"
    misplaced = fs.get_file_info(place).type == pafs.FileType.File
    if misplaced:
        fs.move(place, spare)
    fs.create_dir(place, recursive=True)
    if misplaced:
        fs.move(spare, f"{place}/{ASIDE}")


def _move(fs: pafs.FileSystem, source: str, goal: str) -> None:
    """Move a file or a folder. It may be called again after its answer was lost.

    An object store has no folders and moves objects one by one, each by a copy and a deletion.
    """
    if fs.type_name not in OBJECT_STORES:
        fs.move(source, goal)
        return
    inside = fs.get_file_info(pafs.FileSelector(source, recursive=True, allow_not_found=True))
    for info in inside or fs.get_file_info([source]):
        if info.type == pafs.FileType.File:
            fs.move(info.path, f"{goal}{info.path.removeprefix(source)}")


def is_away(error: Exception) -> bool:
    """Whether an error is about the connection to an object store, not about a file there."""
    return "AWS Error" in str(error) or "google::cloud::Status" in str(error)


def _patiently(root: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """Call a file system; repeat the call for a while if an object store does not answer."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call(*arguments)
        except OSError as error:
            if not is_away(error):
                raise
            lines = str(error).splitlines()
            if time.monotonic() > end or not any(word in str(error) for word in PASSING):
                raise Unreachable(f"{root}: cannot be reached: {lines[0]}") from error
            time.sleep(random.uniform(0.5, 2))
