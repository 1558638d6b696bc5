"""Time and memory to load a large sweep's results: 10,000 trials of 200 epochs.

    python -m benchmarks.loading [--trials N] [--epochs N] [--folder FOLDER]

First the script writes random results, one file per trial and table, as trials do. Each trial has
K = 1 and 10 blocks, lists in every row of tracks, projected tracks, assignments and distances at
the first and the last epoch, and 20 points. Then it loads them, each time in a fresh process:

1. from the files alone, as the report at the end of a sweep does;
2. with the cache that the first reader left, as every later reader does;
3. with that cache and 20 newer trials.

The peer is ``pandas.read_parquet`` on the folder of one table. All files are in the page cache.
Seconds are those of the call without imports: the minimum over ROUNDS, or a single run where a
call cannot be repeated. Memory is the peak of the process (VmHWM), including mapped pages. On two
cores writing takes five minutes and 4 GB of disk, and the measurements take three minutes. Rows
are appended to ``benchmarks/RESULTS.md``.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from scoring import places, schemas, storage
from scoring.tables import write_table

RESULTS = Path(__file__).with_name("RESULTS.md")
ROUNDS = 3
POINTS = 20
LENGTHS = {"projected": 1100, "straight_distance": 11, "cosines": 9}  # other lists have 10
# fmt: off
ENDS = [  # columns of tracks that have values at the first and the last epoch only
    "ots", "ots_initial", "ots_by_class", "gap", "gap_initial", "network_cost", "optimal_cost",
    "movement", "suboptimality", "ties", "collapsed", "prefix_m", "prefix_ots", "prefix_gap",
    "solve_rounds", "solve_edges", "solve_seconds", "projected", "separation_m",
    "straight_distance", "separated", "separated_same", "separated_different", "separation_ratio",
    "separation_ratio_same", "separation_ratio_different", "not_monotone",
]
# fmt: on
OURS = "from analysis.results import load as read"
PANDAS = "from pandas import read_parquet as read"
LATER = "load, 20 trials later"
CALLS = {  # name in the results: imports, call, how often
    "load, first time": (OURS, "read(folder)", 1),
    "load": (OURS, "read(folder)", ROUNDS),
    LATER: (OURS, "read(folder)", ROUNDS),
    "what a report reads": (
        "from analysis import report; from analysis.results import load as read",
        "read(folder, columns=report.COLUMNS)",
        ROUNDS,
    ),
    "load, trials": (OURS, "read(folder, tables=('trials',))", ROUNDS),
    "pandas.read_parquet, trials": (PANDAS, "read(f'{folder}/results/trials')", ROUNDS),
    "load, epochs": (OURS, "read(folder, tables=('epochs',))", ROUNDS),
    "pandas.read_parquet, epochs": (PANDAS, "read(f'{folder}/results/epochs')", ROUNDS),
}
CHILD = """
import sys, time
{imports}
folder = sys.argv[1]
start = time.perf_counter()
found = {call}
seconds = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(peak.split()[1]) * 1024 / 1e9)
"""


def values(field: pa.Field, count: int, rng: np.random.Generator) -> list[Any]:
    """Random values of a column."""
    if pa.types.is_list(field.type):
        shape = (count, LENGTHS.get(field.name, 10))
        drawn = rng.random(shape)
        if pa.types.is_integer(field.type.value_type):
            drawn = rng.integers(1000, size=shape)
        return drawn.tolist()
    if pa.types.is_floating(field.type):
        return rng.random(count).tolist()
    if pa.types.is_integer(field.type):
        return rng.integers(1000, size=count).tolist()
    if pa.types.is_boolean(field.type):
        return [False] * count
    if pa.types.is_timestamp(field.type):
        return [datetime.now(UTC)] * count
    return [f"some {field.name}"] * count


def write(folder: str, epochs: int, number: int) -> None:
    """Write four tables of random numbers for one trial."""
    rng = np.random.default_rng(number)
    trial = rng.bytes(6).hex()
    key = {
        "trial": trial,
        "dataset": "cifar10",
        "network": ("plain", "resnet")[number % 2],
        "stages": 1,
        "gamma": rng.random(),
        "seed": number % 5,
        "split": "test",
        "status": "done",
    }
    counts = {"trials": 1, "epochs": epochs + 1, "tracks": epochs + 1, "samples": POINTS}
    for table, count in counts.items():
        columns = {name: [value] * count for name, value in key.items()}
        columns |= {"epoch": list(range(count))}
        for field in schemas.TABLES[table]:
            if table == "tracks" and field.name in ENDS:
                first, last = values(field, 2, rng)
                columns[field.name] = [first, *[None] * (count - 2), last]
            elif field.name not in columns:
                columns[field.name] = values(field, count, rng)
        rows = zip(*columns.values(), strict=True)
        names = schemas.TABLES[table].names
        rows = [{n: v for n, v in zip(columns, row, strict=True) if n in names} for row in rows]
        write_table(folder, table, trial, rows)


def measure(folder: str, imports: str, call: str) -> tuple[float, float]:
    """Seconds of a call in a fresh process, and the peak memory of that process in GB."""
    code = CHILD.format(imports=imports, call=call)
    command = [sys.executable, "-c", code, folder]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to load a large sweep's results")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--folder", help="where to write and leave the results, or find them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or temporary
        start = time.perf_counter()
        if not Path(folder, "results").exists():
            with ProcessPoolExecutor() as pool:
                one = partial(write, folder, given.epochs)
                list(pool.map(one, range(given.trials), chunksize=20))
        print(f"written in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        for table in schemas.TABLES:
            storage.delete(folder, places.merged_table(table))
        for file in Path(folder, "results").rglob("*.parquet"):
            file.read_bytes()  # puts every file into the page cache
        rows = []
        for what, (imports, call, rounds) in CALLS.items():
            if what == LATER:
                for number in range(20):
                    write(folder, given.epochs, given.trials + number)
            seconds, peak = zip(
                *(measure(folder, imports, call) for _ in range(rounds)), strict=True
            )
            rows.append([what, f"{min(seconds):.2f}", f"{max(peak):.2f}"])
            print(*rows[-1], file=sys.stderr)
    head = ["call", "trials", "epochs", "seconds", "peak, GB", "machine", "versions"]
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    versions = (
        f"Python {platform.python_version()}, pandas {pd.__version__}, pyarrow {pa.__version__}"
    )
    size = [f"{given.trials:,}", f"{given.epochs:,}"]
    lines = [head, ["---"] * len(head)]
    lines += [[what, *size, *found, machine, versions] for what, *found in rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    text = f"\n## Loading results, {date.today()}\n\n`python -m benchmarks.loading`\n\n{table}\n"
    print(text)
    with RESULTS.open("a") as file:
        file.write(text)


if __name__ == "__main__":
    main()
