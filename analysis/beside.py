"""Calls a function in a copy of this process, on another core, while this process goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def beside(function: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Begin to call a function in a copy of this process.

    The copy has all that this process has loaded, but none of its threads. So this is for processes
    of the command line, where no thread matters, and the function should only compute.

    Args:
        function: takes nothing, and returns what can be pickled.

    Yields:
        A function that waits for what the other returned. If there is no copy, or it died, it is
        called here instead, and raises its errors.
    """
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def call() -> None:
        receiver.close()
        with suppress(Exception):  # it is raised where it is waited for
            sender.send(function())

    copy = context.Process(target=call, daemon=True)
    copy.start()
    sender.close()  # here: with the copy's end gone, nothing is left to wait for

    def wait() -> T:
        try:
            return receiver.recv()
        except EOFError:
            return function()

    try:
        yield wait
    finally:
        copy.kill()
        copy.join()
        receiver.close()
