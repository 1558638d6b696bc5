"""The arithmetic floor of training: what an image costs, and how fast this machine computes.

Other benchmarks import this module. A convolution or matrix product takes one multiply-add for each
output and each number that it sums, forward; the gradients of its input and of its weight take one
more each. Everything else is left out. The rate is that of the layer of the network that has
most of them, alone, forward and backward, at the same batch, precision, layout and threads.
"""

import time
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.config import TrialConfig
from models.datasets import Dataset
from models.network import build, in_channels_last

SECONDS = 0.5  # that each rate is measured for, at least


class Floor(NamedTuple):
    """What a trial computes, and how fast this machine can."""

    operations: float  # of an image, forward and backward: two for each multiply-add
    rate: float  # operations a second of the network's heaviest layer alone

    @property
    def images(self) -> float:
        """Images a second if a step were nothing but such layers."""
        return self.rate / self.operations


def floor(config: TrialConfig, data: Dataset, device: str = "cpu") -> Floor:
    """The floor of training a trial in its precision, with the threads that torch has now."""
    layers = products(config, data, device)
    heaviest, shape = max(layers, key=lambda layer: layers[layer])
    operations = 6.0 * sum(layers.values())
    return Floor(operations, rate(heaviest, (config.batch_size, *shape), config.precision))


def products(
    config: TrialConfig, data: Dataset, device: str = "cpu"
) -> Counter[tuple[nn.Module, tuple[int, ...]]]:
    """Multiply-adds of one image, forward, by layer and shape of its input."""
    network = in_channels_last(build(config, data.image, data.classes).to(device)).eval()
    found: Counter[tuple[nn.Module, tuple[int, ...]]] = Counter()

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        found[layer, tuple(inputs[0].shape[1:])] += output[0].numel() * layer.weight[0].numel()  # type: ignore[operator,index]

    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, *data.image, device=device))
    for layer, _ in found:
        layer._forward_hooks.clear()
    return found


def rate(layer: nn.Module, shape: tuple[int, ...], precision: str) -> float:
    """Operations a second of a layer, forward and backward; the fastest of many tries."""
    weight = layer.weight
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    layer = layer.to(kind)
    x = torch.randn(shape, device=weight.device, dtype=kind)  # type: ignore[arg-type]
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    outputs = layer(x)
    gradient = torch.randn_like(outputs)
    operations = 6.0 * outputs.numel() * weight[0].numel()  # type: ignore[index,operator]
    fastest, end = float("inf"), time.perf_counter() + SECONDS
    tries = 0
    while time.perf_counter() < end or tries < 3:
        x.grad = layer.weight.grad = None  # type: ignore[assignment]
        start = time.perf_counter()
        layer(x).backward(gradient)
        if x.is_cuda:
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - start)
        tries += 1
    return operations / fastest
