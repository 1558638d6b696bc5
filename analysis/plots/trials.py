"""Figures with a point for each trial: accuracy against scores, and what a search found.

Every panel shows the baselines of its scores; see :func:`objective_axis`.
"""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.measures import cells
from analysis.measures.cells import without_collapsed
from analysis.measures.layout import heading
from analysis.measures.search import BETTER, Search, candidates, ranked
from analysis.plots import panels, scales, style
from analysis.plots.panels import at, name, sizes
from analysis.plots.style import INITIAL
from analysis.results import Results
from scoring.schemas import TABLES

FRONT = {"color": "0.15", "linewidth": 1.1, "zorder": 2.5}


def accuracy_against_score(results: Results) -> Figure:
    """Test accuracy against LSS and OTS, the numbers that correlations are computed from.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a row per dataset and K, a panel for LSS and one for OTS, a point per trial
        in the colour and marker of its network. A panel leaves out trials without a finite
        score. Baselines: each network before training (dotted, in its hue), sqrt(n) and
        1/m (dashed). OTS is comparable at equal m only, so the axis names m.
    """
    done = without_collapsed(cells.done(results)).dropna(subset="test_accuracy")
    done = done.assign(lss=done.lss.replace(np.inf, np.nan))
    if not len(done):
        return style.nothing()
    shown = panels.fitting(done, panels.SPLIT)
    shown = panels.together(done) if shown.note else shown
    rows = panels.rows_of(shown.trials, shown.extra)
    figure, grid = style.sheet(
        len(rows),
        2,
        (3.3, 2.4),
        gaps=(0.5, 0.8),
        beside=1.6,
        note=shown.note,
        titles=[panels.row_name(row, shown.extra) for row in rows],
    )
    for cell, places in zip(rows, grid, strict=True):
        here = at(shown.trials, cell)
        for axes, score, better in zip(places, ("lss", "ots"), ("min", "max"), strict=True):
            trial_points(axes, score, "test_accuracy", here, alpha=0.75, markeredgewidth=0.9)
            objective_axis(axes, "x", score, better, here)
            style.title(axes, panels.row_name(cell, shown.extra))
        places[0].set_ylabel("test accuracy (fraction)")
        places[1].set_ylim(places[0].get_ylim())
    point_legend(figure)
    return figure


def pareto_front(results: Results, search: Search) -> Figure:
    """The trials of a search against its objectives: a panel for each pair of them.

    Args:
        results: from :func:`analysis.results.load`.
        search: from :func:`analysis.measures.search.read_search`, with two objectives or more.

    Returns:
        Figure with a point per trial that is done and has every objective, by network and K;
        those on the Pareto front are large, the others small and pale. A step line joins the
        trials on the front of the panel's two objectives: no trial lies on its better side.
        Panels show the baselines of their objectives.
    """
    found = candidates(results, search)
    if not len(found):
        return style.nothing("no trial has every objective yet")
    pairs = list(itertools.combinations(search.objectives.items(), 2))
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    panel = (6.6 if columns == 1 else 3.4, 3.5)
    figure, grid = style.sheet(rows, columns, panel, gaps=(0.8, 0.65), top=0.2, beside=1.65)
    for axes, pair in zip(grid.flat, pairs, strict=False):
        x, y = (score for score, _ in pair)
        trial_points(axes, x, y, found[~found.front], markersize=4.5, alpha=0.5)
        trial_points(axes, x, y, found[found.front], markersize=8, zorder=3)
        best = ranked(found, dict(pair))
        best = best[best.front]
        axes.plot(best[x], best[y], drawstyle="steps-post", label="Pareto front", **FRONT)
        for along, (score, better) in zip("xy", pair, strict=True):
            objective_axis(axes, along, score, better, found)
    for axes in grid.flat[len(pairs) :]:
        axes.set_visible(False)
    point_legend(figure)
    return figure


