"""Time and memory to work with the results of 10 to 10,000 trials of 200 epochs.

    python -m benchmarks.loading [--trials N ...] [--epochs N] [--folder FOLDER]
    python -m benchmarks.loading --peers [--trials N ...]

For each number of trials the script writes a sweep's folder as a sweep does: the files of some
made-up trials appear, and then the driver's merging runs in its own process. All trials are those
of ``tests/made_up.py``, with random numbers in the columns that these lack: K = 1 and 10 blocks,
lists in every row of tracks, 50 projected points at both ends, 20 points of samples. Then, each
in a fresh process:

1. ``geosweep run`` when nothing is left to do (start) and ``geosweep status``, whole commands;
2. ``load`` for the first time after the sweep, again, and of what a report reads, without imports;
3. with up to 1,000 trials, the report;
4. ``load`` of a copy without merged files, as from a folder of an earlier version: the first time.

With ``--peers`` it also times ``pandas.read_parquet`` on the folder of one table. All files are in
the page cache. Memory is the peak of the process (VmHWM), including mapped pages. Writing 10,000
trials takes some five minutes on two cores and 10 GB of disk, measuring them two. Rows are
appended to ``benchmarks/RESULTS.md``; ``python -m benchmarks.scaling`` draws them.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import cache, partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.rows import report
from models.config import TrialConfig
from scoring import places, schemas, storage
from scoring.tables import read_table, write_content
from tune_jobs import folder
from tune_jobs.merging import is_due, merge_all
from tune_jobs.sweep import Resources, Sweep

TESTS = Path(__file__).parents[1] / "tests"
SIZES = [10, 100, 1000, 10_000]
REPORTED = 1000  # Up to so many trials the report is timed; its time grows with the trials.
NETWORKS, GAMMAS = ["plain", "resnet"], [0.0, 1e-4, 1e-3, 1e-2, 1e-1]
LENGTHS = {"projected": 1100, "straight_distance": 11, "cosines": 9}  # other lists have 10
ENDS = {"ots_by_class", "prefix_m", "separation_m", "straight_distance", "effective_rank"}
ENDS |= {"participation_ratio", "fuzziness", "relative_energy", "projected"}
OURS = "from analysis.results import load"
CALLS = {  # column in the results: imports, call
    "first load": (OURS, "load(folder)"),
    "load": (OURS, "load(folder)"),
    "what a report reads": (
        f"from analysis.measures import gathered; {OURS}",
        "load(folder, columns=gathered.COLUMNS)",
    ),
}
REPORT = ("from analysis import report", "report.build(folder, folder + '/report')")
PEERS = {
    f"pandas.read_parquet, {table}": (
        "from pandas import read_parquet",
        f"read_parquet(folder + '/results/{table}')",
    )
    for table in ("trials", "epochs")
}
CHILD = """
import sys, time
{imports}
folder = sys.argv[1]
start = time.perf_counter()
found = {call}
seconds = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("\\n", seconds, int(peak.split()[1]) * 1024 / 1e9)
"""


@cache
def templates(epochs: int) -> list[dict[str, pa.Table]]:
    """The tables of 20 made-up trials, two seeds for each network and gamma."""
    sys.path.insert(0, str(TESTS))
    made_up_trial = import_module("made_up").made_up_trial
    found, rng = [], np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        for number, (seed, network, gamma) in enumerate(product(range(2), NETWORKS, GAMMAS)):
            root = f"{temporary}/{number}"
            made_up_trial(root, network, gamma, seed, epochs=epochs, samples=20)
            tables = {table: read_table(root, table) for table in schemas.TABLES}
            del tables["robustness"]
            for table in ("epochs", "tracks", "samples"):
                tables[table] = filled(tables[table], rng)
            found.append(tables)
    return found


def filled(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    """The rows with random numbers in columns that have none."""
    for place, field in enumerate(rows.schema):
        numbers = pa.types.is_list(field.type) or pa.types.is_floating(field.type)
        if numbers and rows[field.name].null_count == len(rows):
            values: list[Any] = [None] * len(rows)
            for row in {0, len(rows) - 1} if field.name in ENDS else range(len(rows)):
                length = LENGTHS.get(field.name, 10)
                values[row] = rng.random(length) if pa.types.is_list(field.type) else rng.random()
            rows = rows.set_column(place, field, pa.array(values, field.type))
    return rows


def configuration(number: int, epochs: int) -> TrialConfig:
    """The configuration of a trial: seeds of ten cells."""
    seed, cell = divmod(number, len(NETWORKS) * len(GAMMAS))
    network, gamma = list(product(NETWORKS, GAMMAS))[cell]
    fields = {"network": network, "gamma": gamma, "seed": seed, "epochs": epochs, "points": 500}
    return TrialConfig.model_validate(fields)


def write(root: str, epochs: int, number: int) -> tuple[str, str]:
    """Write the tables of one trial; its id, and when it was scored."""
    config = configuration(number, epochs)
    tables = templates(epochs)[number % 20]
    for table, rows in tables.items():
        values = {"trial": config.trial, "data_checksum": None, **config.model_dump()}
        for place, field in enumerate(rows.schema):
            if field.name in values and (table == "trials" or field.name in ("trial", "seed")):
                column = pa.array([values[field.name]] * len(rows), field.type)
                rows = rows.set_column(place, field, column)
        path = places.table_path(table, config.trial)
        with storage.writing(root, path, lasting=False) as stream:
            write_content(stream, rows.cast(schemas.TABLES[table]))
    return config.trial, str(tables["trials"]["scored_at"][0].as_py())


def batches(total: int) -> Iterator[range]:
    """The trials that end before the driver merges each time."""
    begun = 0
    for number in range(total):
        if is_due(number + 1 - begun, number + 1) or number + 1 == total:
            yield range(begun, number + 1)
            begun = number + 1


def merge(root: str, finish: bool) -> tuple[float, float]:
    """What the driver does after some trials: seconds, and the peak memory so far in GB."""
    start = time.perf_counter()
    merge_all(root, finish)
    seconds = time.perf_counter() - start
    with open("/proc/self/status") as file:
        peak = next(line for line in file if line.startswith("VmHWM"))
    return seconds, int(peak.split()[1]) * 1024 / 1e9


def make(root: str, trials: int, epochs: int) -> dict[str, float]:
    """Write a sweep's folder and merge it as its driver does; go on where that was stopped."""
    path = Path(root, "made.json")
    made = json.loads(path.read_text()) if path.exists() else {"scored": {}, "took": [], "GB": 0}
    with ProcessPoolExecutor() as pool, ProcessPoolExecutor(1) as driver:
        for some in batches(trials):
            if some.start < len(made["scored"]):
                continue
            made["scored"] |= dict(pool.map(partial(write, root, epochs), some, chunksize=10))
            took, peak = driver.submit(merge, root, some.stop == trials).result()
            made["took"].append(took)
            made["GB"] = max(made["GB"], peak)
            storage.write_file(root, path.name, json.dumps(made).encode())
    cells = [configuration(number, epochs) for number in range(trials)]
    folder.claim(root, Sweep("many", "", cells, Resources(), "many"))
    note = {"uri": places.MLFLOW, "scored_at": made["scored"]}  # MLflow has them all
    storage.write_file(root, places.MLFLOW_NOTE, json.dumps(note).encode())
    storage.write_file(root, places.MLFLOW, b"")
    text = f"network: {json.dumps(NETWORKS)}\ngamma: {json.dumps(GAMMAS)}\nepochs: {epochs}\n"
    text += f"seeds: {max(1, trials // 10)}\npoints: 500\n"
    storage.write_file(root, "many.yaml", text.encode())
    took = made["took"]
    return {
        "merging, s": sum(took),
        "longest, s": max(took),
        "last, s": took[-1],
        "merging, GB": made["GB"],
    }


