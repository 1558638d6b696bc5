"""Measurements of a trial's network: scores, geometry, predictions and evaluations."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from models.config import TrialConfig
from models.custom import Blocks, Custom
from models.datasets import Dataset
from models.invariance import effective_rate, effective_rates
from models.network import AnyNetwork, in_channels_last
from models.training import standardiser, untrained
from models.validation import scored
from scoring import schemas, storage
from scoring.energy import energy_ratio
from scoring.left_curve import leave_curve
from scoring.problems import CURVE
from scoring.robustness.curve import curve_problems
from scoring.robustness.record import add_evaluation, recorded_evaluations
from scoring.robustness.run import RUN, evaluate
from scoring.robustness.subject import Subject
from scoring.rows import LINE_SHAPE, geometric_mean
from scoring.stages import Stage, full_precision, geometry, measure
from tune_jobs.evaluations import lacking

BATCH = 250  # points measured at a time: two states of 65,536 float64 numbers each are 262 MB


@dataclass(frozen=True)
class Job:
    """A trial on the machine that trains it, with its data loaded.

    Attributes:
        root: the sweep's folder, an absolute path or a URI.
        trial: the configuration.
        data: the data set, with the mean and deviation of the images that the trial trains on.
        device: ``cpu`` or ``cuda``.
        wanted: evaluations of the trained network, by name, with their settings.
        keep: ``best`` also keeps the weights of the epoch with the highest validation accuracy, or
            test accuracy without a validation split.
        revision: git revision of the source; kept with the results.
        held: a driver holds the sweep's folder, so do not create it again if it disappears.
        blocks: as for :func:`models.network.build`.
    """

    root: str
    trial: TrialConfig
    data: Dataset
    device: str
    wanted: Mapping[str, Mapping[str, Any]]
    keep: str | Mapping[str, int] = "final"
    revision: str = ""
    held: bool = False
    blocks: Blocks = ()
    set_aside: list[str] = field(default_factory=list)
    """Lines for the next report: about damaged files, and about what could not be measured."""

    @property
    def id(self) -> str:
        """The trial's id, which names its files."""
        return self.trial.trial

    @cached_property
    def scored(self) -> Dataset:
        """The same data set, with the images that are scored in the place of its test split."""
        return scored(self.trial, self.data)

    def usable(self, read: Callable[..., Any], *arguments: Any) -> Any:
        """What a function reads from a file of the trial; None if that is damaged.

        Then the file is set aside.
        """
        try:
            return read(self.root, self.id, *arguments)
        except storage.Damaged as error:
            place = storage.set_aside(self.root, error.path)
            self.set_aside.append(f"{error}; it is in {place} now")
            return None


