"""Whether a point's own line shape predicts that the network classifies it correctly."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.measures.association import RESAMPLES, adjusted
from analysis.measures.cells import cell_columns, not_collapsed
from analysis.results import Results

STRATUM = ["dataset", "layers", "stages", "network"]
SCORES = ("lss", "lsr")
COLUMNS = ("trial", "stage", "point", "label", "prediction", "lss", "lsr")  # of samples, to read
FEWEST = 6  # With fewer seeds, a bootstrap over seeds would be too narrow.
BATCH = 2_000_000  # weights of points at a time
NOTHING = 1e-12  # A standard error below this is no spread at all.


def auc(score: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a wrong point has a larger score than a correct one; ties count half.

    This is Mann and Whitney's U divided by the number of couples; 0.5 if the score says nothing.

    Args:
        score: numbers of shape (m,), without NaN.
        wrong: booleans of shape (m,).

    Returns:
        Number in [0, 1]; NaN if no point is wrong, or if all are.

    >>> auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    0.875
    """
    n = int(wrong.sum())
    couples = n * (len(wrong) - n)
    if not couples:
        return np.nan
    return float((stats.rankdata(score)[wrong].sum() - n * (n + 1) / 2) / couples)


def influences(score: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """How much each point pulls the AUC, (m,): the AUC of a sample is about its mean plus the AUC.

    These are the components of DeLong et al. (1988, Biometrics 44, 837), centred: the share of the
    points of the other kind that a point is on the right side of, minus the AUC, over the share of
    points of its own kind. Arguments as of :func:`auc`, with points of both kinds.

    >>> influences(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    array([ 0.25, -0.25, -0.25,  0.25])
    """
    found = np.empty(len(score))
    ranks = stats.rankdata(score)
    for kind, sign in ((wrong, 1), (~wrong, -1)):
        below = ranks[kind] - stats.rankdata(score[kind])  # points of the other kind; ties half
        share = below / (~kind).sum()
        found[kind] = sign * (share - share.mean()) / kind.mean()
    return found


def points(results: Results) -> pd.DataFrame:
    """How well a point's own LSS, or LSR, predicts that it is classified wrongly: see :func:`auc`.

    Args:
        results: from :func:`analysis.results.load`, with ``trials``, and with at least the columns
            :data:`COLUMNS` of ``samples``.

    Returns:
        Frame with one row per stratum, stage and score: ``cells``, ``seeds``, ``trials`` behind
        them (done and not collapsed), ``left_out``, the trials without a wrong or without a correct
        point, ``m`` and ``wrong`` points of a trial (means over all of these trials; points that
        never move have no score and do not count), ``auc``, its mean over cells after averaging
        over seeds; ``low`` and ``high``, its 95% interval, and ``p`` against 0.5, see
        :func:`interval`; ``p_adjusted`` (Benjamini and Hochberg) over the table. The cells of a
        sweep have the same points and seeds, so they are no independent draws. These numbers
        ask whether other seeds on other points would give the same answer at the same gammas.
    """
    cell = cell_columns(results)
    trials = not_collapsed(results)[["trial", "seed", *cell]]
    trials = trials.assign(cell=trials.groupby(cell, dropna=False).ngroup())
    samples = results.samples.loc[results.samples.trial.isin(trials.trial), list(COLUMNS)]
    samples = samples.dropna(subset=["label", "prediction"]).astype({"trial": "str"})
    rows = []
    for key, members in trials.groupby(STRATUM, dropna=False):
        about = dict(zip(STRATUM, key, strict=True))  # type: ignore[call-overload]
        own = samples[samples.trial.isin(members.trial)]
        for stage, part in own.groupby("stage"):
            for score in SCORES:
                row = about | {"stage": stage, "score": score}
                rows.append(row | _row(members, list(_of_trials(part, score))))
    columns = [*STRATUM, "stage", "score", "cells", "seeds", "trials", "left_out", "m", "wrong"]
    frame = pd.DataFrame(rows, columns=[*columns, "auc", "low", "high", "p"])
    return frame.assign(p_adjusted=adjusted(frame.p))


def _of_trials(samples: pd.DataFrame, score: str) -> Iterator[dict[str, Any]]:
    """Yield the AUC of each trial, and how much each point pulls it, as a series."""
    for trial, part in samples[samples[score].notna()].groupby("trial"):
        wrong = (part.prediction != part.label).to_numpy()
        values = part[score].to_numpy("float64")
        row = {"trial": trial, "m": len(part), "wrong": wrong.sum(), "auc": auc(values, wrong)}
        if np.isfinite(row["auc"]):
            row["pull"] = pd.Series(influences(values, wrong), part.point.to_numpy())
        yield row


def _row(members: pd.DataFrame, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of one stratum, stage and score from those of its trials."""
    every = pd.DataFrame(found, columns=["trial", "m", "wrong", "auc", "pull"])
    every = every.merge(members[["trial", "seed", "cell"]], on="trial")
    used = every[every.auc.notna()]
    row = {"cells": used.cell.nunique(), "seeds": used.seed.nunique(), "trials": len(used)}
    row |= {"left_out": len(every) - len(used), "m": every.m.mean(), "wrong": every.wrong.mean()}
    if not len(used):
        return row | {"auc": np.nan}
    mean = float(used.groupby("cell").auc.mean().mean())
    m = len(set().union(*(pull.index for pull in used.pull)))
    # The AUC of a trial moves by a point's pull over the trial's own number of points, not over m.
    used = used.assign(pull=[pull * (m / len(pull)) for pull in used.pull])
    of_seeds = [
        (part.auc.mean(), pd.concat(part.pull.to_list(), axis=1).fillna(0).mean(axis=1))
        for _, part in used.groupby("seed", dropna=False)
    ]
    pulls = pd.concat([pull for _, pull in of_seeds], axis=1).fillna(0).to_numpy().T
    low, high, p = interval(mean, np.array([value for value, _ in of_seeds]), pulls)
    return row | {"auc": mean, "low": low, "high": high, "p": p}


def interval(
    mean: float, seeds: np.ndarray, pulls: np.ndarray, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """The 95% interval of a mean AUC over seeds and points, and its p value against 0.5.

    From 6 seeds on, seeds and points are resampled together, each independently of the other (Owen
    2007, Ann. Appl. Stat. 1, 386), with percentiles widened as for Student's t. With 2 to 5 seeds
    the interval is Student's over the seeds, with the variance over points added to the square of
    the standard error. If the seeds share their points, they would otherwise agree on an accident
    of these points. Both are wider than needed where points differ from seed to seed.

    Args:
        mean: the mean AUC.
        seeds: AUC of each seed, (s,), mean over its cells.
        pulls: how much each of m points pulls the AUC of each seed, (s, m): see
            :func:`influences`. If a trial has fewer points, those that it lacks have 0, and its own
            are multiplied by m over their number.
        resamples: of the bootstrap.

    Returns:
        ``low`` and ``high`` in [0, 1], and p from the t distribution with s - 1 degrees of freedom;
        NaN with one seed, or if neither seeds nor points differ.
    """
    s, m = pulls.shape
    if s < 2:
        return np.nan, np.nan, np.nan
    if s < FEWEST:
        drawn = np.zeros(0)
        error = float(np.sqrt(seeds.var(ddof=1) / s + pulls.mean(axis=0).var() / m))
    else:
        drawn = _resampled(seeds - seeds.mean(), pulls, resamples)
        error = float(drawn.std() * np.sqrt(s / (s - 1)))
    if error < NOTHING:
        return np.nan, np.nan, np.nan
    t = stats.t(s - 1)
    if len(drawn):
        tail = stats.norm.cdf(t.ppf(0.025) * np.sqrt(s / (s - 1)))
        low, high = mean + np.quantile(drawn, [tail, 1 - tail])
    else:
        low, high = mean + t.ppf(0.975) * error * np.array([-1, 1])
    return max(low, 0.0), min(high, 1.0), float(2 * t.sf(abs(mean - 0.5) / error))


def _resampled(seeds: np.ndarray, pulls: np.ndarray, resamples: int) -> np.ndarray:
    """Deviations of the mean AUC in resamples of seeds and of points, (resamples,)."""
    s, m = pulls.shape

    def statistic(of_seeds: np.ndarray, of_points: np.ndarray, axis: int) -> np.ndarray:
        pulled = _counts(of_points, m) @ pulls.T / m  # (r, s)
        return (_counts(of_seeds, s) * (seeds + pulled)).sum(axis=1) / s

    return stats.bootstrap(
        (np.arange(s), np.arange(m)),
        statistic,
        n_resamples=resamples,
        batch=max(BATCH // m, 1),
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).bootstrap_distribution


def _counts(drawn: np.ndarray, n: int) -> np.ndarray:
    """How often each of n things is in each resample: (r, n) indices -> (r, n)."""
    r = len(drawn)
    places = (drawn + n * np.arange(r)[:, None]).ravel()
    return np.bincount(places, minlength=n * r).reshape(r, n).astype("float64")
