"""Seconds of the evaluation ``curve`` on one K = 1 stage of CIFAR-10.

    python -m benchmarks.curve

The stage has 10 blocks and states of 32 x 16 x 16 numbers (Table 1). The images are made up, with a
spectrum that decays as 1/f, as that of photographs does; the networks are untrained. Assignments
of the ResNet are easy, since every block keeps its points near, and those of the plain network are
hard. "Problems" are the walk through the network and the products of its states. "Solve" are 11
assignments, and 10 of shuffled displacements. "Both" is all of this, and the same without shuffling
for the network before training. The goal is 10 s for problems and solve at m = 1000 on two cores.
Times are medians; the CPU time of all threads says more where the machine is busy. It takes about
a minute and appends rows to ``benchmarks/RESULTS.md``.
"""

import argparse
import shlex
import statistics
import sys
import time
from dataclasses import replace
from datetime import date

import numba
import numpy as np
import torch

from benchmarks.rows import machine, report
from models.config import TrialConfig
from models.network import build
from scoring.curve import curve_rows
from scoring.problems import CURVE
from scoring.robustness.curve import curve, curve_problems
from scoring.robustness.subject import Subject

SIZE = (3, 32, 32)
COLUMNS = [
    "network",
    "m",
    "problems, s",
    "solve, s",
    "problems and solve, s",
    "their CPU time, s",
    "both networks, s",
    "OTS of blocks",
    "length ratio",
    "threads",
    "rounds",
    "machine",
    "versions",
]


def images(m: int) -> torch.Tensor:
    """Random images (m, 32, 32, 3) with pixel values from 0 to 255."""
    draw = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)) + 1 / 32
    waves = np.fft.rfft2(draw.normal(size=(m, 3, 32, 32))) / frequency
    pictures = np.fft.irfft2(waves, s=(32, 32)).transpose(0, 2, 3, 1)
    pictures = 128 + 50 * pictures / pictures.std()
    return torch.from_numpy(pictures.clip(0, 255).astype(np.float32))


def measured(network: str, m: int, rounds: int) -> list[str]:
    """One row of the table."""
    config = TrialConfig.model_validate({"dataset": "cifar10", "network": network})
    pictures = images(m)

    def made() -> torch.nn.Module:
        return build(config, SIZE, 10).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    subject = Subject(
        made(),  # type: ignore[arg-type]
        pictures,
        torch.zeros(m, dtype=torch.int64),
        lambda x: ((x - 128) / 64).permute(0, 3, 1, 2),
    )
    curve(subject, 60)  # compiles
    seconds: list[tuple[float, float, float, float]] = []
    rows = []
    for _ in range(rounds):
        start, busy = time.perf_counter(), time.process_time()
        problems = list(curve_problems(subject, m))
        middle = time.perf_counter()
        rows = curve_rows(problems)
        end, busy = time.perf_counter(), time.process_time() - busy
        curve(replace(subject, untrained=made), m)  # type: ignore[arg-type]
        both = time.perf_counter() - end
        seconds.append((middle - start, end - middle, busy, both))
    parts = [statistics.median(part) for part in zip(*seconds, strict=True)]
    here = [row for row in rows if row["evaluation"] == CURVE]
    whole = here.pop()
    return [
        network,
        f"{m:,}",
        *(f"{part:.2f}" for part in (*parts[:2], parts[0] + parts[1], *parts[2:])),
        f"{np.mean([row['ots'] for row in here]):.3f}",
        f"{whole['length_ratio']:.3f}",
        str(torch.get_num_threads()),
        str(rounds),
        machine(),
        f"torch {torch.__version__}, numba {numba.__version__}",
    ]


def line(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curve", description=__doc__)
    parser.add_argument("--points", type=int, default=1000, help="m")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    command = shlex.join(["python", "-m", "benchmarks.curve", *sys.argv[1:]])
    report([f"\n## Curve of measures, {date.today()}\n\n`{command}`", ""])
    report([line(COLUMNS), line(["---"] * len(COLUMNS))])
    for network in ("resnet", "plain"):
        report([line(measured(network, given.points, given.rounds))])


if __name__ == "__main__":
    main()
