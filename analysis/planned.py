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
    root = str(path).rstrip("/") or "/"
    content = None if tracking_uri else schemas.read_file(root, schemas.SWEEP)
    if content is None:
        return None
    names = [field.name for field in (*schemas.KEY, *schemas.CONFIG) if field.name != "trial"]
    try:
        cells = [{name: cell.get(name) for name in names} for cell in json.loads(content)["trials"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    # What an older trial was written without cannot tell cells apart.
    known = [name for name in names if results.trials[name].notna().all()]
    there = {_key(row, known) for row in results.trials[known].to_dict("records")}
    return pd.DataFrame([cell for cell in cells if _key(cell, known) not in there], columns=names)


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
