"""Whatever lies in a sweep's folder, there is an answer or one clear message, never a traceback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import made_up_trial

from analysis import claims, correlation, figures, report, tables
from scoring.schemas import TABLES
from scoring.tables import read_rows, write_table

KEY = {"trial", "dataset", "network", "stages", "gamma", "seed", "status", "epoch", "stage"}
SCRIPTS = [
    (claims.main, ["--format", "json"]),
    (claims.main, ["--format", "latex"]),
    (correlation.main, []),
    (correlation.main, ["--table", "points", "--format", "csv"]),
    (correlation.main, ["--format", "json"]),
    (tables.main, []),
    (tables.main, ["--format", "csv"]),
    (tables.main, ["--table", "2", "--format", "latex"]),
    (tables.main, ["--table", "summary", "--format", "json"]),
    (figures.main, ["--form", "png"]),
    (report.main, []),
]


def sweep(root: Path) -> Path:
    for network in ("plain", "resnet"):
        for stages in (1, 2):
            made_up_trial(root, network, 1e-3, stages=stages, epochs=2)
    return root


def change(root: Path, tables: Any, **values: Any) -> None:
    """Give every row of some tables these values."""
    for table in tables:
        for file in (root / "results" / table).glob("*.parquet"):
            rows = [row | values for row in read_rows(str(root), table, file.stem)]
            write_table(str(root), table, file.stem, rows)


def all_reals(root: Path, value: float) -> None:
    for table, schema in TABLES.items():
        names = [f.name for f in schema if f.type == "double" and f.name != "gamma"]
        change(root, [table], **dict.fromkeys(names, value))


def without_columns(root: Path) -> None:
    for file in (sweep(root) / "results").glob("*/*.parquet"):
        whole = pq.ParquetFile(file).read()
        pq.write_table(whole.select([n for n in whole.column_names if n in KEY]), file)


def lists_that_do_not_fit(root: Path) -> None:
    for file in (sweep(root) / "results/tracks").glob("*.parquet"):
        rows = read_rows(str(root), "tracks", file.stem)
        for i, row in enumerate(rows):
            for k, field in enumerate(TABLES["tracks"]):
                if pa.types.is_list(field.type):
                    row[field.name] = [[], None, [1], [1, 2, 3]][(i + k) % 4]
        write_table(str(root), "tracks", file.stem, rows)


def file_beside(root: Path) -> None:
    made_up_trial(root, epochs=2)
    (root / "results/trials/README.txt").write_text("mine")


ANSWERED = {
    "one trial": lambda root: made_up_trial(root, epochs=2),
    "one seed": sweep,
    "nothing done": lambda root: made_up_trial(root, status="stopped"),
    "columns of the key alone": without_columns,
    "NaN everywhere": lambda root: all_reals(sweep(root), np.nan),
    "infinity everywhere": lambda root: all_reals(sweep(root), np.inf),
    "lists that do not fit": lists_that_do_not_fit,
    "a network nobody knows": lambda root: change(sweep(root), ["trials"], network="mixer"),
    "a status nobody knows": lambda root: change(sweep(root), ["trials"], status="lost"),
    "a file beside the tables": file_beside,
}
NAMED = {
    "an empty folder": lambda root: None,
    "no results": lambda root: (root / "results/trials").mkdir(parents=True),
    "another file for results": lambda root: (root / "results").write_text("mine"),
    "text for Parquet": lambda root: (sweep(root) / "results/trials/x.parquet").write_text("mine"),
    "a folder for Parquet": lambda root: (sweep(root) / "results/trials/x.parquet").mkdir(),
    "a foreign table": lambda root: pq.write_table(
        pa.table({"a": [1]}), sweep(root) / "results/trials/x.parquet"
    ),
    "a foreign table of trials": lambda root: pq.write_table(
        pa.table({"trial": ["x"], "lss": [1.0]}), sweep(root) / "results/trials/x.parquet"
    ),
    "a trial without a gamma": lambda root: change(sweep(root), ["trials"], gamma=None),
}


@pytest.mark.usefixtures("svg_only")
@pytest.mark.long
@pytest.mark.parametrize("case", ANSWERED)
def test_poor_results_have_an_answer(case: str, tmp_path: Path, capsys: Any) -> None:
    tmp_path = tmp_path / "demo"
    tmp_path.mkdir()
    ANSWERED[case](tmp_path)
    for main, options in SCRIPTS:
        code = main([str(tmp_path), *options])
        told = capsys.readouterr()
        assert code == 0 or (code == 2 and len(told.err.splitlines()) == 1)
    assert (tmp_path / "report/index.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("case", NAMED)
def test_what_cannot_be_read_is_named_in_one_line(case: str, tmp_path: Path, capsys: Any) -> None:
    tmp_path = tmp_path / "demo"
    tmp_path.mkdir()
    make: Callable[[Path], Any] = NAMED[case]
    make(tmp_path)
    for main, options in SCRIPTS:
        assert main([str(tmp_path), *options]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == 1
        assert str(tmp_path) in told.err
