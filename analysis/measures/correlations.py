"""Correlations of a sweep's scores with how well its networks work, in every scope."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.association import METHODS, RESAMPLES, adjusted, associations
from analysis.measures.cells import cell_columns, other_settings, varying
from analysis.measures.layout import plural
from analysis.measures.robustness import AUCS, alike, of_trials
from analysis.results import Results

OUTCOMES = ("test_accuracy", *AUCS)
GIVEN = " given test_accuracy"  # suffix of an outcome with test accuracy held fixed
SCORES = ("lss", "inverse_lss", "lsr", "ots", "gap", "energy", "geodesic_excess")
SAME_M = ("ots", "gap", "geodesic_excess")  # comparable at equal m only
PLACE = ["dataset", "layers", "stages"]
STRATUM = [*PLACE, "network", "setting"]
WITHIN = "within gamma"
SMALL = 10  # With fewer cells than this, a correlation supports no conclusion.
FEWEST = 3  # A stratum of fewer cells than this has no correlation.
FEWEST_SEEDS = 4  # Three seeds have only 6 orders, so p could not be below 1 / 6.


def correlations(
    results: Results, resamples: int = RESAMPLES, trials: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Correlation of each outcome with each score over the cells of a sweep, in every scope.

    Trials that differ only in their seed are averaged first, because replicates of one gamma are
    not independent (except in the scope ``within gamma``). Cells of different settings are not
    independent either: all cells of one recipe, depth or m have something in common. So each
    ``setting`` is a stratum of its own. Trials count if they are done, have not
    collapsed (:func:`left_out` counts the others), and have both numbers finite.

    Outcomes are test accuracy and, if it was measured, the mean accuracy under lesions, random
    noise, FGSM and PGD. A network that is better without noise is also better with a little of it,
    so each of these outcomes appears a second time, "given test_accuracy": the partial correlation
    with test accuracy held fixed (see :func:`analysis.measures.association.association`). Dividing
    by test accuracy instead would mislead, because a network that has learned nothing keeps all of
    its accuracy.

    Args:
        results: from :func:`analysis.results.load`, with ``trials``, and with the columns of
            ``robustness`` that :func:`analysis.measures.robustness.of_trials` needs.
        resamples: see :func:`analysis.measures.association.association`.
        trials: from that function, if it is already computed.

    Returns:
        Frame with one row per ``scope``, outcome, score and method. Scopes: each ``stratum``
        (dataset, layers, stages, network, setting); ``settings pooled`` if a network has several
        settings on a data set and K (a setting of fewer than 3 cells then has no row of its own);
        ``networks pooled`` and ``networks partial`` (given the network) if a data set, K and
        setting has several networks; ``all pooled`` and ``all partial`` (given the stratum) if
        there are several data sets or K; ``within gamma`` of each stratum with several seeds: over
        trials, given the cell, so that only differences between seeds count and gamma cannot act on
        both numbers. ``setting`` is m and the other settings that differ within a network, as text.
        ``n`` cells (there: trials), ``trials`` behind them, distinct ``gammas``; ``value``,
        ``low``, ``high`` and ``p`` of the association.
        Pooled rows have no p: cells of one network, or of one setting, are no independent draws, so
        p is below 0.05 in a third of the sweeps in which only the networks differ. For the same
        reason ``all partial`` has no p if there are several settings: they share seeds.
        Rows within gamma have no interval, since cells of a few seeds cannot be resampled. Their p
        value permutes seeds, in the same way at all gammas, because a seed has the same initial
        weights and order of data at every gamma. This needs the same seeds in all cells. So if
        trials are missing, only the seeds that all cells have are used, or fewer cells if that
        keeps more trials (see :func:`shared`). With fewer than 4 such seeds all trials are used,
        and there is no p.
        ``p_adjusted`` is Benjamini and Hochberg's, over all p values of the table: among the
        rows where it is below 0.05, at most one in twenty should be due to chance. Rows overlap, so
        this is a guide and not a proof. ``warning`` lists the caveats of a row: few cells, pooled
        signs that differ from those within networks (Simpson's paradox), networks that differ in
        sign, several m (OTS, gap and the excess have no value then), evaluations with several
        settings or m (no value either), settings pooled, few seeds, seeds that not all cells have.
    """
    trials = of_trials(results) if trials is None else trials
    trials = trials[~trials.collapsed.eq(True)]
    trials = trials.assign(setting=_setting(trials, varying(results.trials)))
    trials = trials.assign(stratum=trials.groupby(STRATUM, dropna=False).ngroup())
    strata = trials.drop_duplicates("stratum").set_index("stratum")[STRATUM].sort_index()
    cell = ["stratum", "setting", *cell_columns(results)]
    replicated = set(trials[trials.duplicated(cell)].stratum)
    sizes = trials.drop_duplicates(cell).groupby("stratum").size()
    cells = {}
    for outcome in OUTCOMES:
        if outcome not in trials or trials[outcome].isna().all():
            continue
        for given in ("", GIVEN) if outcome in AUCS else ("",):
            for score in SCORES:
                frame = _cells(trials, cell, outcome, score, bool(given))
                cells[outcome + given, score] = frame
    rows: list[dict[str, Any]] = []
    for scope, members, given in _scopes(strata.assign(cells=sizes)):
        if scope["scope"] == WITHIN and not replicated.issuperset(members):
            continue
        for (outcome, score), (single, means) in cells.items():
            frame = single if scope["scope"] == WITHIN else means
            part = frame[frame.stratum.isin(members)]
            row = scope | {"members": members, "outcome": outcome, "score": score}
            rows += _rows(row, part, given, resamples)
    _compare_signs(rows)
    numbers = ["n", "trials", "gammas", "value", "low", "high", "p", "p_adjusted"]
    columns = ["scope", *STRATUM, "outcome", "score", "method", *numbers, "warning"]
    table = pd.DataFrame(rows, columns=[*columns, "notes"])
    table["warning"] = table.notes.map("; ".join)
    table["p_adjusted"] = adjusted(table.p)
    return table[columns].astype({"stages": "Int64"})


