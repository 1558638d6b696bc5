"""Figures of lesions, noise, attacks and separation, on sweeps made up for the purpose."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawings import legend, lines
from evaluated import EVERY, NAMES, evaluated_sweep
from made_up import made_up_sweep, made_up_trial
from made_up_evaluations import EVALUATIONS, evaluated_with, made_up_rows
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from analysis import figures
from analysis.results import load
from scoring.tables import read_rows, write_table


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return evaluated_sweep(tmp_path / "demo")


def draw(root: Path, name: str) -> Figure:
    return figures.draw(load(root, columns=figures.COLUMNS), only=[name])[name]


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
        thin = [line for line in figure.axes[place].lines if line.get_label() == "_seed"]
        assert len(thin) == 2 * 4  # two seeds of two networks and two choices of units
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
    for seed, fragile in ((0, 1.0), (1, 3.0), (2, 80.0)):
        made_up_trial(tmp_path, seed=seed, tried=["noise"], fragile=fragile)
    low, high = draw(tmp_path, "accuracy_against_noise").axes[1].get_ylim()
    assert (low, high) == (0, pytest.approx(2 * 28 * 11))  # twice the mean


def test_0_is_drawn_even_if_only_one_network_has_it(tmp_path: Path) -> None:
    for gamma in (0.0, 1e-3, 5e-3, 1e-2, 0.1):
        for network in ("plain", "resnet") if gamma else ("plain",):
            made_up_trial(tmp_path, network, gamma, tried=["noise"])
    left = [axes.get_title(loc="left") for axes in draw(tmp_path, "accuracy_against_noise").axes]
    gammas = [title.split("\n")[0].split("γ = ")[1] for title in left if "γ" in title]
    assert gammas == ["0", "0.001", "0.005", "0.01"]


def test_the_legend_counts_the_seeds_of_each_m(tmp_path: Path) -> None:
    for seed in range(4):
        trial = made_up_trial(tmp_path, seed=seed, tried=["noise"], fragile=1 + 0.1 * seed)
        evaluated_with(tmp_path, trial, "noise", 50 if seed % 2 else 1000)
    assert legend(draw(tmp_path, "accuracy_against_noise"))[1:3] == [
        "each of 2 seeds", "accuracy: without noise"
    ]  # fmt: skip


def test_the_legend_says_what_is_dotted_in_either_panel(tmp_path: Path) -> None:
    made_up_trial(tmp_path, tried=["noise"])
    (legend,) = draw(tmp_path, "accuracy_against_noise").legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("ResNet, K = 1", "one seed"),
        *("accuracy: without noise", "variation rate: of the blocks' input", "chance"),
    ]


@pytest.mark.slow
def test_the_command_draws_them_by_name(sweep: Path, capsys) -> None:
    assert figures.main([str(sweep), "--only", *NAMES, "--form", "svg"]) == 0
    assert [Path(line).stem for line in capsys.readouterr().out.splitlines()] == NAMES
    made_up_trial(sweep.parent / "other")
    assert figures.main([str(sweep.parent / "other"), "--only", NAMES[0]]) == 2
    assert "the evaluation lesion" in capsys.readouterr().err
