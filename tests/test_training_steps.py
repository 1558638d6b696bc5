"""What a step changes: the learning rate, weight decay and penalties, also by hand."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import CONNECTED, CONVOLUTIONAL, assert_same, images_of, run, tiny
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from models import training
from models.config import TrialConfig
from models.datasets import load
from models.network import build, decayed
from models.penalties import straightness_penalty, transport_penalty
from models.training import standardiser, train


@pytest.mark.parametrize("recipe", ["adam", "sgd", "adagrad"])
def test_the_learning_rate_falls_to_zero_on_a_cosine(recipe):
    config = CONNECTED | {"epochs": 4, "recipe": recipe, "learning_rate": 0.01}
    records, _, _ = run(tiny(side=8), **config)
    steps = 3  # 40 images in batches of 16
    for record in records[1:]:
        done = (record["epoch"] * steps - 1) / (4 * steps)  # before the epoch's last step
        wanted = 0.01 * (1 + math.cos(math.pi * done)) / 2
        assert_close(record["learning_rate"], wanted, rtol=1e-12, atol=0)


def test_a_warm_up_rises_evenly_and_leaves_the_rest_to_the_cosine():
    """40 images in batches of 16: 3 steps an epoch, 6 of the warm-up, 6 after it."""
    config = TrialConfig(**CONNECTED | {"epochs": 4, "warmup": 2, "learning_rate": 0.07})
    rates = [training.rate_at(config, step, 3) for step in range(12)]
    assert_close(rates[:7], [0.01 * step for step in range(1, 8)])
    assert_close(rates[6:], [0.07 * (1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)])
    records, _, _ = run(tiny(side=8), **config.model_dump())
    assert [record["learning_rate"] for record in records[1:]] == rates[2::3]


@given(
    st.integers(1, 5), st.integers(1, 9), st.floats(0, 1, exclude_max=True), st.floats(1e-6, 1e6)
)
def test_no_learning_rate_is_above_the_given_one_or_below_zero(epochs, steps, share, rate):
    config = TrialConfig(
        **CONNECTED | {"epochs": epochs}, warmup=share * epochs, learning_rate=rate
    )
    rates = [training.rate_at(config, step, steps) for step in range(epochs * steps)]
    assert all(0 < each <= rate for each in rates)
    assert np.diff(np.sign(np.diff(rates))).max(initial=0) <= 0  # up, then down


@pytest.mark.parametrize("decay", ["all", "blocks"])
@pytest.mark.parametrize("recipe", ["adam", "sgd"])
def test_gamma_adds_gamma_times_the_weight_to_its_gradient(recipe, decay):
    """One step over the whole train split, by hand: along g = dL/dW + gamma W."""
    gamma, rate, data = 0.3, 1e-2, tiny(side=8)
    config = TrialConfig(
        **CONNECTED | {"epochs": 1, "batch_size": 40, "recipe": recipe},
        **{"gamma": gamma, "learning_rate": rate, "decay": decay},
    )
    network = build(config, data.image, data.classes)
    cross_entropy(network(images_of(data, "train")), torch.from_numpy(data.y_train)).backward()
    under = {id(p) for p in decayed(network, decay)[0]}
    *_, (_, trained, _) = train(config, data)
    for old, new in zip(network.parameters(), trained.parameters(), strict=True):
        g = old.grad + (gamma * old if id(old) in under else 0)
        plain = (g == 0) | (g.abs() > 1e-4)  # Adam's first step is the sign: not of rounding
        step = g if recipe == "sgd" else g / (g.abs() + 1e-8)
        assert_close(new[plain], (old - rate * step)[plain], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", ["adam", "sgd"])
def test_gamma_shrinks_the_weights(recipe):
    def size(gamma):
        config = CONNECTED | {"recipe": recipe, "gamma": gamma, "learning_rate": 1e-3}
        _, _, weights = run(tiny(side=8), **config)
        return sum(float((w**2).sum()) for name, w in weights.items() if "weight" in name)

    assert size(10.0) < size(1.0) < size(0.0)


def test_gamma_shrinks_nothing_but_the_blocks_where_it_weighs_only_them():
    def weights(**config):
        network = build(TrialConfig(**CONNECTED), (3, 8, 8), 3)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        config = {"recipe": "sgd", "gamma": 0.5} | config
        training.make_optimizer(network, TrialConfig(**CONNECTED, **config)).step(0.1)
        return network.state_dict()

    old = weights(gamma=0.0)
    new = weights(decay="blocks")
    for name, weight in old.items():
        shrunk = name.startswith("stages.") and name.endswith("weight")
        assert_close(new[name], weight * (1 - 0.1 * 0.5) if shrunk else weight)


def measured(**config):
    """LSS and kinetic energy on digits after a short training, and its last record."""
    config = {"layers": "fully_connected", "epochs": 3, "batch_size": 32} | config
    *_, (record, network, _) = train(TrialConfig(**config), load("digits"))
    split = training.place(load("digits"), "test", "cpu")
    network.eval()
    with torch.no_grad():
        states = list(network.states(standardiser(load("digits"), "cpu")(split.x[:200])))
    straightness, energy = straightness_penalty(states), transport_penalty(states)
    return 1 + straightness.item(), energy.item(), record


@pytest.mark.slow
@pytest.mark.parametrize("network", ["plain", "resnet"])
def test_the_straightness_penalty_straightens_and_the_transport_penalty_shortens(network):
    score, energy, record = measured(network=network)
    straighter, _, other = measured(network=network, straightness_penalty=1.0)
    assert straighter < 0.8 * score
    assert other["test_accuracy"] > 0.8
    _, less, another = measured(network=network, transport_penalty=1e-3)
    assert less < 0.5 * energy
    assert another["test_accuracy"] > 0.8
    for penalised in (other, another):  # the loss of a record is cross-entropy alone
        assert penalised["train_loss"] < record["train_loss"] + 1


@pytest.mark.parametrize("network", ["plain", "resnet"])
def test_penalties_are_added_to_the_loss_with_their_weights(network):
    """One step of SGD over the whole train split, by hand."""
    rate, data = 1e-3, tiny(side=8)
    config = TrialConfig(
        **CONVOLUTIONAL | {"epochs": 1, "batch_size": 40, "recipe": "sgd", "stages": 2},
        **{"network": network, "learning_rate": rate},
        **{"transport_penalty": 1e-3, "straightness_penalty": 0.5},
    )
    first = next(train(config, data)).network.train()
    states = list(first.states(images_of(data, "train")))
    y = torch.from_numpy(data.y_train)
    loss = cross_entropy(first.classify(states[-1][1]), y)
    (loss + 1e-3 * transport_penalty(states) + 0.5 * straightness_penalty(states)).backward()
    *_, (record, trained, _) = train(config, data)
    assert_close(record["train_loss"], loss.item(), rtol=1e-5, atol=0)
    for old, new in zip(first.parameters(), trained.parameters(), strict=True):
        if old.requires_grad:
            assert_close(new, old - rate * old.grad, rtol=1e-4, atol=1e-5)


def test_a_penalised_trial_trains_in_bfloat16_and_goes_on_where_it_was_stopped():
    config = CONNECTED | {"epochs": 2, "transport_penalty": 1e-4, "straightness_penalty": 0.1}
    *_, (record, _, _) = train(TrialConfig(**config, precision="bfloat16"), tiny(side=8))
    assert math.isfinite(record["train_loss"])
    records, saved, weights = run(tiny(side=8), **config)
    checkpoint = torch.load(io.BytesIO(saved[1]), weights_only=True)
    later, _, resumed = run(tiny(side=8), checkpoint=checkpoint, **config)
    assert_same(records[2], later[0])
    assert_same(weights, resumed)


def test_training_in_bfloat16_keeps_weights_and_evaluation_in_float32():
    *_, (record, network, _) = train(
        TrialConfig(**CONNECTED | {"epochs": 1}, precision="bfloat16"), tiny(side=8)
    )
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert math.isfinite(record["train_loss"])
    *_, (exact, _, _) = train(TrialConfig(**CONNECTED | {"epochs": 1}), tiny(side=8))
    assert exact["train_loss"] != record["train_loss"]
    assert_close(record["train_loss"], exact["train_loss"], rtol=0.05, atol=0)


def test_gradients_of_states_keep_the_layout_of_states():
    config, data = TrialConfig(**CONVOLUTIONAL), tiny()
    network = build(config, data.image, data.classes).to(memory_format=torch.channels_last)
    *_, (_, state) = network.states(images_of(data, "train"))
    logits, seen = network.classify(state), []
    state.register_hook(lambda g: seen.append(g.is_contiguous(memory_format=torch.channels_last)))
    logits.sum().backward()
    assert seen == [True]
