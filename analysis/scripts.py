"""What the commands ``python -m analysis.NAME`` share: arguments, printing and the exit status."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

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


def parser(name: str, about: str | None, end: str = "") -> argparse.ArgumentParser:
    """What reads the arguments of a script, and prints its help.

    Args:
        name: of the script, as in ``python -m analysis.NAME``.
        about: its docstring, with which the help begins. Its lines are not wrapped again, so that
            commands keep lines of their own.
        end: text for the end of the help, likewise.
    """
    return argparse.ArgumentParser(
        prog=f"python -m analysis.{name}",
        description=about,
        epilog=end,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def listing(heading: str, entries: Mapping[str, str]) -> str:
    """Lines for the end of a help: a heading, and a line for each entry."""
    width = max(map(len, entries)) + 2
    return "\n".join([f"{heading}:", *(f"  {n:{width}}{text}" for n, text in entries.items())])


FOLDER: dict[str, Any] = {
    "type": filled,
    "metavar": "DIR",
    "help": "a sweep's folder, like runs/demo, or the name of an MLflow experiment",
}
TRACKING_URI: dict[str, Any] = {
    "type": filled,
    "metavar": "URI",
    "help": "MLflow's address, like sqlite:///runs/demo/mlflow.db; DIR is then an experiment there",
}


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
