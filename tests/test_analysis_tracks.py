"""Figures of tracks in two dimensions: which points, gammas and stages, in which colours."""

from pathlib import Path

import numpy as np
from drawings import change, titles
from made_up import GAMMAS, made_up_trial
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from analysis import figures
from analysis.plots.tracks import tracks_by_gamma, tracks_by_stage
from analysis.results import load
from scoring.places import table_path
from scoring.tables import read_rows, write_table


def segments(figure: Figure, place: int) -> list[np.ndarray]:
    curves = figure.axes[place].collections[0]
    assert isinstance(curves, LineCollection)
    return [np.asarray(path) for path in curves.get_segments()]


def test_the_tracks_drawn_are_those_stored_of_the_smallest_seed(tmp_path: Path) -> None:
    for seed in (2, 1, 3):
        trial = made_up_trial(tmp_path, gamma=1e-3, seed=seed, lss=1.12, ots=0.96)
        change(tmp_path, "tracks", trial, lss=1.12)
    figure = tracks_by_gamma(load(tmp_path, columns=figures.COLUMNS))
    assert titles(figure)[0].startswith("digits, ResNet, γ = 0.001\nLSS 1.12 (")
    assert titles(figure)[0].endswith("OTS 0.960 (1.000)")
    stored = read_rows(str(tmp_path), "tracks", "digitr1g0.001s1")[-1]["projected"]
    track = np.reshape(stored, (11, 6, 2))
    known = [0, 1, 2, 3, 4]  # two points of each class at most; the class of the last is unknown
    assert_allclose(segments(figure, 0), track[:, known].swapaxes(0, 1))
    axes = figure.axes[0]
    assert axes.get_aspect() == 1
    assert_allclose(np.diff(axes.get_xlim()), np.diff(axes.get_ylim()))
    assert axes.get_xlabel() == "along the first direction (distance)"
    (note,) = (text.get_text().replace("\n", " ") for text in figure.texts)
    assert "one trial, of one seed" in note
    assert "two random directions" in note
    assert "Scales differ by panel." in note
    (text,) = (t.get_text() for t in figure.legends[0].get_texts() if "seed" in t.get_text())
    assert "m = 1,000" in text
    assert text.endswith("seed 1")


def test_a_class_has_its_colour_and_points_without_one_are_grey(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path)
    colours = tracks_by_gamma(load(tmp_path)).axes[0].collections[0].get_edgecolor()
    assert [to_hex(c) for c in colours[:3]] != [to_hex(colours[0])] * 3  # type: ignore[index]
    assert_array_equal(colours[0], colours[3])  # type: ignore[index]
    (tmp_path / table_path("samples", trial)).unlink()
    figure = tracks_by_gamma(load(tmp_path))
    assert len(segments(figure, 0)) == 6
    grey = figure.axes[0].collections[0].get_edgecolor()
    assert len({to_hex(c) for c in np.atleast_2d(grey)}) == 1


def test_of_a_hundred_classes_ten_are_shown_each_in_a_colour_of_its_own(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path, samples=6)
    rows = read_rows(str(tmp_path), "samples", trial)
    for row, label in zip(rows, (3, 13, 23, 3, 13, 99), strict=True):
        row["label"] = label
    write_table(str(tmp_path), "samples", trial, rows)
    figure = tracks_by_gamma(load(tmp_path))
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names[:4] == ["class 3", "class 13", "class 23", "class 99"]
    colours = figure.axes[0].collections[0].get_edgecolor()
    assert len({to_hex(c) for c in np.atleast_2d(colours)}) == 4


def test_a_class_whose_tracks_are_not_stored_is_named(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path)
    rows = read_rows(str(tmp_path), "samples", trial)
    write_table(str(tmp_path), "samples", trial, [*rows, rows[0] | {"point": 50, "label": 7}])
    figure = tracks_by_gamma(load(tmp_path, columns=figures.COLUMNS))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:4] == [
        *("class 0", "class 1", "class 2"),
        "class 7: not among\nthe first 50 points",
    ]


def test_both_networks_are_shown_at_the_same_gammas(tmp_path: Path) -> None:
    for gamma in [*GAMMAS, 0.1, 0.2]:
        made_up_trial(tmp_path, "plain", gamma)
    for gamma in (1e-3, 0.2):
        made_up_trial(tmp_path, "resnet", gamma)
    figure = tracks_by_gamma(load(tmp_path))
    heads = [title.split("\n")[0] for title in titles(figure)]
    plain = [f"digits, plain, γ = {gamma:g}" for gamma in (0, 1e-3, 1e-2, 1e-1)]
    assert heads == [*plain, "digits, ResNet, γ = 0.001"]
    assert [axes.get_visible() for axes in figure.axes[4:]] == [False, True, False, False]


def test_mnist_is_shown_at_the_control_and_the_gamma_of_the_paper_s_figure_3(
    tmp_path: Path,
) -> None:
    for gamma in (0.0, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2):
        made_up_trial(tmp_path, gamma=gamma, dataset="mnist")
    heads = [title.split("\n")[0] for title in titles(tracks_by_gamma(load(tmp_path)))]
    assert heads == [f"mnist, ResNet, γ = {gamma:g}" for gamma in (0, 5e-4, 1e-3, 1e-2)]


def test_stages_are_shown_at_each_network_s_best_gamma(tmp_path: Path) -> None:
    best = {"plain": 1e-3, "resnet": 5e-3}
    for network in best:
        for gamma in (1e-3, 5e-3):
            for seed, accuracy in enumerate((0.5, 0.7 + 0.2 * (gamma == best[network]))):
                made_up_trial(tmp_path, network, gamma, seed, stages=2, test_accuracy=accuracy)
    heads = ["\n".join(title.split("\n")[:2]) for title in titles(tracks_by_stage(load(tmp_path)))]
    assert heads == [
        f"digits, {name}, γ = {gamma:g}\nstage {k} of 2"
        for name, gamma in (("plain", 1e-3), ("ResNet", 5e-3))
        for k in (1, 2)
    ]
