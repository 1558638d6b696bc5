"""Times a training step and an evaluation of each kind of trial, in a process of its own.

    python -m tune_jobs.timing < REQUEST

The request is a pickled :class:`Asked` on standard input, from the process that started this one.
A line of JSON for each trial is printed as soon as it is known, so the first ones count if the rest
takes too long. Each has ``trial``, and the fields of :class:`tune_jobs.costs.Cost` or ``unknown``.
"""

import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from models.callables import Code, load
from models.config import TrialConfig
from models.datasets import LEVELS, Dataset
from models.datasets import load as load_data
from models.errors import CodeError
from models.messages import first_line

STEPS, LEAST = 3, 0.1  # time a step at least this often, and for this many seconds
SECONDS = 3.0  # start no further kind of trial after this long
POINTS = 250  # test images measured, at most
HANDLING = 0.5  # seconds of a trial for files, reports and the change to the next one
FEW = 2000  # points whose assignment takes less than training for any number of epochs
SMALL, GROWTH = 1000, 2.3  # points of the assignment that is timed; its time grows like m^2.3
SOLVED = 4  # assignments of each stage: first and last epoch, each with its shuffled baseline
ROWS = 250_000.0  # bytes of a trial's tables and of its run in MLflow, about
# Counts of train and test images, channels, height, width and classes of data sets that may still
# have to be downloaded. Until then, random images of these shapes are timed.
SHAPES: dict[str, tuple[int, int, int, int, int, int]] = {
    "mnist": (60_000, 10_000, 1, 28, 28, 10),
    "fashion_mnist": (60_000, 10_000, 1, 28, 28, 10),
    "cifar10": (50_000, 10_000, 3, 32, 32, 10),
    "cifar100": (50_000, 10_000, 3, 32, 32, 100),
}
PER_POINT = 200.0  # bytes of a point's row in the samples table, twice: MLflow has a copy


@dataclass(frozen=True)
class Asked:
    """What to time."""

    trials: list[TrialConfig]
    sources: Mapping[str, str]  # where each data set is, by name; those of SHAPES may be missing
    folder: str | None  # of data sets
    files: Mapping[str, Code]  # of users, by identity
    threads: int
    device: str


def cost(trial: TrialConfig, data: Dataset, device: str) -> dict[str, float]:
    """What a trial is expected to cost, as the fields of :class:`tune_jobs.costs.Cost`."""
    import torch

    from models import training
    from models.steps import Totals, take_step
    from models.validation import count, scored
    from tune_jobs import provenance
    from tune_jobs.blocks import find
    from tune_jobs.measuring import apart, score

    provenance.reset_peaks(device)
    own = trial.architecture is None
    blocks = () if own else find(trial, data.image, data.classes).blocks
    network = training.untrained(trial, data, device, blocks=blocks)
    optimizer = training.make_optimizer(network, trial)
    standardise = training.standardiser(data, device)
    split = training.place(data, "train", device, slice(max(POINTS, 4 * trial.batch_size)))
    draws = training.Draws(trial, len(split.y), 1, torch.device(device))
    totals = Totals.zero(torch.device(device))

    def step() -> None:
        batch = next(iter(draws.batches))
        x, y = draws.images(split.x, batch), split.y.index_select(0, batch)
        network.train()
        with training.tf32(True):
            take_step(network, optimizer, standardise(x), y, trial, trial.learning_rate, totals)
        totals.loss.item()  # waits for a GPU

    m, seen = min(trial.points, POINTS), min(trial.batch_size, len(split.y))
    some = training.place(data, "test", device, slice(POINTS))
    per_image = _timed(step) / seen
    passed = _timed(lambda: training.loss_and_accuracy(network, some, standardise)) / len(some.y)
    images = scored(trial, data)
    measured = _timed(lambda: score(network, images, device, m)) / m
    compared = _timed(lambda: apart(network, images, device, m))
    held = count(trial.validation, len(data.y_train))
    tests, epoch_points = len(data.y_test), min(trial.epoch_points, len(images.y_test))
    once = passed * (tests + held) + measured * epoch_points
    clean = passed * min(tests, len(data.y_train) - held) / trial.clean_train_every
    pairs = min(trial.points, epoch_points)
    ends = 3 * measured * trial.points + 2 * compared * (pairs / m) ** 2 + once + HANDLING
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    return {
        "epoch": per_image * (len(data.y_train) - held) + once + clean,
        "other": ends,
        "scoring": _scoring(trial, network, images, device),
        "memory": provenance.peaks(device)["peak_memory"] * 1e9,
        "disk": weights + ROWS + PER_POINT * trial.points * len(network.layout()),
    }


def _scoring(trial: TrialConfig, network: Any, data: Dataset, device: str) -> float:
    """Seconds to solve the assignments, extrapolated from fewer points."""
    stages = len(network.layout())
    if trial.points <= FEW:
        return 0.1 * SOLVED * stages
    from scoring.transport import solve  # loads numba
    from tune_jobs.measuring import score

    problems = [s.problem for s in score(network, data, device, SMALL, transport=True)]
    known = [problem for problem in problems if problem is not None]
    solve(known[0], 1)  # the kernels are loaded
    start = time.perf_counter()
    for problem in known:
        solve(problem, 1)
    return SOLVED * (time.perf_counter() - start) * (trial.points / SMALL) ** GROWTH


def random_images(name: str) -> Dataset:
    """A data set of random images with the shapes of one of :data:`SHAPES`."""
    train, test, channels, height, width, classes = SHAPES[name]
    rng = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.integers(0, int(LEVELS) + 1, (count, height, width, channels), np.uint8)
        return x, rng.integers(0, classes, count)

    middle = (LEVELS / 2,) * channels
    return Dataset(*split(train), *split(test), classes, middle, middle)


def _timed(call: Callable[[], object]) -> float:
    """Seconds of a call: the median, without the first one, which warms up."""
    call()
    spent: list[float] = []
    while len(spent) < STEPS or sum(spent) < LEAST:
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
        if sum(spent) > 1:  # such a large network needs no second decimal
            break
    return median(spent)


def main() -> None:
    """Time what is asked for; see the top of this module."""
    asked: Asked = pickle.load(sys.stdin.buffer)
    lines = os.fdopen(os.dup(1), "w")  # what code of users prints goes to standard error
    with redirect_stdout(sys.stderr):
        import torch

        torch.set_num_threads(asked.threads)
        start = time.perf_counter()
        for trial in asked.trials:
            if time.perf_counter() - start > SECONDS:
                return
            try:
                if trial.architecture in asked.files:
                    load(asked.files[trial.architecture])
                known = asked.sources.get(trial.dataset)
                data = load_data(known, asked.folder) if known else random_images(trial.dataset)
                found: dict[str, Any] = cost(trial, data, asked.device)
            except (Exception, SystemExit) as error:  # whatever the code of a user raises
                text = first_line(error)
                named = isinstance(error, CodeError)
                found = {"unknown": text if named else f"{type(error).__name__}: {text}"}
            print(json.dumps({"trial": trial.trial} | found), file=lines, flush=True)


if __name__ == "__main__":
    main()
