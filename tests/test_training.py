"""The training loop: the same numbers every time, also across an interruption."""

import io
import math
import random

import numpy as np
import pytest
import torch
from tiny_training import CONNECTED, CONVOLUTIONAL, OTHERS, assert_same, images_of, run, tiny
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from models import fits, training
from models.config import TrialConfig
from models.datasets import Dataset, load
from models.network import build
from models.steps import Totals, correct, take_step
from models.training import diverged, standardiser, train, untrained


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["adam", "sgd"])
@pytest.mark.parametrize("network", ["plain", "resnet"])
@pytest.mark.parametrize("shape", [CONVOLUTIONAL, CONNECTED])
@pytest.mark.parametrize("normalisation", ["batch", "none"])
def test_every_checkpoint_of_a_trial_is_one_of_that_trial(shape, network, recipe, normalisation):
    data = tiny()
    fields = shape | {"network": network, "recipe": recipe, "normalisation": normalisation}
    config = TrialConfig(**fields | {"epochs": 1})
    for _, _, state in train(config, data):
        fits.check(config, data, state)
        moments = {
            number: {name: value for name, value in of.items() if name != "step"}
            for number, of in state["optimizer"]["state"].items()
        }
        uncounted = state | {"optimizer": {"state": moments, "param_groups": []}}
        if recipe == "sgd":  # an earlier version saved torch.optim's state
            fits.check(config, data, uncounted)
        else:
            with pytest.raises(ValueError, match="another recipe"):
                fits.check(config, data, uncounted)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OTHERS)
def test_a_checkpoint_of_another_optimizer_is_not_one_of_that_trial(recipe):
    data = tiny(side=8)
    config = TrialConfig(**CONNECTED | {"epochs": 1, "recipe": recipe})
    *_, (_, _, state) = train(config, data)
    fits.check(config, data, state)
    for other in {"adam", "sgd", *OTHERS} - {recipe}:
        own = config.model_copy(update={"recipe": other})
        if {recipe, other} <= {"adam", "adamw", "radam"}:  # they keep the same moments
            fits.check(own, data, state)
        else:
            with pytest.raises(ValueError, match="another recipe"):
                fits.check(own, data, state)


@pytest.mark.parametrize("config", [CONVOLUTIONAL, CONNECTED])
def test_the_untrained_network_can_be_made_again_without_training(config):
    config = TrialConfig(**config)
    before = next(train(config, tiny())).network.state_dict()
    assert_same(before, untrained(config, tiny()).state_dict())


def test_training_again_gives_the_same_numbers_bit_for_bit():
    one, other = (run(tiny(), **CONVOLUTIONAL, augment=True) for _ in range(2))
    for record, again in zip(one[0], other[0], strict=True):
        assert_same(record, again)
    assert_same(one[2], other[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        CONVOLUTIONAL | {"recipe": "adam", "augment": True, "gamma": 1e-2},
        CONVOLUTIONAL | {"recipe": "sgd", "augment": True, "gamma": 1e-2},
        CONVOLUTIONAL | {"network": "plain", "stages": 2, "epochs": 2},
        CONNECTED | {"recipe": "adam", "gamma": 1e-2, "warmup": 1.5},
        *(CONNECTED | {"recipe": other, "gamma": 1e-2, "epochs": 2} for other in OTHERS),
    ],
    ids=["adam", "sgd", "plain in two stages", "fully connected", *OTHERS],
)
def test_a_trial_stopped_after_any_epoch_goes_on_as_if_it_had_not_been(config):
    data = tiny(side=16 if config.get("augment") else 8)
    records, saved, weights = run(data, **config)
    assert [r["epoch"] for r in records] == list(range(config["epochs"] + 1))
    for stopped, content in enumerate(saved[:-1]):
        checkpoint = torch.load(io.BytesIO(content), weights_only=True)
        later, _, resumed = run(data, checkpoint=checkpoint, **config)
        for wanted, record in zip(records[stopped + 1 :], later, strict=True):
            assert_same(wanted, record)
        assert_same(weights, resumed)


def test_what_layers_draw_depends_on_the_epoch_and_leaves_the_callers_numbers_alone():
    def drawn():
        return [torch.rand(1).item(), random.random(), np.random.rand()]  # noqa: NPY002

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = drawn()[1:]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    found = []
    for epoch in (1, 1, 2):
        with training.drawing(7, epoch, "cpu"):
            found.append(drawn())
    assert drawn()[1:] == before
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[1], found[2], strict=True))


@pytest.mark.parametrize("shape", [CONVOLUTIONAL, CONNECTED])
@pytest.mark.parametrize("test", [1, 5])
def test_normalisations_settle_alike_however_few_test_images_there_are(shape, test):
    config = TrialConfig(**shape | {"normalisation": "batch"})
    few, some = (untrained(config, tiny(side=8, test=count)) for count in (test, 40))
    assert_same(some.state_dict(), few.state_dict())


def test_a_normalisation_of_three_axes_settles_on_all_batches_alike():
    norm, data = nn.BatchNorm3d(3), tiny(side=4, train=500)
    network = nn.Sequential(nn.Unflatten(2, (1, -1)), norm)
    training.settle(network, training.place(data, "train", "cpu"), standardiser(data, "cpu"))
    x = images_of(data, "train").double()
    variances = [part.var((0, 2, 3)) for part in x.split(250)]
    assert_close(norm.running_var.double(), torch.stack(variances).mean(0), rtol=1e-5, atol=0)
    assert norm.momentum == 0.1


def test_a_finished_trial_has_nothing_to_go_on_with():
    _, saved, _ = run(tiny(side=8), **CONNECTED)
    checkpoint = torch.load(io.BytesIO(saved[-1]), weights_only=True)
    assert list(train(TrialConfig(**CONNECTED), tiny(side=8), checkpoint=checkpoint)) == []


