"""LSS against epoch, scores against gamma (the forms of the paper's Figs 2 and 4), OTS against m.

Every panel of LSS or OTS shows its baselines: the value before training, sqrt(n) and 1/m.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.measures import cells
from analysis.measures.cells import without_collapsed
from analysis.plots import by_gamma, panels, scales, seeds, style
from analysis.plots.style import INITIAL, SHUFFLED
from analysis.results import Results
from scoring.tables import ARGUMENT

FACTORS = ("straightness_factor", "transport_factor")  # of the geodesic excess
OTS = "OTS (fraction, m = {m})"
LINE = ["layers", "stages", "network"]


def lss_against_epoch(results: Results) -> Figure:
    """LSS against epoch, in the form of Fig. 2: a panel per dataset, K and network.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a line per gamma: the mean LSS over points and stages, then over seeds, which
        are drawn as in :mod:`analysis.plots.seeds`. Of many epochs about 100 are drawn. Many
        gammas have thin lines and a colour bar. Baselines in every panel: the mean value before
        training (dotted), sqrt(n) (dashed), and 1 (solid), or a note that it lies below. Axes of
        LSS differ by panel. A note says if the epochs between have fewer points than the ends.
    """
    return _against_epoch(results, "lss", "LSS (dimensionless)")


def factor_against_epoch(results: Results) -> Figure:
    """The straightness factor of the geodesic excess against epoch, as :func:`lss_against_epoch`.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a panel per dataset, K and network, and a line per gamma: the geometric mean
        over stages, then the mean over seeds. Baselines: before training (dotted), n (dashed)
        and 1, as in :func:`lss_against_epoch`.
    """
    return _against_epoch(results, "straightness_factor", "straightness factor")


def _against_epoch(results: Results, score: str, label: str) -> Figure:
    done = cells.done(results)
    if not len(done):
        return style.nothing()
    shown = panels.fitting(done, thin=True)
    done = shown.trials
    epochs = results.epochs[["trial", "epoch", score]].astype({"trial": "str"})
    columns = [*panels.key_columns(done), "epochs_done", "combination"]
    epochs = epochs.merge(done[columns], on="trial")
    notes = filter(None, [shown.note, panels.points_note(done)])
    figure, places = panels.grid(shown._replace(note=" ".join(notes)), {score: label})
    gammas = sorted(done.gamma.unique())
    some = panels.thinned(epochs)
    for axes, _, key in places:
        seen = by_gamma.lines(axes, panels.at(some, key), "epoch", score, gammas)
        seen += style.line_baselines(axes, panels.at(done, key), seen, score)
        scales.limit(axes, seen, log=False)
        scales.whole_axis(axes, 0, epochs.epoch.max())
        panels.name_lowest(axes, "epoch (passes over the train split)")
    by_gamma.legend(figure, done, gammas, panels.seed_counts(done, epochs, [score]))
    return figure


def ots_against_m(results: Results) -> Figure:
    """OTS and gap of the first m points alone against m: a panel per dataset, K and network.

    OTS falls as m grows, so it is comparable at equal m only. The paper never states its m.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a line per gamma: the mean score after training over stages, then over
        seeds, which are drawn as in :mod:`analysis.plots.seeds`. Lines are shifted a little
        sideways, because many of them are equal. Baselines in every panel: the same
        networks before training (dotted), and 1/m (dashed, OTS). Collapsed trials are left
        out, and the title of their panel names their gammas. Axes differ by panel.
    """
    done = cells.done(results)
    scores = _by_m(results.tracks, done)
    if not len(scores):
        return style.nothing("no assignment of fewer points is known yet")
    shown = panels.fitting(done[done.trial.isin(scores.trial.unique())])
    done = shown.trials
    scores = scores[scores.trial.isin(done.trial)]
    labels = {"ots": "OTS (fraction)", "gap": "gap (dimensionless)"}
    figure, places = panels.grid(shown, labels, named=False)
    gammas = sorted(done.gamma.unique())
    ended = scores[scores.epoch == scores.epochs_done]
    for axes, score, key in places:
        here = panels.at(scores, key)
        axes.set_visible(len(here) > 0)
        if not len(here):
            continue
        after, before = panels.at(ended, key), here[here.epoch == 0]
        seen = by_gamma.lines(axes, after, "m", score, gammas, dodge=True)
        initial = before.groupby("m")[score].mean()
        axes.plot(initial.index, initial, linestyle=":", label=INITIAL, **style.BASELINE)
        scales.points_axis(axes, sorted(here.m.unique()))
        scales.limit_share(axes, [*seen, *initial], to=0 if score == "ots" else 1)
        if score == "ots":
            m = np.geomspace(*axes.get_xlim(), 50)
            axes.plot(m, 1 / m, linestyle="--", label="1/m", **style.BASELINE)
        panels.name_lowest(axes, "m (points)")
        lost = sorted(after.gamma[after.collapsed.eq(True)].unique())
        if lost:
            names = ", ".join(f"{gamma:g}" for gamma in lost[:4])
            names += ", …" if len(lost) > 4 else ""
            style.title(axes, f"{axes.get_title()}\ncollapsed: γ = {names}")
    baselines = {f"same network\n{INITIAL}": ":", "1/m, a random\nmatching": "--"}
    by_gamma.legend(figure, done, gammas, panels.seed_counts(done, ended, labels), baselines)
    return figure


def _by_m(tracks: pd.DataFrame, done: pd.DataFrame) -> pd.DataFrame:
    """A row per trial, epoch and m with ``ots`` and ``gap``, where assignments were solved.

    They are means over stages, and NaN where a stage has collapsed, as is the trial's own OTS.
    """
    lists = {"prefix_m": "m", "prefix_ots": "ots", "prefix_gap": "gap"}
    solved = tracks.dropna(subset=[*lists]).astype({"trial": "str"})
    sizes = np.array([[len(own) for own in solved[name]] for name in lists])
    solved = solved[(sizes == sizes[0]).all(axis=0)]
    rows = solved[["trial", "epoch", "collapsed", *lists]].explode([*lists]).rename(columns=lists)
    rows = without_collapsed(rows.astype({"m": "int64", "ots": "float64", "gap": "float64"}))
    groups = rows.groupby(["trial", "epoch", "m"])[["ots", "gap"]]
    means = groups.mean().where(groups.count().eq(groups.size(), axis=0))
    columns = [*panels.key_columns(done), "epochs_done", "collapsed"]
    return means.reset_index().merge(done[columns], on="trial")


def scores_against_gamma(results: Results) -> Figure:
    """Accuracies, LSS and OTS against gamma, in the form of Fig. 4: a line per network and K.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with four panels per dataset, or a row of four per combination of other settings if
        there are more than three of these. Points are means over seeds, which are drawn as in
        :mod:`analysis.plots.seeds`. The marker tells K. Baselines: each network before training
        (dotted, a dark shade of its colour), the OTS of its shuffled displacements (dash-dotted),
        sqrt(n) and 1/m (dashed). OTS is comparable at equal m only, so the axis names m.
    """
    accuracies = ("clean_train_accuracy", "test_accuracy")
    shown = {name: f"{name.replace('_', ' ')} (fraction)" for name in accuracies}
    return _against_gamma(results, shown | {"lss": "LSS (dimensionless)", "ots": OTS})


def factors_against_gamma(results: Results) -> Figure:
    """The two factors of the geodesic excess against gamma: a line per network and K.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with two panels per dataset, in the form of :func:`scores_against_gamma`: the
        straightness factor with n (dashed) and the transport factor. Dotted: before training.
    """
    shown = {name: f"{name.replace('_', ' ')} (1: geodesic)" for name in FACTORS}
    return _against_gamma(results, shown, "random: n")


def _against_gamma(
    results: Results, shown: dict[str, str], random: str = "random: √n, 1/m"
) -> Figure:
    """A row of panels per dataset, one for each score; four panels of one dataset in two rows.

    Up to three combinations of other settings have lines of their own, more have rows. In a search
    there is a point for each.
    """
    done = without_collapsed(cells.done(results))
    if not len(done):
        return style.nothing()
    fitting = panels.fitting(done, thin=True, curves=True)
    done = fitting.trials
    rest = [n for n in fitting.extra if n not in panels.APART and not n.startswith(ARGUMENT)]
    many = len(done[rest].drop_duplicates()) > panels.SPLIT if rest else False
    split = ["dataset", *(rest if many else [])]
    places = panels.distinct(done, split)
    by = [*LINE, *(n for n in fitting.extra if n not in split)]
    lines = panels.distinct(done, by)
    shuffled = "ots" in shown and bool(done.ots_shuffled.notna().any())
    handles = _handles(lines, by, random, shuffled)
    drawn = [*handles, *seeds.handles(panels.seed_counts(done, done, shown), of_bars=True)]
    gammas = sorted(done.gamma.unique())
    wide, count = len(places) > 1, len(shown)
    longest = max(len(line) for key in drawn for line in str(key.get_label()).split("\n"))
    columns = max(1, min(4, int((13.0 if wide else 9.6) / (0.5 + 0.075 * longest))))
    figure, grid = style.sheet(
        len(places) if wide else count // 2, count if wide else 2,
        (2.4, 2.0) if wide and count > 2 else (3.5, 2.2),
        gaps=(1.25, 0.75), top=0.3, beside=0.85, below=0.35 + 0.22 * -(-len(drawn) // columns),
        note=fitting.note,
    )  # fmt: skip
    grid = grid.ravel()
    for i, place in enumerate(places):
        trials = panels.at(done, place)
        name = ", ".join([panels.data_name(place["dataset"]), *panels.settings(place, split[1:])])
        for j, (score, label) in enumerate(shown.items()):
            axes = grid[count * i + j]
            seen = style.random_baselines(axes, score, trials)
            for k, (key, line) in enumerate(zip(lines, handles, strict=False)):
                shift = 0.08 * (k - (len(lines) - 1) / 2)
                seen += _line(axes, score, panels.at(trials, key), gammas, shift, line)
            axes.set_ylabel(label.format(m=panels.sizes(trials)))
            if not many and (wide or j == 0):
                style.title(axes, name, "left")
            elif j == 0:
                axes.set_title(name, fontsize=9, loc="left", y=1)  # as wide as the row
            axes.set_xlabel(f"γ ({cells.gamma_meaning(done)})")
            scales.gamma_axis(axes, gammas, log=len(gammas) > panels.MANY)
            if score in ("lss", *FACTORS):
                scales.limit(axes, seen, log=True)
            elif score == "ots":
                axes.set_ylim(-0.04, 1.06)
            else:
                low, high = axes.get_ylim()
                axes.set_ylim(max(low, 0), min(high, 1.01))
    figure.legend(handles=drawn, loc="lower center", ncols=columns, fontsize=9, frameon=False)
    return figure


def _handles(lines: list[dict], by: list[str], random: str, shuffled: bool) -> list[Line2D]:
    """Lines for the legend: one for each network, K and other setting, and the baselines.

    K and other settings differ in how faint their lines are.
    """
    others = [n for n in by if n != "network" and len({key[n] for key in lines}) > 1]
    kinds = list(dict.fromkeys(tuple(key[n] for n in others) for key in lines))
    handles = []
    for key in lines:
        look = style.network_style(key["network"], key["stages"])
        faint = kinds.index(tuple(key[n] for n in others)) / len(kinds)
        label = panels.name(key, [n for n in others if n != "stages"])
        handles.append(Line2D([], [], label=label, alpha=1 - 0.8 * faint, **look))
    handles.append(style.baseline_handle(f"same network {INITIAL}", ":"))
    handles.append(style.baseline_handle(random, "--"))
    if shuffled:
        handles.append(style.baseline_handle(f"OTS {SHUFFLED}", "-."))
    return handles


def _line(
    axes: Axes, score: str, trials: pd.DataFrame, gammas: list[float], shift: float, line: Line2D
) -> list[float]:
    """Draw a score's means with bars and its value before training, and return all heights."""
    if not len(trials):
        return []
    look = style.network_style(trials.network.iloc[0], int(trials.stages.iloc[0]))
    look |= {"alpha": line.get_alpha(), "label": line.get_label()}
    mean = seeds.averaged(trials, ["gamma", "combination"], score)
    along = mean.index.get_level_values("gamma")
    x = [gammas.index(g) + shift if len(gammas) <= panels.MANY else g for g in along]
    scattered = len(gammas) > panels.MANY or trials.combination.nunique() > 1
    if scattered:  # a search: each gamma has few trials, so a line would zigzag
        look |= {"linestyle": "none", "markersize": 3.5}
    seeds.bars(axes, x, mean, look)
    if score == "ots":
        means = trials.groupby(["gamma", "combination"]).ots_shuffled.mean().reindex(mean.index)
        own = style.shuffled_style(look["color"]) | {"alpha": look["alpha"]}
        if scattered:
            own |= {"linestyle": "none", "marker": "_", "markersize": 4}
        axes.plot(x, means.to_numpy("float64"), label=SHUFFLED, **own)
    before = style.ends(trials, f"{score}_initial") if f"{score}_initial" in trials else []
    for height in before:
        if np.isfinite(height):
            own = style.initial_style(look["color"]) | {"alpha": look["alpha"]}
            axes.axhline(height, label=INITIAL, **own)
    return [*mean["mean"], *before]
