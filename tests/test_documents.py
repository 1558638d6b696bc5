"""The documents keep their word: examples run, and tables are complete."""

import ast
import importlib
import re
import textwrap
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch
import yaml
from made_up import made_up_sweep, made_up_trial
from pages import BLOCK, FENCE, PAGES, ROOT, SOURCES, each_page
from torch import nn

from analysis import claims, results
from analysis.results import ResultsError, describe, load
from models import datasets
from models.callables import find
from models.config import TrialConfig
from scoring.schemas import TABLES
from scoring.tables import read_rows, write_table
from tune_jobs import sweep as sweeps
from tune_jobs.evaluations import Evaluations
from tune_jobs.search import Asha, Search

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`~?([\w.]+)`")
POINTS = 7


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with a trial that collapsed, and tracks in two dimensions at both ends.

    It has a validation split. Its path has a part that some readers take for a column.
    """
    folder = made_up_sweep(tmp_path_factory.mktemp("documents") / "gamma=0.5" / "demo")
    made_up_trial(folder, seed=3, collapsed=True)
    for file in (folder / "results/trials").iterdir():
        rows = read_rows(str(folder), "trials", file.stem)
        for row in rows:  # the best gamma by validation is not that by test accuracy
            row["validation_accuracy"] = None if row["lss"] is None else -row["lss"]
        write_table(str(folder), "trials", file.stem, rows)
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
        code = code.replace("runs/demo", str(folder)).replace("runs/choice", str(folder))
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
    assert best[["network", "gamma"]].to_numpy().tolist() == [["plain", 1e-2], ["resnet", 1e-2]]
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


@pytest.mark.slow
def test_the_code_in_the_readme_runs(sweep: Path) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2, 150, 3))
    blocks = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3)]
    model, loader = nn.Sequential(*blocks).eval(), [(torch.zeros(2, 5, 8), None)]
    given = {"model": model, "loader": loader, "torch": torch}
    names = run("README.md", sweep, x=points[0], y=points[1], **given)
    assert len(names["results"].trials) == len(load(sweep).trials)
    assert 0 <= names["found"].ots <= 1


def test_the_scores_of_a_users_own_tracks_are_computed_as_documented(sweep: Path) -> None:
    points = np.random.default_rng(0).normal(size=(2, 150, 3))
    names = run("docs/results.md", sweep, x=points[0], y=points[1])
    assert 0 <= names["found"].ots <= 1


def test_a_dataset_made_as_documented_can_be_loaded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    run("docs/datasets.md", tmp_path)
    data = datasets.load(str(tmp_path / "runs/mine.npz"))
    assert data.image == (1, 8, 8)
    assert len(data.y_test) == 597


def test_functions_that_make_datasets_as_documented_make_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "cache"))
    write_files(ROOT / "docs/datasets.md", tmp_path)
    plain, noisy = (
        datasets.from_code(find(f"mydata.py:{name}", tmp_path)) for name in ("digits", "noisy")
    )
    assert plain.image == noisy.image == (1, 8, 8)
    assert np.array_equal(plain.x_test, noisy.x_test)
    assert (noisy.x_train >= plain.x_train).mean() == 1


def test_no_documented_reader_takes_a_column_from_the_path(sweep: Path) -> None:
    trials = sweep / "results/trials"
    gammas = sorted(load(sweep).trials.gamma)
    assert set(gammas) != {0.5}
    one = sorted(trials.iterdir())[0]
    gamma = read_rows(str(sweep), "trials", one.stem)[0]["gamma"]
    assert sorted(pd.read_parquet(trials).gamma) == gammas
    assert pd.read_parquet(one).gamma.tolist() == [gamma]
    assert sorted(pyarrow.dataset.dataset(trials).to_table()["gamma"].to_pylist()) == gammas
    assert pyarrow.parquet.read_table(one)["gamma"].to_pylist() == [gamma]
    assert sorted(pl.scan_parquet(f"{trials}/*.parquet").collect()["gamma"]) == gammas
    files = f"read_parquet('{trials}/*.parquet', hive_partitioning = false)"
    assert sorted(duckdb.sql(f"SELECT gamma FROM {files}").df().gamma) == gammas
    for page in PAGES:
        for query in re.findall(r"read_parquet\(\s*'.*?\)", page.read_text(), re.DOTALL):
            assert "hive_partitioning = false" in query, page


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its header."""
    section = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_table_of_fields_is_that_of_the_configuration() -> None:
    documented = {}
    for names, default, _ in rows("docs/sweeps.md", "Fields of a trial"):
        name, *aliases = re.findall(r"\w+", names)
        documented[name] = (aliases, default.strip("`"))
    fields = TrialConfig.model_fields
    assert list(documented) == list(fields)
    short = {field: name for name, field in sweeps.ALIASES.items()}
    for name, (aliases, default) in documented.items():
        assert aliases == ([short[name]] if name in short else [])
        value = fields[name].default
        assert default == ("" if value is None else f"{value:g}" if value == 0 else str(value))


