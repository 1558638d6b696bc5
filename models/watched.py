"""Hooks on the blocks of a network, which hand out its states while it runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

NAMES = ("hidden_states", "x", "input", "inputs", "src", "tgt")  # of a block's first argument

Places = Mapping[str, tuple[int, int]]  # stage and block, by the name of a call


def module_of(call: str) -> str:
    """The name of the module of a call. Further calls have its name and a number.

    >>> module_of("blocks.0"), module_of("blocks.0 (call 2)")
    ('blocks.0', 'blocks.0')
    """
    return call.partition(" (call ")[0]


class Ran(NamedTuple):
    """What a pass through a network has run so far."""

    steps: dict[str, int]  # how often each block ran, without calls that change the shape
    gaps: list[str]  # blocks that took another state than the block before them returned


@contextmanager
def watched(
    model: nn.Module, places: Places, take: Callable[[int, Tensor], None], compare: bool
) -> Iterator[Ran]:
    """Call a function with each stage and state while a network runs in this thread.

    Args:
        model: the network.
        places: of its blocks.
        take: gets a copy of each state, and does not change it.
        compare: whether to look for gaps. It reads a number from the device at every block.

    Yields:
        What ran so far.
    """
    here = get_ident()  # other walks through the network may wait in other threads
    calls: dict[str, int] = {}
    ran = Ran({}, [])
    begun: set[int] = set()  # stages
    taken: dict[str, torch.Size] = {}  # shapes
    latest: list[tuple[int, Tensor]] = []
    handles = []

    def place(name: str) -> tuple[int, int] | None:
        count = calls[name]
        return places.get(name if count == 1 else f"{name} (call {count})")

    def give(stage: int, state: Tensor) -> None:
        copy = state.clone()
        latest[:] = [(stage, copy)]
        take(stage, copy)

    def watch(name: str) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if get_ident() != here:
                return
            calls[name] = calls.get(name, 0) + 1
            named = [kwargs[one] for one in NAMES if one in kwargs]
            state = _states([*args, *named, *kwargs.values()])[0]
            taken[name] = state.shape
            where = place(name)
            if where is None:
                return
            stage, _block = where
            if stage not in begun:  # its first block may be left out
                begun.add(stage)
                give(stage, state)
            elif compare and any(k == stage and not same(last, state) for k, last in latest):
                ran.gaps.append(name)

        def after(_: nn.Module, args: Any, output: Any) -> None:
            if get_ident() != here:
                return
            where, states = place(name), _states([output])
            alike = [state for state in states if state.shape == taken[name]]
            if alike or where is not None:
                ran.steps[name] = ran.steps.get(name, 0) + 1
            if where is not None:
                give(where[0], (alike or states)[0])

        block = model.get_submodule(name)
        handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(block.register_forward_hook(after))

    try:
        for name in dict.fromkeys(map(module_of, places)):
            watch(name)
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two states are equal, rounded to the coarser precision; NaN equals NaN."""
    if one.shape != other.shape:
        return False
    if one.dtype != other.dtype:
        kind = max(one.dtype, other.dtype, key=lambda kind: torch.finfo(kind).eps)
        one, other = one.to(kind), other.to(kind)
    return torch.equal(one, other) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _states(given: Sequence[Any]) -> list[Tensor]:
    """What may be the state that a block takes or returns, as seen by the probe that found it.

    Tensors of floating-point numbers, then those inside of tuples, lists and mappings.
    """
    inside: list[Any] = []
    for value in given:
        if isinstance(value, Mapping):
            inside += value.values()
        elif isinstance(value, list | tuple):
            inside += value
    some = [value for value in [*given, *inside] if isinstance(value, Tensor)]
    return [tensor for tensor in some if tensor.is_floating_point() and tensor.ndim > 1]
