"""Adam and SGD, with one call of torch's fused kernel per group of parameters and step.

The kernels are those of ``torch.optim.Adam`` and ``torch.optim.SGD`` with ``fused=True``, so the
numbers are equal bit for bit, and so is the form of the saved state. The classes of
``torch.optim`` import torch's compiler when they are made. No trial needs it, and importing it is
a large part of what a worker does before its first epoch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import _foreach_add_ as add_  # type: ignore[attr-defined]
from torch import _fused_adam_ as fused_adam_  # type: ignore[attr-defined]
from torch import _fused_sgd_ as fused_sgd_  # type: ignore[attr-defined]

BETAS = (0.9, 0.999)  # Adam's decay rates of both moments (Kingma and Ba 2015)
EPSILON = 1e-8  # is added to the root of the second moment
MOMENTUM = 0.9  # of SGD
MOMENTS = {"adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}


class Group(NamedTuple):
    """Parameters with the same decay."""

    parameters: Sequence[nn.Parameter]
    decay: float  # decay times the parameter is added to its gradient: a coupled L2 penalty


class Optimizer:
    """Updates parameters from their gradients.

    Args:
        groups: all parameters, on one device. Each has a gradient when :meth:`step` is called.
        recipe: ``adam``, or ``sgd`` with momentum 0.9.
    """

    def __init__(self, groups: Sequence[Group], recipe: str):
        self._groups = [group for group in groups if group.parameters]
        self._recipe = recipe
        self._moments = [
            [[torch.zeros_like(p) for p in group.parameters] for _ in MOMENTS[recipe]]
            for group in self._groups
        ]
        self._steps = [
            [torch.zeros((), device=p.device) for p in group.parameters] for group in self._groups
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update all parameters with this learning rate."""
        for group, moments, steps in zip(self._groups, self._moments, self._steps, strict=True):
            parameters: list[Tensor] = list(group.parameters)
            gradients = [p.grad for p in parameters if p.grad is not None]
            add_(steps, 1)
            if self._recipe == "adam":
                means, squares = moments
                fused_adam_(
                    parameters,
                    gradients,
                    means,
                    squares,
                    [],
                    steps,
                    lr=rate,
                    beta1=BETAS[0],
                    beta2=BETAS[1],
                    weight_decay=group.decay,
                    eps=EPSILON,
                    amsgrad=False,
                    maximize=False,
                )
            else:
                fused_sgd_(
                    parameters,
                    gradients,
                    moments[0],
                    weight_decay=group.decay,
                    momentum=MOMENTUM,
                    lr=rate,
                    dampening=0.0,
                    nesterov=False,
                    maximize=False,
                    is_first_step=False,  # the momentum starts at 0
                )

    def zero_grad(self) -> None:
        """Delete all gradients."""
        for group in self._groups:
            for parameter in group.parameters:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The state that :meth:`load_state_dict` takes, in the form of ``torch.optim``."""
        return {"state": dict(enumerate(self._states()))}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from a state that was saved, also by ``torch.optim``.

        A state without any parameter, as ``torch.optim`` has it before the first step, changes
        nothing.

        Raises:
            ValueError: it belongs to another recipe, or to other parameters.
        """
        states, own = saved["state"], self._states()
        if states and states.keys() != set(range(len(own))):
            raise ValueError("the optimizer's state is that of another network")
        # torch.optim.SGD counts no steps.
        spare = {"step"} if self._recipe == "sgd" else set()
        for number, state in states.items():
            if {*spare, *state} != own[number].keys():
                raise ValueError("the optimizer's state is that of another recipe")
            for name, value in state.items():
                into = own[number][name]
                if not isinstance(value, Tensor) or (value.shape, value.dtype) != (
                    into.shape,
                    into.dtype,
                ):
                    raise ValueError(f"the optimizer's state has {name} of another shape or type")
                into.copy_(value)

    def _states(self) -> list[dict[str, Tensor]]:
        """The state of each parameter, by name, in the order of the groups."""
        return [
            {"step": step, **dict(zip(MOMENTS[self._recipe], moments, strict=True))}
            for lists, steps in zip(self._moments, self._steps, strict=True)
            for step, *moments in zip(steps, *lists, strict=True)
        ]
