"""What a search found, and trials that were stopped early, on sweeps made up for the purpose."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_up import GAMMAS, made_up_search, made_up_sweep, made_up_trial
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from analysis import report
from analysis.measures import search
from analysis.measures.correlations import correlations
from analysis.measures.findings import sentences
from analysis.measures.layout import fold
from analysis.measures.planned import missing_sentence
from analysis.measures.search import Search, on_front, read_search, search_sentence, search_table
from analysis.measures.summary import summary
from analysis.plots import style
from analysis.plots.scores import lss_against_epoch, ots_against_m, scores_against_gamma
from analysis.plots.trials import pareto_front, search_history
from analysis.results import ResultsError, load

BOTH = {"test_accuracy": "max", "lss": "min"}


@st.composite
def points(draw):
    """A few points on a small grid, so that many of them tie."""
    shape = (draw(st.integers(0, 12)), draw(st.integers(1, 4)))
    return draw(arrays("int64", shape, elements=st.integers(-2, 2)))


def dominates(p: np.ndarray, q: np.ndarray) -> bool:
    pairs = list(zip(p, q, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@given(points())
def test_no_point_of_the_front_is_dominated(values):
    front = values[on_front(values)]
    assert not [1 for p in values for q in front if dominates(p, q)]


@given(points())
def test_every_other_point_is_dominated_by_one_of_the_front(values):
    front = on_front(values)
    for q in values[~front]:
        assert any(dominates(p, q) for p in values[front])


@given(points())
def test_equal_points_are_on_the_front_together_or_not_at_all(values):
    front = on_front(values)
    for p, is_on in zip(values, front, strict=True):
        assert (front[(values == p).all(axis=1)] == is_on).all()


@given(points(), st.randoms())
def test_the_front_depends_on_neither_order_nor_scale(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    assert_array_equal(on_front(values[order]), on_front(values)[order])
    assert_array_equal(on_front(np.exp(values)), on_front(values))


@given(points())
def test_the_front_of_one_objective_is_its_smallest_values(values):
    first = values[:, :1]
    assert_array_equal(on_front(first), first[:, 0] == first[:, 0].min(initial=9))


@given(points())
def test_the_front_is_that_of_loops_over_all_pairs(values):
    expected = [not any(dominates(p, q) for p in values) for q in values]
    assert on_front(values).tolist() == expected
    floats = np.where(values == 2, np.inf, values)
    expected = [not any(dominates(p, q) for p in floats) for q in floats]
    assert on_front(floats).tolist() == expected


@pytest.mark.parametrize("objectives", [1, 2])
def test_the_front_of_many_points_fits_into_memory(objectives):
    values = np.random.default_rng(0).normal(size=(200_000, objectives))
    assert 1 <= on_front(values).sum() < 100


@pytest.mark.usefixtures("without_figures")
def test_a_sweep_without_a_search_has_none(tmp_path: Path) -> None:
    made_up_trial(tmp_path)
    assert read_search(tmp_path) is None
    (tmp_path / "sweep.json").write_text('{"name": "demo", "search": null}')
    assert read_search(tmp_path) is None
    page = report.build(tmp_path)
    assert 'id="search"' not in page.read_text()
    assert not page.with_name("search.csv").exists()


def test_the_search_of_a_folder_is_not_that_of_an_experiment_of_its_name(tmp_path: Path) -> None:
    made_up_search(tmp_path, BOTH)
    assert read_search(tmp_path) == Search("optuna", "tpe", 20, BOTH)
    assert read_search(f"file://{tmp_path}/") == read_search(tmp_path)
    assert read_search(tmp_path, "sqlite:///mlflow.db") is None


def test_trials_of_another_sweep_in_the_folder_have_no_part_in_a_search(tmp_path: Path) -> None:
    trials = [made_up_trial(tmp_path, gamma=gamma, lss=3 - gamma) for gamma in (0.0, 0.1, 0.2)]
    path = made_up_search(tmp_path, {"lss": "min"}, trials=4) / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ids": trials[:2]}))
    asked = read_search(tmp_path)
    assert asked
    assert search_table(load(tmp_path), asked).trial.tolist() == [trials[1], trials[0]]
    said = search_sentence(load(tmp_path), asked)
    assert "4 trials asked for, 2 done. Best: trial " + trials[1] in said
    left = pd.DataFrame({"network": ["plain"]})
    told = missing_sentence(left, load(tmp_path), asked._replace(suggested={*trials[:2], "x"}))
    assert told.startswith("Not finished: 2 of 4 planned trials have no results yet (plain 1, 1 ")


@pytest.mark.parametrize("content", ["{", '{"search": {"method": "optuna"}}', "[]"])
def test_a_search_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ResultsError, match=rf"{tmp_path}/sweep\.json: its search cannot be read"):
        read_search(tmp_path)


@pytest.mark.parametrize("objectives", [{"beauty": "max"}, {"lss": "least"}, {"network": "max"}])
def test_an_objective_that_is_no_score_is_named(tmp_path: Path, objectives: dict) -> None:
    made_up_search(tmp_path, objectives)
    with pytest.raises(ResultsError, match=f"objective '{next(iter(objectives))}'"):
        read_search(tmp_path)


def found(root: Path, objectives: dict[str, str]) -> tuple[str, pd.DataFrame]:
    """The sentence and the table of a search."""
    results = load(root)
    asked = read_search(made_up_search(root, objectives))
    assert asked
    assert search_sentence(results, asked) in sentences(results, asked)
    return search_sentence(results, asked), search_table(results, asked)


def test_the_best_trial_is_first_and_named_with_its_nulls(tmp_path: Path) -> None:
    for gamma, lss in ((0.0, 3.0), (0.1, 2.0), (0.2, 2.5)):
        made_up_trial(tmp_path, gamma=gamma, lss=lss, lss_initial=3.3)
    said, table = found(tmp_path, {"lss": "min"})
    assert list(table) == ["trial", "gamma", "m", "lss", "lss_initial", "lss_random"]
    assert table.lss.tolist() == [2.0, 2.5, 3.0]
    assert said == (
        "Search by Optuna's TPE sampler for lower LSS: 20 trials asked for, 3 done. "
        "Best: trial digitr1g0.1s0 (γ = 0.1, m = 1000, LSS = 2.00, LSS before training = 3.30, "
        "√n = 3.16)."
    )


@pytest.mark.parametrize(
    ("metric", "unused"),
    [(None, True), ("validation_accuracy", True), ("test_accuracy", False), ("lss", False)],
)
def test_a_search_by_validation_shows_test_accuracy_and_says_if_it_had_no_part(
    tmp_path: Path, metric: str | None, *, unused: bool
) -> None:
    for gamma, held, test in ((0.0, 0.5, 0.9), (0.1, 0.8, 0.7)):
        numbers = {"validation_accuracy": held, "test_accuracy": test, "validation": 0.1}
        made_up_trial(tmp_path, gamma=gamma, **numbers)
    path = made_up_search(tmp_path, {"validation_accuracy": "max"}) / "sweep.json"
    if metric:
        content = json.loads(path.read_text()) | {"scheduler": {"metric": metric}}
        path.write_text(json.dumps(content))
    asked = read_search(tmp_path)
    assert asked
    assert search.by_validation(asked) == unused
    table, said = search_table(load(tmp_path), asked), search_sentence(load(tmp_path), asked)
    assert table.validation_accuracy.tolist() == [0.8, 0.5]
    assert ("test_accuracy" in table) == unused
    assert ("test split had no part in this choice" in said) == unused


def test_a_search_with_seeds_compares_means_of_cells_that_have_them_all(tmp_path: Path) -> None:
    lss = {0.0: (2.0, 3.0), 0.1: (1.0, 5.0), 0.2: (0.5,)}  # the best mean is not the best trial
    for gamma, values in lss.items():
        for seed, value in enumerate(values):
            made_up_trial(tmp_path, gamma=gamma, seed=seed, lss=value, lss_initial=3.3)
    path = made_up_search(tmp_path, {"lss": "min"}) / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seeds": 2, "ended": {"x": 1}}))
    asked = read_search(tmp_path)
    assert asked
    table = search_table(load(tmp_path), asked)
    assert asked.planned == 39
    assert list(table) == ["trial", "gamma", "m", "lss", "lss_initial", "lss_random"]
    assert table.lss.tolist() == [2.5, 3.0]
    assert table.gamma.tolist() == [0.0, 0.1]
    assert search_sentence(load(tmp_path), asked).startswith(
        "Search by Optuna's TPE sampler for lower LSS: 20 cells with 2 seeds each asked for, "
        "5 trials done, 2 cells with all seeds, compared by their means, "
        "1 cell ended after fewer seeds. "
        "Best: the cell of trial digitr1g0s0 (γ = 0, m = 1000, LSS = 2.50,"
    )
    assert len(search_history(load(tmp_path), asked).axes) == 1


def test_an_objective_may_be_one_to_raise_and_have_no_null(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.5, 0.7, 0.7)):
        made_up_trial(tmp_path, seed=seed, test_accuracy=accuracy)
    said, table = found(tmp_path, {"test_accuracy": "max"})
    assert list(table) == ["trial", "seed", "m", "test_accuracy"]
    assert table.seed.tolist() == [1, 2, 0]
    assert "for higher test accuracy:" in said
    assert "Best: trial digitr1g0s1 and 1 equal to it (" in said


def test_only_trials_that_are_done_and_have_every_objective_count(tmp_path: Path) -> None:
    for i, status in enumerate(("stopped", "diverged", "failed")):
        made_up_trial(tmp_path, seed=i, status=status, lss=1.0, ots=1.0)
    made_up_trial(tmp_path, seed=3, lss=np.nan)
    made_up_trial(tmp_path, seed=4, lss=np.inf)
    made_up_trial(tmp_path, seed=5, collapsed=True, ots=1.0)
    made_up_trial(tmp_path, seed=6, lss=2.0, ots=0.5)
    said, table = found(tmp_path, {"lss": "min", "ots": "max"})
    assert table.seed.tolist() == [6]
    told = "20 trials asked for, 4 done, 3 of them left out because they have no finite LSS or OTS"
    assert told in said
    assert "On the Pareto front: 1 of 1 trials." in said
    nulls = ["lss_initial", "lss_random", "ots_initial", "ots_random"]
    assert [name for name in table if name in nulls] == nulls


def test_the_table_of_several_objectives_is_the_front_by_the_first(tmp_path: Path) -> None:
    for gamma, accuracy, lss in ((0.1, 0.8, 2.0), (0.2, 0.9, 3.0), (0.3, 0.7, 2.5), (0.4, 0.9, 4)):
        made_up_trial(tmp_path, gamma=gamma, test_accuracy=accuracy, lss=lss)
    said, table = found(tmp_path, BOTH)
    assert table.gamma.tolist() == [0.2, 0.1]
    assert "for higher test accuracy and lower LSS:" in said
    assert "On the Pareto front: 2 of 4 trials." in said


@pytest.mark.usefixtures("svg_only")
def test_a_search_without_a_trial_that_is_done_says_so(tmp_path: Path) -> None:
    made_up_trial(tmp_path, status="failed", error="KeyError: 'x'")
    said, table = found(tmp_path, BOTH)
    assert said.endswith("20 trials asked for, 0 done.")
    assert not len(table)
    html = report.build(tmp_path).read_text()
    assert "Nothing found yet." in html
    assert "so there is no score to show" in html


def lines(figure: Figure, place: int, label: str) -> list[np.ndarray]:
    """The lines of a panel with this label, as (points, 2)."""
    here = figure.axes[place].lines
    return [np.asarray(x.get_xydata()) for x in here if x.get_label() == label]


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Four trials, of which the first two are on the front of test accuracy and LSS."""
    for network, gamma, accuracy, lss, ots in (
        ("resnet", 0.1, 0.8, 2.0, 0.5),
        ("plain", 0.2, 0.9, 3.0, 0.4),
        ("resnet", 0.3, 0.7, 2.5, 0.6),
        ("plain", 0.4, 0.9, 4.0, 0.3),
    ):
        made_up_trial(tmp_path, network, gamma, test_accuracy=accuracy, lss=lss, ots=ots)
    return tmp_path


