"""LSS against epoch, scores against gamma (the forms of the paper's Figs 2 and 4), OTS against m,
and what a search found.

Figures are made with matplotlib's objects, never pyplot, so nothing global changes. The
nulls (value at initialisation, sqrt(n), 1/m) are drawn into every panel of LSS and OTS.
"""

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import drawing, panels
from analysis.drawing import INITIAL
from analysis.results import Results
from analysis.search import Search, candidates, ranked
from analysis.tables import mean_interval, without_collapsed

COLUMNS = {  # of the larger tables: what is drawn of them
    "epochs": ["trial", "epoch", "lss"],
    "tracks": ["trial", "epoch", "stage", "collapsed", "prefix_m", "prefix_ots", "prefix_gap"],
}
LINE = ["layers", "stages", "network"]
FRONT = {"color": "0.15", "linewidth": 1.1, "zorder": 2.5}
EVEN = 12  # more gammas than this lie on a symlog axis, fewer are spaced evenly


def lss_against_epoch(results: Results) -> Figure:
    """LSS against epoch, in the form of Fig. 2: a panel per dataset, K and network.

    Args:
        results: of :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a line per gamma: LSS as mean over points and stages, then over seeds,
        with the 95% t-interval as a band where there are several. Nulls in every panel: the
        mean value at initialisation (dotted) and sqrt(n) (dashed). Axes differ by panel.
    """
    done = panels.done_trials(results)
    if not len(done):
        return drawing.nothing()
    epochs = results.epochs[["trial", "epoch", "lss"]].astype({"trial": "str"})
    epochs = epochs.merge(done[panels.key_columns(done)], on="trial")
    figure, places = panels.grid(done, {"lss": "LSS (dimensionless)"})
    gammas = sorted(done.gamma.unique())
    for axes, score, key in places:
        seen = panels.gamma_lines(axes, panels.at(epochs, key), "epoch", score, gammas)
        seen += drawing.line_shape_nulls(axes, panels.at(done, key))
        drawing.limit(axes, seen, log=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch (passes over the train split)" * panels.is_lowest(axes))
    panels.gamma_legend(figure, gammas)
    return figure


def ots_against_m(results: Results) -> Figure:
    """OTS and gap of the first m points alone against m: a panel per dataset, K and network.

    OTS falls as m grows, so it compares at equal m only; the paper never states its m.

    Args:
        results: of :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a line per gamma: the score after training as mean over stages, then over
        seeds, with the 95% t-interval as a band where there are several. Nulls in every panel:
        the same networks at initialisation (dotted), and 1/m (dashed, OTS). Trials that have
        collapsed are in no line; a panel that has some names them. Axes differ by panel.
    """
    done = panels.done_trials(results)
    scores = _by_m(results.tracks, done)
    if not len(scores):
        return drawing.nothing("no assignment of fewer points is known yet")
    done = done[done.trial.isin(scores.trial)]
    figure, places = panels.grid(done, {"ots": "OTS (fraction)", "gap": "gap (dimensionless)"})
    gammas = sorted(done.gamma.unique())
    for axes, score, key in places:
        here = panels.at(scores, key)
        axes.set_visible(len(here) > 0)
        if not len(here):
            continue
        after, before = here[here.epoch == here.epochs_done], here[here.epoch == 0]
        seen = panels.gamma_lines(axes, after, "m", score, gammas)
        initial = before.groupby("m")[score].mean()
        axes.plot(initial.index, initial, linestyle=":", label=INITIAL, **drawing.NULL)
        drawing.points_axis(axes, sorted(here.m.unique()))
        drawing.limit_share(axes, [*seen, *initial], to=0 if score == "ots" else 1)
        if score == "ots":
            m = np.geomspace(*axes.get_xlim(), 50)
            axes.plot(m, 1 / m, linestyle="--", label="1/m", **drawing.NULL)
        axes.set_xlabel("m (points)" * panels.is_lowest(axes))
        lost = sorted(after.gamma[after.collapsed.eq(True)].unique())
        if lost:
            names = ", ".join(f"{gamma:g}" for gamma in lost)
            axes.set_title(f"{axes.get_title()}\ncollapsed: γ = {names}", fontsize=9)
    nulls = {f"same network\n{INITIAL}": ":", "1/m, a random\nmatching": "--"}
    panels.gamma_legend(figure, gammas, nulls)
    return figure


def _by_m(tracks: pd.DataFrame, done: pd.DataFrame) -> pd.DataFrame:
    """A row per trial that is done, epoch that was solved, and m: ``ots`` and ``gap``.

    Means over stages; NaN where a stage has collapsed, as in the trial's own OTS.
    """
    lists = {"prefix_m": "m", "prefix_ots": "ots", "prefix_gap": "gap"}
    solved = tracks.dropna(subset=["prefix_m"]).astype({"trial": "str"})
    rows = solved[["trial", "epoch", "collapsed", *lists]].explode([*lists]).rename(columns=lists)
    rows = without_collapsed(rows.astype({"m": "int64", "ots": "float64", "gap": "float64"}))
    groups = rows.groupby(["trial", "epoch", "m"])[["ots", "gap"]]
    means = groups.mean().where(groups.count().eq(groups.size(), axis=0))
    columns = [*panels.key_columns(done), "epochs_done", "collapsed"]
    return means.reset_index().merge(done[columns], on="trial")


def pareto_front(results: Results, search: Search) -> Figure:
    """The trials of a search against its objectives: a panel for each pair of them.

    Args:
        results: of :func:`analysis.results.load`.
        search: of :func:`analysis.search.read_search`, with two objectives or more.

    Returns:
        Figure with a point per trial that is done and has every objective, by network and K;
        those of the Pareto front are large, the others small and pale. A step line joins those
        that are on the front of the panel's two objectives: what is better than the line
        nobody has found. Nulls in every panel that has any: see
        :func:`analysis.panels.objective_axis`.
    """
    found = candidates(results, search)
    if not len(found):
        return drawing.nothing("no trial has every objective yet")
    pairs = list(itertools.combinations(search.objectives.items(), 2))
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    figure = drawing.empty_figure(9.2 if columns == 1 else 13.2, 4.4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, pair in zip(grid, pairs, strict=False):
        drawing.prepare(axes)
        x, y = (score for score, _ in pair)
        panels.trial_points(axes, x, y, found[~found.front], markersize=4.5, alpha=0.5)
        panels.trial_points(axes, x, y, found[found.front], markersize=8, zorder=3)
        best = ranked(found, dict(pair))
        best = best[best.front]
        axes.plot(best[x], best[y], drawstyle="steps-post", label="Pareto front", **FRONT)
        for along, (score, better) in zip("xy", pair, strict=True):
            panels.objective_axis(axes, along, score, better, found)
    for axes in grid[len(pairs) :]:
        axes.set_visible(False)
    panels.search_legend(figure)
    return figure


def search_history(results: Results, search: Search) -> Figure:
    """The one objective of a search against the trial's number, in the order they were trained.

    Args:
        results: of :func:`analysis.results.load`.
        search: of :func:`analysis.search.read_search`, with one objective.

    Returns:
        Figure with a point per trial that is done and has the objective, by network and K, a
        step line for the best so far, and the objective's nulls.
    """
    found = candidates(results, search).sort_values("trained_at", kind="stable")
    if not len(found):
        return drawing.nothing("no trial has the objective yet")
    ((score, better),) = search.objectives.items()
    found = found.assign(number=np.arange(1, len(found) + 1))
    best = found[score].cummin() if better == "min" else found[score].cummax()
    figure = drawing.empty_figure(9.2, 3.8)
    axes = figure.subplots()
    drawing.prepare(axes)
    panels.trial_points(axes, "number", score, found)
    axes.plot(found.number, best, drawstyle="steps-post", label="best so far", **FRONT)
    panels.objective_axis(axes, "y", score, better, found)
    axes.set_xlabel("trial, in the order they were trained")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels.search_legend(figure)
    return figure


def scores_against_gamma(results: Results) -> Figure:
    """Accuracies, LSS and OTS against gamma, in the form of Fig. 4: a line per network and K.

    Args:
        results: of :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with four panels per dataset. Points are means over seeds, bars their 95%
        t-intervals where there are several. Nulls: each network at initialisation (dotted, in
        its colour), sqrt(n) and 1/m (dashed). OTS compares at equal m only: the axis says m.
    """
    done = panels.done_trials(results)
    if not len(done):
        return drawing.nothing()
    by = [*LINE, *panels.splitting(done)]
    lines = done[by].drop_duplicates().sort_values(by).to_dict("records")
    datasets, gammas = sorted(done.dataset.unique()), sorted(done.gamma.unique())
    wide = len(datasets) > 1
    size = (13.2, 2.9 * len(datasets) + 0.7) if wide else (9.2, 6.2)
    figure = drawing.empty_figure(*size)
    grid = figure.subplots(*((len(datasets), 4) if wide else (2, 2)), squeeze=False).ravel()
    for i, dataset in enumerate(datasets):
        trials = done[done.dataset == dataset]
        shown = {
            "clean_train_accuracy": "clean train accuracy (fraction)",
            "test_accuracy": "test accuracy (fraction)",
            "lss": "LSS (dimensionless)",
            "ots": f"OTS (fraction, m = {panels.sizes(trials)})",
        }
        for j, (score, label) in enumerate(shown.items()):
            axes = grid[4 * i + j]
            drawing.prepare(axes)
            seen = drawing.random_nulls(axes, score, trials)
            for k, key in enumerate(lines):
                shift = 0.08 * (k - (len(lines) - 1) / 2)
                name = panels.name(key, by[3:])
                seen += _line(axes, score, panels.at(trials, key), gammas, shift, name)
            axes.set_ylabel(label)
            axes.set_title(dataset if wide or j == 0 else "", fontsize=9, loc="left")
            _gamma_axis(axes, gammas)
            if score == "lss":
                drawing.limit(axes, seen, log=True)
            elif score == "ots":
                axes.set_ylim(-0.04, 1.06)
            else:
                low, high = axes.get_ylim()
                axes.set_ylim(max(low, 0), min(high, 1.01))
    handles, names = _legend(grid)
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def _line(
    axes: Axes, score: str, trials: pd.DataFrame, gammas: list[float], shift: float, name: str
) -> list[float]:
    """Draw a score's means with their bars, and its value at initialisation; all heights."""
    if not len(trials):
        return []
    style = drawing.network_style(trials.network.iloc[0], int(trials.stages.iloc[0]))
    mean = mean_interval(trials, ["gamma"], [score])
    x = [gammas.index(g) + shift if len(gammas) <= EVEN else g for g in mean.index]
    axes.errorbar(
        x, mean[score].to_numpy(), mean[f"{score}_ci95"].to_numpy(), label=name,
        capsize=2, elinewidth=0.9, **style,
    )  # fmt: skip
    before = trials[f"{score}_initial"].mean() if f"{score}_initial" in trials else np.nan
    if np.isfinite(before):
        line = axes.axhline(before, linestyle=":", linewidth=1.2, color=style["color"], zorder=1.6)
        line.set_label(INITIAL)
    return [*mean[score], before]


def _legend(grid: np.ndarray) -> tuple[list, list[str]]:
    """Every line once, then what dotted and dashed mean."""
    found: dict[str, object] = {}
    for axes in grid:
        handles, names = axes.get_legend_handles_labels()
        bars = {n: h for n, h in zip(names, handles, strict=True) if not isinstance(h, Line2D)}
        found = bars | found
    found = dict(sorted(found.items(), key=lambda item: item[0].lower()))
    found[f"same network {INITIAL}"] = Line2D([], [], linestyle=":", color="0.35")
    found["random: √n, 1/m"] = Line2D([], [], linestyle="--", color="0.35")
    return list(found.values()), list(found)


def _gamma_axis(axes: Axes, gammas: list[float]) -> None:
    axes.set_xlabel("γ (weight of the L2 penalty)")
    if len(gammas) > EVEN:
        axes.set_xscale("symlog", linthresh=min(g for g in gammas if g > 0))
        return
    axes.set_xticks(range(len(gammas)), [f"{g:g}" for g in gammas])
    axes.set_xlim(-0.4, len(gammas) - 0.6)
    axes.tick_params(axis="x", labelrotation=35 if len(gammas) > 7 else 0)
