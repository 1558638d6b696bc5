"""What a search found: the best trial for one objective, the Pareto front for several.

Like the search itself, this uses only trials that are done and have a finite number for every
objective. Of a search with several seeds it compares cells that have all of them, by their means.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.measures.cells import CELL, configuration, done, varying, without_collapsed
from analysis.measures.layout import heading, readable
from analysis.results import Results, ResultsError
from scoring import places, schemas, storage

BETTER = {"max": "higher", "min": "lower"}
SAMPLERS = {"tpe": "TPE"}


class Search(NamedTuple):
    """The settings of a sweep's search."""

    method: str
    sampler: str
    trials: int  # the requested number
    objectives: dict[str, str]  # column of the trials table -> max to maximize it, min to minimize
    stopped_by: str = ""  # the metric by which trials were stopped early, if they were
    seeds: int = 1  # of each cell; objectives are means over them
    ended: tuple[int, ...] = ()  # how many seeds the cells have that get no more, but not all
    suggested: frozenset[str] = frozenset()  # its trials; none if they are not known

    @property
    def planned(self) -> int:
        """How many trials there will be in the end; with several seeds, at most."""
        return self.trials * self.seeds - sum(self.seeds - count for count in self.ended)


def sweep_file(path: str | Path, tracking_uri: str | None = None) -> bytes | None:
    """The file that says what a sweep has planned; None in MLflow, or if there is none.

    The arguments are those of :func:`read_search`.
    """
    if tracking_uri:
        return None
    return storage.read_file(str(path).rstrip("/") or "/", places.SWEEP)


