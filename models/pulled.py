"""From a function that hands values out to a generator that is asked for them."""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class _NotWantedError(BaseException):
    """No more values are wanted. Not an Exception, since the function might catch those."""


def pulled(hand_out: Callable[[Callable[[T], None]], None]) -> Iterator[T]:
    """The values that a function hands out, one at a time.

    The function runs in a thread that waits whenever it has handed a value out, until the next
    one is asked for. So a model that pushes its states through hooks can be followed like one
    that yields them, and no more than one state is held. Gradients are as where the generator runs;
    autocast is off.

    Args:
        hand_out: takes a function that it calls with each value. Its errors are raised here. If
            the generator is closed early, that call does not return.

    >>> list(pulled(lambda give: [give(n) for n in range(3)]))
    [0, 1, 2]
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    given: SimpleQueue[Any] = SimpleQueue()
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def give(value: T) -> None:
        given.put((value,))
        if not asked.get():
            asked.put(False)  # in case the function catches the error and goes on
            raise _NotWantedError

    def work() -> None:
        try:
            if asked.get():
                with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                    hand_out(give)
                given.put(None)
        except _NotWantedError:
            pass
        except BaseException as error:
            given.put(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            asked.put(True)
            answer = given.get()
            if answer is None:
                return
            if isinstance(answer, BaseException):
                raise answer
            yield answer[0]
            del answer  # a state
    finally:
        asked.put(False)
        thread.join()
