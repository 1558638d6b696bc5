"""Errors that the command line turns into one message and an exit status."""

import errno
import re
import shutil
from collections.abc import Iterator

FULL = "No space left on device"
QUOTA = "Disk quota exceeded"
NO_SPACE = {errno.EDQUOT: QUOTA, errno.ENOSPC: FULL}
LEAST = 100_000  # bytes; with less on its disk Ray does not start, and does not say why
NAMED = re.compile(rf"(?:{FULL}|{QUOTA}): '([^']+)'")


class SweepError(ValueError):
    """A sweep cannot be run; the message names the file, the field and what is allowed.

    Args:
        lines: of the message, one for each problem. A line break within one of them is part of a
            name or a value, and is shown as such.
    """

    def __init__(self, *lines: str):
        super().__init__(*lines)

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


def no_space(error: BaseException | str) -> bool:
    """Whether an error, or one that led to it, says that the disk is full or a quota used up.

    Args:
        error: an error, or the text of one.
    """
    return _lacks(error) is not None


def _lacks(error: BaseException | str) -> int | None:
    """The number of the error among :data:`NO_SPACE`; None if it is another one."""
    chain = [error] if isinstance(error, str) else list(_chain(error))
    numbers = {each.errno for each in chain if isinstance(each, OSError)}
    texts = [str(each) for each in chain]
    for number, text in NO_SPACE.items():
        if number in numbers or any(text in each for each in texts):
            return number
    return None


def full_disk(error: BaseException | str, *folders: str) -> OSError:
    """The one error for a full disk or a used up quota, whatever says so and however it says it.

    Args:
        error: an error for which :func:`no_space` holds, or the text of one.
        folders: those that may be full. The error is about one of them if it names no file.
    """
    texts = [error] if isinstance(error, str) else [str(each) for each in _chain(error)]
    named = [found.group(1) for text in texts for found in NAMED.finditer(text)]
    full = [folder for folder in folders if is_full(folder)]
    number = _lacks(error) or errno.ENOSPC
    return OSError(number, NO_SPACE[number], [*named, *full, *folders][0])


def is_full(folder: str) -> bool:
    """Whether hardly anything fits on the disk of a folder; False for an object store."""
    try:
        return shutil.disk_usage(folder).free < LEAST
    except OSError:
        return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
