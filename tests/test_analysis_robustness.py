"""Lesions, noise, attacks and separation in tables, figures and the page, on made-up sweeps."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import EVALUATIONS, made_up_rows, made_up_sweep, made_up_trial
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from analysis import figures, report, tables
from analysis.measures import robustness
from analysis.measures.robustness import (
    ALL_AUCS,
    AUCS,
    RATIOS,
    by_cell,
    lost_sentence,
    mixed_sentence,
    of_trials,
    settings_sentence,
)
from analysis.results import load
from scoring.robustness.subject import MEASURED
from scoring.tables import read_rows, write_table

EVERY = ("lesion", "noise", "fgsm", "pgd", "separation")
NAMES = [
    *("accuracy_against_units", "accuracy_without_blocks"),
    *("accuracy_against_noise", "mixed_by_distance"),
]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Plain networks, which are fragile, and ResNets; 2 gammas x 2 seeds, one never evaluated."""
    root = tmp_path / "demo"
    for gamma in (0.0, 1e-3):
        for seed in (0, 1):
            for network, fragile in (("plain", 4.0 + seed), ("resnet", 0.01)):
                made_up_trial(root, network, gamma, seed, tried=EVERY, fragile=fragile)
    made_up_trial(root, "resnet", 0.0, 2)
    made_up_trial(root, "plain", 0.0, 2, status="failed")
    return root


def draw(root: Path, name: str) -> Figure:
    return figures.draw(load(root, columns=figures.COLUMNS), only=[name])[name]


def lines(figure: Figure, place: int) -> dict[str, np.ndarray]:
    """The lines of a panel as (points, 2), by label; of several, the last one."""
    here = figure.axes[place].lines
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in here}


def heights(figure: Figure, place: int, label: str) -> list[float]:
    """Of the horizontal lines of a panel with this label."""
    here = [line for line in figure.axes[place].lines if line.get_label() == label]
    return [float(np.asarray(line.get_ydata())[0]) for line in here]


def rows(root: Path, network: str, gamma: float, **where: object) -> pd.DataFrame:
    frame = load(root).robustness
    keep = (frame.network == network) & (frame.gamma == gamma)
    for column, value in where.items():
        keep &= frame[column] == value
    return frame[keep]


def means(frame: pd.DataFrame, x: str, y: str) -> np.ndarray:
    mean = frame.dropna(subset=y).groupby(x)[y].mean()
    return np.column_stack([mean.index, mean])


# Figures


@pytest.mark.slow
def test_figures_are_absent_where_nothing_was_evaluated(tmp_path: Path) -> None:
    results = load(made_up_sweep(tmp_path))
    assert not set(NAMES) & set(figures.draw(results))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tried", "there"),
    [
        (("lesion",), NAMES[:2]),
        (("noise",), NAMES[2:3]),
        (("pgd",), NAMES[2:3]),
        (("separation",), NAMES[3:]),
    ],
)
def test_a_figure_is_there_for_each_evaluation(
    tmp_path: Path, tried: tuple[str, ...], there: list[str]
) -> None:
    made_up_trial(tmp_path, tried=tried)
    drawn = figures.draw(load(tmp_path, columns=figures.COLUMNS))
    assert [name for name in NAMES if name in drawn] == there


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_numbers_that_are_missing_everywhere_are_nothing_measured(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path, tried=EVERY, **dict.fromkeys([*ALL_AUCS, *RATIOS], np.nan))  # type: ignore[arg-type]
    nothing = dict.fromkeys(MEASURED, np.nan)
    changed = [row | nothing for row in read_rows(str(tmp_path), "robustness", trial)]
    write_table(str(tmp_path), "robustness", trial, changed)
    results = load(tmp_path)
    assert not set(NAMES) & set(figures.draw(results))
    assert len(by_cell(results)) == 0
    assert 'id="robustness"' not in report.build(tmp_path).read_text()


def test_a_trial_that_is_not_done_is_in_no_figure(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path, status="failed")
    write_table(
        str(tmp_path),
        "robustness",
        trial,
        [{"trial": trial} | row for row in made_up_rows(EVERY, 1, 5, 0.9, 1.0)],
    )
    assert not set(NAMES) & set(figures.draw(load(tmp_path)))


