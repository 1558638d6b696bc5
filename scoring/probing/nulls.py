"""Copies of a model that a probe compares it with: with new weights, or with blocks shuffled."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils._pytree import tree_map

from scoring.probing.errors import ProbeError, ProbeWarning

SEED = 0  # of new weights and of the order of shuffled blocks


def reinitialised(model: nn.Module) -> nn.Module:
    """A copy of a model with new weights.

    Every module with ``reset_parameters`` gets torch's default for it, parts before the whole, and
    running statistics start anew; a model of transformers follows its own ``_init_weights``. The
    entries of parameters that no module resets, such as class tokens, are put in random order:
    this keeps their distribution and destroys what they learned. The seed is fixed, and the
    caller's random numbers go on as before.

    Raises:
        ProbeError: the model cannot be copied, or one of its modules cannot be reset.
    """
    other = _copied(model, {})
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(devices=_devices(model)),
        torch.no_grad(),
    ):
        torch.manual_seed(SEED)
        before = {name: value._version for name, value in other.named_parameters()}
        for module in reversed(list(other.modules())):  # attention also sets what its parts have
            reset = getattr(module, "reset_parameters", None)
            if reset is None and isinstance(module, nn.MultiheadAttention):
                reset = module._reset_parameters
            if callable(reset):
                _reset(module, reset)
        fill = getattr(other, "_init_weights", None)
        if callable(fill) and hasattr(other, "config"):
            for value in other.parameters():
                value._is_hf_initialized = False  # type: ignore[attr-defined]
            for module in other.modules():
                fill(module)
        for name, value in other.named_parameters():
            if value._version == before[name]:  # nothing has written into it
                place = torch.randperm(value.numel(), device="cpu").to(value.device)
                value.copy_(value.flatten()[place].view_as(value))
    return other


def same_weights(model: nn.Module) -> nn.Module:
    """A copy of a model that shares its parameters, to be shuffled; running statistics are copied.

    Raises:
        ProbeError: the model cannot be copied.
    """
    return _copied(model, {id(value): value for value in model.parameters()})


def shuffle(model: nn.Module, stages: Sequence[Sequence[str]]) -> None:
    """Put the blocks of each stage into random order, the same one every time.

    Args:
        model: a copy from :func:`same_weights`.
        stages: the names of the blocks of each stage, in order. A stage with a block that is called
            twice stays as it is.
    """
    draw = torch.Generator().manual_seed(SEED)
    for names in stages:
        n = len(names)
        if n < 2 or len(set(names)) < n or any(" (call " in name for name in names):
            continue
        order = torch.arange(n)
        while torch.equal(order, torch.arange(n)):
            order = torch.randperm(n, generator=draw)
        blocks = [model.get_submodule(name) for name in names]
        for name, place in zip(names, order.tolist(), strict=True):
            parent, _, last = name.rpartition(".")
            model.get_submodule(parent)._modules[last] = blocks[place]


def not_called(model: nn.Module) -> str | None:
    """The name of a lazy module that has not been called yet; None if there is none."""
    lazy = (name for name, m in model.named_modules() if isinstance(m, LazyModuleMixin))
    return next(lazy, None)


def unsettled(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch normalisations whose running statistics, mean 0 and variance 1, are of no data."""
    norms = {n: module for n, module in model.named_modules() if isinstance(module, _BatchNorm)}
    return {
        name: norm
        for name, norm in norms.items()
        if norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool((norm.running_var == 1).all())
    }


@torch.no_grad()
def settle(
    model: nn.Module, norms: Sequence[_BatchNorm], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Give new batch normalisations the statistics of a batch.

    Without them, a network with new weights differs in evaluation mode from the one that would be
    trained, and is no baseline for it. ``reset_running_stats`` undoes it.
    """
    momenta = [norm.momentum for norm in norms]
    model.eval()  # no dropout
    for norm in norms:
        norm.train()
        norm.momentum = None  # the plain mean over batches
    try:
        model(*args, **kwargs)
    except ValueError as error:  # one value for a channel has no variance
        warnings.warn(
            f"null: normalisations of the baseline keep mean 0 and variance 1: {error}",
            ProbeWarning,
            stacklevel=2,
        )
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def own_inputs(value: Any) -> Any:
    """A copy of the arguments of a call: a model may change them, such as its cache."""

    def own(part: Any) -> Any:
        if isinstance(part, Tensor):
            return part.detach().clone()
        simple = part is None or isinstance(part, bool | int | float | str | torch.dtype)
        return part if simple else copy.deepcopy(part)

    return tree_map(own, value)


def _copied(model: nn.Module, shared: dict[int, Any]) -> nn.Module:
    if lazy := not_called(model):
        raise ProbeError(
            f"null: {lazy} gets its shape in its first call; call the model once first"
        )
    try:
        with torch.inference_mode(False):  # its tensors can be changed later
            other = copy.deepcopy(model, shared)
    except (RuntimeError, TypeError) as error:
        raise ProbeError(
            f"null: {type(model).__name__} cannot be copied ({error}); pass a model that you "
            "built again"
        ) from error
    for module in other.modules():  # another probe may be running
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for number, hook in list(hooks.items()):
                if str(getattr(hook, "__module__", "")).startswith("scoring.prob"):
                    del hooks[number]
    return other


def _reset(module: nn.Module, reset: Callable[[], Any]) -> None:
    try:
        reset()
    except Exception as error:  # whatever the user's module raises
        raise ProbeError(
            f"null: reset_parameters of {type(module).__name__} failed ({error}); pass a model "
            "that you built again"
        ) from error


def _devices(model: nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
