"""How figures look: grids of panels, colours, lines, baselines, legends."""

import textwrap
from collections.abc import Sequence
from typing import Any, Literal
from zlib import crc32

from analysis.plots.settings import mpl  # before matplotlib

# isort: split
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import Transform

from analysis.plots import scales

MARKERS = "osD^vPX<>"
COLOURS = {"plain": "#D55E00", "resnet": "#0072B2"}  # Okabe and Ito's, safe for the colour-blind
OTHERS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # of theirs too, for architectures
BASELINE: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "zorder": 1.5}
INITIAL = "before training"
STRAIGHT = "1: straight"
SHUFFLED = "of shuffled displacements"  # a baseline of OTS
# The palest colours of viridis do not print.
SHADES = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.86, 40)))
LEFT, TOP, BOTTOM = 0.72, 0.38, 0.5  # inches around the grid of panels
LINE = 0.15  # inches from one line of a title or note to the next
NARROW = 0.062  # inches that a letter of a title or a note takes at most, on average
BEFORE, BELOW = 0.6, 0.34  # inches from a panel to the middle of its axis labels


def empty_figure(width: float, height: float) -> Figure:
    """A white figure; width and height in inches."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def nothing(why: str = "no trial is done yet") -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = empty_figure(6, 1.5)
    figure.text(0.5, 0.5, why, ha="center", va="center", color="0.35")
    return figure


def sheet(
    rows: int,
    columns: int,
    panel: tuple[float, float],
    *,
    gaps: tuple[float, float] = (0.55, 0.62),
    top: float = TOP,
    beside: float = 1.5,
    below: float = 0.0,
    note: str = "",
    titles: Sequence[str] = (),
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of panels. All lengths are in inches.

    Margins and label positions are given, because measuring texts would take longer than drawing
    them.

    Args:
        rows: number of rows.
        columns: number of columns.
        panel: width and height of a panel.
        gaps: space between columns and between rows.
        top: space above the first row, for its titles.
        beside: space on the right, for a legend and the names at the ends of lines.
        below: space below the last row and its axis labels, for a legend.
        note: text above all panels, for instance of what the figure leaves out.
        titles: titles of panels; where they need more lines than there is space for, it grows.

    Returns:
        The figure, and its axes in plain style as an array of shape (rows, columns).
    """
    width = LEFT + columns * panel[0] + (columns - 1) * gaps[0] + beside
    tall = max((_wrapped(text, panel[0]).count("\n") + 1 for text in titles), default=0)
    top += LINE * max(0, tall - int((top - 0.08) / LINE + 1e-6))
    between = gaps[1] + LINE * max(0, tall - int((gaps[1] - 0.3) / LINE + 1e-6))
    lines = textwrap.wrap(note, max(20, int((width - min(LEFT, 0.2) - beside) / NARROW)))
    top += LINE * len(lines) + 0.1 * bool(lines)
    height = top + rows * panel[1] + (rows - 1) * between + BOTTOM + below
    figure = empty_figure(width, height)
    if lines:
        figure.text(
            0.2 / width, 1 - 0.08 / height, "\n".join(lines), va="top", fontsize=7.5,
            color="0.35",
        )  # fmt: skip
    grid = figure.subplots(
        rows, columns, squeeze=False,
        gridspec_kw={
            "left": LEFT / width, "right": 1 - beside / width, "wspace": gaps[0] / panel[0],
            "bottom": (BOTTOM + below) / height, "top": 1 - top / height,
            "hspace": between / panel[1],
        },
    )  # fmt: skip
    for axes in grid.flat:
        prepare(axes)
        axes.yaxis.set_label_coords(-BEFORE / panel[0], 0.5)
        axes.xaxis.set_label_coords(0.5, -BELOW / panel[1])
    return figure, grid


