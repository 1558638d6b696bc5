"""Correlate a sweep's scores with how well its networks work, by network and by point.

    python -m analysis.correlation runs/demo
    python -m analysis.correlation runs/demo --table points --format csv

Table "correlations": each score of the networks against their test accuracy, and against their
accuracy under lesions, noise and attacks if that was measured. Table "points": a point's own score
against whether the network classifies it correctly. Neither table shows that one causes the other.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.correlations import GIVEN, SCORES, SMALL, STRATUM, correlations, left_out
from analysis.measures.layout import as_text, fold, heading, network_name, readable
from analysis.measures.markup import latex_comment, markdown_text
from analysis.measures.points import COLUMNS, points
from analysis.measures.robustness import COLUMNS as ROBUSTNESS
from analysis.results import ResultsError, load
from analysis.scripts import FOLDER, TRACKING_URI, parser, refuse, script

SCOPE = ["scope", *STRATUM, "outcome"]  # columns that identify a scope and its outcome


def outcome_heading(name: str) -> str:
    """The heading of an outcome or of a score."""
    if name.endswith(GIVEN):
        return f"{heading(name.removesuffix(GIVEN))} given accuracy"
    return heading(name)


def ranks(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Spearman's correlations as the report shows them: one row per scope and outcome.

    LSS comes with n, its interval and p values; other scores only with a star if adjusted p < 0.05.

    Args:
        table: from :func:`analysis.measures.correlations.correlations`.

    Returns:
        The table as texts, and a phrase with the values that all its rows share.
    """
    chosen = table[table.method == "spearman"]
    rows = []
    for _, group in chosen.groupby(SCOPE, sort=False, dropna=False):
        scores = {row["score"]: row for row in group.to_dict("records")}
        lss = scores["lss"]
        row = {name: lss[name] for name in SCOPE}
        row |= {name: lss[name] for name in ("n", "trials", "low", "high", "p", "p_adjusted")}
        row["lss"] = lss["value"]
        for name in SCORES[1:]:
            other = scores[name]
            star = "*" if other["p_adjusted"] < 0.05 else ""
            row[name] = "" if pd.isna(other["value"]) else f"{other['value']:+.2f}{star}"
        rows.append(row | {"warning": lss["warning"]})
    order = [*SCOPE, "n", "trials", "lss", "low", "high", "p", "p_adjusted"]
    shown = pd.DataFrame(rows, columns=[*order, *SCORES[1:], "warning"])
    shown["outcome"] = shown.outcome.map(outcome_heading)
    everywhere = ["dataset", "layers", "stages"]  # null in rows that cover all strata
    shown[everywhere] = shown[everywhere].fillna(shown[everywhere].agg(_only))
    folded, same = fold(shown)
    if shown.outcome.nunique() == 1:
        folded = folded.drop(columns="outcome", errors="ignore")
    for name in ("lss", "low", "high"):
        folded[name] = folded[name].map(lambda v: "" if pd.isna(v) else f"{v:+.2f}")
    return readable(folded).replace("nan", ""), same


def _only(column: pd.Series) -> Any:
    """The value of a column that has only one; otherwise null."""
    values = column.dropna().unique()
    return values[0] if len(values) == 1 else None


def correlation_sentence(table: pd.DataFrame) -> str:
    """The correlation of test accuracy with LSS in words, with warnings about its limits.

    Args:
        table: from :func:`analysis.measures.correlations.correlations`.
    """
    chosen = table[(table.outcome == "test_accuracy") & (table.score == "lss")]
    chosen = chosen[(chosen.method == "spearman") & chosen.value.notna()]
    known = chosen[chosen.scope == "stratum"]
    if not len(known):
        return "Too few cells in any stratum to correlate test accuracy with LSS."
    parts = []
    for row in known.to_dict("records"):
        dataset = f"{row['dataset']}, " if known.dataset.nunique() > 1 else ""
        setting = f", {row['setting']}" if pd.notna(row["setting"]) else ""
        value = f"{row['value']:+.2f}".replace("-", "\N{MINUS SIGN}")
        network = network_name(row["network"])
        parts.append(f"{dataset}K = {row['stages']}, {network}{setting} {value} (n = {row['n']})")
    shown = parts[:8]
    if len(parts) > 8:
        shown.append(f"{len(parts) - 8} more in the table")
    said = f"Spearman correlation of test accuracy with LSS over cells: {'; '.join(shown)}."
    if known.n.min() < SMALL:
        said += f" Strata with fewer than {SMALL} cells prove nothing yet."
    networks = chosen.warning[chosen.scope == "networks pooled"]
    if networks.str.contains("Simpson").any():
        said += (
            " Pooled over networks the sign is opposite (Simpson's paradox), so do not pool them."
        )
    if networks.str.contains("differ in sign").any():
        said += " Networks differ in sign, so do not pool them."
    return said


def _to_read(table: pd.DataFrame) -> pd.DataFrame:
    """Prepare a table for ``md`` and ``latex``: headings, rounded numbers, no empty rows."""
    shown = table if "auc" in table else table[table.n > 0]
    shown = shown.rename(columns={"p_adjusted": "adjusted p", "auc": "AUC"})
    for name in {"value", "AUC", "low", "high"} & set(shown):
        shown[name] = [f"{v:.2f}" if np.isfinite(v) else "" for v in shown[name]]
    for name in ["adjusted p", "p"] if "AUC" in shown else ["adjusted p"]:
        shown[name] = [f"{v:.2g}" if np.isfinite(v) else "" for v in shown[name]]
    for name in {"outcome", "score"} & set(shown):
        shown[name] = [outcome_heading(v) for v in shown[name]]
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the correlations of a sweep.

    Returns:
        Exit status: 2, with one message, if the results cannot be read.
    """
    reader = parser("correlation", __doc__)
    reader.add_argument("folder", **FOLDER)
    reader.add_argument(
        "--table",
        choices=["correlations", "points"],
        help="the table to print (default: both as md or latex, correlations as csv or json)",
    )
    reader.add_argument(
        "--format",
        default="md",
        choices=["csv", "md", "latex", "json"],
        help="md (default) and latex are rounded for reading; csv and json have all digits",
    )
    reader.add_argument("--tracking-uri", **TRACKING_URI)
    given = reader.parse_args(arguments)
    read = given.format in ("md", "latex")
    names = [given.table or "correlations"]
    if read and not given.table:
        names.append("points")
    wanted = ("trials", "robustness", *(["samples"] if "points" in names else []))
    columns = {"samples": COLUMNS, "robustness": ROBUSTNESS}
    try:
        results = load(given.folder, given.tracking_uri, wanted, columns)
    except ResultsError as error:
        return refuse("correlation", error)
    lost = [f"{n} {reason}" for reason, n in left_out(results).items() if n]
    if read and lost:
        said = f"Trials left out: {', '.join(lost)}."
        print(latex_comment(said) if given.format == "latex" else f"{markdown_text(said)}\n")
    for name in names:
        table = correlations(results) if name == "correlations" else points(results)
        if len(table) or name == given.table or not read:
            text = as_text(_to_read(table) if read else table, given.format)
            print(text, end="" if name == names[-1] else "\n")
    return 0


if __name__ == "__main__":
    script(main)
