"""LSS against epoch and scores against gamma, in the forms of the paper's Figs 2 and 4.

Figures are made with matplotlib's objects, never pyplot, so nothing global changes. The
nulls (value at initialisation, sqrt(n), 1/m) are drawn into every panel of LSS and OTS.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import drawing
from analysis.drawing import INITIAL, MARKERS, NAMES
from analysis.results import Results
from analysis.tables import mean_interval, varying

PANEL = ["dataset", "layers", "stages"]
LINE = ["layers", "stages", "network"]
EVEN = 12  # more gammas than this lie on a symlog axis, fewer are spaced evenly
SPLIT = 3  # combinations of other settings that get lines of their own; more are averaged


def lss_against_epoch(results: Results) -> Figure:
    """LSS against epoch, in the form of Fig. 2: a panel per dataset, K and network.

    Args:
        results: of :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a line per gamma: LSS as mean over points and stages, then over seeds,
        with the 95% t-interval as a band where there are several. Nulls in every panel: the
        mean value at initialisation (dotted) and sqrt(n) (dashed). Axes differ by panel.
    """
    done = _done(results)
    if not len(done):
        return drawing.nothing_done()
    rows = [*PANEL, *_split(done)]
    epochs = results.epochs[["trial", "epoch", "lss"]].astype({"trial": "str"})
    epochs = epochs.merge(done[["trial", *rows, "network", "gamma"]], on="trial")
    networks, gammas = sorted(done.network.unique()), sorted(done.gamma.unique())
    cells = done[rows].drop_duplicates().sort_values(rows).to_dict("records")
    figure = drawing.empty_figure(4.0 * len(networks) + 1.1, 2.5 * len(cells) + 0.6)
    grid = figure.subplots(len(cells), len(networks), squeeze=False)
    for i, cell in enumerate(cells):
        for j, network in enumerate(networks):
            axes, key = grid[i, j], cell | {"network": network}
            drawing.prepare(axes)
            seen = _curves(axes, _at(epochs, key), gammas)
            seen += drawing.line_shape_nulls(axes, _at(done, key))
            drawing.limit(axes, seen, log=False)
            axes.set_title(f"{cell['dataset']}, {_name(key, rows[3:])}", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("epoch (passes over the train split)" * (i == len(cells) - 1))
            axes.set_ylabel("LSS (dimensionless)" * (j == 0))
    handles = [
        Line2D([], [], color=colour, marker=MARKERS[i % 9], markersize=4, label=f"{gamma:g}")
        for i, (gamma, colour) in enumerate(drawing.shades(gammas).items())
    ]
    title = "γ, weight of\nthe L2 penalty"
    figure.legend(
        handles=handles, loc="outside right upper", title=title, fontsize=8.5,
        title_fontsize=8.5, frameon=False,
    )  # fmt: skip
    return figure


def _curves(axes: Axes, epochs: pd.DataFrame, gammas: list[float]) -> list[float]:
    """Draw a line with its band for each gamma; returns all heights."""
    means = mean_interval(epochs, ["gamma", "epoch"], ["lss"]).reset_index()
    for i, (gamma, colour) in enumerate(drawing.shades(gammas).items()):
        curve = means[means.gamma == gamma]
        every = max(1, len(curve) // 8)
        axes.plot(
            curve.epoch, curve.lss, color=colour, linewidth=1.3, markersize=4,
            marker=MARKERS[i % len(MARKERS)], label=f"γ = {gamma:g}",
            markevery=(i * every // len(gammas), every),
        )  # fmt: skip
        band = (curve.lss - curve.lss_ci95, curve.lss + curve.lss_ci95)
        axes.fill_between(curve.epoch, *band, color=colour, alpha=0.1, linewidth=0)
    return list(means.lss)


def scores_against_gamma(results: Results) -> Figure:
    """Accuracies, LSS and OTS against gamma, in the form of Fig. 4: a line per network and K.

    Args:
        results: of :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with four panels per dataset. Points are means over seeds, bars their 95%
        t-intervals where there are several. Nulls: each network at initialisation (dotted, in
        its colour), sqrt(n) and 1/m (dashed). OTS compares at equal m only: the axis says m.
    """
    done = _done(results)
    if not len(done):
        return drawing.nothing_done()
    by = [*LINE, *_split(done)]
    lines = done[by].drop_duplicates().sort_values(by).to_dict("records")
    datasets, gammas = sorted(done.dataset.unique()), sorted(done.gamma.unique())
    wide = len(datasets) > 1
    size = (13.2, 2.9 * len(datasets) + 0.7) if wide else (9.2, 6.2)
    figure = drawing.empty_figure(*size)
    grid = figure.subplots(*((len(datasets), 4) if wide else (2, 2)), squeeze=False).ravel()
    for i, dataset in enumerate(datasets):
        trials = done[done.dataset == dataset]
        m = sorted(trials.points.unique())
        size = " or ".join(f"{int(points):,}" for points in m[:3]) + ", …" * (len(m) > 3)
        panels = {
            "clean_train_accuracy": "clean train accuracy (fraction)",
            "test_accuracy": "test accuracy (fraction)",
            "lss": "LSS (dimensionless)",
            "ots": f"OTS (fraction, m = {size})",
        }
        for j, (score, label) in enumerate(panels.items()):
            axes = grid[4 * i + j]
            drawing.prepare(axes)
            seen = drawing.random_nulls(axes, score, trials)
            for k, key in enumerate(lines):
                shift = 0.08 * (k - (len(lines) - 1) / 2)
                seen += _line(axes, score, _at(trials, key), gammas, shift, _name(key, by[3:]))
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


def _done(results: Results) -> pd.DataFrame:
    done = results.trials[results.trials.status == "done"]
    return done.astype({"trial": "str", "dataset": "str", "network": "str"})


def _split(done: pd.DataFrame) -> list[str]:
    """Other settings that vary, if they make few combinations."""
    extra = varying(done)
    return extra if len(done[extra].drop_duplicates()) <= SPLIT else []


def _at(frame: pd.DataFrame, key: Mapping) -> pd.DataFrame:
    """Rows where every column of the key has its value."""
    keep = pd.Series(True, index=frame.index)
    for column, value in key.items():
        keep &= frame[column].isna() if pd.isna(value) else frame[column] == value
    return frame[keep]


def _name(key: Mapping, extra: list[str]) -> str:
    parts = [NAMES.get(key["network"], key["network"]), f"K = {key['stages']}"]
    return ", ".join(parts + [f"{name.replace('_', ' ')} {key[name]}" for name in extra])
