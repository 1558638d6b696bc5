"""Whether a checkpoint is one of a trial: names, shapes and types of everything in it."""

from typing import Any

import torch

from models.config import TrialConfig
from models.datasets import Dataset
from models.network import build
from models.training import make_optimizer

MOMENTS = {"adam": {"step", "exp_avg", "exp_avg_sq"}, "sgd": {"momentum_buffer"}}  # of a weight


def check(config: TrialConfig, data: Dataset, checkpoint: dict[str, Any]) -> None:
    """Check that a checkpoint can go on training a trial, or be evaluated.

    ``load_state_dict`` of a network converts other types without a word, and that of an optimizer
    looks at no tensor, so training would go on with other numbers, or fail later.

    Args:
        config: the trial.
        data: its data set.
        checkpoint: its ``epoch``, ``network`` and, unless training has ended, ``optimizer``.

    Raises:
        ValueError: the checkpoint is of another trial; the message names the first difference.
    """
    network = build(config, data.image, data.classes)
    state, wanted = checkpoint["network"], network.state_dict()
    if state.keys() != wanted.keys():
        raise ValueError("its weights are those of another network")
    for name, value in wanted.items():
        _compare(name, state[name], value)
    if "optimizer" in checkpoint:
        optimizer = make_optimizer(network, config)
        begun = checkpoint["epoch"] > 0
        _check_optimizer(optimizer, MOMENTS[config.recipe], checkpoint["optimizer"], begun)


def _check_optimizer(
    optimizer: torch.optim.Optimizer, moments: set[str], state: dict[str, Any], begun: bool
) -> None:
    """Compare the state of an optimizer with what this one has, once it has made a step."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    groups = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    if [group["params"] for group in state["param_groups"]] != groups:
        raise ValueError("its optimizer is that of another network")
    if state["state"].keys() != (set(range(len(weights))) if begun else set()):
        raise ValueError("its optimizer lacks the state of some weights")
    for number, found in state["state"].items():
        if found.keys() != moments:
            raise ValueError("its optimizer is that of another recipe")
        for name, value in found.items():
            wanted = weights[number].new_zeros(()) if name == "step" else weights[number]
            _compare(f"{name} of weight {number}", value, wanted)


def _compare(name: str, found: Any, wanted: torch.Tensor) -> None:
    if not isinstance(found, torch.Tensor):
        raise TypeError(f"{name} is no tensor")
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        shapes = [" x ".join(map(str, each.shape)) or "1" for each in (found, wanted)]
        raise ValueError(
            f"{name} is {found.dtype} {shapes[0]} instead of {wanted.dtype} {shapes[1]}"
        )
