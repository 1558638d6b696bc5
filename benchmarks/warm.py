"""Does the solution of an epoch help to solve the next one? Three ways to start from it.

    python -m benchmarks.warm --data FOLDER

FOLDER holds ``mnist.npz``. Table 1's plain network (gamma 5e-4) trains for ``--epochs``; the
learning rate falls to 0 on a cosine, so the last epoch moves the points least. The first
``--points`` test images are matched after the last two epochs, in one thread, with their products
given. A row has user CPU seconds and passes over all pairs: from the solver's own start (the
solution of the first 3,000 points), and from the solution of the epoch before, which is carried
over as potentials of products, in the scale of the new ones:

- its potentials of columns, then auctions with steps in typical costs of a second best;
- columns from its potentials of rows by a min-plus transform, then the usual auction;
- its potentials, and those of its pairs that are still tight, then paths for the other rows.

All have to give the same matching. It takes about 15 minutes and appends to
``benchmarks/RESULTS.md``.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import numpy as np
import torch

from benchmarks.rows import machine, report
from benchmarks.training import faster_precision
from models.config import TrialConfig
from models.datasets import load
from models.training import standardiser, train
from scoring import assignment, kernels
from scoring.assignment import STEPS, WARM, Matching
from scoring.problems import Problem, assignment_problem

FIRST = 3000
AUCTIONS = (WARM, (0.25,), (1.0,), (0.5, 0.1), (4.0, 1.0, 0.25))


def last_two(folder: str | None, epochs: int, m: int) -> list[Problem]:
    """The assignment problems after the last two epochs."""
    data = load("mnist", folder)
    kind = faster_precision("cpu")
    settings: dict[str, Any] = {"dataset": "mnist", "network": "plain", "gamma": 5e-4}
    config = TrialConfig(**settings, epochs=epochs, precision=kind)
    standardise, found = standardiser(data, "cpu"), []
    for epoch in train(config, data):
        if epoch.record["epoch"] < epochs - 1:
            continue
        epoch.network.eval()
        ends = []
        with torch.no_grad():
            for images in torch.from_numpy(data.x_test[:m]).split(500):
                walk = [state for _, state in epoch.network.states(standardise(images))]
                ends.append((walk[0], walk[-1]))
        x, y = (torch.cat(part) for part in zip(*ends, strict=True))
        found.append(assignment_problem(x, y))
    return found


def products(problem: Problem) -> np.ndarray:
    return np.asarray(problem.x) @ np.asarray(problem.y).T


def size(problem: Problem) -> float:
    """The scale of products: of the spreads of both clouds."""
    spreads = [float((np.asarray(p) ** 2).sum(1).mean()) ** 0.5 for p in (problem.x, problem.y)]
    return spreads[0] * spreads[1]


def solved(problem: Problem, inner: np.ndarray, pool: ThreadPoolExecutor) -> tuple[Any, float]:
    """The matching from the solver's own start, and its seconds after the first points."""
    m = len(inner)
    start = -problem.rows / (2 * float(problem.unit))
    few = min(FIRST, m // 2)
    rows: Any = lambda a, b, n: inner[a:b]  # noqa: E731
    (small,) = assignment._solved(rows, [few], start[:few], 1)

    def own() -> Matching:
        v = assignment._extended(rows, small.u, m, pool, 1)
        v[:few] = small.v
        return assignment._match(rows, v, pool, 1, STEPS)

    return timed(own)


def timed(call: Callable[[], Matching]) -> tuple[Matching, float]:
    begun = time.process_time()
    return call(), time.process_time() - begun


def kept(
    inner: np.ndarray, v: np.ndarray, before: np.ndarray, pool: ThreadPoolExecutor
) -> Matching:
    """Start from those earlier pairs that are tight under the candidates' potentials."""
    m = len(v)
    rows: Any = lambda a, b, n: inner[a:b]  # noqa: E731
    edges, v, _ = assignment._candidates(rows, v, pool, 1)
    columns, owners = np.full(m, -1), np.full(m, -1)
    tight = -inner[np.arange(m), before] - v[before] <= kernels.least(*edges, v) + 1e-12
    columns[tight] = before[tight]
    owners[before[tight]] = np.flatnonzero(tight)
    kernels.reduce(*edges, v, columns, owners, assignment.BIDS * m)
    return assignment._exact(rows, edges, v, pool, columns, owners)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm")
    parser.add_argument("--data", metavar="FOLDER", help="with mnist.npz")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--points", type=int, default=10_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    earlier, problem = last_two(given.data, given.epochs, given.points)
    command = [part if part != given.data else "FOLDER" for part in sys.argv[1:]]
    lines = [f"\n## Warm starts, {date.today()}, one thread\n"]
    lines += [f"`{shlex.join(['python', '-m', 'benchmarks.warm', *command])}`; {machine()}\n"]
    lines += ["| m | start | user CPU, s | passes |", "| --- | --- | --- | --- |"]
    with assignment.blas_threads(1), ThreadPoolExecutor(1) as pool:
        before, _ = solved(earlier, products(earlier), pool)
        inner = products(problem)
        rows: Any = lambda a, b, n: inner[a:b]  # noqa: E731
        grown = size(problem) / size(earlier)
        u, v = before.u * grown, before.v * grown
        found = {"its own": solved(problem, inner, pool)}
        for steps in AUCTIONS:
            name = f"potentials, auction {', '.join(f'{one:g}' for one in steps)}"
            found[name] = timed(lambda s=steps: assignment._match(rows, v.copy(), pool, 1, s))
        found["min-plus transform"] = timed(
            lambda: assignment._match(
                rows, assignment._extended(rows, u, len(u), pool, 1), pool, 1, WARM
            )
        )
        found["potentials and tight pairs"] = timed(
            lambda: kept(inner, v.copy(), before.permutation, pool)
        )
    for name, (matching, seconds) in found.items():
        if (matching.permutation != found["its own"][0].permutation).any():
            raise SystemExit(f"{name}: another matching")
        lines.append(f"| {given.points:,} | {name} | {seconds:.2f} | {matching.rounds} |")
    same = float((before.permutation == found["its own"][0].permutation).mean())
    lines.append(f"\nShare of points with the partner of the epoch before: {same:.2f}.")
    report(lines)


if __name__ == "__main__":
    main()
