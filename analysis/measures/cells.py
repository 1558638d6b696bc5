"""Cells of a sweep (trials that differ in their seed alone), their means and intervals."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.results import Results
from scoring.schemas import CONFIG

CELL = ["dataset", "stages", "layers", "network", "gamma"]


def done(results: Results) -> pd.DataFrame:
    """Trials that are done, with categories as strings; no other trial enters any measure."""
    return as_strings(results.trials[results.trials.status == "done"])


def as_strings(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with strings for categories, so that groups are of the values that occur."""
    return frame.astype(dict.fromkeys(frame.select_dtypes("category"), "str"))


def varying(trials: pd.DataFrame) -> list[str]:
    """Columns of the configuration that take several values, without those of a cell, the
    seed, and m (always shown)."""
    names = [field.name for field in CONFIG]
    names = [n for n in names if n not in (*CELL, "points")]
    return [name for name in names if trials[name].nunique(dropna=False) > 1]


def without_collapsed(frame: pd.DataFrame) -> pd.DataFrame:
    """Trials or stages with NaN for the OTS and the gap of those that have collapsed.

    Any matching of equal points costs the same, so their gap of 1 says nothing.
    """
    lost = frame.collapsed.eq(True)
    return frame.assign(ots=frame.ots.mask(lost), gap=frame.gap.mask(lost))


def mean_interval(frame: pd.DataFrame, by: list[str], scores: Sequence[str]) -> pd.DataFrame:
    """Means over the rows of each group, with the half-width of their 95% t-interval.

    Args:
        frame: rows to average; NaN are left out of a mean, and of its n.
        by: columns that make a group.
        scores: columns to average.

    Returns:
        Frame indexed by ``by``; for each score its mean and ``<score>_ci95``, which is
        t(0.975, n - 1) s / sqrt(n), and NaN where n < 2.
    """
    group = frame.replace([np.inf, -np.inf], np.nan).groupby(by, observed=True, dropna=False)
    means = frame.groupby(by, observed=True, dropna=False)[list(scores)].mean()
    n, deviation = group[list(scores)].count(), group[list(scores)].std()
    half = deviation * n**-0.5 * stats.t.ppf(0.975, np.where(n > 1, n - 1, np.nan))
    return means.join(half.where(np.isfinite(means)).add_suffix("_ci95"))


def difference(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Mean of y less mean of x, with Welch's 95% interval; NaN where a side has one value.

    >>> difference(np.array([1.0, 2.0, 3.0]), np.array([4.0]))
    (2.0, nan, nan)
    """
    found = float(y.mean() - x.mean())
    if min(len(x), len(y)) < 2:
        return found, np.nan, np.nan
    if np.ptp(x) + np.ptp(y) <= 1e-12 * max(abs(x).max(), abs(y).max()):
        return found, found, found
    with warnings.catch_warnings():  # of a side whose values are all the same
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
    return found, float(low), float(high)
