"""Results to tables, on sweeps made up for the purpose."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep, made_up_trial
from pyarrow import parquet as pq
from scipy import stats

from analysis import report, tables
from analysis.measures.cells import cell_columns, mean_interval, varying, without_collapsed
from analysis.measures.findings import sentences
from analysis.measures.layout import COUNTS, as_text, fold, readable, reason
from analysis.measures.summary import summary
from analysis.results import ResultsError, load
from scoring.places import table_path
from scoring.schemas import TABLES

LATER = ["suboptimality", "ties", "collapsed", "prefix_m", "prefix_ots", "prefix_gap"]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return made_up_sweep(tmp_path / "demo")


def test_a_folder_gives_its_tables(sweep: Path) -> None:
    results = load(sweep)
    assert [len(table) for table in results] == [18, 16 * 7, 16 * 7, 16 * 5, 0]
    for table, schema in zip(results, TABLES.values(), strict=True):
        assert list(table.columns) == schema.names
        assert isinstance(table.dataset.dtype, pd.CategoricalDtype)
    assert list(results.trials.network.cat.categories) == ["plain", "resnet"]
    assert results.epochs.dtypes[["epoch", "lss"]].tolist() == [np.int64, np.float64]
    assert isinstance(results.trials.started_at.dtype, pd.DatetimeTZDtype)


def test_tables_not_asked_for_come_without_rows(sweep: Path) -> None:
    results = load(sweep, tables=("trials",))
    assert (len(results.trials), len(results.epochs), len(results.samples)) == (18, 0, 0)


def test_only_the_columns_asked_for_are_read(sweep: Path) -> None:
    results = load(sweep, columns={"tracks": ["trial", "prefix_m"]})
    assert list(results.tracks.columns) == ["trial", "prefix_m"]
    assert list(results.trials.columns) == TABLES["trials"].names


def written_before(root: Path) -> Path:
    """The sweep as a version wrote it that had no certificate and no scores by m."""
    for table in ("trials", "tracks"):
        for file in (root / "results" / table).iterdir():
            content = pq.read_table(file)
            new = [name for name in content.column_names if name in LATER]
            pq.write_table(content.drop_columns(new), file)
    return root


def test_a_column_that_came_later_is_null_in_older_results(sweep: Path) -> None:
    results = load(written_before(sweep))
    for frame, table in ((results.trials, "trials"), (results.tracks, "tracks")):
        assert list(frame.columns) == TABLES[table].names
        later = [name for name in LATER if name in frame]
        assert later
        assert frame[later].isna().all(axis=None)


def test_older_results_are_summed_up_without_what_they_lack(sweep: Path) -> None:
    results = load(written_before(sweep))
    assert not {"collapsed", "suboptimality"} & set(fold(summary(results))[0])
    assert not [said for said in sentences(results) if "ollapsed" in said or "proved" in said]


def test_older_results_and_new_ones_make_one_table(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0)
    written_before(tmp_path)
    made_up_trial(tmp_path, seed=1, collapsed=True, suboptimality=2e-16)
    (row,) = summary(load(tmp_path)).itertuples()
    assert (row.seeds, row.collapsed, row.without_ots, row.suboptimality) == (2, 1, 0, 2e-16)
    said = sentences(load(tmp_path))
    assert "In 1 of 2 trials every assignment is proved optimal" in said[-1]


def test_a_uri_reads_like_a_path(sweep: Path) -> None:
    pd.testing.assert_frame_equal(load(f"file://{sweep}").trials, load(sweep).trials)


def log_to_mlflow(client, experiment: str, root: Path, trial: str, status: str) -> None:
    run = client.create_run(experiment, tags={"geosweep.trial": trial}).info.run_id
    for table in TABLES:
        file = root / table_path(table, trial)
        if file.exists():
            client.log_artifact(run, str(file), f"results/{table}")
    client.set_terminated(run, status)


def test_trials_from_before_validation_splits_do_not_differ_from_those_without_one(
    tmp_path: Path,
) -> None:
    made_up_trial(tmp_path, seed=0)
    made_up_trial(tmp_path, seed=1, validation=0.0)
    found = load(tmp_path)
    assert found.trials.validation.tolist() == [0, 0]
    assert "validation" not in varying(found.trials)


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's
def test_an_mlflow_experiment_reads_like_the_folder_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    trials = [made_up_trial(tmp_path / "demo", seed=seed) for seed in range(2)]
    trials.append(made_up_trial(tmp_path / "demo", seed=2, status="failed"))
    made_up_trial(tmp_path / "older", seed=1, status="failed")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("demo", artifact_location=f"{tmp_path}/artifacts")
    client.create_run(experiment)  # the parent: still running, without a trial
    log_to_mlflow(client, experiment, tmp_path / "older", trials[1], "FAILED")  # then done
    for trial in trials:
        log_to_mlflow(client, experiment, tmp_path / "demo", trial, "FINISHED")
    expected = load(tmp_path / "demo")
    for found, table in zip(load("demo", uri), expected, strict=True):
        pd.testing.assert_frame_equal(found, table)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path / "older")
    assert len(load("demo").trials) == 3
    page = report.build("demo", tmp_path / "page")
    assert "3 trials: 2 done" in page.read_text()
    with pytest.raises(ResultsError, match=r"no such experiment.*Default, demo"):
        load("nowhere")


def test_an_empty_or_missing_folder_is_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=rf"{tmp_path}.*geosweep run"):
        load(tmp_path)
    with pytest.raises(ResultsError, match=r"nowhere: no such folder.*geosweep run"):
        load(tmp_path / "nowhere")
    with pytest.raises(ResultsError, match="cannot be opened"):
        load("nothing://at/all")


def test_a_torn_file_is_named(sweep: Path) -> None:
    torn = next((sweep / "results/trials").glob("*.parquet"))
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(ResultsError, match=re.escape(torn.name)):
        load(sweep)


def test_a_summary_row_is_the_mean_over_seeds_with_a_t_interval(tmp_path: Path) -> None:
    values = [0.7, 0.8, 0.84]
    for seed, value in enumerate(values):
        made_up_trial(tmp_path, seed=seed, test_accuracy=value)
    made_up_trial(tmp_path, gamma=0.01, seed=0)
    row, single = summary(load(tmp_path)).itertuples()
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(row.test_accuracy, np.mean(values))
    np.testing.assert_allclose(row.test_accuracy_ci95, (high - low) / 2)
    assert (row.seeds, row.m, row.ots_random) == (3, 1000, 0.001)
    assert single.seeds == 1
    assert np.isfinite(single.test_accuracy)
    assert np.isnan(single.test_accuracy_ci95)


def test_rows_of_one_seed_are_one_draw() -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"gamma": [0.0, 0.1], "seed": 0}).merge(pd.DataFrame({"seed": [0] * 3}))
    rows = pd.concat([rows.assign(seed=seed, x=random.normal(size=6)) for seed in range(4)])
    apart, joint = mean_interval(rows, ["gamma"], ["x"]), rows.groupby(["gamma", "seed"]).x.mean()
    for gamma in (0.0, 0.1):
        seeds = joint[gamma].to_numpy()
        low, high = stats.t.interval(0.95, 3, seeds.mean(), stats.sem(seeds))
        np.testing.assert_allclose(apart.x[gamma], seeds.mean())
        np.testing.assert_allclose(apart.x_ci95[gamma], (high - low) / 2)
    one = mean_interval(rows[rows.seed == 0], ["gamma"], ["x"])
    assert one.x_ci95.isna().all()
    without = mean_interval(rows.drop(columns="seed"), ["gamma"], ["x"])
    assert (without.x_ci95 != apart.x_ci95).all()


def test_seeds_that_all_give_the_same_number_have_no_interval_and_the_table_says_why(
    tmp_path: Path,
) -> None:
    for seed, value in enumerate((0.7, 0.8, 0.84)):
        made_up_trial(tmp_path, seed=seed, test_accuracy=value, ots=1.0)
    table = summary(load(tmp_path))
    assert np.isnan(table.ots_ci95[0])
    shown = readable(table)
    assert shown["OTS"][0] == "1.000"
    assert " ± " in shown["test accuracy"][0]
    for form in ("md", "latex"):
        assert "no spread is no evidence" in as_text(table, form)
    assert not reason(table[["seeds", "test_accuracy", "test_accuracy_ci95"]])
    made_up_trial(tmp_path / "one")
    assert not reason(summary(load(tmp_path / "one")))


def test_failed_and_diverged_trials_are_counted_and_in_no_mean(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0, test_accuracy=0.5, ots=np.nan)
    made_up_trial(tmp_path, seed=1, status="diverged", test_accuracy=0.1)
    made_up_trial(tmp_path, seed=2, status="failed", test_accuracy=0.1)
    (row,) = summary(load(tmp_path)).itertuples()
    assert (row.seeds, row.diverged, row.failed, row.without_ots) == (1, 1, 1, 1)
    assert row.test_accuracy == 0.5
    assert np.isnan(row.ots)


def test_collapsed_trials_are_counted_and_in_no_mean_of_ots_and_gap(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0, ots=0.5, gap=0.7, test_accuracy=0.9)
    made_up_trial(tmp_path, seed=1, collapsed=True, test_accuracy=0.1)
    made_up_trial(tmp_path, gamma=0.01, collapsed=True)
    some, every = summary(load(tmp_path)).itertuples()
    assert (some.seeds, some.collapsed, some.without_ots) == (2, 1, 0)
    assert (some.ots, some.gap, some.gap_initial) == (0.5, 0.7, 0.8)
    np.testing.assert_allclose(some.test_accuracy, 0.5)
    assert every.collapsed == 1
    assert np.isnan([every.ots, every.gap]).all()


def test_a_missing_ots_reads_as_collapsed(tmp_path: Path) -> None:
    made_up_trial(tmp_path, collapsed=True)
    made_up_trial(tmp_path, gamma=0.01, ots=np.nan)
    made_up_trial(tmp_path, gamma=0.1, ots=0.25)
    shown = readable(summary(load(tmp_path)))
    assert shown[["collapsed", "without ots", "OTS"]].to_numpy().tolist() == [
        ["1", "0", "collapsed"],
        ["0", "1", ""],
        ["0", "0", "0.250"],
    ]


def test_counts_that_are_zero_in_every_row_are_not_shown(tmp_path: Path) -> None:
    made_up_trial(tmp_path, collapsed=True)
    made_up_trial(tmp_path, gamma=0.01)
    folded, _ = fold(summary(load(tmp_path)))
    assert [name for name in COUNTS if name in folded] == ["collapsed"]


def test_the_suboptimality_of_a_cell_is_its_largest(tmp_path: Path) -> None:
    for seed, share in enumerate((0.0, 2.4e-16, 1e-17)):
        made_up_trial(tmp_path, seed=seed, suboptimality=share)
    made_up_trial(tmp_path, gamma=0.01)
    made_up_trial(tmp_path, gamma=0.01, seed=1, status="diverged", suboptimality=0.5)
    table = summary(load(tmp_path))
    assert table.suboptimality.tolist() == [2.4e-16, 0.0]
    assert readable(table).suboptimality.tolist() == ["2e-16", "0"]


def test_a_cell_splits_on_every_other_setting_that_varies(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0, batch_size=64)
    made_up_trial(tmp_path, seed=1, batch_size=128)
    made_up_trial(tmp_path, seed=2, batch_size=128, points=500)
    table = summary(load(tmp_path))
    assert table[["batch_size", "m", "seeds"]].to_numpy().tolist() == [
        [64, 1000, 1],
        [128, 500, 1],
        [128, 1000, 1],
    ]


def test_an_infinite_lss_stays_visible(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0, lss=np.inf)
    made_up_trial(tmp_path, seed=1)
    (row,) = summary(load(tmp_path)).itertuples()
    assert row.lss == np.inf
    assert np.isnan(row.lss_ci95)


@pytest.mark.parametrize("form", ["csv", "md", "latex", "json"])
def test_the_summary_prints_in_each_form(sweep: Path, form: str, capsys) -> None:
    assert tables.main([str(sweep), "--table", "summary", "--format", form]) == 0
    text = capsys.readouterr().out
    if form == "csv":
        pd.testing.assert_frame_equal(
            pd.read_csv(io.StringIO(text)), summary(load(sweep)), check_dtype=False
        )
    elif form == "json":
        assert len(json.loads(text)) == 8
    elif form == "md":
        assert len({line.count("|") for line in text.splitlines()[2:]}) == 1
        assert "OTS before training" in text
    else:
        assert r"\toprule" in text
        assert r"$\pm$" in text
        assert text.isascii()


@pytest.mark.slow
def test_a_script_whose_output_is_not_wanted_any_more_ends_quietly(sweep: Path) -> None:
    command = [sys.executable, "-m", "analysis.correlation", str(sweep)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
        script.stdout.close()
        assert script.stderr.read() == b""
    assert script.returncode == 0


@pytest.mark.parametrize("names", [["ots", "gap"], ["ots"], ["gap"], []])
def test_collapsed_stages_lose_those_of_ots_and_gap_that_there_are(names: list[str]) -> None:
    numbers = {name: [0.5, 1.0, 0.7] for name in (*names, "lss")}
    frame = pd.DataFrame({"collapsed": [False, True, None], **numbers})
    found = without_collapsed(frame)
    assert [*found] == [*frame]
    assert found.lss.tolist() == [0.5, 1.0, 0.7]
    for name in names:
        assert found[name].isna().tolist() == [False, True, False]


def test_a_cell_has_the_settings_that_vary_and_m_where_scores_depend_on_it(tmp_path: Path) -> None:
    for epochs in (6, 7):
        made_up_trial(tmp_path, seed=epochs, epochs=epochs)
    results = load(tmp_path)
    cell = ["dataset", "stages", "layers", "network", "gamma", "epochs"]
    assert cell_columns(results, points=False) == cell
    assert cell_columns(results) == [*cell, "points"]
