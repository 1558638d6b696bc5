"""Whether trials score as those in another precision or of another version do, seed by seed.

    python -m benchmarks.precision --data FOLDER [--datasets digits mnist] [--seeds 5]
    python -m benchmarks.precision --data FOLDER --against CHECKOUT

Trains every seed in float32 and in bfloat16, a plain network and a ResNet at one gamma on each data
set, on one thread, and compares test accuracy, LSS and OTS at the end. The row has both means, the
standard deviation s over float32 seeds, and the difference of the means in units of
s sqrt(2 / n), the error that n seeds alone give it. ``within`` says that it is below 2, or that
every bfloat16 seed lies between the lowest and the highest float32 seed. ``first losses`` is the
largest difference of a loss in the first ten steps of a seed, relative to that loss.

With ``--against``, float32 in another checkout of geosweep takes the place of bfloat16.

Digits (K = 1, 20 epochs, m = 500) take two minutes for 5 seeds. MNIST (the first 3,000 images, 4
epochs, m = 1,000; FOLDER holds ``mnist.npz``) takes four. Rows are appended to
``benchmarks/RESULTS.md``.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.report import commit
from benchmarks.rows import report

ROOT = Path(__file__).parents[1]
TRIALS: dict[str, tuple[dict[str, Any], int]] = {  # fields, images of the train split
    "digits": ({"gamma": 0.1, "epochs": 20, "batch_size": 64, "points": 500}, 10_000),
    "mnist": ({"gamma": 5e-4, "epochs": 4, "points": 1000}, 3_000),
}
NAMES = ("accuracy", "LSS", "OTS")


class Way(NamedTuple):
    """How a trial is trained: by which checkout of geosweep, and in which precision."""

    name: str
    checkout: Path = ROOT
    precision: str | None = None  # None: the default, float32


def trained(way: Way, dataset: str, folder: str | None, **fields: Any) -> dict[str, Any]:
    """What ``benchmarks/seeded.py`` prints about a trial."""
    print(dataset, *fields.values(), way.name, file=sys.stderr, flush=True)
    some, images = TRIALS[dataset]
    precision = {"precision": way.precision} if way.precision else {}
    settings = {"dataset": dataset, **some, **precision, **fields}
    command = [sys.executable, str(Path(__file__).with_name("seeded.py")), json.dumps(settings)]
    command += [str(images), *([folder] if folder else [])]
    environment = {**os.environ, "PYTHONPATH": str(way.checkout)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def compared(
    ways: tuple[Way, Way], dataset: str, folder: str | None, seeds: int
) -> list[list[str]]:
    """Rows of one data set."""
    rows = []
    for network in ("plain", "resnet"):
        pairs = [
            [trained(way, dataset, folder, network=network, seed=seed) for way in ways]
            for seed in range(seeds)
        ]
        losses = np.array([[found["losses"] for found in pair] for pair in pairs])
        apart = f"{(np.abs(losses[:, 0] - losses[:, 1]) / losses[:, 0]).max():.1g}"
        for name in NAMES:
            one, two = np.array([[found[name] for found in pair] for pair in pairs]).T
            spread = one.std(ddof=1)
            difference = two.mean() - one.mean()
            error = spread * (2 / seeds) ** 0.5
            share = abs(difference) / error if error else 0.0 if not difference else float("inf")
            inside = bool((two >= one.min()).all() and (two <= one.max()).all())
            cells = [f"{one.mean():.4f}", f"{spread:.4f}", f"{two.mean():.4f}", f"{share:.2f}"]
            m = f"{TRIALS[dataset][0]['points']:,}"
            within = "yes" if share < 2 or inside else "no"
            rows.append([dataset, network, name, m, str(seeds), *cells, within, apart])
    return rows


def main() -> None:
    """Train, print the rows, and append them to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="folder with mnist.npz")
    parser.add_argument("--datasets", nargs="+", choices=TRIALS, default=[*TRIALS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout of geosweep")
    given = parser.parse_args()
    ways = Way("float32"), Way("bfloat16", precision="bfloat16")
    title, options = "bfloat16 against float32", ""
    if given.against:
        there = given.against.resolve()
        ways = Way("float32"), Way(commit(there), there)
        title, options = f"float32 against {ways[1].name}", " --against CHECKOUT"
    columns = ["dataset", "network", "score", "m", "seeds", ways[0].name, "over seeds"]
    columns += [ways[1].name, "difference / its error", "within", "first losses"]
    rows = [columns, ["---"] * len(columns)]
    for name in given.datasets:
        rows += compared(ways, name, given.data and str(Path(given.data).resolve()), given.seeds)
    command = "python -m benchmarks.precision --data FOLDER --datasets " + " ".join(given.datasets)
    lines = [f"\n## {title}, {date.today()}\n", f"`{command}{options}`\n"]
    report([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    main()
