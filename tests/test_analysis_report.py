"""Results to figures and a page, on sweeps made up for the purpose."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import GAMMAS, by_m, made_up_sweep, made_up_trial
from matplotlib.figure import Figure

from analysis import report, tables
from analysis.measures.summary import summary
from analysis.plots import style
from analysis.plots.scores import (
    factor_against_epoch,
    factors_against_gamma,
    lss_against_epoch,
    ots_against_m,
    scores_against_gamma,
)
from analysis.results import load
from scoring import merging, trial_files
from scoring import tables as stored
from scoring.misplaced import misplaced
from scoring.places import SWEEP, table_path
from scoring.schemas import CONFIG, KEY, TABLES
from scoring.storage import write_file
from scoring.tables import read_table, write_table


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return made_up_sweep(tmp_path / "demo")


def labels(figure: Figure) -> list[list[str]]:
    return [[str(line.get_label()) for line in axes.lines] for axes in figure.axes]


@pytest.mark.long
def test_a_comparison_has_a_page_of_its_own(sweep: Path, tmp_path: Path, without_figures) -> None:
    other = tmp_path / "other.seeds"
    made_up_trial(other, seed=7)
    page = Path(report.build(sweep))
    before = page.read_bytes()
    compared = Path(report.build(sweep, other=other))
    assert compared == sweep / "report/against-other-seeds/index.html"
    assert 'id="compare"' in compared.read_text()
    assert page.read_bytes() == before
    assert misplaced(str(sweep)) == []


def test_the_nulls_are_drawn_into_every_lss_panel(sweep: Path) -> None:
    figure = lss_against_epoch(load(sweep))
    assert [axes.get_title() for axes in figure.axes] == [
        "digits, plain, K = 1",
        "digits, ResNet, K = 1",
    ]
    for axes, names in zip(figure.axes, labels(figure), strict=True):
        assert [name for name in names if name.startswith("γ")] == [f"γ = {g:g}" for g in GAMMAS]
        heights = {
            str(line.get_label()): np.asarray(line.get_ydata())[0]
            for line in axes.lines
            if str(line.get_label()) in (style.INITIAL, "√n")
        }
        assert len(heights) == 2
        np.testing.assert_allclose(heights["√n"], 10**0.5)


def test_the_nulls_are_drawn_into_the_panels_against_gamma(sweep: Path) -> None:
    figure = scores_against_gamma(load(sweep))
    accuracy, _, lss, ots = labels(figure)
    assert style.INITIAL not in accuracy
    assert lss.count(style.INITIAL) == ots.count(style.INITIAL) == 2
    assert "√n = 3.16" in lss
    assert "1/m = 0.001" in ots
    assert figure.axes[3].get_ylabel() == "OTS (fraction, m = 1,000)"


def test_the_nulls_are_drawn_into_the_panels_of_the_factors(sweep: Path) -> None:
    results = load(sweep)
    straightness, transport = labels(factors_against_gamma(results))
    assert straightness.count(style.INITIAL) == transport.count(style.INITIAL) == 2
    assert "n = 10" in straightness
    figure = factor_against_epoch(results)
    means = summary(results).set_index(["network", "gamma"]).straightness_factor
    for place, network in enumerate(("plain", "resnet")):
        lines = drawn(figure, place)
        assert {style.INITIAL, "n", *(f"γ = {g:g}" for g in GAMMAS)} <= set(lines)
        np.testing.assert_allclose(lines["n"][:, 1], 10)
        end = lines[f"γ = {GAMMAS[-1]:g}"][-1]
        np.testing.assert_allclose(end, [6, means[network, GAMMAS[-1]]])


def drawn(figure: Figure, place: int) -> dict[str, np.ndarray]:
    """The lines of a panel as (points, 2), by label."""
    return {str(line.get_label()): line.get_xydata() for line in figure.axes[place].lines}  # type: ignore[misc]


def test_ots_against_m_ends_at_the_mean_ots_of_the_cell(sweep: Path) -> None:
    results = load(sweep)
    figure = ots_against_m(results)
    names = ["digits, plain, K = 1", "digits, ResNet, K = 1"]
    assert [axes.get_title() for axes in figure.axes] == names * 2  # OTS, then gap
    means = summary(results).set_index(["network", "gamma"])
    for place, (score, network) in enumerate(
        (score, network) for score in ("ots", "gap") for network in ("plain", "resnet")
    ):
        assert figure.axes[place].get_xscale() == "log"
        lines = drawn(figure, place)
        for gamma in GAMMAS:
            points = lines[f"γ = {gamma:g}"]
            np.testing.assert_array_equal(points[:, 0], [100, 300, 1000])
            mean = means.loc[(network, gamma), score]
            factor = np.array([1.2, 1.1, 1.0]) if score == "ots" else 1.0
            np.testing.assert_allclose(points[:, 1], mean * factor)


def test_the_nulls_are_drawn_into_the_panels_against_m(sweep: Path) -> None:
    figure = ots_against_m(load(sweep))
    for place in range(2):
        curve = drawn(figure, place)["1/m"]
        np.testing.assert_allclose(curve[:, 0] * curve[:, 1], 1.0)
    initial = drawn(figure, 1)[style.INITIAL]
    np.testing.assert_allclose(initial, [[100, 1.2], [300, 1.1], [1000, 1.0]])
    np.testing.assert_allclose(drawn(figure, 3)[style.INITIAL][:, 1], 0.8)
    assert "1/m" not in drawn(figure, 3)  # gap


def test_a_stage_that_collapsed_leaves_its_trial_without_a_line(tmp_path: Path) -> None:
    made_up_trial(tmp_path, stages=2)
    trial = made_up_trial(tmp_path, stages=2, gamma=10.0, collapsed=True)
    rows = read_table(str(tmp_path), "tracks").to_pylist()
    rows = [row for row in rows if row["trial"] == trial]
    rows[-1] |= {"collapsed": False} | by_m(1.0, 1.0)  # the second stage of the last epoch
    write_table(str(tmp_path), "tracks", trial, rows)
    figure = ots_against_m(load(tmp_path))
    for place in range(2):
        assert figure.axes[place].get_title().endswith("collapsed: γ = 10")
        assert np.isnan(drawn(figure, place)["γ = 10"][:, 1]).all()
        assert np.isfinite(drawn(figure, place)["γ = 0"]).all()


def test_a_network_that_some_k_has_not_leaves_its_place_empty(tmp_path: Path) -> None:
    made_up_trial(tmp_path, "plain", stages=1, points=500)
    for stages in (1, 2):
        made_up_trial(tmp_path, "resnet", stages=stages, points=500 * stages)
    shown = [axes.get_visible() for axes in ots_against_m(load(tmp_path)).axes]
    assert shown == [True] * 4 + [False, True] * 2


@pytest.mark.slow
def test_a_panel_for_each_dataset_and_k(tmp_path: Path) -> None:
    for dataset, stages in (("digits", 1), ("cifar10", 1), ("cifar10", 4)):
        for gamma in np.geomspace(1e-5, 1, 14):  # too many for an even axis
            made_up_trial(tmp_path, gamma=float(gamma), dataset=dataset, stages=stages)
    results = load(tmp_path)
    assert len(lss_against_epoch(results).axes) == 3
    assert len(ots_against_m(results).axes) == 6
    against_gamma = scores_against_gamma(results)
    assert len(against_gamma.axes) == 8
    assert against_gamma.axes[0].get_xscale() == "symlog"


@pytest.mark.slow
def test_the_page_is_complete_in_itself(report_page: Path) -> None:
    page, sweep = report_page, report_page.parents[1]
    html = page.read_text()
    library = (Path(report.__file__).with_name("pages") / "echarts.min.js").read_text()
    assert html.count(library) == 1
    html = html.replace(library, "")  # it names addresses, but opens none
    for trial in load(sweep).trials.trial:
        assert trial in html
    loaded = re.findall(r"""(?:src|srcset|data|action|poster)\s*=\s*["']([^"']*)""", html)
    loaded += re.findall(r"""<link[^>]*href=["']([^"']*)""", html)
    assert len(loaded) >= 2
    assert all(link.startswith("data:") for link in loaded)
    assert not re.search(
        r"https?://|@import|url\(|<script (?!id=.data. type=.application/json.>)", html
    )
    for link in re.findall(r"""<a[^>]*href=["']([^"'#]+)""", html):  # files to take away
        assert (page.parent / link).is_file()
    names = {file.name for file in page.parent.iterdir()}
    assert not [name for name in names if name.startswith(".")]
    for name in ("summary", "correlations", "trials", "failed", "provenance"):
        assert {f"{name}.csv", f"{name}.tex"} <= names
    for name in ("lss_against_epoch", "scores_against_gamma", "ots_against_m"):
        assert {f"{name}.png", f"{name}.svg"} <= names
    assert "20 trials: 18 done, 1 diverged, 1 failed." in html
    assert "ValueError: &lt;b&gt;no&lt;/b&gt; &amp; so on" in html


def test_the_verdict_is_beside_the_page_in_markdown_with_its_figures(report_page: Path) -> None:
    text = (report_page.parent / "verdict.md").read_text()
    first, second, *_ = text.split("\n\n")
    assert first.startswith(
        "**None of the 10 cells came near the geodesic in training (LSS at most 1.25 and OTS "
    )
    assert second.startswith("Geodesic excess ")
    assert "m = 1,000" in second
    for figure in re.findall(r"\]\((.*)\)$", text, re.MULTILINE):
        assert (report_page.parent / figure).is_file()
    assert text.count("![") == 2


@pytest.mark.usefixtures("svg_only")
def test_a_sweep_without_a_finished_trial_has_a_page_that_says_so(tmp_path: Path) -> None:
    made_up_trial(tmp_path, status="failed", error="KeyError: 'x'")
    assert "No trial is done yet" in report.build(tmp_path).read_text()


@pytest.mark.usefixtures("svg_only")
def test_a_sweep_with_epochs_but_no_trial_has_a_page(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path)
    (tmp_path / table_path("trials", trial)).unlink()
    assert "No trial is done yet" in report.build(tmp_path).read_text()


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_one_trial_makes_a_page(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path)
    html = report.build(tmp_path).read_text()
    assert trial in html
    assert "Too few cells" in html


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_a_trial_without_any_score_makes_a_page(tmp_path: Path) -> None:
    scores = [f.name for f in TABLES["trials"] if str(f.type) == "double"]
    nothing = {n: np.nan for n in scores if n not in ("gamma", "learning_rate")}
    made_up_trial(tmp_path, "plain", **nothing)  # type: ignore[arg-type]
    made_up_trial(tmp_path, "resnet", **nothing)  # type: ignore[arg-type]
    assert "2 trials: 2 done" in report.build(tmp_path).read_text()


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_a_collapsed_trial_is_nowhere_shown_with_an_ots(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path, collapsed=True, ots=1.0, ties=1000)
    made_up_trial(tmp_path, gamma=0.01)
    page = report.build(tmp_path)
    cells = re.search(rf">{trial}</td>.*", page.read_text())
    assert cells
    shown = re.findall(r"<td[^>]*>([^<]*)</td>", cells[0])
    assert shown[-5:-2] == ["collapsed", "yes", "1000"]
    row = pd.read_csv(page.with_name("trials.csv")).set_index("trial").loc[trial]
    assert np.isnan(row.ots)
    assert row.collapsed
    assert "Collapsed: 1 of 2 trials" in page.read_text()


def provenance(page: Path) -> dict[str, str]:
    return pd.read_csv(page.with_name("provenance.csv")).set_index("what").value.to_dict()


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_provenance_names_source_data_and_the_largest_peak_of_memory(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0, peak_memory=0.5, peak_gpu_memory=3.0, revision="abc")
    made_up_trial(tmp_path, seed=1, peak_memory=1.25, revision="abc-dirty")
    made_up_trial(tmp_path, seed=2, revision="abc")
    made_up_trial(tmp_path, seed=0, dataset="mnist", data_checksum="123", revision="")
    found = provenance(report.build(tmp_path))
    assert found["revision of the source (git)"] == "abc; abc-dirty"
    assert found["data, with checksum"] == "digits fedcba9876543210; mnist 123"
    assert found["peak memory of a process, largest"] == "1.25 GB"
    assert found["peak GPU memory of a process, largest"] == "3 GB"


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("recipe", "meaning"),
    [
        ("adam", "the weight of the L2 penalty (weight decay)"),
        ("adamw", "the decoupled weight decay"),
    ],
)
def test_the_page_says_what_gamma_is(tmp_path: Path, recipe: str, meaning: str) -> None:
    made_up_trial(tmp_path, recipe=recipe, decoupled=recipe == "adamw", warmup=3.0)
    page = report.build(tmp_path)
    text = Path(page).read_text()
    assert f"γ is {meaning}. K is" in text
    assert ("coupled <code>weight_decay</code>. The penalty as" in text) == (recipe == "adam")
    assert ("decoupled <code>weight_decay</code>, and no" in text) == (recipe == "adamw")
    assert ("its values cannot be compared with" in text) == (recipe == "adamw")
    found = provenance(page)
    assert found["warm-up, epochs"] == "3"
    assert found["γ is"] in meaning


