"""A sweep as tables: a row per cell, means and 95% intervals over seeds, nulls beside them.

Command: ``python -m analysis.tables runs/demo`` prints those of the paper, side by side with it;
``--table summary`` one with a row per cell, ``--table robustness`` one of evaluations,
``--table intervention`` one of what penalties on tracks change.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.results import Results, ResultsError, load, script
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
    "lesion_auc": "lesion AUC",
    "noise_auc": "noise AUC",
    "fgsm_auc": "FGSM AUC",
    "pgd_auc": "PGD AUC",
    "mixed_ratio_different": "mixed ratio, two classes",
    "separation_m": "m of pairs",
    "lesion_lost": "lost to lesions",
    "noise_lost": "lost to random noise",
    "fgsm_lost": "lost to FGSM",
    "pgd_lost": "lost to PGD",
    "noise_variation": "variation rate under random noise",
    "fgsm_variation": "variation rate under FGSM",
    "pgd_variation": "variation rate under PGD",
    "rho": "Spearman ρ",
    "low": "95% from",
    "high": "95% to",
    "p": "permutation p",
}
LATEX = {
    **{"±": r"$\pm$", "γ": r"$\gamma$", "√n": r"$\sqrt{n}$", "ρ": r"$\rho$", "τ": r"$\tau$"},
    **{"–": "--", "²": "$^2$", "\N{MINUS SIGN}": "$-$"},
}
DECIMALS = {"lss": 2, "lsr": 2, "inverse_lss": 3, "ots": 3, "gap": 3, "rho": 2, "low": 2, "high": 2}
DECIMALS |= {"auc": 3, "wrong": 1, "mixed_ratio": 2, "mixed_ratio_different": 2}


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
    if name == "lss_random" or kind in DECIMALS or kind.endswith(("accuracy", "_auc")):
        return f"{value:.{DECIMALS.get(kind, 2 if name == 'lss_random' else 3)}f}"
    if name == "suboptimality":
        return f"{value:.1g}"
    if name in ("p", "p_adjusted", "ots_random"):
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
        return f"% every row: {phrase}\n".replace("γ", "gamma") * bool(phrase) + latex(shown)
    if form != "md":
        raise ValueError(f"form {form!r}; should be csv, json, md or latex")
    return f"Every row: {phrase}\n\n" * bool(phrase) + markdown(shown)


def markdown(shown: pd.DataFrame) -> str:
    """Texts as a table of Markdown."""
    rows = [list(shown.columns), ["---"] * shown.shape[1], *shown.to_numpy().tolist()]
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |\n" for row in rows)


def latex(shown: pd.DataFrame) -> str:
    """Texts as a table of LaTeX, with the rules of booktabs."""
    body = shown.to_latex(
        index=False, escape=True, column_format="l" * shown.shape[1], multicolumn_format="c"
    )
    for letter, command in LATEX.items():
        body = body.replace(letter, command)
    return body


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables of a sweep. Exit status 2 with one message where there is nothing to read."""
    from analysis import robustness, side_by_side  # which build on this module

    parser = argparse.ArgumentParser(prog="python -m analysis.tables", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a sweep's folder, or an MLflow experiment")
    parser.add_argument(
        "--table",
        default="paper",
        choices=["paper", "summary", "robustness", "intervention", *"1234567"],
        help="paper: all in the layout of the paper's tables, with its numbers beside (default); "
        "1 to 7: that one, or one of its form; summary: a row per cell of the sweep, with nulls; "
        "robustness: a row per cell with evaluations; intervention: a row per cell and weight of "
        "a penalty on tracks, against the same cell without",
    )
    parser.add_argument(
        "--format",
        default="md",
        choices=["csv", "md", "latex", "json"],
        help="md and latex are laid out to read; csv and json have a number a row, all digits",
    )
    parser.add_argument("--tracking-uri", help="MLflow's address, to read an experiment")
    given = parser.parse_args(arguments)
    try:
        others = {"summary": (), "robustness": ("robustness",), "intervention": ()}
        others = others.get(given.table, ("tracks",))
        columns = {**side_by_side.COLUMNS, "robustness": robustness.COLUMNS}
        results = load(given.folder, given.tracking_uri, ("trials", *others), columns)
    except ResultsError as error:
        print(f"analysis.tables: {error}", file=sys.stderr)
        return 2
    text, lacks = _asked(results, given.table, given.format, given.folder)
    if not text:
        print(f"analysis.tables: {given.folder}: {lacks}", file=sys.stderr)
        return 2
    print(text, end="")
    return 0


def _asked(results: Results, table: str, form: str, folder: str) -> tuple[str, str]:
    """The text of a table that was asked for; where there is none, what the sweep lacks."""
    from analysis import intervention, robustness, side_by_side

    if table == "summary":
        return as_text(summary(results), form), ""
    if table == "robustness":
        rows = robustness.by_cell(results)
        lacks = f"no trial has been evaluated; geosweep evaluate {folder}"
        return as_text(rows, form) if len(rows) else "", lacks
    if table == "intervention":
        rows = intervention.effects(results)
        rows = intervention.shown(rows) if form in ("md", "latex") and len(rows) else rows
        lacks = "no cell has trials that are done both with a straightness_penalty or "
        lacks += "transport_penalty and without; see geosweep run straightness"
        return as_text(rows, form) if len(rows) else "", lacks
    if table == "paper" and form in ("csv", "json"):
        return as_text(side_by_side.side_by_side(results), form), ""
    papers = list(side_by_side.paper_tables(results))
    chosen = [
        side_by_side.as_text(paper, form)
        for paper in papers
        if table == "paper" or f"table_{table}" in paper.name
    ]
    there = sorted({paper.name.partition("table_")[2][:1] for paper in papers})
    lacks = f"has nothing of Table {table}" if table != "paper" else "has none yet"
    lacks += f", only of {', '.join(there)}" * bool(there)
    return "\n".join(chosen), f"{lacks}; see --table summary"


if __name__ == "__main__":
    script(main)
