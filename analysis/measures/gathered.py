"""Everything that a report shows of a sweep: its results, its tables, and its findings in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis import correlation, figures
from analysis.claims import claims, claims_sentence
from analysis.measures import (
    comparisons,
    curve,
    findings,
    intervention,
    live,
    planned,
    points,
    pooled,
    rate_answers,
    rates,
    robustness,
    side_by_side,
    states,
    two_sweeps,
)
from analysis.measures.correlations import correlations
from analysis.measures.paper_layout import PaperTable, paper_tables
from analysis.measures.search import Search, read_search, search_table
from analysis.measures.summary import summary
from analysis.measures.trial_tables import provenance, trials_table, unfinished
from analysis.results import Results, load


def _union(*lists: Iterable[str]) -> list[str]:
    """The columns that are in any of some lists, each once."""
    return list(dict.fromkeys(chain(*lists)))


COLUMNS = {  # the columns to read of the larger tables
    "epochs": _union(figures.COLUMNS["epochs"], live.COLUMNS["epochs"], rates.COLUMNS["epochs"]),
    "tracks": _union(figures.COLUMNS["tracks"], side_by_side.COLUMNS["tracks"]),
    "samples": _union(figures.COLUMNS["samples"], points.COLUMNS, comparisons.COLUMNS["samples"]),
    "robustness": robustness.COLUMNS,
}


class OtherSweep(NamedTuple):
    """A sweep to compare with."""

    name: str
    table: pd.DataFrame  # from two_sweeps.compare


@dataclass(frozen=True)
class Read:
    """What a report is made of."""

    name: str  # of the sweep
    results: Results
    search: Search | None
    planned: planned.Cells | None
    other: OtherSweep | None
    together: str  # about several sweeps


@dataclass(frozen=True)
class Gathered(Read):
    """Everything that a report shows, computed once."""

    evaluated: pd.DataFrame  # from robustness.of_trials
    tables: dict[str, pd.DataFrame]
    paper_tables: list[PaperTable]


def read(
    path: str | Path,
    tracking_uri: str | None = None,
    other: str | Path | None = None,
    more: Sequence[str | Path] = (),
) -> Read:
    """Read a sweep; arguments as for :func:`analysis.report.build`."""
    results = load(path, tracking_uri, columns=COLUMNS)
    second = None
    if other is not None:
        there = load(other, tables=("trials",))
        second = OtherSweep(name_of(str(other)), two_sweeps.compare(results, there))
    together = ""
    if more:
        folders = [str(one) for one in (path, *more)]
        joint = pooled.pool(folders, [results, *(load(one, columns=COLUMNS) for one in more)])
        results, together = joint.results, pooled.sentence(joint)
    search = None if more else read_search(path, tracking_uri)
    cells = planned.of_all([planned.planned(one, tracking_uri) for one in (path, *more)])
    name = " + ".join(name_of(str(one)) for one in (path, *more))
    return Read(name, results, search, cells, second, together)


def gather(found: Read) -> Gathered:
    """Compute the tables of a sweep."""
    results = found.results
    trials = robustness.of_trials(results)
    tables = {
        "claims": claims(results, trials),
        "summary": summary(results),
        "robustness": robustness.by_cell(results, trials),
        "curve": curve.by_cell(results),
        "correlations": correlations(results, trials=trials),
        "points": points.points(results),
        "trials": trials_table(results),
        "failed": unfinished(results),
        "provenance": provenance(results),
    }
    spread = states.states(results)
    if len(spread):
        tables["states"] = spread
    changed = intervention.effects(results, trials)
    if len(changed):
        tables["intervention"] = changed
    rated = rates.effects(results)
    if len(rated):
        tables |= {"rates": rated, "rate_answers": rate_answers.answers(rated)}
    if found.search:
        tables["search"] = search_table(results, found.search)
    left = planned.missing(found.planned, results)
    if left is not None:
        tables["missing"] = left
    if found.other:
        tables["comparison"] = found.other.table
    papers = list(paper_tables(results))
    return Gathered(**vars(found), evaluated=trials, tables=tables, paper_tables=papers)


def sentences(found: Gathered) -> list[str]:
    """The findings of a sweep as sentences, in the order of the page."""
    tables, results = found.tables, found.results
    first, *others = findings.sentences(results, found.search, tables["summary"])
    said = [
        first,
        found.together,
        planned.missing_sentence(tables.get("missing"), results, found.search),
        planned.extra_sentence(found.planned, results),
        findings.geodesic_sentence(tables["summary"]),
        *curve.sentences(results),
        claims_sentence(tables["claims"]),
        *others,
        correlation.correlation_sentence(tables["correlations"]),
        robustness.lost_sentence(results, found.evaluated),
        robustness.mixed_sentence(found.evaluated),
    ]
    if "intervention" in tables:
        said.append(intervention.sentence(tables["intervention"]))
    if "rates" in tables:
        said += rate_answers.sentences(tables["rates"], tables["rate_answers"])
    if found.other:
        said.append(two_sweeps.sentence(found.other.table, found.other.name))
    return [sentence for sentence in said if sentence]


def name_of(path: str) -> str:
    """The name of a sweep by its folder."""
    return path.rstrip("/").rpartition("/")[2] or "sweep"
