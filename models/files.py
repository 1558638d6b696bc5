"""Files that users name: only regular ones are opened, so nothing blocks or never ends.

The one exception are pipes that the shell opened for this process: a pipeline, and ``<(...)``.
"""

import errno
import os
import re
import stat
from pathlib import Path
from typing import IO

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
STREAM = re.compile(r"/dev/stdin|(?:/dev|/proc/self)/fd/(\d{1,6})")


def given_path(text: str) -> Path:
    """A path as a user gave it, with ``~`` expanded where there is such a home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user
        return Path(text)


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether a name is taken, also by a broken link; False for names no file can have."""
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):
        return False


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file, or a link to one, to read its bytes.

    Raises:
        OSError: there is no such file, it is of another kind, or it cannot be read;
            ``strerror`` says which.
    """
    try:
        _check_kind(os.stat(path).st_mode)
        # Where a pipe has just taken the file's name, opening it without O_NONBLOCK would block.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except ValueError as error:
        raise OSError(errno.EINVAL, "the name has a NUL character") from error
    except FileNotFoundError:
        if not os.path.islink(path):
            raise
        goal = os.readlink(path)
        raise OSError(errno.ENOENT, f"is a link to {goal}, which does not exist") from None
    try:
        _check_kind(os.fstat(opened).st_mode)
        return os.fdopen(opened, "rb")
    except BaseException:
        os.close(opened)
        raise


def stream_number(path: str | os.PathLike[str]) -> int | None:
    """The file descriptor that a path like ``/dev/fd/3`` or ``/dev/stdin`` names, or None.

    >>> stream_number("/dev/fd/3"), stream_number("/dev/stdin"), stream_number("my.yaml")
    (3, 0, None)
    """
    found = STREAM.fullmatch(os.fspath(path))
    return int(found.group(1) or 0) if found else None


def open_text(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file, or a pipe that the shell opened for this process, to read its bytes.

    A pipe can be read once only.

    Raises:
        OSError: as for :func:`open_regular`.
    """
    number = stream_number(path)
    if number is not None:
        mode = os.fstat(number).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            return os.fdopen(os.dup(number), "rb")
    return open_regular(path)


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file")
