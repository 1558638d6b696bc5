"""Seconds to solve an assignment: ours with its certificate, SciPy, POT and lapx.

    python -m benchmarks.transport --data FOLDER
    python -m benchmarks.transport --data FOLDER --points 10000 --kinds unrelated,plain,resnet
    python -m benchmarks.transport --data FOLDER --large

FOLDER holds ``mnist.npz``; without ``--data`` MNIST is downloaded at first use. The peers get the
matrix of squared distances between the points (eq. 46); ours gets the products of the centred
points. Both are computed before the clock starts. SciPy also runs on the products, which it solves
faster. Each solver runs ``--rounds`` times and the median counts; a solver that takes longer than
a minute runs once. Our time includes the certificate, the ties and the OTS of the first 100, 300,
1000, ... points. The column of lapx shows the faster of ``lapjvs`` in float32 and ``lapjvc`` in
float64. Above 5000 points only ``lapjvs`` runs, and POT is left out. "From points" starts from x
and y of shape (m, 1000), includes the products, and runs in its own process, whose peak memory is
given.

Kinds of points:

- ``residual``: x and x + W' relu(W x). The spectrum of x decays as 1/k, as that of images does.
  The map is the gradient of a convex function, so it is its own optimum (Brenier).
- ``unrelated``: two Gaussian clouds.
- ``plain`` and ``resnet``: the first and last states of MNIST networks (Table 1, gamma 5e-4) on
  the test split. Training takes two epochs, about a minute each.

``--large`` sends 50,000 points of the train split through the plain network, without peers; it
takes about five minutes and 1.6 GB. The default takes about ten minutes; m = 10,000 takes half an
hour, nearly all of it in SciPy and lapx. Rows are appended to ``benchmarks/RESULTS.md``.
"""

import argparse
import functools
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date

import lap
import numba
import numpy as np
import ot
import scipy
import torch
from scipy.optimize import linear_sum_assignment

from benchmarks.rows import machine, report
from models.config import TrialConfig
from models.datasets import load
from models.training import standardiser, train
from scoring.transport import assignment_problem, solve

KINDS = ("residual", "unrelated", "plain", "resnet")
PATIENCE = 60.0  # seconds; a solver that has used more is not run again
COLUMNS = [
    "points",
    "m",
    "OTS",
    "ours, s",
    "SciPy, s",
    "POT, s",
    "lapx, s",
    "SciPy on products, s",
    "SciPy / ours",
    "POT / ours",
    "lapx / ours",
    "SciPy on products / ours",
    "suboptimality",
    "from points, s",
    "peak, GB",
    "machine",
    "versions",
]


@functools.cache
def states(network: str, split: str, folder: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs (m, 1000) of an MNIST network after two epochs."""
    data = load("mnist", folder)
    *_, last = train(TrialConfig(dataset="mnist", network=network, gamma=5e-4, epochs=2), data)
    last.network.eval()
    standardise = standardiser(data, "cpu")
    images = torch.from_numpy(data.x_test if split == "test" else data.x_train[:50_000])
    ends = []
    with torch.no_grad():
        for batch in images.split(500):
            walk = [state for _, state in last.network.states(standardise(batch))]
            ends.append((walk[0], walk[-1]))
    x, y = (torch.cat(part).numpy() for part in zip(*ends, strict=True))
    return x, y


def points(kind: str, m: int, folder: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs (m, 1000) in float32."""
    if kind in ("plain", "resnet"):
        x, y = states(kind, "test", folder)
        return x[:m], y[:m]
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, m, 1000)).astype(np.float32)
    if kind == "residual":
        x /= np.arange(1, 1001, dtype=np.float32)
        w = draw.normal(scale=1000**-0.5, size=(1000, 1000)).astype(np.float32)
        y = x + np.maximum(x @ w, 0) @ w.T
    return x, y


def pot(cost: np.ndarray) -> np.ndarray:
    """The permutation of POT's network simplex."""
    return ot.emd([], [], cost, numItermax=10**9).argmax(1)


def scipy_columns(cost: np.ndarray) -> np.ndarray:
    return linear_sum_assignment(cost)[1]


def lapjvc(cost: np.ndarray) -> np.ndarray:
    return lap.lapjvc(cost, return_cost=False)[1]


def lapjvs(cost: np.ndarray) -> np.ndarray:
    return lap.lapjvs(cost, return_cost=False)[1]


