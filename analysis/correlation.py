"""Do a sweep's scores go with how well its networks work? Network by network, point by point.

    python -m analysis.correlation runs/demo
    python -m analysis.correlation runs/demo --table points --format csv

Table "correlations": each score of the networks against their test accuracy, and against their
accuracy under lesions, noise and attacks where that was measured. Table "points": a point's own
score against whether the network has it right. Neither says that one causes the other.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.measures.association import METHODS, RESAMPLES, associations
from analysis.measures.cells import CELL, done, varying
from analysis.measures.layout import as_text, fold, heading, network_name, readable
from analysis.measures.robustness import AUCS, settings_key
from analysis.results import Results, ResultsError, load, script

OUTCOMES = ("test_accuracy", *AUCS)
GIVEN = " given test_accuracy"  # ends the name of an outcome with test accuracy held fixed
SCORES = ("lss", "inverse_lss", "lsr", "ots", "gap", "energy")
SAME_M = ("ots", "gap")  # compare at equal m only
STRATUM = ["dataset", "layers", "stages", "network"]
RANK = ["scope", *STRATUM, "outcome"]  # what a correlation is of
SMALL = 10  # cells: below this a correlation is not worth a conclusion
COLUMNS = ("trial", "stage", "label", "prediction", "lss", "lsr")  # of samples: see points()
POINT_SCORES = ("lss", "lsr")


def correlations(results: Results, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Correlation of each outcome with each score over the cells of a sweep, in every scope.

    A cell is what trials have in common that differ in their seed alone: they are averaged
    first, since replicates of one gamma are not independent. Trials count that are done and
    have not collapsed (:func:`left_out` counts the others), and whose two numbers are finite.

    Outcomes are test accuracy and, where it was measured, the mean accuracy under lesions, random
    noise, FGSM and PGD. A network that is better without noise is better with a little of it,
    too, so each of these comes a second time, "given test_accuracy": the partial correlation
    with test accuracy held fixed (see :func:`~analysis.measures.association.association`). That is
    used rather than the share of accuracy kept, of which a network that has learned nothing keeps
    all.

    Args:
        results: of :func:`analysis.results.load`; ``trials`` is enough.
        resamples: see :func:`~analysis.measures.association.association`.

    Returns:
        Frame with a row per ``scope``, outcome, score and method. Scopes: each ``stratum``
        (dataset, layers, stages, network); ``networks pooled`` and ``networks partial`` (given
        the network) where a data set and K has several; ``all pooled`` and ``all partial``
        (given the stratum) where there are several of those. ``n`` cells, ``trials`` behind
        them, distinct ``gammas``; ``value``, ``low``, ``high`` and ``p`` of
        :func:`~analysis.measures.association.association`.
        ``p_adjusted`` is Benjamini and Hochberg's, over all p values of the table (72 for plain
        networks and ResNets with one K and data set; 120 more for each further outcome): of the
        rows where it is below 0.05, at most one in twenty should be chance. Rows overlap, so it
        is a guide, not a proof.
        ``warning`` names what not to overlook: few cells, pooled signs that are not those within
        networks (Simpson's paradox), networks that differ in sign, several m (OTS and gap have
        no value there), evaluations with several settings (no value either).
    """
    trials = _finished(results)
    trials = trials.assign(stratum=trials.groupby(STRATUM, dropna=False).ngroup())
    strata = trials.drop_duplicates("stratum").set_index("stratum")[STRATUM].sort_index()
    cell = ["stratum", *CELL, *varying(results.trials), "points"]
    cells = {
        (outcome + given, score): _cells(trials, cell, outcome, score, bool(given))
        for outcome in OUTCOMES
        if outcome in trials and trials[outcome].notna().any()
        for given in (["", GIVEN] if outcome in AUCS else [""])
        for score in SCORES
    }
    rows: list[dict[str, Any]] = []
    for scope, members, given in _scopes(strata):
        for (outcome, score), frame in cells.items():
            part = frame[frame.stratum.isin(members)]
            several = {"several m": score in SAME_M and part.points.nunique() > 1}
            several["several settings"] = part.setting.nunique() > 1
            x, y = (part[name].to_numpy("float64") for name in (outcome.removesuffix(GIVEN), score))
            within = part.stratum.to_numpy() if given else None
            held = part.test_accuracy.to_numpy("float64") if outcome.endswith(GIVEN) else None
            y = y * np.nan if any(several.values()) else y
            found = associations(x, y, within, METHODS, resamples, held)
            row = scope | {"members": members, "outcome": outcome, "score": score}
            row |= {"trials": int(part.trials.sum()), "gammas": part.gamma.nunique()}
            notes = [f"n < {SMALL}"] * (len(part) < SMALL) + [n for n in several if several[n]]
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


def _finished(results: Results) -> pd.DataFrame:
    trials = done(results)
    return trials[~trials.collapsed.eq(True)]


