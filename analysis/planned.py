"""What a sweep has planned and has not got yet: a report half-way says what is missing."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.results import Results
from analysis.search import Search
from scoring import schemas

NETWORKS = {"plain": "plain", "resnet": "ResNet"}


def missing(
    path: str | Path, results: Results, tracking_uri: str | None = None
) -> pd.DataFrame | None:
    """The planned cells of a sweep that have no trial among its results.

    Args:
        path: as :func:`analysis.results.load` takes it.
        results: of that function.
        tracking_uri: MLflow's address, if the results come from there.

    Returns:
        Frame with a row per cell and the columns of its configuration; None where it is not
        known what was planned: in MLflow, or in a folder that holds results alone. Of a search
        only cells that it has suggested are planned.
    """
    cells = _planned(path, tracking_uri)
    if cells is None:
        return None
    known = _known(results)
    there = {_key(row, known) for row in results.trials[known].to_dict("records")}
    return pd.DataFrame([cell for cell in cells if _key(cell, known) not in there], columns=CELL)


def extra_sentence(path: str | Path, results: Results, tracking_uri: str | None = None) -> str:
    """How many trials in a sweep's folder are of another sweep, and what differs; or nothing."""
    cells = _planned(path, tracking_uri)
    if not cells:
        return ""
    known = _known(results)
    planned = {_key(cell, known) for cell in cells}
    rows = results.trials[known].to_dict("records")
    extra = [row for row in rows if _key(row, known) not in planned]
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


CELL = [field.name for field in (*schemas.KEY, *schemas.CONFIG) if field.name != "trial"]


def _planned(path: str | Path, tracking_uri: str | None) -> list[dict[str, Any]] | None:
    """The configurations that a sweep's folder says it is to have; None where it does not."""
    root = str(path).rstrip("/") or "/"
    content = None if tracking_uri else schemas.read_file(root, schemas.SWEEP)
    if content is None:
        return None
    try:
        return [{name: cell.get(name) for name in CELL} for cell in json.loads(content)["trials"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


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
    parts = [f"{NETWORKS.get(str(name), name)} {n}" for name, n in counts.items()]
    parts += [f"{more} not suggested yet"] * bool(more)
    return (
        f"Half-way: {len(left) + more} of {there + len(left) + more} planned trials are not there "
        f"yet ({', '.join(parts)}), so what is said below may change."
    )
