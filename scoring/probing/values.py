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
    """Masks among the arguments of a call, by name, True at tokens that are no padding.

    Args:
        given: arguments by name.
        decoder: whether the block belongs to the decoder of a model that also has an encoder.

    Returns:
        Masks (b, t), and masks of other shapes, which fit no state.

    Raises:
        ProbeError: the values of a mask do not say what is padding.
    """
    chosen = "decoder_attention_mask" if decoder else "attention_mask"
    left_out = ("tgt_key_padding_mask",) if decoder else ENCODING
    return {
        name: _kept(mask, name) if name == chosen else _not_left_out(mask, name)
        for name, mask in given.items()
        if name in (chosen, *left_out) and isinstance(mask, Tensor)
    }


def _not_left_out(mask: Tensor, name: str) -> Tensor:
    if mask.dtype == torch.bool:
        return ~mask
    if mask.is_floating_point():  # added to the attention, as torch does
        return mask >= 0
    raise ProbeError(_unclear(mask, name))


def _kept(mask: Tensor, name: str) -> Tensor:
    """Where an attention mask keeps tokens: it is 1 there, or 0 if it is added to the attention.

    A mask that is added is negative at padding. It has only zeros if there is no padding.
    """
    if mask.is_complex():
        raise ProbeError(_unclear(mask, name))
    if mask.is_floating_point() and (bool((mask < 0).any()) or not mask.any()):
        return mask >= 0
    return mask.bool()


def _unclear(mask: Tensor, name: str) -> str:
    return (
        f"{name}: {str(mask.dtype).removeprefix('torch.')} does not say which tokens are padding; "
        "pass mask=, a function that returns True at tokens that are no padding"
    )


def own_mask(mask: Any, state: Tensor, name: str) -> Tensor:
    """What a user's function says of the tokens of a block's state, (b, t).

    Raises:
        ProbeError: it is no mask of this state.
    """
    mask = _kept(torch.as_tensor(mask), "mask")
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


def points(state: Tensor, tokens: str, masks: list[Tensor]) -> Tensor:
    """The points of a state.

    Args:
        state: (b, ...), or (b, t, ..., d) if ``tokens`` is not ``all``.
        tokens: ``all``: each sample is a point. ``each``: every token of every sample is one.
            ``first``, ``mean``, ``last``: one token of each sample, or their mean.
        masks: the first one of shape (b, t) says which tokens are no padding. Padding is left out;
            under ``all`` it becomes 0, so that it never moves.

    Returns:
        A tensor (m, ...); it may share memory with the state.

    Raises:
        ProbeError: the state has no tokens.
    """
    if tokens == "all" and not masks:
        return state
    if state.ndim < 3:
        if tokens == "all":
            return state
        raise ProbeError(
            f"tokens: {tokens!r} needs states (b, t, d), and a block has {tuple(state.shape)}"
        )
    mask = next((mask for mask in masks if fits(mask, state)), None)
    if mask is not None:
        mask = mask.to(state.device)
        if mask.shape == state.shape[:2]:
            mask = mask.reshape(*mask.shape, *[1] * (state.ndim - 3)).expand(state.shape[:-1])
        mask = mask.reshape(state.shape[:-1])  # (b, t), or (b, h, w)
    if tokens == "all":
        return state if mask is None else torch.where(mask[..., None], state, 0.0)
    state = state.flatten(1, -2)  # (b, t, d), also from (b, h, w, d)
    if mask is None:
        return _points_of_all(state, tokens)
    mask = mask.flatten(1)
    if tokens == "each":
        return state[mask]
    if tokens == "mean":
        kept = torch.where(mask[..., None], state, 0.0)
        return kept.sum(1, dtype=torch.float64) / mask.sum(1, keepdim=True).clamp(min=1)
    order = mask.int() if tokens == "first" else mask.flip(1).int()
    place = order.argmax(1)
    place = place if tokens == "first" else mask.shape[1] - 1 - place
    return state[torch.arange(len(state), device=state.device), place]


def _points_of_all(state: Tensor, tokens: str) -> Tensor:
    if tokens == "each":
        return state.flatten(0, 1)
    return state.mean(1, dtype=torch.float64) if tokens == "mean" else state[:, TOKEN[tokens]]
