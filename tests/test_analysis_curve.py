"""The curve of measures in tables, the figure, claims and the page, on made-up sweeps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep, made_up_trial, scored_at_another_m

from analysis import figures, report
from analysis.claims import claims
from analysis.measures import curve
from analysis.measures.layout import fold
from analysis.plots.curve import speed_by_block
from analysis.plots.scores import scores_against_gamma
from analysis.plots.stages import scores_by_stage
from analysis.plots.style import SHUFFLED
from analysis.results import load
from analysis.tables import main as tables


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Both networks at two gammas with two seeds, and one trial without a curve."""
    for network in ("plain", "resnet"):
        for gamma in (0.0, 0.01):
            for seed in (0, 1):
                made_up_trial(tmp_path, network, gamma, seed, stages=2, tried=["curve"])
    made_up_trial(tmp_path, seed=2)
    return tmp_path


def test_a_cell_has_a_row_with_its_baselines(measured: Path) -> None:
    table = curve.by_cell(load(measured))
    assert len(table) == 4
    assert set(table.seeds) == {2}
    assert set(table.m) == {500}
    row = table.iloc[0]
    assert (row.curve_length_ratio, row.curve_length_ratio_initial) == pytest.approx((2, 2))
    assert (row.curve_block_factor, row.curve_block_factor_shuffled) == pytest.approx((1.5, 1.25))
    assert row.curve_speed_variation == 0
    assert row.curve_speed_variation_initial == pytest.approx(np.std([1, 2, 3, 4, 5]) / 3)
    assert np.isnan(row.curve_length_ratio_ci95)  # all seeds gave the same number


def test_speeds_are_in_units_of_the_geodesics_constant_speed(measured: Path) -> None:
    rows = curve.by_block(load(measured))
    assert len(rows) == 8 * 2 * 2 * 5  # trials, stages, before and after, blocks
    means = rows.groupby(["trial", "evaluation", "stage"]).speed.mean()
    assert means.tolist() == pytest.approx([2.0] * len(means))  # the length ratio
    before = rows[rows.evaluation == "curve_initial"].groupby("block").speed.mean()
    assert before.tolist() == pytest.approx([2 / 3 * k for k in range(1, 6)])


def test_the_figure_has_each_block_the_geodesic_and_the_network_before_training(
    measured: Path,
) -> None:
    figure = speed_by_block(load(measured, columns=figures.COLUMNS))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 4  # stages x networks
    for axes in shown:
        named = {str(line.get_label()): line for line in axes.lines}
        lines = {name: line for name, line in named.items() if not name.startswith("_")}
        assert {"γ = 0", "γ = 0.01", "geodesic", "before training"} == lines.keys()
        assert lines["γ = 0"].get_ydata() == pytest.approx([2] * 5)
        assert lines["geodesic"].get_ydata() == pytest.approx([1] * 2)
        assert axes.get_ylim()[0] == 0


def test_one_plain_sentence_says_what_was_found(measured: Path) -> None:
    plain, resnet = curve.sentences(load(measured))
    assert plain == (
        "Plain: the curve of measures is 2.00 times as long as the geodesic (before training "
        "2.00), and its speed varies by 0% over blocks (before training 47%; the geodesic has 0%). "
        "Single blocks have OTS 0.750; before training 0.750, of shuffled displacements 0.750 "
        "(4 trials, 2 seeds, m = 500)."
    )
    assert resnet.startswith("ResNet: ")
    made_up_trial(measured, gamma=0.5, stages=2, tried=["curve"], curve_length_ratio=np.nan)
    assert "4 trials" in curve.sentences(load(measured))[1]


def test_networks_that_were_scored_at_two_m_are_no_more_seeds(measured: Path) -> None:
    results = load(measured)
    pd.testing.assert_frame_equal(
        curve.by_cell(scored_at_another_m(results)), curve.by_cell(results)
    )


SIZES = {"several m": {"curve_m": 100}, "several settings": {"evaluations": '{"curve": {"a": 1}}'}}


