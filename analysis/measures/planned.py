"""What a sweep has planned and has not got yet: a report half-way says what is missing."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.measures.layout import network_name
from analysis.measures.search import Search
from analysis.results import Results
from scoring import places, schemas, storage

CELL = [field.name for field in (*schemas.KEY, *schemas.CONFIG) if field.name != "trial"]

Cells = list[dict[str, Any]]  # configurations


def planned(path: str | Path, tracking_uri: str | None = None) -> Cells | None:
    """The cells of a sweep as its folder has them, done or not.

    Args:
        path: as :func:`analysis.results.load` takes it.
        tracking_uri: MLflow's address, if the results come from there.

    Returns:
        Their configurations; None where they are not known: in MLflow, or in a folder that holds
        results alone. Of a search those that it has suggested.
    """
    root = str(path).rstrip("/") or "/"
    content = None if tracking_uri else storage.read_file(root, places.SWEEP)
    if content is None:
        return None
    try:
        return [{name: cell.get(name) for name in CELL} for cell in json.loads(content)["trials"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def missing(cells: Cells | None, results: Results) -> pd.DataFrame | None:
    """Those of the :func:`planned` cells that have no trial: a row each, or None if not known."""
    if cells is None:
        return None
    known = _known(results)
    there = {_key(row, known) for row in results.trials[known].to_dict("records")}
    return pd.DataFrame([cell for cell in cells if _key(cell, known) not in there], columns=CELL)


def extra_sentence(cells: Cells | None, results: Results) -> str:
    """How many trials are of none of the :func:`planned` cells, and what differs; or nothing."""
    if not cells:
        return ""
    known = _known(results)
    own = {_key(cell, known) for cell in cells}
    rows = results.trials[known].to_dict("records")
    extra = [row for row in rows if _key(row, known) not in own]
    if not extra:
        return ""
    parts = []
    for name in known:
        usual = {str(cell[name]) for cell in cells}
        other = sorted({str(row[name]) for row in extra} - usual)
        parts += [f"{name} = {', '.join(other)}"] if other and name != "seed" else []
    differs = f" ({'; '.join(parts[:4])})" if parts else ""
    one = len(extra) == 1
    return (
        f"{len(extra)} of these trials {'is' if one else 'are'} of another sweep that used this "
        f"folder{differs}: {'it counts' if one else 'they count'} in all that follows."
    )


def _known(results: Results) -> list[str]:
    """Fields that every trial has: what an older one was written without tells no cells apart."""
    return [name for name in CELL if results.trials[name].notna().all()]


def _key(cell: dict[Any, Any], names: list[str]) -> tuple[str, ...]:
    return tuple("" if pd.isna(cell[name]) else str(cell[name]) for name in names)


def missing_sentence(left: pd.DataFrame | None, results: Results, search: Search | None) -> str:
    """How many trials are missing, and of which networks; empty if none is, or nobody knows."""
    if left is None:
        return ""
    there = len(results.trials)
    more = 0 if search is None else max(search.trials - there - len(left), 0)
    if not len(left) + more:
        return ""
    counts = left.groupby("network").size()
    parts = [f"{network_name(name)} {n}" for name, n in counts.items()]
    parts += [f"{more} not suggested yet"] * bool(more)
    return (
        f"Half-way: {len(left) + more} of {there + len(left) + more} planned trials are not there "
        f"yet ({', '.join(parts)}), so what is said below may change."
    )
