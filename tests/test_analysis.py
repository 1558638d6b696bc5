"""Results to tables, figures and a report, on sweeps made up for the purpose."""

import io
import json
import re
import subprocess
import sys
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from analysis import drawing, figures, report, tables
from analysis.findings import correlations, sentences, spearman
from analysis.results import ResultsError, load
from scoring.schemas import TABLES, table_path, write_table

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
    **change: object,
) -> str:
    """Write the four tables of a trial with plausible numbers; returns its id."""
    trial = f"{dataset[:5]}{network[0]}{stages}g{gamma:g}s{seed}"
    rng = np.random.default_rng(zlib.crc32(f"{dataset} {network} {stages} {gamma} {seed}".encode()))
    key = {
        "trial": trial,
        "dataset": dataset,
        "network": network,
        "stages": stages,
        "gamma": gamma,
        "seed": seed,
    }
    blocks = 10 if stages == 1 else 5
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
    }
    if status != "done":
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
                "seconds": 2.0,
                "learning_rate": 1e-3,
                "test_loss": 1 - progress,
            }
        )
    end = {name: curve[-1][name] for name in ("test_accuracy", "clean_train_accuracy", "lss")}
    end |= {name: curve[-1][name] for name in ("train_accuracy", "inverse_lss", "lsr", "test_loss")}
    scores = {
        "ots": 0.9 - 0.1 * strength if network == "resnet" else 0.004,
        "gap": 0.9,
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
        "status": "done",
        "epochs_done": epochs,
    }
    row = key | config | machine | end | scores | change
    write_table(str(root), "trials", trial, [row])
    write_table(str(root), "epochs", trial, curve)
    track = {
        "blocks": blocks,
        "m": 1000,
        "split": "test",
        "shares": [1 / blocks] * blocks,
        "lss": end["lss"],
    }
    places = [(epoch, stage + 1) for epoch in range(epochs + 1) for stage in range(stages)]
    write_table(
        str(root), "tracks", trial, [key | track | {"epoch": e, "stage": k} for e, k in places]
    )
    points = [
        key | {"epoch": epochs, "stage": 1, "split": "test", "point": i} for i in range(samples)
    ]
    write_table(str(root), "samples", trial, points)
    return trial


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """2 networks x 4 gammas x 2 seeds; a trial of a third seed diverged and one failed."""
    root = tmp_path / "demo"
    for network in ("plain", "resnet"):
        for gamma in GAMMAS:
            for seed in (0, 1):
                made_up_trial(root, network, gamma, seed)
    made_up_trial(root, "plain", 0.0, 2, status="diverged")
    made_up_trial(root, "resnet", 0.0, 2, status="failed", error="ValueError: <b>no</b> & so on")
    return root


def test_a_folder_gives_the_four_tables(sweep: Path) -> None:
    results = load(sweep)
    assert [len(table) for table in results] == [18, 16 * 7, 16 * 7, 16 * 5]
    for table, schema in zip(results, TABLES.values(), strict=True):
        assert list(table.columns) == schema.names
        assert isinstance(table.dataset.dtype, pd.CategoricalDtype)
    assert list(results.trials.network.cat.categories) == ["plain", "resnet"]
    assert results.epochs.dtypes[["epoch", "lss"]].tolist() == [np.int64, np.float64]
    assert isinstance(results.trials.started_at.dtype, pd.DatetimeTZDtype)


def test_tables_not_asked_for_come_without_rows(sweep: Path) -> None:
    results = load(sweep, tables=("trials",))
    assert (len(results.trials), len(results.epochs), len(results.samples)) == (18, 0, 0)


def test_a_uri_reads_like_a_path(sweep: Path) -> None:
    pd.testing.assert_frame_equal(load(f"file://{sweep}").trials, load(sweep).trials)


def log_to_mlflow(client, experiment: str, root: Path, trial: str, status: str) -> None:
    run = client.create_run(experiment, tags={"geosweep.trial": trial}).info.run_id
    for table in TABLES:
        file = root / table_path(table, trial)
        if file.exists():
            client.log_artifact(run, str(file), f"results/{table}")
    client.set_terminated(run, status)


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
    row, single = tables.summary(load(tmp_path)).itertuples()
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(row.test_accuracy, np.mean(values))
    np.testing.assert_allclose(row.test_accuracy_ci95, (high - low) / 2)
    assert (row.seeds, row.m, row.ots_random) == (3, 1000, 0.001)
    assert single.seeds == 1
    assert np.isfinite(single.test_accuracy)
    assert np.isnan(single.test_accuracy_ci95)


