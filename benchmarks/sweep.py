"""What a trial costs beyond its own work: seconds of overhead per trial.

    python -m benchmarks.sweep

Runs two sweeps of trials with next to no work (digits, fully connected, one epoch, m = 20),
one trial at a time, each in a process of its own and a fresh folder: first FEW trials, then
MANY. What Ray, MLflow and the workers need to start is the same in both and drops out of the
difference: overhead = ((wall - own seconds) of MANY - the same of FEW) / (MANY - FEW). It holds
everything else: scheduling, checkpoints, reports, MLflow, assignments, Parquet. The peer is the
same list of trials through Ray Tune as it comes, with a process for each trial and Ray's own
MLflow callback; its trials train one epoch too, and score nothing. A few minutes on two
cores. The row goes to ``benchmarks/RESULTS.md`` too.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import ray
import torch

RESULTS = Path(__file__).with_name("RESULTS.md")
FEW, MANY = 4, 24

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
        tune.report({**epoch.record, "own": epoch.record["seconds"]})

folder, count = sys.argv[1], int(sys.argv[2])
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
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
frames = [result.metrics_dataframe["seconds"].sum() for result in results]
print("OWN", sum(frames))
"""


def ours(folder: Path, count: int) -> float:
    """Wall seconds less the trials' own, of a sweep through geosweep."""
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.format(count=count))
    start = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "tune_jobs.cli",
        "run",
        str(file),
        "--out",
        str(folder / "out"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    from analysis.results import load

    trials = load(str(folder / "out"), tables=("trials",)).trials
    assert len(trials) == count
    return wall - float(trials.seconds.sum())


def peer(folder: Path, count: int) -> float:
    """The same of a sweep through Ray Tune as it comes."""
    start = time.perf_counter()
    command = [sys.executable, "-c", PEER, str(folder), str(count)]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    wall = time.perf_counter() - start
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("OWN")]
    return wall - float(line.split()[1])


def main() -> None:
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    figures = {}
    for name, run in (("ours", ours), ("peer", peer)):
        seconds = {}
        for count in (FEW, MANY):
            with tempfile.TemporaryDirectory() as folder:
                seconds[count] = run(Path(folder), count)
            print(
                f"{name}: {count} trials, {seconds[count]:.1f} s beyond their own", file=sys.stderr
            )
        figures[name] = (seconds[MANY] - seconds[FEW]) / (MANY - FEW)
        figures[f"{name} start"] = seconds[FEW] - FEW * figures[name]
    row = [
        f"{MANY} after {FEW}",
        f"{figures['ours']:.2f}",
        f"{figures['peer']:.2f}",
        f"{figures['peer'] / figures['ours']:.1f}",
        f"{figures['ours start']:.0f}",
        f"{figures['peer start']:.0f}",
        f"{platform.machine()}, {os.cpu_count()} cores",
        f"Python {platform.python_version()}, ray {ray.__version__}, torch {torch.__version__}",
    ]
    head = ["trials", "ours, s a trial", "Ray Tune as it comes, s a trial", "ratio"]
    head += ["ours, s to start", "peer, s to start", "machine", "versions"]
    table = "\n".join("| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), row))
    text = f"\n## Overhead per trial, {date.today()}\n\n`python -m benchmarks.sweep`\n\n{table}\n"
    print(text)
    with RESULTS.open("a") as file:
        file.write(text)


if __name__ == "__main__":
    main()
