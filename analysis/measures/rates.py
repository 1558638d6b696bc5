"""What gamma changes beyond the effective learning rate of weights that have no scale.

Gamma shrinks weights that a normalisation follows, and short ones turn faster (van Laarhoven 2017,
arXiv 1706.05350). So tracks and accuracy may follow the rate, and not gamma. A sweep can separate
the two: gamma with the norm of these weights fixed (``renormalise``), and at gamma 0 a higher
learning rate or smaller initial weights.
Command: ``python -m analysis.tables runs/effective-rate --table rates``.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.measures.association import holm
from analysis.measures.cells import cell_columns, done
from analysis.measures.intervention import SURE, change_of, number, same_seeds, star
from analysis.measures.layout import heading
from analysis.measures.means import student
from analysis.results import Results

COLUMNS = {"epochs": ["trial", "epoch", "learning_rate", "effective_rate"]}
AS_IS, FIXED = "γ", "γ, rate fixed"
FASTER, SMALLER = "learning rate", "initial scale"
KINDS = (AS_IS, FIXED, FASTER, SMALLER)  # what a row compares
QUESTION = {AS_IS: "as_is", FIXED: "rate_fixed", FASTER: "higher_rate", SMALLER: "higher_rate"}
CLAIMED = {  # outcomes, and the direction in which gamma is claimed to change them
    "lss": -1,
    "lss_scaled": -1,
    "clean_train_accuracy": 1,
    "test_accuracy": 1,
}
ENDS = ("_before", "_change", "_change_ci95", "_p")  # suffixes of an outcome's columns
HALF = 0.5  # "Less" means a change below this share of what gamma does as it is.
AXES = ["gamma", "renormalise", "learning_rate", "initial_scale"]


class _Pair(NamedTuple):
    """Two groups of trials that differ in one of the four settings."""

    kind: str
    before: pd.DataFrame  # gamma 0
    after: pd.DataFrame
    start: float  # the value of what differs
    end: float


def rate_of_trials(results: Results) -> pd.Series:
    """The effective learning rate of each trial: geometric mean over its epochs, by trial.

    It is that at the trial's highest learning rate, so what a schedule does is left out. NaN
    where no weight is without a scale, as in networks without a normalisation.
    """
    epochs = results.epochs[COLUMNS["epochs"]].astype({"trial": "str"})
    epochs = epochs[(epochs.epoch > 0) & (epochs.effective_rate > 0) & (epochs.learning_rate > 0)]
    ratio = epochs.effective_rate / epochs.learning_rate
    logs = ratio.map(math.log).groupby(epochs.trial).mean()
    trials = done(results).set_index("trial")
    return logs.reindex(trials.index).map(math.exp) * trials.learning_rate


def effects(results: Results) -> pd.DataFrame:
    """One row per change of a setting, compared with the same cell at gamma 0 without the change.

    Trials of equal seeds are compared in pairs, as in
    :func:`analysis.measures.intervention.effects`.

    Args:
        results: from :func:`analysis.results.load`, with ``trials`` and at least the columns
            :data:`COLUMNS` of ``epochs``. Only trials that are done are used.

    Returns:
        Frame with dataset, stages, layers, network and what else varies; ``change``, one of
        :data:`KINDS`, from ``start`` to ``end``; ``learning_rate`` and ``initial_scale`` of the
        changed side; ``m``; ``seeds`` of it and ``seeds_before``; ``paired``; ``rate_before`` and
        ``rate_ratio``, the effective rate (mean over seeds) without the change and how many times
        as high it is with it. Higher learning rates are compared with the lowest one that gamma
        above 0 was trained at (else with the lowest), all else equal, and smaller initial weights
        with the largest such scale. Networks in which no weight is without a scale are left out.
        Then for each outcome (LSS, LSS on states of equal size, clean train and test accuracy) its
        mean ``<score>_before``, ``<score>_change``, the half-width of its 95% interval
        ``<score>_change_ci95``,
        ``<score>_p``, and ``<score>_p_adjusted``, Holm's over all rows of the same
        :data:`QUESTION`: gamma as it is, at a fixed rate, a higher rate without gamma;
        ``<score>_less``: whether the change is surely below half of what gamma does as it is, in a
        cell where that is sure (p < 0.05 by Student's test over pairs of seeds, Holm's over the
        rows of the question); null if it was not tested. A fixed rate is compared with the same
        gamma; a higher rate with the gamma that raises the rate most nearly as much. No rows
        unless some cell has more than gamma alone. A change is that of what training did: of a
        score minus its value before training, where both sides have it. Initial weights set part
        of LSS, and smaller ones change it before any step.
    """
    rates = rate_of_trials(results)
    pairs = list(_pairs(results, rates))
    keys = _stratum(results)
    numbers = [f"{name}{end}" for name in CLAIMED for end in ENDS]
    about = ["change", "start", "end", "learning_rate", "initial_scale", "points", "seeds"]
    about += ["seeds_before", "paired", "rate_before", "rate_ratio"]
    rows = [_row(pair, keys, rates) for pair in pairs]
    table = pd.DataFrame(rows, columns=[*keys, *about, *numbers])
    real = ["start", "end", "rate_before", "rate_ratio", *numbers]
    table = table.astype(dict.fromkeys(real, "float64"))  # also without rows
    for name in CLAIMED:
        table[f"{name}_p_adjusted"] = _holm(table[f"{name}_p"], table)
    for name, less in _less(table, pairs, keys).items():
        table[f"{name}_less"] = less
    order = [f"{n}{end}" for n in CLAIMED for end in (*ENDS, "_p_adjusted", "_less")]
    table = table[[*keys, *about, *order]]
    kind = pd.Categorical(table.change, KINDS, ordered=True)
    table = table.assign(kind=kind).sort_values([*keys, "points", "kind"], kind="stable")
    table = table.drop(columns="kind").rename(columns={"points": "m"}).reset_index(drop=True)
    return table if table.change.ne(AS_IS).any() else table.iloc[:0]


def any_effects(results: Results) -> bool:
    """Whether :func:`effects` has a row."""
    return any(pair.kind != AS_IS for pair in _pairs(results, rate_of_trials(results)))


def _stratum(results: Results) -> list[str]:
    return [name for name in cell_columns(results, points=False) if name not in AXES]


def _pairs(results: Results, rates: pd.Series) -> Iterator[_Pair]:
    trials = done(results)
    trials = trials[rates.reindex(trials.trial).notna().to_numpy()]
    fixed = trials.renormalise.astype("boolean").fillna(False).astype("bool")
    scale = trials.initial_scale.astype("float64").fillna(1)
    trials = trials.assign(renormalise=fixed, initial_scale=scale)
    for _, own in trials.groupby([*_stratum(results), "points"], dropna=False):
        for key, cells in own.groupby(AXES[1:]):
            if (cells.gamma == 0).any():
                yield from _changed(FIXED if key[0] else AS_IS, cells, "gamma", [0])
        free, decayed = (own[~own.renormalise & at] for at in (own.gamma == 0, own.gamma > 0))
        for scale, cells in free.groupby("initial_scale"):
            there = decayed.learning_rate[decayed.initial_scale == scale]
            yield from _changed(FASTER, cells, "learning_rate", there)
        for rate, cells in free.groupby("learning_rate"):
            there = decayed.initial_scale[decayed.learning_rate == rate]
            yield from _changed(SMALLER, cells, "initial_scale", there, largest=True)


def _changed(
    kind: str, cells: pd.DataFrame, axis: str, starts: Iterable[float], largest: bool = False
) -> Iterator[_Pair]:
    """Yield each value of a setting after the first of ``starts``, together with that one."""
    values = sorted(cells[axis].unique(), reverse=largest)
    known = set(starts)
    first = next((place for place, value in enumerate(values) if value in known), 0)
    for value in values[first + 1 :]:
        before, after = (cells[cells[axis] == v] for v in (values[first], value))
        yield _Pair(kind, before, after, values[first], value)


def _row(pair: _Pair, keys: list[str], rates: pd.Series) -> dict[str, Any]:
    x, y = pair.before, pair.after
    first = {n: y[n].iloc[0] for n in (*keys, "learning_rate", "initial_scale", "points")}
    before, after = (rates.reindex(side.trial).mean() for side in (x, y))
    row = first | {"change": pair.kind, "start": pair.start, "end": pair.end}
    row |= {"seeds": len(y), "seeds_before": len(x), "paired": same_seeds(x, y)}
    row |= {"rate_before": before, "rate_ratio": after / before}
    for name in CLAIMED:
        start = x[name].astype("float64")
        found = change_of(*_learned(pair, name), bool(row["paired"]))
        values = zip(ENDS, (start[np.isfinite(start)].mean(), *found), strict=True)
        row |= {f"{name}{end}": value for end, value in values}
    return row


def _learned(pair: _Pair, name: str) -> tuple[pd.Series, pd.Series]:
    """What training did to an outcome, by seed, on both sides: less its value before training.

    Where that is not known, as for accuracies, the outcome itself.
    """
    x, y = (side.set_index("seed") for side in (pair.before, pair.after))
    initial = f"{name}_initial"
    a, b = (side[name].astype("float64") for side in (x, y))
    if all(initial in side and side[initial].notna().all() for side in (x, y)):
        return a - x[initial].astype("float64"), b - y[initial].astype("float64")
    return a, b


def _less(table: pd.DataFrame, pairs: list[_Pair], keys: list[str]) -> dict[str, pd.Series]:
    """Whether each change is surely below half of gamma's, by outcome; null without a test."""
    p = pd.DataFrame(np.nan, table.index, list(CLAIMED))
    below = pd.DataFrame(False, table.index, list(CLAIMED))
    for place in table.index[table.change != AS_IS]:
        reference = _reference(table, place, keys)
        if reference is None or not (table.paired[place] and table.paired[reference]):
            continue
        for name, sign in CLAIMED.items():
            row = _of(table, reference)
            if not (row[f"{name}_p_adjusted"] < SURE and sign * row[f"{name}_change"] > 0):
                continue
            own, whole = (_differences(pairs[i], name) for i in (place, reference))
            left = (sign * (own - HALF * whole)).dropna().to_numpy("float64")
            if len(left):
                mean, _, p.loc[place, name] = student(left, scale=float(whole.abs().max()))
                below.loc[place, name] = mean < 0
    sure = {name: below[name] & (_holm(p[name], table) < SURE) for name in CLAIMED}
    return {name: sure[name].astype("boolean").mask(p[name].isna()) for name in CLAIMED}


