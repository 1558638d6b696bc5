"""Which split is scored: its first images, without those held out, in every pass of a trial."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from made_up import made_up_trial
from numpy.testing import assert_array_equal
from torch.testing import assert_close

from analysis.measures.cells import scored_images, varying
from analysis.plots.tracks import tracks_by_gamma
from analysis.results import load as results_of
from models import training
from models.config import TrialConfig
from models.datasets import load
from models.network import AnyNetwork
from models.training import loss_and_accuracy, standardiser, train
from models.validation import divided, scorable, scored
from tune_jobs import measuring, service, sweep
from tune_jobs.errors import SweepError
from tune_jobs.measuring import Job, measure_epoch, predict
from tune_jobs.trial import _measured

CONFIG = TrialConfig(layers="fully_connected", epochs=1, points=700, split="train")
HELD = CONFIG.model_copy(update={"validation": 0.3})


def test_the_test_split_is_the_default_and_no_part_of_an_id():
    assert TrialConfig().split == "test"
    assert TrialConfig(split="test").trial == TrialConfig().trial != CONFIG.trial


@pytest.mark.parametrize("config", [CONFIG, HELD])
def test_the_first_train_images_are_scored_without_those_held_out(config):
    data = load("digits")
    rows, held = divided(config, data)
    found = scored(config, data)
    kept = np.arange(len(data.y_train))[rows]
    assert not set(kept[: config.points]) & set(held)
    assert_array_equal(found.x_test[: config.points], data.x_train[kept[: config.points]])
    assert_array_equal(found.y_test[: config.points], data.y_train[kept[: config.points]])
    assert scorable(config, (len(data.y_train), 5)) == len(kept)
    assert scored(TrialConfig(), data) is data


def test_every_number_of_a_trial_is_of_its_split():
    data = load("digits")
    job, epoch = Job("nowhere", CONFIG, data, "cpu", {}), next(train(CONFIG, data, test=False))
    others = CONFIG.model_copy(update={"split": "test"})
    swapped = Job("nowhere", others, scored(CONFIG, data), "cpu", {})  # its test images are these
    stages, rows = measure_epoch(job, epoch.network, 1, ends=True, transport=True)
    wanted, expected = measure_epoch(swapped, epoch.network, 1, ends=True, transport=True)
    assert str(rows) == str(expected)
    assert_array_equal(stages[0].problem.own, wanted[0].problem.own)
    labels, classes = predict(epoch.network, job.scored, "cpu", 700)
    assert_array_equal(labels, data.y_train[:700])
    assert len(classes) == 700
    assert_array_equal(measuring._subject(job, epoch.network).labels, data.y_train[:700])


@pytest.mark.parametrize("split", ["test", "train"])
def test_white_is_the_brightest_pixel_of_both_splits(split):
    config = TrialConfig(epochs=1, points=20, epoch_points=20, split=split, layers="convolutional")
    data = load("digits")
    data = replace(data, x_test=data.x_test.copy())
    data.x_test[0, 0, 0] = 20
    epoch = next(train(config, data))
    subject = measuring._subject(Job("nowhere", config, data, "cpu", {}), epoch.network)
    assert subject.images.max() == (255 if split == "test" else 16 * 255 / 20)
    x = torch.from_numpy(data.x_test if split == "test" else data.x_train)[:20]
    wanted = standardiser(data, "cpu")(x)
    assert_close(subject.standardise(subject.images), wanted)


@pytest.mark.parametrize("validation", [0, 0.3])
def test_evaluations_compare_with_the_network_before_training(validation):
    config = TrialConfig(epochs=1, points=20, epoch_points=20, split="train", validation=validation)
    data = load("digits")
    epoch = next(train(config, data))
    subject = measuring._subject(Job("nowhere", config, data, "cpu", {}), epoch.network)
    before = cast(Callable[[], AnyNetwork], subject.untrained)()
    for found, wanted in zip(before.buffers(), epoch.network.buffers(), strict=True):
        assert_array_equal(found, wanted)


def test_test_loss_and_accuracy_are_of_the_test_split_whichever_is_scored():
    data = load("digits")
    job, epoch = Job("nowhere", CONFIG, data, "cpu", {}), next(train(CONFIG, data, test=False))
    test = training.place(data, "test", "cpu")
    stages, _, _ = _measured(job, epoch, test)
    assert len(stages[0].score) == 700
    loss, accuracy = loss_and_accuracy(epoch.network, test, standardiser(data, "cpu"))
    assert (epoch.record["test_loss"], epoch.record["test_accuracy"]) == (loss, accuracy)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            "points: 500\nsplit: train\nvalidation: 0.9",
            "has 130 train images that are not held out",
        ),
        ("points: 1500\nsplit: train", "has 1297 train images, so give points: 1297 or fewer"),
        ("points: 501", "has 500 test images, so give points: 500 or fewer"),
    ],
)
def test_more_points_than_the_split_has_are_refused(tmp_path, fields, said):
    file = tmp_path / "my.yaml"
    file.write_text(f"dataset: digits\n{fields}\n")
    with pytest.raises(SweepError, match=said):
        service.check(sweep.read(str(file)), str(tmp_path / "out"), None, None)


def test_tables_and_figures_tell_trials_of_both_splits_apart(tmp_path):
    made_up_trial(tmp_path, gamma=0.0)  # from before the field: the test split
    assert varying(results_of(str(tmp_path)).trials) == []
    made_up_trial(tmp_path, gamma=0.01, split="train")
    results = results_of(str(tmp_path))
    assert dict(zip(results.trials.gamma, results.trials.split, strict=True)) == {
        0.0: "test",
        0.01: "train",
    }
    assert varying(results.trials) == ["split"]
    assert scored_images(results.trials) == "test or train"
    titles = [axes.get_title() for axes in tracks_by_gamma(results).axes]
    assert sorted("train" in title for title in titles if title) == [False, True]
