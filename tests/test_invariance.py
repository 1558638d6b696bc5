"""Weights that a normalisation follows have no scale; they turn, and keep their norm on request."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from models.config import TrialConfig
from models.datasets import Dataset
from models.invariance import (
    Renormalise,
    block_weights,
    effective_rate,
    effective_rates,
    invariant_weights,
)
from models.network import Block, Network, build
from models.optimizers import optimizer_of
from models.torch_optimizers import Group
from models.training import make_optimizer, rate_at, train

IMAGE = (1, 8, 8)
SMALL = {"dataset": "digits", "depth": 2, "epochs": 2, "batch_size": 16, "points": 20}


def built(**given) -> Network:
    network = build(TrialConfig(**SMALL | given), IMAGE, 3)
    assert isinstance(network, Network)
    return network


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Images of three classes that differ in their mean."""
    labels = np.arange(96) % 3
    noise = np.random.default_rng(0).integers(0, 99, (96, 8, 8, 1))
    images = (noise + 50 * labels[:, None, None, None]).astype("uint8")
    halves = {"x_train": images[:64], "y_train": labels[:64]}
    halves |= {"x_test": images[64:], "y_test": labels[64:]}
    return Dataset(**halves, classes=3, mean=(100.0,), std=(50.0,))


def logits(network: nn.Module) -> torch.Tensor:
    network.train()  # batch statistics: running ones do not follow a weight that is changed
    draw = torch.Generator().manual_seed(0)
    return network(torch.randn((16, *IMAGE), generator=draw)).detach().double()


@pytest.mark.parametrize("network", ["plain", "resnet"])
@pytest.mark.parametrize(("stages", "normalisation"), [(1, "batch"), (2, "batch"), (2, "final")])
def test_exactly_the_weights_without_a_scale_can_be_multiplied_freely(
    network, stages, normalisation
):
    net = built(network=network, K=stages, normalisation=normalisation)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eps = 1e-12
    free = {id(weight) for weight in invariant_weights(net)}
    before = logits(net)
    for block in (m for m in net.modules() if isinstance(m, Block)):
        for weight in (block.weight1.weight, block.weight2.weight):
            with torch.no_grad():
                weight.mul_(3.0)
            changed = (logits(net) - before).abs().max() / before.abs().max()
            assert (changed < 1e-3) == (id(weight) in free)
            with torch.no_grad():
                weight.div_(3.0)


def test_each_weight_of_a_block_is_of_one_kind_and_none_has_no_scale_without_a_normalisation():
    for network, w2 in (("plain", [1, 1, 1, 0]), ("resnet", [0, 0, 0, 0])):
        kinds = [one for stage in block_weights(built(network=network, K=2)) for one in stage]
        assert [len(one.invariant) - 1 for one in kinds] == w2
        assert all(len(one.invariant) + len(one.others) == 2 for one in kinds)
        assert len(invariant_weights(built(network=network, K=2))) == 4 + sum(w2) + (
            1 + (network == "plain")  # the transition's
        )
    assert invariant_weights(built(normalisation="none")) == []


@pytest.mark.parametrize("network", ["plain", "resnet"])
@pytest.mark.parametrize("recipe", ["adam", "sgd"])
def test_renormalised_weights_keep_their_norm_and_others_do_not(data, network, recipe):
    config = TrialConfig(
        **SMALL, network=network, recipe=recipe, learning_rate=0.01, gamma=0.1, renormalise=True
    )
    *_, last = train(config, data)
    first = build(config, data.image, data.classes)
    kept = {id(weight) for weight in invariant_weights(last.network)}
    pairs = zip(first.named_parameters(), last.network.parameters(), strict=True)
    for (name, before), after in pairs:
        if id(after) in kept:
            assert_close(after.norm(), before.norm(), rtol=1e-5, atol=0)
            assert not torch.equal(after, before)
        elif name in ("head.weight", "stem.weight"):
            assert abs(after.norm() / before.norm() - 1) > 1e-3


def test_renormalised_weights_take_no_decay():
    config = TrialConfig(**SMALL, gamma=0.1, recipe="sgd", renormalise=True)
    net = built()
    optimizer = make_optimizer(net, config)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: p.clone() for name, p in net.named_parameters()}
    optimizer.step(0.1)
    kept = {id(weight) for weight in invariant_weights(net)}
    for name, parameter in net.named_parameters():
        shrunk = parameter.ndim > 1 and id(parameter) not in kept
        assert torch.equal(parameter, before[name]) != shrunk


