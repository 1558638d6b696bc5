"""Errors that the command line turns into one message and an exit status."""

import errno
from collections.abc import Iterator

FULL = "No space left on device"


class SweepError(ValueError):
    """A sweep cannot be run; the message names the file, the field and what is allowed."""


def no_space(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that the disk is full."""
    return any(
        (isinstance(each, OSError) and each.errno == errno.ENOSPC) or FULL in str(each)
        for each in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
