"""When a search gives a cell no more seeds: it is clearly worse than the best finished cell.

Cells are compared by the same seeds, so what a seed does to all cells cancels out. The noise that
is left is estimated from all finished cells together, in a layout of cells by seeds with both
effects taken out. That allows a comparison after a single seed.
"""

from typing import NamedTuple

import numpy as np

LEVEL = 0.95  # one-sided: of cells that are as good as the best, one look stops one in twenty


class Verdict(NamedTuple):
    """A cell that is clearly worse than a finished one."""

    better: int  # the row of the finished cell
    estimate: np.ndarray  # (k,), what the means of the cell over all seeds would be


def clearly_worse(cell: np.ndarray, finished: np.ndarray, level: float = LEVEL) -> Verdict | None:
    """Whether a cell is worse than one of the best finished cells, beyond the noise of seeds.

    With s seeds of the cell, the mean difference to the finished cell over these seeds is d. Its
    optimistic bound is d + t sqrt(2 / s) σ, where σ² is :func:`noise` and t the quantile of
    Student's distribution with its degrees of freedom. The cell is clearly worse if the bound is
    negative, in every objective if there are several.

    Args:
        cell: values (s, k) of k objectives with the first s seeds, larger is better.
        finished: values (c, n, k) of c cells with all n seeds. Those whose means no other
            dominates are the best ones; with one objective that is the one with the highest mean.
        level: how certain the bound is, below 1.

    Returns:
        The first finished cell that it is clearly worse than, with an estimate of its own means:
        those of the finished cell plus d. None if there is none, or too few cells are finished.

    >>> finished = np.array([[0.90, 0.92, 0.91], [0.80, 0.83, 0.81]])[..., None]
    >>> clearly_worse(np.array([[0.70]]), finished).better
    0
    >>> clearly_worse(np.array([[0.895]]), finished) is None
    True
    """
    known, seeds = finished.shape[:2]
    freedom = (known - 1) * (seeds - 1)
    if freedom < 1 or not len(cell):
        return None
    from scipy.stats import t  # takes a moment to load

    slack = t.ppf(level, freedom) * np.sqrt(2 / len(cell) * noise(finished))  # (k,)
    means = finished.mean(axis=1)  # (c, k)
    for best in np.flatnonzero(_undominated(means)):
        worse = (cell - finished[best, : len(cell)]).mean(axis=0)  # (k,)
        if (worse + slack < 0).all():
            return Verdict(int(best), means[best] + worse)
    return None


def noise(finished: np.ndarray) -> np.ndarray:
    """Variance of a value around the effects of its cell and of its seed, for each objective.

    Args:
        finished: values (c, n, k) of c cells with n seeds each, both at least 2.

    Returns:
        Variances (k,), with (c - 1) (n - 1) degrees of freedom.
    """
    rest = finished - finished.mean(axis=1, keepdims=True)
    rest = rest - rest.mean(axis=0, keepdims=True)
    return (rest**2).sum(axis=(0, 1)) / ((len(finished) - 1) * (finished.shape[1] - 1))


def _undominated(means: np.ndarray) -> np.ndarray:
    """Which rows of (c, k) no other row reaches everywhere and exceeds somewhere."""
    as_good = (means[:, None] >= means).all(axis=-1)  # (c, c): row's against column's
    better = (means[:, None] > means).any(axis=-1)
    return np.logical_not((as_good & better).any(axis=0))
