"""What a process finds around it: odd surroundings are mended, or refused in one line.

Everything here happens before a command begins.
"""

import getpass
import os
from contextlib import suppress
from pathlib import Path

from models.datasets import cache_folder
from tune_jobs.errors import SweepError

NARROWEST = 20  # characters; fewer in a line leave no word of a table or a help text whole
WIDEST = 1000  # a frame around a help text is as wide as this


def prepare() -> None:
    """Mend what a library would trip over later.

    Raises:
        SweepError: the current folder is gone.
        models.errors.DataError: there is no home folder, and no ``GEOSWEEP_CACHE`` in its place.
    """
    _open_streams()
    _forget_widths()
    _name_the_user()
    try:
        os.getcwd()
    except OSError:
        raise SweepError(
            "the current folder was deleted or cannot be reached; change to another one (cd)"
        ) from None
    _give_a_home()


def _open_streams() -> None:
    """Open closed standard streams as the null device.

    Otherwise the next file that is opened would take a stream's number, and all that child
    processes print would be written into it.
    """
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _name_the_user() -> None:
    """Give a user without an account, as in a container, a name. Torch, Ray and MLflow ask."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user{os.getuid()}"


def _give_a_home() -> None:
    """Let the cache be the home of a user who has none: Ray Tune and MLflow need one."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(cache_folder())


def _forget_widths() -> None:
    """Remove widths of the terminal that are none, so that its real width counts."""
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        width = 0
        with suppress(ValueError):
            width = int(os.environ.get(name, "0"))
        if not NARROWEST <= width <= WIDEST:
            os.environ.pop(name, None)
