"""CPU time to measure an epoch of the demo's networks, also against another checkout of geosweep.

    python -m benchmarks.measuring [--against CHECKOUT] [--rounds N]
    python -m benchmarks.measuring --shares --data FOLDER

Each round starts a fresh process for each checkout. It trains one epoch of the four networks of the
built-in sweep ``demo`` on one thread, and measures each of them as after an epoch between the first
and the last (``between``), and as before training and at the end (``ends``), without solving
assignments. Seconds are user CPU time, the least of all rounds; ratios are those to this checkout.
Expect half a minute a round and checkout. Rows are appended to ``benchmarks/RESULTS.md``.

``--shares`` prints what an epoch of a sweep spends on evaluation, as shares of its pass over the
train split: on the clean train images, on the test split, and on line shape (of the first 1000 test
images, in the same pass as the test split). FOLDER holds ``mnist.npz`` and ``cifar10.npz``, of
which 1024 train images and 1000 test images are timed, and multiplied. Expect two minutes.
"""

import argparse
import itertools
import platform
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from benchmarks.report import commit
from benchmarks.rows import report
from models.config import TrialConfig
from models.datasets import Dataset, load
from models.precision import Precision
from models.training import (
    Split,
    loss_and_accuracy,
    make_optimizer,
    one_pass,
    place,
    standardiser,
    untrained,
)
from tune_jobs.measuring import Walk, score

ROOT = Path(__file__).parents[1]
MEASURE = """
import resource
import torch
from models.config import TrialConfig
from models.datasets import Dataset, load
from models.training import train
from tune_jobs.measuring import Job, measure_epoch
torch.set_num_threads(1)
data = load("digits")

def seconds(call):
    start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    result = call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime - start, result

for network in ("plain", "resnet"):
    for stages in (1, 2):
        trial = TrialConfig(network=network, stages=stages, batch_size=64, points=500)
        epochs = train(trial, data)
        next(epochs)
        spent, epoch = seconds(lambda: next(epochs))
        print(network, stages, "training", spent)
        job = Job("nowhere", trial, data, "cpu", {})
        for what, ends in (("between", False), ("ends", True)):
            for _ in range(4):
                spent, _ = seconds(lambda: measure_epoch(job, epoch.network, 1, ends, ends))
                print(network, stages, what, spent)
"""


SHARES = ("digits", "mnist", "cifar10")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
TRAINED, SCORED = 1024, 1000  # images that are timed


def shares(data_folder: str | None, rounds: int) -> list[str]:
    """A table: seconds of a pass over the train split, and shares of it, on one thread."""
    torch.set_num_threads(1)
    rows = [
        "| dataset | precision | training, s | clean train | test | line shape | all "
        "| all, clean train every 10 |",
        "|" + " --- |" * 8,
    ]
    for name, precision in itertools.product(SHARES, PRECISIONS):
        config = TrialConfig(dataset=name, precision=precision)
        epoch, tested, shape = _parts(config, load(config.dataset, data_folder), rounds)
        figures = [tested, tested, shape, 2 * tested + shape, 1.1 * tested + shape]
        shown = " | ".join(f"{figure:.1%}" for figure in figures)
        rows.append(f"| {config.dataset} | {precision} | {epoch:.2f} | {shown} |")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _parts(config: TrialConfig, data: Dataset, rounds: int) -> tuple[float, float, float]:
    """Seconds of a pass over the train split; shares of it of the test split and of line shape."""
    network = untrained(config, data)
    optimizer, standardise = make_optimizer(network, config), standardiser(data, "cpu")
    train, test = (place(data, split, "cpu") for split in ("train", "test"))
    some = Split(*(part[:TRAINED] for part in train))
    first = Split(*(part[:SCORED] for part in test))
    parts = {
        "train": lambda: one_pass(network, optimizer, some, standardise, config, 1),
        "test": lambda: loss_and_accuracy(network, first, standardise),
        "scored": lambda: score(network, data, "cpu", len(first.y), walk=Walk(network)),
    }
    least = {name: min(_user(part) for _ in range(rounds + 1)) for name, part in parts.items()}
    epoch = least["train"] * len(train.y) / len(some.y)
    shape = max(0.0, least["scored"] - least["test"])
    return epoch, least["test"] * len(test.y) / len(first.y) / epoch, shape / epoch


def _user(call: Callable[[], object]) -> float:
    start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime - start


def main() -> None:
    """Measure, print the rows, and append them to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout of geosweep")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shares", action="store_true", help="shares of an epoch instead")
    parser.add_argument("--data", help="folder with mnist.npz and cifar10.npz")
    given = parser.parse_args()
    if given.shares:
        head = f"\n## Evaluation in an epoch, {date.today()}\n"
        command = (
            f"`python -m benchmarks.measuring --shares --data FOLDER --rounds {given.rounds}`\n"
        )
        return report([head, command, *shares(given.data, given.rounds)])
    checkouts = [ROOT, *([given.against.resolve()] if given.against else [])]
    least: dict[tuple[str, Path], float] = defaultdict(lambda: float("inf"))
    for _ in range(given.rounds):
        for checkout in checkouts:
            command = [sys.executable, "-c", MEASURE]
            done = subprocess.run(
                command, cwd=checkout, check=True, text=True, stdout=subprocess.PIPE
            )
            for line in done.stdout.splitlines():
                what, _, spent = line.rpartition(" ")
                least[what, checkout] = min(least[what, checkout], float(spent))
    lines = [
        f"\n## Measuring an epoch, {date.today()}\n",
        f"`python -m benchmarks.measuring{' --against CHECKOUT' * (len(checkouts) > 1)} "
        f"--rounds {given.rounds}`\n",
        "| network | K | what | commit | user CPU, s | ratio | machine | versions |",
        "|" + " --- |" * 8,
    ]
    machine = f"{platform.machine()}, 1 thread"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    for (what, checkout), spent in least.items():
        network, stages, part = what.split()
        ratio = spent / least[what, ROOT]
        lines.append(
            f"| {network} | {stages} | {part} | {commit(checkout)} | {spent:.3f} | {ratio:.2f} "
            f"| {machine} | {versions} |"
        )
    report(lines)


if __name__ == "__main__":
    main()
