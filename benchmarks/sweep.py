"""Overhead of a trial: seconds per trial beyond its own work; and a whole sweep.

    python -m benchmarks.sweep
    python -m benchmarks.sweep --tutorial --data FOLDER [--trials N] [--parts ours peer]

The first runs a sweep of COUNT trials with almost no work (digits, fully connected, one epoch,
m = 20), one trial at a time, in a fresh folder. Overhead is

    (end of the last trial - end of the first - epoch seconds of all but the first) / (COUNT - 1)

and covers scheduling, loading, checkpoints, reports, MLflow and the hand-over, while assignments
are solved in parallel. Ray's start is not counted. The peer runs the same trials with plain Ray
Tune, one process per trial, and Ray's own MLflow callback; its trials train one epoch and score
nothing. It takes about two minutes on two cores. The row is appended to ``benchmarks/RESULTS.md``.

The second is a sweep against the tutorial's way, in wall seconds from the command to its end, on
the same cores: 16 trials of MNIST's fully connected network (plain and ResNet, 4 gammas, 2 seeds)
on the first 10,000 images, 3 epochs, accuracy on 5,000 test images after each epoch, and OTS at
m = 5,000 at the end. The peer is plain Ray Tune with a process of one core for each trial, a
``DataLoader`` with torchvision's transforms in float32, and SciPy's ``linear_sum_assignment`` on
squared distances inside the trial. Ours is ``geosweep run`` with ``precision: auto`` and without a
report. It also measures line shape after each epoch, and OTS before training. FOLDER holds
``mnist.npz``. ``--parts`` runs one of them, ``--trials`` 2 or 8.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import ray
import torch

from benchmarks.rows import report
from benchmarks.tutorial import compare

COUNT = 16

SWEEP = """
dataset: digits
layers: fully_connected
epochs: 1
points: 20
epoch_points: 20
seeds: {count}
resources: {{cpus: 2}}
"""

PEER = """
import sys, time
import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback

def trial(config):
    start = time.perf_counter()
    from models.config import TrialConfig
    from models.datasets import load
    from models.training import train
    loaded = time.perf_counter()
    for epoch in train(TrialConfig.model_validate(config), load("digits")):
        tune.report({**epoch.record, "end": time.time()})

folder, count = sys.argv[1], int(sys.argv[2])
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
tuner = tune.Tuner(
    tune.with_resources(trial, {"cpu": 2}),
    param_space={"dataset": "digits", "layers": "fully_connected", "epochs": 1,
                 "seed": tune.grid_search(list(range(count)))},
    run_config=tune.RunConfig(
        storage_path=folder, verbose=0,
        callbacks=[MLflowLoggerCallback(f"sqlite:///{folder}/mlflow.db", experiment_name="peer")],
    ),
)
results = tuner.fit()
assert not results.num_errors
for result in results:
    frame = result.metrics_dataframe
    print("TRIAL", frame["end"].max(), frame["seconds"].sum())
"""


def ours(folder: Path) -> list[tuple[float, float]]:
    """Run the sweep with geosweep; returns each trial's end (Unix time) and epoch seconds."""
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.format(count=COUNT))
    out = str(folder / "out")
    command = [sys.executable, "-m", "tune_jobs.cli", "run", str(file), "--out", out]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    from analysis.results import load

    trials = load(out, tables=("trials",)).trials
    return [(row.released_at.timestamp(), row.seconds) for row in trials.itertuples()]


def peer(folder: Path) -> list[tuple[float, float]]:
    """Run the same trials with plain Ray Tune; returns what :func:`ours` does."""
    command = [sys.executable, "-c", PEER, str(folder), str(COUNT)]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("TRIAL")]
    return [(float(end), float(own)) for end, own in lines]


def overhead(trials: list[tuple[float, float]]) -> float:
    """Seconds per trial, between the first end and the last, that no epoch accounts for."""
    assert len(trials) == COUNT
    (first, _), *others = sorted(trials)
    return (others[-1][0] - first - sum(own for _, own in others)) / (COUNT - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tutorial", action="store_true", help="a whole sweep on MNIST instead")
    parser.add_argument("--data", help="folder with mnist.npz")
    parser.add_argument("--trials", type=int, choices=(2, 8, 16), default=16)
    parser.add_argument("--parts", nargs="+", choices=("ours", "peer"), default=["ours", "peer"])
    given = parser.parse_args()
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    if given.tutorial:
        if not given.data:
            parser.error("--tutorial needs --data, a folder with mnist.npz")
        return compare(given.data, given.trials, given.parts)
    seconds = {}
    for run in (ours, peer):
        with tempfile.TemporaryDirectory() as folder:
            seconds[run] = overhead(run(Path(folder)))
        print(f"{run.__name__}: {seconds[run]:.2f} s a trial", file=sys.stderr)
    row = [
        str(COUNT),
        f"{seconds[ours]:.2f}",
        f"{seconds[peer]:.2f}",
        f"{seconds[peer] / seconds[ours]:.1f}",
        f"{platform.machine()}, {os.cpu_count()} cores",
        f"Python {platform.python_version()}, ray {ray.__version__}, torch {torch.__version__}",
    ]
    head = ["trials", "ours, s a trial", "Ray Tune as it comes, s a trial", "ratio"]
    head += ["machine", "versions"]
    table = "\n".join("| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), row))
    text = f"\n## Overhead per trial, {date.today()}\n\n`python -m benchmarks.sweep`\n\n{table}"
    report([text])


if __name__ == "__main__":
    main()
