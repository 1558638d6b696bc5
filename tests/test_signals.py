"""What asks a sweep to stop."""

import math
import os
import signal

import pytest

from tune_jobs import signals
from tune_jobs.tuning import Stop


@pytest.mark.parametrize("number", signals.STOPPING)
def test_each_signal_interrupts_and_its_handler_is_given_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), signals.as_interrupt():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_hangup_that_is_ignored_stays_ignored():
    """As under nohup: the sweep goes on without its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.as_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", signals.STOPPING)
def test_what_must_not_be_left_half_done_is_ended_before_the_first_signal_interrupts(number):
    done = []

    def start(times: int) -> None:
        for each in range(times):
            os.kill(os.getpid(), number)
            done.append(each)

    with pytest.raises(KeyboardInterrupt), signals.deferred():
        start(1)
    with pytest.raises(KeyboardInterrupt), signals.deferred():
        start(2)
    assert done == [0, 0]


def test_what_nothing_may_interrupt_ends_before_all_signals_do_also_if_it_fails():
    done = []

    def start(fails: bool) -> None:
        for each in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            done.append(each)
        if fails:
            raise ValueError("it would be tried again")

    for fails in (False, True):
        with pytest.raises(KeyboardInterrupt), signals.deferred(math.inf):
            start(fails)
    assert done == [0, 1, 2] * 2


@pytest.mark.parametrize("first", signals.STOPPING)
@pytest.mark.parametrize("second", signals.STOPPING)
def test_the_first_signal_asks_and_any_second_one_interrupts(first, second):
    said = []
    stop = Stop(None, said.append)
    with stop.on_interrupt():
        os.kill(os.getpid(), first)
        assert stop.asked
        assert stop.interrupted
        stop.look([])
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)
    assert signals.name(first) in said[0]
