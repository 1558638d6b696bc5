"""One report on several sweeps: every trial counts once, and every table says whose it is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import GAMMAS, made_up_trial

from analysis import report
from analysis.measures.cells import CELL
from analysis.measures.pooled import pool, sentence
from analysis.measures.summary import summary
from analysis.results import Results, ResultsError, load
from scoring.places import together


@pytest.fixture
def apart(tmp_path: Path) -> list[Path]:
    """Three sweeps: two seeds, two seeds of which the first has one, and another network."""
    folders = [tmp_path / name for name in ("first", "second.seeds", "plain")]
    for gamma in GAMMAS:
        for seed in (0, 1):
            made_up_trial(folders[0], gamma=gamma, seed=seed)
            made_up_trial(folders[1], gamma=gamma, seed=seed + 1)
        made_up_trial(folders[2], "plain", gamma)
    return folders


def loaded(folders: list[Path]) -> tuple[list[str], list[Results]]:
    return [str(folder) for folder in folders], [load(folder) for folder in folders]


def test_sweeps_together_are_the_same_as_one_sweep_with_all_trials(apart, tmp_path) -> None:
    for gamma in GAMMAS:
        for seed in (0, 1, 2):
            made_up_trial(tmp_path / "whole", gamma=gamma, seed=seed)
        made_up_trial(tmp_path / "whole", "plain", gamma)
    whole, joint = load(tmp_path / "whole"), pool(*loaded(apart)).results
    for table in Results._fields:
        ours = getattr(joint, table).drop(columns="folder", errors="ignore")
        pd.testing.assert_frame_equal(ours, getattr(whole, table), check_like=True)
    pd.testing.assert_frame_equal(summary(joint).drop(columns="folders"), summary(whole))


def test_a_trial_in_several_sweeps_counts_once_and_the_report_says_so(apart) -> None:
    joint = pool(*loaded(apart))
    assert not joint.results.trials.trial.duplicated().any()
    assert joint.twice == len(GAMMAS)
    assert joint.counts == {"first": 8, "second.seeds": 4, "plain": 4}
    assert sentence(joint) == (
        "3 sweeps together: first (8 trials), second.seeds (4 trials), plain (4 trials). Of trials "
        "that several have, 4 more copies are left out."
    )
    cells = summary(joint.results).set_index(CELL[-2:])
    assert set(cells.seeds.loc["resnet"]) == {3}
    assert set(cells.folders.loc["resnet"]) == {"first, second.seeds"}
    assert set(cells.folders.loc["plain"]) == {"plain"}


def test_of_a_trial_that_is_done_in_one_sweep_only_that_copy_counts(tmp_path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    made_up_trial(folders[0], status="failed", error="no memory")
    made_up_trial(folders[1])
    (row,) = pool(*loaded(folders)).results.trials.itertuples()
    assert (row.status, row.folder) == ("done", "b")
    assert len(pool(*loaded(folders)).results.epochs) == 7


def test_sweeps_of_one_name_are_told_apart_by_their_whole_folders(tmp_path) -> None:
    folders = [tmp_path / name / "demo" for name in ("a", "b")]
    for seed, folder in enumerate(folders):
        made_up_trial(folder, seed=seed)
    assert [*pool(*loaded(folders)).counts] == [str(folder) for folder in folders]


def test_trials_from_before_a_field_are_those_with_what_was_usual_then(tmp_path) -> None:
    made_up_trial(tmp_path / "old")
    made_up_trial(tmp_path / "new", seed=1, depth=10, schedule="cosine")
    joint = pool(*loaded([tmp_path / "old", tmp_path / "new"])).results
    assert set(joint.trials.depth) == {10}
    assert set(joint.trials.schedule) == {"cosine"}
    assert list(summary(joint).seeds) == [2]


def test_arguments_of_architectures_stay_columns(tmp_path) -> None:
    for name, width in (("a", 16), ("b", 32)):
        made_up_trial(
            tmp_path / name, seed=width, architecture="net:one", model=f'{{"width": {width}}}'
        )
    made_up_trial(tmp_path / "c", "plain")
    joint = pool(*loaded([tmp_path / name for name in "abc"])).results
    np.testing.assert_array_equal(
        joint.trials.sort_values("seed")["model.width"], [np.nan, 16.0, 32.0]
    )


def test_the_reader_is_told_in_what_the_sweeps_differ(tmp_path) -> None:
    made_up_trial(tmp_path / "a")
    made_up_trial(tmp_path / "b", seed=1, points=30, precision="bfloat16")
    made_up_trial(tmp_path / "b", seed=2, points=20, precision="bfloat16")
    said = sentence(pool(*loaded([tmp_path / "a", tmp_path / "b"])))
    assert said.endswith(
        " They differ in m (a 1000, b 20 and 30); precision (a float32, b bfloat16). Trials that "
        "differ are in different cells, and OTS compares only at equal m."
    )


def test_other_data_under_the_same_name_are_refused(tmp_path) -> None:
    made_up_trial(tmp_path / "a")
    made_up_trial(tmp_path / "b", seed=1, data_checksum="0" * 16)
    made_up_trial(tmp_path / "old", seed=2, data_checksum="")
    with pytest.raises(ResultsError, match=r"b: its digits is other data than that of a "):
        pool(*loaded([tmp_path / "old", tmp_path / "a", tmp_path / "b"]))


def test_a_sweep_is_not_pooled_with_itself(tmp_path) -> None:
    made_up_trial(tmp_path / "a")
    names, frames = loaded([tmp_path / "a", tmp_path / "a"])
    with pytest.raises(ResultsError, match="given twice"):
        pool([f"{names[0]}/", names[1]], frames)


def test_the_page_is_beside_the_first_sweep_and_its_tables_name_the_sweeps(
    apart, without_figures, geosweep
) -> None:
    before = {path: path.stat().st_mtime_ns for path in apart[0].parent.rglob("*")}
    assert report.main([str(folder) for folder in apart]) == 0
    there = apart[0].parent / "report-first-second-seeds-plain"
    page = (there / "index.html").read_text()
    assert "<h1>first + second.seeds + plain</h1>" in page
    assert "3 sweeps together: first (8 trials)" in page
    trials = pd.read_csv(there / "trials.csv")
    assert trials.folder.value_counts().to_dict() == {"first": 8, "second.seeds": 4, "plain": 4}
    assert "folders" in pd.read_csv(there / "summary.csv")
    assert {path for path in before if path.stat().st_mtime_ns != before[path]} <= {there.parent}


def test_the_report_on_several_takes_no_comparison_and_names_what_is_missing(
    apart, geosweep, tmp_path, capsys
) -> None:
    both = ("report", *map(str, apart), "--compare", str(apart[0]))
    assert geosweep(*both) == (
        2,
        "geosweep: a report on several folders takes neither --mlflow nor --compare\n",
    )
    assert report.main([str(apart[0]), str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert report.main([*map(str, apart), "--compare", str(apart[0])]) == 2


def test_the_folder_of_such_a_report_has_a_name_that_a_file_system_takes() -> None:
    assert together(["s3://b/x", "/y/z"]) == "s3://b/report-x-z"
    many = together([f"/runs/{'long' * 40}{n}" for n in range(100)])
    assert len(many.rpartition("/")[2]) < 250
    assert many.endswith("-and-96-more")
