"""Figures of results that lack much, or are odd."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawings import change
from made_up import made_up_trial, paper_sweep
from pyarrow import parquet as pq

from analysis import figures
from analysis.plots import files
from analysis.results import load
from scoring.places import table_path
from scoring.schemas import TABLES
from scoring.tables import read_rows, write_table


def nothing_finite(root: Path) -> None:
    for stages in (1, 2):
        trial = made_up_trial(root, stages=stages)
        for table in TABLES:
            lost = {f.name: np.nan for f in TABLES[table] if f.type == "double"}
            change(root, table, trial, **lost | {"gamma": 0.0})
        rows = read_rows(str(root), "tracks", trial)
        for row in rows:
            row["projected"] = row["projected"] and [np.nan] * len(row["projected"])
        write_table(str(root), "tracks", trial, rows)


def infinite(root: Path) -> None:
    for seed in (0, 1):
        trial = made_up_trial(root, stages=2, seed=seed, lss=np.inf, lss_initial=np.inf)
        change(root, "tracks", trial, lss=np.inf, lss_initial=np.inf)
        change(root, "epochs", trial, lss=np.inf)


def collapsed(root: Path) -> None:
    for network in ("plain", "resnet"):
        for stages in (1, 4):
            made_up_trial(root, network, stages=stages, collapsed=True, ots=1.0)


def older(root: Path) -> None:
    """Results with the columns alone that the first version had."""
    for stages in (1, 2):
        made_up_trial(root, stages=stages)
    kept = {f.name for f in TABLES["trials"]} - {"shapes", "collapsed"} | {"epoch", "stage"}
    for file in (root / "results").glob("*/*.parquet"):
        content = pq.read_table(file)
        pq.write_table(content.select([n for n in content.column_names if n in kept]), file)


def without_rows(root: Path) -> None:
    for stages in (1, 2):
        trial = made_up_trial(root, stages=stages)
        for table in ("epochs", "tracks", "samples"):
            (root / table_path(table, trial)).unlink()


def several_depths(root: Path) -> None:
    for depth in (2, 5, 10, 20):
        for network in ("plain", "resnet"):
            made_up_trial(root, network, depth=depth, clean_train_loss=1 / depth)
            made_up_trial(root, network, 0.1, stages=2, depth=depth, learning_rate=depth / 1e3)


def several_settings(root: Path) -> None:
    for rate in (1e-3, 3e-3):
        for network in ("plain", "resnet"):
            for stages in (1, 2):
                extra = {"learning_rate": rate, "dataset": "fashion_mnist", "seed": int(rate * 1e3)}
                made_up_trial(root, network, stages=stages, **extra)  # type: ignore[arg-type]


def evaluated(root: Path) -> None:
    tried = ("lesion", "noise", "fgsm", "pgd", "separation", "curve")
    for rate in (1e-3, 3e-3):
        for stages in (1, 4):
            extra = {"learning_rate": rate, "dataset": "fashion_mnist", "tried": tried}
            made_up_trial(root, "resnet", 5e-4, stages=stages, seed=int(rate * 1e3), **extra)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize(
    "make",
    [
        lambda root: made_up_trial(root, status="failed"),
        lambda root: made_up_trial(root, status="stopped", stages=2),
        lambda root: made_up_trial(root, stages=4),
        *(paper_sweep, nothing_finite, infinite, collapsed, older, without_rows),
        *(several_settings, several_depths, evaluated),
    ],
)
def test_no_results_are_too_poor_and_nothing_is_cut_off(tmp_path: Path, make: Callable) -> None:
    make(tmp_path)
    results = load(tmp_path, columns=figures.COLUMNS)
    for name, spec in figures.FIGURES.items():
        if not spec.of_search:
            figure = spec.draw(results)
            assert set(files.render(figure, name, ["png"])) == {"png"}
            (left, low), (right, high) = figure.get_tightbbox().get_points()
            assert min(left, low) >= 0
            assert (right, high) <= tuple(figure.get_size_inches())
