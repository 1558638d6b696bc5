"""Networks of several stages, stage by stage: the forms of the paper's Figs 5 and 6.

Each stage is measured between its own ends, so each has its own baselines: its value before
training, sqrt(n) and 1/m.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.measures import cells
from analysis.measures.cells import without_collapsed
from analysis.measures.layout import network_name
from analysis.plots import by_gamma, panels, scales, seeds, style
from analysis.plots.style import INITIAL, SHUFFLED
from analysis.results import Results

# fmt: off
SCORES = [
    "lss", "lss_initial", "lss_random", "ots", "ots_initial", "ots_random", "ots_shuffled",
]
# fmt: on


def lss_by_stage(results: Results) -> Figure:
    """LSS against epoch, in the form of Fig. 5: a row per stage, a line per gamma.

    Args:
        results: from :func:`analysis.results.load`; trials that are done and have several stages
            are drawn.

    Returns:
        Figure with a column per dataset, K and network, and the stages from top to bottom; the
        columns after the fourth continue below. LSS is the mean over points, then over seeds,
        which are drawn as in :mod:`analysis.plots.seeds`. Baselines in every panel: the mean value
        of that stage before training (dotted), sqrt(n) (dashed), and 1 (solid), or a note that it
        lies below. Axes of LSS differ. A note says if the epochs between have fewer points.
    """
    shown, tracks = _stages(results)
    done = shown.trials
    if not len(tracks):
        return style.nothing("no trial of several stages is done yet")
    cells = panels.rows_of(done, shown.extra)
    networks, gammas = sorted(done.network.unique()), sorted(done.gamma.unique())
    ended = tracks[tracks.epoch == tracks.epochs_done]
    some = panels.thinned(tracks)
    count = min(max(1, panels.ACROSS // len(networks)), len(cells))  # cells that fit side by side
    bands = [cells[i : i + count] for i in range(0, len(cells), count)]
    heights = [max(int(cell["stages"]) for cell in band) for band in bands]
    figure, grid = style.sheet(
        sum(heights), count * len(networks), (2.9 if count * len(networks) < 3 else 2.1, 1.45),
        gaps=(1.1, 0.55), beside=1.9, top=0.61 if shown.extra else 0.45,
        note=" ".join(filter(None, [shown.note, panels.points_note(done)])),
        titles=[
            f"{panels.data_name(cell['dataset'])}, "
            f"{panels.name(cell | {'network': network}, shown.extra)}\nstage"
            for cell in cells
            for network in networks
        ],
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_visible(False)
    firsts = np.cumsum([0, *heights[:-1]])
    for band, first, height in zip(bands, firsts, heights, strict=True):
        places = [(cell, network) for cell in band for network in networks]
        for j, (cell, network) in enumerate(places):
            key = cell | {"network": network}
            trials, last = panels.at(done, key), int(cell["stages"])
            for stage in range(1, last + 1) if len(trials) else ():
                axes, here = grid[first + stage - 1, j], key | {"stage": stage}
                axes.set_visible(True)
                seen = by_gamma.lines(axes, panels.at(some, here), "epoch", "lss", gammas)
                seen += style.line_baselines(axes, panels.at(ended, here), seen)
                scales.limit(axes, seen, log=False)
                scales.whole_axis(axes, 0, tracks.epoch.max())
                title = f"stage {stage}{_shape(trials, stage)}"
                if not np.isfinite(seen).any():
                    style.say(axes, "a single block:\nno line shape")
                if stage == 1:
                    dataset = panels.data_name(cell["dataset"])
                    title = f"{dataset}, {panels.name(key, shown.extra)}\n{title}"
                style.title(axes, title)
                if not any(left["stages"] >= stage for left, _ in places[:j]):
                    axes.set_ylabel("LSS (dimensionless)")
                if stage == last and (stage < height or band is bands[-1]):
                    axes.set_xlabel("epoch (passes over the train split)")
    by_gamma.legend(figure, done, gammas, panels.seed_counts(done, tracks, ["lss"]))
    return figure


def scores_by_stage(results: Results) -> Figure:
    """Test accuracy, and OTS and LSS of each stage, in the form of Fig. 6.

    Args:
        results: from :func:`analysis.results.load`; trials that are done and have several stages
            are drawn.

    Returns:
        Figure with two rows per dataset and K: test accuracy against gamma, then OTS (above) and
        LSS (below) against the stage, a column for each of up to four gammas: 0, then the paper's
        where they exist, and others as far apart as possible. Points are means over seeds, which
        are drawn as in :mod:`analysis.plots.seeds`. Baselines: each network before training
        (dotted, a dark shade of its colour), the OTS of its shuffled displacements (dash-dotted),
        sqrt(n) and 1/m (dashed). A collapsed stage has no OTS; the title names it. OTS is
        comparable at equal m only, so the axis names m.
    """
    fitting, tracks = _stages(results)
    done = fitting.trials
    ended = tracks[tracks.epoch == tracks.epochs_done]
    if not len(ended):
        return style.nothing("no trial of several stages is done yet")
    cells = panels.rows_of(done, fitting.extra)
    shown = [_gammas(panels.at(done, cell)) for cell in cells]
    figure, grid = style.sheet(
        2 * len(cells), 1 + max(map(len, shown)), (1.8, 1.75), gaps=(0.72, 0.78), beside=0.85,
        top=0.55, note=fitting.note,
        titles=[panels.row_name(cell, fitting.extra) for cell in cells],
    )  # fmt: skip
    for i, (cell, gammas) in enumerate(zip(cells, shown, strict=True)):
        trials, rows = panels.at(done, cell), panels.at(ended, cell)
        _accuracies(grid[2 * i, 0], trials, gammas)
        style.title(grid[2 * i, 0], panels.row_name(cell, fitting.extra))
        grid[2 * i + 1, 0].set_axis_off()
        labels = {
            "ots": f"OTS (fraction, m = {panels.sizes(trials)})",
            "lss": "LSS (dimensionless)",
        }
        for places, (score, label) in zip(grid[2 * i : 2 * i + 2, 1:], labels.items(), strict=True):
            seen = []
            for axes, gamma in zip(places, gammas, strict=False):
                own = rows[rows.gamma == gamma]
                seen += style.random_baselines(axes, score, own, named=gamma == gammas[-1])
                seen += _stage_lines(axes, score, own)
                scales.whole_axis(axes, 1, int(cell["stages"]), pad=0.12)
                axes.tick_params(labelleft=axes is places[0])
                if score == "ots":
                    style.title(axes, f"γ = {gamma:.4g}{_lost(own)}")
                if score == "lss":
                    axes.set_xlabel("stage k")
            for axes in places[: len(gammas)]:
                axes.set_ylim(-0.04, 1.06)
                if score == "lss":
                    scales.limit(axes, seen, log=True)
            for axes in places[len(gammas) :]:
                axes.set_visible(False)
            places[0].set_ylabel(label)
    counts = panels.seed_counts(done, ended, ["ots", "lss"])
    counts += panels.seed_counts(done, done, ["test_accuracy"])
    _network_legend(grid[1, 0], done, counts)
    return figure


def _stages(results: Results) -> tuple[panels.Fitting, pd.DataFrame]:
    """Trials to draw, with several stages, and their rows of the tracks table.

    Collapsed stages have no OTS here.
    """
    done = cells.done(results)
    done = done[done.stages > 1]
    tracks = results.tracks[["trial", "epoch", "stage", "collapsed", *SCORES]]
    tracks = tracks.astype({"trial": "str"} | dict.fromkeys(SCORES, "float64"))
    tracks = without_collapsed(tracks)
    tracks = tracks.merge(done[[*panels.key_columns(done), "epochs_done"]], on="trial")
    shown = panels.fitting(done[done.trial.isin(tracks.trial.unique())])
    return shown, tracks[tracks.trial.isin(shown.trials.trial)]


def _shape(trials: pd.DataFrame, stage: int) -> str:
    """The shape of a state in a stage (": 64 x 32 x 32"), or nothing if it is unknown."""
    known = trials.shapes.dropna()
    shapes = known.iloc[0].split(", ") if len(known) else []
    return f": {shapes[stage - 1]}" if stage <= len(shapes) else ""


def _gammas(trials: pd.DataFrame) -> list[float]:
    """The gammas to show: up to four, or some of each network if they share none."""
    by_network = {network: own.gamma.unique() for network, own in trials.groupby("network")}
    count = trials.groupby("gamma").network.nunique().max()
    if count < len(by_network):
        most = max(1, panels.ACROSS // len(by_network))
        some = [
            panels.chosen(sorted(own), panels.PAPER_GAMMAS, most) for own in by_network.values()
        ]
        return sorted({gamma for own in some for gamma in own})
    return panels.chosen(sorted(trials.gamma.unique()), panels.PAPER_GAMMAS, panels.ACROSS)


def _accuracies(axes: Axes, trials: pd.DataFrame, gammas: list[float]) -> None:
    """Draw the test accuracy of each network against the gammas that are shown."""
    for k, (network, own) in enumerate(trials.groupby("network")):
        mean = seeds.averaged(own[own.gamma.isin(gammas)], ["gamma"], "test_accuracy")
        x = [gammas.index(gamma) + 0.1 * k - 0.05 for gamma in mean.index]
        look = style.network_style(str(network), int(own.stages.iloc[0]))
        seeds.bars(axes, x, mean, look)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 1.01))
    axes.set_xlabel(f"γ ({cells.gamma_meaning(trials)})")
    scales.gamma_axis(axes, gammas)
    axes.set_ylabel("test accuracy (fraction)")


def _stage_lines(axes: Axes, score: str, rows: pd.DataFrame) -> list[float]:
    """Draw each network's score and its value before training, and return all heights."""
    seen = []
    for k, (network, own) in enumerate(rows.groupby("network")):
        look = style.network_style(str(network), int(own.stages.iloc[0]))
        mean = seeds.averaged(own, ["stage"], score)
        seeds.bars(axes, [stage + 0.1 * k - 0.05 for stage in mean.index], mean, look)
        baselines = own.groupby("stage")[[f"{score}_initial", "ots_shuffled"]].mean()
        before = baselines[f"{score}_initial"]
        axes.plot(before.index, before, label=INITIAL, **style.initial_style(look["color"]))
        if score == "ots":
            shuffled = style.shuffled_style(look["color"])
            axes.plot(baselines.index, baselines.ots_shuffled, label=SHUFFLED, **shuffled)
        seen += [*mean["mean"], *before]
    return seen


