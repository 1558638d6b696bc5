"""Data tracks in two dimensions: the forms of the paper's Figs 3 and 9 to 16.

When a trial was scored, the tracks of a few points were multiplied by a Gaussian (2, d) matrix P,
which is the same for every network and trial of a dimension. The results are stored, and drawn
here.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform

from analysis.measures import cells
from analysis.measures.layout import network_name
from analysis.plots import panels, style
from analysis.results import Results

FIG_3 = 5e-4  # the paper's gamma on MNIST
FIGS_9_TO_12 = [1e-2, 1e-3, 1e-1, 1e-4]  # the first ones where there are many
POINTS = 50  # Trials store the tracks of the first 50 points at most.
EACH = 2  # points of each class that are shown
HUES = [  # after Tol's muted scheme: safe for the colour-blind, none too pale to print
    "#332288", "#CC6677", "#117733", "#DDAA33", "#66AADD",
    "#882255", "#44AA99", "#888822", "#AA4499", "#222222",
]  # fmt: skip
ENDS = "osD^vPX<>*"  # Each class has its own marker at the ends of its tracks as well.
UNKNOWN = -1  # stands for the place in HUES where the class of a point is not stored
NOTE = (
    "A panel is one trial, of one seed. States are projected on two random directions, the same "
    "for all trials. Scales differ by panel."
)
LINE = ["dataset", "network", "stages", "gamma", "seed", "points", "test_accuracy"]


def tracks_by_gamma(results: Results) -> Figure:
    """Tracks of one stage, in the form of Figs 3 and 9 to 12: a column per gamma.

    Args:
        results: from :func:`analysis.results.load`; trials that are done and have one stage.

    Returns:
        Figure with a row per dataset and network, and up to four gammas: 0, the control, then
        those of the paper (on MNIST that of Fig. 3 first) where they exist, and others as far apart
        as possible. All networks have the same gammas if they share any. A panel shows the trial
        with the smallest seed after its last epoch: about 20 tracks, in the colour of their class
        where it is stored. Titles give the trial's LSS and OTS, with the values before training in
        brackets. Panels have scales of their own, and a note says so.
    """
    rows = []
    found, note = _cells(results, several=False)
    for cell in found:
        wanted = [FIG_3, *FIGS_9_TO_12] if cell.dataset.iloc[0] == "mnist" else FIGS_9_TO_12
        common = cell.groupby("gamma").network.nunique().max() == cell.network.nunique()
        for _, own in cell.groupby("network"):
            gammas = sorted((cell if common else own).gamma.unique())
            some = [own[own.gamma == gamma] for gamma in panels.chosen(gammas, wanted)]
            rows.append([trials.iloc[0] if len(trials) else None for trials in some])
    return _figure(results, rows, note)


def tracks_by_stage(results: Results) -> Figure:
    """Tracks of several stages, in the form of Figs 13 to 16: a column per stage.

    Args:
        results: from :func:`analysis.results.load`; trials that are done and have several stages.

    Returns:
        Figure with a row per dataset, K and network, at the gamma with the network's best mean
        test accuracy. A row shows the trial with the smallest seed after its last epoch; see
        :func:`tracks_by_gamma`.
    """
    rows = []
    found, note = _cells(results, several=True)
    for cell in found:
        for _, own in cell.groupby("network"):
            accuracy = own.groupby("gamma").test_accuracy.mean().fillna(-1)
            best = own[own.gamma == accuracy.idxmax()]
            stages = best[best.trial == best.trial.iloc[0]].sort_values("stage")
            rows.append([stages.iloc[i] for i in range(len(stages))])
    return _figure(results, rows, note)


def has_tracks(results: Results, several: bool) -> bool:
    """Whether a trial that is done has stored tracks; it has one stage, or several."""
    return len(_cells(results, several)[0]) > 0


def _cells(results: Results, several: bool) -> tuple[list[pd.DataFrame], str]:
    """For each row of panels, a row per stage of each trial with tracks of its last epoch.

    Rows are in the order of seeds. Collapsed stages have no OTS here. The text says what does not
    fit.
    """
    done = cells.done(results)
    columns = ["trial", "split", "epoch", "stage", "blocks", "collapsed", "projected"]
    scores = ["lss", "lss_initial", "ots", "ots_initial"]
    tracks = results.tracks[columns + scores].dropna(subset=["projected", "blocks"])
    tracks = tracks.astype({"trial": "str"} | dict.fromkeys(scores, "float64"))
    tracks = cells.without_collapsed(tracks)
    points = np.array([len(flat) for flat in tracks.projected]) / (2 * (tracks.blocks + 1))
    tracks = tracks[(points > 0) & (points % 1 == 0)]
    done = done[done.trial.isin(tracks.trial) & ((done.stages > 1) == several)]
    shown = panels.fitting(done, panels.SPLIT)
    done, extra = shown.trials, shown.extra
    done = done.assign(
        others=[", ".join(panels.settings(t, extra)) for t in done.to_dict("records")]
    )
    places = panels.rows_of(done, extra)
    settings = done[
        list(dict.fromkeys(["trial", "epochs_done", "others", *panels.PANEL, *extra, *LINE]))
    ]
    tracks = tracks.rename(columns={"split": "images"}).astype({"images": "str"})
    known = tracks.merge(settings, on="trial").sort_values(["seed", "trial"], kind="stable")
    known = known[known.epoch == known.epochs_done]
    found = [panels.at(known, place) for place in places]
    return [cell for cell in found if len(cell)], shown.note


def _figure(results: Results, rows: Sequence[Sequence[pd.Series | None]], note: str) -> Figure:
    if not rows:
        return style.nothing("no tracks in two dimensions are stored")
    labels = _labels(results)
    longest = max(len(trial.others) for row in rows for trial in row if trial is not None)
    more = 0.15 * -(-longest // 36)  # inches for the lines of other settings
    figure, grid = style.sheet(
        len(rows), max(map(len, rows)), (2.25, 2.25), gaps=(0.45, 0.85 + more), top=0.65 + more,
        beside=1.6, note=" ".join(filter(None, [NOTE, note])),
    )  # fmt: skip
    classes: dict[int, set[int]] = {}
    trials: list[pd.Series] = []
    for row, places in zip(rows, grid, strict=True):
        for trial, axes in itertools.zip_longest(row, places):
            if trial is None:
                axes.set_visible(False)
                continue
            known = labels.get((trial.dataset, trial.images), pd.Series(dtype="int64"))
            for place, label in _panel(axes, trial, known).items():
                classes.setdefault(place, set()).add(label)
            trials.append(trial)
            style.title(axes, _title(trial))
            if row is rows[-1]:
                axes.set_xlabel("along the first direction (distance)")
        first = next(axes for axes in places if axes.get_visible())
        first.set_ylabel("along the second direction")
    _legend(figure, classes, pd.DataFrame(trials), _without_tracks(results, labels))
    return figure


def _title(trial: pd.Series) -> str:
    """Dataset, network and gamma, then other settings, the stage and the scores, a line each."""
    network = panels.one_line(network_name(trial.network))
    images = panels.data_name(trial.dataset) + (" train" if trial.images == "train" else "")
    lines = [f"{images}, {network}, γ = {trial.gamma:.4g}"]
    if trial.others:
        lines.append(trial.others)
    if trial.stages > 1:
        lines.append(f"stage {trial.stage:g} of {trial.stages:g}")
    scores = [_score(trial, "lss", 2), _score(trial, "ots", 3)]
    lines.append(", ".join(text for text in scores if text))
    return "\n".join(lines)


def _score(trial: pd.Series, name: str, digits: int) -> str:
    """A score with its value before training in brackets, or nothing if it is unknown."""
    after, before = trial[name], trial[f"{name}_initial"]
    if not np.isfinite(after):
        return ""
    text = f"{name.upper()} {after:.{digits}f}"
    return f"{text} ({before:.{digits}f})" if np.isfinite(before) else text


def _labels(results: Results) -> dict[Any, pd.Series]:
    """The points to show of each dataset and split and their classes, the same in all trials.

    They are the first two points of each of the ten commonest classes.
    """
    samples = results.samples[["trial", "split", "point", "label"]]
    samples = samples[(samples.point < POINTS) & samples.label.notna()]
    trials = results.trials[["trial", "dataset"]].astype("str")
    both = samples.astype({"trial": "str", "split": "str", "label": "int64"})
    both = both.merge(trials, on="trial").drop_duplicates(["dataset", "split", "point"])
    both = both.set_index("point").sort_index()
    found = {}
    for key, own in both.groupby(["dataset", "split"]):
        common = own.label.value_counts().index[: len(HUES)]
        found[key] = own.label[own.label.isin(common)].groupby(own.label).head(EACH)
    return found


def _without_tracks(results: Results, labels: dict[Any, pd.Series]) -> list[int]:
    """Classes that have points but no track, up to ten; tracks are stored of the first points."""
    known = set(results.samples.label.dropna().astype("int64"))
    missing = known - {int(label) for own in labels.values() for label in own}
    return sorted(missing) if len(known) <= len(HUES) else []


def _panel(axes: Axes, trial: pd.Series, labels: pd.Series) -> dict[int, int]:
    """Draw the tracks of a trial's stage, and return the class for each place in HUES."""
    flat = np.asarray(trial.projected, dtype="float64")
    track = flat.reshape(int(trial.blocks) + 1, -1, 2)  # (n + 1, points, 2)
    finite = np.flatnonzero(np.isfinite(track).all(axis=(0, 2)))
    known = labels[labels.index.isin(finite)]
    classes = sorted(labels.unique())
    places = {c: c if max(classes) < len(HUES) else i for i, c in enumerate(classes)}
    shown = known.map(places) if len(known) else pd.Series(UNKNOWN, index=finite[:20])
    if not len(shown):
        axes.text(0.5, 0.5, "no finite tracks", transform=axes.transAxes, ha="center")
        return {}
    track = track[:, shown.index]
    colours = [_style(place)[0] for place in shown]
    lines = LineCollection(list(track.swapaxes(0, 1)), colors=colours, linewidths=0.7, alpha=0.7)
    axes.add_collection(lines)
    axes.plot(*track[1:-1].reshape(-1, 2).T, ".", color="0.3", markersize=2)
    axes.scatter(*track[0].T, s=16, c="white", edgecolors=colours, linewidths=0.9, zorder=3)
    ends = PathCollection(
        [_end(place) for place in shown], sizes=[26], facecolors=colours, edgecolors="white",
        linewidths=0.4, offsets=track[-1], offset_transform=axes.transData, zorder=4,
    )  # fmt: skip
    ends.set_transform(IdentityTransform())
    axes.add_collection(ends)
    low, high = track.min(axis=(0, 1)), track.max(axis=(0, 1))
    middle, half = (low + high) / 2, 0.55 * max((high - low).max(), 1e-6)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_aspect("equal")
    return dict(zip(shown, known, strict=True)) if len(known) else {}


