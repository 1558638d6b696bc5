"""Small models for tests of the probe, and what a probe of them should find."""

import torch
from torch import nn

from scoring.probe import TrackProbe
from scoring.stages import measure

WIDTH = 6


class Block(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.tanh(self.layer(x))


class Chain(nn.Module):
    """Blocks between a stem and a head, in a way that a test may change."""

    def __init__(self, *blocks, width=WIDTH):
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def images(m=7):
    return torch.randn(m, 4)


def probed(model, *batches, **settings):
    with torch.no_grad(), TrackProbe(model, **settings) as probe:
        for batch in batches:
            model(batch)
    return probe.result


def walk_of(model, block=lambda block, x: block(x)):
    """The states of a chain, as functions of its input."""

    def walk(x):
        x = model.stem(x)
        yield 1, x
        for part in model.blocks:
            x = block(part, x)
            yield 1, x

    return walk


def wanted_of(model, *batches, **settings):
    (stage,) = measure(walk_of(model, **settings), batches)
    return stage


def hooks_of(model):
    return sum(
        len(hooks)
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
    )
