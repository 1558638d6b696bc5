"""What figures share: grids of panels, names of panels and lines, a line for each gamma.

A panel shows one dataset, K and network, and one value of each other setting that varies.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from analysis.measures.cells import gamma_meaning, varying
from analysis.measures.layout import network_name
from analysis.plots import style
from analysis.plots.style import MARKERS
from scoring.tables import ARGUMENT

PANEL = ["dataset", "layers", "stages"]
SPLIT = 3  # Up to so many combinations of other settings get lines of their own; more are averaged.
APART = ["depth", "recipe"]  # Networks that differ in these are never averaged.
MANY = 12  # Up to so many gammas have a legend; more have a colour bar and a logarithmic axis.


def splitting(done: pd.DataFrame) -> list[str]:
    """Other settings that vary; those of APART only, if the rest make more combinations than SPLIT.

    Arguments of architectures are as in APART.

    Args:
        done: trials.
    """
    extra = varying(done)
    apart = [name for name in extra if name in APART or name.startswith(ARGUMENT)]
    few = len(done[[n for n in extra if n not in apart]].drop_duplicates()) <= SPLIT
    return extra if few else apart


def at(frame: pd.DataFrame, key: Mapping) -> pd.DataFrame:
    """Rows where every column of the key has its value."""
    keep = np.ones(len(frame), dtype=bool)
    for column, value in key.items():
        found = frame[column].to_numpy()
        keep &= pd.isna(found) if pd.isna(value) else found == value
    return frame[keep]


def key_columns(done: pd.DataFrame) -> list[str]:
    """Columns that identify a trial, its panel and its line."""
    return ["trial", *PANEL, *varying(done), "network", "gamma"]


def name(key: Mapping, extra: list[str]) -> str:
    """The name of a panel or a line: network, K, and the other settings in ``extra``."""
    network = one_line(network_name(key["network"]))
    return ", ".join([network, f"K = {key['stages']}", *settings(key, extra)])


def row_name(key: Mapping, extra: list[str]) -> str:
    """The name of a row of panels: dataset, K, and the other settings in ``extra``."""
    return ", ".join([data_name(key["dataset"]), f"K = {key['stages']}", *settings(key, extra)])


def settings(key: Mapping, names: list[str]) -> list[str]:
    """Settings with their values, as texts: "learning rate 0.001"."""
    return [f"{name.replace('_', ' ')} {one_line(key[name])}" for name in names]


def data_name(dataset: str) -> str:
    """The name of a dataset, for a file its name without folder and ending.

    >>> data_name("/data/mine.npz"), data_name("mine.py:noisy#0123456789ab")
    ('mine', 'mine:noisy')
    """
    if found := re.fullmatch(r"(.+)\.py:(\w+)#[0-9a-f]{12}", dataset, re.DOTALL):
        return one_line(f"{found[1]}:{found[2]}")
    return one_line(Path(dataset).stem if dataset.endswith(".npz") else dataset)


def one_line(value: object) -> str:
    r"""A value as a text without line breaks.

    >>> print(one_line("two\nlines"))
    two\nlines
    """
    return str(value).replace("\n", "\\n")


def rows_of(done: pd.DataFrame) -> tuple[list[str], list[dict]]:
    """The columns that say which row of panels a trial is in, and their distinct values."""
    columns = [*PANEL, *splitting(done)]
    return columns, done[columns].drop_duplicates().sort_values(columns).to_dict("records")


def grid(
    done: pd.DataFrame, scores: Mapping[str, str], named: bool = True
) -> tuple[Figure, list[tuple[Axes, str, dict]]]:
    """A figure with a row per dataset and K, and a column per score and network.

    Args:
        done: trials.
        scores: columns to show, with the labels of their axes.
        named: whether to leave space for the names of lines at their right ends.

    Returns:
        The figure, and for each panel its axes, its score and its key for :func:`at`.
    """
    rows, cells = rows_of(done)
    columns = [(score, network) for score in scores for network in sorted(done.network.unique())]
    wide = len(columns) < 3
    room = 0.65 if named else 0.0
    figure, axes_of = style.sheet(
        len(cells), len(columns), (3.4 if wide else 2.1, 2.3 if len(cells) == 1 else 2.0),
        gaps=(0.65 + 0.75 * room, 0.6), beside=1.55 + 0.5 * room,
    )  # fmt: skip
    places = []
    for i, cell in enumerate(cells):
        for j, (score, network) in enumerate(columns):
            axes, key = axes_of[i, j], cell | {"network": network}
            style.title(axes, f"{data_name(cell['dataset'])}, {name(key, rows[3:])}")
            if j == 0 or columns[j - 1][0] != score:
                axes.set_ylabel(scores[score])
            places.append((axes, score, key))
    return figure, places


def name_lowest(axes: Axes, text: str) -> None:
    """Label the x axis of a panel if it is in the last row of the figure."""
    place = axes.get_subplotspec()
    if place is not None and place.is_last_row():
        axes.set_xlabel(text)


def is_first(axes: Axes) -> bool:
    """Whether a panel is in the first column, where y axes have labels."""
    place = axes.get_subplotspec()
    return place is not None and place.is_first_col()


def row_title(axes: Axes, text: str) -> None:
    """Title a row of panels: a line above the title of its first panel, which may be wider."""
    lines = f"{text}\n{axes.get_title()}"
    axes.set_title("")
    axes.set_title(lines, fontsize=9, loc="left", y=1)


def thinned(epochs: pd.DataFrame) -> pd.DataFrame:
    """Rows of about a hundred evenly spaced epochs; a line cannot show more.

    The first epoch and the last one of each trial (``epochs_done``) are included.
    """
    step = max(1, round(epochs.epoch.max() / 100)) if epochs.epoch.notna().any() else 1
    return epochs[(epochs.epoch % step == 0) | (epochs.epoch == epochs.epochs_done)]


def gamma_lines(
    axes: Axes, means: pd.DataFrame, x: str, score: str, gammas: list[float], dodge: bool = False
) -> list[float]:
    """Draw a line with its band for each gamma, and return all heights.

    Args:
        axes: to draw on.
        means: from :func:`analysis.measures.cells.mean_interval`, with columns ``gamma`` and ``x``.
        x: column along the panel.
        score: column that gives the heights.
        gammas: all gammas of the figure. Lines of many gammas are thin and have no markers.
        dodge: shift lines a little sideways, so that equal lines can be told apart.
    """
    if len(gammas) > MANY:
        _many_lines(axes, means, x, score, gammas)
        return list(means[score])
    places, heights, halves = means[[x, score, f"{score}_ci95"]].to_numpy("float64").T
    for i, (gamma, colour) in enumerate(style.shades(gammas).items()):
        own = means.gamma.to_numpy() == gamma
        along, height, half = places[own], heights[own], halves[own]
        every = max(1, len(along) // 8)
        (line,) = axes.plot(
            along, height, color=colour, linewidth=1.3, markersize=4,
            marker=MARKERS[i % len(MARKERS)], label=f"γ = {gamma:g}",
            markevery=(i * every // len(gammas), every),
        )  # fmt: skip
        if dodge:
            points = 2.4 * (i - (len(gammas) - 1) / 2)
            aside = ScaledTranslation(points / 72, 0, axes.get_figure(root=True).dpi_scale_trans)  # type: ignore[union-attr]
            line.set_transform(axes.transData + aside)
        if np.isfinite(half).any():
            band = (height - half, height + half)
            axes.fill_between(along, *band, color=colour, alpha=0.1, linewidth=0)
    return list(means[score])


def _many_lines(axes: Axes, means: pd.DataFrame, x: str, score: str, gammas: list[float]) -> None:
    colours = style.shades(gammas, log=True)
    curves = {gamma: own[[x, score]].to_numpy() for gamma, own in means.groupby("gamma")}
    shown = [colours[float(gamma)] for gamma in curves]  # type: ignore[arg-type]
    lines = LineCollection(
        list(curves.values()), colors=shown, linewidths=0.8, alpha=0.8, zorder=1.4
    )
    axes.add_collection(lines)
    axes.autoscale_view()


def network_handles(rows: pd.DataFrame) -> list[Line2D]:
    """Lines for a legend, one for each network and K."""
    kinds = rows[["network", "stages"]].drop_duplicates().sort_values(["network", "stages"])
    return [
        Line2D([], [], label=name(key, []), **style.line_style(key["network"], key["stages"]))
        for key in kinds.to_dict("records")
    ]


def gamma_legend(
    figure: Figure,
    done: pd.DataFrame,
    gammas: list[float],
    baselines: Mapping[str, Any] | None = None,
) -> None:
    """The legend of a figure with a line per gamma: a colour bar if there are many.

    Args:
        figure: the figure.
        done: its trials, which tell what gamma is.
        gammas: all gammas of the figure.
        baselines: line styles of further lines to explain, by their labels.
    """
    title = textwrap.fill(f"γ, {gamma_meaning(done)}", 16)
    handles = []
    if len(gammas) > MANY:
        style.colour_bar(figure, gammas, title, top=0.45 * len(baselines or {}) + 0.1)
    else:
        for i, (gamma, colour) in enumerate(style.shades(gammas).items()):
            look = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            handles.append(Line2D([], [], label=f"{gamma:g}", **look))
    for label, dashes in (baselines or {}).items():
        handles.append(style.baseline_handle(label, dashes, 1))
    style.legend(figure, handles, title if len(gammas) <= MANY else None)


def sizes(trials: pd.DataFrame) -> str:
    """The numbers of points that trials were scored with, for the label of an axis."""
    m = sorted(trials.points.dropna().unique())
    if not m:
        return "?"
    return " or ".join(f"{int(points):,}" for points in m[:3]) + (", …" if len(m) > 3 else "")


def chosen(there: Sequence[float], wanted: Sequence[float], most: int = 4) -> list[float]:
    """A few of many gammas: the wanted ones that exist, then those farthest from the chosen.

    >>> chosen([0, 1e-4, 1e-3, 1e-2, 1e-1, 2e-1], wanted=[1e-4, 1e-3, 1e-2, 1e-1])
    [0.0001, 0.001, 0.01, 0.1]
    >>> chosen([0, 1, 2, 3, 4, 5, 6], wanted=[])
    [0, 2, 4, 6]
    """
    ranks = range(len(there))
    picked = [next((i for i in ranks if np.isclose(there[i], w, atol=0)), None) for w in wanted]
    places = [i for i in picked if i is not None][:most]
    if not places:
        return [there[round(i)] for i in np.linspace(0, len(there) - 1, min(most, len(there)))]
    while len(places) < min(most, len(there)):
        places.append(max(ranks, key=lambda i: min(abs(i - j) for j in places)))
    return [there[i] for i in sorted(places)]