@pytest.mark.usefixtures("without_figures")
def test_provenance_leaves_out_what_is_not_known(tmp_path: Path) -> None:
    unknown = dict.fromkeys(["revision", "data_checksum", "peak_memory"])
    made_up_trial(tmp_path, **unknown)  # type: ignore[arg-type]
    made_up_trial(tmp_path, seed=1, revision="", data_checksum="", peak_memory=None)
    found = provenance(report.build(tmp_path))
    assert "hosts" in found
    assert not [what for what in found if "revision" in what or "data" in what or "peak" in what]


@pytest.mark.slow
def test_results_without_scores_by_m_have_a_page_without_that_figure(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path)
    write_table(str(tmp_path), "tracks", trial, [{"trial": trial, "epoch": 0, "stage": 1}])
    page = report.build(tmp_path)
    assert "OTS against m" not in page.read_text()
    assert not page.with_name("ots_against_m.png").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
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


def test_the_command_prints_the_path_of_the_page_and_loads_no_torch(report_page: Path) -> None:
    page, end = (report_page.parents[2] / "printed.txt").read_text().splitlines()
    assert Path(page) == report_page
    assert Path(page).is_file()
    assert end == "0 set()"


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_half_way_the_page_says_what_is_missing(tmp_path: Path) -> None:
    made_up_trial(tmp_path, "plain", 0.01)
    row = load(tmp_path).trials.iloc[0]
    names = [field.name for field in (*KEY, *CONFIG) if field.name != "trial"]
    cell = {name: row[name].item() if hasattr(row[name], "item") else row[name] for name in names}
    cells = [
        cell | {"network": network, "gamma": g}
        for network in ("plain", "resnet")
        for g in (0.01, 0.1)
    ]
    content = {"name": "demo", "search": None, "trials": cells, "extra": []}
    write_file(str(tmp_path), SWEEP, json.dumps(content).encode())
    html = report.build(tmp_path).read_text()
    told = "Not finished: 3 of 4 planned trials have no results yet (plain 1, ResNet 2)"
    assert told in html.replace("\xa0", " ")
    assert len(pd.read_csv(tmp_path / "report/missing.csv")) == 3
    for one in cells[1:]:
        made_up_trial(tmp_path, one["network"], one["gamma"])
    assert "Not finished" not in report.build(tmp_path).read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_who_loads_a_sweep_after_its_report_opens_no_trial_s_file(sweep: Path, monkeypatch) -> None:
    for module in (stored, merging):
        monkeypatch.setattr(module, "MANY", 3)
    time.sleep(2 * trial_files.TICK)
    report.build(sweep)
    monkeypatch.setattr(trial_files, "read_content", lambda *file: pytest.fail("opened a file"))
    assert len(load(sweep).trials) == 18
