"""Kill the driver or a worker of a sweep at random, many times, and check that nothing is lost.

    python -m benchmarks.kills --kills 50

The script starts a sweep of 16 trials on digits again and again. A few seconds after each start
(drawn at random from ``--seed``) it sends SIGKILL to one of the sweep's processes: the driver, a
trial or a scorer. After ``--kills`` kills it lets the sweep finish. Then it checks that

- Parquet and MLflow have every cell once, and every epoch of it once;
- a trial that had finished kept its ``trained_at``, so it was not trained again;
- all numbers equal those of an undisturbed sweep.

It takes about twenty minutes on two cores and appends the outcome to ``benchmarks/RESULTS.md``.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from mlflow.tracking import MlflowClient

from benchmarks.rows import machine, report
from scoring.tables import read_table
from tune_jobs.tracking import TRIAL_TAG

SWEEP = """
network: [plain, resnet]
layers: [fully_connected, convolutional]
gamma: [0, 1e-3, 1e-2, 1e-1]
epochs: 200
points: 100
epoch_points: 100
"""
TRIALS = 16
VICTIMS = {"trial": "ray::ImplicitFunc", "scorer": "ray::Scorer"}


def start(file: Path, root: Path) -> subprocess.Popen:
    """Start the sweep in its own process."""
    command = [sys.executable, "-m", "tune_jobs.cli", "run", str(file), "--out", str(root)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


def family(driver: subprocess.Popen) -> list[psutil.Process]:
    """The driver's child processes, including Ray's."""
    try:
        return psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def named(process: psutil.Process) -> str:
    """The name a process gives itself; empty when the process is gone."""
    try:
        return " ".join(process.cmdline()[:1])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def rows(root: Path) -> dict[str, dict[str, Any]]:
    """The trials table so far."""
    return {row["trial"]: row for row in read_table(str(root), "trials").to_pylist()}


def disturb(file: Path, root: Path, kills: int, draw: random.Random) -> tuple[Counter, int]:
    """Run the sweep to its end with this many kills; returns kills by kind, and starts."""
    killed: Counter = Counter()
    first: dict[str, Any] = {}  # when each trial was first trained
    starts = 0
    while True:
        starts += 1
        driver = start(file, root)
        begun: list[psutil.Process] = []
        while driver.poll() is None and killed.total() < kills:
            # While the driver survives, wait a random time and kill one of its processes.
            end = time.monotonic() + draw.uniform(2, 12)
            while time.monotonic() < end and driver.poll() is None:
                time.sleep(0.25)
            begun = family(driver) or begun
            for trial, row in rows(root).items():
                if row["status"] == "done":
                    assert first.setdefault(trial, row["trained_at"]) == row["trained_at"]
            kind = draw.choice(["driver", *VICTIMS])
            victims = [p for p in begun if named(p).startswith(VICTIMS.get(kind, "no such"))]
            if driver.poll() is not None:
                break
            if kind == "driver":
                driver.kill()
                killed[kind] += 1
            elif victims:
                draw.choice(victims).kill()
                killed[kind] += 1
            print(f"{killed.total()}: {kind}, {len(first)} trials done", flush=True)
        status = driver.wait()
        for process in begun:
            if process.is_running() and status != 0:
                process.kill()
        if status == 0 and killed.total() >= kills:
            break
        if status == 0:
            raise SystemExit(f"the sweep ended after {killed.total()} kills; take more epochs")
    found = rows(root)
    assert all(found[trial]["trained_at"] == at for trial, at in first.items())
    return killed, starts


def check(root: Path, undisturbed: Path) -> None:
    """Check that every cell is in Parquet and MLflow once, with the undisturbed sweep's numbers."""
    found, wanted = rows(root), rows(undisturbed)
    assert len(found) == len(wanted) == TRIALS
    for trial, row in found.items():
        for name, value in wanted[trial].items():
            if isinstance(value, float) and "seconds" not in name and "memory" not in name:
                assert row[name] == value or row[name] != row[name], (trial, name)
    for table in ("epochs", "tracks", "samples"):
        here, there = (read_table(str(f), table).num_rows for f in (root, undisturbed))
        assert here == there, table
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    trials = [run for run in runs if TRIAL_TAG in run.data.tags]
    assert sorted(run.data.tags[TRIAL_TAG] for run in trials) == sorted(found)
    for run in trials:
        assert run.info.status == "FINISHED"
        for metric in ("lss", "test_accuracy"):
            steps = [m.step for m in client.get_metric_history(run.info.run_id, metric)]
            epochs = found[run.data.tags[TRIAL_TAG]]["epochs_done"]
            assert sorted(steps) == list(range(epochs + 1)), (run.info.run_name, metric)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file, root, whole = (Path(folder, name) for name in ("kills.yaml", "killed", "whole"))
        file.write_text(SWEEP)
        begun = time.monotonic()
        assert start(file, whole).wait() == 0
        alone = time.monotonic() - begun
        begun = time.monotonic()
        killed, starts = disturb(file, root, given.kills, random.Random(given.seed))
        seconds = time.monotonic() - begun
        check(root, whole)
    told = ", ".join(f"{count} x {kind}" for kind, count in killed.most_common())
    report(
        [
            f"\n## Random kills, {date.today()}\n",
            f"`python -m benchmarks.kills --kills {given.kills} --seed {given.seed}`\n",
            f"{TRIALS} trials on digits, {killed.total()} SIGKILLs ({told}), {starts} starts of "
            f"the command, {seconds:.0f} s (undisturbed: {alone:.0f} s), {machine()}. Nothing "
            "lost, nothing twice, in Parquet or MLflow; no finished trial trained again; all "
            "numbers equal to those of the undisturbed sweep.",
        ]
    )


if __name__ == "__main__":
    main()
