"""Which factor of the geodesic excess training changed, and which was free: a sentence a network.

The excess is a product: straightness factor x transport factor (:mod:`scoring.geodesic`). A factor
was *learned* only if seeds say so: the same networks before and after training are compared, seed
by seed, in every cell. All means here are geometric, also those over seeds, so the means of the
factors multiply to the mean of the excess.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.measures.association import holm
from analysis.measures.cells import cell_columns, done
from analysis.measures.layout import first_word, network_name, plural, sample, span
from analysis.measures.means import over_seeds, student
from analysis.measures.verdicts import FAILS, HOLDS, MIXED, SURE, Comparison, Verdict, judge
from analysis.results import Results

NEAR = 1.05  # A factor below this is near 1, and one that changes by less has hardly changed.
HALF = 0.5  # A mean transport share above this is nearer to a random matching than to the optimum.
FACTORS = {"straightness_factor": "Straightness factor", "transport_factor": "Transport factor"}
KNOWN = ["geodesic_excess", *FACTORS]


class _Change(NamedTuple):
    """What training did to a factor in the cells of a network."""

    verdict: Verdict  # on "the factor falls"
    clear: bool  # some cell surely changed, and by more than NEAR


def factor_sentences(results: Results, cells: pd.DataFrame) -> list[str]:
    """Say for each network whether its factors were learned, were free, or are undecided.

    Args:
        results: from :func:`analysis.results.load`.
        cells: from :func:`analysis.measures.summary.summary` of the same results.

    Returns:
        A text for each network whose excess is known before and after training. Numbers are
        geometric means over the trials of each cell, then over cells, of trials with all factors
        before and after. A factor fell surely in a cell if the mean over seeds of the
        logarithm of after / before is below 0 (Student's test, p < 0.05 after Holm's correction for
        the network's cells). One seed says nothing surely. A factor was free if it was near 1
        before training and is so now, in every trial. In high dimension the transport factor of a
        random matching is near 1, too, so the sentence says if the map is nearer to that.
    """
    said = []
    trials = finite(done(results), KNOWN)
    cell = cell_columns(results)
    known = finite(cells[cells.seeds > 0], KNOWN)
    for network, own in trials.groupby("network", observed=True):
        rows = geometric(own, cell)
        after, before = typical(rows, "geodesic_excess")
        name = network_name(network)
        means = "geometric means over seeds; " if (rows.seeds > 1).any() else ""
        told = (
            f"{first_word(name)}: geodesic excess {before:.2f} before training, "
            f"{after:.2f} after ({_times(own, cell)}{means}{sample(rows)})."
        )
        for factor in FACTORS:
            told += f" {_change(rows, own, cell, factor)}"
        scored = known[known.network == network]
        free = scored.dropna(subset=["ots", "ots_initial", "ots_shuffled"])
        if len(free):
            told += (
                f" OTS {free.ots.mean():.3f} (m = {span(free.m)}); before training "
                f"{free.ots_initial.mean():.3f}, of shuffled displacements "
                f"{free.ots_shuffled.mean():.3f}."
            )
        said.append(told)
    return said


def finite(rows: pd.DataFrame, scores: list[str]) -> pd.DataFrame:
    """The rows where these scores are finite, after training and before."""
    both = [*scores, *(f"{score}_initial" for score in scores)]
    return rows.replace([np.inf, -np.inf], np.nan).dropna(subset=both)


def with_geometric(cells: pd.DataFrame, results: Results) -> pd.DataFrame:
    """A summary with the geometric means of the excess over seeds, as the sentences have them."""
    excess, key = ["geodesic_excess", "geodesic_excess_initial"], cell_columns(results)
    means = geometric(finite(done(results), KNOWN), key)
    key = [*key[:-1], "m"]
    return cells.drop(columns=excess).merge(means[[*key, *excess]], "left", key)


def typical(cells: pd.DataFrame, factor: str) -> tuple[float, float]:
    """The geometric means over cells of a factor, after training and before."""
    after, before = (
        float(np.exp(np.log(cells[f"{factor}{when}"].astype("float64")).mean()))
        for when in ("", "_initial")
    )
    return after, before


def geometric(trials: pd.DataFrame, cell: list[str]) -> pd.DataFrame:
    """The geometric means of the excess and its factors over the trials of each cell.

    Args:
        trials: with finite values, after training and before.
        cell: the columns that make a cell, with ``points``.

    Returns:
        One row per cell, with its trials as ``seeds``, and ``m``.
    """
    both = [f"{score}{when}" for score in KNOWN for when in ("", "_initial") if score in trials]
    logs = trials.assign(**{name: np.log(trials[name].astype("float64")) for name in both})
    group = logs.groupby(cell, observed=True, dropna=False)
    means = group[both].mean().map(np.exp).assign(seeds=group.size())
    return means.reset_index().rename(columns={"points": "m"})


def _times(trials: pd.DataFrame, cell: list[str]) -> str:
    """The change of the excess as a factor with its interval over seeds; empty if it has none."""
    changed = trials.assign(change=_logarithm(trials, "geodesic_excess"))
    mean, half = over_seeds(changed, "change", cell)
    if not np.isfinite(half):
        return ""
    low, high = np.exp(mean - half), np.exp(mean + half)
    return f"× {np.exp(mean):.2f}, 95% interval {low:.2f} to {high:.2f}; "


def _logarithm(trials: pd.DataFrame, factor: str) -> pd.Series:
    """The logarithm of a factor after training over its value before."""
    after, before = (trials[f"{factor}{when}"].astype("float64") for when in ("", "_initial"))
    return pd.Series(np.log(after / before))


def _change(cells: pd.DataFrame, trials: pd.DataFrame, cell: list[str], factor: str) -> str:
    """What training did to a factor of one network, as far as its seeds say so."""
    name, (after, before) = FACTORS[factor], typical(cells, factor)
    both = trials[[factor, f"{factor}_initial"]].astype("float64")
    if (both <= NEAR).all(axis=None):
        free = _as_random(trials) if factor == "transport_factor" else ""
        return f"{name} was {before:.2f} before training and is {after:.2f}: {free or 'free'}."
    found = _judged(trials.assign(change=_logarithm(trials, factor)), cell)
    fell, sure, against = found.verdict.agree, found.verdict.sure, found.verdict.against
    higher = f", surely higher in {against}" if against else ""
    return (
        f"{name} went from {before:.2f} to {after:.2f} (lower in {fell} of "
        f"{plural(len(cells), 'cell')}, surely in {sure}{higher}): "
        f"{_meaning(found, after, before)}."
    )


def _as_random(trials: pd.DataFrame) -> str:
    """What to say of a map that is no nearer to the optimal one than to a random matching."""
    share = float(trials.transport_share.astype("float64").mean())
    if not share > HALF:  # also if it is not known
        return ""
    near = f"within {NEAR - 1:.0%} of 1, but nearer to a random matching than to the optimal one"
    return f"{near} (share {share:.2f})"


def _judged(trials: pd.DataFrame, cell: list[str]) -> _Change:
    """The verdict on "the factor falls in training", from the cells of one network."""
    means, found = [], []
    for _, rows in trials.groupby(cell, observed=True, dropna=False):
        mean, _, p = student(rows.change.to_numpy(), scale=1)
        means.append(mean)
        found.append(Comparison("", "", mean < 0, p))
    sure = holm(np.array([c.p for c in found])) < SURE
    return _Change(judge(found), bool((sure & (np.abs(means) > np.log(NEAR))).any()))


def _meaning(found: _Change, after: float, before: float) -> str:
    """What training did to a factor, in the words of the page."""
    verdict = found.verdict.verdict
    if verdict == MIXED:
        return "learned in some cells, away from the geodesic in others"
    if verdict not in (HOLDS, FAILS):
        return "undecided"
    if not found.clear and before / NEAR <= after <= before * NEAR:
        return "hardly changed"
    if verdict == FAILS:
        far = "away from the geodesic"
        return far if after > before * NEAR else f"{far} in some cells only"
    if after >= before / NEAR:
        return "learned in some cells only"
    return "learned" if after <= NEAR else "learned in part"