def measure(root: str, imports: str, call: str) -> tuple[float, float]:
    """Seconds of a call in a fresh process, and the peak memory of that process in GB."""
    code = CHILD.format(imports=imports, call=call)
    command = [sys.executable, "-c", code, root]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    seconds, peak = done.stdout.splitlines()[-1].split()
    return float(seconds), float(peak)


def command(root: str, *words: str) -> tuple[float, float]:
    """The same of a whole command of geosweep."""
    call = f"app({[*words]!r}, standalone_mode=False)"
    start = time.perf_counter()
    _, peak = measure(root, "from tune_jobs.cli import app", call)
    return time.perf_counter() - start, peak


def sizes(root: str) -> dict[str, float]:
    """How many files there are and what they take, in GB."""
    files = [path for path in Path(root, places.RESULTS).rglob("*") if path.is_file()]
    kinds = {kind: [f for f in files if f.suffix == kind] for kind in (".parquet", ".merged")}
    names = {".parquet": "files", ".merged": "merged files"}
    found: dict[str, float] = {}
    for kind, there in kinds.items():
        found[names[kind]] = len(there)
        found[f"{names[kind]}, GB"] = sum(f.stat().st_size for f in there) / 1e9
    return found


def one(root: str, trials: int, epochs: int, peers: bool) -> dict[str, float]:
    """Everything that is measured of one folder."""
    row: dict[str, float] = {"trials": trials}
    row |= make(root, trials, epochs)
    row |= sizes(root)
    for file in Path(root, places.RESULTS).rglob("*.*"):
        file.read_bytes()  # puts every file into the page cache
    calls = {name: partial(measure, root, *what) for name, what in CALLS.items()}
    start = partial(command, root, "run", f"{root}/many.yaml", "--out", root, "--no-report")
    calls |= {"start": start, "status": partial(command, root, "status", root)}
    if trials <= REPORTED:
        calls["report"] = partial(measure, root, *REPORT)
    if peers:
        calls |= {name: partial(measure, root, *what) for name, what in PEERS.items()}
    for name, call in calls.items():
        note(row, name, call())
    for file in Path(root, places.RESULTS).glob(".*.merged"):
        file.unlink()
    note(row, "first load, nothing merged", measure(root, *CALLS["load"]))
    return row


def note(row: dict[str, float], name: str, found: tuple[float, float]) -> None:
    row[f"{name}, s"], row[f"{name}, GB"] = found
    print(row["trials"], name, *found, file=sys.stderr, flush=True)


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to work with the results of many trials")
    parser.add_argument("--trials", type=int, nargs="+", default=SIZES)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--folder", help="where to write and leave the results, or go on with them")
    parser.add_argument("--peers", action="store_true", help="time pandas.read_parquet, too")
    given = parser.parse_args()
    rows = []
    for trials in given.trials:
        with tempfile.TemporaryDirectory(prefix="many-") as temporary:
            root = f"{given.folder or temporary}/{trials}"
            rows.append(one(root, trials, given.epochs, given.peers))
    heads = list(dict.fromkeys(name for row in rows for name in row))
    lines = [heads, ["---"] * len(heads)]
    lines += [[shown(row.get(name)) for name in heads] for row in rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    peers = " --peers" if given.peers else ""
    text = f"\n## Results of many trials, {date.today()}\n\n`python -m benchmarks.loading{peers}`; "
    text += f"{given.epochs} epochs; {platform.machine()}, {os.cpu_count()} cores, "
    text += f"Python {platform.python_version()}, pandas {pd.__version__}, "
    text += f"pyarrow {pa.__version__}\n\n{table}"
    report([text])


if __name__ == "__main__":
    main()
