"""Training and scores on a CUDA device. Without one, only what a CPU can show is tested."""

import math

import pytest
import torch
from tiny_training import CONNECTED, CONVOLUTIONAL, run, tiny
from torch.testing import assert_close

from models import steps, training
from models.config import TrialConfig
from models.network import build
from models.optimizers import Optimizer
from models.torch_optimizers import Group
from tune_jobs.measuring import Job, measure_epoch

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
AUGMENTED = CONVOLUTIONAL | {"augment": True}


def losses(device, count=10, **config):
    """Losses of the first steps, each on a batch of its own."""
    config, data = TrialConfig(**config), tiny(train=16 * count)
    network = training.untrained(config, data, device).train()
    optimizer = training.make_optimizer(network, config)
    split, standardise = training.place(data, "train", device), training.standardiser(data, device)
    draws = training.Draws(config, len(split.y), 1, torch.device(device))
    found = []
    for batch in draws.batches:
        totals = steps.Totals.zero(torch.device(device))
        x, y = standardise(draws.images(split.x, batch)), split.y[batch]
        steps.take_step(network, optimizer, x, y, config, 1e-3, totals)
        found.append(totals.loss.item() / len(y))
    return found


@gpu
@pytest.mark.parametrize("config", [AUGMENTED, CONNECTED, CONVOLUTIONAL | {"stages": 2}])
def test_the_first_steps_on_a_gpu_have_the_losses_of_a_cpu(config):
    with steps.tf32(False):
        assert_close(losses("cuda", **config), losses("cpu", **config), rtol=1e-3, atol=1e-4)
    with steps.tf32(True):
        assert_close(losses("cuda", **config), losses("cpu", **config), rtol=5e-2, atol=1e-2)


@gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_no_step_of_an_epoch_waits_for_the_gpu(precision, penalty, monkeypatch):
    config = TrialConfig(**AUGMENTED, precision=precision, straightness_penalty=penalty)
    data = tiny()
    network = training.untrained(config, data, "cuda")
    optimizer = training.make_optimizer(network, config)
    split, standardise = training.place(data, "train", "cuda"), training.standardiser(data, "cuda")
    training.one_pass(network, optimizer, split, standardise, config, 1)  # loads libraries
    taken = []

    def strict(*arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps.take_step(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        taken.append(1)

    monkeypatch.setattr(training, "take_step", strict)
    training.one_pass(network, optimizer, split, standardise, config, 2)
    assert len(taken) == 3  # 40 images in batches of 16


@gpu
def test_an_epoch_on_a_gpu_goes_on_from_a_checkpoint_of_a_cpu():
    config, data = TrialConfig(**AUGMENTED), tiny()
    first, second, *_ = training.train(config, data)
    epochs = training.train(config, data, "cuda", checkpoint=second.checkpoint)
    record = next(epochs).record
    assert record["epoch"] == 2
    assert math.isfinite(record["test_loss"])
    assert first.record["epoch"] == 0


@gpu
def test_scores_on_a_gpu_are_those_of_a_cpu():
    config, data = TrialConfig(**CONVOLUTIONAL, points=16), tiny()
    network = training.untrained(config, data)
    rows = {}
    for device in ("cpu", "cuda"):
        job = Job("nowhere", config, data, device, {})
        with steps.tf32(True):  # as a library may have left it; scores forbid it
            _, rows[device] = measure_epoch(job, network.to(device), 0, True, True)
    for here, there in zip(rows["cpu"], rows["cuda"], strict=True):
        for name in ("inverse_lss", "lsr", "energy"):
            assert_close(there[name], here[name], rtol=1e-4, atol=0)


@gpu
def test_a_step_in_a_cuda_graph_is_an_ordinary_step():
    from benchmarks.gpu import graphed

    config, data = TrialConfig(**AUGMENTED | {"batch_size": 8}), tiny()
    ordinary, replayed = (training.untrained(config, data, "cuda") for _ in range(2))
    split, standardise = training.place(data, "train", "cuda"), training.standardiser(data, "cuda")
    one_pass = graphed(replayed, split, standardise, config)
    optimizer = training.make_optimizer(ordinary, config)
    for epoch in (1, 2):
        record = training.one_pass(ordinary, optimizer, split, standardise, config, epoch)
        assert_close(one_pass(epoch), record["train_loss"], rtol=1e-3, atol=0)


@pytest.mark.parametrize("recipe", ["adam", "adamw", "sgd"])
def test_a_learning_rate_may_be_a_tensor(recipe):
    """A CUDA graph reads it anew in every replay."""
    after = []
    for rate in (0.01, torch.tensor(0.01)):
        network = build(TrialConfig(**CONNECTED), (3, 8, 8), 3)
        optimizer = Optimizer([Group([*network.parameters()], 0.1)], recipe)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(rate)
        after.append(network.state_dict())
    assert_close(after[1], after[0])


def test_training_may_round_to_tf32_and_evaluation_may_not(monkeypatch):
    seen = []

    def note(what):
        flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        seen.append((what, flags))

    def noted(name):
        plain = getattr(training, name)
        return lambda *given, **named: (note(name), plain(*given, **named))[1]

    def entropy(*given, **named):
        note("evaluation")
        return torch.nn.functional.cross_entropy(*given, **named)

    monkeypatch.setattr(training, "take_step", noted("take_step"))
    monkeypatch.setattr(training, "cross_entropy", entropy)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    run(tiny(side=8), **CONNECTED | {"epochs": 1})
    allowed = {"take_step": (True, True), "evaluation": (False, False)}
    assert {what for what, _ in seen} == set(allowed)
    assert all(flags == allowed[what] for what, flags in seen)
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
