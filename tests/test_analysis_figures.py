"""The figures of the paper from stored results, on sweeps made up for the purpose."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from drawings import lines, titles
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_search, made_up_sweep, made_up_trial
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from numpy.testing import assert_allclose, assert_array_equal

from analysis import figures
from analysis.measures.search import read_search
from analysis.plots import files, panels, style
from analysis.plots.rates import has_rates, rate_against_epoch
from analysis.plots.scores import lss_against_epoch, ots_against_m
from analysis.plots.stages import lss_by_stage, scores_by_stage
from analysis.plots.tracks import tracks_by_gamma
from analysis.plots.trials import accuracy_against_score
from analysis.results import load
from scoring.tables import read_rows, write_table

# fmt: off
OF_ONE_STAGE = [
    "lss_against_epoch", "factor_against_epoch", "factors_against_gamma", "tracks_by_gamma",
    "scores_against_gamma", "accuracy_against_score", "ots_against_m",
]
# fmt: on
OF_STAGES_SHOWN = [0, 5e-4, 1e-3, 1e-2]  # the control, and three of the paper's four
OF_STAGES = ["lss_by_stage", "scores_by_stage", "tracks_by_stage"]


@pytest.fixture
def four_stages(tmp_path: Path) -> Path:
    """2 networks x the paper's 5 gammas of K = 4, one of them with two seeds."""
    for network in ("plain", "resnet"):
        for gamma in (0.0, 5e-4, 1e-3, 5e-3, 1e-2):
            made_up_trial(tmp_path, network, gamma, dataset="cifar10", stages=4)
        made_up_trial(tmp_path, network, 1e-3, 1, dataset="cifar10", stages=4)
    return tmp_path


@pytest.mark.slow
def test_those_figures_are_drawn_that_apply(tmp_path: Path) -> None:
    results = load(made_up_sweep(tmp_path), columns=figures.COLUMNS)
    assert list(figures.draw(results)) == OF_ONE_STAGE
    assert list(figures.draw(results, only=["ots_against_m", "lss_by_stage"])) == ["ots_against_m"]
    made_up_trial(tmp_path, stages=2)
    results = load(tmp_path, columns=figures.COLUMNS)
    assert set(figures.draw(results)) == {*OF_ONE_STAGE, *OF_STAGES}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objectives", "name"),
    [({"lss": "min"}, "search_history"), ({"lss": "min", "ots": "max"}, "pareto_front")],
)
def test_a_search_has_one_figure_of_its_own(tmp_path: Path, objectives: dict, name: str) -> None:
    made_up_trial(tmp_path)
    search = read_search(made_up_search(tmp_path, objectives))
    assert list(figures.draw(load(tmp_path), search)) == [*OF_ONE_STAGE, name]


def test_every_figure_is_said_in_words() -> None:
    for name, spec in figures.FIGURES.items():
        assert spec.function.__name__ == name
        assert all([spec.title, spec.alt, spec.needs])
        assert re.fullmatch(r"(Figs?\.? [\d, to]+)?", spec.paper)
        assert spec.caption.endswith(".")


def test_the_axis_of_epochs_ends_with_the_last_epoch(tmp_path: Path) -> None:
    made_up_trial(tmp_path, epochs=20)
    (axes,) = lss_against_epoch(load(tmp_path)).axes
    assert axes.get_xlim()[1] < 20.5
    assert_array_equal(axes.get_xticks(), [0, 5, 10, 15, 20])


@given(st.integers(1, 1000))
def test_a_line_has_about_a_hundred_epochs_with_the_first_and_the_last(last: int) -> None:
    thinned = panels.thinned(pd.DataFrame({"epoch": range(last + 1), "epochs_done": last}))
    assert {0, last} <= set(thinned.epoch)
    assert min(last + 1, 60) <= len(thinned) <= 152


@given(st.lists(st.sampled_from([0, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1]), unique=True))
def test_the_gammas_of_the_paper_are_shown_where_they_are_there(there: list[float]) -> None:
    wanted = [1e-2, 1e-3, 1e-1, 1e-4]
    chosen = panels.chosen(sorted(there), wanted)
    assert chosen == sorted(set(chosen) & set(there))
    assert len(chosen) == min(4, len(there))
    assert (0 in chosen) == (0 in there)  # the control
    some = [gamma for gamma in wanted if gamma in there][: 4 - (0 in there)]
    assert set(some) <= set(chosen)


