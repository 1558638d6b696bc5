"""The training loop: a generator that yields once per epoch.

The whole data set is on the device as uint8; batches, crops and flips take one gather each. All
random choices of an epoch are drawn on the CPU from (seed, epoch). So a trial that continues from
a checkpoint sees the same batches as one that was not interrupted, on any device.
"""

import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.modules.batchnorm import _BatchNorm

from models import validation
from models.config import TrialConfig
from models.custom import Blocks
from models.datasets import Dataset
from models.invariance import Renormalise, invariant_weights
from models.network import AnyNetwork, build, decayed, in_channels_last
from models.optimizers import Optimizer, optimizer_of
from models.steps import Totals, correct, take_step, tf32
from models.torch_optimizers import Group, TorchOptimizer

SETTLED = 250  # Normalisations settle on at least this many images: fewer are a poor sample.
PAD = 4  # Crops are taken from images with this many pixels added on each side.


class Split(NamedTuple):
    """Images uint8 (count, h, w, c) and labels int64 (count,), on one device."""

    x: Tensor
    y: Tensor


class Epoch(NamedTuple):
    """The record of an epoch, the network after it, and a checkpoint of both."""

    record: dict[str, Any]
    network: AnyNetwork
    checkpoint: dict[str, Any]  # tensors, numbers and strings, for torch.load(weights_only=True)


