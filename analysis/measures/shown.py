"""The tables of a report: as its page shows them, and as files beside it."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis import correlation
from analysis.measures import intervention, paper_layout, rate_answers, rates
from analysis.measures.correlations import OUTCOMES
from analysis.measures.layout import as_text, fold, heading, readable
from analysis.measures.paper_layout import PaperTable
from scoring.storage import write_file

READ = {  # tables that are not read as they are
    "intervention": intervention.shown,
    "rates": rates.shown,
    "rate_answers": rate_answers.shown,
}


class Shown(NamedTuple):
    """A table as the page shows it."""

    name: str  # of its CSV and LaTeX files, without the suffix
    rows: pd.DataFrame  # texts
    same: str  # what all rows have in common


def shown(tables: dict[str, pd.DataFrame]) -> dict[str, Shown]:
    """All tables as the page shows them.

    Args:
        tables: of a report, by name.
    """
    found = {}
    for name, table in tables.items():
        folded, same = fold(to_read(name, table))
        found[name] = Shown(name, readable(folded), same)
    ranks = tables["correlations"]
    of_accuracy = ranks.outcome == OUTCOMES[0]
    rows = ranks.assign(known=ranks.value.notna()).groupby(correlation.SCOPE, dropna=False)
    known = rows.known.transform("any").astype("bool")
    for name, chosen in (("correlations", of_accuracy), ("robust_ranks", ~of_accuracy & known)):
        found[name] = Shown("correlations", *correlation.ranks(ranks[chosen]))
    points = found["points"].rows.rename(columns={"auc": "AUC"})
    points["score"] = points.score.map(heading)
    found["points"] = found["points"]._replace(rows=points)
    return found


def write_tables(
    tables: dict[str, pd.DataFrame], papers: Sequence[PaperTable], folder: str
) -> None:
    """Write every table as CSV and LaTeX.

    Args:
        tables: of a report, by name.
        papers: the paper's tables.
        folder: to write to, a path or a URI.
    """
    texts = {}
    for name, table in tables.items():
        texts[name] = (as_text(table, "csv"), as_text(to_read(name, table), "latex"))
    for table in papers:
        texts[table.name] = tuple(paper_layout.as_text(table, form) for form in ("csv", "latex"))
    for name, (csv, latex) in texts.items():
        write_file(folder, f"{name}.csv", csv.encode(), lasting=False)
        write_file(folder, f"{name}.tex", latex.encode(), lasting=False)


def to_read(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table in its layout for reading."""
    return READ[name](table) if name in READ else table