def test_the_front_is_drawn_large_and_joined_by_a_step_line(four: Path) -> None:
    figure = pareto_front(load(four), Search("optuna", "tpe", 4, BOTH))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "test accuracy (fraction), higher is better"
    assert axes.get_ylabel() == "LSS (dimensionless), lower is better"
    (line,) = lines(figure, 0, "Pareto front")
    assert_array_equal(line, [[0.9, 3.0], [0.8, 2.0]])
    assert [x.get_drawstyle() for x in axes.lines if x.get_label() == "Pareto front"] == [
        "steps-post"
    ]
    drawn = {
        tuple(np.asarray(x.get_xydata())[0]): (x.get_markersize(), x.get_color())
        for x in axes.lines
        if str(x.get_label()).endswith("K = 1")
    }
    assert {at[1]: size for at, (size, _) in drawn.items()} == {2: 8, 3: 8, 2.5: 4.5, 4: 4.5}
    assert {at[1]: colour for at, (_, colour) in drawn.items()} == {
        2: style.COLOURS["resnet"],
        2.5: style.COLOURS["resnet"],
        3: style.COLOURS["plain"],
        4: style.COLOURS["plain"],
    }


def test_the_nulls_are_drawn_into_every_panel_of_a_search(four: Path) -> None:
    results = load(four)
    objectives = BOTH | {"ots": "max"}
    figure = pareto_front(results, Search("optuna", "tpe", 4, objectives))
    assert [axes.get_visible() for axes in figure.axes] == [True] * 3
    assert figure.axes[1].get_ylabel() == "OTS (fraction, m = 1,000), higher is better"
    initial = results.trials.groupby("network", observed=True)[["lss_initial", "ots_initial"]]
    means = initial.mean()
    for place, score, axis in ((0, "lss", 1), (1, "ots", 1), (2, "lss", 0), (2, "ots", 1)):
        heights = [line[0, axis] for line in lines(figure, place, style.INITIAL)]
        for mean in means[f"{score}_initial"]:
            assert np.isclose(heights, mean).sum() == 1
    assert_allclose(lines(figure, 0, "√n")[0][:, 1], 10**0.5)
    assert_allclose(lines(figure, 2, "√n")[0][:, 0], 10**0.5)
    assert_allclose(lines(figure, 1, "1/m")[0][:, 1], 0.001)
    (line,) = lines(figure, 2, "Pareto front")
    assert_array_equal(line, [[2.0, 0.5], [2.5, 0.6]])


