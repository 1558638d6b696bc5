"""The optimizers of ``torch.optim`` that have no fused kernel of their own here.

Left out are those that need something else: ``ASGD`` has a second decay, and its averaged weights
are not those that train; ``LBFGS`` takes a closure, ``Rprop`` the whole train split at once,
``SparseAdam`` sparse gradients, and ``Muon`` only matrices, not the filters of a convolution.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CLASSES = {
    "nadam": "NAdam",
    "radam": "RAdam",
    "adamax": "Adamax",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "rmsprop": "RMSprop",
    "adafactor": "Adafactor",
}


class Group(NamedTuple):
    """Parameters with the same decay."""

    parameters: Sequence[nn.Parameter]
    decay: float  # coupled: decay times the parameter is added to its gradient, as an L2 penalty


class TorchOptimizer:
    """Updates parameters from their gradients, with torch's defaults except rate and decay.

    Args:
        groups: all parameters, on one device. One without a gradient has the gradient 0.
        recipe: a key of :data:`CLASSES`.
    """

    def __init__(self, groups: Sequence[Group], recipe: str):
        kind = getattr(torch.optim, CLASSES[recipe])
        self._torch: torch.optim.Optimizer = kind(
            [
                {"params": list(g.parameters), "weight_decay": g.decay}
                for g in groups
                if g.parameters
            ]
        )

    @property
    def _parameters(self) -> list[Tensor]:
        """All parameters, in the order of their states."""
        return [p for group in self._torch.param_groups for p in group["params"]]

    def step(self, rate: float | Tensor) -> None:
        """Update all parameters with this learning rate."""
        for group in self._torch.param_groups:
            group["lr"] = rate
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._torch.step()

    def zero_grad(self) -> None:
        """Delete all gradients."""
        self._torch.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The state that :meth:`load_state_dict` takes; empty before the first step of most."""
        return {"state": self._torch.state_dict()["state"]}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from a state that was saved. One without any parameter changes nothing.

        Raises:
            ValueError: it belongs to another recipe, or to other parameters.
        """
        if saved["state"]:
            states = self._states()
            continued(saved["state"], states)
            self._torch.state.update(zip(self._parameters, states, strict=True))

    def _states(self) -> list[dict[str, Any]]:
        """Parameter states in the form that this optimizer uses, which differs by recipe.

        They come from one step of an equal optimizer on other parameters.
        """
        twin = type(self._torch)(
            [  # type: ignore[call-arg]
                {**group, "params": [torch.zeros_like(p) for p in group["params"]]}
                for group in self._torch.param_groups
            ]
        )
        for group in twin.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        twin.step()
        return [twin.state[p] for group in twin.param_groups for p in group["params"]]


def continued(
    states: Mapping[int, Any], own: Sequence[dict[str, Tensor]], spare: Set[str] = frozenset()
) -> None:
    """Copy saved states of parameters into an optimizer's own, after checking each of them.

    Args:
        states: saved states by number of the parameter; if there are none, nothing changes.
        own: the states to copy into.
        spare: names that a saved state may lack.

    Raises:
        ValueError: the states belong to another recipe, or to other parameters.
    """
    if states and states.keys() != set(range(len(own))):
        raise ValueError("the optimizer's state is that of another network")
    for number, state in states.items():
        if {*spare, *state} != own[number].keys():
            raise ValueError("the optimizer's state is that of another recipe")
        for name, value in state.items():
            into = own[number][name]
            form = into.shape, into.dtype
            if not isinstance(value, Tensor) or (value.shape, value.dtype) != form:
                raise ValueError(f"the optimizer's state has {name} of another shape or type")
            into.copy_(value)
