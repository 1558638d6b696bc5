"""Whether a checkpoint is one of a trial: names, shapes and types of everything in it."""

from typing import Any

import torch

from models.config import TrialConfig
from models.custom import Blocks
from models.datasets import Dataset
from models.network import build
from models.training import make_optimizer


def check(
    config: TrialConfig, data: Dataset, checkpoint: dict[str, Any], blocks: Blocks = ()
) -> None:
    """Check that training can continue from a checkpoint, or that it can be evaluated.

    ``load_state_dict`` silently converts tensors of other types, so training would go on with
    other numbers; tensors of other shapes make it fail.

    Args:
        config: the trial.
        data: its data set.
        checkpoint: its ``epoch``, ``network`` and, unless training has ended, ``optimizer``.
        blocks: as for :func:`models.network.build`.

    Raises:
        ValueError: the checkpoint is of another trial; the message names the first difference.
    """
    network = build(config, data.image, data.classes, blocks)
    state, wanted = checkpoint["network"], network.state_dict()
    if state.keys() != wanted.keys():
        raise ValueError("its weights are those of another network")
    for name, value in wanted.items():
        _compare(name, state[name], value)
    if "optimizer" in checkpoint:
        if checkpoint["epoch"] > 0 and not checkpoint["optimizer"]["state"]:
            raise ValueError("its optimizer has no state")
        try:
            make_optimizer(network, config).load_state_dict(checkpoint["optimizer"])
        except ValueError as error:
            if not config.architecture:
                raise
            raise ValueError(
                f"{error}; an earlier version may have begun it, whose gamma acted on other weights"
            ) from error


def _compare(name: str, found: Any, wanted: Any) -> None:
    if not isinstance(wanted, torch.Tensor):
        return  # extra state of a user's module, in a form that only the module knows
    if not isinstance(found, torch.Tensor):
        raise TypeError(f"{name} is no tensor")
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        shapes = [" x ".join(map(str, each.shape)) or "1" for each in (found, wanted)]
        raise ValueError(
            f"{name} is {found.dtype} {shapes[0]} instead of {wanted.dtype} {shapes[1]}"
        )