def _style(place: int) -> tuple[str, str]:
    """The colour of a class and the marker at the ends of its tracks."""
    return ("0.25", "o") if place == UNKNOWN else (HUES[place], ENDS[place])


def _end(place: int) -> Path:
    marker = MarkerStyle(_style(place)[1])
    return marker.get_path().transformed(marker.get_transform())


def _legend(
    figure: Figure, classes: dict[int, set[int]], trials: pd.DataFrame, missing: list[int]
) -> None:
    """Explain the classes, the ends of tracks, and what titles leave out."""
    handles = []
    for place, labels in sorted(classes.items()):
        colour, marker = _style(place)
        look = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 0.9}
        handles.append(
            Line2D([], [], label=f"class {' or '.join(map(str, sorted(labels)))}", **look)
        )
    for label in missing:
        text = f"class {label}: not among\nthe first {POINTS} points"
        handles.append(Line2D([], [], linestyle="none", label=text))
    look = {"color": "0.35", "marker": "o", "linewidth": 0.8}
    handles.append(Line2D([], [], markerfacecolor="white", markersize=4, label="start", **look))
    handles.append(Line2D([], [], markersize=2, label="between blocks", **look))
    handles.append(Line2D([], [], markersize=5, label="end", **look))
    seeds = " or ".join(f"{seed:g}" for seed in sorted(trials.seed.unique()))
    notes = f"OTS: m = {panels.sizes(trials)}\nin brackets: before\ntraining\nseed {seeds}"
    handles.append(Line2D([], [], linestyle="none", label=notes))
    style.legend(figure, handles)
