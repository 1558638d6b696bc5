"""Figures of one probed model: scores by depth, and tracks in two dimensions."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.plots import scales, style
from analysis.plots.tracks import HUES

Result = Mapping[str, Any]  # of one set of weights in probe.json
BLOCKS = {  # title -> column of a block, and the value of independent directions
    "share of the length of a track": ("share", None),
    "cosine with the next step": ("cosine", 0.0),
    "effective rank after the block": ("effective_rank", None),
    "mean squared step": ("energy", None),
}
STAGES = {  # title -> column of a stage; its values at random and of nulls have the same start
    "LSS": "lss",
    "straightness factor": "straightness_factor",
}
COLOURS = ("#0072B2", "#D55E00")
MOST = 20  # tracks in a panel


def depth(results: Mapping[str, Result]) -> Figure:
    """Scores by depth: two of each stage with their baselines, four of each block.

    Args:
        results: by the name of the weights, up to two; from ``probe.json``.

    Returns:
        Figure with six panels. Lines of blocks break between stages. The panels of stages also show
        sqrt(n) or n (dashes), and the copies with new weights (dotted, x) and with shuffled blocks
        (dash-dotted, +).
    """
    figure, grid = style.sheet(2, 3, (2.7, 1.9), beside=2.3)
    panels = list(grid.flat)
    handles: dict[str, Line2D] = {}
    for colour, (name, result) in zip(COLOURS, results.items(), strict=False):
        handles[name] = Line2D([], [], color=colour, marker="o", markersize=4, label=_end(name))
        for axes, (title, column) in zip(panels, STAGES.items(), strict=False):
            _stages(axes, title, column, result["stages"], colour, handles)
        for axes, (title, (column, chance)) in zip(panels[2:], BLOCKS.items(), strict=True):
            _blocks(axes, title, column, result["blocks"], colour, chance)
    energies = [block["energy"] for result in results.values() for block in result["blocks"]]
    if energies and all(energies):  # neither 0 nor unknown
        scales.logarithmic(panels[-1], energies)
    style.legend(figure, list(handles.values()))
    return figure


def tracks(results: Mapping[str, Result]) -> Figure:
    """Tracks of the first points in two dimensions: a row per weights, a column per stage.

    The projection is a fixed Gaussian matrix for each dimension. Stages of one block are left out.
    """
    some = {
        name: [
            (stage, np.array(states, dtype="float64"))
            for stage, states in zip(result["stages"], result["tracks"], strict=True)
            if stage["blocks"] > 1 and len(states)
        ]
        for name, result in results.items()
    }
    columns = max(map(len, some.values()), default=0)
    if not columns:
        return style.nothing("no stage has two blocks")
    figure, grid = style.sheet(len(some), columns, (2.3, 2.3), beside=0.3)
    for row, (name, stages) in zip(grid, some.items(), strict=True):
        for axes, (stage, states) in zip(row, stages, strict=False):
            for colour, point in zip(cycle(HUES), range(min(MOST, states.shape[1])), strict=False):
                x, y = states[:, point].T
                axes.plot(x, y, color=colour, linewidth=0.8)
                axes.plot(x[:1], y[:1], "o", color=colour, markersize=3, markerfacecolor="white")
                axes.plot(x[-1:], y[-1:], "o", color=colour, markersize=3)
            lss = "?" if stage["lss"] is None else f"{stage['lss']:.2f}"
            head = f"{name}\n" if len(some) > 1 else ""
            style.title(axes, f"{head}stage {stage['stage']}, n = {stage['blocks']}, LSS {lss}")
        for axes in row[len(stages) :]:
            axes.set_visible(False)
    return figure


def _stages(
    axes: Axes,
    title: str,
    column: str,
    stages: Sequence[Mapping[str, Any]],
    colour: str,
    handles: dict[str, Line2D],
) -> None:
    chance = ("n", "blocks") if column == "straightness_factor" else ("√n", "lss_random")
    known = [stage for stage in stages if stage["blocks"] > 1]
    x = [stage["stage"] for stage in known]
    axes.plot(x, _numbers(known, column), color=colour, marker="o", markersize=4)
    lines = {
        "n, √n: independent directions": (chance[1], "--", "0.35", "_"),
        "new weights": (f"{column}_reinit", ":", colour, "x"),
        "shuffled blocks": (f"{column}_shuffle", "-.", colour, "+"),
    }
    for label, (other, dashes, own, marker) in lines.items():
        if any(stage.get(other) is not None for stage in known):
            axes.plot(
                x, _numbers(known, other), color=own, linestyle=dashes, linewidth=1.1,
                marker=marker, markersize=6,
            )  # fmt: skip
            handle = style.baseline_handle(label, dashes, 1.1)
            handle.set(marker=marker, markersize=6)  # a model of one stage has no lines
            handles.setdefault(label, handle)
    axes.set_xticks(x)
    axes.set_xlabel("stage")
    style.title(axes, title)


def _blocks(
    axes: Axes,
    title: str,
    column: str,
    blocks: Sequence[Mapping[str, Any]],
    colour: str,
    chance: float | None,
) -> None:
    x, y = [], []
    for place, block in enumerate(blocks, 1):
        if place > 1 and block["block"] == 1:  # a stage begins: break the line
            x.append(place - 0.5)
            y.append(np.nan)
            axes.axvline(place - 0.5, color="0.85", linewidth=0.8)
        x.append(place)
        y.append(np.nan if block[column] is None else block[column])
    axes.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.2)
    if chance is not None:
        axes.axhline(chance, linestyle="--", **style.BASELINE)
    axes.set_xlabel("block")
    style.title(axes, title)


def _end(name: str) -> str:
    """The end of a long path, which fits the margin."""
    return name if len(name) <= 32 else f"…{name[-31:]}"


def _numbers(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    return [np.nan if row.get(column) is None else row[column] for row in rows]
