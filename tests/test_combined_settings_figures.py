"""A mean in a figure is over the seeds of one combination of all settings, however many there are.

Else a setting that goes along with gamma can hide what gamma does, or turn it around (Simpson).
"""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawings import lines, titles
from made_up import made_up_trial
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from analysis import figures
from analysis.measures.cells import CELL, configuration
from analysis.measures.search import Search
from analysis.plots import panels, style
from analysis.plots.depth import varies
from analysis.plots.trials import pareto_front
from analysis.results import Results, load

GAMMAS = [0.0, 0.03, 0.1, 0.3]
RISE = dict(zip(GAMMAS, [0.0, 0.011, 0.026, 0.02], strict=True))
TRIED = ("lesion", "noise", "separation", "curve")
SHIFTED = {  # columns that differ by combination, by table
    "trials": ["test_accuracy", "clean_train_accuracy", "clean_train_loss"],
    "epochs": ["lss"],
    "robustness": ["accuracy", "speed"],
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One network with three seeds and four gammas."""
    root = tmp_path_factory.mktemp("one")
    for gamma, seed in itertools.product(GAMMAS, range(3)):
        accuracy = 0.8 + RISE[gamma] + 0.001 * seed
        made_up_trial(root, "resnet", gamma, seed, test_accuracy=accuracy, tried=TRIED)
    return load(root, columns=figures.COLUMNS)


def several(one: Results, *cells: dict[str, Any]) -> Results:
    """A sweep with a copy of ``one`` for each cell, with its settings, gammas and seeds.

    Accuracies and LSS of copy i are shifted by 0.02 i, so a number tells its combination.
    """
    parts = []
    for i, cell in enumerate(cells):
        settings = dict(cell)
        gammas, seeds = settings.pop("gammas", GAMMAS), settings.pop("seeds", 3)
        kept = one.trials[one.trials.gamma.isin(gammas) & (one.trials.seed < seeds)]
        part = {}
        for table, frame in one._asdict().items():
            own = frame[frame.trial.isin(kept.trial)].copy()
            own["trial"] = own.trial.astype(str) + f"c{i}"
            for column in SHIFTED.get(table, []):
                own[column] += 0.02 * i
            if table == "trials":
                own = own.assign(**settings)
            part[table] = own
        parts.append(part)
    names = parts[0]
    return Results(**{n: pd.concat([p[n] for p in parts], ignore_index=True) for n in names})


def draw(results: Results, name: str) -> Figure:
    return figures.draw(results, only=[name])[name]


def note(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def cell_means(results: Results, score: str) -> np.ndarray:
    """Means over the seeds of each combination of all settings."""
    by = [name for name in [*CELL, *configuration(results.trials), "points"] if name != "seed"]
    by = list(dict.fromkeys(by))
    return results.trials.groupby(by, dropna=False, observed=True)[score].mean().to_numpy()


def heights(figure: Figure, label: str) -> list[np.ndarray]:
    """Of lines with markers in panels whose y axis has this label."""
    here = [axes for axes in figure.axes if axes.get_ylabel().startswith(label)]
    return [
        np.asarray(line.get_ydata(), "float64")
        for axes in here
        for line in axes.lines
        if "ResNet" in str(line.get_label())
    ]


def rates(*values: float, **more: Any) -> list[dict[str, Any]]:
    return [{"learning_rate": value, **more} for value in values]


EFFECTIVE_RATE = [  # the cells of tune_jobs/sweeps/effective-rate.yaml
    *({"renormalise": on, "learning_rate": 3e-3, "initial_scale": 2.0} for on in (False, True)),
    *(
        {"renormalise": False, "learning_rate": rate, "initial_scale": scale, "gammas": [0.0]}
        for rate, scale in ((0.01, 2.0), (0.03, 2.0), (3e-3, 1.0), (3e-3, 0.5))
    ),
]
MANY = {
    "4 learning rates": rates(1e-3, 2e-3, 3e-3, 4e-3),
    "8 learning rates": rates(*np.linspace(1e-3, 8e-3, 8)),
    "effective rate": EFFECTIVE_RATE,
    "4 m": [{"points": m} for m in (100, 300, 500, 1000)],
    "2 m": [{"points": m} for m in (500, 1000)],
    "m and learning rate": [
        {"points": m, "learning_rate": rate} for m in (500, 1000) for rate in (1e-3, 2e-3, 3e-3)
    ],
    "4 depths and 4 rates": [
        {"depth": n, "learning_rate": rate} for n in (2, 5, 10, 20) for rate in (1, 2, 3, 4)
    ],
    "gammas apart": [
        *rates(1e-3, 2e-3, gammas=[0.0]),
        *rates(3e-3, 4e-3, gammas=[0.03, 0.1]),
        *rates(5e-3, gammas=[0.3]),
    ],
    "one seed": rates(1e-3, 2e-3, 3e-3, 4e-3, 5e-3, seeds=1),
    "a search": [
        cell for i, gamma in enumerate(GAMMAS * 2) for cell in rates(1e-3 * (i + 1), gammas=[gamma])
    ],
}
every_design = pytest.mark.parametrize("cells", MANY.values(), ids=MANY)


@every_design
def test_each_mean_against_gamma_is_that_of_one_combination(one: Results, cells: list) -> None:
    results = several(one, *cells)
    figure = draw(results, "scores_against_gamma")
    means = cell_means(results, "test_accuracy")
    drawn = np.concatenate(heights(figure, "test accuracy"))
    assert len(drawn) > 0
    assert np.abs(drawn[:, None] - means).min(axis=1).max() < 1e-12


@every_design
def test_each_line_against_the_epoch_is_that_of_one_combination(one: Results, cells: list) -> None:
    results = several(one, *cells)
    epochs = results.epochs.merge(results.trials[["trial", "gamma"]], on="trial")
    epochs["cell"] = epochs.trial.str.split("c").str[-1]
    means = epochs[epochs.epoch == 6].groupby(["cell", "gamma"]).lss.mean().to_numpy()
    figure = draw(results, "lss_against_epoch")
    ends = []
    for axes in figure.axes:
        ends += [
            np.asarray(line.get_ydata())[-1]
            for line in axes.lines
            if str(line.get_label()).startswith("γ") and len(line.get_xdata())  # type: ignore[arg-type]
        ]
        for many in axes.collections:
            if isinstance(many, LineCollection):
                ends += [segment[-1, 1] for segment in many.get_segments()]
    assert len(ends) > 0
    assert np.abs(np.array(ends)[:, None] - means).min(axis=1).max() < 1e-12


@every_design
def test_what_is_left_out_is_said(one: Results, cells: list) -> None:
    results = several(one, *cells)
    shown = panels.fitting(results.trials)
    there = {str(trial).split("c")[-1] for trial in shown.trials.trial}
    assert (f"{len(there)} of {len(cells)} combinations" in shown.note) == (len(there) < len(cells))
    assert ("combinations" in note(draw(results, "lss_against_epoch"))) == (len(there) < len(cells))


def test_gamma_is_not_mixed_up_with_what_goes_along_with_it(one: Results) -> None:
    """The combinations at gamma 0 alone have a higher accuracy, so their mean hid the rise."""
    figure = draw(several(one, *EFFECTIVE_RATE), "scores_against_gamma")
    for rise in heights(figure, "test accuracy"):
        assert_allclose(rise - rise[0], [*RISE.values()])
    assert "2 of 6 combinations" in note(figure)
    assert "All of these have initial scale 2.0, learning rate 0.003" in note(figure)
    (key,) = figure.legends
    named = [text.get_text() for text in key.get_texts()]
    assert named[:2] == [f"ResNet, K = 1, renormalise {on}" for on in (False, True)]


def test_more_than_three_combinations_have_rows_of_their_own(one: Results) -> None:
    figure = draw(several(one, *rates(1e-3, 2e-3, 3e-3, 4e-3, 5e-3)), "scores_against_gamma")
    assert len(figure.axes) == 20
    named = [axes.get_title("left") for axes in figure.axes[::4]]
    assert named == [f"digits, learning rate 0.00{i}" for i in (1, 2, 3, 4, 5)]
    assert note(figure) == ""


def test_combinations_with_the_most_gammas_are_drawn_then_with_the_most_seeds(
    one: Results,
) -> None:
    usual = [
        {"learning_rate": 1e-3, "batch_size": 64, "gammas": [0.0]},
        {"learning_rate": 2e-3, "batch_size": 128, "gammas": [0.0], "seeds": 2},
        {"learning_rate": 2e-3, "batch_size": 64, "gammas": [0.0], "seeds": 2},
        {"learning_rate": 4e-3, "batch_size": 32, "gammas": GAMMAS[:2], "seeds": 1},
        {"learning_rate": 5e-3, "batch_size": 64, "gammas": GAMMAS[:3], "seeds": 1},
    ]
    results = several(one, *usual)
    order = ["4", "3", "0", "2", "1"]  # the last two by how many cells have their values
    for most in range(1, 5):
        shown = panels.fitting(results.trials, most).trials
        assert {str(trial)[-1] for trial in shown.trial} == set(order[:most])


def test_each_dataset_has_its_own_combinations(one: Results) -> None:
    cells = [
        {"dataset": name, "learning_rate": rate * (2 if name == "mnist" else 1)}
        for name in ("digits", "mnist")
        for rate in (1e-3, 3e-3, 5e-3, 7e-3, 9e-3, 11e-3, 13e-3)
    ]
    shown = panels.fitting(several(one, *cells).trials)
    counts = shown.trials.groupby("dataset").learning_rate.nunique()
    assert counts.tolist() == [panels.MOST] * 2
    assert "12 of 14 combinations of dataset, learning rate" in shown.note


def test_a_setting_that_goes_with_the_dataset_alone_makes_no_rows(one: Results) -> None:
    cells = [
        {"dataset": f"d{i}", "epochs": i, "points": 100 * i, "recipe": "adam"} for i in range(1, 6)
    ]
    shown = panels.fitting(several(one, *cells).trials)
    assert (shown.extra, shown.note) == ([], "")


def test_every_optimizer_is_drawn(one: Results) -> None:
    cells = [{"recipe": f"r{i}", "learning_rate": i / 1e3} for i in range(1, 10)]
    shown = panels.fitting(several(one, *cells).trials)
    assert (shown.extra, shown.note) == (["recipe"], "")
    assert shown.trials.recipe.nunique() == 9


def test_scores_at_several_m_have_panels_of_their_own(one: Results) -> None:
    results = several(one, {"points": 500}, {"points": 1000})
    named = [f"digits, ResNet, K = 1, m = {m}" for m in ("500", "1,000")]
    assert titles(draw(results, "lss_against_epoch")) == named
    assert titles(draw(results, "ots_against_m")) == [named[0]] * 2 + [named[1]] * 2


def test_depth_is_drawn_at_equal_other_settings(one: Results) -> None:
    cells = [
        {"depth": n, "learning_rate": rate, "clean_train_loss": n * rate}
        for n, rate in [*itertools.product((2, 5, 10), (1, 2, 3, 4, 5)), (20, 5), (20, 6)]
    ]
    results = several(one, *cells)
    figure = draw(results, "scores_against_depth")
    losses = [np.asarray(axes.lines[0].get_ydata(), "float64") for axes in figure.axes[::6]]
    shift = {(c["depth"], c["learning_rate"]): c["clean_train_loss"] for c in cells}
    expected = [[shift[n, rate] for n in (2, 5, 10)] for rate in (1, 2)]
    expected.append([shift[n, 5] for n in (2, 5, 10, 20)])
    for line, values in zip(losses, expected, strict=True):
        assert_allclose(line, values)
    assert "3 of 6 combinations of learning rate are shown" in note(figure)
    apart = several(one, *({"depth": n, "learning_rate": n} for n in (2, 5, 10, 20)))
    assert not varies(apart)


def robust(results: Results) -> dict[str, np.ndarray]:
    """Accuracies and speeds of each combination, by evaluation."""
    rows = results.robustness.astype({"evaluation": str})
    rows = rows.merge(results.trials[["trial", "gamma"]], on="trial")
    rows = rows.assign(cell=rows.trial.str.split("c").str[-1])
    by = ["cell", "gamma", "stage", "block", "replacement", "units", "level"]
    return {
        str(name): own.groupby(by, dropna=False, observed=True).accuracy.mean().dropna().to_numpy()
        for name, own in rows.groupby("evaluation")
    }


@pytest.mark.parametrize(
    ("name", "evaluation"),
    [
        ("accuracy_against_units", "lesion"),
        ("accuracy_without_blocks", "skip"),
        ("accuracy_against_noise", "noise"),
    ],
)
@pytest.mark.parametrize("column", ["learning_rate", "points"])
def test_robustness_is_that_of_one_combination(
    one: Results, name: str, evaluation: str, column: str
) -> None:
    results = several(one, *({column: 100 * i, "seeds": 4 - i % 3} for i in range(1, 6)))
    figure = draw(results, name)
    means = robust(results)[evaluation]
    drawn = lines(figure, 0)["ResNet"][:, 1]
    assert np.abs(drawn[:, None] - means).min(axis=1).max() < 1e-12
    assert "3 of 5 combinations" in note(figure)


@pytest.mark.parametrize("differ", ["settings", "m"])
def test_evaluations_with_different_settings_are_not_averaged(one: Results, differ: str) -> None:
    results = several(one, {}, {})
    second = results.trials.trial.str.endswith("c1")
    rows = results.robustness
    if differ == "m":
        rows = rows.assign(m=rows.m.where(~rows.trial.str.endswith("c1"), 77))
    trials = results.trials
    if differ == "settings":
        changed = trials.evaluations.str.replace('"noise": {', '"noise": {"draws": 9, ')
        trials = trials.assign(evaluations=trials.evaluations.where(~second, changed))
    figure = draw(results._replace(trials=trials, robustness=rows), "accuracy_against_noise")
    named = [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]
    assert len(named) == 2 * len(GAMMAS)
    assert "evaluation settings 2" in named[-1]


def test_a_curve_at_another_m_has_a_row_of_its_own(one: Results) -> None:
    results = several(one, {}, {})
    rows = results.robustness
    rows = rows.assign(m=rows.m.where(~rows.trial.str.endswith("c1"), 77))
    named = titles(draw(results._replace(robustness=rows), "speed_by_block"))
    assert len(named) == 2
    assert "m = 77" in named[0]


def test_a_search_has_a_thin_line_and_a_point_for_each_combination(one: Results) -> None:
    results = several(one, *MANY["a search"])
    (axes,) = draw(results, "lss_against_epoch").axes
    (curves,) = (c for c in axes.collections if isinstance(c, LineCollection))
    assert len(curves.get_segments()) == 8
    figure = draw(results, "scores_against_gamma")
    (points,) = heights(figure, "test accuracy")
    assert len(points) == 8
    assert "A panel has all combinations of learning rate; they are not averaged." in note(figure)


def test_points_of_single_trials_share_a_panel_but_not_with_another_m(one: Results) -> None:
    cells = [{"points": m, "learning_rate": rate} for m in (500, 1000) for rate in (1, 2, 3, 4, 5)]
    figure = draw(several(one, *cells), "accuracy_against_score")
    assert titles(figure)[::2] == ["digits, K = 1, m = 500", "digits, K = 1, m = 1,000"]
    assert len(lines(figure, 0)["ResNet, K = 1"]) == 5 * len(GAMMAS) * 3


def test_a_search_over_depths_shows_the_lowest_and_the_highest_value_before_training(
    one: Results,
) -> None:
    cells = [{"depth": n, "lss_initial": float(n), "gammas": [0.0]} for n in (2, 5, 10)]
    objectives = {"lss": "min", "test_accuracy": "max"}
    figure = pareto_front(several(one, *cells), Search("optuna", "tpe", 3, objectives))
    dotted = [line for line in figure.axes[0].lines if line.get_label() == style.INITIAL]
    places = sorted({*np.ravel([np.asarray(line.get_xdata()) for line in dotted])} - {0.0, 1.0})
    assert places == [2.0, 10.0]


def test_tracks_name_their_combination(one: Results) -> None:
    results = several(one, *rates(1e-3, 2e-3), *rates(3e-3, 4e-3, seeds=1))
    figure = draw(results, "tracks_by_gamma")
    seconds = [title.split("\n")[1] for title in titles(figure)]
    assert seconds == [f"learning rate {x}" for x in (0.001, 0.002, 0.003) for _ in GAMMAS]
    assert "3 of 4 combinations" in note(figure)


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other: titles, the note, tick labels and axis labels."""
    figure.draw_without_rendering()
    named, ticks = [*figure.texts], []
    for axes in figure.axes:
        if axes.get_visible():
            named += [axes.title, axes._left_title]  # type: ignore[attr-defined]
            ticks += [axes.xaxis.label, *axes.get_xticklabels()]
    named, ticks = (
        [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
        for texts in (named, ticks)
    )
    pairs = [*itertools.combinations(named, 2), *itertools.product(named, ticks)]
    return [(a, b) for (a, box), (b, other) in pairs if box.padded(-2).overlaps(other)]


@pytest.mark.parametrize(
    "name",
    [
        *("lss_against_epoch", "scores_against_gamma", "ots_against_m", "accuracy_against_score"),
        *("tracks_by_gamma", "speed_by_block", "accuracy_against_units", "accuracy_against_noise"),
    ],
)
def test_titles_and_notes_do_not_overlap(one: Results, name: str) -> None:
    cells = [
        {"learning_rate": rate, "initial_scale": 1.5, "renormalise": on, "batch_size": size}
        for rate, on, size in itertools.product((1e-3, 3e-3), (False, True), (64, 128))
    ]
    figure = draw(several(one, *cells), name)
    assert overlapping(figure) == []
    (left, low), (right, high) = figure.get_tightbbox().get_points()
    assert min(left, low) >= 0
    assert (right, high) <= tuple(figure.get_size_inches())
