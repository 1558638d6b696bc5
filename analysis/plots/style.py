"""How figures look: grids of panels, colours, axes, baselines, and the files of a figure."""

import io
import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from analysis.plots.settings import mpl, own_settings  # before matplotlib

# isort: split
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, LogFormatterSciNotation, MaxNLocator, NullLocator

from scoring.storage import write_file

MARKERS = "osD^vPX<>"
DASHES = ["-", (0, (5, 1)), "-.", (0, (3, 1, 1, 1))]
COLOURS = {"plain": "#D55E00", "resnet": "#0072B2"}  # Okabe and Ito's, safe for the colour-blind
BASELINE: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "zorder": 1.5}
INITIAL = "at initialisation"
TICKS = [1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 300, 1000, 10_000]
SHADES = ListedColormap(
    mpl.colormaps["viridis"](np.linspace(0, 0.86, 40))
)  # without the palest end, which does not print
LEFT, TOP, BOTTOM = 0.72, 0.38, 0.5  # inches around the grid of panels
BEFORE, BELOW = 0.6, 0.34  # inches from a panel to the middle of its axis labels
FORMS = {
    "png": {"dpi": 150, "pil_kwargs": {"compress_level": 4}},
    "svg": {"metadata": {"Date": None}},
}


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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

    Returns:
        The figure, and its axes in plain style as an array of shape (rows, columns).
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
    """Title a panel, in lines that are no wider than the panel."""
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
    place.yaxis.set_major_formatter(Powers())
    place.yaxis.set_minor_locator(NullLocator())
    place.tick_params(labelsize=8)
    zero = "\n(0: darkest)" if 0 in values else ""
    place.set_title(title + zero, fontsize=8.5, loc="left", y=1)


def name_line(axes: Axes, height: float, text: str, align: str = "center") -> None:
    """Name a horizontal line at its right end, outside the axes."""
    axes.annotate(
        text, (1, height), xycoords=axes.get_yaxis_transform(), fontsize=7.5, va=align,
        xytext=(3, 0), textcoords="offset points", color=BASELINE["color"],
    )  # fmt: skip


def line_shape_baselines(axes: Axes, trials: pd.DataFrame) -> list[float]:
    """Draw LSS at initialisation (dotted) and sqrt(n) (dashed), and return their heights."""
    baselines = [
        (trials.lss_initial.mean(), ":", INITIAL, "init. {:.2f}"),
        (trials.lss_random.mean(), "--", "√n", "√n = {:.2f}"),
    ]
    baselines = sorted(line for line in baselines if np.isfinite(line[0]))
    for i, (height, dashes, label, text) in enumerate(baselines):
        axes.axhline(height, linestyle=dashes, label=label, **BASELINE)
        name_line(axes, height, text.format(height), "bottom" if i else "top")
    return [line[0] for line in baselines]


def random_baselines(
    axes: Axes, score: str, trials: pd.DataFrame, named: bool = True
) -> list[float]:
    """Draw a dashed line at sqrt(n) or 1/m for each n or m, and return the heights."""
    if score not in ("lss", "ots"):
        return []
    heights = sorted(trials[f"{score}_random"].dropna().unique())
    for height in heights:
        text = f"√n = {height:.2f}" if score == "lss" else f"1/m = {height:.2g}"
        axes.axhline(height, linestyle="--", label=text, **BASELINE)
        if named:
            name_line(axes, height, text)
    return heights


def network_style(network: str, stages: int) -> dict:
    """Style of a line: colour and marker filling by network, marker and dashes by K."""
    colour = COLOURS.get(network, "0.2")
    return {
        "color": colour,
        "marker": MARKERS[(stages - 1) % len(MARKERS)],
        "markerfacecolor": colour if network == "resnet" else "white",
        "markersize": 5,
        "linestyle": DASHES[(stages - 1) % len(DASHES)],
        "linewidth": 1.4,
    }


def line_style(network: str, stages: int) -> dict:
    """The look of a solid line with small markers, in the colour and marker of a network."""
    return network_style(network, stages) | {"linestyle": "-", "markersize": 4}