@pytest.mark.parametrize("recipe", ["adam", "sgd"])
def test_a_renormalised_trial_that_is_continued_ends_with_the_same_numbers(data, recipe):
    given = SMALL | {"recipe": recipe, "schedule": "constant", "initial_scale": 2.0, "gamma": 0.1}
    config = TrialConfig(**given, renormalise=True)
    whole = [*train(config, data)]
    saved = {
        name: {k: v.clone() for k, v in part.items()} if name == "network" else part
        for name, part in next(iter(train(config, data))).checkpoint.items()
    }
    (*_, again) = train(config, data, checkpoint=saved)
    for name, value in whole[-1].network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_the_effective_rate_is_that_of_the_papers_by_plain_loops():
    rate = 0.03
    for recipe, momentum in (("sgd", 0.5), ("adam", None)):
        config = TrialConfig(**SMALL, network="plain", recipe=recipe, momentum=momentum)
        net = built(network="plain", recipe=recipe, momentum=momentum)
        (found,) = effective_rates(net, config, rate)

        def wanted(weight, recipe=recipe, momentum=momentum):
            square = sum(float(w) ** 2 for w in weight.detach().flatten())
            if recipe == "sgd":
                return rate / ((1 - momentum) * square)
            return rate * math.sqrt(weight.numel()) / math.sqrt(square)

        first, last = net.stages[0]
        both = wanted(first.weight1.weight) * wanted(first.weight2.weight)
        np.testing.assert_allclose(found[0].invariant, math.sqrt(both), rtol=1e-6)
        assert math.isnan(found[0].others)
        np.testing.assert_allclose(found[1].invariant, wanted(last.weight1.weight), rtol=1e-6)
        np.testing.assert_allclose(found[1].others, wanted(last.weight2.weight), rtol=1e-6)
        head = effective_rate(net.head.weight, config, rate)
        np.testing.assert_allclose(head, wanted(net.head.weight), rtol=1e-6)
    assert effective_rates(net, TrialConfig(recipe="adagrad"), rate) == []


def test_a_weight_of_zero_has_no_norm_to_go_back_to():
    weights = [nn.Parameter(torch.full((3, 3), value)) for value in (1e3, 1.0, 0.0)]
    renormalise = Renormalise(weights)
    for weight in weights:
        weight.data *= 0.0 if weight is weights[0] else 2.0
    renormalise()
    assert [float(weight.data.norm()) for weight in weights] == pytest.approx([0, 3, 0])


@pytest.mark.parametrize("recipe", ["adam", "sgd"])
def test_weights_of_equal_effective_rate_turn_alike(recipe):
    """The loss depends on the direction of W only: on a W twice as long, 4 (Adam: 2) times the rate
    makes the same steps."""
    ends, rates = [], []
    for scale in (1.0, 2.0):
        weight = nn.Parameter(scale * torch.tensor([[1.0, 2.0], [-1.0, 0.5]]))
        rate = 0.05 * scale ** (2 if recipe == "sgd" else 1)
        rates.append(effective_rate(weight, TrialConfig(recipe=recipe), rate))
        optimizer = optimizer_of([Group([weight], 0.0)], recipe)
        for step in range(5):
            direction = weight / weight.norm()
            (direction * torch.tensor([[1.0, step], [0.5, -1.0]])).sum().square().backward()
            optimizer.step(rate)
            optimizer.zero_grad()
        ends.append(weight.detach() / weight.detach().norm())
    assert_close(*ends, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(*rates, rtol=1e-6)


def test_initial_weights_are_those_of_torch_or_multiples():
    he, four = built(), built(initial_scale=4.0)
    for (name, one), other in zip(he.named_parameters(), four.parameters(), strict=True):
        scaled = ".weight1.weight" in name or ".weight2.weight" in name
        assert_close(other, one * (4 if scaled else 1), rtol=0, atol=0)
    torchs, size = built(initialisation="torch"), he.stages[0][0].weight1.weight
    layer = nn.Conv2d(*size.shape[1::-1], 3, padding=1)
    spread = torchs.stages[0][0].weight1.weight
    assert_close(spread.abs().max(), layer.weight.abs().max(), rtol=0.05, atol=0)
    assert_close(spread.var(), size.var() / 6, rtol=0.1, atol=0)
    assert torchs.head.bias.abs().max() <= torchs.head.in_features**-0.5
    assert torchs.head.bias.abs().max() > 0


def test_a_constant_schedule_stays_after_the_warm_up():
    config = TrialConfig(epochs=3, warmup=0.5, learning_rate=1.0, schedule="constant")
    rates = [rate_at(config, taken, steps=4) for taken in range(12)]
    np.testing.assert_allclose(rates, [1 / 3, 2 / 3] + [1.0] * 10)


def losses(data: Dataset, **given) -> np.ndarray:
    """Running train loss and clean train loss of each epoch, (3, 2), at K = 4 and a high rate."""
    high = {"K": 4, "recipe": "sgd", "learning_rate": 0.1, "epochs": 3}
    records = [epoch.record for epoch in train(TrialConfig(**SMALL | high | given), data)]
    return np.array([(r["train_loss"], r["clean_train_loss"]) for r in records[1:]])


def test_a_normalisation_before_the_head_keeps_four_stages_finite_at_a_high_rate(data):
    """Without it the logits of a ResNet grow with its states, and large steps do the rest."""
    guessing = np.log(data.classes)
    assert not np.isfinite(losses(data)).all()
    trained = losses(data, normalisation="final")
    assert np.isfinite(trained).all()
    assert (trained[-1] < guessing / 2).all()
    plain = losses(data, normalisation="final", network="plain")
    assert np.isfinite(plain).all()
    assert plain[-1, 0] < guessing  # its running statistics have not settled after 12 steps
