"""Handles Ctrl-C, SIGTERM and SIGHUP, each of which asks a sweep to stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle all three signals while the context is open.

    SIGTERM and SIGHUP stay ignored if they were, as SIGHUP is under nohup. Outside the main thread
    this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows no handlers here
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, was in before.items():
        if was is not signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, signal.SIG_DFL if was is None else was)


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on each of the three signals, so that cleanup code runs."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            forget_terminal()
        raise KeyboardInterrupt

    with handled(interrupt):
        yield


@contextmanager
def deferred(most: int = 1) -> Iterator[None]:
    """Raise KeyboardInterrupt only at the end.

    Args:
        most: this many signals are held back; the next one raises it at once.
    """
    asked = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if number == signal.SIGHUP:
            forget_terminal()
        asked += 1
        if asked > most:
            raise KeyboardInterrupt

    try:
        with handled(note):
            yield
    finally:
        if asked:
            raise KeyboardInterrupt


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore all three signals while the context is open."""
    with handled(lambda number, frame: None):
        yield


def name(number: int) -> str:
    """The name of a signal in messages."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def forget_terminal() -> None:
    """Redirect output to the null device if the terminal is closed, since writing would fail."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
