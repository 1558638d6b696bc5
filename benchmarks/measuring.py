"""CPU time to measure an epoch of the demo's networks, also against another checkout of geosweep.

    python -m benchmarks.measuring [--against CHECKOUT] [--rounds N]

Each round starts a fresh process for each checkout. It trains one epoch of the four networks of the
built-in sweep ``demo`` on one thread, and measures each of them as after an epoch between the first
and the last (``between``), and as before training and at the end (``ends``), without solving
assignments. Seconds are user CPU time, the least of all rounds; ratios are those to this checkout.
Expect half a minute a round and checkout. Rows are appended to ``benchmarks/RESULTS.md``.
"""

import argparse
import platform
import subprocess
import sys
from collections import defaultdict
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("RESULTS.md")
MEASURE = """
import resource
import torch
from models.config import TrialConfig
from models.datasets import load
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


def main() -> None:
    """Measure, print the rows, and append them to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout of geosweep")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
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
            f"| {network} | {stages} | {part} | {_commit(checkout)} | {spent:.3f} | {ratio:.2f} "
            f"| {machine} | {versions} |"
        )
    text = "\n".join(lines)
    print(text)
    with RESULTS.open("a") as file:
        file.write(f"{text}\n")


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


if __name__ == "__main__":
    main()
