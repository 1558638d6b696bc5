"""How figures draw several seeds, what they say of points and of 1, and how they tell K apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawings import change, legend, titles
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_search, made_up_trial
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from scipy import stats

from analysis import figures
from analysis.measures.search import read_search
from analysis.plots import seeds
from analysis.results import Results, load
from scoring.tables import read_rows, write_table

WITH_BANDS = [
    *("lss_against_epoch", "factor_against_epoch", "rate_against_epoch", "ots_against_m"),
    *("lss_by_stage", "speed_by_block", "states_by_block"),
    *("accuracy_against_units", "accuracy_without_blocks", "accuracy_against_noise"),
    "mixed_by_distance",
]
WITH_BARS = ["scores_against_gamma", "factors_against_gamma", "scores_by_stage"]
shares = st.floats(0, 1).map(lambda share: round(share, 3))


def sweep(root: Path, count: int) -> Results:
    """A network with K = 1 and one with K = 2, with as many seeds, and all that can be drawn."""
    for stages in (1, 2):
        for seed in range(count):
            tried = ("lesion", "noise", "separation", "curve")
            more = 1 + 0.1 * seed
            numbers = {"fragile": more, "ots": 0.5 * more, "gap": 0.5 * more}
            numbers["transport_factor"] = more
            trial = made_up_trial(root, seed=seed, stages=stages, tried=tried, **numbers)
            rate = 1e-3 * more
            change(root, "epochs", trial, effective_rate=rate, effective_rate_others=rate)
            change(root, "tracks", trial, fuzziness=[more, 0.2], effective_rank=[more, 0.2])
            rows = read_rows(str(root), "robustness", trial)
            for row in rows:
                for name in ("speed", "mixed", "mixed_matched"):
                    of_a_part = row["level"] == 1 or row["block"] is not None
                    if row[name] is not None and of_a_part:
                        row[name] *= more
            write_table(str(root), "robustness", trial, rows)
    return load(root, columns=figures.COLUMNS)


def draw(results: Results, name: str) -> Figure:
    return figures.draw(results, only=[name])[name]


@given(st.lists(shares, min_size=1, max_size=6))
def test_of_two_seeds_both_are_known_and_of_more_their_interval(values: list[float]) -> None:
    rows = pd.DataFrame({"x": 1, "test_accuracy": values})
    (found,) = seeds.averaged(rows, ["x"], "test_accuracy").to_dict("records")
    assert found["seeds"] == len(values)
    assert_allclose(found["mean"], np.mean(values))
    ends = [found["low"], found["high"]]
    if len(values) == 2:
        assert ends == sorted(values)
    elif len(values) > 2 and np.std(values) > 1e-9:
        error = stats.sem(values)
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
        assert_allclose(ends, [max(low, 0), min(high, 1)])
    else:
        assert np.isnan(ends).all()


@pytest.mark.parametrize("name", WITH_BANDS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_two_seeds_are_thin_lines_and_three_a_band(tmp_path: Path, name: str, count: int) -> None:
    figure = draw(sweep(tmp_path, count), name)
    thin = [line for axes in figure.axes for line in axes.lines if line.get_label() == "_seed"]
    bands = [one for axes in figure.axes for one in axes.collections]
    assert bool(thin) == (count == 2)
    assert bool(bands) == (count == 3)
    said = {1: "one seed", 2: "each of 2 seeds", 3: "95% interval of 3 seeds"}[count]
    assert said in legend(figure)


@pytest.mark.parametrize("name", WITH_BARS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_two_seeds_are_dots_and_three_a_bar(tmp_path: Path, name: str, count: int) -> None:
    figure = draw(sweep(tmp_path, count), name)
    marks = {
        line.get_marker()
        for axes in figure.axes
        for line in axes.lines
        if line.get_label() == "_seeds"
    }
    assert marks == {1: set(), 2: {"."}, 3: {"_"}}[count]
    said = {1: "one seed", 2: "each of 2 seeds", 3: "95% interval of 3 seeds"}[count]
    assert said in legend(figure)


def test_a_thin_line_is_that_of_its_seed(tmp_path: Path) -> None:
    results = sweep(tmp_path, 2)
    axes = draw(results, "lss_against_epoch").axes[0]
    found = [line.get_ydata() for line in axes.lines if line.get_label() == "_seed"]
    ours = results.trials[results.trials.stages == 1].sort_values("seed")
    epochs = results.epochs.astype({"trial": "str"})
    assert_allclose(found, [epochs.lss[epochs.trial == trial] for trial in ours.trial])


def test_a_band_lies_in_its_panel_and_accuracies_in_0_to_1(tmp_path: Path) -> None:
    results = sweep(tmp_path, 3)
    for name in ("lss_against_epoch", "accuracy_against_noise", "ots_against_m"):
        for axes in draw(results, name).axes:
            low, high = axes.get_ylim()
            for band in axes.collections:
                y = band.get_paths()[0].vertices[:, 1]  # type: ignore[index]
                assert low <= y.min() <= y.max() <= high
                if "accuracy" in axes.get_ylabel() or "OTS" in axes.get_ylabel():
                    assert 0 <= y.min() <= y.max() <= 1


@pytest.mark.parametrize(
    ("lss", "initial", "random", "is_near"),
    [(1.3, 1.4, 1.5, True), (3.0, 5.0, 2.24, True), (3.2, 3.4, 3.16, False)],
)
def test_1_is_on_the_axis_of_lss_or_an_arrow_points_to_it(
    tmp_path: Path, lss: float, initial: float, random: float, is_near: bool
) -> None:
    trial = made_up_trial(tmp_path, lss_initial=initial, lss_random=random)
    change(tmp_path, "epochs", trial, lss=lss)
    (axes,) = draw(load(tmp_path, columns=figures.COLUMNS), "lss_against_epoch").axes
    said = "1: straight" if is_near else "↓ 1: straight"
    assert said in [one.get_text() for one in axes.texts]
    assert (axes.get_ylim()[0] < 1) == is_near


@pytest.mark.parametrize("name", ["lss_against_epoch", "factor_against_epoch", "lss_by_stage"])
def test_the_figure_says_where_epochs_have_fewer_points(tmp_path: Path, name: str) -> None:
    made_up_trial(tmp_path, stages=2, points=10_000)
    said = "Epoch 0 and the last: m = 10,000 points. Epochs between: 1,000 points."
    results = load(tmp_path, columns=figures.COLUMNS)
    assert [text.get_text().replace("\n", " ") for text in draw(results, name).texts] == [said]
    results.trials["epoch_points"] = 10_000
    assert draw(results, name).texts == []


@pytest.mark.parametrize("name", ["scores_against_gamma", "factors_against_gamma"])
def test_lines_are_solid_and_baselines_broken_and_k_has_its_marker(
    tmp_path: Path, name: str
) -> None:
    figure = draw(sweep(tmp_path, 1), name)
    for axes in figure.axes:
        looks = {str(line.get_label()): line for line in axes.lines}
        one, two = looks["ResNet, K = 1"], looks["ResNet, K = 2"]
        assert one.get_linestyle() == two.get_linestyle() == "-"
        assert one.get_marker() != two.get_marker()
        assert one.get_alpha() != two.get_alpha()
        broken = [line for line in axes.lines if line.get_linestyle() in (":", "--", "-.")]
        assert {line.get_linestyle() for line in broken} <= {":", "--", "-."}
        dotted = [line for line in broken if line.get_linestyle() == ":"]
        assert {line.get_alpha() for line in dotted} <= {one.get_alpha(), two.get_alpha()}


def test_a_value_before_training_has_the_marker_of_its_k_on_the_axis(tmp_path: Path) -> None:
    for stages in (1, 2):
        made_up_trial(tmp_path, stages=stages)
    search = read_search(made_up_search(tmp_path, {"lss": "min"}))
    figure = figures.draw(load(tmp_path), search, only=["search_history"])["search_history"]
    (axes,) = figure.axes
    points = {str(line.get_label()): line for line in axes.lines}
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    wanted = {points[f"ResNet, K = {stages}"].get_marker() for stages in (1, 2)}
    assert {line.get_marker() for line in dotted} == wanted
    assert len(wanted) == 2


def test_two_gammas_by_depth_differ_without_dashes(tmp_path: Path) -> None:
    for depth in (2, 5):
        for gamma in (0.0, 0.1):
            made_up_trial(tmp_path, gamma=gamma, depth=depth)
    figure = draw(load(tmp_path, columns=figures.COLUMNS), "scores_against_depth")
    assert titles(figure)
    for axes in figure.axes[:3]:
        one, two = axes.lines[:2]
        assert (one.get_linestyle(), two.get_linestyle()) == ("-", "-")
        assert one.get_marker() != two.get_marker()
        assert one.get_alpha() != two.get_alpha()


def test_the_legend_explains_the_dots_of_seeds_that_a_collapsed_one_leaves(tmp_path: Path) -> None:
    for seed in range(3):
        numbers = {
            "ots": 0.5 + 0.1 * seed,
            "gap": 0.5 + 0.1 * seed,
            "test_accuracy": 0.9 + 0.01 * seed,
        }
        made_up_trial(tmp_path, seed=seed, collapsed=seed == 0, **numbers)
    results = load(tmp_path, columns=figures.COLUMNS)
    said = ["95% interval of 3 seeds", "each of 2 seeds"]
    assert legend(draw(results, "scores_against_gamma"))[-2:] == said
    assert legend(draw(results, "ots_against_m"))[-1:] == said[1:]


def test_where_a_score_is_infinite_nothing_is_drawn() -> None:
    rows = pd.DataFrame({"x": 1, "seed": [0, 1, 2], "lss": [1.5, 1.6, np.inf]})
    found = seeds.averaged(rows, ["x"], "lss")
    assert found.seeds.to_list() == [0]
    assert found[["low", "high"]].isna().all(axis=None)


def test_other_weights_alone_have_the_whole_label(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path)
    change(tmp_path, "epochs", trial, effective_rate_others=1e-3)
    figure = draw(load(tmp_path, columns=figures.COLUMNS), "rate_against_epoch")
    assert figure.axes[0].get_ylabel() == "effective learning rate, other weights"


def test_rows_of_one_seed_count_as_one_draw() -> None:
    rows = pd.DataFrame({"gamma": 0.0, "seed": [0, 0, 1, 1], "lss": [1.0, 2.0, 3.0, 4.0]})
    found = seeds.averaged(rows, ["gamma"], "lss").loc[0.0]
    assert found.to_list() == [2.5, 2, 1.5, 3.5]  # mean, seeds, and both of two seeds
