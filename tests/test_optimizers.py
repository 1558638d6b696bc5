"""The optimizers against those of torch: equal bit for bit, also when they are continued."""

import io
import subprocess
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from models.config import DECOUPLED, LEARNING_RATE
from models.optimizers import Optimizer, optimizer_of
from models.torch_optimizers import CLASSES, Group, TorchOptimizer
from tune_jobs import processes

RATES = (1e-2, 5e-3, 1e-3)
DECAY = 0.1
RECIPES = [*LEARNING_RATE]


def network() -> nn.Sequential:
    """A small network; always the same."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def groups(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    matrices = [p for p in net.parameters() if p.ndim > 1]
    return matrices, [p for p in net.parameters() if p.ndim == 1]


def ours(net: nn.Module, recipe: str) -> Optimizer | TorchOptimizer:
    under, free = groups(net)
    return optimizer_of([Group(under, DECAY), Group(free, 0.0)], recipe)


def torchs(net: nn.Module, recipe: str) -> torch.optim.Optimizer:
    under, free = groups(net)
    parts = [{"params": under, "weight_decay": DECAY}, {"params": free, "weight_decay": 0.0}]
    if recipe == "sgd":
        return torch.optim.SGD(parts, lr=1.0, momentum=0.9, fused=True)
    if recipe in ("adam", "adamw"):
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe]
        return kind(parts, lr=1.0, fused=True)
    return getattr(torch.optim, CLASSES[recipe])(parts, lr=1.0)


def backward(net: nn.Module, step: int) -> None:
    """Gradients of a step."""
    net.zero_grad()
    draw = torch.Generator().manual_seed(step)
    net(torch.randn((8, 3, 4, 4), generator=draw)).square().mean().backward()


def torchs_steps(net: nn.Module, optimizer: torch.optim.Optimizer, first: int = 0) -> None:
    for step, rate in enumerate(RATES[first:], first):
        for group in optimizer.param_groups:
            group["lr"] = rate
        backward(net, step)
        optimizer.step()


def our_steps(net: nn.Module, optimizer: Any, first: int = 0, last: int = 3) -> None:
    for step, rate in enumerate(RATES[first:last], first):
        backward(net, step)
        optimizer.step(rate)


def exactly(one: nn.Module, two: nn.Module) -> None:
    assert_close(dict(one.state_dict()), dict(two.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_updates_equal_those_of_torch(recipe):
    mine, theirs = network(), network()
    our_steps(mine, ours(mine, recipe))
    torchs_steps(theirs, torchs(theirs, recipe))
    exactly(mine, theirs)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_sgd_takes_another_momentum_as_that_of_torch_does(momentum):
    mine, theirs = network(), network()
    parts = [Group(part, DECAY) for part in groups(mine)]
    our_steps(mine, optimizer_of(parts, "sgd", momentum))
    rule = {"lr": 1.0, "momentum": momentum, "weight_decay": DECAY, "fused": True}
    torchs_steps(theirs, torch.optim.SGD(theirs.parameters(), **rule))
    exactly(mine, theirs)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_saved_optimizer_goes_on_as_if_nothing_had_been(recipe, taken):
    whole, parts = network(), network()
    our_steps(whole, ours(whole, recipe))
    first = ours(parts, recipe)
    our_steps(parts, first, last=taken)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = ours(parts, recipe)
    second.load_state_dict(torch.load(file, weights_only=True))
    our_steps(parts, second, first=taken)
    exactly(whole, parts)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_torch_saved_is_continued(recipe):
    """Checkpoints of earlier versions hold the state of torch's optimizers."""
    mine, theirs = network(), network()
    before = torchs(theirs, recipe)
    torchs_steps(theirs, before, first=2)
    mine.load_state_dict(theirs.state_dict())
    after = ours(mine, recipe)
    after.load_state_dict(before.state_dict())
    our_steps(mine, after)
    torchs_steps(theirs, before)
    exactly(mine, theirs)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("other", ["recipe", "shape", "dtype", "count", "type"])
def test_a_state_of_another_optimizer_is_refused(other, recipe):
    net = network()
    taken = ours(net, ("adam" if recipe == "sgd" else "sgd") if other == "recipe" else recipe)
    our_steps(net, taken)
    saved = taken.state_dict()
    name = next(name for name, value in saved["state"][0].items() if value.ndim)
    whole = saved["state"][0][name]
    changed = {"shape": torch.zeros(2, 2), "dtype": whole.double(), "type": [0.0]}
    if other in changed:
        saved["state"][0][name] = changed[other]
    if other == "count":
        del saved["state"][1]
    with pytest.raises(ValueError, match="the optimizer's state"):
        ours(net, recipe).load_state_dict(saved)


@pytest.mark.parametrize("recipe", RECIPES)
def test_gamma_shrinks_a_weight_without_gradient(recipe):
    """Decoupled, it takes off exactly the share rate x gamma; the bias stays as it is."""
    net = network()
    before = {name: value.clone() for name, value in net.named_parameters()}
    ours(net, recipe).step(1e-2)
    for name, value in net.named_parameters():
        if value.ndim == 1:
            assert_close(value, before[name], rtol=0, atol=0)
        elif recipe in DECOUPLED:
            assert_close(value, before[name] * (1 - 1e-2 * DECAY))
        else:
            assert value.norm() < before[name].norm()


def test_every_optimizer_of_torch_that_can_train_a_trial_is_a_recipe():
    """What is missing is explained in models/torch_optimizers.py."""
    left_out = {"ASGD", "LBFGS", "Muon", "Rprop", "SparseAdam", "Optimizer"}
    here = {*CLASSES.values(), "Adam", "AdamW", "SGD"}
    assert here | left_out == {name for name in vars(torch.optim) if name[0].isupper()}


@pytest.mark.slow
def test_training_does_not_import_the_compiler_of_torch():
    """It would take every worker more than a second."""
    code = """
import sys
from models.config import TrialConfig
from models.datasets import load
from models.training import train
config = TrialConfig(layers="fully_connected", epochs=1)
assert len(list(train(config, load("digits")))) == 2
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run(processes.python("-c", code), check=True, timeout=120)
