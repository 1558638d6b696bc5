"""One pass over the test images gives line shape, loss and accuracy of an epoch."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from models import training
from models.config import TrialConfig
from models.datasets import load
from models.training import standardiser, train
from tune_jobs.errors import SweepError
from tune_jobs.measuring import Job, Walk, measure_epoch
from tune_jobs.sweep import read
from tune_jobs.trial import _measured

CONFIG = TrialConfig(layers="fully_connected", epochs=1, points=300)


@pytest.fixture(scope="module")
def job():
    return Job("nowhere", CONFIG, load("digits"), "cpu", {})


@pytest.fixture(scope="module")
def untrained(job):
    """Epoch 0, without and with the figures of the test split."""
    return [next(train(CONFIG, job.data, test=test)) for test in (False, True)]


def test_a_walk_that_keeps_logits_changes_no_score(job, untrained):
    network, walk = untrained[0].network, Walk(untrained[0].network)
    _, plain = measure_epoch(job, network, 1, ends=False, transport=False)
    _, kept = measure_epoch(job, network, 1, ends=False, transport=False, walk=walk)
    assert str(plain) == str(kept)
    x = standardiser(job.data, "cpu")(torch.from_numpy(job.data.x_test))
    with torch.no_grad():
        assert_close(walk.logits(), network(x))


def test_the_test_split_has_the_loss_and_accuracy_of_separate_passes(job, untrained):
    lacking, whole = untrained
    assert "test_loss" not in lacking.record
    stages, _, failed = _measured(job, lacking, training.place(job.data, "test", "cpu"))
    assert (len(stages[0].score), failed) == (300, False)
    assert lacking.record["test_accuracy"] == whole.record["test_accuracy"]
    assert_close(lacking.record["test_loss"], whole.record["test_loss"], rtol=1e-6, atol=0)


def test_a_test_loss_that_is_not_finite_ends_the_trial(job, untrained):
    test = training.place(job.data, "test", "cpu")
    epoch = next(train(CONFIG, job.data, test=False))
    with torch.no_grad():
        epoch.network.head.bias.fill_(math.inf)
    stages, rows, failed = _measured(job, epoch, test)
    assert failed
    assert np.isnan(epoch.record["test_loss"])
    assert stages[0].problem is None
    assert len(rows) == 1


def test_asha_compares_only_what_is_known_after_every_epoch(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(
        "clean_train_every: 5\nscheduler: {method: asha, metric: clean_train_accuracy}\n"
    )
    with pytest.raises(SweepError, match="leave clean_train_every out"):
        read(str(path))
