"""Tests of means over seeds. No spread between seeds is no evidence: there is no test then."""

import numpy as np
import pandas as pd
from scipy import special

from analysis.measures.cells import CONSTANT

Tested = tuple[float, float, float]  # the mean, the half-width of its 95% interval, and p


def student(values: np.ndarray, limit: float = 0, scale: float | None = None) -> Tested:
    """Mean of some numbers with Student's interval, and the two-sided p of a limit as the truth.

    Args:
        values: numbers of shape (n,), n > 0.
        limit: the mean under the null hypothesis.
        scale: size of the numbers that these are differences of; by default their own size. Values
            that differ by no more than rounding at this size count as constant.

    Returns:
        The mean, the half-width of its 95% interval, and p. The last two are NaN if n = 1, or if
        the values are constant or not all finite.

    >>> student(np.array([1.0, 1.0, 1.0]))
    (1.0, nan, nan)
    >>> student(np.array([1.0, np.inf]))
    (inf, nan, nan)
    """
    with np.errstate(invalid="ignore"):  # infinity less infinity
        mean = float(values.mean())
    if not np.isfinite(mean):
        return mean, np.nan, np.nan
    size = float(abs(values).max()) if scale is None else scale
    if np.ptp(values) <= CONSTANT * size:  # also if there is only one
        return mean, np.nan, np.nan
    error = float(values.var(ddof=1) / len(values)) ** 0.5
    if error == 0:  # too small for a float
        return mean, np.nan, np.nan
    return mean, *_tested(mean - limit, error, len(values) - 1)


def welch(x: np.ndarray, y: np.ndarray, least: float = 0) -> Tested:
    """Mean of y minus mean of x with Welch's interval, and the two-sided p of ``least``.

    Args:
        x: numbers of shape (n,), n > 0.
        y: numbers of shape (k,), k > 0.
        least: the difference under the null hypothesis.

    Returns:
        The difference, the half-width of its 95% interval, and p. The last two are NaN if a side
        has one number or one that is not finite, or if both sides are constant.

    >>> welch(np.array([1.0, 2.0, 3.0]), np.array([4.0]))
    (2.0, nan, nan)
    >>> welch(np.array([1.0, np.inf]), np.array([4.0, np.inf]))
    (nan, nan, nan)
    """
    with np.errstate(invalid="ignore"):  # infinity less infinity
        change = float(y.mean() - x.mean())
    if not np.isfinite(change):
        return change, np.nan, np.nan
    constant = np.ptp(x) + np.ptp(y) <= CONSTANT * max(abs(x).max(), abs(y).max())
    if constant or min(len(x), len(y)) < 2:
        return change, np.nan, np.nan
    first, second = (float(side.var(ddof=1)) / len(side) for side in (x, y))
    if first + second == 0:  # too small for a float
        return change, np.nan, np.nan
    share = first / (first + second)
    freedom = 1 / (share**2 / (len(x) - 1) + (1 - share) ** 2 / (len(y) - 1))
    return change, *_tested(change - least, (first + second) ** 0.5, freedom)


def _tested(change: float, error: float, freedom: float) -> tuple[float, float]:
    """Half-width of a 95% interval and two-sided p, by Student's distribution.

    :mod:`scipy.stats` has these tests too, but takes ten times as long for a few numbers.
    """
    half = error * special.stdtrit(freedom, 0.975)
    return float(half), float(2 * special.stdtr(freedom, -abs(change) / error))


def over_seeds(trials: pd.DataFrame, column: str, cell: list[str]) -> tuple[float, float]:
    """Mean of a column over trials, with the half-width of its 95% interval over seeds.

    Trials of one seed share weights and order of data. So each seed gives one number, the mean over
    its trials, and the interval is Student's over these.

    Args:
        trials: with ``seed`` and the columns of the cell.
        column: numbers.
        cell: the columns that make a cell, from :func:`analysis.measures.cells.cell_columns`.

    Returns:
        The mean, and the half-width: NaN with one seed, if all seeds give the same or one gives no
        finite number, or if some cell lacks a seed, because then seeds are of different cells, and
        differ because of that.

    >>> frame = pd.DataFrame({"seed": [0, 0, 1, 1], "gamma": [0, 1, 0, 1], "x": [1.0, 2, 2, 3]})
    >>> [round(number, 2) for number in over_seeds(frame, "x", ["gamma"])]
    [2.0, 6.35]
    >>> over_seeds(frame[1:3], "x", ["gamma"])
    (2.0, nan)
    """
    _, half, _ = student(trials.groupby("seed")[column].mean().to_numpy("float64"))
    seeds = trials.groupby(cell, observed=True, dropna=False).seed.nunique()
    whole = (seeds == trials.seed.nunique()).all()
    return float(trials[column].mean()), half if whole else np.nan
