"""Time to make the report of a sweep of 100 trials, also against another checkout of geosweep.

    python -m benchmarks.report [--against CHECKOUT] [--rounds N]

First the script writes the tables of 100 made-up trials: plain networks and ResNets, K = 1 and 4,
five gammas, and five trials each (three without and two with a straightness penalty), all of them
evaluated under lesions, noise and attacks. Then it builds their report, each time in a fresh
process. With ``--against`` it alternates with the code in the other folder, on the same tables.

Seconds are those of ``analysis.report.build`` without imports, medians over the rounds: wall-clock
time, and user CPU time, which depends less on what else the machine does. Ratios are those of the
user CPU time to this checkout's. Expect half a minute a round and checkout. Rows are appended to
``benchmarks/RESULTS.md``.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median

import matplotlib
import pandas as pd

from benchmarks.rows import report

ROOT = Path(__file__).parents[1]
EVALUATIONS = ["lesion", "noise", "fgsm", "pgd", "separation"]
WRITE = f"""
import sys
sys.path.insert(0, "tests")
from made_up import made_up_trial
for network in ("plain", "resnet"):
    for stages in (1, 4):
        for gamma in (0.0, 1e-4, 1e-3, 1e-2, 1e-1):
            for seed in range(3):
                made_up_trial(sys.argv[1], network, gamma, seed, stages=stages, tried={EVALUATIONS})
            for seed in range(2):
                made_up_trial(sys.argv[1], network, gamma, seed, stages=stages, tried={EVALUATIONS},
                              straightness_penalty=0.1, lss=1.5 + seed / 10)
"""
BUILD = """
import resource, sys, time
from analysis import report
folder, out = sys.argv[1:]
start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
report.build(folder, out)
after = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - start, after.ru_utime - before.ru_utime)
"""


def run(checkout: Path, code: str, *arguments: str) -> str:
    """Run code with the modules of a checkout; returns what it prints."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=checkout, check=True, text=True, stdout=subprocess.PIPE)
    return done.stdout


def commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, text=True, capture_output=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to make a report")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="other code to time")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    checkouts = [ROOT, *([given.against.resolve()] if given.against else [])]
    wall: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    user: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        run(ROOT, WRITE, folder)
        for number in range(given.rounds):
            for checkout in checkouts if number % 2 == 0 else reversed(checkouts):
                with tempfile.TemporaryDirectory() as out:
                    seconds = [float(text) for text in run(checkout, BUILD, folder, out).split()]
                print(commit(checkout), *seconds, file=sys.stderr)
                wall[checkout].append(seconds[0])
                user[checkout].append(seconds[1])
    head = ["commit", "trials", "wall, s", "user CPU, s", "ratio", "rounds", "machine", "versions"]
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    versions = f"Python {platform.python_version()}, pandas {pd.__version__}, "
    versions += f"matplotlib {matplotlib.__version__}"
    lines = [head, ["---"] * len(head)]
    for checkout in checkouts:
        times = [f"{median(seconds[checkout]):.2f}" for seconds in (wall, user)]
        ratio = median(user[checkout]) / median(user[ROOT])
        rounds = str(given.rounds)
        lines.append([commit(checkout), "100", *times, f"{ratio:.2f}", rounds, machine, versions])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    against = " --against CHECKOUT" if given.against else ""
    text = f"\n## Making a report, {date.today()}\n\n`python -m benchmarks.report{against}`\n\n"
    report([text + table])


if __name__ == "__main__":
    main()
