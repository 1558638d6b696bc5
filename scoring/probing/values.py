"""From what a block takes and returns to the states of its points."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoring.probing.errors import ProbeError

TOKENS = ("all", "each", "first", "mean", "last")
TOKEN = {"first": 0, "last": -1}
NAMES = ("hidden_states", "x", "input", "inputs", "src", "tgt")  # of a block's first argument

ENCODING = ("src_key_padding_mask", "key_padding_mask")

Mask = Callable[[Mapping[str, Any]], Tensor]


def taken(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The state that a block takes: its first floating-point tensor, by position, then by name.

    If no argument is one, the first tensor inside of a tuple, a list or a mapping.
    """
    named = [kwargs[name] for name in NAMES if name in kwargs]
    given = [*args, *named, *kwargs.values()]
    inside = [part for value in given for part in _parts(value)]
    return next(filter(_is_state, given + inside), None)


def returned(value: Any, shape: torch.Size | None) -> Tensor | None:
    """The state that a block returns, from a tensor, a tuple, a list or a mapping.

    The first tensor of the shape of the block's input; if there is none, the first one at all.
    """
    states = list(filter(_is_state, [value, *_parts(value)]))
    alike = [state for state in states if state.shape == shape]
    return next(iter(alike + states), None)


def _is_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, tuple | list) else []


def arguments(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, as far as the model's signature names them."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return dict(kwargs)
    return {**bound, **kwargs}


def samples(given: Mapping[str, Any]) -> tuple[set[int], set[int]]:
    """How many samples the arguments of a call may have, by their first axes and their second ones.

    A list of tensors has as many as its length, its first part, or all parts together.
    """
    first: set[int] = set()
    second: set[int] = set()
    for value in given.values():
        parts = [part for part in _parts(value) if isinstance(part, Tensor) and part.ndim]
        if parts:
            first |= {len(parts), len(parts[0]), sum(map(len, parts))}
        if isinstance(value, Tensor) and value.ndim:
            parts = [value]
        first |= {len(part) for part in parts}
        second |= {part.shape[1] for part in parts if 1 < part.ndim < 4}
    return first, second


def padding(given: Mapping[str, Any], decoder: bool) -> dict[str, Tensor]:
    """Masks among the arguments of a call that may say what is padding, by name.

    Args:
        given: arguments by name.
        decoder: whether the block belongs to the decoder of a model that also has an encoder.
    """
    chosen = "decoder_attention_mask" if decoder else "attention_mask"
    names = (chosen, "tgt_key_padding_mask") if decoder else (chosen, *ENCODING)
    return {n: mask for n, mask in given.items() if n in names and isinstance(mask, Tensor)}


def kept(mask: Tensor, name: str) -> Tensor:
    """Where a mask keeps tokens, True there.

    It is False there if its name is ``key_padding_mask``, and otherwise 1. Floating-point numbers
    may be added to the attention. They are negative at padding then, and all 0 without padding.

    Raises:
        ProbeError: its values do not say what is padding.
    """
    floating, left_out = mask.is_floating_point(), name.endswith("key_padding_mask")
    if left_out and mask.dtype == torch.bool:
        return ~mask
    if floating and (left_out or bool((mask < 0).any()) or not mask.any()):
        return mask >= 0
    if left_out or mask.is_complex():
        raise ProbeError(
            f"{name}: {str(mask.dtype).removeprefix('torch.')} does not say which tokens are "
            "padding; pass mask=, a function that returns True at tokens that are no padding"
        )
    return mask.bool()


def misses(mask: Tensor, name: str, state: Tensor) -> bool:
    """Whether a mask that does not fit a state may tell of padding among its tokens.

    Masks (t, t) and (..., t, t) may only say which tokens see which others, as causal ones do.
    """
    if mask.ndim == 2 and (mask.shape[0] == mask.shape[1] or len(state) % max(len(mask), 1)):
        return False
    try:
        tokens = kept(mask, name)
    except ProbeError:
        return True
    if mask.ndim > 2:
        tokens = tokens.any(-2)  # no token sees padding
    return not tokens.all()


def own_mask(mask: Any, state: Tensor, name: str) -> Tensor:
    """What a user's function says of the tokens of a block's state, (b, t).

    Raises:
        ProbeError: it is no mask of this state.
    """
    mask = kept(torch.as_tensor(mask), "mask")
    if not fits(mask, state):
        raise ProbeError(
            f"mask: of shape {tuple(mask.shape)}, but {name} has states {tuple(state.shape)}; "
            "should be (b, t) for states (b, t, d)"
        )
    return mask


def fits(mask: Tensor, state: Tensor) -> bool:
    """Whether a mask is of the tokens of a state: (b, t, ...), or (b, ..., d) with t in between."""
    inner = (len(state), state.shape[1:-1].numel())
    return state.ndim > 2 and tuple(mask.shape) in {tuple(state.shape[:2]), inner}


def points(state: Tensor, tokens: str, mask: Tensor | None) -> Tensor:
    """The points of a state.

    Args:
        state: (b, ...), or (b, t, ..., d) if ``tokens`` is not ``all``.
        tokens: ``all``: each sample is a point. ``each``: every token of every sample is one.
            ``first``, ``mean``, ``last``: one token of each sample, or their mean.
        mask: says which tokens are no padding; it fits the state. Padding is left out; under
            ``all`` it becomes 0, so that it never moves.

    Returns:
        A tensor (m, ...); it may share memory with the state.

    Raises:
        ProbeError: the state has no tokens.
    """
    if tokens == "all" and mask is None:
        return state
    if state.ndim < 3:
        raise ProbeError(
            f"tokens: {tokens!r} needs states (b, t, d), and a block has {tuple(state.shape)}"
        )
    if mask is not None:
        mask = mask.to(state.device)
        if mask.shape == state.shape[:2]:
            mask = mask.reshape(*mask.shape, *[1] * (state.ndim - 3)).expand(state.shape[:-1])
        mask = mask.reshape(state.shape[:-1])  # (b, t), or (b, h, w)
    if tokens == "all":
        assert mask is not None
        return torch.where(mask[..., None], state, 0.0)
    state = state.flatten(1, -2)  # (b, t, d), also from (b, h, w, d)
    if mask is None:
        return _points_of_all(state, tokens)
    mask = mask.flatten(1)
    if tokens == "each":
        return state[mask]
    if tokens == "mean":
        zeroed = torch.where(mask[..., None], state, 0.0)
        return zeroed.sum(1, dtype=torch.float64) / mask.sum(1, keepdim=True).clamp(min=1)
    order = mask.int() if tokens == "first" else mask.flip(1).int()
    place = order.argmax(1)
    place = place if tokens == "first" else mask.shape[1] - 1 - place
    return state[torch.arange(len(state), device=state.device), place]


def _points_of_all(state: Tensor, tokens: str) -> Tensor:
    if tokens == "each":
        return state.flatten(0, 1)
    return state.mean(1, dtype=torch.float64) if tokens == "mean" else state[:, TOKEN[tokens]]
