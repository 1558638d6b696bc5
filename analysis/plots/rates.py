"""The effective learning rate of blocks during training."""

import numpy as np
from matplotlib.figure import Figure

from analysis.measures import cells
from analysis.plots import by_gamma, panels, scales, style
from analysis.results import Results

SHOWN = {
    "effective_rate": "effective learning rate",
    "effective_rate_others": "the same, other weights",
}


def rate_against_epoch(results: Results) -> Figure:
    """Effective learning rate of blocks against epoch, a panel per dataset, K, network and kind.

    Rates are those at the trial's highest learning rate: divided by the rate of the epoch's last
    step, times the highest. So what a schedule does to all lines alike is left out.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a line per gamma: the geometric mean over blocks, then the mean over seeds,
        which are drawn as in :mod:`analysis.plots.seeds`. On the left the weights that have no
        scale, because a normalisation follows; on the right the other weights of blocks. Axes are
        logarithmic and differ by panel. There is no baseline: before training there is no rate.
    """
    done = cells.done(results)
    epochs = results.epochs[["trial", "epoch", *SHOWN]].astype({"trial": "str"})
    epochs["last_rate"] = results.epochs.learning_rate.to_numpy()
    epochs = epochs.merge(done[[*panels.key_columns(done), "epochs_done"]], on="trial")
    highest = done[["trial", "learning_rate"]].rename(columns={"learning_rate": "highest"})
    epochs = epochs.merge(highest, on="trial")
    epochs[[*SHOWN]] = epochs[[*SHOWN]].mul(epochs.highest / epochs.last_rate, axis=0)
    epochs = epochs[(epochs.epoch > 0) & epochs[[*SHOWN]].notna().any(axis=1)]
    if not len(epochs):
        return style.nothing("no effective learning rate is known yet")
    fitting = panels.fitting(done[done.trial.isin(epochs.trial.unique())], thin=True)
    done = fitting.trials
    epochs = epochs.merge(done[["trial", "combination"]], on="trial")
    shown = {name: label for name, label in SHOWN.items() if epochs[name].notna().any()}
    if len(shown) == 1 and (name := "effective_rate_others") in shown:
        shown[name] = "effective learning rate, other weights"
    figure, places = panels.grid(fitting, shown, named=False)
    gammas = sorted(done.gamma.unique())
    some = panels.thinned(epochs)
    for axes, score, key in places:
        seen = by_gamma.lines(axes, panels.at(some, key), "epoch", score, gammas)
        axes.set_visible(bool(np.isfinite(seen).any()))
        scales.logarithmic(axes, seen)
        scales.whole_axis(axes, 0, epochs.epoch.max())
        panels.name_lowest(axes, "epoch (passes over the train split)")
    by_gamma.legend(figure, done, gammas, panels.seed_counts(done, epochs, shown))
    return figure


def has_rates(results: Results) -> bool:
    """Whether a trial that is done has an effective learning rate."""
    known = results.epochs[[*SHOWN]].notna().any(axis=1)
    return bool(results.epochs.trial[known].isin(cells.done(results).trial).any())