@pytest.mark.slow
def test_accuracy_against_units_is_the_mean_over_seeds_of_each_network(sweep: Path) -> None:
    figure = draw(sweep, "accuracy_against_units")
    titles = [axes.get_title() for axes in figure.axes]
    start = "digits, K = 1, γ = 0\nblock 3, "
    back, mean = f"{start}previous state", f"{start}means"
    assert titles == [back, "γ = 0.001", mean, "γ = 0.001"]
    kinds = [(new, gamma) for new in ("previous", "mean") for gamma in (0.0, 1e-3)]
    for place, (replacement, gamma) in enumerate(kinds):
        drawn = lines(figure, place)
        for network, label in (("plain", "plain"), ("resnet", "ResNet")):
            for units, more in (("top", ""), ("random", ", random units")):
                kind = {"replacement": replacement, "units": units}
                own = rows(sweep, network, gamma, evaluation="lesion", **kind)
                assert_allclose(drawn[label + more], means(own, "level", "accuracy"))
        nulls = [
            rows(sweep, network, gamma, evaluation="lesion", level=0).accuracy.mean()
            for network in ("plain", "resnet")
        ]
        assert_allclose(heights(figure, place, "baseline"), nulls)
        assert_allclose(heights(figure, place, "chance"), [0.1])
        assert len(figure.axes[place].collections) == 4  # bands
    assert "m = 500" in figure.axes[0].get_ylabel()


def test_lesions_of_earlier_versions_are_drawn_as_the_paper_s(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path, tried=["lesion"])
    kept = [
        row | {"replacement": None, "units": None}
        for row in read_rows(str(tmp_path), "robustness", trial)
        if row["replacement"] != "mean" and row["units"] != "random"
    ]
    write_table(str(tmp_path), "robustness", trial, kept)
    figure = draw(tmp_path, "accuracy_against_units")
    assert len(figure.axes) == 1
    assert figure.axes[0].get_title().endswith("block 3, previous state")
    own = rows(tmp_path, "resnet", 0.0, evaluation="lesion")
    assert_allclose(lines(figure, 0)["ResNet"], means(own, "level", "accuracy"))
    assert not {label for label in lines(figure, 0) if "random" in label}


def test_the_units_are_counted_where_the_shape_is_known(tmp_path: Path) -> None:
    made_up_trial(tmp_path, tried=["lesion"], stages=2, shapes="16 x 8 x 8, 100")
    figure = draw(tmp_path, "accuracy_against_units")
    titles = [" ".join(axes.get_title().split("\n")[1:]) for axes in figure.axes]
    assert titles == [
        f"stage {stage}, block 3, {what}"
        for stage in (1, 2)
        for what in ("previous state", "means")
    ]
    assert figure.axes[3].get_xlabel() == "share of the 100 units eliminated"


def test_blocks_stand_beside_each_other_stage_by_stage(tmp_path: Path) -> None:
    made_up_trial(tmp_path, tried=["lesion"], stages=2)
    figure = draw(tmp_path, "accuracy_without_blocks")
    skip, swap = figure.axes
    assert [text.get_text() for text in skip.get_xticklabels()] == list("1234512345")
    assert [text.get_text() for text in swap.get_xticklabels()] == list("12341234")
    assert np.diff(skip.get_xticks()).min() == 1  # no two blocks in one place
    ends = [np.asarray(line.get_xdata())[[0, -1]] for line in skip.lines[:2]]
    assert ends[0][1] < ends[1][0]
    whole = rows(tmp_path, "resnet", 0.0, evaluation="lesion", level=0).accuracy.mean()
    for place, kind in enumerate(("skip", "swap")):
        accuracy = rows(tmp_path, "resnet", 0.0, evaluation=kind).accuracy.iloc[0]
        assert_allclose(lines(figure, place)["ResNet"][:, 1], accuracy)
        assert_allclose(heights(figure, place, "baseline"), [whole])


def test_variation_is_that_of_the_last_block_of_the_last_stage(tmp_path: Path) -> None:
    for network, fragile in (("plain", 2.0), ("resnet", 1.0)):
        made_up_trial(tmp_path, network, stages=4, tried=["noise", "fgsm"], fragile=fragile)
    figure = draw(tmp_path, "accuracy_against_noise")
    names = ["random noise", "FGSM"]
    assert [axes.get_title() for axes in figure.axes][1:] == [names[1], *names]
    assert figure.axes[0].get_title("left") == "digits, K = 4, γ = 0\nrandom noise"
    for place, name in enumerate(("noise", "fgsm")):
        levels = np.array(EVALUATIONS[name]["levels"])
        accuracy = rows(tmp_path, "plain", 0.0, evaluation=name)
        assert_allclose(lines(figure, place)["plain"], means(accuracy, "level", "accuracy"))
        drawn = lines(figure, place + 2)
        for label, fragile in (("plain", 2.0), ("ResNet", 1.0)):
            expected = fragile * 6 * levels / levels.max()  # n = 5 blocks
            assert_allclose(drawn[label], np.column_stack([levels, expected]))
        assert_allclose(drawn["x⁽⁰⁾"][:, 1], levels / levels.max())  # of the ResNet


