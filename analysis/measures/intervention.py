"""The effects of a penalty that makes tracks straighter or shorter, all else equal.

Weight decay changes both LSS and accuracy, so their correlation does not show that one causes the
other. ``straightness_penalty`` and ``transport_penalty`` change the tracks while gamma stays the
same.
Command: ``python -m analysis.tables runs/straightness --table intervention``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.association import holm
from analysis.measures.cells import CELL, cell_columns, done, without_collapsed
from analysis.measures.layout import heading, plural
from analysis.measures.means import Tested, student, welch
from analysis.measures.robustness import AUCS, alike, of_trials
from analysis.results import Results

PENALTIES = ("straightness_penalty", "transport_penalty")
ALWAYS = ("lss", "ots", "test_accuracy")  # outcomes that every table has
ANSWERS = ("test_accuracy", *AUCS)  # outcomes that straighter tracks might cause
OUTCOMES = (*ALWAYS, *AUCS)
ENDS = ("_untreated", "_change", "_change_ci95", "_p")  # suffixes of an outcome's columns
SURE = 0.05  # A change is sure if its p value, corrected for all tests, is below this.
DECIMALS = {"lss": 2, "lss_scaled": 2}  # digits of a change; 3 for other outcomes


def effects(results: Results, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per cell and weight of a penalty: the change from the same cell without a penalty.

    Trials with the same seed start from equal weights and see their data in the same order,
    whatever the penalty. So if both sides have the same seeds, they are compared seed by seed,
    with Student's interval and test of the mean difference (pairs that lack a number are left out).
    This is sharper than comparing two means. Otherwise the means are compared with Welch's
    interval and test.

    Args:
        results: from :func:`analysis.results.load`, with ``trials``, and with the columns of
            ``robustness`` that :func:`analysis.measures.robustness.of_trials` needs. Only trials
            that are done are used; those with a collapsed stage have no OTS. A robustness AUC is
            compared only if all trials of both sides were evaluated with equal settings and m.
        trials: from that function, if it is already computed.

    Returns:
        Frame with the cell (dataset, stages, layers, network, gamma, what else varies, m), the
        ``penalty`` and its ``weight``, ``seeds`` with it, ``untreated_seeds`` (both penalties 0),
        ``paired``; then for LSS, OTS, test accuracy and each AUC that the sweep has: its mean
        ``<score>_untreated``, ``<score>_change`` (treated minus untreated), the half-width of its
        95% interval ``<score>_change_ci95``, and ``<score>_p``, two-sided. The last two are NaN
        with one seed, and if nothing varies between seeds: without a measured spread, no change
        is sure. ``<score>_p_adjusted`` is Holm's over all p values of the table, so the
        probability that any of them falls below 0.05 by chance is at most 0.05. (Controlling the
        false discovery rate instead would accept doubtful changes of accuracy whenever there are
        many sure changes of LSS.) ``straighter``: whether LSS surely fell; only then does the row
        say anything about straightness; null without p. No rows if no cell has both sides. Trials
        with both penalties are left out.
    """
    trials = without_collapsed(of_trials(results) if trials is None else trials)
    cell = _cell(results)
    found = [name for name in OUTCOMES if name in ALWAYS or trials[name].notna().any()]
    rows = [key | _compared(without, side, found) for key, without, side in _sides(trials, cell)]
    numbers = [f"{name}{end}" for name in found for end in ENDS]
    counts = ["penalty", "weight", "seeds", "untreated_seeds", "paired"]
    table = pd.DataFrame(rows, columns=[*cell, *counts, *numbers])
    adjusted = holm(table[[f"{name}_p" for name in found]].to_numpy("float64"))
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
    return [name for name in cell_columns(results) if name not in PENALTIES]


def _sides(
    trials: pd.DataFrame, cell: list[str]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]]:
    """Yield each comparison: its cell, penalty and weight, then the trials without and with it."""
    weights = trials[list(PENALTIES)].astype("float64").fillna(0)
    if not (weights > 0).any(axis=None):
        return
    trials = trials.assign(**{name: weights[name] for name in PENALTIES})
    for key, own in trials.groupby(cell, dropna=False, observed=True):
        without = own[(own[list(PENALTIES)] == 0).all(axis=1)]
        if not len(without):
            continue
        for penalty, other in (PENALTIES, PENALTIES[::-1]):
            treated = own[(own[penalty] > 0) & (own[other] == 0)]
            for weight, side in treated.groupby(penalty):
                about = {"penalty": penalty, "weight": weight}
                yield dict(zip(cell, key, strict=True)) | about, without, side


