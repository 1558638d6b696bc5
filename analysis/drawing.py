"""How the figures are drawn: colours, axes, nulls, files. Used by ``analysis.figures``."""

import io
from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from scoring.schemas import write_file

MARKERS = "osD^vPX<>"
DASHES = ["-", (0, (5, 1)), "-.", (0, (3, 1, 1, 1))]
COLOURS = {"plain": "#D55E00", "resnet": "#0072B2"}  # of Okabe and Ito, safe for colour-blind
NAMES = {"plain": "plain", "resnet": "ResNet"}
NULL = {"color": "0.35", "linewidth": 1.0, "zorder": 1.5}
INITIAL = "at initialisation"
TICKS = [1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 300, 1000, 10_000]


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, white, that sees to its own margins."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.09)  # type: ignore[union-attr, call-arg]
    return figure


def nothing(why: str = "no trial is done yet") -> Figure:
    """What stands in for a figure while there is nothing to draw."""
    figure = empty_figure(6, 1.5)
    figure.text(0.5, 0.5, why, ha="center", va="center", color="0.35")
    return figure


def shades(values: list[float]) -> dict[float, str]:
    """A colour for each value: viridis without its palest end, so it prints."""
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.86, len(values)))
    return dict(zip(values, map(to_hex, colours), strict=True))


def prepare(axes: Axes) -> None:
    """Plain style: two spines, a faint grid, small type."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)


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


def random_nulls(axes: Axes, score: str, trials: pd.DataFrame) -> list[float]:
    """Draw sqrt(n) or 1/m, dashed, a line for each n or m; returns their heights."""
    if score not in ("lss", "ots"):
        return []
    heights = sorted(trials[f"{score}_random"].dropna().unique())
    for height in heights:
        text = f"√n = {height:.2f}" if score == "lss" else f"1/m = {height:.2g}"
        axes.axhline(height, linestyle="--", label=text, **NULL)
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
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def points_axis(axes: Axes, m: list[int]) -> None:
    """A log axis of numbers of points that names each of them."""
    axes.set_xscale("log")
    axes.set_xlim(m[0] / 1.15, m[-1] * 1.15)
    axes.xaxis.set_major_locator(FixedLocator(m))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())


def limit_share(axes: Axes, seen: Iterable[float], to: int) -> None:
    """Bounds of an axis of numbers in [0, 1] that always holds 0, or 1: ``to``."""
    far = max((abs(v - to) for v in seen if np.isfinite(v)), default=0.0)
    span = max(far, 0.02)
    axes.set_ylim(*((-0.05 * span, 1.08 * span) if to == 0 else (1 - 1.08 * span, 1 + 0.05 * span)))


def save(figure: Figure, root: str, name: str) -> dict[str, bytes]:
    """Write a figure to a folder as ``<name>.png`` (150 dpi) and ``<name>.svg``.

    Returns:
        The bytes of each, by form.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # once is enough
    content = {}
    for form, options in {"png": {"dpi": 150}, "svg": {"metadata": {"Date": None}}}.items():
        stream = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": name}):  # the same file each time
            figure.savefig(stream, format=form, **options)
        content[form] = stream.getvalue()
        write_file(root, f"{name}.{form}", content[form])
    return content
