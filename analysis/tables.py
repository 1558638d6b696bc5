"""A sweep as tables: a row per cell, means and 95% intervals over seeds, nulls beside them.

Command: ``python -m analysis.tables runs/demo`` prints those of the paper, side by side with it;
``--table summary`` one with a row per cell, ``--table robustness`` one of evaluations,
``--table intervention`` one of what penalties on tracks change.
"""

import argparse
import sys
from collections.abc import Sequence

from analysis.measures import intervention, paper_layout, robustness
from analysis.measures.layout import as_text
from analysis.measures.summary import summary
from analysis.results import Results, ResultsError, load, script


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables of a sweep. Exit status 2 with one message where there is nothing to read."""
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
        columns = {**paper_layout.COLUMNS, "robustness": robustness.COLUMNS}
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
        return as_text(paper_layout.side_by_side(results), form), ""
    papers = list(paper_layout.paper_tables(results))
    chosen = [
        paper_layout.as_text(paper, form)
        for paper in papers
        if table == "paper" or f"table_{table}" in paper.name
    ]
    there = sorted({paper.name.partition("table_")[2][:1] for paper in papers})
    lacks = f"has nothing of Table {table}" if table != "paper" else "has none yet"
    lacks += f", only of {', '.join(there)}" * bool(there)
    return "\n".join(chosen), f"{lacks}; see --table summary"


if __name__ == "__main__":
    script(main)
