"""What the start of a sweep costs, by kind of process, also against another checkout of geosweep.

    python -m benchmarks.start [--demo] [--against CHECKOUT] [--rounds N]

Each round runs a sweep of two small trials (digits, fully connected, two epochs, m = 60) in a
fresh folder, without a report, and looks at its processes ten times a second. CPU seconds are those
of the driver, of the workers that train, of the scorers, and of Ray's own processes. Wall seconds
are those to the first checkpoint, which is written before training, and to the end. All are the
least of all rounds; wall seconds need a quiet machine. Expect half a minute a round and checkout.
Rows are appended to ``benchmarks/RESULTS.md``.

``--demo`` runs the built-in sweep ``demo`` with its report instead, in a fresh folder. CPU seconds
of the report's process are apart, and wall seconds are also given to the last row of the trials
table. Expect a minute a round and checkout.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.report import commit
from benchmarks.rows import machine, report

ROOT = Path(__file__).parents[1]
SWEEP = """
dataset: digits
layers: fully_connected
network: [plain, resnet]
gamma: 1e-3
epochs: 2
points: 60
epoch_points: 40
"""
KINDS = {"ray::ImplicitFunc": "training", "ray::Scorer": "scoring"}  # names that Ray gives workers
WHAT = ("driver", "training", "scoring", "Ray", "CPU", "to the first epoch", "to the end")
OF_DEMO = (*WHAT[:4], "report", *WHAT[4:6], "to the last trial", "to the end")
TRIALS = 16  # of the demo


def measured(checkout: Path, demo: bool) -> dict[str, float]:
    """CPU seconds by kind of process, their sum, and wall seconds, of one sweep."""
    spent: dict[int, float] = {}
    kinds: dict[int, str] = {}
    found: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tiny.yaml").write_text(SWEEP)
        sweep = ["demo"] if demo else ["tiny.yaml", "--no-report"]
        command = [sys.executable, "-P", "-m", "tune_jobs.cli", "run", *sweep]
        begun = time.monotonic()
        driver = subprocess.Popen(
            [*command, "--out", f"{folder}/out"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(checkout), "GEOSWEEP_CACHE": f"{folder}/cache"},
            stdout=subprocess.DEVNULL,
        )
        while driver.poll() is None:
            if "to the first epoch" not in found and any(Path(folder).glob("out/checkpoints/*.pt")):
                found["to the first epoch"] = time.monotonic() - begun
            scored = len([*Path(folder).glob("out/results/trials/*.parquet")])
            if "to the last trial" not in found and scored == TRIALS:
                found["to the last trial"] = time.monotonic() - begun
            look(driver.pid, spent, kinds)
            time.sleep(0.1)
        found["to the end"] = time.monotonic() - begun
        assert driver.returncode == 0
    for pid, seconds in spent.items():
        found[kinds[pid]] += seconds
        found["CPU"] += seconds
    return found


def look(driver: int, spent: dict[int, float], kinds: dict[int, str]) -> None:
    """Note what a driver and its processes have spent so far; the last look at each counts."""
    try:
        processes = [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            times, words = process.cpu_times(), process.cmdline() or [""]
        except psutil.NoSuchProcess:
            continue
        spent[process.pid] = times.user + times.system
        kind = KINDS.get(words[0].partition(".")[0], "driver" if process.pid == driver else "Ray")
        kind = "report" if "analysis.report" in words else kind
        if kinds.get(process.pid, "Ray") == "Ray":  # a worker is nobody's at first
            kinds[process.pid] = kind


def main() -> None:
    """Measure, print the rows, and append them to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout of geosweep")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--demo", action="store_true", help="the built-in sweep instead")
    given = parser.parse_args()
    checkouts = [*([given.against.resolve()] if given.against else []), ROOT]
    least: dict[tuple[Path, str], float] = defaultdict(lambda: float("inf"))
    for checkout in checkouts:  # compiles what is compiled when geosweep is installed
        subprocess.run([sys.executable, "-m", "scoring.assignment"], cwd=checkout, check=True)
    for _ in range(given.rounds):
        for checkout in checkouts:
            for name, seconds in measured(checkout, given.demo).items():
                least[checkout, name] = min(least[checkout, name], seconds)
    what = OF_DEMO if given.demo else WHAT
    options = " --demo" * given.demo + " --against CHECKOUT" * (len(checkouts) > 1)
    lines = [
        f"\n## {'The demo' if given.demo else 'Start of a sweep'}, {date.today()}\n",
        f"`python -m benchmarks.start{options} --rounds {given.rounds}`; seconds of CPU by kind of "
        "process, then wall seconds\n",
        f"| commit | {' | '.join(what)} | machine | versions |",
        "|" + " --- |" * (len(what) + 3),
    ]
    versions = (
        f"Python {platform.python_version()}, Ray {version('ray')}, MLflow {version('mlflow')}"
    )
    for checkout in checkouts:
        numbers = " | ".join(f"{least[checkout, name]:.1f}" for name in what)
        lines.append(f"| {commit(checkout)} | {numbers} | {machine()} | {versions} |")
    report(lines)


if __name__ == "__main__":
    main()
