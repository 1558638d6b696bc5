"""What a sweep has planned but not finished, so that an early report says what is missing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.measures.layout import network_name
from analysis.measures.markup import utf8
from analysis.measures.search import Search, sweep_file
from analysis.results import Results, whole_depth
from scoring import schemas
from scoring.tables import ARGUMENT

CONFIG_FIELDS = [field.name for field in (*schemas.KEY, *schemas.CONFIG) if field.name != "trial"]

Cells = list[dict[str, Any]]  # configurations


def planned(path: str | Path, tracking_uri: str | None = None) -> Cells | None:
    """The configurations that a sweep's folder plans to train, whether they are done or not.

    Args:
        path: as for :func:`analysis.results.load`.
        tracking_uri: MLflow's address, if the results come from there.

    Returns:
        The configurations; for a search, those that it has suggested so far. None if they are not
        known, as in MLflow, or in a folder that has only results.
    """
    content = sweep_file(path, tracking_uri)
    if content is None:
        return None
    try:
        trials = json.loads(content)["trials"]
        return [_configuration(trial) for trial in trials]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def of_all(sweeps: Sequence[Cells | None]) -> Cells | None:
    """The configurations that several sweeps plan, each once; None if some are not known."""
    known = [cells for cells in sweeps if cells is not None]
    if len(known) < len(sweeps):
        return None
    return list({json.dumps(cell): cell for cells in known for cell in cells}.values())


def _configuration(trial: dict[str, Any]) -> dict[str, Any]:
    """The columns of a trial that is yet to be trained; those of an architecture as in its row."""
    row = {name: _whole(trial.get(name)) for name in CONFIG_FIELDS}
    given = {n.removeprefix(ARGUMENT): v for n, v in trial.items() if n.startswith(ARGUMENT)}
    row["model"] = json.dumps(given, sort_keys=True) if given else ""
    named = isinstance(row["architecture"], str)
    return row | {"network": row["architecture"]} if named else row


def _whole(value: Any) -> Any:
    """A value that a data frame can hold, which takes no lone surrogates."""
    return utf8(value) if isinstance(value, str) else value


def missing(cells: Cells | None, results: Results) -> pd.DataFrame | None:
    """The :func:`planned` configurations that have no trial, one per row; None if not known."""
    if cells is None:
        return None
    whole, trials = _with_depth(cells), _trials(results)
    known = _known(whole, trials)
    there = {_key(row, known) for row in trials}
    pairs = zip(cells, whole, strict=True)
    left = [cell for cell, full in pairs if _key(full, known) not in there]
    return pd.DataFrame(left, columns=CONFIG_FIELDS)


def extra_sentence(cells: Cells | None, results: Results) -> str:
    """Say how many trials are not :func:`planned`, and how they differ; empty if all are."""
    if not cells:
        return ""
    cells, rows = _with_depth(cells), _trials(results)
    known = _known(cells, rows)
    own = {_key(cell, known) for cell in cells}
    extra = [row for row in rows if _key(row, known) not in own]
    if not extra:
        return ""
    parts = []
    for name in known:
        usual = {str(cell[name]) for cell in cells}
        other = sorted({str(row[name]) for row in extra} - usual)
        if other and name != "seed":
            parts.append(f"{name} = {', '.join(other)}")
    differs = f" ({'; '.join(parts[:4])})" if parts else ""
    if len(extra) == 1:
        return (
            f"1 of these trials belongs to another sweep that used this folder{differs}; it is "
            "included in everything below."
        )
    return (
        f"{len(extra)} of these trials belong to another sweep that used this folder{differs}; "
        "they are included in everything below."
    )


def _trials(results: Results) -> list[dict[Any, Any]]:
    trials = results.trials[CONFIG_FIELDS]
    return _with_depth(trials.assign(model=trials.model.fillna("")).to_dict("records"))


def _with_depth(rows: list[dict[Any, Any]]) -> list[dict[Any, Any]]:
    """The configurations with the depth of Table 1 where none is given."""
    frame = pd.DataFrame(rows, columns=["layers", "stages", "depth"]).astype({"depth": "float64"})
    return [
        row | {"depth": None if pd.isna(row["layers"]) else depth}
        for row, depth in zip(rows, whole_depth(frame), strict=True)
    ]


def _known(cells: list[dict[Any, Any]], trials: list[dict[Any, Any]]) -> list[str]:
    """Fields that every cell and every trial has. Older ones may lack a field."""
    rows = [*cells, *trials]
    return [name for name in CONFIG_FIELDS if not any(pd.isna(row[name]) for row in rows)]


def _key(cell: dict[Any, Any], names: list[str]) -> tuple[str, ...]:
    return tuple("" if pd.isna(cell[name]) else str(cell[name]) for name in names)


def missing_sentence(left: pd.DataFrame | None, results: Results, search: Search | None) -> str:
    """Say how many trials are missing, by network; empty if none is, or if that is not known."""
    if left is None:
        return ""
    there = len(results.trials)
    if search is not None and search.suggested:
        there = len(search.suggested) - len(left)
    more = 0 if search is None else max(search.planned - there - len(left), 0)
    if not len(left) + more:
        return ""
    counts = left.groupby("network").size()
    parts = [f"{network_name(name)} {n}" for name, n in counts.items()]
    if more:
        parts.append(f"{more} not suggested yet")
    return (
        f"Not finished: {len(left) + more} of {there + len(left) + more} planned trials have no "
        f"results yet ({', '.join(parts)}), so the findings below may change."
    )