def test_epoch_zero_is_the_network_at_initialisation():
    config, data = TrialConfig(**CONNECTED), tiny(side=8)
    first = next(train(config, data))
    assert first.record["epoch"] == 0
    for name in ("train_loss", "train_accuracy", "learning_rate"):
        assert math.isnan(first.record[name])
    assert not diverged(first.record, TrialConfig())
    assert_same(build(config, data.image, data.classes).state_dict(), first.network.state_dict())


def test_a_small_network_learns_digits():
    *_, last = train(TrialConfig(layers="fully_connected", epochs=3, batch_size=32), load("digits"))
    assert last.record["test_accuracy"] > 0.9


@pytest.mark.parametrize("augment", [False, True])
def test_clean_accuracies_are_taken_on_as_many_unchanged_images_as_test_has(augment):
    config, data = TrialConfig(**CONVOLUTIONAL | {"epochs": 1}, augment=augment), tiny()
    *_, (record, network, _) = train(config, data)
    network.eval()
    for prefix, split in (("clean_train", "train"), ("test", "test")):
        x, y = images_of(data, split)[:16], torch.from_numpy(getattr(data, f"y_{split}"))[:16]
        with torch.no_grad():
            logits = network(x)
        assert_close(record[f"{prefix}_loss"], cross_entropy(logits, y).item(), rtol=1e-4, atol=0)
        right = (logits.argmax(1) == y).sum().item()
        assert record[f"{prefix}_accuracy"] == right / 16


def test_evaluation_does_not_depend_on_its_batches():
    config, data = TrialConfig(**CONVOLUTIONAL), tiny()
    network = build(config, data.image, data.classes)
    split = training.place(data, "train", "cpu")
    standardise = standardiser(data, "cpu")
    whole, *parts = (training.loss_and_accuracy(network, split, standardise, n) for n in (40, 7, 1))
    for part in parts:
        assert_close(part, whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize("known", [1, 20, 40])
def test_images_whose_logits_are_known_are_not_evaluated_again(known):
    config, data = TrialConfig(**CONVOLUTIONAL), tiny()
    network = build(config, data.image, data.classes).eval()
    split, standardise = training.place(data, "train", "cpu"), standardiser(data, "cpu")
    with torch.no_grad():
        first = network(standardise(split.x[:known]))
    seen = []

    def counted(x):
        seen.append(len(x))
        return standardise(x)

    found = training.loss_and_accuracy(network, split, counted, 7, first)
    assert_close(found, training.loss_and_accuracy(network, split, standardise), rtol=1e-5, atol=0)
    assert sum(seen) == 40 - known


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_network_whose_logits_are_not_finite_is_right_about_nothing(value):
    config, data = TrialConfig(**CONVOLUTIONAL), tiny()
    network = build(config, data.image, data.classes)
    split, standardise = training.place(data, "train", "cpu"), standardiser(data, "cpu")
    split = split._replace(y=torch.zeros_like(split.y))
    with torch.no_grad():
        network.head.bias.fill_(value)
    assert training.loss_and_accuracy(network, split, standardise)[1] == 0
    optimizer, totals = training.make_optimizer(network, config), Totals.zero(torch.device("cpu"))
    take_step(network, optimizer, standardise(split.x), split.y, config, 0.1, totals)
    assert totals.correct == 0


def test_a_class_that_a_network_rules_out_costs_no_accuracy():
    logits = torch.tensor([[2.0, 1.0, -math.inf], [1.0, 2.0, math.nan], [math.nan, 1.0, 2.0]])
    assert correct(logits, torch.tensor([0, 1, 0])).tolist() == [True, False, False]


def test_images_are_standardised_channel_by_channel():
    x = torch.randint(256, (2, 4, 4, 3), dtype=torch.uint8)
    data = Dataset(*[None] * 4, classes=1, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    standard = standardiser(data, "cpu")(x)
    assert (standard.dtype, standard.shape) == (torch.float32, (2, 3, 4, 4))
    assert_close(standard[:, 2], (x[..., 2].float() - 3) / 6)


def test_a_diverging_trial_ends_early_with_a_loss_that_is_not_finite():
    config = CONNECTED | {"epochs": 50, "recipe": "sgd", "learning_rate": 1e6}
    records, _, _ = run(tiny(side=8), **config)
    assert len(records) < 20
    assert [diverged(r, TrialConfig()) for r in records] == [False] * (len(records) - 1) + [True]


@pytest.mark.parametrize("name", ["train_loss", "clean_train_loss", "test_loss"])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_any_loss_that_is_not_finite_is_a_divergence(name, loss):
    fine = {"epoch": 1, "train_loss": 1.0, "clean_train_loss": 1.0, "test_loss": 1.0}
    assert not diverged(fine, TrialConfig())
    assert diverged(fine | {name: loss}, TrialConfig())


def test_clean_train_images_may_be_evaluated_every_few_epochs_and_at_the_ends():
    config = TrialConfig(**CONNECTED | {"epochs": 5})
    often, seldom = (
        [epoch.record for epoch in train(one, tiny(side=8))]
        for one in (config, config.model_copy(update={"clean_train_every": 2}))
    )
    for name in ("clean_train_loss", "clean_train_accuracy"):
        known = [not math.isnan(record[name]) for record in seldom]
        assert known == [True, False, True, False, True, True]
        assert [r[name] for r in seldom if r["epoch"] in (0, 2, 4, 5)] == [
            r[name] for r in often if r["epoch"] in (0, 2, 4, 5)
        ]
    assert [r["test_loss"] for r in seldom] == [r["test_loss"] for r in often]
