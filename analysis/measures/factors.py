"""Which factor of the geodesic excess training changed, and which was free: a sentence a network.

The excess is a product: straightness factor x transport factor (:mod:`scoring.geodesic`). A factor
was *learned* only if seeds say so: the same networks before and after training are compared, seed
by seed, in every cell.
"""

import numpy as np
import pandas as pd

from analysis.measures.cells import CELL, done, varying
from analysis.measures.layout import first_word, network_name, plural, sample, span
from analysis.measures.means import over_seeds, student
from analysis.measures.verdicts import FAILS, HOLDS, MIXED, Comparison, Verdict, judge
from analysis.results import Results

NEAR = 1.05  # A factor below this is near 1, and one that changes by less has hardly changed.
FACTORS = {"straightness_factor": "Straightness factor", "transport_factor": "Transport factor"}


def factor_sentences(results: Results, cells: pd.DataFrame) -> list[str]:
    """Say for each network whether its factors were learned, were free, or are undecided.

    Args:
        results: from :func:`analysis.results.load`.
        cells: from :func:`analysis.measures.summary.summary` of the same results.

    Returns:
        A text for each network whose excess is known before and after training. Numbers are
        geometric means over cells. A factor fell surely in a cell if the mean over seeds of the
        logarithm of after / before is below 0 (Student's test, p < 0.05 after Holm's correction for
        the network's cells). One seed says nothing surely. A factor was free if it was near 1
        before training and is so now, in every trial.
    """
    said = []
    trials = finite(done(results), ["geodesic_excess", *FACTORS])
    cell = [*CELL, *varying(results.trials), "points"]
    known = finite(cells[cells.seeds > 0], ["geodesic_excess", *FACTORS])
    for network, rows in known.groupby("network", observed=True):
        after, before = typical(rows, "geodesic_excess")
        name, own = network_name(network), trials[trials.network == network]
        told = (
            f"{first_word(name)}: geodesic excess {before:.2f} before training, "
            f"{after:.2f} after ({_times(own)}{sample(rows)})."
        )
        for factor in FACTORS:
            told += f" {_change(rows, own, cell, factor)}"
        free = rows.dropna(subset=["ots", "ots_initial", "ots_shuffled"])
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


def typical(cells: pd.DataFrame, factor: str) -> tuple[float, float]:
    """The geometric means over cells of a factor, after training and before."""
    after, before = (
        float(np.exp(np.log(cells[f"{factor}{when}"].astype("float64")).mean()))
        for when in ("", "_initial")
    )
    return after, before


def _times(trials: pd.DataFrame) -> str:
    """The change of the excess as a factor with its interval over seeds; empty with one seed."""
    mean, half = over_seeds(trials.assign(change=_logarithm(trials, "geodesic_excess")), "change")
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
        return f"{name} was {before:.2f} before training and is {after:.2f}: free."
    fell = int((cells[factor] < cells[f"{factor}_initial"]).sum())
    found = _judged(trials.assign(change=_logarithm(trials, factor)), cell)
    higher = f", surely higher in {found.against}" if found.against else ""
    return (
        f"{name} went from {before:.2f} to {after:.2f} (lower in {fell} of "
        f"{plural(len(cells), 'cell')}, surely in {found.sure}{higher}): "
        f"{_meaning(found.verdict, after, before)}."
    )


def _judged(trials: pd.DataFrame, cell: list[str]) -> Verdict:
    """The verdict on "the factor falls in training", from the cells of one network."""
    found = []
    for _, rows in trials.groupby(cell, observed=True, dropna=False):
        mean, _, p = student(rows.change.to_numpy(), scale=1)
        found.append(Comparison("", "", mean < 0, p))
    return judge(found)


def _meaning(verdict: str, after: float, before: float) -> str:
    """The verdict on a fall in training, in the words of the page."""
    if verdict == MIXED:
        return "learned in some cells, away from the geodesic in others"
    if verdict not in (HOLDS, FAILS):
        return "undecided"
    if before / NEAR <= after <= before * NEAR:
        return "hardly changed"
    if verdict == FAILS:
        return "away from the geodesic"
    return "learned" if after <= NEAR else "learned in part"