def _lost(rows: pd.DataFrame) -> str:
    """A second line of a title that names the collapsed stages, or nothing."""
    lost = rows[rows.collapsed.eq(True)]
    names = []
    for network, own in lost.groupby("network"):
        stages = sorted(own.stage.unique())
        which = "" if len(stages) == own.stages.iloc[0] else f" {', '.join(map(str, stages))}"
        names.append(network_name(network) + which)
    return f"\ncollapsed: {'; '.join(names)}" if names else ""


def _network_legend(axes: Axes, done: pd.DataFrame, counts: list[int]) -> None:
    """Explain the lines in a place where there is no panel."""
    handles = []
    for key in done[["network", "stages"]].drop_duplicates().to_dict("records"):
        look = style.network_style(key["network"], key["stages"])
        label = textwrap.fill(panels.name(key, []), 22, break_long_words=False)
        handles.append(Line2D([], [], label=label, **look))
    handles.sort(key=lambda line: str(line.get_label()).lower())
    handles.append(style.baseline_handle(f"same network\n{INITIAL}", ":"))
    handles.append(style.baseline_handle("random: √n, 1/m", "--"))
    handles.append(style.baseline_handle("OTS of shuffled\ndisplacements", "-."))
    handles += seeds.handles(counts, of_bars=True)
    axes.legend(handles=handles, loc="center left", fontsize=8.5, frameon=False)
