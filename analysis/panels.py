"""What the figures share: which trials are drawn, a grid of panels, a line for each gamma.

A panel shows one dataset, K and network, and one value of each other setting that varies; or
trials as points, against two objectives of a search. Used by ``analysis.figures``.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import drawing
from analysis.drawing import INITIAL, MARKERS, NAMES
from analysis.results import Results
from analysis.search import BETTER, heading
from analysis.tables import mean_interval, varying
from scoring.schemas import TABLES

PANEL = ["dataset", "layers", "stages"]
SPLIT = 3  # combinations of other settings that get lines of their own; more are averaged
FAR = 20  # times the smallest: an LSS or LSR so large puts its axis on a logarithmic scale


def done_trials(results: Results) -> pd.DataFrame:
    """Trials that are done: the others are in no figure."""
    done = results.trials[results.trials.status == "done"]
    return done.astype({"trial": "str", "dataset": "str", "network": "str"})


def splitting(done: pd.DataFrame) -> list[str]:
    """Other settings that vary, if they make few combinations."""
    extra = varying(done)
    return extra if len(done[extra].drop_duplicates()) <= SPLIT else []


def at(frame: pd.DataFrame, key: Mapping) -> pd.DataFrame:
    """Rows where every column of the key has its value."""
    keep = pd.Series(True, index=frame.index)
    for column, value in key.items():
        keep &= frame[column].isna() if pd.isna(value) else frame[column] == value
    return frame[keep]


def key_columns(done: pd.DataFrame) -> list[str]:
    """What says of a trial which panel it is in, and which line."""
    return ["trial", *PANEL, *splitting(done), "network", "gamma"]


def name(key: Mapping, extra: list[str]) -> str:
    """What a panel or a line is called: network, K, and the other settings that vary."""
    parts = [NAMES.get(key["network"], key["network"]), f"K = {key['stages']}"]
    return ", ".join(parts + [f"{n.replace('_', ' ')} {key[n]}" for n in extra])


def grid(
    done: pd.DataFrame, scores: Mapping[str, str]
) -> tuple[Figure, list[tuple[Axes, str, dict]]]:
    """A figure with a row per dataset and K, a column per score (with its label) and network.

    Returns:
        The figure, and its panels with their score and the columns' values that select them.
    """
    rows = [*PANEL, *splitting(done)]
    cells = done[rows].drop_duplicates().sort_values(rows).to_dict("records")
    columns = [(score, network) for score in scores for network in sorted(done.network.unique())]
    width = 4.0 if len(columns) < 3 else 2.6
    figure = drawing.empty_figure(width * len(columns) + 1.1, 2.5 * len(cells) + 0.6)
    axes_of = figure.subplots(len(cells), len(columns), squeeze=False)
    places = []
    for i, cell in enumerate(cells):
        for j, (score, network) in enumerate(columns):
            axes, key = axes_of[i, j], cell | {"network": network}
            drawing.prepare(axes)
            axes.set_title(f"{cell['dataset']}, {name(key, rows[3:])}", fontsize=9)
            first = j == 0 or columns[j - 1][0] != score
            axes.set_ylabel(scores[score] * first)
            places.append((axes, score, key))
    return figure, places


def is_lowest(axes: Axes) -> bool:
    """Whether a panel is in the last row, where the axis of x is named."""
    place = axes.get_subplotspec()
    return place is not None and place.is_last_row()


def gamma_lines(
    axes: Axes, frame: pd.DataFrame, x: str, score: str, gammas: list[float]
) -> list[float]:
    """Draw a line with its band for each gamma; returns all heights."""
    means = mean_interval(frame, ["gamma", x], [score]).reset_index()
    for i, (gamma, colour) in enumerate(drawing.shades(gammas).items()):
        curve = means[means.gamma == gamma]
        every = max(1, len(curve) // 8)
        axes.plot(
            curve[x], curve[score], color=colour, linewidth=1.3, markersize=4,
            marker=MARKERS[i % len(MARKERS)], label=f"γ = {gamma:g}",
            markevery=(i * every // len(gammas), every),
        )  # fmt: skip
        half = curve[f"{score}_ci95"]
        band = (curve[score] - half, curve[score] + half)
        axes.fill_between(curve[x], *band, color=colour, alpha=0.1, linewidth=0)
    return list(means[score])


def gamma_legend(
    figure: Figure, gammas: list[float], nulls: Mapping[str, Any] | None = None
) -> None:
    """The legend of a figure with a line per gamma, and of what its other lines are."""
    handles = [
        Line2D([], [], color=colour, marker=MARKERS[i % 9], markersize=4, label=f"{gamma:g}")
        for i, (gamma, colour) in enumerate(drawing.shades(gammas).items())
    ]
    for label, style in (nulls or {}).items():
        handles.append(Line2D([], [], color="0.35", linestyle=style, linewidth=1, label=label))
    title = "γ, weight of\nthe L2 penalty"
    figure.legend(
        handles=handles, loc="outside right upper", title=title, fontsize=8.5,
        title_fontsize=8.5, frameon=False,
    )  # fmt: skip


def sizes(trials: pd.DataFrame) -> str:
    """The numbers of points that trials were scored at, as an axis says them."""
    m = sorted(trials.points.unique())
    return " or ".join(f"{int(points):,}" for points in m[:3]) + ", …" * (len(m) > 3)


def objective_axis(axes: Axes, along: str, score: str, better: str, trials: pd.DataFrame) -> None:
    """An axis (``x`` or ``y``) of an objective: its symbol, unit and better direction, its nulls.

    Nulls are lines across the panel: each network and K at initialisation (dotted, in its
    colour), and what chance gives (dashed).
    """
    unit = (TABLES["trials"].field(score).metadata or {})[b"unit"].decode()
    m = f"m = {sizes(trials)}" if score in ("ots", "gap") else ""
    said = ", ".join(filter(None, ["dimensionless" if unit == "1" else unit, m]))
    label = heading(score) + (f" ({said})" if said else "")
    axes.set(**{f"{along}label": f"{label}, {BETTER[better]} is better"})
    if score in ("lss", "lsr") and trials[score].max() > FAR * trials[score].min():
        axes.set(**{f"{along}scale": "log"})
        getattr(axes, f"{along}axis").set_major_formatter("{x:g}")
    line = axes.axvline if along == "x" else axes.axhline
    if f"{score}_initial" in trials:
        means = trials.groupby(["network", "stages"])[f"{score}_initial"].mean().dropna()
        for (network, stages), mean in means.items():  # type: ignore[misc]
            colour = drawing.network_style(network, stages)["color"]
            line(mean, linestyle=":", linewidth=1.2, color=colour, label=INITIAL, zorder=1.6)
    if f"{score}_random" in trials:
        for height in trials[f"{score}_random"].dropna().unique():
            line(height, linestyle="--", label=heading(f"{score}_random"), **drawing.NULL)


def trial_points(axes: Axes, x: str, y: str, trials: pd.DataFrame, **style: Any) -> None:
    """Draw trials as points, in the marker and colour of their network and K."""
    for key in trials[["network", "stages"]].drop_duplicates().to_dict("records"):
        own: dict[str, Any] = drawing.network_style(key["network"], key["stages"])
        own |= {"linestyle": "none", "label": name(key, [])} | style
        group = at(trials, key)
        axes.plot(group[x], group[y], **own)


def search_legend(figure: Figure) -> None:
    """The legend of a search's figure: every label once, networks first."""
    shown: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        shown |= dict(zip(names, handles, strict=True))
    networks = sorted((label for label in shown if ", K = " in label), key=str.lower)
    shown = {label: shown[label] for label in networks} | shown
    if shown.pop(INITIAL, None):
        shown[f"same network\n{INITIAL}"] = Line2D([], [], linestyle=":", color="0.35")
    figure.legend(
        list(shown.values()), list(shown), loc="outside right upper", fontsize=8.5, frameon=False
    )
