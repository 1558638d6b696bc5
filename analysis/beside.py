"""Calls a function in a copy of this process, on another core, while this process goes on."""

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
PR_SET_PDEATHSIG = 1  # of prctl, from Linux's prctl.h


@contextmanager
def beside(function: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Begin to call a function in a copy of this process.

    The copy has all that this process has loaded, but none of its threads. So this is for processes
    of the command line, where no thread matters, and the function should only compute. On Linux
    the copy ends with this process, however that ends.

    Args:
        function: takes nothing, and returns what can be pickled.

    Yields:
        A function that waits for what the other returned. If there is no copy, or it died, it is
        called here instead, and raises its errors.
    """
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    parent = os.getpid()

    def call() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it as well, and ends this
        _end_with(parent)
        receiver.close()
        with suppress(Exception):  # it is raised where it is waited for
            sender.send(function())

    copy = context.Process(target=call, daemon=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, see above
            copy.start()
    except OSError:  # no memory, or too many processes
        receiver.close()
        yield function
        return
    finally:
        sender.close()  # here: with the copy's end gone, nothing is left to wait for

    def wait() -> T:
        try:
            return receiver.recv()
        except (EOFError, OSError):  # it died before its answer, or in the middle of it
            return function()

    try:
        yield wait
    finally:
        copy.kill()
        copy.join()
        receiver.close()


def _end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, where the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that
            os._exit(1)