def test_the_table_of_a_sweeps_own_fields_is_complete() -> None:
    documented = re.findall(
        r"`(\w+)`", " ".join(r[0] for r in rows("docs/sweeps.md", "Fields of the sweep"))
    )
    assert set(documented) == set(sweeps.SweepFile.model_fields) - set(TrialConfig.model_fields)


def write_files(page: Path, folder: Path) -> None:
    """Write the Python files of a page: blocks that begin with a comment like ``# net.py``."""
    for _, language, block in FENCE.findall(page.read_text()):
        if language == "python" and (name := re.match(r"# (\w+\.py)\n", block)):
            (folder / name[1]).write_text(block)


@each_page
def test_sweep_files_in_documents_can_be_read(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    for _, language, block in FENCE.findall(page.read_text()):
        if language != "yaml":
            continue
        file = tmp_path / "example.yaml"
        (tmp_path / "net.py").write_text("")  # a file of the user that an example names
        axes = "" if "gamma" in block else "gamma: [0, 1e-3]\n"  # a search needs something to pick
        file.write_text(axes + block)
        assert sweeps.read(str(file)).trials


def test_defaults_that_are_written_out_are_the_defaults() -> None:
    written: dict[str, Any] = {}
    for page in ("docs/searches.md", "docs/evaluations.md"):
        for _, language, block in FENCE.findall((ROOT / page).read_text()):
            if language == "yaml":
                content = yaml.safe_load(block)
                written |= {k: v for k, v in content.items() if isinstance(v, dict)}
    assert Search.model_validate(written["search"]) == Search(
        objectives={"validation_accuracy": "max"}  # the default with a validation split
    )
    assert Asha.model_validate(written["scheduler"] | {"grace": None}) == Asha()
    assert Evaluations.model_validate(written["evaluations"]) == Evaluations.model_validate(
        {name: {} for name in Evaluations.model_fields}
    )


@pytest.mark.slow
@each_page
def test_what_python_examples_import_exists(page: Path) -> None:
    for _, language, block in FENCE.findall(page.read_text()):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(block))):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), page


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_that_docstrings_refer_to_exist(path: Path) -> None:
    tree = ast.parse(path.read_text())
    nodes = [
        n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    names = {name for node in nodes for name in ROLE.findall(ast.get_docstring(node) or "")}
    if names:
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        classes = [getattr(module, n.name) for n in tree.body if isinstance(n, ast.ClassDef)]
        assert not {name for name in names if not refers(name, [module, *classes])}


def refers(name: str, scopes: list[Any]) -> bool:
    """Whether a dotted name exists in one of the scopes, or as a full path."""
    for scope in scopes:
        with suppress(AttributeError):
            attrgetter(name)(scope)
            return True
    with suppress(AttributeError, ImportError):
        resolve_name(name)
        return True
    return False


def test_the_list_of_columns_is_that_of_the_schemas() -> None:
    written = (ROOT / "docs/columns.md").read_text()
    assert written == results.columns_page(), f"docs/columns.md is old: run {results.COMMAND}"


def test_the_list_of_claims_is_that_of_the_checks(capsys: pytest.CaptureFixture) -> None:
    written = (ROOT / "docs/claims.md").read_text()
    assert claims.main(["--list"]) == 0
    assert written == capsys.readouterr().out, f"docs/claims.md is old: run {claims.COMMAND}"
    rows = [line.split(" | ") for line in written.splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{claim.name}`" for claim in claims.CLAIMS]
    assert all(cell.strip() for row in rows for cell in row)


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
