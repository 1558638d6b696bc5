"""Exact assignments of many points: seconds, memory, passes and proof, from the points on.

    python -m benchmarks.large --points 25000,50000
    python -m benchmarks.large --points 1000000 --checkpoint solve.npz
    python -m benchmarks.large --points 100000 --kinds trained --data FOLDER --weights FILE
    python -m benchmarks.large --points 1000,2000,5000 --peers
    python -m benchmarks.large --project 64
    python -m benchmarks.large --draw

Kinds of points, float32, seed 0: ``unrelated``, two Gaussian clouds; ``flat``, two clouds that lie
in subspaces of 30 dimensions; ``trained``, first and last states (d = 1000) of a plain MNIST
network after five epochs: of the train split, the test split, and, above 70,000 points, of copies
of their first images, each shifted by up to two pixels along each axis. FOLDER holds ``mnist.npz``;
the network's weights are trained once and kept in ``--weights``. Each row is solved in a process of
its own. On a terminal a line shows the pass, how much of it is done, and the proved suboptimality
so far; elsewhere stderr gets a line for each pass. With ``--checkpoint`` a solve that was killed
goes on after its last pass when the same command runs again. Its row has the seconds of the last
run only, so ``--project`` and ``--draw`` leave this row out.
With ``--peers``, SciPy, POT and lapx, those that are installed, solve the matrix of squared
distances (eq. 46), made before their clock starts, for at most ``--patience`` seconds each.
"Passes, s" are the seconds in passes over pairs, which is what a cluster shares, "first, s" those
that solve the first points on a matrix, "auction, s" and "paths, s" those of the auction and of
shortest augmenting paths on the pairs kept. Rows are appended to ``benchmarks/RESULTS.md``.
``--project`` computes from rows there of 100,000 points and more what so many cores would take,
where only passes are shared. ``--draw`` draws the newest rows into ``docs/large.png``.
"""

import argparse
import json
import multiprocessing
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.rows import machine, number, report, tables
from scoring import augmenting, kernels, large, passes
from scoring.cores import cores
from scoring.large import Bounds
from scoring.problems import assignment_problem
from scoring.transport import Transport, optimal_transport_score, solving

TITLE = "Large assignments"
PICTURE = Path(__file__).parents[1] / "docs/large.png"
KINDS = ("unrelated", "flat")
TRAINED = "trained"
RESUMED = "resumed"  # in the heading of a run that went on from a checkpoint
INTRINSIC = 30
MANY = 100_000  # Rows of so many points say what more cores would bring.
PACKAGES = ("numpy", "numba", "torch")
PARTS = {
    "first": (large, "_first"),
    "auction": (kernels, "auction"),
    "paths": (augmenting, "augment"),
}
PEERS = {name: f"{name}, s" for name in ("SciPy", "POT", "lapx")}
COLUMNS = {
    "points": "points",
    "m": "m",
    "d": "d",
    "seconds": "seconds",
    "user": "user CPU, s",
    "passes": "passes, s",
    "first": "first, s",
    "auction": "auction, s",
    "paths": "paths, s",
    "peak": "peak, GB",
    "rounds": "passes",
    "edges": "edges",
    "suboptimality": "suboptimality",
    "ots": "OTS",
    "cost": "optimal cost",
    **PEERS,
    "machine": "machine",
    "versions": "versions",
}


class Wanted(NamedTuple):
    """The points of one problem."""

    kind: str
    m: int
    d: int
    data: str | None  # FOLDER
    weights: str | None  # FILE


