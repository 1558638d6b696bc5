"""What the figures share: a grid of panels, a line for each gamma.

A panel shows one dataset, K and network, and one value of each other setting that varies. Used
by the modules of figures.
"""

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

from analysis.measures.cells import varying
from analysis.measures.layout import network_name
from analysis.plots import style
from analysis.plots.style import MARKERS

PANEL = ["dataset", "layers", "stages"]
SPLIT = 3  # combinations of other settings that get lines of their own; more are averaged
MANY = 12  # more gammas than this have a colour bar and a logarithmic axis; fewer, a legend


def splitting(done: pd.DataFrame) -> list[str]:
    """Other settings that vary, if they make few combinations."""
    extra = varying(done)
    return extra if len(done[extra].drop_duplicates()) <= SPLIT else []


def at(frame: pd.DataFrame, key: Mapping) -> pd.DataFrame:
    """Rows where every column of the key has its value."""
    keep = np.ones(len(frame), dtype=bool)
    for column, value in key.items():
        found = frame[column].to_numpy()
        keep &= pd.isna(found) if pd.isna(value) else found == value
    return frame[keep]


def key_columns(done: pd.DataFrame) -> list[str]:
    """What says of a trial, or of one of some of these, which panel it is in, and which line."""
    return ["trial", *PANEL, *varying(done), "network", "gamma"]


def name(key: Mapping, extra: list[str]) -> str:
    """What a panel or a line is called: network, K, and the other settings that vary."""
    parts = [network_name(key["network"]), f"K = {key['stages']}"]
    return ", ".join(parts + [f"{n.replace('_', ' ')} {key[n]}" for n in extra])


def data_name(dataset: str) -> str:
    """What a data set is called: its name, or that of its file without the folder."""
    return Path(dataset).stem if dataset.endswith(".npz") else dataset


def rows_of(done: pd.DataFrame) -> tuple[list[str], list[dict]]:
    """The columns that say which row of panels a trial is in, and the values they take."""
    columns = [*PANEL, *splitting(done)]
    return columns, done[columns].drop_duplicates().sort_values(columns).to_dict("records")


def grid(
    done: pd.DataFrame, scores: Mapping[str, str], named: bool = True
) -> tuple[Figure, list[tuple[Axes, str, dict]]]:
    """A figure with a row per dataset and K, a column per score (with its label) and network.

    Args:
        done: trials.
        scores: columns to show, with what their axes say.
        named: whether lines are named at their right ends, which takes room.

    Returns:
        The figure, and its panels with their score and the columns' values that select them.
    """
    rows, cells = rows_of(done)
    columns = [(score, network) for score in scores for network in sorted(done.network.unique())]
    wide = len(columns) < 3
    room = 0.65 * named
    figure, axes_of = style.sheet(
        len(cells), len(columns), (3.4 if wide else 2.1, 2.3 if len(cells) == 1 else 2.0),
        gaps=(0.65 + 0.75 * room, 0.6), beside=1.55 + 0.5 * room,
    )  # fmt: skip
    places = []
    for i, cell in enumerate(cells):
        for j, (score, network) in enumerate(columns):
            axes, key = axes_of[i, j], cell | {"network": network}
            style.title(axes, f"{data_name(cell['dataset'])}, {name(key, rows[3:])}")
            first = j == 0 or columns[j - 1][0] != score
            axes.set_ylabel(scores[score] * first)
            places.append((axes, score, key))
    return figure, places


def is_lowest(axes: Axes) -> bool:
    """Whether a panel is in the last row, where the axis of x is named."""
    place = axes.get_subplotspec()
    return place is not None and place.is_last_row()


def thinned(epochs: pd.DataFrame) -> pd.DataFrame:
    """Rows of about a hundred epochs, evenly spaced: more are not to be seen on a line.

    The first and each trial's last one (``epochs_done``) are among them.
    """
    step = max(1, round(epochs.epoch.max() / 100)) if epochs.epoch.notna().any() else 1
    return epochs[(epochs.epoch % step == 0) | (epochs.epoch == epochs.epochs_done)]


def gamma_lines(
    axes: Axes, means: pd.DataFrame, x: str, score: str, gammas: list[float], dodge: bool = False
) -> list[float]:
    """Draw a line with its band for each gamma; returns all heights.

    Args:
        axes: to draw on.
        means: of :func:`analysis.measures.cells.mean_interval`, with columns ``gamma`` and ``x``.
        x: column along the panel.
        score: column that gives the heights.
        gammas: all of the figure. If they are many, lines are thin and have no markers.
        dodge: draw lines a little beside each other, so that equal ones can be told apart.
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


def gamma_legend(
    figure: Figure, gammas: list[float], nulls: Mapping[str, Any] | None = None
) -> None:
    """The legend of a figure with a line per gamma, and of what its other lines are.

    Many gammas have a colour bar.
    """
    title = "γ, weight of\nthe L2 penalty"
    handles = []
    if len(gammas) > MANY:
        style.colour_bar(figure, gammas, title, top=0.45 * len(nulls or {}) + 0.1)
    else:
        for i, (gamma, colour) in enumerate(style.shades(gammas).items()):
            look = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            handles.append(Line2D([], [], label=f"{gamma:g}", **look))
    for label, look in (nulls or {}).items():
        handles.append(Line2D([], [], color="0.35", linestyle=look, linewidth=1, label=label))
    style.legend(figure, handles, title if len(gammas) <= MANY else None)


def gamma_axis(axes: Axes, gammas: Sequence[float], log: bool = False) -> None:
    """An axis of gammas: evenly spaced and named one by one, or on a logarithmic scale."""
    axes.set_xlabel("γ (weight of the L2 penalty)")
    known = [gamma for gamma in gammas if gamma > 0] or [1.0]
    if log:
        axes.set_xscale("symlog", linthresh=min(known))
        axes.xaxis.set_major_formatter(style.Powers())
        axes.set_xlim(-0.3 * min(known) if 0 in gammas else min(known) / 1.2, 1.5 * max(known))
        return
    axes.set_xticks(range(len(gammas)), [_short(gamma) for gamma in gammas])
    axes.set_xlim(-0.4, len(gammas) - 0.6)


def _short(number: float) -> str:
    """A number in few letters.

    >>> [_short(number) for number in (0, 0.01, 0.0005, 0.00528)]
    ['0', '0.01', '5e-4', '5.3e-3']
    """
    text = f"{number:g}"
    return text if len(text) < 5 else f"{number:.1e}".replace(".0e", "e").replace("e-0", "e-")


def sizes(trials: pd.DataFrame) -> str:
    """The numbers of points that trials were scored at, as an axis says them."""
    m = sorted(trials.points.dropna().unique())
    return " or ".join(f"{int(points):,}" for points in m[:3]) + ", …" * (len(m) > 3) or "?"


def chosen(there: Sequence[float], wanted: Sequence[float], most: int = 4) -> list[float]:
    """A few of many gammas: those wanted that are there, then those farthest from the chosen.

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