def bars(axes: Axes, x: Sequence[float], mean: pd.Series, half: pd.Series, look: dict) -> None:
    """Draw a line through means, with bars for their intervals (``half`` is the half-width)."""
    axes.plot(x, mean.to_numpy("float64"), **look)
    known = np.isfinite(half.to_numpy("float64"))
    if known.any():
        low, high = (
            (mean - half).to_numpy("float64")[known],
            (mean + half).to_numpy("float64")[known],
        )
        gap = np.full(known.sum(), np.nan)
        across = np.repeat(np.asarray(x)[known], 3)
        bar = {"color": look["color"], "alpha": look.get("alpha"), "linewidth": 0.9}
        axes.plot(
            across, np.column_stack([low, high, gap]).ravel(), marker="_", markersize=5, **bar
        )


def limit(axes: Axes, seen: Iterable[float], log: bool) -> None:
    """Set the bounds of an LSS axis around means and baselines.

    A very wide interval may leave the panel.
    """
    values = np.array([v for v in seen if np.isfinite(v) and v > 0] or [1.0, 2.0])
    low, high = values.min(), values.max()
    if not log and high < 20 * low:
        bounds, span = axes.dataLim, max(high - low, 0.5)  # the bounds include the intervals
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
    """An x axis of whole numbers (epochs, stages, trials) that ends at the last of them."""
    last = max(last, first + 1) if np.isfinite(last) else first + 1
    space = pad * (last - first)
    ticks = MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]).tick_values(first, last)
    axes.set_xticks([tick for tick in ticks if first <= tick <= last])
    axes.set_xlim(first - space, last + space)


def points_axis(axes: Axes, m: list[int]) -> None:
    """A logarithmic x axis of numbers of points, with a tick at each."""
    axes.set_xscale("log")
    axes.set_xlim(m[0] / 1.25, m[-1] * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(m))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())


def limit_share(axes: Axes, seen: Iterable[float], to: int) -> None:
    """Set the bounds of a y axis of numbers in [0, 1] so that it includes ``to``, 0 or 1."""
    far = max((abs(v - to) for v in seen if np.isfinite(v)), default=0.0)
    span = max(far, 0.02)
    if to == 0:
        axes.set_ylim(-0.05 * span, 1.08 * span)
    else:
        axes.set_ylim(1 - 1.08 * span, 1 + 0.05 * span)


class Powers(LogFormatterSciNotation):
    """Tick labels of a logarithmic axis as plain text (10⁻³), where matplotlib writes formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of a tick; empty where matplotlib would leave it out."""
        formula = super().__call__(x, pos)
        number = formula.removeprefix(r"$\mathdefault{").removesuffix("}$")
        number, _, power = number.replace(r"\times", "×").partition("^{")
        return number.replace("-", "−") + power.removesuffix("}").translate(SUPERSCRIPTS)


def clean(figure: Figure) -> None:
    """Make control characters in a figure's texts visible: an SVG file must not hold them.

    They can be part of a name, for instance of a file that a dataset was read from.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text("".join(_visible(letter) for letter in text.get_text()))


def _visible(letter: str) -> str:
    r"""A letter, or its escape sequence if XML does not allow it. A line break stays.

    >>> print(*map(_visible, ("a", "\x1b", "\x85", "\uffff")))
    a \x1b \x85 \uffff
    """
    control = unicodedata.category(letter) == "Cc" and letter != "\n"
    if control or letter in "\ufffe\uffff":
        return letter.encode("unicode_escape").decode()
    return letter


def render(figure: Figure, name: str, forms: Sequence[str] = tuple(FORMS)) -> dict[str, bytes]:
    """The content of a figure's files by form: ``png`` (150 dpi) and ``svg``.

    The same figure gives the same bytes each time, whatever settings matplotlib has.
    """
    content = {}
    with own_settings(salt=name), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it is drawn as a box
        for form in forms:
            stream = io.StringIO() if form == "svg" else io.BytesIO()  # text is faster for SVG
            figure.savefig(stream, format=form, **FORMS[form])  # type: ignore[arg-type]
            drawn = stream.getvalue()
            content[form] = drawn.encode() if isinstance(drawn, str) else drawn
    return content


def save(
    figure: Figure, root: str, name: str, forms: Sequence[str] = tuple(FORMS)
) -> dict[str, bytes]:
    """Write a figure to a folder as ``<name>.png`` and ``<name>.svg``; see :func:`render`."""
    content = render(figure, name, forms)
    for form, drawn in content.items():
        write_file(root, f"{name}.{form}", drawn)
    return content
