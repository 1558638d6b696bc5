"""Whether a point's own line shape predicts that the network classifies it correctly."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.measures.association import adjusted
from analysis.measures.cells import CELL, not_collapsed, varying
from analysis.results import Results

STRATUM = ["dataset", "layers", "stages", "network"]
SCORES = ("lss", "lsr")
COLUMNS = ("trial", "stage", "label", "prediction", "lss", "lsr")  # columns of samples to read


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


def points(results: Results) -> pd.DataFrame:
    """How well a point's own LSS, or LSR, predicts that it is classified wrongly: see :func:`auc`.

    Args:
        results: from :func:`analysis.results.load`, with ``trials``, and with at least the columns
            :data:`COLUMNS` of ``samples``.

    Returns:
        Frame with one row per stratum, stage and score: ``cells``, ``trials`` behind them (done
        and not collapsed), ``left_out``, the trials without a wrong or without a correct point,
        ``m`` and ``wrong`` points of a trial (means over all of these trials; points that never
        move have no score and do not count), ``auc``, its mean over cells after averaging over
        seeds; ``low`` and ``high``, its 95% t-interval; ``p`` of the t-test against 0.5;
        ``p_adjusted`` (Benjamini and Hochberg) over the table. These tests ask whether other
        networks would give the same answer on the same points, not whether other points would.
    """
    cell = [*CELL, *varying(results.trials), "points"]
    trials = not_collapsed(results)[["trial", *cell]]
    samples = results.samples.loc[results.samples.trial.isin(trials.trial), list(COLUMNS)]
    samples = samples.dropna(subset=["label", "prediction"])
    rows: list[dict[str, Any]] = []
    for (trial, stage), part in samples.groupby(["trial", "stage"], observed=True):  # type: ignore
        wrong = (part.prediction != part.label).to_numpy()
        for score in SCORES:
            value = part[score].to_numpy("float64")
            known = ~np.isnan(value)
            row = {"trial": trial, "stage": stage, "score": score, "m": known.sum()}
            row |= {"wrong": wrong[known].sum(), "auc": auc(value[known], wrong[known])}
            rows.append(row)
    found = pd.DataFrame(rows, columns=["trial", "stage", "score", "m", "wrong", "auc"])
    found = found.astype({"trial": "str"}).merge(trials, on="trial")
    by = [*STRATUM, "stage", "score"]
    table = []
    found = found.sort_values(by[:-1], kind="stable")
    for key, group in found.groupby(by, dropna=False, sort=False):
        used = group[group.auc.notna()]
        means = used.groupby(cell, dropna=False).auc.mean().to_numpy()
        row = dict(zip(by, key, strict=True)) | {"cells": len(means), "trials": len(used)}  # type: ignore
        row |= {
            "left_out": len(group) - len(used),
            "m": group.m.mean(),
            "wrong": group.wrong.mean(),
        }
        table.append(row | _mean_auc(means))
    columns = [*by, "cells", "trials", "left_out", "m", "wrong", "auc", "low", "high", "p"]
    frame = pd.DataFrame(table, columns=columns)
    return frame.assign(p_adjusted=adjusted(frame.p))


def _mean_auc(cells: np.ndarray) -> dict[str, float]:
    """Mean over cells, its 95% t-interval within [0, 1], and the p value of the t-test."""
    if len(cells) < 2 or np.ptp(cells) < 1e-12:
        return {"auc": float(cells.mean()) if len(cells) else np.nan}
    test: Any = stats.ttest_1samp(cells, 0.5)
    low, high = np.clip(test.confidence_interval(0.95), 0, 1)
    return {"auc": float(cells.mean()), "low": low, "high": high, "p": test.pvalue}