def prepare(axes: Axes) -> None:
    """Plain style: two spines, a faint grid, few ticks, small type."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=9, va="center")
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def title(axes: Axes, text: str, align: Literal["left", "center"] = "center") -> None:
    """Title a panel, in lines that are no wider than the panel."""
    inches = axes.get_position().width * axes.get_figure(root=True).get_figwidth()  # type: ignore[union-attr]
    axes.set_title(_wrapped(text, inches), fontsize=9, loc=align, y=1)


def _wrapped(text: str, inches: float) -> str:
    lines = text.split("\n")
    return "\n".join(textwrap.fill(line, max(20, int(inches / NARROW + 1e-6))) for line in lines)


def legend(figure: Figure, handles: Sequence[Artist], title: str | None = None) -> None:
    """A legend in the margin on the right."""
    figure.legend(
        handles=handles, loc="upper right", borderaxespad=0.4, title=title, fontsize=8.5,
        title_fontsize=8.5, frameon=False, alignment="left",
    )  # fmt: skip


def shades(values: Sequence[float], log: bool = False) -> dict[float, str]:
    """A colour for each value, from viridis without its palest end.

    Args:
        values: in ascending order.
        log: space colours by the logarithm of the values, as :func:`colour_bar` shows them, with
            zero in the colour of the smallest. Otherwise colours are evenly spaced.
    """
    places = np.linspace(0, 1, len(values))
    if log:
        places = _log_norm(values)(np.array(values)).filled(0)
    return dict(zip(values, map(to_hex, SHADES(places)), strict=True))


def _log_norm(values: Sequence[float]) -> LogNorm:
    known = [value for value in values if value > 0] or [1.0]
    return LogNorm(min(known), max(max(known), 1.01 * min(known)), clip=False)


def colour_bar(figure: Figure, values: Sequence[float], title: str, top: float) -> None:
    """Explain the colours of many values, on a logarithmic scale in the margin on the right.

    Args:
        figure: a figure with panels.
        values: the values, as given to :func:`shades`.
        title: text above the bar.
        top: inches from the top of the figure to the title.
    """
    width, height = figure.get_size_inches()
    tall = min(2.2, height - top - 0.65)
    bounds = (1 - 1.05 / width, 1 - (top + 0.45 + tall) / height, 0.16 / width, tall / height)
    place = figure.axes[0].inset_axes(bounds, transform=figure.transFigure)
    figure.colorbar(ScalarMappable(_log_norm(values), SHADES), cax=place)
    place.yaxis.set_major_formatter(scales.Powers())
    place.yaxis.set_minor_locator(NullLocator())
    place.tick_params(labelsize=8)
    zero = "\n(0: darkest)" if 0 in values else ""
    place.set_title(title + zero, fontsize=8.5, loc="left", y=1)


def say(axes: Axes, text: str) -> None:
    """Say in the middle of a panel why it is empty."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.35",
        fontsize=8.5,
    )  # fmt: skip


def name_line(
    axes: Axes, height: float, text: str, align: str = "center", place: Transform | None = None
) -> None:
    """Name a horizontal line at its right end, outside the axes.

    The height is on the y axis, unless ``place`` says what it is in.
    """
    axes.annotate(
        text, (1, height), xycoords=place or axes.get_yaxis_transform(), fontsize=7.5, va=align,
        xytext=(3, 0), textcoords="offset points", color=BASELINE["color"],
    )  # fmt: skip


# Columns with the values of scores at random, the names of these values, and how to write them.
RANDOM = {
    "lss": ("lss_random", "√n", "√n = {:.2f}"),
    "straightness_factor": ("blocks", "n", "n = {:.0f}"),
    "ots": ("ots_random", "1/m", "1/m = {:.2g}"),
}


