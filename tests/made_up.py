"""Made-up sweeps for the tests of analysis: tables of trials that were never trained."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from made_up_evaluations import EVALUATIONS, made_up_rows

from analysis.measures import paper
from analysis.results import Results
from scoring import places
from scoring.robustness.areas import summary
from scoring.storage import write_file
from scoring.tables import write_table

GAMMAS = [0.0, 1e-4, 1e-3, 1e-2]


def made_up_trial(
    root: Path | str,
    network: str = "resnet",
    gamma: float = 0.0,
    seed: int = 0,
    *,
    dataset: str = "digits",
    stages: int = 1,
    status: str = "done",
    epochs: int = 6,
    samples: int = 5,
    collapsed: bool = False,
    tried: Sequence[str] = (),
    fragile: float = 1.0,
    **change: object,
) -> str:
    """Write the tables of one trial with plausible numbers; returns the trial's id.

    OTS falls with m, from 1.2 times its value at all points, and is the same in every stage. A
    stopped trial has the first half of the epochs and no OTS. For each evaluation in ``tried``
    the trial has the rows of :func:`made_up_rows`. ``change`` replaces columns of its row.
    """
    trial = f"{dataset[:5]}{network[0]}{stages}g{gamma:g}s{seed}"
    own = [n for n, v in change.items() if v and (n.endswith("_penalty") or n == "depth")]
    trial += "".join(f"{n[0]}{change[n]:g}" for n in own)
    rng = np.random.default_rng(zlib.crc32(f"{dataset} {network} {stages} {gamma} {seed}".encode()))
    key = {
        "trial": trial,
        "dataset": dataset,
        "network": network,
        "stages": stages,
        "gamma": gamma,
        "seed": seed,
    }
    blocks = change.get("depth") or (10 if stages == 1 else 5)
    assert isinstance(blocks, int)
    initial = (1.02 if network == "resnet" else 3.3) * blocks**0.5 + 0.03 * rng.normal()
    strength = np.log10(1 + gamma * 1e4) / 2
    start = datetime(2026, 6, 1, 12, tzinfo=UTC)
    config = {
        "layers": "convolutional",
        "decay": "all",
        "epochs": epochs,
        "batch_size": 128,
        "recipe": "adam",
        "learning_rate": 1e-3,
        "normalisation": "batch",
        "augment": False,
        "precision": "float32",
        "points": 1000,
        "epoch_points": 1000,
    }
    machine = {
        "weight_decay": gamma,
        "parameters": 123456,
        "started_at": start,
        "device": "cpu",
        "threads": 1,
        "trained_at": start + timedelta(seconds=20),
        "host": "here",
        "versions": "geosweep 0.1.0",
        "revision": "0123456789ab",
        "data_checksum": "fedcba9876543210",
        "peak_memory": 0.75,
    }
    if status not in ("done", "stopped"):
        row = key | config | machine | {"status": status, "epochs_done": 1} | change
        write_table(str(root), "trials", trial, [row])
        return trial
    curve = []
    for epoch in range(epochs + 1):
        progress = epoch / epochs
        lss = initial * (1 - 0.25 * strength * progress) + 0.05 * rng.normal() * (epoch > 0)
        accuracy = 0.1 + 0.8 * progress**0.5 + 0.02 * strength * progress + 0.01 * rng.normal()
        curve.append(
            key
            | {"epoch": epoch, "test_accuracy": min(accuracy, 1.0), "lss": lss, "lsr": lss * 1.1}
            | {"clean_train_accuracy": min(accuracy + 0.03, 1.0), "train_accuracy": accuracy}
            | {
                "inverse_lss": 1 / lss,
                "straightness_factor": lss**2,
                "seconds": 2.0,
                "learning_rate": 1e-3,
                "test_loss": 1 - progress,
            }
        )
    last = epochs if status == "done" else epochs // 2
    curve = curve[: last + 1]
    end = {name: curve[-1][name] for name in ("test_accuracy", "clean_train_accuracy", "lss")}
    end |= {name: curve[-1][name] for name in ("train_accuracy", "inverse_lss", "lsr", "test_loss")}
    transport = 1.02 if network == "resnet" else 1.15
    factors = {"straightness_factor": curve[-1]["lss"] ** 2, "transport_factor": transport}
    factors |= {"straightness_factor_initial": initial**2, "transport_factor_initial": transport}
    for when in ("", "_initial"):
        product = factors[f"straightness_factor{when}"] * factors[f"transport_factor{when}"]
        factors |= {f"geodesic_excess{when}": product, f"transport_share{when}": 0.5}
    scores = factors | {
        "blocks": blocks,
        "ots_shuffled": 0.8,
        "ots": 0.9 - 0.1 * strength if network == "resnet" else 0.004,
        "gap": 0.9,
        "suboptimality": 0.0,
        "ties": 0,
        "collapsed": collapsed,
        "gap_initial": 0.8,
        "lss_initial": initial,
        "ots_initial": 1.0 if network == "resnet" else 0.002,
        "lss_random": blocks**0.5,
        "ots_random": 0.001,
        "lss_std": 0.0,
        "lsr_std": 0.0,
        "ots_std": 0.0,
        "seconds": 20.0,
        "scoring_seconds": 1.5,
        "scored_at": start + timedelta(seconds=25),
        "status": status,
        "epochs_done": last,
    }
    if collapsed:
        scores |= {"ots": np.nan, "gap": 1.0}
        scores |= {"transport_factor": np.nan, "geodesic_excess": np.nan}
    if status == "stopped":
        unknown = ["ots", "ots_initial", "gap", "gap_initial", "ots_shuffled"]
        unknown += [n for n in factors if not n.startswith("straightness")]
        scores |= dict.fromkeys([*unknown, "suboptimality", "ties", "collapsed"])
    row = key | config | machine | end | scores
    if tried and status == "done":
        rows = made_up_rows(tried, stages, blocks, row["test_accuracy"], fragile)
        write_table(str(root), "robustness", trial, [key | one for one in rows])
        settings = json.dumps({name: EVALUATIONS[name] for name in tried})
        row |= {"classes": 10, "evaluations": settings} | summary(rows)
    row |= change
    write_table(str(root), "trials", trial, [row])
    write_table(str(root), "epochs", trial, curve)
    track = {
        "blocks": blocks,
        "m": 1000,
        "split": change.get("split", "test"),
        "shares": [1 / blocks] * blocks,
        "lss_random": blocks**0.5,
        "ots_random": 0.001,
    }
    places = [(epoch, stage + 1) for epoch in range(last + 1) for stage in range(stages)]
    solved = {}
    if status == "done":
        solved = {
            0: {"collapsed": False} | by_m(row["ots_initial"], row["gap_initial"]),
            epochs: {"collapsed": collapsed} | by_m(row["ots"], row["gap"]),
        }
    rows = [key | track | {"epoch": e, "stage": k} | solved.get(e, {}) for e, k in places]
    for place in rows:
        factor = 1.0 if stages == 1 else 1.1 - 0.2 * (place["stage"] - 1) / (stages - 1)
        place |= {"lss": curve[place["epoch"]]["lss"] * factor, "lss_initial": initial * factor}
        if place["epoch"] in solved:
            place |= {"ots": row["ots" if place["epoch"] else "ots_initial"]}
            place |= {"ots_shuffled": row["ots_shuffled"]}
            place |= {"ots_initial": row["ots_initial"], "projected": made_up_tracks(rng, blocks)}
    write_table(str(root), "tracks", trial, rows)
    if status == "stopped":
        return trial
    points = [
        key | {"epoch": epochs, "stage": 1, "split": track["split"], "point": i, "label": i % 3}
        for i in range(samples)
    ]
    write_table(str(root), "samples", trial, points)
    return trial


def made_up_tracks(rng: np.random.Generator, blocks: int, points: int = 6) -> list[float]:
    """Random walks of a few points in two dimensions, (blocks + 1, points, 2) as a flat list."""
    return rng.normal(size=(blocks + 1, points, 2)).cumsum(axis=0).ravel().tolist()


def write_points(root: Path, trial: str, wrong: list[int], lss: list[float], **change) -> None:
    """A trial's points: those in ``wrong`` are given another class than theirs."""
    rows = [
        {"trial": trial, "stage": 1, "point": i, "label": 3, "lss": value, "lsr": 1 + value}
        | {"prediction": 5 if i in wrong else 3, "dataset": "digits", "network": "resnet"}
        | change
        for i, value in enumerate(lss)
    ]
    write_table(str(root), "samples", trial, rows)