def test_tenths_of_pairs_stand_beside_the_untrained_network(sweep: Path) -> None:
    figure = draw(sweep, "mixed_by_distance")
    assert [axes.get_title().split("\n")[-1] for axes in figure.axes] == [
        *("any ends", "γ = 0.001", "equally distant ends", "γ = 0.001")
    ]
    relative = 1.45 - 0.1 * np.arange(10)
    for place in range(4):
        matched = place > 1
        expected = (relative + 2) / 3 if matched else relative
        before = np.ones(10) if matched else (relative + 1) / 2
        drawn = lines(figure, place)
        assert_allclose(drawn["ResNet"], np.column_stack([np.arange(1, 11), expected]))
        assert_allclose(drawn["before training"][:, 1], before)
        assert heights(figure, place, "all of these pairs") == [1]


def test_a_line_of_too_few_mixed_pairs_is_left_out(tmp_path: Path) -> None:
    for network, whole in (("plain", 0.1), ("resnet", 0.001)):  # of 44,850 pairs
        trial = made_up_trial(tmp_path, network, tried=["separation"])
        changed = read_rows(str(tmp_path), "robustness", trial)
        for row in changed:
            row["mixed"] = whole
        write_table(str(tmp_path), "robustness", trial, changed)
    drawn = lines(draw(tmp_path, "mixed_by_distance"), 0)
    assert_allclose(drawn["plain"][:, 1], 1)
    assert np.isnan(drawn["ResNet"][:, 1]).all()


def test_pairs_of_earlier_versions_have_no_untrained_network(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path, tried=["separation"])
    nothing = dict.fromkeys(["mixed_initial", "mixed_matched", "mixed_matched_initial"])
    old = [row | nothing for row in read_rows(str(tmp_path), "robustness", trial)]
    write_table(str(tmp_path), "robustness", trial, old)
    figure = draw(tmp_path, "mixed_by_distance")
    assert [axes.get_title().split("\n")[-1] for axes in figure.axes] == ["any ends"]
    assert "before training" not in lines(figure, 0)


def test_a_wide_interval_leaves_the_panel(tmp_path: Path) -> None:
    for seed, fragile in ((0, 1.0), (1, 3.0)):
        made_up_trial(tmp_path, seed=seed, tried=["noise"], fragile=fragile)
    low, high = draw(tmp_path, "accuracy_against_noise").axes[1].get_ylim()
    assert (low, high) == (0, pytest.approx(1.12 * 2 * 11))


@pytest.mark.slow
def test_the_command_draws_them_by_name(sweep: Path, capsys) -> None:
    assert figures.main([str(sweep), "--only", *NAMES, "--form", "svg"]) == 0
    assert [Path(line).stem for line in capsys.readouterr().out.splitlines()] == NAMES
    made_up_trial(sweep.parent / "other")
    assert figures.main([str(sweep.parent / "other"), "--only", NAMES[0]]) == 2
    assert "the evaluation lesion" in capsys.readouterr().err


def test_mixed_pairs_are_told_next_to_the_untrained_network(sweep: Path) -> None:
    said = mixed_sentence(of_trials(load(sweep)))
    assert "plain 1.15, ResNet 1.15; before training plain 1.00, ResNet 1.00" in said
    assert "too few" not in said


def test_trials_with_too_few_mixed_pairs_are_counted(tmp_path: Path) -> None:
    name = "mixed_ratio_different_matched"
    made_up_trial(tmp_path, tried=["separation"], **{name: np.nan})
    few = mixed_sentence(of_trials(load(tmp_path)))
    assert few == "In 1 trial noise mixes up too few pairs to say whether close tracks go first."
    made_up_trial(tmp_path, seed=1, tried=["separation"])
    said = mixed_sentence(of_trials(load(tmp_path)))
    assert said.startswith("Of pairs of two classes")
    assert said.endswith(few)


def test_nothing_is_said_about_pairs_that_were_not_controlled(tmp_path: Path) -> None:
    old = {name: np.nan for name in RATIOS if name.endswith(("matched", "initial"))}
    made_up_trial(tmp_path, tried=["separation"], **old)
    assert mixed_sentence(of_trials(load(tmp_path))) == ""


def test_losses_are_told_for_each_replacement(sweep: Path) -> None:
    said = lost_sentence(load(sweep))
    for part in ("to lesions plain", "to lesions by means plain", "to lesions of random units"):
        assert part in said


# Tables


def test_a_row_for_each_cell_that_was_evaluated(sweep: Path) -> None:
    made_up_trial(sweep, gamma=0.1)  # not evaluated
    results = load(sweep)
    table = by_cell(results).set_index(["network", "gamma"])
    assert len(table) == 4
    row = table.loc[("resnet", 0.0)]
    trials = results.trials[(results.trials.network == "resnet") & (results.trials.gamma == 0)]
    assert (row.seeds, row.m, row.separation_m) == (2, 500, 300)  # of three trials
    for score in (*AUCS, *RATIOS):
        assert_allclose(row[score], trials[score].mean())
        varies = score in AUCS  # ratios are the same in all seeds, so they have no interval
        assert np.isfinite(row[f"{score}_ci95"]) == varies
    evaluated = trials[trials.noise_auc.notna()]
    assert_allclose(row.clean_accuracy, evaluated.test_accuracy.mean())
    assert_allclose(row.mixed_ratio, 1.45)
    assert_allclose(row.mixed_ratio_matched, 1.15)
    assert row.lesion_top_mean_auc < row.lesion_auc


