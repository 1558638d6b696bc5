"""A sweep as tables: one row per cell, with means, 95% intervals over seeds, and baselines.

Command: ``python -m analysis.tables runs/demo`` prints the paper's tables, with the paper's numbers
beside ours. ``--table summary`` prints one row per cell, ``--table robustness`` the results of
evaluations, ``--table curve`` the curve of measures, ``--table intervention`` what penalties on
tracks change, ``--table rates`` and ``--table rate_answers`` what gamma changes beyond the
effective learning rate, ``--table states`` scores without the scale of states, and how classes and
dimensions develop along a network.
"""

import argparse
import sys
from collections.abc import Sequence

from analysis.measures import (
    curve,
    intervention,
    paper_layout,
    rate_answers,
    rates,
    robustness,
    side_by_side,
    states,
)
from analysis.measures.layout import as_text
from analysis.measures.markup import visible
from analysis.measures.summary import summary
from analysis.results import Results, ResultsError, load, script
from scoring.places import argument

READ = {  # tables to read besides trials; all others read tracks
    "summary": (),
    "robustness": ("robustness",),
    "curve": (),
    "intervention": (),
    "rates": ("epochs",),
    "rate_answers": ("epochs",),
    "states": (),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables of a sweep.

    Returns:
        Exit status: 2, with one message, if there is nothing to read or to print.
    """
    parser = argparse.ArgumentParser(prog="python -m analysis.tables", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a sweep's folder, or an MLflow experiment")
    parser.add_argument(
        "--table",
        default="paper",
        choices=["paper", *READ, *"1234567"],
        help="paper (default): all tables in the paper's layout, with its numbers beside ours; "
        "1 to 7: this table, or tables of its form; summary: one row per cell of the sweep, with "
        "baselines; robustness: one row per cell that was evaluated; curve: one row per cell with "
        "a curve of measures; intervention: one row per cell and weight of a penalty on tracks, "
        "compared with the same cell without it; rates: what gamma, gamma at a fixed effective "
        "rate, and a higher rate at gamma 0 change; rate_answers: what that says; states: one row "
        "per cell, with scores that ignore the scale of states",
    )
    parser.add_argument(
        "--format",
        default="md",
        choices=["csv", "md", "latex", "json"],
        help="md (default) and latex are laid out for reading; csv and json have all digits, and "
        "one number per row for the paper's tables",
    )
    parser.add_argument("--tracking-uri", help="MLflow's address, to read an experiment")
    given = parser.parse_args(arguments)
    try:
        columns = {**side_by_side.COLUMNS, **rates.COLUMNS, "robustness": robustness.COLUMNS}
        wanted = ("trials", *READ.get(given.table, ("tracks",)))
        results = load(given.folder, given.tracking_uri, wanted, columns)
    except ResultsError as error:
        print(f"analysis.tables: {visible(str(error))}", file=sys.stderr)
        return 2
    text, lacks = _asked(results, given.table, given.format, given.folder)
    if not text:
        print(f"analysis.tables: {visible(given.folder)}: {lacks}", file=sys.stderr)
        return 2
    print(text, end="")
    return 0


def _asked(results: Results, table: str, form: str, folder: str) -> tuple[str, str]:
    """The text of a table; if it is empty, also why."""
    if table == "summary":
        return as_text(summary(results), form), ""
    if table == "robustness":
        rows = robustness.by_cell(results)
        if not len(rows):
            return "", f"no trial has been evaluated; geosweep evaluate {argument(folder)}"
        return as_text(rows, form), ""
    if table == "curve":
        rows = curve.by_cell(results)
        if not len(rows):
            return (
                "",
                f"no trial has a curve of measures; geosweep evaluate {argument(folder)} curve",
            )
        return as_text(rows, form), ""
    if table == "intervention":
        rows = intervention.effects(results)
        if not len(rows):
            lacks = "no cell has trials that are done both with a straightness_penalty or "
            return "", f"{lacks}transport_penalty and without; see geosweep run straightness"
        return as_text(intervention.shown(rows) if form in ("md", "latex") else rows, form), ""
    if table in ("rates", "rate_answers"):
        rows = rates.effects(results)
        if not len(rows):
            lacks = "no cell has trials that are done both with and without renormalise, or at "
            return "", f"{lacks}several rates at gamma 0; see geosweep run effective-rate"
        found, read = rows, rates.shown
        if table == "rate_answers":
            found, read = rate_answers.answers(rows), rate_answers.shown
        return as_text(read(found) if form in ("md", "latex") else found, form), ""
    if table == "states":
        rows = states.states(results)
        if not len(rows):
            return "", f"no trial has these scores; geosweep evaluate {argument(folder)} scores"
        return as_text(rows, form), ""
    if table == "paper" and form in ("csv", "json"):
        return as_text(side_by_side.side_by_side(results), form), ""
    papers = list(paper_layout.paper_tables(results))
    chosen = [
        paper_layout.as_text(paper, form)
        for paper in papers
        if table == "paper" or f"table_{table}" in paper.name
    ]
    there = sorted({paper.name.partition("table_")[2][:1] for paper in papers})
    lacks = f"has nothing of Table {table}" if table != "paper" else "has none yet"
    if there:
        lacks += f", only of {', '.join(there)}"
    return "\n".join(chosen), f"{lacks}; see --table summary"


if __name__ == "__main__":
    script(main)