def scored_at_another_m(results: Results, points: int = 500) -> Results:
    """Results in which every trial is there a second time: the same training, scored at this m."""
    again = {}
    for name, table in results._asdict().items():
        rows = table.astype({"trial": "str"})
        more = rows.assign(trial=rows.trial + "m")
        if name == "trials":
            more["points"] = points
        again[name] = pd.concat([rows, more], ignore_index=True)
    return Results(**again)


def by_m(ots: float, gap: float) -> dict[str, list]:
    """Scores of the first 100, 300 and 1000 points, from the score of all 1000."""
    grown = [1.2, 1.1, 1.0]
    return {
        "prefix_m": [100, 300, 1000],
        "prefix_ots": [ots * factor for factor in grown],
        "prefix_gap": [gap] * 3,
    }


def made_up_sweep(root: Path) -> Path:
    """2 networks x 4 gammas x 2 seeds; of a third seed, one trial diverged and one failed."""
    return shutil.copytree(_made_up_sweep(), root, dirs_exist_ok=True)


def _empty_folder() -> Path:
    """A folder of this process for sweeps that are written once and copied; removed at its end."""
    return Path(tempfile.mkdtemp(prefix="made-up-", dir=os.environ["GEOSWEEP_CACHE"]))


@cache
def _made_up_sweep() -> Path:
    root = _empty_folder()
    for network in ("plain", "resnet"):
        for gamma in GAMMAS:
            for seed in (0, 1):
                made_up_trial(root, network, gamma, seed)
    made_up_trial(root, "plain", 0.0, 2, status="diverged")
    made_up_trial(root, "resnet", 0.0, 2, status="failed", error="ValueError: <b>no</b> & so on")
    return root