def test_a_trial_with_some_evaluations_has_those_numbers(tmp_path: Path) -> None:
    made_up_trial(tmp_path, tried=["separation"])
    made_up_trial(tmp_path, gamma=0.1, tried=["noise"])
    table = by_cell(load(tmp_path)).set_index("gamma").sort_index()
    assert table.mixed_ratio.notna().tolist() == [True, False]
    assert table.noise_auc.notna().tolist() == [False, True]
    assert table.lesion_auc.isna().all()
    assert table.m.notna().tolist() == table.clean_accuracy.notna().tolist() == [False, True]


def test_a_network_that_has_learnt_nothing_has_nothing_to_lose(tmp_path: Path) -> None:
    made_up_trial(tmp_path, tried=EVERY)
    rng = np.random.default_rng(0)
    lost = made_up_trial(tmp_path, gamma=0.1, seed=1, tried=EVERY, lesion_auc=0.1)
    changed = read_rows(str(tmp_path), "robustness", lost)
    for row in changed:
        if row["accuracy"] is not None:
            row["accuracy"] = 0.1 + 0.001 * rng.random()
    write_table(str(tmp_path), "robustness", lost, changed)
    trials = of_trials(load(tmp_path)).set_index("gamma").sort_index()
    for name in ("lesion", "noise", "fgsm", "pgd"):
        assert trials[f"{name}_lost"].notna().tolist() == [True, False]
        expected = 1 - trials[f"{name}_auc"][0.0] / trials.clean_accuracy[0.0]
        assert_allclose(trials[f"{name}_lost"][0.0], expected)
        learnt = [name != "lesion", False]
        assert trials[f"{name}_variation"].notna().tolist() == learnt
    levels = np.array(EVALUATIONS["noise"]["levels"][1:]) / 128
    assert_allclose(trials.noise_variation[0.0], 11 * levels.mean())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["md", "latex", "csv", "json"])
def test_the_command_prints_the_table(sweep: Path, form: str, capsys) -> None:
    assert tables.main([str(sweep), "--table", "robustness", "--format", form]) == 0
    told = capsys.readouterr().out
    assert ("PGD AUC" if form in ("md", "latex") else "pgd_auc") in told
    assert robustness.MEASURED[0] in told or "clean accuracy" in told


# The page


@pytest.mark.long
def test_the_page_has_a_section_with_table_figures_and_correlations(sweep: Path) -> None:
    page = report.build(sweep)
    html = page.read_text()
    section = html[html.index('<h2 id="robustness">') : html.index('<h2 id="correlations">')]
    for name in NAMES:
        assert f'<figure id="{name}">' in section
        assert html.count(f'<figure id="{name}">') == 1
    assert '<a href="#robustness">Robustness</a>' in html
    assert "lesion AUC given accuracy" in section
    assert "given accuracy" not in html[html.index('<h2 id="correlations">') :]
    for link in re.findall(r"""<a[^>]*href=["']([^"'#]+)""", section):
        assert page.with_name(link).is_file()
    table = pd.read_csv(page.with_name("robustness.csv"))
    assert table.seeds.tolist() == [2, 2, 2, 2]


def test_a_sweep_without_evaluations_has_a_page_without_that_section(report_page: Path) -> None:
    html = report_page.read_text()
    assert 'id="robustness"' not in html
    assert "#robustness" not in html


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_one_trial_with_evaluations_makes_a_page(tmp_path: Path) -> None:
    made_up_trial(tmp_path, tried=EVERY)
    html = report.build(tmp_path).read_text()
    assert '<h2 id="robustness">' in html
    assert "Robustness against LSS" not in html  # one cell has no correlation


def test_what_evaluations_were_run_with_is_told(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0)
    assert settings_sentence(load(tmp_path)) == ""
    assert robustness._short(["previous", "mean"]) == "previous and mean"
    for seed, steps in ((1, 10), (2, 40)):
        asked = {"pgd": {"levels": [0.0, 8.0], "steps": steps, "seed": 0}}
        made_up_trial(tmp_path, seed=seed, evaluations=json.dumps(asked))
    assert settings_sentence(load(tmp_path)) == (
        "Evaluated: pgd with levels 0 8, steps 10, seed 0 and others with levels 0 8, steps 40, "
        "seed 0."
    )
