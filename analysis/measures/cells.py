"""Cells of a sweep, their means and intervals.

A cell is a group of trials that differ only in their seed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.results import Results
from scoring.schemas import CONFIG
from scoring.tables import ARGUMENT

CELL = ["dataset", "stages", "layers", "network", "gamma"]
CONSTANT = 1e-12  # Treat values as constant when they vary by less than this share of the largest.


def done(results: Results) -> pd.DataFrame:
    """Trials that are done, with categories as strings. Means of scores use only these trials."""
    return as_strings(results.trials[results.trials.status == "done"])


def not_collapsed(results: Results) -> pd.DataFrame:
    """Trials that are done and have not collapsed."""
    trials = done(results)
    return trials[~trials.collapsed.eq(True)]


def as_strings(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert categories to strings, so that groupby makes no group for an absent category.

    The copy joins columns of one type, as pandas warns when many are apart.
    """
    texts = {str(name): frame[name].astype("str") for name in frame.select_dtypes("category")}
    return frame.assign(**texts).copy()  # astype would go through all columns


def varying(trials: pd.DataFrame) -> list[str]:
    """Columns of the configuration that take several values.

    The columns of :data:`CELL`, the seed and m are not among them: tables always show those.
    """
    left = {*CELL, "points", "architecture"}  # an architecture's name is that of its network
    names = [name for name in configuration(trials) if name not in left]
    # A null momentum says no more than the recipe, which has none.
    return [name for name in names if trials[name].nunique(dropna=name == "momentum") > 1]


def cell_columns(results: Results, points: bool = True) -> list[str]:
    """The columns that make a cell of a sweep: :data:`CELL`, and other settings that vary.

    Args:
        results: from :func:`analysis.results.load`.
        points: whether m, in the column ``points``, makes cells as well, as it does for scores
            that depend on it.
    """
    return columns_of_cell(results.trials, points)


def columns_of_cell(trials: pd.DataFrame, points: bool = True) -> list[str]:
    """:func:`cell_columns` of trials that are not all of a sweep's."""
    return [*CELL, *varying(trials), *(["points"] if points else [])]


def configuration(trials: pd.DataFrame) -> list[str]:
    """The columns of the configuration, with those of keyword arguments of architectures."""
    arguments = [str(name) for name in trials if str(name).startswith(ARGUMENT)]
    return [*(field.name for field in CONFIG if field.name != "model"), *arguments]


def gamma_meaning(trials: pd.DataFrame) -> str:
    """What gamma is: a coupled decay is an L2 penalty in the loss, a decoupled one is not."""
    decoupled = trials.decoupled.eq(True)
    if not decoupled.any():
        return "weight of the L2 penalty"
    return "decoupled weight decay" if decoupled.all() else "L2 penalty or decoupled decay"


def scored_images(trials: pd.DataFrame) -> str:
    """Which images of a data set scores, evaluations and predictions are of.

    >>> scored_images(pd.DataFrame({"split": ["train", "test", None]}))
    'test or train'
    """
    splits = sorted({*trials.split.astype("str").fillna("test")})
    return " or ".join(splits)


def other_settings(trials: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """For each trial the values of some columns as one text: ``epochs = 20, batch_size = 64``."""
    rows = trials.to_dict("records")
    return [", ".join(f"{name} = {row[name]}" for name in names) for row in rows]


def without_collapsed(frame: pd.DataFrame) -> pd.DataFrame:
    """Set OTS and gap of collapsed trials, or stages, to NaN, as far as the frame has them.

    When all points are equal, every matching costs the same, so a gap of 1 says nothing.
    """
    lost = frame.collapsed.eq(True)
    return frame.assign(
        **{name: frame[name].mask(lost) for name in ("ots", "gap") if name in frame}
    )


def one_of_each_seed(frame: pd.DataFrame, by: list[str], scores: Sequence[str]) -> pd.DataFrame:
    """The rows, or the means of those of each group and seed where a seed has several."""
    if "seed" not in frame or not frame.duplicated([*by, "seed"]).any():
        return frame
    return frame.groupby([*by, "seed"], observed=True, dropna=False)[[*scores]].mean().reset_index()


def mean_interval(frame: pd.DataFrame, by: list[str], scores: Sequence[str]) -> pd.DataFrame:
    """Means over the rows of each group, with the half-width of their 95% t-interval.

    Rows of one seed are one draw: the same networks that were scored at several m, for example. So
    they are averaged first, if the frame says which seed a row is of.

    Args:
        frame: rows to average, with ``seed`` or without. NaN is left out of a mean and of its n.
        by: columns that make a group.
        scores: columns to average.

    Returns:
        Frame indexed by ``by``; for each score its mean and ``<score>_ci95``, which is
        t(0.975, n - 1) s / sqrt(n), and NaN where n < 2 or where all values are equal: no spread
        between seeds is no evidence.
    """
    frame = one_of_each_seed(frame, by, scores)
    group = frame.replace([np.inf, -np.inf], np.nan).groupby(by, observed=True, dropna=False)
    means = frame.groupby(by, observed=True, dropna=False)[list(scores)].mean()
    n, deviation = group[list(scores)].count(), group[list(scores)].std()
    half = deviation * n**-0.5 * stats.t.ppf(0.975, np.where(n > 1, n - 1, np.nan))
    spread = deviation > CONSTANT * means.abs()
    return means.join(half.where(np.isfinite(means) & spread).add_suffix("_ci95"))