def _cells(
    trials: pd.DataFrame, cell: list[str], outcome: str, score: str, given: bool
) -> pd.DataFrame:
    """Means over the trials of each cell that have all the numbers, and how many these are.

    ``setting`` is that of an evaluation; trials of a cell with other settings are apart.
    """
    trials = trials.assign(setting=settings_key(trials, outcome) if outcome in AUCS else "")
    numbers = list(dict.fromkeys([outcome, score, *["test_accuracy"] * given]))
    every = trials[np.isfinite(trials[numbers].astype("float64")).all(axis=1)]
    group = every.groupby([*cell, "setting"], dropna=False)
    return group[numbers].mean().assign(trials=group.size()).reset_index()


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

    def sign(row: dict[str, Any]) -> int:
        return int(row["value"] > 1e-12) - int(row["value"] < -1e-12)  # 0 for NaN, too

    single = {(row["members"], what(row)): row for row in rows if row["scope"] == "stratum"}
    for row in rows:
        if row["scope"] == "stratum":
            continue
        within = [single[(member,), what(row)] for member in row["members"]]
        differ = len({sign(r) for r in within} - {0}) > 1
        against = [r for r in within if sign(r) * sign(row) < 0]
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
        and not collapsed), ``left_out``, those without a wrong or without a right point, ``m``
        and ``wrong`` points of a trial (means over all of these trials; points that never move
        have no score and are not among them), ``auc``, its mean over cells, seeds averaged
        first; ``low`` and ``high``, its 95% t-interval; ``p`` of the t-test against 0.5;
        ``p_adjusted`` (Benjamini and Hochberg) over the table. These tests ask whether other
        networks would say the same of the same points, not whether other points would.
    """
    cell = [*CELL, *varying(results.trials), "points"]
    trials = _finished(results)[["trial", *cell]]
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
    """The table for ``md`` and ``latex``, without rows that have no cell."""
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
        shown[name] = [outcome_heading(v) for v in shown[name]]
    return shown


def outcome_heading(name: str) -> str:
    """The name of an outcome, or of a score, as people read it."""
    if name.endswith(GIVEN):
        return f"{heading(name.removesuffix(GIVEN))} given accuracy"
    return heading(name)


def ranks(table: pd.DataFrame) -> dict[str, Any]:
    """Spearman's correlations as the page shows them: a row a scope, LSS in full, others short."""
    chosen = table[table.method == "spearman"]
    rows = []
    for _, group in chosen.groupby(RANK, sort=False, dropna=False):
        scores = {row["score"]: row for row in group.to_dict("records")}
        lss = scores["lss"]
        row = {name: lss[name] for name in RANK}
        row |= {name: lss[name] for name in ("n", "trials", "low", "high", "p", "p_adjusted")}
        row["lss"] = lss["value"]
        for name in SCORES[1:]:
            other = scores[name]
            star = "*" if other["p_adjusted"] < 0.05 else ""
            row[name] = "" if pd.isna(other["value"]) else f"{other['value']:+.2f}{star}"
        rows.append(row | {"warning": lss["warning"]})
    order = [*RANK, "n", "trials", "lss", "low", "high", "p", "p_adjusted"]
    shown = pd.DataFrame(rows, columns=[*order, *SCORES[1:], "warning"])
    shown["outcome"] = shown.outcome.map(outcome_heading)
    everywhere = ["dataset", "layers", "stages"]  # empty in the rows of all strata together
    shown[everywhere] = shown[everywhere].fillna(shown[everywhere].agg(_only))
    folded, same = fold(shown)
    if shown.outcome.nunique() == 1:
        folded = folded.drop(columns="outcome", errors="ignore")
    for name in ("lss", "low", "high"):
        folded[name] = folded[name].map(lambda v: "" if pd.isna(v) else f"{v:+.2f}")
    return {"rows": readable(folded).replace("nan", ""), "same": same}


def _only(column: pd.Series) -> Any:
    """The one value that a column has, else null."""
    values = column.dropna().unique()
    return values[0] if len(values) == 1 else None


def correlation_sentence(table: pd.DataFrame) -> str:
    """Test accuracy and LSS in one sentence, with what not to make of it.

    Args:
        table: of :func:`correlations`.
    """
    chosen = table[(table.outcome == "test_accuracy") & (table.score == "lss")]
    chosen = chosen[(chosen.method == "spearman") & chosen.value.notna()]
    known = chosen[chosen.scope == "stratum"]
    if not len(known):
        return "Too few cells in any stratum for a correlation of test accuracy with LSS."
    many = known.dataset.nunique() > 1
    parts = [
        f"{row['dataset'] + ', ' if many else ''}K = {row['stages']}, "
        f"{network_name(row['network'])} {row['value']:+.2f} (n = {row['n']})".replace(
            "-", "\N{MINUS SIGN}"
        )
        for row in known.to_dict("records")
    ]
    shown = parts[:8] + ([f"{len(parts) - 8} more in the table"] if len(parts) > 8 else [])
    said = f"Spearman correlation of test accuracy with LSS over cells: {'; '.join(shown)}."
    if known.n.min() < SMALL:
        said += f" With fewer than {SMALL} cells in a stratum these prove nothing yet."
    if chosen.warning.str.contains("Simpson").any():
        said += " Pooled over networks the sign is another one (Simpson's paradox): do not pool."
    return said


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
    script(main)
