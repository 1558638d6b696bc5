"""What the commands ``python -m analysis.NAME`` share: arguments, printing and the exit status."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from analysis.measures.markup import visible


def tell(*lines: object) -> None:
    """Print lines. Where nobody reads them, as after ``| head -1``, the script goes on."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        _silence()


def _silence() -> None:
    """Send what is printed from now on, also by the flush at exit, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def refuse(name: str, said: object) -> int:
    """Say what is wrong with what a script was asked for, and return its exit status.

    Args:
        name: of the script, as in ``python -m analysis.NAME``.
        said: an error or a text.

    Returns:
        2, as for wrong arguments.
    """
    print(f"analysis.{name}: {visible(str(said))}", file=sys.stderr)
    return 2


def filled(text: str) -> str:
    """An argument of a script, which should not be empty, as an unset variable of the shell is."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give a value")
    return text


def script(main: Callable[[], int | None]) -> NoReturn:
    """Run a script and exit with its status; a closed output pipe (``| head``) is no error.

    Letters that the terminal cannot show, like γ in ASCII, become ``?``.
    """
    if sys.stdout is None:  # it was closed before the start
        sys.stdout = io.StringIO()
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()
        status = 0
    sys.exit(status)