def left_out(results: Results) -> dict[str, int]:
    """Count the trials that no correlation uses: stopped by ASHA, diverged, failed, collapsed."""
    status, lost = results.trials.status, results.trials.collapsed.eq(True)
    counts = {name: int((status == name).sum()) for name in ("stopped", "diverged")}
    counts["failed"] = int((~status.isin(["done", "stopped", "diverged"])).sum())
    return counts | {"collapsed": int(((status == "done") & lost).sum())}


def shared(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of cells that all have the same seeds, as a permutation of seeds needs it.

    A cell with few seeds would cost all other cells their seeds. So of all choices "the cells with
    at least k seeds, and the seeds that all of these have", take the one with the most trials among
    those with at least :data:`FEWEST_SEEDS` seeds. The choice does not look at scores.

    Args:
        trials: with ``cell`` and ``seed``.

    Returns:
        Some of the rows; none if there are too few seeds.

    >>> one = pd.DataFrame({"cell": 0, "seed": range(5)})
    >>> two = pd.DataFrame({"cell": 1, "seed": range(1, 6)})
    >>> len(shared(pd.concat([one, two]))), len(shared(pd.concat([one, two[:2]])))
    (8, 5)
    """
    trials = trials.drop_duplicates(["cell", "seed"])
    has = pd.crosstab(trials.cell, trials.seed) > 0  # (cells, seeds)
    best, most = trials.iloc[:0], 0
    for k in has.sum(axis=1).unique():
        cells = has[has.sum(axis=1) >= k]
        seeds = has.columns[cells.all()]
        if len(seeds) >= FEWEST_SEEDS and len(cells) * len(seeds) > most:
            most = len(cells) * len(seeds)
            best = trials[trials.cell.isin(cells.index) & trials.seed.isin(seeds)]
    return best


def _setting(trials: pd.DataFrame, names: list[str]) -> list[str] | None:
    """For each trial m and other settings as text, those that differ within a network, if any."""
    groups = trials.groupby([*PLACE, "network"], dropna=False)
    names = [
        name
        for name in ("points", *names)
        if (groups[name].nunique(dropna=name == "momentum") > 1).any()
    ]
    return other_settings(trials, names) if names else None


def _cells(
    trials: pd.DataFrame, cell: list[str], outcome: str, score: str, given: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials that have all the numbers, with their ``cell``, and the means of each cell.

    ``evaluation`` holds the settings and m of the evaluation. Different ones are not averaged.
    """
    trials = trials.assign(evaluation=alike(trials, outcome))
    numbers = [outcome, score, "test_accuracy"] if given else [outcome, score]
    every = trials[np.isfinite(trials[numbers].astype("float64")).all(axis=1)]
    group = every.groupby([*cell, "evaluation"], dropna=False)
    means = group[numbers].mean().assign(trials=group.size()).reset_index()
    return every.assign(trials=1, cell=group.ngroup()), means.assign(cell=means.index)


def _rows(
    row: dict[str, Any], part: pd.DataFrame, given: str, resamples: int
) -> list[dict[str, Any]]:
    """Correlate the cells of one scope, given a column if any: a row for each method."""
    outcome, score, within_gamma = row["outcome"], row["score"], row["scope"] == WITHIN
    left_out, permuted = 0, None
    if within_gamma and len(common := shared(part)):
        left_out = len(part) - len(common)
        part, permuted = common, common.seed.to_numpy()
    several = {
        "several m": score in SAME_M and part.points.nunique() > 1,
        "several settings or m of the evaluation": part.evaluation.nunique() > 1,
    }
    without_p = {
        "settings share seeds: no p": part.setting.nunique(dropna=False) > 1,
        f"fewer than {FEWEST_SEEDS} shared seeds: no p": within_gamma and permuted is None,
    }
    x, y = (part[name].to_numpy("float64") for name in (outcome.removesuffix(GIVEN), score))
    strata = part[given].to_numpy() if given else None
    held = part.test_accuracy.to_numpy("float64") if outcome.endswith(GIVEN) else None
    if any(several.values()):
        y = y * np.nan
    found = associations(x, y, strata, METHODS, resamples, held, not within_gamma, permuted)
    if row["scope"].endswith("pooled") or any(without_p.values()):
        found = {method: values | {"p": np.nan} for method, values in found.items()}
    row = row | {"trials": int(part.trials.sum()), "gammas": part.gamma.nunique()}
    notes = [f"n < {SMALL}"] if len(part) < SMALL else []
    notes += [name for name, is_so in (several | without_p).items() if is_so]
    if left_out:
        notes.append(f"without {plural(left_out, 'trial')} of seeds that not all cells have")
    return [
        row | {"method": method} | values | {"n": len(part), "notes": list(notes)}
        for method, values in found.items()
    ]


def _scopes(strata: pd.DataFrame) -> Iterator[tuple[dict[str, Any], tuple[int, ...], str]]:
    """Yield for each scope its first columns, its strata, and the column that is held fixed.

    Args:
        strata: with the columns of STRATUM, and the number of ``cells`` of each.
    """
    places = strata.groupby(PLACE, dropna=False)
    fixed = {"pooled": "", "partial": "stratum"}
    for key, every in places:
        place = dict(zip(PLACE, key, strict=True))
        alone = ~every.duplicated("network", keep=False)  # networks with one setting
        for setting, group in every[alone | (every.cells >= FEWEST)].groupby(
            "setting", dropna=False
        ):
            here = place | {"setting": setting}
            for stratum, network in zip(group.index, group.network, strict=True):
                yield {"scope": "stratum", **here, "network": network}, (stratum,), ""
            if len(group) > 1:
                for word, given in fixed.items():
                    scope = {"scope": f"networks {word}", **here, "network": word}
                    yield scope, tuple(group.index), given
            for stratum, network in zip(group.index, group.network, strict=True):
                yield {"scope": WITHIN, **here, "network": network}, (stratum,), "cell"
        for network, group in every[~alone].groupby("network"):
            scope = {"scope": "settings pooled", **place, "network": network, "setting": "pooled"}
            yield scope, tuple(group.index), ""
    if places.ngroups > 1:
        for word, given in fixed.items():
            yield {"scope": f"all {word}"}, tuple(strata.index), given


def _compare_signs(rows: list[dict[str, Any]]) -> None:
    """Add notes on signs: pooling turns them round, or strata differ.

    Simpson's paradox is a pooled sign opposite to that of all strata. It is none if a stratum has
    no correlation, or too few cells for one.
    """

    def what(row: dict[str, Any]) -> tuple[str, ...]:
        return row["outcome"], row["score"], row["method"]

    def sign(row: dict[str, Any]) -> int:
        return int(row["value"] > 1e-12) - int(row["value"] < -1e-12)  # 0 also for NaN

    single = {(row["members"], what(row)): row for row in rows if row["scope"] == "stratum"}
    for row in rows:
        if row["scope"] in ("stratum", WITHIN):
            continue
        every = (single.get(((member,), what(row))) for member in row["members"])
        within = [one for one in every if one]  # a stratum of few cells may have no row
        differ = len({sign(r) for r in within} - {0}) > 1
        against = [r for r in within if sign(r) * sign(row) < 0]
        networks = row["scope"].startswith("networks")
        if row["scope"].endswith("pooled") and len(against) == len(row["members"]):
            where = f"all {len(against)} strata"
            if networks:
                where = " and ".join(r["network"] for r in against)
                for r in against:
                    r["notes"].append("Simpson's paradox: opposite when pooled")
            row["notes"].append(f"Simpson's paradox: opposite within {where}")
        if differ:
            row["notes"].append(f"{'networks' if networks else 'strata'} differ in sign")
            if row["scope"] == "networks pooled":
                for r in within:
                    r["notes"].append("networks differ in sign")
