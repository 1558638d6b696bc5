"""From what a block takes and returns to the states of its points."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoring.probing.errors import ProbeError

TOKENS = ("all", "each", "first", "mean", "last")
NAMES = ("hidden_states", "x", "input", "inputs", "src", "tgt")  # of a block's first argument

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


def padding(given: Mapping[str, Any], decoder: bool) -> list[Tensor]:
    """Masks (b, t) among the arguments of a call, True at tokens that are no padding.

    Args:
        given: arguments by name.
        decoder: whether the block belongs to the decoder of a model that also has an encoder.

    Raises:
        ProbeError: the values of a mask do not say what is padding.
    """
    name = "decoder_attention_mask" if decoder else "attention_mask"
    kept = given.get(name)
    masks = [_kept(kept, name)] if isinstance(kept, Tensor) and kept.ndim == 2 else []
    encoding = ("src_key_padding_mask", "key_padding_mask")
    for name in ("tgt_key_padding_mask",) if decoder else encoding:
        left_out = given.get(name)
        if not isinstance(left_out, Tensor) or left_out.ndim != 2:
            continue
        if left_out.dtype == torch.bool:
            masks.append(~left_out)
        elif left_out.is_floating_point():  # added to the attention, as torch does
            masks.append(left_out >= 0)
        else:
            raise ProbeError(_unclear(left_out, name))
    return masks


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
    tokens = state.shape[1:-1].numel() if state.ndim > 2 else 0
    if tuple(mask.shape) not in {tuple(state.shape[:2]), (len(state), tokens)} or not tokens:
        raise ProbeError(
            f"mask: of shape {tuple(mask.shape)}, but {name} has states {tuple(state.shape)}; "
            "should be (b, t) for states (b, t, d)"
        )
    return mask


def points(state: Tensor, tokens: str, masks: list[Tensor]) -> Tensor:
    """The points of a state.

    Args:
        state: (b, ...), or (b, t, ..., d) if ``tokens`` is not ``all``.
        tokens: ``all``: each sample is a point. ``each``: every token of every sample is one.
            ``first``, ``mean``, ``last``: one token of each sample, or their mean.
        masks: the first of shape (b, t) says which tokens are no padding. Padding is left out;
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
    if tokens != "all":
        state = state.flatten(1, -2)  # (b, t, d), also from (b, h, w, d)
    mask = next((mask for mask in masks if mask.shape == state.shape[:2]), None)
    if mask is None:
        return _points_of_all(state, tokens)
    mask = mask.to(state.device)
    if tokens == "each":
        return state[mask]
    if tokens in ("all", "mean"):
        wide = mask.reshape(*mask.shape, *[1] * (state.ndim - 2))
        kept = torch.where(wide, state, 0.0)
        if tokens == "all":
            return kept
        return kept.sum(1, dtype=torch.float64) / mask.sum(1, keepdim=True).clamp(min=1)
    order = mask.int() if tokens == "first" else mask.flip(1).int()
    place = order.argmax(1)
    place = place if tokens == "first" else mask.shape[1] - 1 - place
    return state[torch.arange(len(state), device=state.device), place]


def _points_of_all(state: Tensor, tokens: str) -> Tensor:
    if tokens == "each":
        return state.flatten(0, 1)
    if tokens == "mean":
        return state.mean(1, dtype=torch.float64)
    return state[:, 0 if tokens == "first" else -1] if tokens != "all" else state
