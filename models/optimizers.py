"""Adam, AdamW and SGD, with one call of torch's fused kernel per group of parameters and step.

The kernels are those of ``torch.optim.Adam``, ``AdamW`` and ``SGD`` with ``fused=True``, so the
numbers are equal bit for bit, and so is the form of the saved state. The classes of
``torch.optim`` import torch's compiler when they are made. Few trials need it, and importing it is
a large part of what a worker does before its first epoch. Other recipes are in
:mod:`models.torch_optimizers`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import _fused_adam_ as fused_adam_  # type: ignore[attr-defined]
from torch import _fused_adamw_ as fused_adamw_  # type: ignore[attr-defined]
from torch import _fused_sgd_ as fused_sgd_  # type: ignore[attr-defined]

from models.recipes import MOMENTUM
from models.torch_optimizers import Group, TorchOptimizer, continued

BETAS = (0.9, 0.999)  # Adam's decay rates of both moments (Kingma and Ba 2015)
EPSILON = 1e-8  # is added to the root of the second moment
ADAM = ("exp_avg", "exp_avg_sq")
MOMENTS = {"adam": ADAM, "adamw": ADAM, "sgd": ("momentum_buffer",)}


def optimizer_of(
    groups: Sequence[Group], recipe: str, momentum: float | None = None
) -> "Optimizer | TorchOptimizer":
    """The optimizer of a recipe, one of ``models.recipes.LEARNING_RATE``."""
    if recipe not in MOMENTS:
        return TorchOptimizer(groups, recipe)
    return Optimizer(groups, recipe, momentum)


class Optimizer:
    """Updates parameters from their gradients.

    Args:
        groups: all parameters, on one device. One without a gradient has the gradient 0.
        recipe: ``adam``, ``adamw`` or ``sgd``.
        momentum: of SGD, in [0, 1); by default 0.9.
    """

    def __init__(self, groups: Sequence[Group], recipe: str, momentum: float | None = None):
        self._groups = [group for group in groups if group.parameters]
        self._recipe = recipe
        self._momentum = MOMENTUM["sgd"] if momentum is None else momentum
        self._moments = [
            [[torch.zeros_like(p) for p in group.parameters] for _ in MOMENTS[recipe]]
            for group in self._groups
        ]
        # The counts of a group share one tensor, so that one call increments all of them.
        self._counts = [
            torch.zeros(len(group.parameters), device=group.parameters[0].device)
            for group in self._groups
        ]
        self._steps = [[*counts.unbind()] for counts in self._counts]

    @torch.no_grad()
    def step(self, rate: float | Tensor) -> None:
        """Update all parameters with this learning rate; it may be a tensor () on their device."""
        for counts in self._counts:
            counts.add_(1)
        for group, moments, steps in zip(self._groups, self._moments, self._steps, strict=True):
            parameters: list[Tensor] = list(group.parameters)
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            if self._recipe == "sgd":
                fused_sgd_(
                    parameters,
                    gradients,
                    moments[0] if self._momentum else [],
                    weight_decay=group.decay,
                    momentum=self._momentum,
                    lr=rate,
                    dampening=0.0,
                    nesterov=False,
                    maximize=False,
                    is_first_step=False,  # the momentum starts at 0
                )
            else:
                means, squares = moments
                update = fused_adam_ if self._recipe == "adam" else fused_adamw_
                update(
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
        # torch.optim.SGD counts no steps.
        continued(saved["state"], self._states(), {"step"} if self._recipe == "sgd" else set())

    def _states(self) -> list[dict[str, Tensor]]:
        """The state of each parameter, by name, in the order of the groups."""
        return [
            {"step": step, **dict(zip(MOMENTS[self._recipe], moments, strict=True))}
            for lists, steps in zip(self._moments, self._steps, strict=True)
            for step, *moments in zip(steps, *lists, strict=True)
        ]
