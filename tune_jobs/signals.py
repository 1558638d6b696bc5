"""Ctrl-C, SIGTERM and SIGHUP: each of them asks a sweep to stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle all three, for as long as this lasts; ignored ones stay ignored, as under nohup."""
    if threading.current_thread() is not threading.main_thread():  # Python would refuse
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
    """Let each of them raise KeyboardInterrupt, so that everything is cleaned up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            forget_terminal()
        raise KeyboardInterrupt

    with handled(interrupt):
        yield


def name(number: int) -> str:
    """What a signal is called in a message."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def forget_terminal() -> None:
    """Print nowhere if the terminal is closed: writing to it would fail."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