class Walk:
    """Walks through a network and keeps the logits at the end of each walk.

    So one pass over the first images gives their line shape, loss and accuracy.
    """

    def __init__(self, network: AnyNetwork):
        self._network = network
        self._logits: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Stage and state, block by block, as :meth:`models.network.Network.states`."""
        for stage, state in self._network.states(images):
            yield stage, state
        self._logits.append(self._network.classify(state))

    def logits(self) -> torch.Tensor:
        """Logits of all images so far, (m, classes)."""
        return torch.cat(self._logits)


def measure_epoch(
    job: Job,
    network: AnyNetwork,
    epoch: int,
    ends: bool,
    transport: bool,
    walk: Walk | None = None,
) -> tuple[list[Stage], list[dict[str, Any]]]:
    """Measure the network after an epoch.

    Args:
        job: the trial.
        network: the network after the epoch.
        epoch: the number of the epoch.
        ends: whether this is the first or the last measurement of the trial. These two take all the
            trial's points and add :func:`apart`; the others take ``epoch_points``.
        transport: whether to collect assignment problems.
        walk: keeps the logits of the images that are scored.

    Returns:
        The stages, and one row of the tracks table per stage.
    """
    trial, data = job.trial, job.scored
    m = trial.points if ends else min(trial.epoch_points, len(data.y_test))
    stages = score(network, data, job.device, m, transport, walk)
    rows = [{"epoch": epoch, **stage.row()} for stage in stages]
    for row, norms in zip(rows, network.weight_norms(), strict=True):
        row["weight_norms"] = norms
        if trial.normalisation == "none":  # otherwise W1 has no scale of its own
            row["energy_ratio"] = energy_ratio(row["energy"], norms).tolist()
    if ends:
        pairs = min(m, trial.epoch_points)
        for row, more in zip(rows, apart(network, data, job.device, pairs), strict=True):
            row |= more
    for stage, row in zip(stages, rows, strict=True):
        if not stage.measurable:
            row |= {name: math.nan for name in LINE_SHAPE if name in row}
    return stages, rows


def add_rates(
    job: Job, network: AnyNetwork, rate: float, rows: list[dict[str, Any]]
) -> dict[str, float]:
    """Add the effective learning rates of blocks after an epoch to its rows of the tracks table.

    A row of a stage without weights of a kind has no rates of that kind: they are null.

    Args:
        job: the trial.
        network: the network after the epoch.
        rate: the learning rate of the last step; with NaN, as before training, nothing is added.
        rows: one for each stage.

    Returns:
        The columns of the epochs table: geometric means over all blocks, and the head's.
    """
    found = [] if math.isnan(rate) else effective_rates(network, job.trial, rate)
    if not found:
        return {}
    head: Any = network.head  # which has a scale
    means = {"effective_rate_head": effective_rate(head.weight, job.trial, rate)}
    for name, kind in (("effective_rate", "invariant"), ("effective_rate_others", "others")):
        known = []
        for row, rates in zip(rows, found, strict=True):
            values = [getattr(one, kind) for one in rates]
            here = [value for value in values if not math.isnan(value)]
            if here:
                row[name] = values
            known += here
        means[name] = geometric_mean(known) if known else math.nan
    return means


def score(
    network: AnyNetwork,
    data: Dataset,
    device: str,
    m: int,
    transport: bool = False,
    walk: Walk | None = None,
) -> list[Stage]:
    """Line shape, and assignment problems if wanted, of every stage, of the first m images."""
    network.eval()
    stages = measure(walk or network.states, _batches(data, device, m), transport)
    if not isinstance(network, Custom):
        return stages
    return [replace(stage, measurable=len(stage.shares) > 1) for stage in stages]


def apart(network: AnyNetwork, data: Dataset, device: str, m: int) -> list[dict[str, Any]]:
    """Scores of every stage that need two passes over the first m images."""
    network.eval()
    return geometry(network.states, _batches(data, device, m), data.y_test[:m])


@torch.no_grad()
def predict(
    network: AnyNetwork, data: Dataset, device: str, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Classes and predicted classes of the first m images that are scored, (m,) each."""
    network.eval()
    with full_precision():
        classes = [network(images).argmax(1).cpu() for images in _batches(data, device, m)]
    return data.y_test[:m], torch.cat(classes).numpy()


def evaluate_all(job: Job, network: AnyNetwork) -> None:
    """Run those evaluations that are not yet in the trial's robustness table with these settings.

    Each evaluation is written when it ends; a killed one starts again from the beginning. For the
    curve of measures only the assignment problems are written. They are solved when the trial is
    finished, after its CPU or GPU is released. Levels are pixel values from 0 (black) to 255
    (white), even if white has another value in the images, such as 16 in the digits.
    """
    done = (job.usable(recorded_evaluations) if job.wanted else None) or {}
    wanted = {name: settings for name, settings in job.wanted.items() if name in RUN}
    left = lacking(done, wanted, job.trial.points)
    if not left:
        return
    in_channels_last(network)
    subject = _subject(job, network)
    row = job.trial.row(len(job.blocks))
    key = {field.name: row[field.name] for field in schemas.KEY}
    for name in left:
        settings = job.wanted[name]
        if name == CURVE:
            leave_curve(job.root, key, settings, curve_problems(subject, **settings))
            continue
        rows = evaluate(name, subject, settings)
        add_evaluation(job.root, key, name, settings, rows)


def _subject(job: Job, network: AnyNetwork) -> Subject:
    """Prepare the network for evaluations, which need images in which white is 255.

    White is the brightest value of either split, so no image is brighter.
    """
    data, m = job.scored, job.trial.points
    x, y = (torch.from_numpy(part[:m]).to(job.device) for part in (data.x_test, data.y_test))
    standardise = standardiser(data, job.device)
    white = float(max(job.data.x_train.max(), job.data.x_test.max()))

    def before() -> AnyNetwork:
        return untrained(job.trial, job.data, job.device, blocks=job.blocks)

    if white in (0, 255):
        return Subject(network, x, y, standardise, BATCH, before)

    def shrunk(pixels: torch.Tensor) -> torch.Tensor:
        return standardise(pixels * (white / 255))

    return Subject(network, x * (255 / white), y, shrunk, BATCH, before)


def _batches(data: Dataset, device: str, m: int) -> Iterator[torch.Tensor]:
    standardise = standardiser(data, device)
    for images in torch.from_numpy(data.x_test[:m]).split(BATCH):
        yield standardise(images.to(device))
