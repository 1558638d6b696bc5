"""Changes of scores by effective learning rate: with gamma, with the rate fixed, without gamma."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.measures.layout import heading
from analysis.measures.rates import AS_IS, CLAIMED, ENDS, FASTER, FIXED, SMALLER, effects
from analysis.plots import panels, scales, seeds, style
from analysis.results import Results

LOOKS = {  # colour and marker of each kind of change, colours of Okabe and Ito
    AS_IS: ("#0072B2", "o", "γ, as it is"),
    FIXED: ("#D55E00", "s", "γ, rate fixed"),
    FASTER: ("#009E73", "^", "γ = 0, higher learning rate"),
    SMALLER: ("#CC79A7", "D", "γ = 0, smaller initial weights"),
}
GROUND = "0.94"  # the colour behind points at a fixed rate
ASIDE = {FIXED: (-4, 2), SMALLER: (4, -7)}  # points from the last mark of a line to its value
STEP = 1.5  # from one point at a fixed rate to the next one on its left, as a factor of the x axis


def scores_against_rate(results: Results, table: pd.DataFrame | None = None) -> Figure:
    """Changes of LSS and accuracies by effective learning rate, a line per kind of change.

    Args:
        results: from :func:`analysis.results.load`.
        table: from :func:`analysis.measures.rates.effects`; by default it is computed.

    Returns:
        Figure with a row per network and what else varies, and a column per outcome. Each line
        starts hollow at gamma 0, where the change is 0, and goes through rising values of what
        changes, the last of which stands beside it. Points at a fixed rate go to the left on a
        shaded ground, in the order of gamma, since their rate is that of the start. Bars are 95%
        intervals of the change from the start, of three seeds or more, not corrected for multiple
        tests. The x axis is
        logarithmic. Panels have axes of their own. Baseline: no change (dashed).
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
            style.title(axes, f"change of {heading(name)}")
            if name == names[0]:
                axes.set_ylabel("change from start (hollow)")
            axes.set_xlabel("effective rate" if key is places[-1] else "")
        others = [n for n in keys if n not in (*panels.PANEL, "network", "m")]
        panels.row_title(row[0], f"{panels.data_name(key['dataset'])}, {panels.name(key, others)}")
    found = set(table.change)
    handles: list[Artist] = [
        Line2D([], [], color=colour, marker=marker, markersize=4, label=label)
        for kind, (colour, marker, label) in LOOKS.items()
        if kind in found
    ]
    handles.append(style.baseline_handle("no change", "--", 1))
    handles.append(style.baseline_handle("hollow: γ = 0, the start", ""))
    if FIXED in found:
        handles.append(Patch(color=GROUND, label="rate of the start,\nγ rises to the left"))
    style.legend(figure, handles)
    return figure


def _lines(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    """Draw the lines of a panel, and set the bounds of its axes."""
    before, change, half = (f"{name}{end}" for end in ENDS[:3])
    axes.axhline(0, linestyle="--", label="no change", **style.BASELINE)
    rows = rows.assign(**{half: seeds.known_halves(rows, half)})
    rates: list[float] = []
    for kind, (colour, marker, _) in LOOKS.items():
        for _, own in rows[rows.change == kind].groupby(["rate_before", before]):
            own = own.sort_values("rate_ratio" if kind != FIXED else "end")
            start = own.rate_before.iloc[0]
            x = [start, *(own.rate_ratio * start)]
            if kind == FIXED:
                x = [start / STEP**place for place in range(len(own) + 1)]
                axes.axvspan(x[-1] / STEP**2, start / STEP**0.5, color=GROUND, zorder=0)
            look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4}
            seeds.bars(axes, x, seeds.changes(own[change], own[half]), look)
            axes.plot(x[:1], [0], color=colour, marker=marker, markersize=4,
                      markerfacecolor="white", zorder=3)  # fmt: skip
            aside = {"xytext": ASIDE.get(kind, (4, 2)), "ha": "right" if kind == FIXED else "left"}
            axes.annotate(
                f"{own.end.iloc[-1]:g}", (x[-1], own[change].iloc[-1]), color=colour, fontsize=7,
                textcoords="offset points", **aside,
            )  # fmt: skip
            rates += x
    scales.rate_axis(axes, rates, rows.rate_before.min(), STEP**2)
    reach = rows[half].fillna(0)
    scales.around_zero(axes, [*(rows[change] - reach), *(rows[change] + reach)])