def test_many_gammas_have_thin_lines_and_a_colour_bar(tmp_path: Path) -> None:
    gammas = [0.0, *np.geomspace(1e-5, 0.1, 14)]
    for gamma in gammas:
        made_up_trial(tmp_path, gamma=float(gamma), stages=2)
    results = load(tmp_path)
    for figure in (lss_against_epoch(results), lss_by_stage(results)):
        for axes in figure.axes:
            (curves,) = (c for c in axes.collections if isinstance(c, LineCollection))
            assert len(curves.get_segments()) == 15
            assert not [line for line in axes.lines if str(line.get_label()).startswith("γ")]
        (bar,) = figure.axes[0].child_axes
        assert bar.get_yscale() == "log"
        assert_allclose(bar.get_ylim(), [1e-5, 0.1])
        assert "0: darkest" in bar.get_title("left")


def test_equal_lines_are_drawn_beside_each_other(tmp_path: Path) -> None:
    for gamma in (0.0, 0.1):
        made_up_trial(tmp_path, gamma=gamma, ots=0.5)
    axes = ots_against_m(load(tmp_path)).axes[0]
    one, other = (line for line in axes.lines if str(line.get_label()).startswith("γ"))
    assert_array_equal(one.get_xydata(), other.get_xydata())  # type: ignore[arg-type]
    places = [line.get_transform().transform(line.get_xydata()) for line in (one, other)]
    assert_allclose(np.ptp(places, axis=0), [[2.4 * 100 / 72, 0]] * 3, atol=1e-9)  # dots


