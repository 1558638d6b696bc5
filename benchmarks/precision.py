"""Whether bfloat16 trials score as float32 trials do: within the spread of float32 seeds.

    python -m benchmarks.precision --data FOLDER [--datasets digits mnist] [--seeds 5]

Trains every seed in float32 and in bfloat16, a plain network and a ResNet at one gamma on each data
set, on one thread, and compares test accuracy, LSS and OTS at the end. The row has the mean in each
precision, the standard deviation s over float32 seeds, and the difference of the means in units of
s sqrt(2 / n), the error that n seeds alone give it. ``within`` says that it is below 2, or that
every bfloat16 seed lies between the lowest and the highest float32 seed.

Digits (K = 1, 20 epochs, m = 500) take two minutes for 5 seeds. MNIST (the first 3,000 images, 4
epochs, m = 1,000; FOLDER holds ``mnist.npz``) takes four. Rows are appended to
``benchmarks/RESULTS.md``.
"""

import argparse
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import date

import numpy as np
import torch

from benchmarks.rows import report
from models.config import TrialConfig
from models.datasets import Dataset, load
from models.training import train
from scoring.transport import solve
from tune_jobs.measuring import score

TRIALS = {  # data set: configuration, images of the train split
    "digits": (TrialConfig(dataset="digits", gamma=0.1, epochs=20, batch_size=64), 10_000),
    "mnist": (TrialConfig(dataset="mnist", gamma=5e-4, epochs=4), 3_000),
}
NAMES = ("accuracy", "LSS", "OTS")
COLUMNS = ["dataset", "network", "score", "m", "seeds", "float32", "over seeds", "bfloat16"]
COLUMNS += ["difference / its error", "within"]


def scores(config: TrialConfig, data: Dataset) -> dict[str, float]:
    """Accuracy, LSS and OTS of a trial after training."""
    *_, last = train(config, data)
    (stage,) = score(last.network, data, "cpu", config.points, transport=True)
    row = stage.row()
    assert stage.problem is not None
    transport = solve(stage.problem)
    return {"accuracy": last.record["test_accuracy"], "LSS": row["lss"], "OTS": transport.ots}


def compared(name: str, data: Dataset, seeds: int) -> list[list[str]]:
    """Rows of one data set."""
    plain, images = TRIALS[name]
    data = replace(
        data,
        x_train=data.x_train[:images],
        y_train=data.y_train[:images],
        x_test=data.x_test[: plain.points],
        y_test=data.y_test[: plain.points],
    )
    rows = []
    for network in ("plain", "resnet"):
        found = defaultdict(list)
        for seed in range(seeds):
            for precision in ("float32", "bfloat16"):
                changed = {"network": network, "seed": seed, "precision": precision}
                config = plain.model_copy(update=changed)
                for what, value in scores(config, data).items():
                    found[what, precision].append(value)
                print(name, network, seed, precision, file=sys.stderr, flush=True)
        for what in NAMES:
            one, two = (np.array(found[what, kind]) for kind in ("float32", "bfloat16"))
            spread = one.std(ddof=1)
            difference = two.mean() - one.mean()
            error = spread * (2 / seeds) ** 0.5
            share = abs(difference) / error if error else 0.0 if not difference else float("inf")
            inside = bool((two >= one.min()).all() and (two <= one.max()).all())
            cells = [f"{one.mean():.4f}", f"{spread:.4f}", f"{two.mean():.4f}", f"{share:.2f}"]
            within = "yes" if share < 2 or inside else "no"
            rows.append([name, network, what, f"{plain.points:,}", str(seeds), *cells, within])
    return rows


def main() -> None:
    """Train, print the rows, and append them to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="folder with mnist.npz")
    parser.add_argument("--datasets", nargs="+", choices=TRIALS, default=[*TRIALS])
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    for name in given.datasets:
        rows += compared(name, load(name, given.data), given.seeds)
    command = "python -m benchmarks.precision --data FOLDER --datasets " + " ".join(given.datasets)
    lines = [f"\n## bfloat16 against float32, {date.today()}\n", f"`{command}`\n"]
    report([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    main()
