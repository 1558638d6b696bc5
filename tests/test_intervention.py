"""What penalties on tracks change: in numbers, in words, as a figure, and in the report."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep, made_up_trial
from made_up_evaluations import EVALUATIONS, evaluated_with
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from scipy import stats

from analysis import figures, report, tables
from analysis.measures.intervention import OUTCOMES, asked, effects, sentence, shown
from analysis.results import load

LSS = {  # by weight of the penalty, a seed each
    0.0: [3.2, 3.4, 3.1, 3.3],
    0.1: [2.2, 2.5, 2.0, 2.35],
    1.0: [1.3, 1.6, 1.1, 1.45],
}
ACCURACY = {
    0.0: [0.90, 0.92, 0.91, 0.93],
    0.1: [0.91, 0.92, 0.90, 0.93],
    1.0: [0.80, 0.821, 0.809, 0.83],
}
STRAIGHT = "straightness_penalty"


def train(root: Path, weights: tuple[float, ...] = (0.0, 0.1, 1.0), seeds: int = 4, **more) -> Path:
    """Trials with the numbers above, at each weight and seed."""
    for weight in weights:
        for seed in range(seeds):
            numbers = {"lss": LSS[weight][seed], "test_accuracy": ACCURACY[weight][seed]}
            made_up_trial(root, **{"seed": seed, STRAIGHT: weight, **numbers, **more})
    return root


def rows(root: Path) -> pd.DataFrame:
    return effects(load(root, tables=("trials", "robustness")))


# The numbers


def test_the_effect_of_pairs_is_that_of_a_paired_t_test(tmp_path: Path) -> None:
    table = rows(train(tmp_path))
    assert table.weight.tolist() == [0.1, 1.0]
    assert table.penalty.unique().tolist() == [STRAIGHT]
    assert table[["seeds", "untreated_seeds"]].to_numpy().tolist() == [[4, 4]] * 2
    assert table.paired.all()
    for row in table.to_dict("records"):
        for name, values in {"lss": LSS, "test_accuracy": ACCURACY}.items():
            treated, untreated = np.array(values[row["weight"]]), np.array(values[0.0])
            wanted = stats.ttest_rel(treated, untreated)
            low, high = wanted.confidence_interval(0.95)
            change, half = row[f"{name}_change"], row[f"{name}_change_ci95"]
            assert_allclose(change, treated.mean() - untreated.mean())
            assert_allclose([change - half, change + half], [low, high])
            assert_allclose(row[f"{name}_p"], wanted.pvalue)
            assert_allclose(row[f"{name}_untreated"], untreated.mean())


def test_other_seeds_are_compared_by_welchs_interval(tmp_path: Path) -> None:
    train(tmp_path, (0.0,))
    train(tmp_path, (1.0,), seeds=3)
    (row,) = rows(tmp_path).to_dict("records")
    assert (row["paired"], row["seeds"], row["untreated_seeds"]) == (False, 3, 4)
    wanted = stats.ttest_ind(LSS[1.0][:3], LSS[0.0], equal_var=False)
    low, high = wanted.confidence_interval(0.95)
    assert_allclose(row["lss_change"] + np.array([-1, 1]) * row["lss_change_ci95"], [low, high])
    assert_allclose(row["lss_p"], wanted.pvalue)


def test_p_values_are_corrected_by_holm_over_the_whole_table(tmp_path: Path) -> None:
    for network in ("plain", "resnet"):
        train(tmp_path, network=network, tried=("noise",))
    table = rows(tmp_path)
    known = [(f"{n}_p", i) for n in OUTCOMES if f"{n}_p" in table for i in range(len(table))]
    known = [(name, i) for name, i in known if np.isfinite(table[name][i])]
    assert asked(table) == len(known) == 8
    known.sort(key=lambda place: table[place[0]][place[1]])
    largest = 0.0
    for tried, (name, i) in enumerate(known):  # slowly, from the smallest p on
        largest = max(largest, min(1.0, (len(known) - tried) * table[name][i]))
        assert_allclose(table[f"{name}_adjusted"][i], largest)


def test_whether_lss_surely_fell_is_said_of_every_row(tmp_path: Path) -> None:
    train(tmp_path)
    for seed, lss in enumerate([3.3, 3.2, 3.2, 3.1]):
        made_up_trial(tmp_path, seed=seed, lss=lss, test_accuracy=0.9, **{STRAIGHT: 0.01})
    assert rows(tmp_path).straighter.tolist() == [False, True, True]


def test_a_rise_of_lss_is_not_straighter(tmp_path: Path) -> None:
    train(tmp_path, (0.0,))
    for seed, lss in enumerate([5.2, 5.5, 5.0, 5.3]):
        made_up_trial(tmp_path, seed=seed, lss=lss, **{STRAIGHT: 0.1})
    (row,) = rows(tmp_path).to_dict("records")
    assert row["lss_p_adjusted"] < 0.05
    assert row["straighter"] is False
    assert "LSS surely fell in 0 of 1 cell with it" in sentence(rows(tmp_path))


def test_one_seed_has_a_difference_and_no_interval(tmp_path: Path) -> None:
    table = rows(train(tmp_path, seeds=1))
    assert_allclose(table.lss_change, [-1.0, -1.9])
    numbers = table[["lss_change_ci95", "lss_p", "lss_p_adjusted"]]
    assert numbers.isna().all(axis=None)
    assert table.straighter.isna().all()
    assert asked(table) == 0
    assert sentence(table) == (
        "Straightness penalty: too few seeds in 2 cells with it to say whether LSS changed."
    )


@pytest.mark.parametrize("seeds", [(0, 1, 2), (5, 6, 7)])
def test_equal_differences_have_no_spread_and_are_not_sure(
    tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    for seed in (0, 1, 2):
        made_up_trial(tmp_path, seed=seed, test_accuracy=0.9)
    for seed in seeds:
        made_up_trial(tmp_path, seed=seed, test_accuracy=0.902, **{STRAIGHT: 0.1})
    (row,) = rows(tmp_path).to_dict("records")
    assert_allclose(row["test_accuracy_change"], 0.002)
    assert np.isnan([row["test_accuracy_change_ci95"], row["test_accuracy_p"]]).all()


@pytest.mark.parametrize("status", ["diverged", "failed", "stopped"])
def test_trials_that_are_not_done_are_left_out(tmp_path: Path, status: str) -> None:
    train(tmp_path)
    made_up_trial(tmp_path, seed=3, status=status, **{STRAIGHT: 1.0}, lss=99.0)
    first, second = rows(tmp_path).to_dict("records")
    assert (first["paired"], first["seeds"]) == (True, 4)
    assert (second["paired"], second["seeds"]) == (False, 3)
    assert_allclose(second["lss_change"], np.mean(LSS[1.0][:3]) - np.mean(LSS[0.0]))


def test_a_pair_that_lacks_a_number_is_left_out_of_that_one(tmp_path: Path) -> None:
    train(tmp_path, (0.0, 0.1))
    made_up_trial(tmp_path, seed=3, lss=np.inf, test_accuracy=0.93, **{STRAIGHT: 0.1})
    (row,) = rows(tmp_path).to_dict("records")
    wanted = stats.ttest_rel(LSS[0.1][:3], LSS[0.0][:3])
    assert_allclose(row["lss_p"], wanted.pvalue)
    assert_allclose(row["test_accuracy_p"], stats.ttest_rel(ACCURACY[0.1], ACCURACY[0.0]).pvalue)


def test_a_collapsed_trial_has_no_ots_to_compare(tmp_path: Path) -> None:
    train(tmp_path, (0.0, 0.1), collapsed=True)
    (row,) = rows(tmp_path).to_dict("records")
    assert np.isnan(row["ots_change"])
    assert row["lss_change"] < 0


# Which cells have both sides


def test_nothing_is_compared_where_no_penalty_was_tried(tmp_path: Path) -> None:
    assert len(rows(made_up_sweep(tmp_path))) == 0


def test_nothing_is_compared_where_nothing_is_without_the_penalty(tmp_path: Path) -> None:
    assert len(rows(train(tmp_path, (0.1, 1.0)))) == 0


def test_each_cell_is_compared_with_itself_alone(tmp_path: Path) -> None:
    train(tmp_path, gamma=0.0)
    train(tmp_path, (0.0, 0.1), gamma=1e-2, network="plain", stages=2)
    train(tmp_path, (1.0,), gamma=0.5)
    table = rows(tmp_path)
    cells = table[["network", "stages", "gamma", "weight"]].to_numpy().tolist()
    assert cells == [["resnet", 1, 0.0, 0.1], ["resnet", 1, 0.0, 1.0], ["plain", 2, 0.01, 0.1]]


def test_other_settings_that_vary_are_part_of_the_cell(tmp_path: Path) -> None:
    train(tmp_path / "a", (0.0, 0.1))
    for seed in range(4):
        made_up_trial(tmp_path / "a", seed=seed + 10, lss=9.0, learning_rate=1e-2)
    table = rows(tmp_path / "a")
    assert table.learning_rate.tolist() == [1e-3]
    assert_allclose(table.lss_change, np.mean(LSS[0.1]) - np.mean(LSS[0.0]))


def test_each_penalty_is_compared_where_the_other_one_is_zero(tmp_path: Path) -> None:
    train(tmp_path, transport_penalty=0.0)
    train(tmp_path, (0.0,), transport_penalty=1e-3, lss=3.0)
    train(tmp_path, (1.0,), transport_penalty=1e-3, lss=1.0)
    table = rows(tmp_path)
    found = list(zip(table.penalty, table.weight, strict=True))
    assert found == [(STRAIGHT, 0.1), (STRAIGHT, 1.0), ("transport_penalty", 1e-3)]
    assert_allclose(table.lss_change.iloc[-1], 3.0 - np.mean(LSS[0.0]))
    said = sentence(table)
    assert said.index("Straightness penalty:") < said.index("Transport penalty:")


def test_areas_of_other_settings_are_not_compared(tmp_path: Path) -> None:
    train(tmp_path, (0.0, 0.1), tried=("noise", "pgd"))
    other = {name: EVALUATIONS[name] for name in ("noise", "pgd")}
    other["noise"] = other["noise"] | {"levels": [0, 1, 2]}
    train(tmp_path, (1.0,), tried=("noise", "pgd"), evaluations=json.dumps(other))
    first, second = rows(tmp_path).to_dict("records")
    assert np.isfinite(first["noise_auc_change"])
    assert np.isnan(second["noise_auc_change"])
    assert np.isfinite(second["pgd_auc_change"])


def test_areas_at_another_m_are_not_compared(tmp_path: Path) -> None:
    train(tmp_path, (0.0, 0.1, 1.0), tried=("noise", "pgd"))
    trials = load(tmp_path).trials
    for trial in trials.trial[trials[STRAIGHT] == 1]:
        evaluated_with(tmp_path, str(trial), "noise", 50)
    first, second = rows(tmp_path).to_dict("records")
    assert np.isfinite([first["noise_auc_change"], second["pgd_auc_change"]]).all()
    assert np.isnan(second["noise_auc_change"])


def test_areas_that_nobody_measured_are_no_columns(tmp_path: Path) -> None:
    table = rows(train(tmp_path, tried=("pgd",)))
    there = {name for name in OUTCOMES if f"{name}_change" in table}
    assert there == {"lss", "ots", "test_accuracy", "pgd_auc"}


# In words


def test_the_sentence_counts_what_is_sure_and_how_much_was_asked(tmp_path: Path) -> None:
    table = rows(train(tmp_path))
    assert table.test_accuracy_p_adjusted.iloc[0] > 0.05 > table.test_accuracy_p_adjusted.iloc[1]
    assert sentence(table) == (
        "Straightness penalty: LSS surely fell in 2 of 2 cells with it, compared with the same "
        "cell without it. Where it did, test accuracy surely rose in 0, surely fell in 1, neither "
        "in 1. A change is sure if its p value over seeds is below 0.05 after correction for all "
        f"{asked(table)} tests (Holm). A change that is not sure may still exist."
    )


def test_accuracies_answer_nothing_where_lss_did_not_fall(tmp_path: Path) -> None:
    train(tmp_path, (0.0,))
    for seed, lss in enumerate([3.3, 3.2, 3.2, 3.1]):
        made_up_trial(tmp_path, seed=seed, lss=lss, test_accuracy=0.1, **{STRAIGHT: 0.1})
    said = sentence(rows(tmp_path))
    assert "So this sweep says nothing about what straight tracks cause." in said
    assert "accuracy" not in said


def test_the_table_to_read_has_a_star_where_it_is_sure(tmp_path: Path) -> None:
    read = shown(rows(train(tmp_path)))
    assert read["change of LSS"].str.endswith("*").all()
    assert read["change of test accuracy"].str.endswith("*").tolist() == [False, True]
    assert read.straighter.tolist() == ["yes", "yes"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "json", "md", "latex"])
def test_the_table_is_printed_in_every_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    train(tmp_path)
    assert tables.main([str(tmp_path), "--table", "intervention", "--format", form]) == 0
    printed = capsys.readouterr().out
    if form in ("csv", "json"):
        read = pd.read_csv if form == "csv" else pd.read_json
        table = read(io.StringIO(printed))
        assert_allclose(table.lss_change, rows(tmp_path).lss_change)
        assert_allclose(table.lss_p_adjusted, rows(tmp_path).lss_p_adjusted, atol=1e-9)
    else:
        assert "straightness penalty" in printed


def test_the_command_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up_sweep(tmp_path)
    assert tables.main([str(tmp_path), "--table", "intervention"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "no cell has trials that are done both with a straightness_penalty" in told


# The figure and the report


def draw(root: Path) -> Figure:
    return figures.draw(load(root), only=["intervention"])["intervention"]


def test_the_figure_shows_each_change_from_zero_on(tmp_path: Path) -> None:
    for network in ("plain", "resnet"):
        train(tmp_path, network=network, tried=("noise", "pgd"))
    figure, table = draw(tmp_path), rows(tmp_path)
    names = ["lss", "test_accuracy", "noise_auc", "pgd_auc"]
    assert len(figure.axes) == len(names)
    for axes, name in zip(figure.axes, names, strict=True):
        lines = {str(line.get_label()): line for line in axes.lines}
        assert set(np.asarray(lines["no change"].get_ydata())) == {0}
        for label, network in {"plain": "plain", "ResNet": "resnet"}.items():
            heights = [0, *table[table.network == network][f"{name}_change"]]
            assert_allclose(np.asarray(lines[label].get_ydata(), "float64"), heights)
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.1", "1"]
        (low, high), half = axes.get_ylim(), table[f"{name}_change_ci95"].fillna(0)
        assert low < (table[f"{name}_change"] - half).min()
        assert high > (table[f"{name}_change"] + half).max()
    assert figure.axes[0].get_ylabel() == "with penalty minus without"
    assert not figure.texts  # nothing is left out


def test_two_seeds_have_no_bar_and_leave_the_axis_to_their_changes(tmp_path: Path) -> None:
    for seeds, bars in ((2, False), (3, True)):
        train(tmp_path / str(seeds), seeds=seeds)
        axes = draw(tmp_path / str(seeds)).axes[0]
        drawn = [line for line in axes.lines if line.get_label() == "_seeds"]
        assert bool(drawn) == bars
        least = rows(tmp_path / str(seeds)).lss_change.min()
        assert (1.2 * least < axes.get_ylim()[0] < least) or bars


def test_the_figure_has_a_row_for_each_penalty_and_gamma(tmp_path: Path) -> None:
    for gamma in (0.0, 1e-2):
        train(tmp_path, gamma=gamma, transport_penalty=0.0)
        train(tmp_path, (0.0,), gamma=gamma, transport_penalty=1e-3)
    titles = [axes.get_title(loc="left") for axes in draw(tmp_path).axes]
    firsts = [title.split("\n")[0] for title in titles if title]
    assert firsts == [
        "straightness penalty, digits, K = 1, γ = 0",
        "straightness penalty, digits, K = 1, γ = 0.01",
        "transport penalty, digits, K = 1, γ = 0",
        "transport penalty, digits, K = 1, γ = 0.01",
    ]


def test_the_figure_of_many_settings_and_weights_is_drawn(tmp_path: Path) -> None:
    for rate in (1e-4, 1e-3, 1e-2, 1e-1):
        for weight in np.geomspace(1e-3, 1, 14) if rate == 1e-3 else (0.5,):
            made_up_trial(tmp_path / f"{rate:g}", learning_rate=rate, **{STRAIGHT: float(weight)})
        made_up_trial(tmp_path / f"{rate:g}", learning_rate=rate)
    parts = [load(folder) for folder in sorted(tmp_path.iterdir())]
    frames = [pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True)]
    results = type(parts[0])(*frames)
    figure = figures.draw(results, only=["intervention"])["intervention"]
    labels = [str(line.get_label()) for line in figure.axes[0].lines]
    assert labels.count("ResNet") == 4  # not averaged
    assert figure.axes[0].get_xscale() == "symlog"


@pytest.mark.slow
def test_the_report_has_the_section_and_its_sentence(tmp_path: Path) -> None:
    train(tmp_path, tried=("noise",))
    page = report.build(tmp_path).read_text()
    assert 'id="intervention"' in page
    assert 'href="#intervention"' in page
    answer = page[page.index('class="answer"') : page.index("<nav")]
    assert "Straightness penalty: LSS surely fell in 2 of 2" in answer
    folder = tmp_path / "report"
    assert_allclose(pd.read_csv(folder / "intervention.csv").lss_change, rows(tmp_path).lss_change)
    for form in ("tex", "png", "svg"):
        assert (folder / f"intervention.{form}").stat().st_size > 0


@pytest.mark.slow
def test_the_report_has_no_section_without_a_penalty(report_page: Path) -> None:
    assert "intervention" not in report_page.read_text()
    assert not list(report_page.parent.glob("intervention*"))


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_numbers_that_are_missing_everywhere_change_nothing(tmp_path: Path, seeds: int) -> None:
    nothing = dict.fromkeys(["lss", "ots", "test_accuracy", "noise_auc"], np.nan)
    train(tmp_path, seeds=seeds, tried=("noise",), **nothing)
    table = rows(tmp_path)
    assert len(table) == 2
    assert table[[n for n in table if n.endswith("_change")]].isna().all(axis=None)
    assert table.straighter.isna().all()
    assert 'id="intervention"' in report.build(tmp_path).read_text()
