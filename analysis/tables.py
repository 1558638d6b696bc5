"""A sweep as tables: one row per cell, with means, 95% intervals over seeds, and baselines.

Command: ``python -m analysis.tables runs/demo`` prints the paper's tables, with the paper's numbers
beside ours. ``--table summary`` prints one row per cell, ``--table robustness`` the results of
evaluations, ``--table curve`` the curve of measures, ``--table intervention`` what penalties on
tracks change, ``--table rates`` and ``--table rate_answers`` what gamma changes beyond the
effective learning rate, ``--table states`` scores without the scale of states, and how classes and
dimensions develop along a network.
"""

import argparse
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
from analysis.measures.summary import summary
from analysis.results import Results, ResultsError, load
from analysis.scripts import refuse, script
from scoring.places import argument


class Table(NamedTuple):
    """A table with one row per cell, and what to say if a sweep has no rows for it."""

    rows: Callable[[Results], pd.DataFrame]
    lacks: str  # {} is the sweep's folder.
    read: tuple[str, ...] = ()  # tables to read besides trials
    to_read: Callable[[pd.DataFrame], pd.DataFrame] | None = None  # another layout for md and latex


RATES = (
    "no cell has trials that are done both with and without renormalise, or at several rates at "
    "gamma 0; see geosweep run effective-rate"
)
TABLES = {
    "summary": Table(summary, "has no trials"),
    "robustness": Table(
        robustness.by_cell, "no trial has been evaluated; geosweep evaluate {}", ("robustness",)
    ),
    "curve": Table(curve.by_cell, "no trial has a curve of measures; geosweep evaluate {} curve"),
    "intervention": Table(
        intervention.effects,
        "no cell has trials that are done both with a straightness_penalty or transport_penalty "
        "and without; see geosweep run straightness",
        to_read=intervention.shown,
    ),
    "rates": Table(rates.effects, RATES, ("epochs",), rates.shown),
    "rate_answers": Table(
        lambda results: rate_answers.answers(rates.effects(results)),
        RATES,
        ("epochs",),
        rate_answers.shown,
    ),
    "states": Table(states.states, "no trial has these scores; geosweep evaluate {} scores"),
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
        choices=["paper", *TABLES, *"1234567"],
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
        read = TABLES[given.table].read if given.table in TABLES else ("tracks",)
        results = load(given.folder, given.tracking_uri, ("trials", *read), columns)
    except ResultsError as error:
        return refuse("tables", error)
    if given.table in TABLES:
        lacks = TABLES[given.table].lacks.format(argument(given.folder))
        text = _by_cell(results, TABLES[given.table], given.format)
    else:
        text, lacks = _paper(results, given.table, given.format)
    if not text:
        return refuse("tables", f"{given.folder}: {lacks}")
    print(text, end="")
    return 0


def _by_cell(results: Results, table: Table, form: str) -> str:
    """The text of a table with one row per cell; empty if there are no rows."""
    rows = table.rows(results)
    if not len(rows):
        return ""
    if table.to_read and form in ("md", "latex"):
        rows = table.to_read(rows)
    return as_text(rows, form)


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