def _compared(without: pd.DataFrame, side: pd.DataFrame, found: list[str]) -> dict[str, Any]:
    """Compute the numbers of a row from the trials without and with the penalty."""
    x, y = without.set_index("seed"), side.set_index("seed")
    paired = same_seeds(without, side)
    row = {"seeds": len(y), "untreated_seeds": len(x), "paired": paired}
    for name in found:
        a, b = (rows[name].astype("float64") for rows in (x, y))
        if name in AUCS:
            measured = pd.concat([rows[np.isfinite(rows[name])] for rows in (x, y)])
            if alike(measured, name).nunique() > 1:
                a, b = a * np.nan, b * np.nan
        change = change_of(a, b, paired)
        values = dict(zip(ENDS, (a[np.isfinite(a)].mean(), *change), strict=True))
        row |= {f"{name}{end}": value for end, value in values.items()}
    return row


def same_seeds(x: pd.DataFrame, y: pd.DataFrame) -> bool:
    """Whether two groups of trials have the same seeds, each once, so that they form pairs."""
    return x.seed.is_unique and y.seed.is_unique and set(x.seed) == set(y.seed)


def change_of(a: pd.Series, b: pd.Series, paired: bool) -> Tested:
    """Mean of b minus mean of a, the half-width of its 95% interval, and p; NaN if unknown."""
    if paired:
        pairs = pd.DataFrame({"a": a, "b": b}).replace([np.inf, -np.inf], np.nan).dropna()
        if not len(pairs):
            return np.nan, np.nan, np.nan
        return student((pairs.b - pairs.a).to_numpy(), scale=pairs.abs().to_numpy().max())
    x, y = (side[np.isfinite(side)].to_numpy() for side in (a, b))
    if not len(x) or not len(y):
        return np.nan, np.nan, np.nan
    return welch(x, y)


def asked(table: pd.DataFrame) -> int:
    """The number of tests in a table of effects; p values are corrected for all of them."""
    return int(table[[n for n in table if str(n).endswith("_p")]].notna().sum().sum())


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The effects as people read them: ``change ± half-width`` of each outcome as one text.

    A star marks an adjusted p below 0.05.
    """
    first = table.loc[:, :"straighter"]
    said = first.straighter.map({True: "yes", False: "no"}).fillna("not known")
    first = first.assign(straighter=said, penalty=first.penalty.str.replace("_", " "))
    texts = {}
    for name in OUTCOMES:
        if f"{name}_change" in table:
            told = [number(name, row) + star(name, row) for _, row in table.iterrows()]
            texts[f"change of {heading(name)}"] = told
    return first.assign(**texts)


def number(name: str, row: pd.Series) -> str:
    """A change of an outcome with the half-width of its interval: ``−2.10 ± 0.08``."""
    change, half = row[f"{name}_change"], row[f"{name}_change_ci95"]
    if np.isnan(change):
        return ""
    digits = DECIMALS.get(name, 3)
    text = f"{change:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return f"{text} ± {half:.{digits}f}" if np.isfinite(half) else text


def star(name: str, row: pd.Series) -> str:
    """A star if the change of an outcome is sure."""
    return "*" if row[f"{name}_p_adjusted"] < SURE else ""


def sentence(table: pd.DataFrame) -> str:
    """The effects in words, penalty by penalty, with their counts.

    Args:
        table: from :func:`effects`, with rows.
    """
    said = [_of_penalty(str(penalty), rows) for penalty, rows in table.groupby("penalty")]
    if table.straighter.notna().any():
        said.append(
            f"A change is sure if its p value over seeds is below {SURE} after correction for all "
            f"{asked(table)} tests (Holm). A change that is not sure may still exist."
        )
    return " ".join(said)


def _of_penalty(penalty: str, rows: pd.DataFrame) -> str:
    """The effects of one penalty in one to three sentences."""
    name, known = penalty.replace("_", " ").capitalize(), rows[rows.straighter.notna()]
    every = f"{plural(len(rows), 'cell')} with it"
    if not len(known):
        return f"{name}: too few seeds in {every} to say whether LSS changed."
    lower = known[known.straighter.astype("bool")]
    told = (
        f"{name}: LSS surely fell in {len(lower)} of {every}, compared with the same cell "
        "without it."
    )
    if not len(lower):
        return f"{told} So this sweep says nothing about what straight tracks cause."
    parts = []
    for score in ANSWERS:
        if f"{score}_change" not in rows or lower[f"{score}_change"].isna().all():
            continue
        measured = lower[lower[f"{score}_change"].notna()]
        change, sure = measured[f"{score}_change"], measured[f"{score}_p_adjusted"] < SURE
        up, down = int((sure & (change > 0)).sum()), int((sure & (change < 0)).sum())
        missing = f" (measured in {len(measured)})" if len(measured) < len(lower) else ""
        parts.append(
            f"{heading(score)}{missing} surely rose in {up}, surely fell in {down}, neither in "
            f"{len(measured) - up - down}"
        )
    return f"{told} Where it did, {'; '.join(parts)}." if parts else told