def timed(call: Callable, *arguments: object, rounds: int) -> tuple[float, object]:
    """Median seconds, and what the last call returned."""
    seconds: list[float] = []
    result = None
    while len(seconds) < rounds and sum(seconds) < PATIENCE:
        start = time.perf_counter()
        result = call(*arguments)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def from_points(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Seconds, peak memory and scores of our solver, starting from points, in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        np.save(f"{folder}/y.npy", y)
        command = [sys.executable, "-m", "benchmarks.alone", f"{folder}/x.npy", f"{folder}/y.npy"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(kind: str, m: int, folder: str | None, rounds: int) -> list[str]:
    """One row of the table: all solvers on the same points."""
    x, y = points(kind, m, folder)
    problem = assignment_problem(x, y)
    if problem.inner is None:
        problem = problem._replace(inner=problem.x @ problem.y.T, x=None, y=None)
    ours, found = timed(solve, problem, rounds=rounds + 2)
    products = -problem.inner.astype(np.float64)
    x, y = x.astype(np.float64), y.astype(np.float64)
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    here = np.arange(m)
    told = from_points(x.astype(np.float32), y.astype(np.float32))
    seconds, scores = {}, {}
    peers = {
        "lapjvs": (lapjvs, squared.astype(np.float32)),
        "SciPy": (scipy_columns, squared),
        "SciPy on products": (scipy_columns, products),
    }
    if m <= 5000:
        peers |= {"lapjvc": (lapjvc, squared), "POT": (pot, squared)}
    for name, (call, cost) in peers.items():
        seconds[name], columns = timed(call, cost, rounds=rounds)
        scores[name] = float((columns == here).mean())
        print(f"  {name} {seconds[name]:.2f} s, OTS {scores[name]:.4f}", flush=True)
    if any(abs(score - found.ots) > found.ties / m for score in scores.values()):
        raise SystemExit(f"OTS differs: ours {found.ots}, {scores}")
    seconds["lapx"] = min(s for name, s in seconds.items() if name.startswith("lap"))
    named = [seconds.get(name) for name in ("SciPy", "POT", "lapx", "SciPy on products")]
    return [
        kind,
        f"{m:,}",
        f"{found.ots:.4f}",
        f"{ours:.2f}",
        *(f"{s:.2f}" if s else "" for s in named),
        *(f"{s / ours:.1f}" if s else "" for s in named),
        f"{found.suboptimality:.0e}",
        f"{told['seconds']:.2f}",
        f"{told['peak_GB']:.2f}",
        machine(),
        f"numba {numba.__version__}, scipy {scipy.__version__}, "
        f"POT {ot.__version__}, lapx {lap.__version__}",
    ]


def large(folder: str | None) -> list[list[str]]:
    """Solve 50,000 points of MNIST after the plain network; returns column names and values."""
    told = from_points(*states("plain", "train", folder))
    names = ["m", "seconds", "peak_GB", "rounds", "edges", "suboptimality", "ties", "ots", "gap"]
    values = [f"{told[name]:.6g}" for name in names]
    prefixes = "; ".join(f"{p['m']}: {p['ots']:.4f}, {p['gap']:.3f}" for p in told["prefixes"])
    return [[*names, "OTS, gap of the first m", "machine"], [*values, prefixes, machine()]]


def line(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


def told_arguments() -> list[str]:
    """The command's arguments, with FOLDER in place of the user's folder."""
    given = sys.argv[1:]
    return ["FOLDER" if i and given[i - 1] == "--data" else a for i, a in enumerate(given)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transport", description=__doc__)
    parser.add_argument("--data", metavar="FOLDER", help="holds mnist.npz")
    parser.add_argument("--points", default="3000,5000", help="m, separated by commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="50,000 points, no peers")
    given = parser.parse_args()
    title = "Assignment of 50,000 points" if given.large else "Assignments"
    command = shlex.join(["python", "-m", "benchmarks.transport", *told_arguments()])
    report([f"\n## {title}, {date.today()}\n\n`{command}`", ""])
    if given.large:
        names, values = large(given.data)
        report([line(names), line(["---"] * len(names)), line(values)])
        return
    report([line(COLUMNS), line(["---"] * len(COLUMNS))])
    for m in map(int, given.points.split(",")):
        for kind in given.kinds.split(","):
            print(kind, m, flush=True)
            report([line(compare(kind, m, given.data, given.rounds))])


if __name__ == "__main__":
    main()
