"""A sweep as a table: a row per cell, means and 95% intervals over seeds, nulls beside them.

Command: ``python -m analysis.tables runs/demo --format csv``.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.results import Results, ResultsError, load
from scoring.schemas import CONFIG

CELL = ["dataset", "stages", "layers", "network", "gamma"]
COUNTS = [  # not shown if all are 0
    *("stopped", "diverged", "failed"),
    *("collapsed", "without_ots", "ties"),
]
SCORES = [
    *("test_accuracy", "lss", "ots", "clean_train_accuracy", "train_accuracy"),
    *("inverse_lss", "lsr", "gap"),
]
NULLS = {
    "lss": ["lss_initial", "lss_random"],
    "ots": ["ots_initial", "ots_random"],
    "gap": ["gap_initial"],
}

HEADINGS = {
    "stages": "K",
    "gamma": "γ",
    "points": "m",
    "train_accuracy": "running train accuracy",
    "lss": "LSS",
    "lss_initial": "LSS at init.",
    "lss_random": "√n",
    "inverse_lss_initial": "1/LSS at init.",
    "lsr_initial": "LSR at init.",
    "inverse_lss": "1/LSS",
    "lsr": "LSR",
    "ots": "OTS",
    "ots_initial": "OTS at init.",
    "ots_random": "1/m",
    "gap_initial": "gap at init.",
    "rho": "Spearman ρ",
    "low": "95% from",
    "high": "95% to",
    "p": "permutation p",
}
DECIMALS = {"lss": 2, "lsr": 2, "inverse_lss": 3, "ots": 3, "gap": 3, "rho": 2, "low": 2, "high": 2}


def varying(trials: pd.DataFrame) -> list[str]:
    """Columns of the configuration that take several values, without those of a cell, the
    seed, and m (always shown)."""
    names = [field.name for field in CONFIG]
    names = [n for n in names if n not in (*CELL, "points")]
    return [name for name in names if trials[name].nunique(dropna=False) > 1]


def mean_interval(frame: pd.DataFrame, by: list[str], scores: Sequence[str]) -> pd.DataFrame:
    """Means over the rows of each group, with the half-width of their 95% t-interval.

    Args:
        frame: rows to average; NaN are left out of a mean, and of its n.
        by: columns that make a group.
        scores: columns to average.

    Returns:
        Frame indexed by ``by``; for each score its mean and ``<score>_ci95``, which is
        t(0.975, n - 1) s / sqrt(n), and NaN where n < 2.
    """
    group = frame.replace([np.inf, -np.inf], np.nan).groupby(by, observed=True, dropna=False)
    means = frame.groupby(by, observed=True, dropna=False)[list(scores)].mean()
    n, deviation = group[list(scores)].count(), group[list(scores)].std()
    half = deviation * n**-0.5 * stats.t.ppf(0.975, np.where(n > 1, n - 1, np.nan))
    return means.join(half.where(np.isfinite(means)).add_suffix("_ci95"))


def summary(results: Results) -> pd.DataFrame:
    """One row per cell of the sweep: what the trials that differ in their seed alone gave.

    Args:
        results: of :func:`analysis.results.load`.

    Returns:
        Frame with the cell (dataset, stages, layers, network, gamma, any other column of the
        configuration that varies in the sweep, m), ``seeds`` (trials done), ``stopped`` (early,
        by ASHA), ``diverged``, ``failed``, ``collapsed`` (done, but in no mean of OTS and gap),
        ``without_ots`` (done, but not measured), then each score's mean over the trials that are
        done with the half-width of its 95% t-interval (``_ci95``; NaN with one seed), and beside
        LSS, OTS and gap their nulls: the value at initialisation, sqrt(n) and 1/m.
        ``suboptimality`` is the largest of the cell: no trial's W2^2 is a larger share above the
        optimum. OTS compares at equal m only.
    """
    cell = [*CELL, *varying(results.trials), "points"]
    trials = without_collapsed(results.trials).astype({"dataset": "str", "network": "str"})
    ended, collapsed = trials.status == "done", trials.collapsed.eq(True)
    count = {
        "seeds": ended,
        "stopped": trials.status == "stopped",
        "diverged": trials.status == "diverged",
        "failed": ~trials.status.isin(["done", "stopped", "diverged"]),
        "collapsed": ended & collapsed,
        "without_ots": ended & ~collapsed & trials.ots.isna(),
    }
    groups = [trials[name] for name in cell]
    counts = pd.DataFrame(count).groupby(groups, dropna=False).sum()
    nulls = [name for names in NULLS.values() for name in names]
    table = counts.join(mean_interval(trials[ended], cell, [*SCORES, *nulls]))
    table = table.join(trials[ended].groupby(cell, dropna=False)["suboptimality"].max())
    columns = [*cell, *count]
    for score in SCORES:
        columns += [score, f"{score}_ci95", *NULLS.get(score, [])]
    return table.reset_index()[[*columns, "suboptimality"]].rename(columns={"points": "m"})


def without_collapsed(frame: pd.DataFrame) -> pd.DataFrame:
    """Trials or stages with NaN for the OTS and the gap of those that have collapsed.

    Any matching of equal points costs the same, so their gap of 1 says nothing.
    """
    lost = frame.collapsed.eq(True)
    return frame.assign(ots=frame.ots.mask(lost), gap=frame.gap.mask(lost))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: texts, plain headings, ``mean ± half-width`` in one column.

    An OTS that is missing because its trials have collapsed reads "collapsed".
    """
    shown = {}
    for name in table.columns:
        if name.endswith("_ci95"):
            continue
        texts = [_text(name, value) for value in table[name]]
        if f"{name}_ci95" in table:
            halves = [_text(name, half) for half in table[f"{name}_ci95"]]
            texts = [f"{t} ± {h}" if h else t for t, h in zip(texts, halves, strict=True)]
        if name == "ots" and "collapsed" in table:
            lost = table.collapsed.fillna(0).astype("bool")
            texts = [t or "collapsed" * c for t, c in zip(texts, lost, strict=True)]
        shown[HEADINGS.get(name, name.replace("_", " "))] = texts
    return pd.DataFrame(shown, dtype="str")