class Standardise(NamedTuple):
    """uint8 images (m, h, w, c) -> float32 (m, c, h, w), channels last in memory."""

    mean: Tensor  # (c,)
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Subtract the mean of each channel and divide by its standard deviation."""
        return ((x.float() - self.mean) / self.std).permute(0, 3, 1, 2)


def train(
    config: TrialConfig,
    data: Dataset,
    device: str = "cpu",
    checkpoint: dict[str, Any] | None = None,
    blocks: Blocks = (),
    test: bool = True,
) -> Iterator[Epoch]:
    """Train one trial, epoch by epoch.

    On a CPU, every run with the same number of threads gives the same numbers bit for bit, even
    if training was interrupted and continued from a checkpoint.

    Args:
        config: the trial.
        data: its data set.
        device: ``cpu`` or a CUDA device.
        checkpoint: :attr:`Epoch.checkpoint` of an earlier run; training continues after it.
        blocks: as for :func:`models.network.build`.
        test: False leaves the test split to the caller, who adds ``test_loss`` and
            ``test_accuracy`` to the record before asking for the next epoch.

    Yields:
        Epoch 0, the network before training, then one :class:`Epoch` after each pass over
        the train split. A record has ``epoch``; ``train_loss`` and ``train_accuracy``, the
        running means over the (augmented) training images, NaN in epoch 0;
        ``clean_train_loss`` and ``clean_train_accuracy`` over the first images of the train
        split without augmentation, as many as the test split has, NaN in epochs that
        ``clean_train_every`` leaves out; ``validation_loss`` and
        ``validation_accuracy`` over the images that are held out of training, if some are;
        ``test_loss``, ``test_accuracy``; ``learning_rate`` of the last step; ``seconds`` of the
        pass with its evaluation. Losses are mean cross-entropies in nats without any penalty
        (gamma's, or those of :mod:`models.penalties`), accuracies are fractions. Training ends
        with an epoch that has a loss which is not finite; the caller may end it earlier.
    """
    data = validation.of_trained(config, data)
    rows, held = validation.divided(config, data)
    train_split, held_split = (place(data, "train", device, part) for part in (rows, held))
    test_split = place(data, "test", device)
    splits = {"clean_train": Split(*(part[: len(test_split.y)] for part in train_split))}
    splits |= {"validation": held_split} if len(held) else {}
    splits |= {"test": test_split} if test else {}
    standardise = standardiser(data, device)
    network = untrained(config, data, device, settled=checkpoint is None, blocks=blocks)
    optimizer = make_optimizer(network, config)
    renormalise = Renormalise(invariant_weights(network)) if config.renormalise else None
    first = 0
    if checkpoint is not None:
        network.load_state_dict(checkpoint["network"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        first = checkpoint["epoch"] + 1

    for epoch in range(first, config.epochs + 1):
        start = time.perf_counter()
        record: dict[str, Any] = {"epoch": epoch}
        record |= {"train_loss": math.nan, "train_accuracy": math.nan, "learning_rate": math.nan}
        if epoch > 0:
            with drawing(config.seed, epoch, device):
                record |= one_pass(
                    network, optimizer, train_split, standardise, config, epoch, renormalise
                )
        for prefix, split in splits.items():
            loss = accuracy = math.nan
            if prefix != "clean_train" or sees_clean_train(config, epoch):
                loss, accuracy = loss_and_accuracy(network, split, standardise)
            record |= {f"{prefix}_loss": loss, f"{prefix}_accuracy": accuracy}
        record["seconds"] = time.perf_counter() - start
        state = {
            "epoch": epoch,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        yield Epoch(record, network, state)
        if diverged(record, config):
            return


def untrained(
    config: TrialConfig,
    data: Dataset,
    device: str = "cpu",
    settled: bool = True,
    blocks: Blocks = (),
) -> AnyNetwork:
    """The network of a trial before training, as :func:`train` yields it in epoch 0.

    The configuration and the data determine it. On a CPU, it is the same bit for bit with the
    same number of threads.

    Args:
        config: the trial.
        data: its data set.
        device: ``cpu`` or a CUDA device.
        settled: let the normalisations see data, see :func:`settle`.
        blocks: as for :func:`models.network.build`.
    """
    network = in_channels_last(build(config, data.image, data.classes, blocks).to(device))
    if settled:
        data = validation.of_trained(config, data)
        rows, _ = validation.divided(config, data)
        first = np.arange(len(data.y_train))[rows][: max(len(data.y_test), SETTLED)]
        with drawing(config.seed, 0, device):
            settle(network, place(data, "train", device, first), standardiser(data, device))
    return network


@contextmanager
def drawing(seed: int, epoch: int, device: str) -> Iterator[None]:
    """Let layers such as dropout draw the same numbers whenever an epoch is trained.

    A user's network may draw them from torch, from NumPy or from Python. Table 1's networks draw
    none. The caller's random numbers go on as before.
    """
    devices = [torch.cuda.current_device()] if torch.device(device).type == "cuda" else []
    mixed = int(np.random.SeedSequence([seed, epoch, 1]).generate_state(1, np.uint64)[0])
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(mixed >> 1)
        random.seed(mixed)
        np.random.seed(mixed >> 32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


@torch.no_grad()
@tf32(False)
def settle(network: AnyNetwork, split: Split, standardise: Standardise, points: int = 1000) -> None:
    """Let the normalisations of an untrained network see data once, without changing weights.

    BatchNorm starts with running statistics of mean 0 and variance 1, which match no data. Until
    they have settled, a network in evaluation mode differs from the network that trains, and
    its scores would be no baseline for training.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean over batches
    network.train()
    images = split.x[:points]
    for x in images.tensor_split(max(1, len(images) // 250)):
        network(standardise(x))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def sees_clean_train(config: TrialConfig, epoch: int) -> bool:
    """Whether clean train images are evaluated after this epoch; always at both ends."""
    return epoch % config.clean_train_every == 0 or epoch == config.epochs


def diverged(record: dict[str, Any], config: TrialConfig) -> bool:
    """Whether a loss of this epoch is not finite (epoch 0 has no train loss)."""
    losses = [record["test_loss"]]
    if sees_clean_train(config, record["epoch"]):
        losses.append(record["clean_train_loss"])
    if record["epoch"] > 0:
        losses.append(record["train_loss"])
    return not all(math.isfinite(loss) for loss in losses)


def place(data: Dataset, split: str, device: str, rows: np.ndarray | slice = slice(None)) -> Split:
    """One split on the device, as uint8, or some of its rows, which are a copy unless a slice.

    The others stay mapped from the cache file on the CPU.
    """
    x, y = getattr(data, f"x_{split}")[rows], getattr(data, f"y_{split}")[rows]
    return Split(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))


def standardiser(data: Dataset, device: str) -> Standardise:
    """Standardises images by the mean and deviation of each channel of the train split.

    With a validation split, ``data`` should be from :func:`models.validation.of_trained`.
    """
    return Standardise(
        torch.tensor(data.mean, device=device), torch.tensor(data.std, device=device)
    )


def make_optimizer(network: AnyNetwork, config: TrialConfig) -> Optimizer | TorchOptimizer:
    """The optimizer of a trial's recipe. Gamma is the weight decay of the weight matrices.

    The decay is coupled: gamma W is added to the gradient of W. Eq. (14) as printed, with
    gamma times the squared norm, has the gradient 2 gamma W. Recipes in
    :data:`models.recipes.DECOUPLED` take the learning rate times gamma W from W instead. Weights
    that are renormalised take no decay.
    """
    under, free = decayed(network, config.decay)
    if config.renormalise:
        kept = {id(weight) for weight in invariant_weights(network)}
        free = [*free, *(weight for weight in under if id(weight) in kept)]
        under = [weight for weight in under if id(weight) not in kept]
    groups = [Group(under, config.gamma), Group(free, 0.0)]
    return optimizer_of(groups, config.recipe, config.momentum)


def rate_at(config: TrialConfig, taken: int, steps: int) -> float:
    """The learning rate of a step: it rises evenly in the warm-up, then follows the schedule.

    A cosine falls to 0; a constant one stays.

    Args:
        config: the trial.
        taken: steps before this one.
        steps: steps of an epoch.

    >>> config = TrialConfig(epochs=10, warmup=0.3, learning_rate=1.0)
    >>> [rate_at(config, taken, steps=10) for taken in range(4)]
    [0.25, 0.5, 0.75, 1.0]
    """
    warm = round(config.warmup * steps)
    if taken < warm:
        return config.learning_rate * (taken + 1) / (warm + 1)
    if config.schedule == "constant":
        return config.learning_rate
    done = (taken - warm) / (config.epochs * steps - warm)
    return 0.5 * config.learning_rate * (1 + math.cos(math.pi * done))


def one_pass(
    network: AnyNetwork,
    optimizer: Optimizer | TorchOptimizer,
    split: Split,
    standardise: Standardise,
    config: TrialConfig,
    epoch: int,
    renormalise: Renormalise | None = None,
) -> dict[str, float]:
    """One pass over the train split; returns the fields of the record about training."""
    draws = Draws(config, len(split.y), epoch, split.y.device)
    totals = Totals.zero(split.y.device)
    steps, rate = len(draws.batches), math.nan
    network.train()
    with tf32(True):
        for step, batch in enumerate(draws.batches):  # nothing here waits for a GPU
            rate = rate_at(config, (epoch - 1) * steps + step, steps)
            x, y = draws.images(split.x, batch), split.y.index_select(0, batch)
            take_step(network, optimizer, standardise(x), y, config, rate, totals)
            if renormalise:
                renormalise()
    seen = sum(map(len, draws.batches))
    return {
        "train_loss": totals.loss.item() / seen,
        "train_accuracy": totals.correct.item() / seen,
        "learning_rate": rate,
    }


class Draws:
    """All random choices of one epoch: the order of the images, crops and flips."""

    def __init__(self, config: TrialConfig, count: int, epoch: int, device: torch.device):
        mixed = np.random.SeedSequence([config.seed, epoch]).generate_state(2, np.uint32)
        draw = torch.Generator().manual_seed(int(mixed[0]) << 31 | int(mixed[1]) >> 1)
        batches = torch.randperm(count, generator=draw).to(device).split(config.batch_size)
        # A batch of one image has no variance to normalise with, so that image is left out.
        self.batches = batches[:-1] if len(batches[-1]) == 1 and len(batches) > 1 else batches
        self.augment = config.augment
        if config.augment:
            # One entry for each image, not for each position in the order: (count, 2), (count,).
            self.corner = torch.randint(2 * PAD + 1, (count, 2), generator=draw).to(device)
            self.flip = (torch.rand(count, generator=draw) < 0.5).to(device)

    def images(self, x: Tensor, batch: Tensor) -> Tensor:
        """The images of a batch, uint8 (b, h, w, c), cropped and flipped if the trial augments."""
        chosen = x.index_select(0, batch)
        if not self.augment:
            return chosen
        _, height, width, _ = chosen.shape
        padded = pad(chosen, (0, 0, PAD, PAD, PAD, PAD))
        down = torch.arange(height, device=x.device)
        along = torch.arange(width, device=x.device)
        flip, corner = self.flip[batch, None], self.corner[batch]
        rows = corner[:, :1] + down  # (b, h)
        columns = corner[:, 1:] + torch.where(flip, width - 1 - along, along)  # (b, w)
        image = torch.arange(len(batch), device=x.device)[:, None, None]
        return padded[image, rows[:, :, None], columns[:, None, :]]


@torch.no_grad()
@tf32(False)
def loss_and_accuracy(
    network: AnyNetwork,
    split: Split,
    standardise: Standardise,
    batch: int = 500,
    first: Tensor | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy as a fraction, in evaluation mode.

    Args:
        network: the network.
        split: the images and their labels.
        standardise: what the network expects.
        batch: images at a time.
        first: logits of the first images (some, classes), if they are known already.
    """
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.y.device)
    right = torch.zeros((), dtype=torch.int64, device=split.y.device)
    known = 0 if first is None else len(first)
    parts = [] if first is None else [*first.split(batch)]
    images = [*split.x[known:].split(batch)] if known < len(split.y) else []
    seen = 0
    for logits in chain(parts, (network(standardise(x)) for x in images)):
        y = split.y[seen : seen + len(logits)]
        loss += cross_entropy(logits, y, reduction="sum")
        right += correct(logits, y).sum()
        seen += len(y)
    return loss.item() / len(split.y), right.item() / len(split.y)
