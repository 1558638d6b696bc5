"""A line for each gamma along a panel, and its legend."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from analysis.measures.cells import gamma_meaning
from analysis.plots import seeds, style
from analysis.plots.panels import MANY
from analysis.plots.style import MARKERS


def lines(
    axes: Axes, rows: pd.DataFrame, x: str, score: str, gammas: list[float], dodge: bool = False
) -> list[float]:
    """Draw the means over seeds against x for each gamma, and how far the seeds spread.

    Args:
        axes: to draw on.
        rows: results of the panel, with columns ``trial``, ``gamma`` and ``x``, and ``combination``
            if lines of one gamma can differ in other settings.
        x: column along the panel.
        score: column that gives the heights.
        gammas: all gammas of the figure. Lines of many gammas, or of several combinations, are
            thin and have no markers.
        dodge: shift lines a little sideways, so that equal lines can be told apart.

    Returns:
        The heights of the means.
    """
    if len(gammas) > MANY or ("combination" in rows and rows.combination.nunique() > 1):
        return _thin_lines(axes, rows, x, score, gammas)
    means = seeds.averaged(rows, ["gamma", x], score).reset_index()
    for i, (gamma, colour) in enumerate(style.shades(gammas).items()):
        own = means[means.gamma == gamma]
        every = max(1, len(own) // 8)
        drawn: list[Artist] = [
            *axes.plot(
                own[x].to_numpy("float64"), own["mean"], color=colour, linewidth=1.3, markersize=4,
                marker=MARKERS[i % len(MARKERS)], label=f"γ = {gamma:g}",
                markevery=(i * every // len(gammas), every),
            ),
            *seeds.spread(axes, own, rows[rows.gamma == gamma], x, score, colour),
        ]  # fmt: skip
        points = 2.4 * (i - (len(gammas) - 1) / 2) if dodge else 0.0
        scale = axes.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
        for artist in drawn if dodge else ():
            artist.set_transform(axes.transData + ScaledTranslation(points / 72, 0, scale))
    return [*means["mean"]]


def _thin_lines(
    axes: Axes, rows: pd.DataFrame, x: str, score: str, gammas: list[float]
) -> list[float]:
    colours = style.shades(gammas, log=len(gammas) > MANY)
    line = ["gamma", *(["combination"] if "combination" in rows else [])]
    means = seeds.averaged(rows, [*line, x], score).reset_index()
    curves, shown = [], []
    for _, own in means.groupby(line):
        curves.append(own[[x, "mean"]].to_numpy("float64"))
        shown.append(colours[float(own.gamma.iloc[0])])
    axes.add_collection(LineCollection(curves, colors=shown, linewidths=0.8, alpha=0.8, zorder=1.4))
    axes.autoscale_view()
    return [*means["mean"]]


def legend(
    figure: Figure,
    done: pd.DataFrame,
    gammas: Sequence[float],
    counts: Sequence[int],
    baselines: Mapping[str, Any] | None = None,
) -> None:
    """The legend of a figure with a line per gamma: a colour bar if there are many.

    Args:
        figure: the figure.
        done: its trials, which tell what gamma is.
        gammas: all gammas of the figure.
        counts: numbers of seeds, from :func:`analysis.plots.panels.seed_counts`.
        baselines: line styles of further lines to explain, by their labels.
    """
    title = textwrap.fill(f"γ, {gamma_meaning(done)}", 16)
    handles: list[Artist] = []
    if len(gammas) > MANY:
        style.colour_bar(figure, gammas, title, top=0.45 * len(baselines or {}) + 0.1)
    else:
        for i, (gamma, colour) in enumerate(style.shades(gammas).items()):
            look = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            handles.append(Line2D([], [], label=f"{gamma:g}", **look))
    for label, dashes in (baselines or {}).items():
        handles.append(style.baseline_handle(label, dashes, 1))
    if len(gammas) <= MANY and not ("combination" in done and np.ptp(done.combination)):
        handles += seeds.handles(counts)
    style.legend(figure, handles, title if len(gammas) <= MANY else None)
