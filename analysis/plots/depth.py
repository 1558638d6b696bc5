"""Degradation with depth (section 3.2, eq. 26): accuracies and scores against the blocks."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from analysis.measures import cells
from analysis.measures.cells import without_collapsed
from analysis.plots import panels, scales, seeds, style
from analysis.plots.style import INITIAL
from analysis.results import Results

SHOWN = {
    "clean_train_loss": "clean train loss (nat)",
    "clean_train_accuracy": "clean train accuracy (fraction)",
    "test_accuracy": "test accuracy (fraction)",
    "lss": "LSS (dimensionless)",
    "geodesic_excess": "geodesic excess (1: geodesic)",
    "ots": "OTS (fraction, m = {m})",
}
WITHOUT_AND_WITH = [0.0, 1e-1]  # weight decay: the two gammas to show if there are many


def varies(results: Results) -> bool:
    """Whether trials of one row of panels that are done have several numbers of blocks."""
    return _several(panels.fitting(cells.done(results), panels.SPLIT, along="depth", curves=True))


def _several(shown: panels.Fitting) -> bool:
    by = [*panels.PANEL, *shown.extra]
    return bool(shown.trials.groupby(by, dropna=False).depth.nunique().gt(1).any())


def scores_against_depth(results: Results) -> Figure:
    """Losses, accuracies and scores against the number of blocks: a line per network and gamma.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with two rows of three panels per dataset, layers, K and up to three combinations of
        other settings, and lines for up to two gammas, the second of which is faint and has
        squares. Points are means over seeds, which are drawn as in :mod:`analysis.plots.seeds`.
        Baselines: each network before training (dotted, a dark shade of its colour), sqrt(n) and
        1/m (dashed). Both axes are logarithmic where numbers differ by orders of magnitude.
    """
    done = without_collapsed(cells.done(results))
    shown = panels.fitting(done, panels.SPLIT, along="depth", curves=True)
    if not _several(shown):
        return style.nothing("no two trials differ in their number of blocks alone")
    done = shown.trials
    places = panels.rows_of(done, shown.extra)
    gammas = panels.chosen(sorted(done.gamma.unique()), WITHOUT_AND_WITH, 2)
    networks = sorted(done.network.unique())
    figure, grid = style.sheet(
        2 * len(places), 3, (2.3, 1.8), gaps=(1.0, 0.75), top=0.55, beside=1.6, note=shown.note
    )
    for i, place in enumerate(places):
        here = panels.at(done, place)
        axes_of = grid[2 * i : 2 * i + 2].ravel()
        for axes, (score, label) in zip(axes_of, SHOWN.items(), strict=True):
            seen = [
                height
                for network in networks
                for k, gamma in enumerate(gammas)
                for height in _line(axes, here, score, network, gamma, k)
            ]
            seen += _random(axes, here, score)
            _bound(axes, score, seen)
            axes.set_ylabel(label.format(m=panels.sizes(here)))
            _blocks_axis(axes, sorted(here.depth.unique()))
        panels.row_title(axes_of[0], panels.row_name(place, shown.extra))
    some = done[done.gamma.isin(gammas)]
    counts = panels.seed_counts(some, some, SHOWN)
    style.legend(figure, [*_handles(networks, gammas), *seeds.handles(counts, of_bars=True)])
    return figure


def _look(network: str, k: int) -> dict:
    """Colour by network; the second gamma is faint and has squares. Dashes are for baselines."""
    return style.line_style(network, 1) | {"alpha": 1 - 0.5 * k, "marker": "os"[k]}


def _line(
    axes: Axes, rows: pd.DataFrame, score: str, network: str, gamma: float, k: int
) -> list[float]:
    """Draw a network's means at one gamma, and for k = 0 its values before training."""
    own = rows[(rows.network == network) & (rows.gamma == gamma)]
    mean = seeds.averaged(own, ["depth"], score)
    x = mean.index.to_numpy("float64") * (1 + 0.03 * k)
    seeds.bars(axes, list(x), mean, _look(network, k))
    if k or f"{score}_initial" not in own:
        return [*mean["mean"]]
    before = own.groupby("depth")[f"{score}_initial"].mean()
    look = style.initial_style(style.colour(network))
    axes.plot(before.index, before, label=INITIAL, **look)
    return [*mean["mean"], *before]


def _random(axes: Axes, rows: pd.DataFrame, score: str) -> list[float]:
    """Draw the value at random of a score that has one, at each number of blocks."""
    column = style.RANDOM.get(score, ("",))[0]
    if column not in rows:
        return []
    random = rows.groupby("depth")[column].mean()
    look: dict = style.BASELINE | {"zorder": 2.5}  # above the lines of networks
    axes.plot(random.index, random, linestyle="--", **look)
    style.name_line(axes, random.iloc[-1], style.RANDOM[score][1])
    return [*random]


def _bound(axes: Axes, score: str, seen: list[float]) -> None:
    if score in ("lss", "geodesic_excess"):
        scales.limit(axes, seen, log=True)
    elif score.endswith("loss"):
        scales.logarithmic(axes, seen)
    else:
        axes.set_ylim(-0.04, 1.04)


def _blocks_axis(axes: Axes, blocks: list[int]) -> None:
    """A logarithmic x axis of numbers of blocks, with a tick at each."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([float(n) for n in blocks]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(blocks[0] / 1.15, blocks[-1] * 1.15)
    axes.set_xlabel("blocks per stage")


def _handles(networks: list[str], gammas: list[float]) -> list[Line2D]:
    lines = []
    for network in networks:
        for k, gamma in enumerate(gammas):
            label = f"{panels.network_name(network)}, γ = {gamma:g}"
            lines.append(Line2D([], [], label=label, **_look(network, k)))
    lines.append(style.baseline_handle(f"same network\n{INITIAL}", ":"))
    lines.append(style.baseline_handle("random: √n, 1/m", "--", 1))
    return lines
