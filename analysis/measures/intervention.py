"""What changes where a penalty makes tracks straighter, or shorter, and nothing else is changed.

Weight decay changes LSS and accuracy at once, so their correlation cannot tell cause from company.
``straightness_penalty`` and ``transport_penalty`` change tracks at the same gamma.
Command: ``python -m analysis.tables runs/straightness --table intervention``.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.measures.cells import CELL, difference, done, varying, without_collapsed
from analysis.measures.layout import heading
from analysis.measures.robustness import AUCS, of_trials, setting
from analysis.results import Results

PENALTIES = ("straightness_penalty", "transport_penalty")
ASKED = ("lss", "ots", "test_accuracy")
ANSWERS = ("test_accuracy", *AUCS)  # what straightness may be the cause of
OUTCOMES = (*ASKED, *AUCS)
ENDS = ("_untreated", "_change", "_change_ci95", "_p")  # of an outcome's columns
SURE = 0.05  # p values below it, corrected for all that were asked
SAME = 1e-12  # differences that vary by no more than this share of what they are of have no spread
DECIMALS = {"lss": 2}  # of a change; 3 of the others


def effects(results: Results) -> pd.DataFrame:
    """One row per cell and weight of a penalty: what it changed against the cell without one.

    Trials of one seed begin with equal weights and see their data in one order, whatever the
    penalty. So where both sides have the same seeds the differences are taken seed by seed, with
    Student's interval and test of their mean (a pair that lacks a number is left out): they are
    sharper than two means. Else the means differ, with Welch's.

    Args:
        results: of :func:`analysis.results.load`; ``trials`` is enough. Those count that are done;
            where a stage has collapsed there is no OTS. A robustness AUC is compared where all
            trials of both sides were evaluated with equal settings.

    Returns:
        Frame with the cell (dataset, stages, layers, network, gamma, what else varies, m), the
        ``penalty`` and its ``weight``, ``seeds`` with it, ``untreated_seeds`` (both penalties 0),
        ``paired``; then for LSS, OTS, test accuracy and each AUC that the sweep has: its mean
        ``<score>_untreated``, ``<score>_change`` (treated less untreated), the half-width of its
        95% interval ``<score>_change_ci95``, and ``<score>_p``, two-sided. Both are NaN with one
        seed, and where nothing varies from seed to seed: what has no spread to be measured by
        is not sure. ``<score>_p_adjusted`` is Holm's, over all p values of the table: the
        chance that any at all is below 0.05 without a cause is at most that. (False discovery
        rates would let the many sure changes of LSS make doubtful ones of accuracy pass.)
        ``straighter``: whether LSS surely fell, and so the row answers anything about
        straightness; null without p. No rows where no cell has both sides. Trials with both
        penalties are in none.
    """
    trials = without_collapsed(of_trials(results))
    cell = _cell(results)
    found = [name for name in OUTCOMES if name in ASKED or trials[name].notna().any()]
    rows = [key | _compared(without, side, found) for key, without, side in _sides(trials, cell)]
    numbers = [f"{name}{end}" for name in found for end in ENDS]
    counts = ["penalty", "weight", "seeds", "untreated_seeds", "paired"]
    table = pd.DataFrame(rows, columns=[*cell, *counts, *numbers])
    adjusted = _holm(table[[f"{name}_p" for name in found]].to_numpy("float64"))
    table[[f"{name}_p_adjusted" for name in found]] = adjusted
    sure = (table.lss_p_adjusted < SURE) & (table.lss_change < 0)
    table["straighter"] = sure.astype("boolean").mask(table.lss_p_adjusted.isna())
    order = [*cell, *counts, "straighter"]
    order += [f"{name}{end}" for name in found for end in (*ENDS, "_p_adjusted")]
    table = table[order].rename(columns={"points": "m"})
    return table.sort_values(["penalty", *order[: len(CELL)], "weight"], ignore_index=True)


def any_effects(results: Results) -> bool:
    """Whether :func:`effects` has a row."""
    return next(_sides(done(results), _cell(results)), None) is not None


def _cell(results: Results) -> list[str]:
    others = [name for name in varying(results.trials) if name not in PENALTIES]
    return [*CELL, *others, "points"]


def _sides(
    trials: pd.DataFrame, cell: list[str]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]]:
    """What is compared: cell, penalty and weight, trials without a penalty and trials with it."""
    weights = trials[list(PENALTIES)].astype("float64").fillna(0)
    if not (weights > 0).any(axis=None):
        return
    trials = trials.assign(**{name: weights[name] for name in PENALTIES})
    for key, own in trials.groupby(cell, dropna=False, observed=True):
        without = own[(own[list(PENALTIES)] == 0).all(axis=1)]
        for penalty, other in (PENALTIES, PENALTIES[::-1]):
            treated = own[(own[penalty] > 0) & (own[other] == 0)]
            for weight, side in treated.groupby(penalty) if len(without) else ():
                about = {"penalty": penalty, "weight": weight}
                yield dict(zip(cell, key, strict=True)) | about, without, side


def _compared(without: pd.DataFrame, side: pd.DataFrame, found: list[str]) -> dict[str, Any]:
    """What of a row is not its cell: the numbers of one side against those of the other."""
    x, y = without.set_index("seed"), side.set_index("seed")
    paired = x.index.is_unique and y.index.is_unique and set(x.index) == set(y.index)
    row = {"seeds": len(y), "untreated_seeds": len(x), "paired": paired}
    for name in found:
        a, b = (rows[name].astype("float64") for rows in (x, y))
        if name in AUCS:
            measured = pd.concat([rows[np.isfinite(rows[name])] for rows in (x, y)])
            if setting(measured, name).nunique() > 1:
                a, b = a * np.nan, b * np.nan
        change = _change(a, b, paired)
        values = dict(zip(ENDS, (a[np.isfinite(a)].mean(), *change), strict=True))
        row |= {f"{name}{end}": value for end, value in values.items()}
    return row


def _change(a: pd.Series, b: pd.Series, paired: bool) -> tuple[float, float, float]:
    """Mean of b less mean of a, the half-width of its 95% interval, and p; NaN is not known."""
    if paired:
        pairs = pd.DataFrame({"a": a, "b": b}).replace([np.inf, -np.inf], np.nan).dropna()
        change = (pairs.b - pairs.a).to_numpy()
        if not len(change):
            return np.nan, np.nan, np.nan
        if np.ptp(change) <= SAME * pairs.abs().to_numpy().max():  # one seed, too
            return float(change.mean()), np.nan, np.nan
        half = stats.sem(change) * stats.t.ppf(0.975, len(change) - 1)
        p = float(np.asarray(stats.ttest_1samp(change, 0))[1])
        return float(change.mean()), float(half), p
    x, y = (side[np.isfinite(side)].to_numpy() for side in (a, b))
    if not len(x) or not len(y):
        return np.nan, np.nan, np.nan
    value, low, high = difference(x, y)
    if not high > low:
        return value, np.nan, np.nan
    with warnings.catch_warnings():  # of a side whose values are all the same
        warnings.simplefilter("ignore", RuntimeWarning)
        p = float(np.asarray(stats.ttest_ind(y, x, equal_var=False))[1])
    return value, (high - low) / 2, p


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's p values over those that are known (1979, Scand. J. Statist. 6, 65).

    >>> _holm(np.array([0.01, 0.04, np.nan, 0.03])).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    flat = p.ravel()
    order = np.argsort(flat)  # NaN is last
    steps = np.isfinite(flat).sum() - np.arange(len(flat))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(np.maximum.accumulate(flat[order] * steps), 1)
    return np.where(np.isnan(p), np.nan, adjusted.reshape(p.shape))


def asked(table: pd.DataFrame) -> int:
    """How many tests are in a table of effects: those that its p values are corrected for."""
    return int(table[[n for n in table if str(n).endswith("_p")]].notna().sum().sum())


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The effects as people read them: ``change ± half-width`` of each outcome as one text.

    A star where the adjusted p is below 0.05.
    """
    first = table.loc[:, :"straighter"]
    said = first.straighter.map({True: "yes", False: "no"}).fillna("not known")
    first = first.assign(straighter=said, penalty=first.penalty.str.replace("_", " "))
    texts = {}
    for name in (name for name in OUTCOMES if f"{name}_change" in table):
        numbers = table[[f"{name}_change", f"{name}_change_ci95", f"{name}_p_adjusted"]]
        texts[f"change of {heading(name)}"] = [
            _text(name, *row) for row in numbers.to_numpy("float64")
        ]
    return first.assign(**texts)