def test_failed_and_diverged_trials_are_counted_and_in_no_mean(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0, test_accuracy=0.5, ots=np.nan)
    made_up_trial(tmp_path, seed=1, status="diverged", test_accuracy=0.1)
    made_up_trial(tmp_path, seed=2, status="failed", test_accuracy=0.1)
    (row,) = tables.summary(load(tmp_path)).itertuples()
    assert (row.seeds, row.diverged, row.failed, row.without_ots) == (1, 1, 1, 1)
    assert row.test_accuracy == 0.5
    assert np.isnan(row.ots)


def test_a_cell_splits_on_every_other_setting_that_varies(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0, batch_size=64)
    made_up_trial(tmp_path, seed=1, batch_size=128)
    made_up_trial(tmp_path, seed=2, batch_size=128, points=500)
    table = tables.summary(load(tmp_path))
    assert table[["batch_size", "m", "seeds"]].to_numpy().tolist() == [
        [64, 1000, 1],
        [128, 500, 1],
        [128, 1000, 1],
    ]


def test_an_infinite_lss_stays_visible(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0, lss=np.inf)
    made_up_trial(tmp_path, seed=1)
    (row,) = tables.summary(load(tmp_path)).itertuples()
    assert row.lss == np.inf
    assert np.isnan(row.lss_ci95)


@pytest.mark.parametrize("form", ["csv", "md", "latex", "json"])
def test_the_summary_prints_in_each_form(sweep: Path, form: str, capsys) -> None:
    assert tables.main([str(sweep), "--format", form]) == 0
    text = capsys.readouterr().out
    if form == "csv":
        pd.testing.assert_frame_equal(
            pd.read_csv(io.StringIO(text)), tables.summary(load(sweep)), check_dtype=False
        )
    elif form == "json":
        assert len(json.loads(text)) == 8
    elif form == "md":
        assert len({line.count("|") for line in text.splitlines()[2:]}) == 1
        assert "OTS at init." in text
    else:
        assert r"\toprule" in text
        assert r"$\pm$" in text
        assert text.isascii()


def test_spearman_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=12).round(1)
    y = (x + rng.normal(size=12)).round(1)
    found = spearman(np.append(x, np.nan), np.append(y, 1.0))
    np.testing.assert_allclose(found["rho"], stats.spearmanr(x, y).statistic)
    exact = stats.permutation_test(
        (x,), lambda x: stats.spearmanr(x, y).statistic, permutation_type="pairings",
        n_resamples=2000, rng=2,
    )  # fmt: skip
    np.testing.assert_allclose(found["p"], exact.pvalue, atol=0.03)
    assert found["low"] < found["rho"] < found["high"]
    assert np.isnan(spearman(np.ones(9), y[:9])["rho"])


def test_pooling_that_turns_a_correlation_round_is_warned_of(tmp_path: Path) -> None:
    for i in range(6):  # rises within each network, falls when pooled
        made_up_trial(tmp_path, "plain", seed=i, lss=10 + i, test_accuracy=0.1 + i / 100)
        made_up_trial(tmp_path, "resnet", seed=i, lss=1 + i, test_accuracy=0.8 + i / 100)
    results = load(tmp_path)
    table = correlations(results).set_index("network")
    assert (table.rho > 0).to_dict() == {"plain": True, "resnet": True, "pooled": False}
    assert table.warning.str.contains("signs differ").all()
    assert "do not read the pooled number" in sentences(results)[-1]


def test_findings_are_counted_against_their_nulls(tmp_path: Path) -> None:
    for gamma, lss in ((0.0, 3.3), (0.01, 2.0)):
        made_up_trial(tmp_path, "resnet", gamma, lss=lss, lss_initial=3.2, ots=0.1)
        made_up_trial(tmp_path, "plain", gamma, lss=3 * lss, lss_initial=10.0, ots=0.2)
    made_up_trial(tmp_path, "plain", 0.01, 1, status="failed")
    said = sentences(load(tmp_path))
    assert said[0] == "5 trials: 4 done, 0 diverged, 1 failed."
    assert "in 3 of 4 trials (plain 2 of 2, ResNet 1 of 2)" in said[1]
    assert "in 2 of 2 cells with γ > 0" in said[2]
    assert "ResNet LSS is lower than plain LSS in 2 of 2 paired cells" in said[3]
    assert "ResNet OTS is higher than plain OTS in 0 of 2" in said[4]
    assert "before any training it is in 2 of them" in said[4]


def labels(figure: Figure) -> list[list[str]]:
    return [[str(line.get_label()) for line in axes.lines] for axes in figure.axes]


def test_the_nulls_are_drawn_into_every_lss_panel(sweep: Path) -> None:
    figure = figures.lss_against_epoch(load(sweep))
    assert [axes.get_title() for axes in figure.axes] == [
        "digits, plain, K = 1",
        "digits, ResNet, K = 1",
    ]
    for axes, names in zip(figure.axes, labels(figure), strict=True):
        assert [name for name in names if name.startswith("γ")] == [f"γ = {g:g}" for g in GAMMAS]
        heights = {
            str(line.get_label()): np.asarray(line.get_ydata())[0]
            for line in axes.lines
            if str(line.get_label()) in (drawing.INITIAL, "√n")
        }
        assert len(heights) == 2
        np.testing.assert_allclose(heights["√n"], 10**0.5)


