"""How the figures are drawn: sheets of panels, colours, axes, nulls, files.

Used by ``analysis.figures`` and the modules beside it.
"""

import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from scoring.schemas import write_file

MARKERS = "osD^vPX<>"
DASHES = ["-", (0, (5, 1)), "-.", (0, (3, 1, 1, 1))]
COLOURS = {"plain": "#D55E00", "resnet": "#0072B2"}  # of Okabe and Ito, safe for colour-blind
NAMES = {"plain": "plain", "resnet": "ResNet"}
NULL = {"color": "0.35", "linewidth": 1.0, "zorder": 1.5}
INITIAL = "at initialisation"
TICKS = [1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 300, 1000, 10_000]
SHADES = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.86, 40)))  # all of them print
LEFT, TOP, BOTTOM = 0.72, 0.38, 0.5  # inches around the panels of a sheet
BEFORE, BELOW = 0.6, 0.34  # inches from a panel to the middle of its axes' labels
FORMS = {
    "png": {"dpi": 150, "pil_kwargs": {"compress_level": 4}},
    "svg": {"metadata": {"Date": None}},
}


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, white."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def nothing(why: str = "no trial is done yet") -> Figure:
    """What stands in for a figure while there is nothing to draw."""
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
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of panels.

    Margins and places of labels are given, so no text has to be measured for them: that would
    take longer than to draw it.

    Args:
        rows: of the grid.
        columns: of the grid.
        panel: width and height of a panel in inches, as are all of:
        gaps: between columns and between rows.
        top: above the first row, for its titles.
        beside: on the right, for a legend and what stands at the ends of lines.
        below: below the last row and the labels of its axes, for a legend.

    Returns:
        The figure, and its axes as an array of shape (rows, columns), in plain style.
    """
    width = LEFT + columns * panel[0] + (columns - 1) * gaps[0] + beside
    height = top + rows * panel[1] + (rows - 1) * gaps[1] + BOTTOM + below
    figure = empty_figure(width, height)
    grid = figure.subplots(
        rows, columns, squeeze=False,
        gridspec_kw={
            "left": LEFT / width, "right": 1 - beside / width, "wspace": gaps[0] / panel[0],
            "bottom": (BOTTOM + below) / height, "top": 1 - top / height,
            "hspace": gaps[1] / panel[1],
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
    """Title a panel, in lines that are no wider than it."""
    inches = axes.get_position().width * axes.get_figure(root=True).get_figwidth()  # type: ignore[union-attr]
    lines = [textwrap.fill(line, max(20, int(inches / 0.062))) for line in text.split("\n")]
    axes.set_title("\n".join(lines), fontsize=9, loc=align, y=1)


def legend(figure: Figure, handles: Sequence[Artist], title: str | None = None) -> None:
    """A legend in the margin on the right."""
    figure.legend(
        handles=handles, loc="upper right", borderaxespad=0.4, title=title, fontsize=8.5,
        title_fontsize=8.5, frameon=False, alignment="left",
    )  # fmt: skip


def shades(values: Sequence[float], log: bool = False) -> dict[float, str]:
    """A colour for each value: viridis without its palest end, so it prints.

    Args:
        values: in ascending order.
        log: spaced as their logarithms, as :func:`colour_bar` says; zero as the smallest. Else
            evenly.
    """
    places = np.linspace(0, 1, len(values))
    if log:
        places = _log_norm(values)(np.array(values)).filled(0)
    return dict(zip(values, map(to_hex, SHADES(places)), strict=True))


def _log_norm(values: Sequence[float]) -> LogNorm:
    known = [value for value in values if value > 0] or [1.0]
    return LogNorm(min(known), max(max(known), 1.01 * min(known)), clip=False)


def colour_bar(figure: Figure, values: Sequence[float], title: str, top: float) -> None:
    """What the colours of many values are, on a logarithmic scale in the margin on the right.

    Args:
        figure: with panels.
        values: see :func:`shades`.
        title: stands above it.
        top: inches from the top of the figure to the title.
    """
    width, height = figure.get_size_inches()
    tall = min(2.2, height - top - 0.65)
    bounds = (1 - 1.05 / width, 1 - (top + 0.45 + tall) / height, 0.16 / width, tall / height)
    place = figure.axes[0].inset_axes(bounds, transform=figure.transFigure)
    figure.colorbar(ScalarMappable(_log_norm(values), SHADES), cax=place)
    place.yaxis.set_minor_locator(NullLocator())
    place.tick_params(labelsize=8)
    title += "\n(0: darkest)" * (0 in values)
    place.set_title(title, fontsize=8.5, loc="left", y=1)


def name_line(axes: Axes, height: float, text: str, align: str = "center") -> None:
    """Write what a horizontal line is at its right end, outside the axes."""
    axes.annotate(
        text, (1, height), xycoords=axes.get_yaxis_transform(), fontsize=7.5, va=align,
        xytext=(3, 0), textcoords="offset points", color=NULL["color"],
    )  # fmt: skip


def line_shape_nulls(axes: Axes, trials: pd.DataFrame) -> list[float]:
    """Draw LSS at initialisation (dotted) and sqrt(n) (dashed); returns their heights."""
    nulls = [
        (trials.lss_initial.mean(), ":", INITIAL, "init. {:.2f}"),
        (trials.lss_random.mean(), "--", "√n", "√n = {:.2f}"),
    ]
    nulls = sorted(null for null in nulls if np.isfinite(null[0]))
    for i, (height, style, label, text) in enumerate(nulls):
        axes.axhline(height, linestyle=style, label=label, **NULL)
        name_line(axes, height, text.format(height), "bottom" if i else "top")
    return [null[0] for null in nulls]


def random_nulls(axes: Axes, score: str, trials: pd.DataFrame, named: bool = True) -> list[float]:
    """Draw sqrt(n) or 1/m, dashed, a line for each n or m; returns their heights."""
    if score not in ("lss", "ots"):
        return []
    heights = sorted(trials[f"{score}_random"].dropna().unique())
    for height in heights:
        text = f"√n = {height:.2f}" if score == "lss" else f"1/m = {height:.2g}"
        axes.axhline(height, linestyle="--", label=text, **NULL)
        if named:
            name_line(axes, height, text)
    return heights


def network_style(network: str, stages: int) -> dict:
    """Style of a line: colour and filling by network, marker and dashes by K."""
    colour = COLOURS.get(network, "0.2")
    return {
        "color": colour,
        "marker": MARKERS[(stages - 1) % len(MARKERS)],
        "markerfacecolor": colour if network == "resnet" else "white",
        "markersize": 5,
        "linestyle": DASHES[(stages - 1) % len(DASHES)],
        "linewidth": 1.4,
    }


def bars(axes: Axes, x: Sequence[float], mean: pd.Series, half: pd.Series, style: dict) -> None:
    """Draw a line through means, with the half-widths of their intervals as bars on them."""
    axes.plot(x, mean.to_numpy("float64"), **style)
    known = np.isfinite(half.to_numpy("float64"))
    if known.any():
        low, high = (
            (mean - half).to_numpy("float64")[known],
            (mean + half).to_numpy("float64")[known],
        )
        gap = np.full(known.sum(), np.nan)
        across = np.repeat(np.asarray(x)[known], 3)
        bar = {"color": style["color"], "alpha": style.get("alpha"), "linewidth": 0.9}
        axes.plot(
            across, np.column_stack([low, high, gap]).ravel(), marker="_", markersize=5, **bar
        )


def limit(axes: Axes, seen: Iterable[float], log: bool) -> None:
    """Bounds of an LSS axis around means and nulls: a very wide interval may leave the panel."""
    values = np.array([v for v in seen if np.isfinite(v) and v > 0] or [1.0, 2.0])
    low, high = values.min(), values.max()
    if not log and high < 20 * low:
        bounds, span = axes.dataLim, max(high - low, 0.5)  # with their intervals
        low = max(min(low - 0.08 * span, bounds.y0), low - 0.4 * span, 0)
        high = min(max(high + 0.08 * span, bounds.y1), high + 0.4 * span)
        axes.set_ylim(low, high)
        return
    axes.set_yscale("log")
    axes.set_ylim(min(low / 1.12, 1.0), max(high * 1.12, 1.5))
    apart = (np.log(axes.get_ylim()[1]) - np.log(axes.get_ylim()[0])) / 9
    ticks = [1.0]
    ticks += [t for t in TICKS if np.log(t / ticks[-1]) > apart]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def whole_axis(axes: Axes, first: float, last: float, pad: float = 0.02) -> None:
    """An axis of whole numbers (epochs, stages, trials) that ends where they end."""
    last = max(last, first + 1) if np.isfinite(last) else first + 1
    space = pad * (last - first)
    ticks = MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]).tick_values(first, last)
    axes.set_xticks([tick for tick in ticks if first <= tick <= last])
    axes.set_xlim(first - space, last + space)


def points_axis(axes: Axes, m: list[int]) -> None:
    """A log axis of numbers of points that names each of them."""
    axes.set_xscale("log")
    axes.set_xlim(m[0] / 1.25, m[-1] * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(m))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())


def limit_share(axes: Axes, seen: Iterable[float], to: int) -> None:
    """Bounds of an axis of numbers in [0, 1] that always holds 0, or 1: ``to``."""
    far = max((abs(v - to) for v in seen if np.isfinite(v)), default=0.0)
    span = max(far, 0.02)
    axes.set_ylim(*((-0.05 * span, 1.08 * span) if to == 0 else (1 - 1.08 * span, 1 + 0.05 * span)))


def save(
    figure: Figure, root: str, name: str, forms: Sequence[str] = tuple(FORMS)
) -> dict[str, bytes]:
    """Write a figure to a folder as ``<name>.png`` (150 dpi) and ``<name>.svg``.

    Returns:
        The bytes of each, by form.
    """
    content = {}
    for form in forms:
        stream = io.StringIO() if form == "svg" else io.BytesIO()  # a text is not encoded by bits
        with mpl.rc_context({"svg.hashsalt": name}):  # the same file each time
            figure.savefig(stream, format=form, **FORMS[form])  # type: ignore[arg-type]
        drawn = stream.getvalue()
        content[form] = drawn.encode() if isinstance(drawn, str) else drawn
        write_file(root, f"{name}.{form}", content[form])
    return content