def ends(trials: pd.DataFrame, column: str) -> list[float]:
    """The mean of a column over trials that differ in their seed and gamma alone.

    Of trials with several combinations of settings (``combination``, from
    :func:`analysis.plots.panels.fitting`), the lowest and the highest of their means.
    """
    if not len(trials) or "combination" not in trials:
        return [trials[column].mean()]
    means = trials.groupby("combination")[column].mean().astype("float64")
    means = means[np.isfinite(means)]
    if not len(means):
        return [np.nan]
    low, high = means.min(), means.max()
    return [low] if not high - low > 1e-9 * abs(high) else [low, high]


def line_baselines(
    axes: Axes, trials: pd.DataFrame, seen: Sequence[float], score: str = "lss"
) -> list[float]:
    """Draw LSS or the straightness factor before training (dotted) and at random (dashed).

    A solid line is at 1, a straight track, if that is near the heights that are ``seen`` already.
    Otherwise a text says that it lies below the panel.

    Returns:
        The heights of these lines.
    """
    column, name, written = RANDOM[score]
    baselines = [
        *((height, ":", INITIAL, "init. {:.2f}") for height in ends(trials, f"{score}_initial")),
        *((height, "--", name, written) for height in ends(trials, column)),
    ]
    baselines = sorted(line for line in baselines if np.isfinite(line[0]))
    for i, (height, dashes, label, text) in enumerate(baselines):
        axes.axhline(height, linestyle=dashes, label=label, **BASELINE)
        name_line(axes, height, text.format(height), "bottom" if i else "top")
    heights = [line[0] for line in baselines]
    if not scales.is_near_one([*seen, *heights]):
        name_line(axes, 0, f"↓ {STRAIGHT}", "top", axes.transAxes)
        return heights
    axes.axhline(1, label=STRAIGHT, **BASELINE)
    name_line(axes, 1, STRAIGHT, "top")
    return [1.0, *heights]


def random_baselines(
    axes: Axes, score: str, trials: pd.DataFrame, named: bool = True
) -> list[float]:
    """Draw a dashed line at sqrt(n), n or 1/m for each n or m, and return the heights."""
    if score not in RANDOM:
        return []
    column, _, written = RANDOM[score]
    heights = sorted(trials[column].dropna().unique())
    for height in heights:
        text = written.format(height)
        axes.axhline(height, linestyle="--", label=text, **BASELINE)
        if named:
            name_line(axes, height, text)
    return heights


def colour(network: str) -> str:
    """The colour of a network in all figures; two architectures may have the same one."""
    return COLOURS.get(network) or OTHERS[crc32(network.encode()) % len(OTHERS)]


def network_style(network: str, stages: int) -> dict:
    """Style of a line: colour and marker filling by network, marker by K.

    Lines of results are solid, and baselines are broken.
    """
    return {
        "color": colour(network),
        "marker": MARKERS[(stages - 1) % len(MARKERS)],
        "markerfacecolor": colour(network) if network == "resnet" else "white",
        "markersize": 5,
        "linestyle": "-",
        "linewidth": 1.4,
    }


def baseline_handle(label: str, dashes: Any, width: float | None = None) -> Line2D:
    """A grey line that explains a baseline in a legend."""
    return Line2D([], [], color="0.35", linestyle=dashes, linewidth=width, label=label)


def initial_style(colour: str) -> dict[str, Any]:
    """Style of a dotted line for what a network did at the start.

    It is a darker shade of the network's colour, and is above the solid line of the trained
    network, so that it can be seen where the two are equal.
    """
    red, green, blue = to_rgb(colour)
    dark = to_hex((0.6 * red, 0.6 * green, 0.6 * blue))
    return {"color": dark, "linestyle": ":", "linewidth": 1.3, "zorder": 2.6}


def shuffled_style(colour: str) -> dict[str, Any]:
    """Style of a line for the OTS of a network's shuffled displacements, in its colour."""
    return {"color": colour, "linestyle": "-.", "linewidth": 0.9, "alpha": 0.8, "zorder": 1.6}


def line_style(network: str, stages: int) -> dict:
    """Style of a line with small markers, in the colour and marker of a network."""
    return network_style(network, stages) | {"markersize": 4}
