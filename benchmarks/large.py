"""Exact assignments of many points: seconds, memory, passes and proof, from the points on.

    python -m benchmarks.large --points 25000,50000
    python -m benchmarks.large --points 1000000 --checkpoint solve.npz
    python -m benchmarks.large --points 1000,2000,5000 --peers

Kinds of points, float32, seed 0: ``unrelated``, two Gaussian clouds; ``flat``, two clouds that lie
in subspaces of 30 dimensions. Each row is solved in a process of its own. A line on stderr shows
the pass, how much of it is done, and the proved suboptimality so far. With ``--checkpoint`` a
solve that was killed goes on after its last pass when the same command runs again; the seconds are
those of the last run. With ``--peers``, SciPy, POT and lapx, those that are installed, solve the
matrix of squared distances (eq. 46), made before their clock starts, for at most ``--patience``
seconds each. "Passes, s" are the seconds in passes over pairs, which is what a cluster shares.
Rows are appended to ``benchmarks/RESULTS.md``.
"""

import argparse
import json
import multiprocessing
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import report
from scoring import passes
from scoring.cores import cores
from scoring.large import Bounds
from scoring.problems import assignment_problem
from scoring.transport import Transport, optimal_transport_score, solving

KINDS = ("unrelated", "flat")
INTRINSIC = 30
COLUMNS = {
    "points": "points",
    "m": "m",
    "d": "d",
    "seconds": "seconds",
    "user": "user CPU, s",
    "passes": "passes, s",
    "peak": "peak, GB",
    "rounds": "passes",
    "edges": "edges",
    "suboptimality": "suboptimality",
    "ots": "OTS",
    "cost": "optimal cost",
    "SciPy": "SciPy, s",
    "POT": "POT, s",
    "lapx": "lapx, s",
}