def test_each_stage_has_its_row_with_its_own_nulls(four_stages: Path) -> None:
    results = load(four_stages, columns=figures.COLUMNS)
    figure = lss_by_stage(results)
    heads = [f"cifar10, {name}, K = 4\nstage 1" for name in ("plain", "ResNet")]
    assert titles(figure) == heads + [f"stage {k}" for k in (2, 3, 4) for _ in range(2)]
    tracks = results.tracks.merge(results.trials[["trial", "network", "gamma"]], on="trial")
    for place in range(8):
        here = tracks[
            (tracks.stage == 1 + place // 2) & (tracks.network != ["resnet", "plain"][place % 2])
        ]
        drawn = lines(figure, place)
        assert_allclose(drawn[style.INITIAL][:, 1], here.lss_initial.mean())
        assert_allclose(drawn["√n"][:, 1], 5**0.5)
        mean = here[here.gamma == 1e-3].groupby("epoch").lss.mean()
        assert_allclose(drawn["γ = 0.001"], np.column_stack([mean.index, mean]))


def test_the_shape_of_a_state_is_said_where_it_is_known(tmp_path: Path) -> None:
    made_up_trial(tmp_path, stages=2, shapes="16 x 8 x 8, 32 x 4 x 4")
    assert titles(lss_by_stage(load(tmp_path))) == [
        "digits, ResNet, K = 2\nstage 1: 16 x 8 x 8",
        "stage 2: 32 x 4 x 4",
    ]


def test_more_than_four_columns_go_on_below(tmp_path: Path) -> None:
    for dataset in ("digits", "mnist", "cifar10"):
        for network in ("plain", "resnet"):
            made_up_trial(tmp_path, network, dataset=dataset, stages=2)
    figure = lss_by_stage(load(tmp_path))
    assert len(titles(figure)) == 12
    grid: Any = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (4, 4)


def test_scores_by_stage_are_those_of_the_control_and_the_paper_s_gammas(
    four_stages: Path,
) -> None:
    results = load(four_stages, columns=figures.COLUMNS)
    figure = scores_by_stage(results)
    assert titles(figure)[:5] == ["cifar10, K = 4", *(f"γ = {g:g}" for g in OF_STAGES_SHOWN)]
    assert figure.axes[1].get_ylabel() == "OTS (fraction, m = 1,000)"
    tracks = results.tracks.merge(results.trials[["trial", "network", "gamma"]], on="trial")
    ended = tracks[(tracks.epoch == 6) & (tracks.network == "resnet")]
    for place, gamma in enumerate(OF_STAGES_SHOWN, 1):
        means = ended[ended.gamma == gamma].groupby("stage")[["ots", "lss", "lss_initial"]].mean()
        for row, score in ((place, "ots"), (5 + place, "lss")):
            heights = [line.get_ydata() for line in figure.axes[row].lines]
            assert any(np.shape(h) == (4,) and np.allclose(h, means[score]) for h in heights)
        assert "√n = 2.24" in lines(figure, 5 + place)
        assert_allclose(lines(figure, 5 + place)[style.INITIAL][:, 1], means.lss_initial)


def test_a_stage_that_collapsed_is_named_and_has_no_ots(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path, "plain", stages=2)
    rows = read_rows(str(tmp_path), "tracks", trial)
    rows[-1] |= {"collapsed": True, "ots": 1.0}  # the second stage of the last epoch
    write_table(str(tmp_path), "tracks", trial, rows)
    figure = scores_by_stage(load(tmp_path))
    assert titles(figure)[1] == "γ = 0\ncollapsed: plain 2"
    after = figure.axes[1].lines[1]
    assert np.isfinite(np.asarray(after.get_ydata())).tolist() == [True, False]


def test_a_point_stands_for_each_trial_that_has_the_score(tmp_path: Path) -> None:
    made_up_trial(tmp_path, "plain", lss=9.0, ots=0.1, test_accuracy=0.5)
    made_up_trial(tmp_path, "resnet", lss=3.0, collapsed=True, ots=1.0, test_accuracy=0.6)
    made_up_trial(tmp_path, "resnet", seed=1, lss=np.inf, ots=0.9, test_accuracy=0.7)
    made_up_trial(tmp_path, "resnet", seed=2, status="diverged", lss=2.0, ots=0.9)
    figure = accuracy_against_score(load(tmp_path))
    found = []
    for place in (0, 1):
        points = lines(figure, place)
        both = np.concatenate([points["plain, K = 1"], points["ResNet, K = 1"]])
        found.append(both[np.isfinite(both).all(axis=1)].tolist())
        assert points[style.INITIAL][0, 0] == points[style.INITIAL][1, 0]
    assert found == [[[9.0, 0.5], [3.0, 0.6]], [[0.1, 0.5], [0.9, 0.7]]]
    assert "√n" in lines(figure, 0)
    assert "1/m" in lines(figure, 1)


def test_networks_of_several_depths_have_a_line_each_and_are_never_averaged(tmp_path: Path) -> None:
    for depth, loss in ((2, 0.5), (5, 0.4), (10, 0.3), (20, 0.1)):
        for seed in range(2):
            made_up_trial(tmp_path, seed=seed, depth=depth, clean_train_loss=loss, lss=3.0 + depth)
    results = load(tmp_path, columns=figures.COLUMNS)
    drawn = figures.draw(results, only=["scores_against_depth", "lss_against_epoch"])
    loss = drawn["scores_against_depth"].axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(loss, [[2, 0.5], [5, 0.4], [10, 0.3], [20, 0.1]])
    named = " ".join(titles(drawn["lss_against_epoch"]))
    assert all(f"depth {depth}" in named for depth in (2, 5, 10, 20))


@pytest.mark.parametrize("network", ["plain", "resnet", "torchvision:resnet18", "nets.py:Net"])
def test_an_untrained_network_is_dotted_in_a_dark_shade_of_the_trained_one_and_above_it(
    tmp_path: Path, network: str
) -> None:
    for depth in (2, 5):
        made_up_trial(tmp_path, network, depth=depth, tried=["lesion", "noise", "separation"])
    names = ["scores_against_depth", "accuracy_against_units", "accuracy_against_noise"]
    names += ["accuracy_without_blocks", "mixed_by_distance"]
    drawn = figures.draw(load(tmp_path, columns=figures.COLUMNS), only=names)
    assert {*drawn} == {*names}
    for figure in drawn.values():
        drawn = [line for axes in figure.axes for line in axes.lines]
        dotted = [line for line in drawn if line.get_linestyle() == ":"]
        whole = [line for line in drawn if line.get_linestyle() == "-"]
        assert {line.get_color() for line in whole} == {style.colour(network)}
        dark = np.array(to_rgb(style.colour(network))) * 0.6
        for line in dotted:
            assert_allclose(to_rgb(line.get_color()), dark, atol=1 / 255)
        assert min(line.zorder for line in dotted) > max(line.zorder for line in whole)


def test_optimizers_have_lines_of_their_own_and_gamma_is_called_what_it_is(tmp_path: Path) -> None:
    for seed, recipe in enumerate(("adam", "sgd", "nadam", "adamw")):
        for gamma in (0.0, 0.1):
            given = {"recipe": recipe, "decoupled": recipe == "adamw"}
            made_up_trial(tmp_path, gamma=gamma, seed=seed, **given)
    results = load(tmp_path, columns=figures.COLUMNS)
    drawn = figures.draw(results, only=["scores_against_gamma", "lss_against_epoch"])
    axes = drawn["scores_against_gamma"].axes[0]
    assert axes.get_xlabel() == "γ (L2 penalty or decoupled decay)"
    (key,) = drawn["scores_against_gamma"].legends
    named = " ".join(text.get_text() for text in key.get_texts())
    assert all(f"recipe {recipe}" in named for recipe in ("adam", "sgd", "nadam", "adamw"))
    assert "recipe adamw" in " ".join(titles(drawn["lss_against_epoch"]))
    (key,) = drawn["lss_against_epoch"].legends
    assert key.get_title().get_text() == "γ, L2 penalty or\ndecoupled decay"
    one = results._replace(trials=results.trials[results.trials.recipe == "adamw"])
    axes = figures.draw(one, only=["scores_against_gamma"])["scores_against_gamma"].axes[0]
    assert axes.get_xlabel() == "γ (decoupled weight decay)"


@pytest.mark.slow
def test_a_figure_is_written_as_a_bitmap_and_the_same_drawing_each_time(tmp_path: Path) -> None:
    results = load(made_up_sweep(tmp_path))
    one, other = (files.render(tracks_by_gamma(results), "tracks") for _ in range(2))
    files.save(one, str(tmp_path), "tracks")
    assert one["png"].startswith(b"\x89PNG")
    assert ElementTree.fromstring(one["svg"]).tag.endswith("svg")
    assert one["svg"] == other["svg"] == (tmp_path / "tracks.svg").read_bytes()


def test_the_command_writes_the_figures_asked_for_and_prints_their_paths(
    tmp_path: Path, capsys
) -> None:
    root = made_up_sweep(tmp_path / "demo")
    assert figures.main([str(root), "--only", "ots_against_m", "lss_against_epoch"]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in printed] == [
        *("lss_against_epoch.png", "lss_against_epoch.svg"),
        *("ots_against_m.png", "ots_against_m.svg"),
    ]
    assert all(path.parent == root / "figures" and path.is_file() for path in printed)
    out = tmp_path / "out"
    only = ["--only", "tracks_by_gamma", "--form", "svg"]
    assert figures.main([f"file://{root}", "--out", str(out), *only]) == 0
    assert [file.name for file in out.iterdir()] == ["tracks_by_gamma.svg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["demo", "--only", "fig_2"], "no figure is called fig_2; there are lss_against_epoch, "),
        (["demo", "--only", "lss_by_stage"], r"lacks .*lss_by_stage \(a trial with K > 1\)"),
        (["failed"], "failed: no trial is done yet"),
        (["demo", "--out", "demo/sweep.json/x"], "sweep.json"),
    ],
)
def test_bad_input_ends_with_one_message_and_status_2(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made_up_trial(made_up_search(Path("demo"), {"lss": "min"}))
    made_up_trial("failed", status="failed")
    assert figures.main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert re.search(said, told.err)


@pytest.mark.slow
def test_help_names_every_figure_and_loads_neither_torch_nor_pyplot() -> None:
    code = """
import runpy, sys
try:
    runpy.run_module("analysis.figures", run_name="__main__")
except SystemExit as end:
    print(end.code, {"torch", "ray", "mlflow", "matplotlib.pyplot"} & set(sys.modules))
"""
    command = [sys.executable, "-W", "error", "-c", code, "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("0 set()\n")
    for name, spec in figures.FIGURES.items():
        assert re.search(rf"{name} .*{re.escape(spec.paper)}.*needs", ran.stdout)


def test_effective_rates_are_shown_at_the_highest_learning_rate(tmp_path: Path) -> None:
    """The cosine, which lets all lines fall to 0 alike, is left out."""
    trial = made_up_trial(tmp_path, "plain", 0.1)
    rows = read_rows(str(tmp_path), "epochs", trial)
    falls = [1e-3 * 0.5 ** row["epoch"] for row in rows]
    for row, rate in zip(rows, falls, strict=True):
        row |= {"learning_rate": rate, "effective_rate": rate * (2 + row["epoch"])}
    assert not has_rates(load(tmp_path))
    write_table(str(tmp_path), "epochs", trial, rows)
    assert has_rates(load(tmp_path))
    figure = rate_against_epoch(load(tmp_path))
    assert len(figure.axes) == 1  # no panel for other weights, which have no rates here
    drawn = lines(figure, 0)["γ = 0.1"]
    assert_allclose(drawn[:, 1], [1e-3 * (2 + row["epoch"]) for row in rows[1:]])
