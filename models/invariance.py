"""Weights without a scale of their own: their effective learning rate, and how to keep their norm.

A weight that a normalisation follows can be multiplied by any number without changing what the
network computes. Only its direction matters, and that turns faster the shorter the weight is: its
*effective* learning rate is rate / |W|^2 under SGD (van Laarhoven 2017, arXiv 1706.05350), and
rate / |W| times the size of a step under Adam. So gamma, which shrinks weights, raises it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch import _foreach_clamp_min_ as clamp_min_  # type: ignore[attr-defined]
from torch import _foreach_mul_ as mul_  # type: ignore[attr-defined]
from torch import _foreach_norm as norms  # type: ignore[attr-defined]

from models.config import TrialConfig
from models.network import AnyNetwork, Block, Network
from models.recipes import SIGNED

TINY = 1e-30  # a norm; the squares of shorter weights vanish in float32


class Weights(NamedTuple):
    """W1 and W2 of a block."""

    invariant: list[nn.Parameter]  # a normalisation follows: they have no scale
    others: list[nn.Parameter]


class Rates(NamedTuple):
    """Effective learning rates of a block: means of its weights, NaN if there are none."""

    invariant: float  # of the weights that have no scale
    others: float


def block_weights(network: Network) -> list[list[Weights]]:
    """The weights of each block of each stage, without transitions.

    With a normalisation, no W1 has a scale. In a plain network, no W2 has one either, except in
    the very last block if the head reads its output directly. The W2 of a ResNet is added to the
    state before it, so its scale matters.
    """
    read = isinstance(network.norm, nn.Identity)
    last = network.stages[-1][-1] if read else None  # type: ignore[index]
    return [
        [_weights(block, block is last) for block in blocks]  # type: ignore[arg-type]
        for blocks in network.stages
    ]


def invariant_weights(network: AnyNetwork) -> list[nn.Parameter]:
    """All weights of blocks, also of transitions, that have no scale of their own.

    The stem of a plain network is left out, because its bias is not normalised with it.
    """
    if not isinstance(network, Network):
        return []
    inside = [weights for blocks in block_weights(network) for weights in blocks]
    between = [_weights(block, False) for block in network.transitions]  # type: ignore[arg-type]
    return [weight for weights in [*between, *inside] for weight in weights.invariant]


def _weights(block: Block, last: bool) -> Weights:
    normalised = not isinstance(block.norm2, nn.Identity)
    pair = {
        block.weight1.weight: normalised,
        block.weight2.weight: normalised and not block.identity and not last,
    }
    invariant, others = ([w for w, found in pair.items() if found is k] for k in (True, False))
    return Weights(invariant, others)  # type: ignore[arg-type]


class Renormalise:
    """Brings weights back to the Frobenius norm that they have when this is made.

    Args:
        weights: those of an untrained network. They are the same whenever it is built, so
            training that continues from a checkpoint keeps the same norms.
    """

    def __init__(self, weights: Sequence[nn.Parameter]):
        self._weights: list[Tensor] = [weight.detach() for weight in weights]  # the same memory
        self._initial = norms(self._weights)

    @torch.no_grad()
    def __call__(self) -> None:
        """Rescale each weight; its direction stays."""
        now = norms(self._weights)
        clamp_min_(now, TINY)  # a weight of 0 has no direction, and stays 0
        mul_(self._weights, [a / b for a, b in zip(self._initial, now, strict=True)])


def effective_rates(network: AnyNetwork, config: TrialConfig, rate: float) -> list[list[Rates]]:
    """Effective learning rates of each block of each stage, see :func:`effective_rate`.

    Args:
        network: the network of the trial.
        config: the trial.
        rate: the learning rate of a step.

    Returns:
        Geometric means over the one or two weights of a kind. Empty for architectures, and for
        recipes whose steps have no known size: adagrad, adadelta, adafactor.
    """
    if not isinstance(network, Network) or config.recipe not in ("sgd", *SIGNED):
        return []
    return [
        [Rates(*(_mean(kind, config, rate) for kind in weights)) for weights in blocks]
        for blocks in block_weights(network)
    ]


@torch.no_grad()
def effective_rate(weight: Tensor, config: TrialConfig, rate: float) -> float:
    """How far a step of this learning rate turns a weight: rate / ((1 - momentum) |W|^2) for SGD.

    For Adam, rate sqrt(size) / |W| with size the number of its entries, each of which moves by
    about the rate (:data:`models.recipes.SIGNED` has the recipes of this kind).

    Returns:
        A number >= 0 and dimensionless; under SGD it also has the scale of the gradient.

    >>> config = TrialConfig(recipe="sgd", momentum=0.5)
    >>> round(effective_rate(torch.tensor([[1.0, 2.0], [2.0, 4.0]]), config, 0.1), 4)
    0.008
    >>> round(effective_rate(torch.tensor([[1.0, 2.0], [2.0, 4.0]]), TrialConfig(), 0.1), 4)
    0.04
    """
    square = float(weight.double().square().sum())
    if square == 0 or math.isnan(square):
        return math.nan
    if config.recipe == "sgd":
        return rate / ((1 - config.momentum) * square)
    return rate * math.sqrt(weight.numel() / square)


def _mean(weights: Sequence[Tensor], config: TrialConfig, rate: float) -> float:
    found = [effective_rate(weight, config, rate) for weight in weights]
    return math.prod(found) ** (1 / len(found)) if found else math.nan