def test_the_nulls_are_drawn_into_the_panels_against_gamma(sweep: Path) -> None:
    figure = figures.scores_against_gamma(load(sweep))
    accuracy, _, lss, ots = labels(figure)
    assert drawing.INITIAL not in accuracy
    assert lss.count(drawing.INITIAL) == ots.count(drawing.INITIAL) == 2
    assert "√n = 3.16" in lss
    assert "1/m = 0.001" in ots
    assert figure.axes[3].get_ylabel() == "OTS (fraction, m = 1,000)"


def test_a_panel_for_each_dataset_and_k(tmp_path: Path) -> None:
    for dataset, stages in (("digits", 1), ("cifar10", 1), ("cifar10", 4)):
        for gamma in np.geomspace(1e-5, 1, 14):  # too many for an even axis
            made_up_trial(tmp_path, gamma=float(gamma), dataset=dataset, stages=stages)
    results = load(tmp_path)
    assert len(figures.lss_against_epoch(results).axes) == 3
    against_gamma = figures.scores_against_gamma(results)
    assert len(against_gamma.axes) == 8
    assert against_gamma.axes[0].get_xscale() == "symlog"


def test_the_page_is_complete_in_itself(sweep: Path) -> None:
    page = report.build(sweep)
    assert page == sweep / "report" / "index.html"
    html = page.read_text()
    for trial in load(sweep).trials.trial:
        assert trial in html
    loaded = re.findall(r"""(?:src|srcset|data|action|poster)\s*=\s*["']([^"']*)""", html)
    loaded += re.findall(r"""<link[^>]*href=["']([^"']*)""", html)
    assert len(loaded) >= 2
    assert all(link.startswith("data:") for link in loaded)
    assert not re.search(r"https?://|@import|url\(|<script", html)
    for link in re.findall(r"""<a[^>]*href=["']([^"'#]*)""", html):  # files to take away
        assert (page.parent / link).is_file()
    names = {file.name for file in page.parent.iterdir()}
    assert not [name for name in names if name.startswith(".")]
    for name in ("summary", "correlations", "trials", "failed", "provenance"):
        assert {f"{name}.csv", f"{name}.tex"} <= names
    for name in ("lss_against_epoch", "scores_against_gamma"):
        assert {f"{name}.png", f"{name}.svg"} <= names
    assert "18 trials: 16 done, 1 diverged, 1 failed." in html
    assert "ValueError: &lt;b&gt;no&lt;/b&gt; &amp; so on" in html


def test_a_sweep_without_a_finished_trial_has_a_page_that_says_so(tmp_path: Path) -> None:
    made_up_trial(tmp_path, status="failed", error="KeyError: 'x'")
    assert "No trial is done yet" in report.build(tmp_path).read_text()


def test_a_sweep_with_epochs_but_no_trial_has_a_page(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path)
    (tmp_path / table_path("trials", trial)).unlink()
    assert "No trial is done yet" in report.build(tmp_path).read_text()


def test_one_trial_makes_a_page(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path)
    html = report.build(tmp_path).read_text()
    assert trial in html
    assert "Too few trials" in html


def test_a_trial_without_any_score_makes_a_page(tmp_path: Path) -> None:
    scores = [f.name for f in TABLES["trials"] if str(f.type) == "double"]
    nothing = {n: np.nan for n in scores if n not in ("gamma", "learning_rate")}
    made_up_trial(tmp_path, "plain", **nothing)  # type: ignore[arg-type]
    made_up_trial(tmp_path, "resnet", **nothing)  # type: ignore[arg-type]
    assert "2 trials: 2 done" in report.build(tmp_path).read_text()


def test_a_report_goes_where_it_is_told(sweep: Path, tmp_path: Path) -> None:
    assert report.build(f"file://{sweep}", tmp_path / "out") == tmp_path / "out" / "index.html"
    assert report.build(f"file://{sweep}") == sweep / "report" / "index.html"


@pytest.mark.parametrize("main", [tables.main, report.main])
def test_bad_input_ends_with_one_line_and_status_2(main, tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert str(tmp_path) in told.err


def test_the_command_prints_the_path_of_the_page_and_loads_no_torch(sweep: Path) -> None:
    code = """
import runpy, sys
try:
    runpy.run_module("analysis.report", run_name="__main__")
except SystemExit as end:
    print(end.code, {"torch", "ray", "mlflow", "matplotlib.pyplot"} & set(sys.modules))
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(sweep)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    page, end = ran.stdout.splitlines()
    assert Path(page).is_file()
    assert end == "0 set()"