def _holm(p: pd.Series, table: pd.DataFrame) -> pd.Series:
    """Correct the p values of an outcome for all rows of the same question."""
    questions = p.astype("float64").groupby(table.change.map(QUESTION))
    return questions.transform(lambda own: holm(own.to_numpy()))


def _reference(table: pd.DataFrame, place: int, keys: list[str]) -> int | None:
    """The row of gamma as it is that another row is compared with."""
    row = _of(table, place)
    same = table.change == AS_IS
    for name in [*keys, "points"]:
        same &= table[name].eq(row[name]) | (table[name].isna() & bool(pd.isna(row[name])))
    other = {FASTER: "learning_rate", SMALLER: "initial_scale"}.get(row["change"])
    for name in ("learning_rate", "initial_scale"):
        same &= table[name] == (row["start"] if name == other else row[name])
    rows = table[same]
    if row["change"] == FIXED:
        rows = rows[rows.end == row["end"]]
        return rows.index[0] if len(rows) else None
    far = (rows.rate_ratio / row["rate_ratio"]).map(math.log).abs().dropna()
    return far.idxmin() if len(far) else None


def _of(table: pd.DataFrame, place: int) -> dict[str, Any]:
    return {str(name): table[name][place] for name in table}


def _differences(pair: _Pair, name: str) -> pd.Series:
    x, y = _learned(pair, name)
    return (y - x).replace([np.inf, -np.inf], np.nan)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The effects as people read them: ``change ± half-width`` of each outcome as one text.

    A star marks an adjusted p below 0.05; "less" a change that is surely less than half of what
    gamma does as it is.
    """
    texts = table.loc[:, :"rate_ratio"]
    texts = texts.assign(rate_before=texts.rate_before.map(_short))
    texts["rate_ratio"] = texts.rate_ratio.map(_short)
    for name in CLAIMED:
        if table[f"{name}_change"].notna().any():
            texts[f"change of {heading(name)}"] = [_told(name, row) for _, row in table.iterrows()]
    return texts


def _short(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3g}"


def _told(name: str, row: pd.Series) -> str:
    less = row[f"{name}_less"]
    return number(name, row) + star(name, row) + (" less" if pd.notna(less) and less else "")
