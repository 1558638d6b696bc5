"""Tiny trained networks for tests of experiments on them."""

import copy
from functools import cache, partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.architectures import Architecture
from models.network import Network
from scoring.robustness.subject import Subject
from tune_jobs.evaluations import read

IMAGE = (2, 4, 4)
SHAPES = {
    "fully connected": Architecture("fully_connected", IMAGE, ((12,),), 4, 3),
    "convolutional": Architecture("convolutional", IMAGE, ((4, 4, 4), (8, 2, 2)), 3, 3),
}
KINDS = [(network, layers) for network in ("plain", "resnet") for layers in SHAPES]
kinds = pytest.mark.parametrize("kind", KINDS, ids=" ".join)
DEFAULTS = read([])


def standardise(pixels):
    return ((pixels - 110) / 60).permute(0, 3, 1, 2)


@cache
def points(m=30):
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(m) % 3
    images = torch.randint(200, (m, 4, 4, 2), generator=draw) + 25 * labels[:, None, None, None]
    return images.to(torch.uint8), labels


def untrained(kind):
    network_kind, layers = kind
    normalisation = "batch" if layers == "convolutional" else "none"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(SHAPES[layers], network_kind, normalisation)
    return network.double().to(memory_format=torch.channels_last)


@cache
def trained(kind):
    """A network that has learnt a little, and is mostly right about the points."""
    network = untrained(kind)
    images, labels = points()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(network(standardise(images.double())), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval()


def made(kind, dtype=torch.float64, batch=250):
    """Anew for each test, whatever the last one did to its network."""
    network = copy.deepcopy(trained(kind)).to(dtype)
    before = partial(untrained, kind)
    return Subject(network, *points(), lambda x: standardise(x.to(dtype)), batch, before)


def pick(rows, column, **where):
    """Values of a column, of the rows that have it and are as asked for, by stage, block, level."""
    chosen = [r for r in rows if all(r[k] == v for k, v in where.items()) and r[column] is not None]
    return {(r["stage"], r["block"], r["level"]): r[column] for r in chosen}


def accuracy(subject, logits):
    return (logits.argmax(1) == subject.labels).double().mean().item()
