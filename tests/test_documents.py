"""The code in the documents runs as it stands there, and what they say of columns is so."""

import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep, made_up_trial

from analysis import results
from analysis.results import ResultsError, describe, load
from scoring.schemas import TABLES, read_rows, write_table

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|sql)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
POINTS = 7


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with a trial that collapsed, and tracks in two dimensions at both ends."""
    folder = made_up_sweep(tmp_path_factory.mktemp("documents") / "demo")
    made_up_trial(folder, seed=3, collapsed=True)
    for file in (folder / "results/tracks").iterdir():
        rows = read_rows(str(folder), "tracks", file.stem)
        for row in (rows[0], rows[-1]):
            row["projected"] = list(range((row["blocks"] + 1) * POINTS * 2))
        write_table(str(folder), "tracks", file.stem, rows)
    return folder


def run(document: str, folder: Path, **names: Any) -> dict[str, Any]:
    """What a document's blocks leave, run in their order; ``sql``: the answer to each query."""
    names["sql"] = []
    for language, code in BLOCK.findall((ROOT / document).read_text()):
        code = code.replace("runs/demo", str(folder))
        if language == "sql":
            names["sql"].append(duckdb.sql(code).df())
        else:
            exec(compile(code, document, "exec"), names)
    return names


@pytest.fixture(scope="module")
def said(sweep: Path) -> dict[str, Any]:
    return run("docs/parquet.md", sweep)


def test_pandas_polars_and_duckdb_give_the_same_answer(said: dict[str, Any]) -> None:
    best = said["best"].reset_index(drop=True)
    assert best[["network", "gamma"]].to_numpy().tolist() == [["plain", 1e-3], ["resnet", 1e-2]]
    for other in (pd.DataFrame(said["best_in_polars"].to_dicts()), said["sql"][0]):
        pd.testing.assert_frame_equal(best, other, check_dtype=False)


def test_the_answer_is_that_of_the_frames_of_load(said: dict[str, Any], sweep: Path) -> None:
    trials = load(sweep).trials
    for row in said["best"].itertuples():
        cell = trials[(trials.network == row.network) & (trials.gamma == row.gamma)]
        np.testing.assert_allclose(cell[cell.status == "done"].lss.mean(), row.lss)


def test_a_curve_has_an_epoch_a_row(said: dict[str, Any]) -> None:
    assert said["curve"].epoch.tolist() == list(range(7))


def test_lists_are_read_as_the_document_says(said: dict[str, Any]) -> None:
    track, row = said["track"], said["row"]
    assert track.shape == (row.blocks + 1, POINTS, 2)
    assert track[1, 0].tolist() == [2 * POINTS, 2 * POINTS + 1]
    shares = said["sql"][1]
    sums = shares.groupby("trial").share.sum()
    assert len(sums) == said["tracks"].trial.nunique()
    np.testing.assert_allclose(sums, 1)
    assert shares.block.max() == row.blocks


def test_the_code_in_the_readme_runs(sweep: Path) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2, 150, 3))
    names = run("README.md", sweep, x=points[0], y=points[1])
    assert len(names["results"].trials) == len(load(sweep).trials)
    assert 0 <= names["found"].ots <= 1


def test_the_list_of_columns_is_that_of_the_schemas() -> None:
    written = (ROOT / "docs/columns.md").read_text()
    assert written == results.columns_page(), f"docs/columns.md is old: run {results.COMMAND}"


@pytest.mark.parametrize("table", TABLES)
def test_columns_are_described_in_their_order(table: str) -> None:
    columns = describe(table)
    assert columns.column.tolist() == TABLES[table].names
    assert columns.meaning.str.len().min() > 0


def test_a_table_or_column_that_there_is_not_is_named(sweep: Path) -> None:
    with pytest.raises(ResultsError, match=r"no table layers; there are trials, epochs, tracks"):
        describe("layers")
    with pytest.raises(ResultsError, match="no table layers"):
        load(sweep, tables=("layers",))
    with pytest.raises(ResultsError, match=r"tracks has no column accuracy, loss; describe"):
        load(sweep, columns={"tracks": ["trial", "loss", "accuracy"]})