@pytest.mark.parametrize("other", SIZES.values(), ids=SIZES)
def test_curves_of_several_settings_or_m_have_no_mean(measured: Path, other: dict) -> None:
    made_up_trial(measured, stages=2, tried=["curve"], seed=1, **other)
    results = load(measured)
    table = curve.by_cell(results)
    mixed = (table.network == "resnet") & (table.gamma == 0)
    assert table.curve_length_ratio.isna().tolist() == mixed.tolist()
    assert table.curve_block_ots_initial.isna().tolist() == mixed.tolist()
    assert (table.warning == "several settings or m: curve").tolist() == mixed.tolist()
    plain, resnet = curve.sentences(results)
    assert "is 2.00 times as long" in plain
    assert resnet == (
        "ResNet: the curve of measures has no mean over trials: it was measured with several "
        "settings or m."
    )


def test_a_table_without_warnings_does_not_show_them(measured: Path) -> None:
    table = curve.by_cell(load(measured))
    assert table.warning.isna().all()
    assert "warning" not in fold(table)[0]


def test_seeds_of_different_cells_give_a_mean_without_an_interval(tmp_path: Path) -> None:
    gammas = (0.0, 0.01, 0.1)
    for seed, own in enumerate(gammas):
        for network, there in (("plain", [own]), ("resnet", gammas)):
            for gamma in there:
                given = {"curve_length_ratio": 2 + gamma + 0.1 * seed}
                made_up_trial(tmp_path, network, gamma, seed, tried=["curve"], **given)
    plain, resnet = curve.sentences(load(tmp_path))
    assert plain.startswith("Plain: the curve of measures is 2.13 times as long")
    assert resnet.startswith("ResNet: the curve of measures is 2.13 (1.90 to 2.40) times")


def test_claims_about_constant_speed_are_checked(measured: Path) -> None:
    table = claims(load(measured)).set_index("name")
    assert table.version["constant_speed_resnets"] == "v1, v3"
    assert table.comparisons["constant_speed_resnets"] == table.agree["constant_speed_resnets"] == 1
    assert table.comparisons["constant_speed"] == 2
    assert (table.comparisons["curve_shortens"], table.agree["curve_shortens"]) == (2, 0)
    assert "m = 500" in table.numbers["curve_shortens"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_the_page_has_a_section_only_where_there_is_a_curve(measured: Path, tmp_path: Path) -> None:
    page = Path(report.build(measured)).read_text()
    assert '<h2 id="curve">' in page
    assert "times as long as the geodesic" in page
    assert (measured / "report/curve.csv").is_file()
    other = made_up_sweep(tmp_path / "other")
    assert '<h2 id="curve">' not in Path(report.build(other)).read_text()


def test_the_command_prints_the_table_or_says_how_to_get_it(measured: Path, capsys) -> None:
    assert tables([str(measured), "--table", "curve"]) == 0
    assert (
        "| Wasserstein length ratio | Wasserstein length ratio before training |"
        in capsys.readouterr().out
    )
    other = measured / "other"
    made_up_trial(other)
    assert tables([str(other), "--table", "curve"]) == 2
    assert f"geosweep evaluate {other} curve" in capsys.readouterr().err


def test_ots_stands_next_to_that_of_shuffled_displacements(measured: Path) -> None:
    results = load(measured, columns=figures.COLUMNS)
    for draw in (scores_against_gamma, scores_by_stage):
        figure = draw(results)
        shown = [
            axes
            for axes in figure.axes
            if any(line.get_label() == SHUFFLED for line in axes.get_lines())
        ]
        assert {axes.get_ylabel().partition(" ")[0] for axes in shown} - {""} == {"OTS"}
        lines = [x for axes in shown for x in axes.get_lines() if x.get_label() == SHUFFLED]
        heights = np.concatenate([np.asarray(line.get_ydata(), "float64") for line in lines])
        assert heights == pytest.approx([0.8] * len(heights), nan_ok=True)
        handles = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
        texts = [text.get_text() for one in handles if one for text in one.get_texts()]
        assert any("shuffled" in text for text in texts)
