"""Scores against the effective learning rate: with gamma, with the rate fixed, without gamma."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.measures.layout import heading
from analysis.measures.rates import AS_IS, CLAIMED, FASTER, FIXED, SMALLER, effects
from analysis.plots import panels, scales, style
from analysis.results import Results

LOOKS = {  # colour and marker of each kind of change, colours of Okabe and Ito
    AS_IS: ("#0072B2", "o", "γ, as it is"),
    FIXED: ("#D55E00", "s", "γ, rate fixed"),
    FASTER: ("#009E73", "^", "γ = 0, higher learning rate"),
    SMALLER: ("#CC79A7", "D", "γ = 0, smaller initial weights"),
}
APART = 0.1  # A panel cuts intervals off at this share of its changes beyond the outermost mean.


def scores_against_rate(results: Results, table: pd.DataFrame | None = None) -> Figure:
    """LSS and accuracies against the effective learning rate, a line per kind of change.

    Args:
        results: from :func:`analysis.results.load`.
        table: from :func:`analysis.measures.rates.effects`; by default it is computed.

    Returns:
        Figure with a row per network and what else varies, and a column per outcome. Each line
        starts hollow at gamma 0 and goes through rising values of what changes, the last of which
        stands beside it. Bars are 95% intervals of the change from the start, not corrected for
        multiple tests. The x axis is logarithmic. Panels have axes of their own.
    """
    table = effects(results) if table is None else table
    table = table[np.isfinite(table.rate_before) & np.isfinite(table.rate_ratio)]
    if not len(table):
        return style.nothing("no cell was trained at several effective learning rates")
    names = [name for name in CLAIMED if table[f"{name}_change"].notna().any()]
    keys = [*table.loc[:, :"change"].columns[:-1], "m"]
    places = table[keys].drop_duplicates().to_dict("records")
    figure, grid = style.sheet(
        len(places), len(names), (1.9, 2.0), gaps=(0.75, 1.0), beside=2.25, top=0.55
    )
    for row, key in zip(grid, places, strict=True):
        here = panels.at(table, key)
        for axes, name in zip(row, names, strict=True):
            _lines(axes, here, name)
            style.title(axes, heading(name))
            axes.set_xlabel("effective rate" if key is places[-1] else "")
        others = [n for n in keys if n not in (*panels.PANEL, "network", "m")]
        panels.row_title(row[0], f"{panels.data_name(key['dataset'])}, {panels.name(key, others)}")
    found = set(table.change)
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, label=label)
        for kind, (colour, marker, label) in LOOKS.items()
        if kind in found
    ]
    style.legend(figure, [*handles, style.baseline_handle("hollow: γ = 0, the start", "")])
    return figure


def _lines(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    """Draw the lines of a panel, and set the bounds of its axes."""
    ends = []
    for kind, (colour, marker, _) in LOOKS.items():
        for _, own in rows[rows.change == kind].groupby(["rate_before", f"{name}_before"]):
            own = own.sort_values("rate_ratio" if kind != FIXED else "end")
            start, before = own.rate_before.iloc[0], own[f"{name}_before"].iloc[0]
            x = [start, *(own.rate_ratio * start)]
            mean = pd.Series([before, *(before + own[f"{name}_change"])], dtype="float64")
            half = pd.Series([np.nan, *own[f"{name}_change_ci95"]], dtype="float64")
            look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4}
            style.bars(axes, x, mean, half, look)
            axes.plot(x[:1], mean[:1], color=colour, marker=marker, markersize=4,
                      markerfacecolor="white", zorder=3)  # fmt: skip
            axes.annotate(
                f"{own.end.iloc[-1]:g}", (x[-1], mean.iloc[-1]), xytext=(4, 2),
                textcoords="offset points", fontsize=7, color=colour,
            )  # fmt: skip
            ends += [(a, b) for a, b in zip(x, mean, strict=True) if np.isfinite(b)]
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(scales.Powers())
    if not ends:
        return
    rates, heights = np.array(ends).T
    axes.set_xlim(rates.min() / 1.5, rates.max() * 2.5)
    far = max(np.ptp(heights), 1e-3)
    axes.set_ylim(heights.min() - APART * far, heights.max() + APART * far)
