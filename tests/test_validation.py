"""The validation split: who is held out, what must not see it, and what is chosen by it."""

import io
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from models import training
from models.config import TrialConfig
from models.datasets import load
from models.errors import DataError
from models.training import standardiser, train, untrained
from models.validation import count, divided, held_out, of_trained
from tune_jobs import checkpoints, trial
from tune_jobs.commands.ending import _chosen
from tune_jobs.measuring import Job
from tune_jobs.search import Rules, Search

CONFIG = TrialConfig(layers="fully_connected", epochs=1, validation=0.3, points=10)


def same(network, other) -> None:
    """Bit for bit."""
    for name, weight in network.state_dict().items():
        assert_close(other.state_dict()[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_each_class_has_its_share_of_the_validation_split(share):
    labels = load("digits").y_train
    held = held_out(labels, share, seed=3)
    assert len(held) == count(share, len(labels)) == round(share * len(labels))
    assert sorted(set(held.tolist())) == held.tolist()
    np.testing.assert_array_equal(held, held_out(labels, share, seed=3))
    assert set(held.tolist()) != set(held_out(labels, share, seed=4).tolist())
    fair = share * np.bincount(labels)
    assert np.abs(np.bincount(labels[held]) - fair).max() <= 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    "sizes", [[2] * 100, [15, 1, 4], [200, 2, 2, 2], [3] * 7 + [50], [2, 30], [1, 1, 1, 1, 40]]
)
def test_every_class_of_two_images_keeps_one_to_train_on(sizes, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    held = held_out(labels, share, seed)
    assert sorted(set(held.tolist())) == held.tolist()
    taken = np.bincount(labels[held], minlength=len(sizes))
    assert (taken < np.array(sizes)).all(where=np.array(sizes) > 1)
    assert np.abs(taken - share * np.array(sizes)).max() <= 1
    assert 1 <= len(held) <= count(share, len(labels))


def test_no_class_of_many_images_is_held_out_more_than_planned():
    """Nothing is given back where no class would be lost: each keeps its places in the order."""
    labels = np.repeat(np.arange(10), 60)
    order = np.random.default_rng([7, 600]).permutation(600)
    by_class = order[np.argsort(labels[order], kind="stable")]
    for share, every in ((0.1, 10), (0.5, 2)):
        wanted = np.sort(by_class[every // 2 :: every])
        np.testing.assert_array_equal(held_out(labels, share, 7), wanted)


@pytest.mark.parametrize(
    ("share", "images", "held"), [(0, 1, 0), (1e-9, 3, 1), (0.9, 20, 18), (0.1, 60_000, 6_000)]
)
def test_at_least_one_image_is_held_out_and_two_are_trained_on(share, images, held):
    assert count(share, images) == held


@pytest.mark.parametrize(("share", "images"), [(0.1, 2), (0.9, 10), (1e-9, 1)])
def test_a_share_that_leaves_too_little_to_train_on_is_refused(share, images):
    with pytest.raises(DataError, match=rf"leaves \d of {images} train images.*smaller share"):
        held_out(np.zeros(images, int), share, 0)


def test_nothing_held_out_reaches_training():
    data = load("digits")
    rows, held = divided(CONFIG, data)
    assert sorted([*np.arange(len(data.y_train))[rows], *held]) == [*range(len(data.y_train))]
    changed = replace(data, x_train=data.x_train.copy(), mean=(99.0,), std=(99.0,))
    changed.x_train[held] = np.random.default_rng(0).integers(99, 256, (len(held), 8, 8, 1))
    (_, one), (_, other) = (list(train(CONFIG, each)) for each in (data, changed))
    same(one.network, other.network)
    same(untrained(CONFIG, data), untrained(CONFIG, changed))
    for name in ("train_loss", "clean_train_loss", "clean_train_accuracy", "test_loss"):
        assert one.record[name] == other.record[name]
    assert one.record["validation_loss"] != other.record["validation_loss"]


def test_the_numbers_of_each_split_are_of_its_images():
    data = load("digits")
    rows, held = divided(CONFIG, data)
    first = np.arange(len(data.y_train))[rows][: len(data.y_test)]
    (_, end) = train(CONFIG, data)
    own = of_trained(CONFIG, data)
    for prefix, some in (("validation", held), ("clean_train", first)):
        split = training.Split(torch.tensor(data.x_train[some]), torch.tensor(data.y_train[some]))
        expected = training.loss_and_accuracy(end.network, split, standardiser(own, "cpu"))
        assert (end.record[f"{prefix}_loss"], end.record[f"{prefix}_accuracy"]) == expected
    (_, whole) = train(CONFIG.model_copy(update={"validation": 0.0}), data)
    assert whole.record.keys() == end.record.keys() - {"validation_loss", "validation_accuracy"}


def test_images_are_standardised_by_those_that_are_trained_on():
    data = load("digits")
    data = replace(data, x_train=np.concatenate([data.x_train, data.x_train * 0 + 7], axis=3))
    rows, _ = divided(CONFIG, data)
    own = of_trained(CONFIG, data)
    assert_allclose(own.mean, data.x_train[rows].mean((0, 1, 2)), rtol=1e-12)
    assert_allclose(own.std, [data.x_train[rows, ..., 0].std(), 255], rtol=1e-12)
    again = of_trained(CONFIG, own)
    assert (again.mean, again.std) == (own.mean, own.std)
    whole = CONFIG.model_copy(update={"validation": 0.0})
    assert of_trained(whole, data) is data


def test_an_interrupted_trial_goes_on_with_the_same_split():
    config, data, saved = CONFIG.model_copy(update={"epochs": 2}), load("digits"), io.BytesIO()
    for epoch in train(config, data):
        if epoch.record["epoch"] == 1:
            torch.save(epoch.checkpoint, saved)
    saved.seek(0)
    (again,) = train(config, data, checkpoint=torch.load(saved, weights_only=True))
    same(epoch.network, again.network)
    assert {**again.record, "seconds": 0} == {**epoch.record, "seconds": 0}


@pytest.mark.parametrize(("share", "best"), [(0.3, 1), (0.0, 2)])
def test_the_weights_kept_as_best_are_chosen_without_the_test_split_if_they_can(
    tmp_path, share, best
):
    config = CONFIG.model_copy(update={"validation": share})
    job = Job(str(tmp_path), config, load("digits"), "cpu", {}, keep="best")
    history = {"epochs": []}
    for number, (held, test) in enumerate([(0.2, 0.1), (0.9, 0.3), (0.5, 0.8), (math.nan, 0.7)]):
        record = {"epoch": number, "test_accuracy": test}
        record |= {"validation_accuracy": held} if share else {}
        network = {"weight": torch.tensor(float(number))}
        trial._keep_best(job, training.Epoch(record, None, {"network": network}), history)
        history["epochs"].append(record)
    kept = checkpoints.read(str(tmp_path), f"{config.trial}.best")
    assert (kept["epoch"], kept["network"]["weight"].item()) == (best, best)


def told(objectives, rows) -> str:
    """What the end of a run says about its search."""
    trials = [TrialConfig(gamma=gamma) for gamma in range(len(rows))]
    found = dict(zip([each.trial for each in trials], rows, strict=True))
    state = SimpleNamespace(trials=trials, rows=found, ids=lambda _: [*found])
    sweep = SimpleNamespace(search=Search(objectives=objectives), rules=Rules())
    asked = SimpleNamespace(sweep=sweep)
    ((_, line),) = _chosen(asked, state)
    return line


def test_the_best_trial_is_told_with_its_test_accuracy():
    numbers = [(0.5, 0.9), (0.8, 0.7), (math.nan, 1.0), (None, 1.0)]
    rows = [{"validation_accuracy": v, "test_accuracy": t} for v, t in numbers]
    by_validation = "optimised validation accuracy (max)"
    assert told("validation_accuracy", rows) == (
        f"{by_validation}; best: gamma=1 with 0.800, test accuracy 0.700"
    )
    assert (
        told("test_accuracy", rows[:2]) == "optimised test accuracy (max); best: gamma=0 with 0.900"
    )
    assert told("validation_accuracy", rows[2:]) == by_validation
    zero = [{"test_loss": n, "test_accuracy": 1 - n, "lss": 1.0} for n in (0.0, 0.5)]
    assert told("test_loss", zero).endswith("best: gamma=0 with 0.000, test accuracy 1.000")
    assert told(["lss", "test_loss"], zero) == "optimised lss (min) and test loss (min)"
