"""Separation of classes and effective rank of every state, block by block."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.measures import cells
from analysis.plots import by_gamma, panels, scales, style
from analysis.plots.style import INITIAL
from analysis.results import Results

SHOWN = {"fuzziness": "fuzziness D of classes", "effective_rank": "effective rank (dimensions)"}


def states_by_block(results: Results) -> Figure:
    """Separation fuzziness and effective rank against the state, a panel per dataset, K, network.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a line per gamma after training, broken between stages: the mean over seeds,
        which are drawn as in :mod:`analysis.plots.seeds`. Dotted: the same networks before
        training. The axes of D are logarithmic, so the law of separation (He and Su 2023) is a
        straight line. Axes differ by panel.
    """
    done = cells.done(results)
    states = _states(results.tracks, done)
    if not len(states):
        return style.nothing("no spread of states is known yet")
    shown = panels.fitting(done[done.trial.isin(states.trial.unique())])
    done = shown.trials
    states = states[states.trial.isin(done.trial)]
    figure, places = panels.grid(shown, SHOWN)
    gammas = sorted(done.gamma.unique())
    after, before = states[states.epoch == states.epochs_done], states[states.epoch == 0]
    for axes, score, key in places:
        here, first = panels.at(after, key), panels.at(before, key)
        axes.set_visible(len(here) > 0)
        seen: list[float] = []
        for stage, rows in here.groupby("stage"):
            seen += by_gamma.lines(axes, rows, "state", score, gammas)
            initial = first[first.stage == stage].groupby("state")[score].mean()
            axes.plot(initial.index, initial, linestyle=":", label=INITIAL, **style.BASELINE)
            seen += [*initial]
        if score == "fuzziness":
            scales.logarithmic(axes, seen)
        else:
            scales.from_zero(axes, seen)
        if len(here):
            scales.whole_axis(axes, 0, here.state.max())
        panels.name_lowest(axes, "state, through all stages")
    counts = panels.seed_counts(done, after, SHOWN)
    by_gamma.legend(figure, done, gammas, counts, {f"same network\n{INITIAL}": ":"})
    return figure


def has_states(results: Results) -> bool:
    """Whether a trial that is done has the spread of its states."""
    known = results.tracks.trial[results.tracks.fuzziness.notna()]
    return bool(known.isin(cells.done(results).trial).any())


def _states(tracks: pd.DataFrame, done: pd.DataFrame) -> pd.DataFrame:
    """A row per trial, epoch, stage and state, numbered through all stages of its network."""
    rows = tracks[["trial", "epoch", "stage", *SHOWN]].dropna(subset=[*SHOWN])
    lengths = rows[[*SHOWN]].map(len)
    rows = rows[(lengths.nunique(axis=1) == 1) & (lengths.fuzziness > 0)]  # else not ours
    rows = rows.astype({"trial": "str"}).sort_values(["trial", "epoch", "stage"])
    if not len(rows):
        return rows
    sizes = rows.fuzziness.map(len)
    before = sizes.groupby([rows.trial, rows.epoch]).cumsum() - sizes
    rows = rows.assign(state=[np.arange(n) + b for n, b in zip(sizes, before, strict=True)])
    rows = rows.explode([*SHOWN, "state"])
    rows = rows.astype(dict.fromkeys(SHOWN, "float64") | {"state": "int64"})
    columns = [*panels.key_columns(done), "epochs_done"]
    return rows.merge(done[columns], on="trial")