def _text(name: str, value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, int | float | np.number):
        return "" if pd.isna(value) else str(value)  # type: ignore[arg-type]
    if np.isnan(value):
        return ""
    kind = name.removesuffix("_initial")
    if name == "lss_random" or kind in DECIMALS or kind.endswith("accuracy"):
        return f"{value:.{DECIMALS.get(kind, 2 if name == 'lss_random' else 3)}f}"
    if name == "suboptimality":
        return f"{value:.1g}"
    if name == "p" or name == "ots_random":
        return f"{value:.2g}"
    if name.endswith("seconds"):
        return f"{value:.1f}"
    return f"{value:.6g}"


def fold(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Take out columns of the configuration that hold one value, and what is zero or unknown.

    That is counts that are zero in every row, and what is null in all of them (an ``error``).

    Returns:
        The narrower table, and the values taken out as a phrase ("dataset digits, K 1").
    """
    names = [n for n in (*CELL, *(f.name for f in CONFIG), "m") if n in table]
    same = [n for n in dict.fromkeys(names) if len(table) and table[n].nunique(dropna=False) == 1]
    first = readable(table[same].head(1))
    phrase = ", ".join(f"{n} = {first[n].iloc[0]}" for n in first if first[n].iloc[0])
    drop = [n for n in COUNTS if n in table and not table[n].any()]
    drop += [n for n in ("suboptimality", "error") if n in table and table[n].isna().all()]
    return table.drop(columns=[*same, *drop]), phrase


def as_text(table: pd.DataFrame, form: str) -> str:
    """A table as ``csv`` or ``json`` (all columns, all digits), ``md`` or ``latex`` (to read)."""
    if form == "csv":
        return table.to_csv(index=False)
    if form == "json":
        return table.to_json(orient="records", indent=1, date_format="iso") + "\n"
    folded, phrase = fold(table)
    shown = readable(folded)
    if form == "latex":
        body = shown.to_latex(index=False, escape=True, column_format="l" * shown.shape[1])
        for letter, command in {"±": r"$\pm$", "γ": r"$\gamma$", "√n": r"$\sqrt{n}$"}.items():
            body = body.replace(letter, command)
        return f"% every row: {phrase.replace('γ', 'gamma')}\n" * bool(phrase) + body.replace(
            "ρ", r"$\rho$"
        )
    if form != "md":
        raise ValueError(f"form {form!r}; should be csv, json, md or latex")
    rows = [list(shown.columns), ["---"] * shown.shape[1], *shown.to_numpy().tolist()]
    lines = ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join([*([f"Every row: {phrase}", ""] if phrase else []), *lines]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the summary of a sweep. Exit status 2 with one message where there is none."""
    parser = argparse.ArgumentParser(prog="python -m analysis.tables", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a sweep's folder, or an MLflow experiment")
    parser.add_argument("--format", default="md", choices=["csv", "md", "latex", "json"])
    parser.add_argument("--tracking-uri", help="MLflow's address, to read an experiment")
    given = parser.parse_args(arguments)
    try:
        results = load(given.folder, given.tracking_uri, tables=("trials",))
    except ResultsError as error:
        print(f"analysis.tables: {error}", file=sys.stderr)
        return 2
    print(as_text(summary(results), given.format), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