def _text(name: str, change: float, half: float, p: float) -> str:
    if np.isnan(change):
        return ""
    digits = DECIMALS.get(name, 3)
    known = f" ± {half:.{digits}f}{'*' * bool(p < SURE)}" * bool(np.isfinite(half))
    return f"{change:+.{digits}f}{known}".replace("-", "\N{MINUS SIGN}")


def sentence(table: pd.DataFrame) -> str:
    """What the effects say, penalty by penalty, with their counts.

    Args:
        table: of :func:`effects`, with rows.
    """
    n = asked(table)
    said = [_of_penalty(str(penalty), rows) for penalty, rows in table.groupby("penalty")]
    if table.straighter.notna().any():
        said.append(
            f"Sure is what has p below {SURE} over seeds, corrected for all {n} tests (Holm); "
            "what is not sure is not shown to be absent."
        )
    return " ".join(said)


def _of_penalty(penalty: str, rows: pd.DataFrame) -> str:
    """What one penalty did, in one to three sentences."""
    name, known = penalty.replace("_", " ").capitalize(), rows[rows.straighter.notna()]
    every = f"{len(rows)} cell{'s' * (len(rows) > 1)} with it"
    if not len(known):
        return f"{name}: too few seeds in {every} to say whether LSS changed."
    lower = known[known.straighter.astype("bool")]
    told = f"{name}: LSS surely fell in {len(lower)} of {every}, against the same cell without."
    if not len(lower):
        return f"{told} So nothing is said here of what straight tracks are the cause of."
    parts = []
    for score in (name for name in ANSWERS if f"{name}_change" in rows):
        change = lower[f"{score}_change"]
        sure = lower[f"{score}_p_adjusted"] < SURE
        up, down = int((sure & (change > 0)).sum()), int((sure & (change < 0)).sum())
        measured = int(change.notna().sum())
        if measured:
            counts = (
                f"surely rose in {up}, surely fell in {down}, neither in {measured - up - down}"
            )
            missing = f" (measured in {measured})" * (measured < len(lower))
            parts.append(f"{heading(score)}{missing} {counts}")
    return f"{told} Where it did, {'; '.join(parts)}." if parts else told