def read_search(path: str | Path, tracking_uri: str | None = None) -> Search | None:
    """The search of a sweep; None if it was not a search, or if its results come from MLflow.

    Args:
        path: as for :func:`analysis.results.load`.
        tracking_uri: MLflow's address, if the results come from there.

    Raises:
        ResultsError: the folder's description of the search cannot be read.
    """
    content = sweep_file(path, tracking_uri)
    if content is None:
        return None
    file = f"{str(path).rstrip('/')}/{places.SWEEP}"
    try:
        sweep = json.loads(content)
        asked = sweep.get("search")
        if asked is None:
            return None
        objectives = dict(asked["objectives"])
        metric = (sweep.get("scheduler") or {}).get("metric", "")
        search = Search(asked["method"], asked["sampler"], int(asked["trials"]), objectives, metric)
        ended = tuple(map(int, (sweep.get("ended") or {}).values()))
        search = search._replace(seeds=int(sweep.get("seeds") or 1), ended=ended)
        search = search._replace(suggested=frozenset(sweep.get("ids") or ()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"{file}: its search cannot be read: {error!r}"
        raise ResultsError(message) from error
    known = {field.name for field in schemas.TRIALS if field.type == schemas.REAL}
    for name, better in objectives.items():
        if name not in known or better not in BETTER:
            raise ResultsError(
                f"{file}: objective {name!r}: {better!r}; should be a column of "
                "numbers of the trials table, with max or min"
            )
    return search


def on_front(values: np.ndarray) -> np.ndarray:
    """Which points are on the Pareto front, that is, not dominated by another point.

    A point dominates another if it is nowhere worse and somewhere better. Equal points do not
    dominate each other, so they are all on the front or none is.

    Args:
        values: numbers of shape (n, k) without NaN: k objectives of n points, smaller is better.

    Returns:
        Booleans of shape (n,). With one objective, whether a point has the smallest value.

    >>> on_front(np.array([[1, 4], [2, 2], [2, 2], [3, 2], [4, 1]]))
    array([ True,  True,  True, False,  True])
    """
    points, which = np.unique(values, axis=0, return_inverse=True)  # by the first objective
    if values.shape[1] <= 2:  # on the front, the last objective falls from point to point
        lowest = np.minimum.accumulate(points[:, -1])
        front = np.append(True, points[1:, -1] < lowest[:-1])[: len(points)]
    else:
        front = np.array([(points <= p).all(axis=1).sum() == 1 for p in points], dtype=bool)
    return front[which.reshape(-1)]


def ranked(trials: pd.DataFrame, objectives: Mapping[str, str]) -> pd.DataFrame:
    """Sort trials by the first objective, best first, and add ``front``: on the Pareto front?

    The next objective breaks ties.
    """
    signs = [1.0 if better == "min" else -1.0 for better in objectives.values()]
    values = trials[[*objectives]].to_numpy("float64") * signs  # (n, k), smaller is better
    ranks = np.lexsort(values.T[::-1])
    return trials.assign(front=on_front(values)).iloc[ranks]


def candidates(results: Results, search: Search) -> pd.DataFrame:
    """Done trials with finite objectives, :func:`ranked`. Collapsed ones have no OTS and no gap.

    With several seeds, one row for each cell that has them all.
    """
    trials = without_collapsed(_own(results, search)).replace([np.inf, -np.inf], np.nan)
    known = trials.dropna(subset=list(search.objectives))
    return ranked(averaged(known, search.seeds), search.objectives)


def _own(results: Results, search: Search) -> pd.DataFrame:
    """The done trials of a search, without those of another sweep in its folder."""
    trials = done(results)
    return trials[trials.trial.isin(search.suggested)] if search.suggested else trials


def averaged(trials: pd.DataFrame, seeds: int) -> pd.DataFrame:
    """One row for each cell that has all its seeds: that of its first seed, with means in it.

    Args:
        trials: rows of trials.
        seeds: how many a cell has; with 1 nothing changes.
    """
    if seeds == 1 or not len(trials):
        return trials
    fields = dict.fromkeys([*CELL, *configuration(trials)])
    cell = [name for name in fields if name != "seed"]
    trials = trials.sort_values("seed", kind="stable")
    groups = trials.groupby(cell, dropna=False, sort=False)
    numbers = [name for name in trials.select_dtypes("float") if name not in cell]
    others = trials.drop(columns=numbers)
    means = others.join(groups[numbers].transform("mean"))[[*trials]]
    return means[groups.trial.transform("size") == seeds].drop_duplicates(cell)


def search_table(results: Results, search: Search) -> pd.DataFrame:
    """The :func:`candidates`, best first; with several objectives only the Pareto front.

    Returns:
        Frame with the trial, the columns of the configuration that vary in the sweep, m, and
        the objectives, each followed by its baselines if it has any. If the search chose by the
        validation split, the test accuracy, which it did not use, comes last. With several seeds,
        numbers are means over them, and the trial is that with the first one.
    """
    found = candidates(results, search)
    if len(search.objectives) > 1:
        found = found[found.front]
    own = [name for name in _fields(results) if name != "seed" or search.seeds == 1]
    columns = ["trial", *own, "points"]
    for name in search.objectives:
        columns += [n for n in (name, f"{name}_initial", f"{name}_random") if n in found]
    if by_validation(search) and "test_accuracy" not in columns:
        columns.append("test_accuracy")
    return found[columns].rename(columns={"points": "m"}).reset_index(drop=True)


def by_validation(search: Search) -> bool:
    """Whether a search chose by the validation split alone, so that the test split is unused.

    That holds for stopping trials early, too.
    """
    used = [*search.objectives, *filter(None, [search.stopped_by])]
    return all(name.startswith("validation_") for name in used)


def _fields(results: Results) -> list[str]:
    """Columns of the configuration that take several values, without m."""
    own = [n for n in (*CELL, "seed") if results.trials[n].nunique(dropna=False) > 1]
    return own + varying(results.trials)


def search_sentence(results: Results, search: Search) -> str:
    """Describe the search: its objectives, its progress, and the best trials so far."""
    found = candidates(results, search)
    count = len(_own(results, search))
    sampler = SAMPLERS.get(search.sampler, search.sampler)
    aims = [f"{BETTER[way]} {heading(name)}" for name, way in search.objectives.items()]
    said = f"Search by {search.method.capitalize()}'s {sampler} sampler for {' and '.join(aims)}: "
    if search.seeds > 1:
        said += (
            f"{search.trials} cells with {search.seeds} seeds each asked for, {count} trials done, "
            f"{len(found)} cells with all seeds, compared by their means"
        )
        if fewer := len(search.ended):
            said += f", {fewer} {'cell' if fewer == 1 else 'cells'} ended after fewer seeds"
    else:
        said += f"{search.trials} trials asked for, {count} done"
        if lost := count - len(found):
            names = " or ".join(heading(name) for name in search.objectives)
            said += f", {lost} of them left out because they have no finite {names}"
    if not len(found):
        return said + "."
    if len(search.objectives) > 1:
        what = "trial" if search.seeds == 1 else "cell"
        return (
            f"{said}. On the Pareto front: {found.front.sum()} of {len(found)} {what}s. No {what} "
            "is at least as good as one of them in every objective and better in one."
        )
    table = search_table(results, search)
    best = readable(table.head(1)).iloc[0]
    parts = [f"{name} = {text}" for name, text in best.items() if text and name != "trial"]
    equal = f" and {found.front.sum() - 1} equal to it" if found.front.sum() > 1 else ""
    unused = " The test split had no part in this choice." if by_validation(search) else ""
    which = "trial" if search.seeds == 1 else "the cell of trial"
    return f"{said}. Best: {which} {best.trial}{equal} ({', '.join(parts)}).{unused}"
