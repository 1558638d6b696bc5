"""How time and memory grow with the dimension of points and the depth of a network.

    python -m benchmarks.scaling --measure
    python -m benchmarks.scaling

With ``--measure``, each row in a fresh process with one thread:

- the assignment of two unrelated Gaussian clouds of 2,000 points, from the points to the proof, in
  dimensions 100 to 10,000; :mod:`benchmarks.large` measures more points;
- a digits ResNet, fully connected, d = 100, with 5 to 80 blocks: an epoch of training, and the
  measurement of its tracks on 500 points before training or at the end, without assignments.

It takes some three minutes; rows are appended to ``benchmarks/RESULTS.md``. Without ``--measure``
the script draws the newest rows there, and those of ``python -m benchmarks.loading``, into
``docs/scaling.png``.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

from benchmarks.rows import number, report, tables

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/scaling.png"
WIDTHS = [(2000, d) for d in (100, 1000, 10_000)]
DEPTHS = [5, 10, 20, 40, 80]
ASSIGN = """
import json, sys, time
import numpy as np
from scoring.transport import optimal_transport_score
m, d = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
optimal_transport_score(*rng.normal(size=(2, 100, 5)), threads=1)  # compiles
x, y = rng.normal(size=(2, m, d)).astype(np.float32)
start = time.perf_counter()
found = optimal_transport_score(x, y, threads=1)
row = {"m": m, "d": d, "seconds": time.perf_counter() - start, "edges": found.edges}
"""
TRAIN = """
import json, sys, time
import torch
from models.config import TrialConfig
from models.datasets import load
from models.training import train
from tune_jobs.measuring import Job, measure_epoch
torch.set_num_threads(1)
depth = int(sys.argv[1])
trial = TrialConfig(layers="fully_connected", depth=depth, points=500)
data, row = load("digits"), {"blocks": depth}
epochs = train(trial, data)
next(epochs)
next(epochs)
start = time.perf_counter()
epoch = next(epochs)
row["epoch, s"] = time.perf_counter() - start
job = Job("nowhere", trial, data, "cpu", {})
for _ in range(2):
    start = time.perf_counter()
    measure_epoch(job, epoch.network, 2, True, False)
    row["measuring, s"] = time.perf_counter() - start
"""
PEAK = """
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps(row | {"peak, GB": int(peak.split()[1]) * 1024 / 1e9}))
"""


def child(code: str, *arguments: int) -> dict[str, float]:
    """The row that a fresh process measures."""
    command = [sys.executable, "-c", code + PEAK, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=environment)
    row = json.loads(done.stdout.splitlines()[-1])
    print(row, file=sys.stderr, flush=True)
    return row


def table(title: str, rows: list[dict[str, float]]) -> list[str]:
    """A section of the results in Markdown."""
    heads = list(rows[0])
    cells = [[f"{v:,}" if isinstance(v, int) else f"{v:.3f}" for v in row.values()] for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *cells]]
    return [f"\n## {title}, {date.today()}\n", "`python -m benchmarks.scaling --measure`\n", *lines]


def measure() -> None:
    """Measure all rows and append them to the results."""
    lines = table("Assignments by dimension, one thread", [child(ASSIGN, *p) for p in WIDTHS])
    lines += table("Depth of a digits ResNet, one thread", [child(TRAIN, n) for n in DEPTHS])
    report(lines)


def newest(title: str, by: str) -> list[dict[str, float]]:
    """The newest row for each value of a column, in its order."""
    found = [
        {head: number(cell) for head, cell in row.items()}
        for _, rows in tables(title)
        for row in rows
    ]
    rows = {row[by]: row for row in found}
    return [rows[value] for value in sorted(rows)]


def draw() -> None:
    """Draw the last rows, time above memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(2, 3, figsize=(11.5, 6.4), layout="constrained", sharex="col")
    trials = newest("Results of many trials", "trials")
    width = newest("Assignments by dimension, one thread", "d")
    depth = newest("Depth of a digits ResNet, one thread", "blocks")
    many = ("start", "status", "first load", "report", "merging")
    panels = [
        ("trials of 200 epochs", trials, "trials", [f"{n}, s" for n in many], many),
        ("d, 2,000 unrelated points", width, "d", ["seconds"], ["peak"]),
        ("blocks, digits ResNet", depth, "blocks", ["epoch, s", "measuring, s"], ["peak"]),
    ]
    for (above, below), (label, rows, x, times, memory) in zip(axes.T, panels, strict=True):
        at = [row[x] for row in rows]
        for name in times:
            short = name.removesuffix(", s").replace("seconds", "assignment")
            short = short.replace("merging", "merging, in all").replace("epoch", "training epoch")
            above.plot(at, [row.get(name) or float("nan") for row in rows], "o-", label=short)
        for name in memory:
            below.plot(at, [row.get(f"{name}, GB", float("nan")) for row in rows], "o-", label=name)
        above.set(xscale="log", yscale="log")
        below.set(xscale="log", xlabel=label, xticks=at, xticklabels=[f"{n:,.0f}" for n in at])
        for axis in (above.xaxis, above.yaxis):
            axis.set_minor_formatter(ticker.NullFormatter())
        above.legend(fontsize=8)
        if len(memory) > 1:
            below.legend(fontsize=8)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, GB")
    for row in axes:
        for one in row:
            one.grid(alpha=0.3)
    for one in axes[1]:
        one.set_ylim(bottom=0)
    figure.savefig(PICTURE, dpi=90)
    print(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="measure; otherwise draw")
    measure() if parser.parse_args().measure else draw()


if __name__ == "__main__":
    main()
