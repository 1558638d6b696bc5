"""Print the tables of a sweep: the paper's, with its numbers beside ours, or a row per cell.

    python -m analysis.tables runs/demo
    python -m analysis.tables runs/demo --table 4 --format latex
    python -m analysis.tables runs/demo --table summary --format csv > summary.csv

A cell is a combination of settings, with all of its seeds. Its scores are means over these seeds.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

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
from analysis.measures.shown import to_read
from analysis.measures.summary import summary
from analysis.results import Results, ResultsError, load
from analysis.scripts import FOLDER, TRACKING_URI, listing, parser, refuse, script
from scoring.places import argument


class Table(NamedTuple):
    """A table with one row per cell, and what to say if a sweep has no rows for it."""

    about: str  # for the help
    rows: Callable[[Results], pd.DataFrame]
    lacks: str  # {} is the sweep's folder.
    read: tuple[str, ...] = ()  # tables to read besides trials


RATES = (
    "no cell has trials that are done both with and without renormalise, or at several rates at "
    "gamma 0; see geosweep run effective-rate"
)
TABLES = {
    "summary": Table(
        "a row per cell, with baselines and 95% intervals over seeds", summary, "has no trials"
    ),
    "robustness": Table(
        "a row per cell that was evaluated with lesions, noise or attacks",
        robustness.by_cell,
        "no trial has been evaluated; geosweep evaluate {}",
        ("robustness",),
    ),
    "curve": Table(
        "a row per cell with a curve of measures",
        curve.by_cell,
        "no trial has a curve of measures; geosweep evaluate {} curve",
    ),
    "intervention": Table(
        "a row per cell and weight of a penalty on tracks, compared with no penalty",
        intervention.effects,
        "no cell has trials that are done both with a straightness_penalty or transport_penalty "
        "and without; see geosweep run straightness",
        ("robustness",),
    ),
    "rates": Table(
        "what gamma, gamma at a fixed effective rate, and a higher rate at gamma 0 change",
        rates.effects,
        RATES,
        ("epochs",),
    ),
    "rate_answers": Table(
        "what these changes say: is it gamma itself, or the effective learning rate?",
        lambda results: rate_answers.answers(rates.effects(results)),
        RATES,
        ("epochs",),
    ),
    "states": Table(
        "a row per cell: scores that ignore the scale of states, classes, dimensions",
        states.states,
        "no trial has these scores; geosweep evaluate {} scores",
    ),
}
PAPER = {
    "paper": "all of the paper's tables that the sweep has results for (default)",
    "1 to 7": "this table of the paper, or tables of its form",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables of a sweep.

    Returns:
        Exit status: 2, with one message, if there is nothing to read or to print.
    """
    about = PAPER | {name: table.about for name, table in TABLES.items()}
    reader = parser("tables", __doc__, listing("tables", about))
    reader.add_argument("folder", **FOLDER)
    reader.add_argument(
        "--table",
        metavar="NAME",
        default="paper",
        choices=["paper", *TABLES, *"1234567"],
        help="which table; they are listed below",
    )
    reader.add_argument(
        "--format",
        default="md",
        choices=["csv", "md", "latex", "json"],
        help="md (default) and latex are laid out for reading; csv and json have all digits, and "
        "one number per row for the paper's tables",
    )
    reader.add_argument("--tracking-uri", **TRACKING_URI)
    given = reader.parse_args(arguments)
    try:
        columns = {**side_by_side.COLUMNS, **rates.COLUMNS, "robustness": robustness.COLUMNS}
        read = TABLES[given.table].read if given.table in TABLES else ("tracks",)
        results = load(given.folder, given.tracking_uri, ("trials", *read), columns)
    except ResultsError as error:
        return refuse("tables", error)
    if given.table in TABLES:
        lacks = TABLES[given.table].lacks.format(argument(given.folder))
        text = _by_cell(results, given.table, given.format)
    else:
        text, lacks = _paper(results, given.table, given.format)
    if not text:
        return refuse("tables", f"{given.folder}: {lacks}")
    print(text, end="")
    return 0


def _by_cell(results: Results, name: str, form: str) -> str:
    """The text of a table with one row per cell; empty if there are no rows."""
    rows = TABLES[name].rows(results)
    if not len(rows):
        return ""
    return as_text(to_read(name, rows) if form in ("md", "latex") else rows, form)


def _paper(results: Results, table: str, form: str) -> tuple[str, str]:
    """The text of one of the paper's tables or of all; if it is empty, also why."""
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