def search_history(results: Results, search: Search) -> Figure:
    """The only objective of a search against the number of the trial, in the order of training.

    Args:
        results: from :func:`analysis.results.load`.
        search: from :func:`analysis.measures.search.read_search`, with one objective.

    Returns:
        Figure with a point per trial that is done and has the objective, or per cell if it has
        several seeds, by network and K, a step line for the best so far, and the baselines
        of the objective.
    """
    found = candidates(results, search).sort_values("trained_at", kind="stable")
    if not len(found):
        return style.nothing("no trial has the objective yet")
    ((score, better),) = search.objectives.items()
    found = found.assign(number=np.arange(1, len(found) + 1))
    best = found[score].cummin() if better == "min" else found[score].cummax()
    figure, ((axes,),) = style.sheet(1, 1, (6.6, 3.0), top=0.2, beside=1.65)
    trial_points(axes, "number", score, found)
    axes.plot(found.number, best, drawstyle="steps-post", label="best so far", **FRONT)
    objective_axis(axes, "y", score, better, found)
    what = "trial" if search.seeds == 1 else f"cell, a mean over {search.seeds} seeds"
    axes.set_xlabel(f"{what}, in the order they were trained")
    scales.whole_axis(axes, 1, len(found))
    point_legend(figure)
    return figure


def objective_axis(axes: Axes, along: str, score: str, better: str, trials: pd.DataFrame) -> None:
    """Label an axis (``x`` or ``y``) with an objective, its unit and its better direction.

    Baselines are lines across the panel: each network and K before training (dotted, a dark shade
    of its colour, with its marker on the axis; with several combinations of other settings the
    lowest and the highest of their means), and the value at random (dashed).
    """
    unit = (TABLES["trials"].field(score).metadata or {})[b"unit"].decode()
    m = f"m = {sizes(trials)}" if score in ("ots", "gap") else ""
    said = ", ".join(filter(None, ["dimensionless" if unit == "1" else unit, m]))
    label = heading(score) + (f" ({said})" if said else "")
    axes.set(**{f"{along}label": f"{label}, {BETTER[better]} is better"})
    if score in ("lss", "lsr") and trials[score].max() > scales.FAR * trials[score].min():
        axes.set(**{f"{along}scale": "log"})
        axis = axes.xaxis if along == "x" else axes.yaxis
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(scales.Powers())
    line = axes.axvline if along == "x" else axes.axhline
    if f"{score}_initial" in trials:
        own = panels.together(trials, every=True).trials
        for (network, stages), of_network in own.groupby(["network", "stages"]):  # type: ignore[misc]
            points = style.network_style(str(network), int(stages))  # type: ignore[arg-type]
            look = style.initial_style(points["color"]) | {"clip_on": False, "markevery": [0]}
            look |= {name: points[name] for name in ("marker", "markerfacecolor", "markersize")}
            for height in style.ends(of_network, f"{score}_initial"):
                if np.isfinite(height):
                    line(height, label=INITIAL, **look)
    if f"{score}_random" in trials:
        for height in trials[f"{score}_random"].dropna().unique():
            line(height, linestyle="--", label=heading(f"{score}_random"), **style.BASELINE)


def trial_points(axes: Axes, x: str, y: str, trials: pd.DataFrame, **look: Any) -> None:
    """Draw trials as points in the marker and colour of their network and K."""
    for key in trials[["network", "stages"]].drop_duplicates().to_dict("records"):
        own: dict[str, Any] = style.network_style(key["network"], key["stages"])
        own |= {"linestyle": "none", "label": name(key, [])} | look
        group = at(trials, key)
        axes.plot(group[x], group[y], **own)


def point_legend(figure: Figure) -> None:
    """The legend of a figure of trials: each label once, networks first."""
    shown: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        shown |= dict(zip(names, handles, strict=True))
    networks = sorted((label for label in shown if ", K = " in label), key=str.lower)
    shown = {label: shown[label] for label in networks} | shown
    if shown.pop(INITIAL, None):
        label = f"same network\n{INITIAL}"
        shown[label] = style.baseline_handle(label, ":")
    for label, handle in shown.items():
        handle.set_label(label)
    style.legend(figure, list(shown.values()))