REPORT = """
import runpy, sys
try:
    runpy.run_module("analysis.report", run_name="__main__")
except SystemExit as end:
    print(end.code, {"torch", "ray", "mlflow", "matplotlib.pyplot"} & set(sys.modules))
"""  # the command of a report, and then what it has loaded


def write_report(folder: Path) -> None:
    """Write the report of a made-up sweep of 20 trials, some of them with K = 2.

    The sweep is in ``demo``, and ``printed.txt`` holds the output of :data:`REPORT`.
    """
    sweep = made_up_sweep(folder / "demo")
    for network in ("plain", "resnet"):
        made_up_trial(sweep, network, 0.01, stages=2)
    command = [sys.executable, "-W", "error", "-c", REPORT, str(sweep)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout + done.stderr)


def made_up_search(root: Path, objectives: dict[str, str], trials: int = 20) -> Path:
    """Write a sweep.json that makes the trials of a folder those of a search."""
    search = {"method": "optuna", "sampler": "tpe", "trials": trials, "seed": 0}
    content = {"name": "demo", "search": search | {"objectives": objectives}}
    write_file(str(root), places.SWEEP, json.dumps(content).encode())
    return root


def paper_sweep(root: Path, *tables: int) -> Path:
    """A sweep that holds only the paper's own numbers, of these tables or of all of them.

    Tables 2 and 3 give the segment shares of those trials of Table 5 that have the same gamma.
    """
    return shutil.copytree(_paper_sweep(*tables), root, dirs_exist_ok=True)


@cache
def _paper_sweep(*tables: int) -> Path:
    root = _empty_folder()
    numbers = paper.numbers()
    if tables:
        numbers = numbers[numbers.table.isin(tables)]
    cells = ["dataset", "stages", "network", "gamma"]
    for i, (cell, rows) in enumerate(numbers.groupby(cells)):
        key = dict(zip(cells, cell, strict=True)) | {"trial": f"{i:012x}", "seed": 0}
        scores = rows[rows.segment.isna()].set_index("quantity")
        row = {"layers": "convolutional", "points": 10_000 if key["stages"] == 1 else 1000}
        row |= {"status": "done"} | scores.paper.to_dict()
        row |= scores.paper_std.dropna().add_suffix("_std").to_dict()
        if "lss" in row:
            row["inverse_lss"] = 1 / row["lss"]
        write_table(str(root), "trials", key["trial"], [key | row])
        shares = rows[rows.segment.notna()].sort_values("segment").paper.tolist()
        if shares:
            track = {"epoch": 1, "stage": 1, "blocks": 10, "shares": shares}
            write_table(str(root), "tracks", key["trial"], [key | track])
    return root