def points(wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs (m, d) in float32."""
    kind, m, d, folder, weights = wanted
    if kind == TRAINED:
        from benchmarks import trained  # loads torch and more, which takes memory

        return trained.states(folder, Path(str(weights)), m)
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


def one(wanted: Wanted, threads: int, tolerance: float, checkpoint: str | None) -> None:
    """Solve one problem and print its row as JSON."""
    small = wanted._replace(kind="unrelated", m=200, d=9)
    optimal_transport_score(*points(small))  # loads the compiled kernels
    x, y = points(wanted)
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

    spent = clocked_parts()
    start, before = time.perf_counter(), user()
    with passes.spread_by(clocked):
        problem = assignment_problem(x, y)
        steps = solving(problem, threads, tolerance=tolerance, checkpoint=checkpoint)
        found = shown(steps, start)
    row = {
        "seconds": time.perf_counter() - start,
        "user": user() - before,
        "passes": in_passes[0],
        **spent,
        "peak": peak(),
        "rounds": found.rounds,
        "edges": found.edges,
        "suboptimality": float(found.suboptimality),
        "ots": found.ots,
        "cost": found.optimal_cost,
    }
    print(json.dumps(row))


def clocked_parts() -> dict[str, float]:
    """Seconds in some functions from now on; those that another one calls count as its own."""
    spent, inside = dict.fromkeys(PARTS, 0.0), []

    def clocked(name: str, call: Callable) -> Callable:
        def counted(*arguments: Any) -> Any:
            inside.append(name)
            begun = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                inside.pop()
                if not inside:
                    spent[name] += time.perf_counter() - begun

        return counted

    for column, (place, name) in PARTS.items():
        setattr(place, name, clocked(column, getattr(place, name)))
    return spent


def shown(steps: Any, start: float) -> Transport:
    """Show progress on stderr until the solve is done: a line for each pass."""
    moving = sys.stderr.isatty()
    while True:
        try:
            bounds: Bounds = next(steps)
        except StopIteration as end:
            return end.value
        if not moving and bounds.covered < 1:
            continue
        bar, number = "#" * round(20 * bounds.covered), bounds.rounds + (bounds.covered < 1)
        print(
            f"{time.perf_counter() - start:7.0f} s  {bounds.m:,} points, pass {number}"
            f" [{bar:20}]  suboptimality <= {bounds.suboptimality:.1e} ",
            end="\n" if bounds.covered == 1 else "\r",
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


def peer(call: Callable, wanted: Wanted, told: Any) -> None:
    """Send the seconds that a peer takes, and the cost it finds."""
    x, y = (part.astype(np.float64) for part in points(wanted))
    cost = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    call(1.0 - np.eye(3))  # loads the library
    start = time.perf_counter()
    columns = call(cost)
    told.send((time.perf_counter() - start, float(cost[np.arange(len(x)), columns].mean())))


def peers(wanted: Wanted, patience: float, cost: float) -> dict[str, str]:
    """Seconds of each peer, or that it took longer; their costs have to agree with ours."""
    found = {}
    calls = {"SciPy": scipy_columns, "POT": pot_columns, "lapx": lapx_columns}
    for name, call in calls.items():
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=peer, args=(call, wanted, theirs))
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


def row(wanted: Wanted, given: argparse.Namespace) -> str:
    """A row of the table."""
    command = [sys.executable, "-m", "benchmarks.large", "--one", "--kinds", wanted.kind]
    command += ["--points", str(wanted.m), "--dimension", str(wanted.d)]
    command += ["--threads", str(given.threads), "--tolerance", str(given.tolerance)]
    for name in ("checkpoint", "data", "weights"):
        command += [f"--{name}", given.__dict__[name]] if given.__dict__[name] else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    values = {
        "points": wanted.kind,
        "m": f"{wanted.m:,}",
        "d": str(wanted.d),
        **{name: f"{told[name]:.1f}" for name in ("seconds", "user", "passes", *PARTS)},
        "peak": f"{told['peak']:.2f}",
        "rounds": str(told["rounds"]),
        "edges": f"{told['edges']:,}",
        "suboptimality": f"{told['suboptimality']:.0e}",
        "ots": f"{told['ots']:.2g}",
        "cost": f"{told['cost']:.9g}",
        "machine": machine(),
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }
    if given.peers:
        values |= peers(wanted, given.patience, told["cost"])
    return line([values.get(name, "") for name in COLUMNS])


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def newest() -> dict[tuple[str, int], dict[str, str]]:
    """The newest row of each kind and m; peers keep their cell where a newer row has none.

    A run that was resumed is left out, since its seconds are not those of the whole solve.
    """
    found: dict[tuple[str, int], dict[str, str]] = {}
    for about, rows in tables(TITLE):
        if RESUMED in about:
            continue
        threads = re.search(r", (\d+) threads", about)
        for row in rows:
            key = row["points"], int(number(row["m"]))
            told = {name: cell for name, cell in row.items() if cell}
            peers = {name: found.get(key, {}).get(name, "") for name in PEERS.values()}
            found[key] = peers | told | {"threads": threads[1] if threads else "1"}
    return found


def projected(cores: int) -> list[str]:
    """What so many cores would take, from the newest row of each kind of many points.

    Passes are shared by all cores, all else takes as long as it did.
    """
    lines = []
    for (kind, m), row in sorted(newest().items(), key=lambda found: found[0][1]):
        if m >= MANY:
            seconds, passes, threads = (number(row[n]) for n in ("seconds", "passes, s", "threads"))
            shared, rest = passes * threads / cores, seconds - passes
            lines.append(
                f"{kind}, m = {m:,}: {seconds:.1f} s with {threads:.0f} cores, "
                f"{passes / seconds:.0%} in passes; with {cores}: {seconds:.1f} - {passes:.1f} + "
                f"{passes:.1f} * {threads:.0f} / {cores} = {rest + shared:.1f} s; "
                f"never below {rest:.1f} s"
            )
    return lines


def draw() -> None:
    """Draw seconds and peak memory of the newest rows against m."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (times, memory) = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    rows = newest()
    for kind in dict.fromkeys(kind for kind, _ in rows):
        sizes = sorted(m for k, m in rows if k == kind)
        cells = [rows[kind, m] for m in sizes]
        times.plot(sizes, [number(row["seconds"]) for row in cells], "o-", label=kind)
        memory.plot(sizes, [number(row["peak, GB"]) for row in cells], "o-", label=kind)
        for mark, (name, column) in zip("sv^", PEERS.items(), strict=True):
            known = [(m, number(row[column])) for m, row in zip(sizes, cells, strict=True)]
            known = [(m, seconds) for m, seconds in known if seconds == seconds]
            if known and kind == KINDS[0]:
                times.plot(*zip(*known, strict=True), f"{mark}--", color="gray", label=name)
    times.set(xscale="log", yscale="log", xlabel="m", ylabel="seconds")
    memory.set(xscale="log", xlabel="m", ylabel="peak memory, GB", ylim=(0, None))
    times.set_title("from the points to the proof; dashed: others, from the matrix", fontsize=10)
    for axes in (times, memory):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=100)
    print(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--points", default="25000,50000", help="m, separated by commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--dimension", type=int, default=300, help="d, but of trained")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--tolerance", type=float, default=0.0, help="stop early; see the docs")
    parser.add_argument("--checkpoint", metavar="FILE", help="of a single kind and m")
    parser.add_argument("--data", metavar="FOLDER", help="with mnist.npz, for trained")
    parser.add_argument("--weights", metavar="FILE", help="of the trained network; made if missing")
    parser.add_argument("--peers", action="store_true", help="SciPy, POT and lapx, too")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds for each peer")
    parser.add_argument("--project", metavar="CORES", type=int, help="compute, measure nothing")
    parser.add_argument("--draw", action="store_true", help="draw the rows, measure nothing")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.draw:
        return draw()
    if given.project:
        return print(*projected(given.project), sep="\n")
    sizes, kinds = [int(m) for m in given.points.split(",")], given.kinds.split(",")
    if TRAINED in kinds and not given.weights:
        parser.error("--weights: is needed for the kind trained")
    some = [
        Wanted(kind, m, 1000 if kind == TRAINED else given.dimension, given.data, given.weights)
        for m in sizes
        for kind in kinds
    ]
    if given.one:
        return one(some[0], given.threads, given.tolerance, given.checkpoint)
    if given.checkpoint and len(some) > 1:
        parser.error("--checkpoint: is for a single kind and number of points")
    if TRAINED in kinds:
        from benchmarks import trained

        trained.weights(given.data, Path(given.weights))
    command = shlex.join(["python", "-m", "benchmarks.large", *shown_arguments(given)])
    resumed = f", {RESUMED}" if given.checkpoint and Path(given.checkpoint).exists() else ""
    heading = f"\n## {TITLE}, {date.today()}, {given.threads} threads{resumed}\n\n`{command}`\n"
    head = [heading, line([*COLUMNS.values()]), line(["---"] * len(COLUMNS))]
    for wanted in some:
        report([*head, row(wanted, given)])
        head.clear()


def shown_arguments(given: argparse.Namespace) -> list[str]:
    """The command's arguments, without paths of this machine."""
    hidden = {given.data: "FOLDER", given.weights: "FILE", given.checkpoint: "FILE"}
    return [hidden.get(argument, argument) for argument in sys.argv[1:]]


if __name__ == "__main__":
    main()