def test_four_objectives_make_six_panels_and_a_far_lss_a_logarithmic_axis(four: Path) -> None:
    made_up_trial(four, gamma=1.0, lss=1e4)
    objectives = BOTH | {"ots": "max", "test_loss": "min"}
    figure = pareto_front(load(four), Search("optuna", "random", 4, objectives))
    assert len(figure.axes) == 6
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_xscale() == "linear"
    assert figure.axes[5].get_ylabel() == "test loss (nat), lower is better"


def test_the_history_of_one_objective_shows_the_best_so_far(tmp_path: Path) -> None:
    for seed, (minute, lss) in enumerate(((3, 2.5), (1, 3.0), (2, 2.0), (4, 1.5))):
        moment = pd.Timestamp(f"2026-06-01 12:0{minute}", tz="UTC")
        made_up_trial(tmp_path, seed=seed, lss=lss, trained_at=moment)
    figure = search_history(load(tmp_path), Search("optuna", "tpe", 4, {"lss": "min"}))
    (trained,) = lines(figure, 0, "ResNet, K = 1")
    assert sorted(map(tuple, trained)) == [(1, 3.0), (2, 2.0), (3, 2.5), (4, 1.5)]
    (best,) = lines(figure, 0, "best so far")
    assert_array_equal(best, [[1, 3.0], [2, 2.0], [3, 2.0], [4, 1.5]])
    assert lines(figure, 0, "√n")
    assert lines(figure, 0, style.INITIAL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objectives", "name"), [(BOTH, "pareto_front"), ({"ots": "max"}, "search_history")]
)
def test_the_page_of_a_search_has_its_table_and_figure(
    four: Path, objectives: dict, name: str
) -> None:
    made_up_search(four, objectives, trials=5)
    page = report.build(four)
    html = page.read_text()
    assert 'id="search"' in html
    assert "5 trials asked for, 4 done" in html
    names = {file.name for file in page.parent.iterdir()}
    assert {"search.csv", "search.tex", f"{name}.png", f"{name}.svg"} <= names
    assert len({"pareto_front.png", "search_history.png"} & names) == 1
    table = pd.read_csv(page.with_name("search.csv"))
    assert len(table) == (2 if name == "pareto_front" else 4)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The usual sweep, with three trials more that were stopped; their scores would show."""
    root = made_up_sweep(tmp_path / "stopped")
    for gamma in GAMMAS[1:]:
        made_up_trial(root, "plain", gamma, 2, status="stopped", lss=99.0, test_accuracy=0.0)
    return root


def test_stopped_trials_are_counted_and_said_to_be_in_no_mean(stopped: Path) -> None:
    said = sentences(load(stopped))
    assert said[0] == "21 trials: 16 done, 3 stopped early by ASHA, 1 diverged, 1 failed."
    assert said[1].startswith("3 trials were stopped early and are in no mean and no correlation.")


@pytest.mark.usefixtures("svg_only")
def test_one_stopped_trial_alone_is_said_to_be_stopped(tmp_path: Path) -> None:
    made_up_trial(tmp_path, status="stopped")
    said = sentences(load(tmp_path))
    assert said[0].startswith("1 trial: 0 done, 1 stopped early by ASHA, 0 diverged, 0 failed.")
    assert said[1].startswith("1 trial was stopped early and is in no mean")
    assert "1 stopped early by ASHA" in report.build(tmp_path).read_text()


def test_a_stopped_trial_is_counted_in_its_cell_and_is_no_failure(stopped: Path) -> None:
    table = summary(load(stopped)).set_index(["network", "gamma"])
    counts = table[["seeds", "stopped", "diverged", "failed"]]
    assert counts.loc[("plain", 0.01)].tolist() == [2, 1, 0, 0]
    assert counts.loc[("resnet", 0.01)].tolist() == [2, 0, 0, 0]
    assert "stopped" in fold(table.reset_index())[0]
    assert "stopped" not in fold(table.loc[["resnet"]].reset_index())[0]


@pytest.mark.slow
def test_stopped_trials_change_no_mean_no_correlation_and_no_line(
    stopped: Path, tmp_path: Path
) -> None:
    with_them, without = load(stopped), load(made_up_sweep(tmp_path / "usual"))
    expected = summary(without).drop(columns="stopped")
    pd.testing.assert_frame_equal(summary(with_them).drop(columns="stopped"), expected)
    pd.testing.assert_frame_equal(correlations(with_them), correlations(without))
    assert sentences(with_them)[2:] == sentences(without)[1:]
    for draw in (lss_against_epoch, scores_against_gamma, ots_against_m):
        for ours, theirs in zip(draw(with_them).axes, draw(without).axes, strict=True):
            for line, same in zip(ours.lines, theirs.lines, strict=True):
                assert_array_equal(line.get_xydata(), same.get_xydata())  # type: ignore[arg-type]
    asked = Search("optuna", "tpe", 20, BOTH)
    assert len(search.candidates(with_them, asked)) == 16


@pytest.mark.usefixtures("without_figures")
def test_the_page_says_of_a_stopped_trial_that_it_was_stopped(tmp_path: Path) -> None:
    made_up_trial(tmp_path)
    trial = made_up_trial(tmp_path, seed=1, status="stopped", epochs=6)
    page = report.build(tmp_path)
    (row,) = pd.read_csv(page.with_name("failed.csv")).to_dict("records")
    assert (row["trial"], row["status"], row["epochs_done"]) == (trial, "stopped", 3)
    html = page.read_text()
    section = html[html.index('id="failed"') : html.index('id="trials"')]
    assert "Trials that are not done" in section
    assert "that is no failure" in section
    assert re.search(rf"{trial}</td>.*>stopped<.*>3<", section)
    assert ">error<" not in section  # an empty column
    in_trials = html[html.index('id="trials"') :]
    assert re.search(rf"{trial}</td>.*>stopped<", in_trials)