def points(kind: str, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs (m, d) in float32."""
    draw = np.random.default_rng(0)
    if kind == "unrelated":
        x, y = (draw.normal(size=(m, d)).astype(np.float32) for _ in range(2))
        return x, y
    x, y = (
        draw.normal(size=(m, INTRINSIC)).astype(np.float32)
        @ draw.normal(size=(INTRINSIC, d)).astype(np.float32)
        for _ in range(2)
    )
    return x, y


def one(kind: str, m: int, d: int, threads: int, tolerance: float, checkpoint: str | None) -> None:
    """Solve one problem and print its row as JSON."""
    optimal_transport_score(*points("unrelated", 200, 9))  # loads the compiled kernels
    x, y = points(kind, m, d)
    in_passes = [0.0]

    @contextmanager
    def clocked(clouds: passes.Clouds, threads: int) -> Iterator[passes.Share]:
        with passes.by_threads(clouds, threads) as share:

            def counted(*arguments: Any) -> Iterator[Any]:
                begun = time.perf_counter()
                for found in share(*arguments):
                    in_passes[0] += time.perf_counter() - begun
                    yield found
                    begun = time.perf_counter()

            yield counted

    start, before = time.perf_counter(), user()
    with passes.spread_by(clocked):
        problem = assignment_problem(x, y)
        steps = solving(problem, threads, tolerance=tolerance, checkpoint=checkpoint)
        found = shown(steps, start)
    row = {
        "seconds": time.perf_counter() - start,
        "user": user() - before,
        "passes": in_passes[0],
        "peak": peak(),
        "rounds": found.rounds,
        "edges": found.edges,
        "suboptimality": float(found.suboptimality),
        "ots": found.ots,
        "cost": found.optimal_cost,
    }
    print(json.dumps(row))


def shown(steps: Any, start: float) -> Transport:
    """Show progress on stderr until the solve is done."""
    while True:
        try:
            bounds: Bounds = next(steps)
        except StopIteration as end:
            print(file=sys.stderr)
            return end.value
        bar, number = "#" * round(20 * bounds.covered), bounds.rounds + (bounds.covered < 1)
        print(
            f"\r{time.perf_counter() - start:7.0f} s  {bounds.m:,} points, pass {number}"
            f" [{bar:20}]  suboptimality <= {bounds.suboptimality:.1e} ",
            end="\n" if bounds.covered == 1 else "",
            file=sys.stderr,
            flush=True,
        )


def user() -> float:
    """Seconds of user CPU time of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def peak() -> float:
    """Peak memory of this process in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


def scipy_columns(cost: np.ndarray) -> Any:
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(cost)[1]


def pot_columns(cost: np.ndarray) -> Any:
    import ot

    return ot.emd([], [], cost, numItermax=10**9).argmax(1)


def lapx_columns(cost: np.ndarray) -> Any:
    import lap

    return lap.lapjvs(cost.astype(np.float32), return_cost=False)[1]


def peer(call: Callable, kind: str, m: int, d: int, told: Any) -> None:
    """Send the seconds that a peer takes, and the cost it finds."""
    x, y = (part.astype(np.float64) for part in points(kind, m, d))
    cost = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    start = time.perf_counter()
    columns = call(cost)
    told.send((time.perf_counter() - start, float(cost[np.arange(m), columns].mean())))


def peers(kind: str, m: int, d: int, patience: float, cost: float) -> dict[str, str]:
    """Seconds of each peer, or that it took longer; their costs have to agree with ours."""
    found = {}
    calls = {"SciPy": scipy_columns, "POT": pot_columns, "lapx": lapx_columns}
    for name, call in calls.items():
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=peer, args=(call, kind, m, d, theirs))
        process.start()
        theirs.close()
        try:
            seconds, its = ours.recv() if ours.poll(patience) else (None, cost)
        except EOFError:
            continue  # it is not installed, or ran out of memory
        finally:
            process.kill()
            process.join()
        if abs(its - cost) > 1e-4 * cost:
            raise SystemExit(f"{name}: cost {its}, ours {cost}")
        found[name] = f"> {patience:.0f}" if seconds is None else f"{seconds:.2f}"
    return found


def row(kind: str, m: int, given: argparse.Namespace) -> str:
    """A row of the table."""
    command = [sys.executable, "-m", "benchmarks.large", "--one", kind, "--points", str(m)]
    command += ["--dimension", str(given.dimension), "--threads", str(given.threads)]
    command += ["--tolerance", str(given.tolerance)]
    command += ["--checkpoint", f"{given.checkpoint}"] if given.checkpoint else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    values = {
        "points": kind,
        "m": f"{m:,}",
        "d": str(given.dimension),
        **{name: f"{told[name]:.1f}" for name in ("seconds", "user", "passes")},
        "peak": f"{told['peak']:.2f}",
        "rounds": str(told["rounds"]),
        "edges": f"{told['edges']:,}",
        "suboptimality": f"{told['suboptimality']:.0e}",
        "ots": f"{told['ots']:.2g}",
        "cost": f"{told['cost']:.9g}",
    }
    if given.peers:
        values |= peers(kind, m, given.dimension, given.patience, told["cost"])
    return line([values.get(name, "") for name in COLUMNS])


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--points", default="25000,50000", help="m, separated by commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--dimension", type=int, default=300, help="d")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--tolerance", type=float, default=0.0, help="stop early; see the docs")
    parser.add_argument("--checkpoint", metavar="FILE", help="of a single kind and m")
    parser.add_argument("--peers", action="store_true", help="SciPy, POT and lapx, too")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds for each peer")
    parser.add_argument("--one", metavar="KIND", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes, kinds = [int(m) for m in given.points.split(",")], given.kinds.split(",")
    if given.one:
        settings = given.dimension, given.threads, given.tolerance, given.checkpoint
        return one(given.one, sizes[0], *settings)
    if given.checkpoint and len(sizes) * len(kinds) > 1:
        parser.error("--checkpoint: is for a single kind and number of points")
    command = shlex.join(["python", "-m", "benchmarks.large", *sys.argv[1:]])
    names = [*COLUMNS.values()]
    report([f"\n## Large assignments, {date.today()}, {given.threads} threads\n\n`{command}`", ""])
    report([line(names), line(["---"] * len(names))])
    for m in sizes:
        for kind in kinds:
            report([row(kind, m, given)])


if __name__ == "__main__":
    main()
