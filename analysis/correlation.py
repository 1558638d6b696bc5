"""Do a sweep's scores go with how well its networks work? Network by network, point by point.

    python -m analysis.correlation runs/demo
    python -m analysis.correlation runs/demo --table points --format csv

Table "correlations": each score of the networks against their test accuracy. Table "points": a
point's own score against whether the network has it right. Neither says that one causes the other.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.results import Results, ResultsError, load
from analysis.tables import CELL, HEADINGS, as_text, varying

OUTCOMES = ("test_accuracy",)
SCORES = ("lss", "inverse_lss", "lsr", "ots", "gap", "energy")
SAME_M = ("ots", "gap")  # compare at equal m only
METHODS = ("spearman", "pearson", "kendall")
STRATUM = ["dataset", "layers", "stages", "network"]
SMALL = 10  # cells: below this a correlation is not worth a conclusion
RESAMPLES = 2000  # of a bootstrap and of a permutation test
DRAWS = 1_000_000  # of a bootstrap, at most: above 500 pairs it has fewer resamples
BATCH = 100_000  # draws at a time: they stay in the processor's cache
PERMUTED = 50  # pairs above which Kendall's p comes from a normal distribution
COLUMNS = ("trial", "stage", "label", "prediction", "lss", "lsr")  # of samples: see points()
POINT_SCORES = ("lss", "lsr")


def association(
    x: np.ndarray,
    y: np.ndarray,
    strata: np.ndarray | None = None,
    method: str = "spearman",
    resamples: int = RESAMPLES,
) -> dict[str, float]:
    """Correlation of two columns, or their partial correlation given strata.

    Given strata, differences between them count for nothing. Spearman's takes the mean of each
    stratum off the ranks, which are over all pairs; Pearson's takes it off the numbers;
    Kendall's is tau-b over the couples of pairs that lie in one stratum: concordant minus
    discordant, over the geometric mean of those not tied in x and of those not tied in y.

    The interval holds percentiles over resampled pairs, for Pearson's expanded ones (Hesterberg
    2015, arXiv:1411.5279). Of 1000 bivariate normal samples for each n from 9 to 40 and each
    correlation from 0 to 0.9, it covered the truth in 94% to 98%; Pearson's plain percentiles
    did in 89% to 94%, BCa in 91% to 95%. With n = 5 no interval is to be relied on.

    Args:
        x: numbers of shape (n,). A pair with a NaN or an infinity is left out.
        y: numbers of shape (n,).
        strata: labels of shape (n,), or None where there is one stratum.
        method: spearman, pearson or kendall (tau-b).
        resamples: of the bootstrap (fewer with more than 500 pairs) and of the permutation test.

    Returns:
        ``n`` pairs used; ``value`` in [-1, 1], NaN with n < 3, or where x or y is constant in
        every stratum; ``low`` and ``high``, its 95% interval; ``p``, two-sided: the share of
        permutations within strata that are as far from 0 (for Kendall's with n > 50, that
        distribution's normal limit). Both are NaN with n < 4. For these bounds a stratum beyond
        the first takes one off n. The same numbers each time.

    Raises:
        ValueError: there is no such method.

    >>> found = association(np.arange(6.0), np.array([1, 2, 3, 4, 6, 5]))
    >>> round(found["value"], 3), round(found["p"], 2)
    (0.943, 0.02)
    """
    return _associations(x, y, strata, (method,), resamples)[method]


class Pairs(NamedTuple):
    """Pairs of numbers that are all finite, in the order of their strata."""

    x: np.ndarray  # (n,)
    y: np.ndarray  # (n,)
    blocks: list[slice]  # the pairs of each stratum


Coefficients = Callable[[np.ndarray], np.ndarray]


def _associations(
    x: np.ndarray,
    y: np.ndarray,
    strata: np.ndarray | None,
    methods: Sequence[str],
    resamples: int,
) -> dict[str, dict[str, float]]:
    """:func:`association` by each of several methods, from the same resamples."""
    if unknown := set(methods) - set(METHODS):
        raise ValueError(f"method {unknown.pop()!r}; should be one of {', '.join(METHODS)}")
    pairs = _pairs(x, y, strata)
    n = len(pairs.x)
    free = n - max(len(pairs.blocks) - 1, 0)
    found = {
        method: {"n": n, "value": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
        for method in methods
    }
    if free < 3 or not all(any(np.ptp(v[b]) for b in pairs.blocks) for v in pairs[:2]):
        return found
    coefficients = _coefficients(pairs, methods)
    values = coefficients(np.ones((n, 1)))[:, 0]
    drawn = _bootstrapped(coefficients, n, resamples) if free >= 4 else None
    for i, (method, row) in enumerate(found.items()):
        row["value"] = float(np.clip(values[i], -1, 1))
        if drawn is not None:
            tail = 0.025
            if method == "pearson":  # as wide as Student's t asks for
                tail = float(stats.norm.cdf(stats.t.ppf(tail, n - 1) * np.sqrt(n / (n - 1))))
            low, high = np.clip(np.nanquantile(drawn[i], [tail, 1 - tail]), -1, 1)
            row |= {"low": float(low), "high": float(high), "p": _p_value(pairs, method, resamples)}
    return found


def _pairs(x: np.ndarray, y: np.ndarray, strata: np.ndarray | None) -> Pairs:
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    labels = np.zeros(len(x)) if strata is None else np.asarray(strata)
    finite = np.isfinite(x) & np.isfinite(y)
    stratum = np.unique(labels[finite], return_inverse=True)[1]
    order = np.argsort(stratum, kind="stable")
    sizes = np.bincount(stratum).tolist()
    blocks = [slice(end - k, end) for k, end in zip(sizes, np.cumsum(sizes), strict=True)]
    return Pairs(x[finite][order], y[finite][order], blocks)


def _coefficients(pairs: Pairs, methods: Sequence[str]) -> Coefficients:
    """A function from resamples to their coefficients by each method.

    It takes weights of shape (n, r), how often pair i is in resample j, and gives an array of
    shape (methods, r), NaN where a resample has x or y constant in every stratum.
    """
    x, y, blocks = pairs
    sign_x, sign_y = _signs(x), _signs(y)
    agree = [sign_x[block, block] * sign_y[block, block] for block in blocks]
    a, b = (_centred(v[:, None], np.ones((len(v), 1)), blocks) for v in (x, y))
    a, b = (v / np.sqrt(np.mean(v**2)) for v in (a, b))

    def pearson(w: np.ndarray) -> np.ndarray:
        return _product_moment(a, b, w, blocks)

    def spearman(w: np.ndarray) -> np.ndarray:
        light = w.astype("float32")  # in which sums of signs are exact
        ranks = [(sign @ light).astype("float64") for sign in (sign_x, sign_y)]
        return _product_moment(ranks[0], ranks[1], w, blocks)  # twice the rank, less a constant

    def kendall(w: np.ndarray) -> np.ndarray:
        couples, of_x, of_y = np.zeros((3, w.shape[1]))
        for block, signs in zip(blocks, agree, strict=True):
            inside = w[block]
            couples += np.einsum("ij,ij->j", inside, (signs @ inside.astype("float32")))
            of_x += _untied(x[block], inside)
            of_y += _untied(y[block], inside)
        return couples / np.sqrt(np.where(of_x * of_y > 0, of_x * of_y, np.nan))

    known = {"pearson": pearson, "spearman": spearman, "kendall": kendall}
    return lambda w: np.stack([known[method](w) for method in methods])


def _signs(x: np.ndarray) -> np.ndarray:
    """Of x_i - x_j, shape (n, n), float32."""
    return np.sign(x[:, None] - x).astype("float32")


def _untied(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Couples (both ways round) that differ in x, in each resample: (n,), (n, r) -> (r,)."""
    order = np.argsort(x)
    starts = np.flatnonzero(np.diff(x[order], prepend=np.nan) != 0)
    same = np.add.reduceat(w[order], starts, axis=0) if len(starts) < len(x) else w  # (values, r)
    return w.sum(axis=0) ** 2 - np.einsum("ij,ij->j", same, same)


def _centred(a: np.ndarray, w: np.ndarray, blocks: list[slice]) -> np.ndarray:
    """Columns less their weighted mean over each stratum: (n, r)."""
    parts = [a[b] - (w[b] * a[b]).sum(axis=0) / np.maximum(w[b].sum(axis=0), 1) for b in blocks]
    return np.concatenate(parts)


def _product_moment(a: np.ndarray, b: np.ndarray, w: np.ndarray, blocks: list[slice]) -> np.ndarray:
    """Pearson's correlation within strata, (r,); NaN where a side is constant up to rounding."""
    a, b = _centred(a, w, blocks), _centred(b, w, blocks)
    wa = w * a
    aa, ab = np.einsum("ij,ij->j", wa, a), np.einsum("ij,ij->j", wa, b)
    bb = np.einsum("ij,ij->j", w * b, b)
    varies = np.minimum(aa, bb) > 1e-24
    return np.where(varies, ab, np.nan) / np.sqrt(np.where(varies, aa * bb, 1))


def _bootstrapped(coefficients: Coefficients, n: int, resamples: int) -> np.ndarray:
    """Coefficients of resampled pairs, (methods, resamples)."""

    def statistic(drawn: np.ndarray, axis: int) -> np.ndarray:
        r = len(drawn)  # (r, n): places of pairs
        weights = np.bincount((drawn * r + np.arange(r)[:, None]).ravel(), minlength=n * r)
        return coefficients(weights.reshape(n, r).astype("float64"))

    with warnings.catch_warnings():  # of resamples that are constant: they are left out
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        return stats.bootstrap(
            (np.arange(n),),
            statistic,
            n_resamples=max(min(resamples, DRAWS // n), 1),
            batch=max(BATCH // n, 1),
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution


def _p_value(pairs: Pairs, method: str, resamples: int) -> float:
    """Two-sided: the share of permutations within strata that are as far from 0."""
    x, y, blocks = pairs
    n, sizes = len(x), tuple(b.stop - b.start for b in blocks)
    if method != "pearson":
        x, y = stats.rankdata(x), stats.rankdata(y)
    if method == "kendall" and n > PERMUTED:
        return _normal_p_value(Pairs(x, y, blocks))
    if method == "kendall":
        stratum = np.repeat(np.arange(len(sizes)), sizes)
        sign_y = np.triu(_signs(y)) * (stratum[:, None] == stratum)
        i, j = np.nonzero(sign_y)

        def far(order: np.ndarray, axis: int) -> np.ndarray:
            moved = np.moveaxis(x[order].astype("float32"), -1, 0)  # (n, resamples)
            return np.abs(sign_y[i, j] @ np.sign(moved[i] - moved[j]))
    else:
        a, b = (_centred(v[:, None], np.ones((n, 1)), blocks)[:, 0] for v in (x, y))

        def far(order: np.ndarray, axis: int) -> np.ndarray:
            return np.abs(a[order] @ b)

    return float(
        stats.monte_carlo_test(
            np.arange(n),
            lambda size: _permutations(sizes, size[0]),
            far,
            n_resamples=resamples,
            vectorized=True,
            alternative="greater",
        ).pvalue
    )


@lru_cache(maxsize=2)  # the same for all scores of a scope
def _permutations(sizes: tuple[int, ...], resamples: int) -> np.ndarray:
    """Orders of all pairs that leave each in its stratum, (resamples, n)."""
    random = np.random.default_rng(1)
    places = np.split(np.arange(sum(sizes), dtype="int32"), np.cumsum(sizes)[:-1])
    parts = [random.permuted(np.tile(part, (resamples, 1)), axis=1) for part in places]
    return np.concatenate(parts, axis=1)


def _normal_p_value(pairs: Pairs) -> float:
    """Kendall's p value from a normal distribution with the variance of the permutations.

    The variance is that of Daniels (1944), Biometrika 33, 129, summed over strata; with one
    stratum it is the "asymptotic" one of scipy.stats.kendalltau.
    """
    total = variance = 0.0
    for b in pairs.blocks:
        n = b.stop - b.start
        signs = [_signs(v[b]).astype("float64") for v in pairs[:2]]
        untied = [(s**2).sum() for s in signs]
        rows = [(s.sum(axis=0) ** 2).sum() - u for s, u in zip(signs, untied, strict=True)]
        total += (signs[0] * signs[1]).sum()
        variance += 2 * untied[0] * untied[1] / max(n * (n - 1), 1)
        variance += 4 * rows[0] * rows[1] / max(n * (n - 1) * (n - 2), 1)
    return float(2 * stats.norm.sf(abs(total) / np.sqrt(variance))) if variance else 1.0


def correlations(results: Results, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Correlation of each outcome with each score over the cells of a sweep, in every scope.

    A cell is what trials have in common that differ in their seed alone: they are averaged
    first, since replicates of one gamma are not independent. Trials count that are done and
    have not collapsed (:func:`left_out` counts the others), and whose two numbers are finite.

    Args:
        results: of :func:`analysis.results.load`; ``trials`` is enough.
        resamples: see :func:`association`.

    Returns:
        Frame with a row per ``scope``, outcome, score and method. Scopes: each ``stratum``
        (dataset, layers, stages, network); ``networks pooled`` and ``networks partial`` (given
        the network) where a data set and K has several; ``all pooled`` and ``all partial``
        (given the stratum) where there are several of those. ``n`` cells, ``trials`` behind
        them, distinct ``gammas``; ``value``, ``low``, ``high`` and ``p`` of :func:`association`.
        ``p_adjusted`` is Benjamini and Hochberg's, over all p values of the table (72 for plain
        networks and ResNets with one K and data set): of the rows where it is below 0.05, one in
        twenty is expected to be chance. Rows overlap, so it is a guide, not a proof.
        ``warning`` names what not to overlook: few cells, pooled signs that are not those within
        networks (Simpson's paradox), networks that differ in sign, several m (OTS and gap have
        no value there).
    """
    done = _finished(results.trials)
    done["stratum"] = done.groupby(STRATUM, dropna=False).ngroup()
    strata = done.drop_duplicates("stratum").set_index("stratum")[STRATUM].sort_index()
    cell = ["stratum", *CELL, *varying(results.trials), "points"]
    cells = {
        (outcome, score): _cells(done, cell, outcome, score)
        for outcome in OUTCOMES
        if outcome in done and done[outcome].notna().any()
        for score in SCORES
    }
    rows: list[dict[str, Any]] = []
    for scope, members, given in _scopes(strata):
        for (outcome, score), frame in cells.items():
            part = frame[frame.stratum.isin(members)]
            mixed = score in SAME_M and part.points.nunique() > 1
            x, y = (part[name].to_numpy("float64") for name in (outcome, score))
            within = part.stratum.to_numpy() if given else None
            found = _associations(x, y * np.nan if mixed else y, within, METHODS, resamples)
            row = scope | {"members": members, "outcome": outcome, "score": score}
            row |= {"trials": int(part.trials.sum()), "gammas": part.gamma.nunique()}
            notes = [f"n < {SMALL}"] * (len(part) < SMALL) + ["several m"] * mixed
            rows += [
                row | {"method": method, **values, "n": len(part), "notes": list(notes)}
                for method, values in found.items()
            ]
    _compare_signs(rows)
    numbers = ["n", "trials", "gammas", "value", "low", "high", "p", "p_adjusted"]
    columns = ["scope", *STRATUM, "outcome", "score", "method", *numbers, "warning"]
    table = pd.DataFrame(rows, columns=[*columns, "notes"])
    table["warning"] = table.notes.map("; ".join)
    table["p_adjusted"] = _adjusted(table.p)
    return table[columns].astype({"stages": "Int64"})


def left_out(results: Results) -> dict[str, int]:
    """Trials that are in no correlation: stopped (early, by ASHA), diverged, failed, collapsed."""
    status, lost = results.trials.status, results.trials.collapsed.eq(True)
    counts = {name: int((status == name).sum()) for name in ("stopped", "diverged")}
    counts["failed"] = int((~status.isin(["done", "stopped", "diverged"])).sum())
    return counts | {"collapsed": int(((status == "done") & lost).sum())}


def _finished(trials: pd.DataFrame) -> pd.DataFrame:
    done = trials[(trials.status == "done") & ~trials.collapsed.eq(True)]
    return done.astype({"trial": "str", "dataset": "str", "network": "str"})


def _cells(done: pd.DataFrame, cell: list[str], outcome: str, score: str) -> pd.DataFrame:
    """Means over the trials of each cell that have both numbers, and how many these are."""
    both = done[np.isfinite(done[[outcome, score]].astype("float64")).all(axis=1)]
    group = both.groupby(cell, dropna=False)
    return group[[outcome, score]].mean().assign(trials=group.size()).reset_index()


def _scopes(strata: pd.DataFrame) -> Iterator[tuple[dict[str, Any], tuple[int, ...], bool]]:
    """Leading columns of each scope, the strata in it, and whether it is given the stratum."""
    places = strata.groupby(STRATUM[:-1], dropna=False)
    for key, group in places:
        place = dict(zip(STRATUM, key, strict=False))  # type: ignore[call-overload]
        for stratum, network in zip(group.index, group.network, strict=True):
            yield {"scope": "stratum", **place, "network": network}, (stratum,), False
        if len(group) > 1:
            for word in ("pooled", "partial"):
                scope = {"scope": f"networks {word}", **place, "network": word}
                yield scope, tuple(group.index), word == "partial"
    if places.ngroups > 1:
        for word in ("pooled", "partial"):
            yield {"scope": f"all {word}"}, tuple(strata.index), word == "partial"


def _compare_signs(rows: list[dict[str, Any]]) -> None:
    """Note on the rows where a pooled sign is not that of its strata, or theirs differ."""

    def what(row: dict[str, Any]) -> tuple[str, ...]:
        return row["outcome"], row["score"], row["method"]

    single = {(row["members"], what(row)): row for row in rows if row["scope"] == "stratum"}
    for row in rows:
        if row["scope"] == "stratum":
            continue
        within = [single[(member,), what(row)] for member in row["members"]]
        differ = len({r["value"] > 0 for r in within if abs(r["value"]) > 0}) > 1
        against = [r for r in within if r["value"] * row["value"] < 0]
        networks = row["scope"].startswith("networks")
        if row["scope"].endswith("pooled") and against:
            where = " and ".join(r["network"] for r in against)
            where = where if networks else f"{len(against)} of {len(within)} strata"
            row["notes"].append(f"Simpson's paradox: opposite within {where}")
            for r in against if networks else ():
                r["notes"].append("Simpson's paradox: opposite when pooled")
        if differ:
            row["notes"].append(f"{'networks' if networks else 'strata'} differ in sign")
            for r in within if row["scope"] == "networks pooled" else ():
                r["notes"].append("networks differ in sign")


def _adjusted(p: pd.Series) -> pd.Series:
    """Benjamini and Hochberg's p values, over those that are known."""
    known = p[p.notna()].astype("float64")
    found = stats.false_discovery_control(known) if len(known) else known
    return pd.Series(found, known.index, "float64").reindex(p.index)


def auc(score: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a wrong point has a larger score than a right one; ties count half.

    Mann and Whitney's U over the number of couples; 0.5 if the score says nothing.

    Args:
        score: numbers of shape (m,), without NaN.
        wrong: booleans of shape (m,).

    Returns:
        Number in [0, 1]; NaN if no point is wrong, or none right.

    >>> auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    0.875
    """
    n = int(wrong.sum())
    couples = n * (len(wrong) - n)
    if not couples:
        return np.nan
    return float((stats.rankdata(score)[wrong].sum() - n * (n + 1) / 2) / couples)


def points(results: Results) -> pd.DataFrame:
    """Does a point's own LSS, or LSR, say whether the network has it right? See :func:`auc`.

    Args:
        results: of :func:`analysis.results.load`, with ``trials``, and of ``samples`` at least
            :data:`COLUMNS`.

    Returns:
        Frame with a row per stratum, stage and score: ``cells``, ``trials`` behind them (done
        and not collapsed), ``left_out`` trials without a wrong or without a right point, ``m``
        and ``wrong`` points of a trial (means; points that never move have no score and are not
        among them), ``auc``, its mean over cells, seeds averaged first; ``low`` and ``high``,
        its 95% t-interval; ``p`` of the t-test against 0.5, and ``p_adjusted`` (Benjamini and
        Hochberg) over the table. These two speak of other networks on the same points: whether
        other points would say so too, they do not know.
    """
    cell = [*CELL, *varying(results.trials), "points"]
    trials = _finished(results.trials)[["trial", *cell]]
    samples = results.samples.loc[results.samples.trial.isin(trials.trial), list(COLUMNS)]
    samples = samples.dropna(subset=["label", "prediction"])
    rows: list[dict[str, Any]] = []
    for (trial, stage), part in samples.groupby(["trial", "stage"], observed=True):  # type: ignore
        wrong = (part.prediction != part.label).to_numpy()
        for score in POINT_SCORES:
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
    return frame.assign(p_adjusted=_adjusted(frame.p))


def _mean_auc(cells: np.ndarray) -> dict[str, float]:
    """Mean over cells, its 95% t-interval within [0, 1], and the p value of the t-test."""
    if len(cells) < 2 or np.ptp(cells) < 1e-12:
        return {"auc": float(cells.mean()) if len(cells) else np.nan}
    test: Any = stats.ttest_1samp(cells, 0.5)
    low, high = np.clip(test.confidence_interval(0.95), 0, 1)
    return {"auc": float(cells.mean()), "low": low, "high": high, "p": test.pvalue}


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """A table for :func:`analysis.tables.as_text` to lay out; without rows that have no cell."""
    shown = table.rename(columns={"p_adjusted": "adjusted p"})
    if "auc" in table:
        shown = shown.rename(columns={"p": "t-test p", "auc": "AUC"})
    else:
        shown = shown[shown.n > 0].copy()
    for name in {"value", "AUC", "low", "high"} & set(shown):
        shown[name] = [f"{v:.2f}" if np.isfinite(v) else "" for v in shown[name]]
    for name in {"adjusted p", "t-test p"} & set(shown):
        shown[name] = [f"{v:.2g}" if np.isfinite(v) else "" for v in shown[name]]
    for name in {"outcome", "score"} & set(shown):
        shown[name] = [HEADINGS.get(v, v.replace("_", " ")) for v in shown[name]]
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the correlations of a sweep. Exit status 2 with one message where there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.correlation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", help="a sweep's folder, or an MLflow experiment")
    parser.add_argument(
        "--table",
        choices=["correlations", "points"],
        help="print this one; by default both as md and latex, correlations as csv and json",
    )
    parser.add_argument(
        "--format",
        default="md",
        choices=["csv", "md", "latex", "json"],
        help="md (default) and latex are rounded to read; csv and json have all digits",
    )
    parser.add_argument("--tracking-uri", help="MLflow's address, to read an experiment")
    given = parser.parse_args(arguments)
    read = given.format in ("md", "latex")
    names = [given.table or "correlations"] + ["points"] * (read and not given.table)
    wanted = ("trials", "samples") if "points" in names else ("trials",)
    try:
        results = load(given.folder, given.tracking_uri, wanted, {"samples": COLUMNS})
    except ResultsError as error:
        print(f"analysis.correlation: {error}", file=sys.stderr)
        return 2
    if read and (lost := [f"{n} {reason}" for reason, n in left_out(results).items() if n]):
        print(f"{'% ' * (given.format == 'latex')}Trials left out: {', '.join(lost)}.\n")
    for name in names:
        table = correlations(results) if name == "correlations" else points(results)
        if len(table) or name == given.table or not read:
            end = "\n" * (name != names[-1])
            print(as_text(_texts(table) if read else table, given.format), end=end)
    return 0


if __name__ == "__main__":
    sys.exit(main())
