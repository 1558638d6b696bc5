"""The robustness table of a trial: what was evaluated, and with which settings."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from scoring.places import table_path
from scoring.robustness.areas import summary
from scoring.storage import reading
from scoring.tables import read_rows, write_table


def add_evaluation(
    root: str, key: Mapping[str, Any], name: str, settings: Mapping[str, Any], rows: Iterable[Any]
) -> None:
    """Write the rows of an evaluation into a trial's robustness table, in place of earlier ones.

    Args:
        root: the sweep's folder.
        key: the trial's columns of :data:`scoring.schemas.KEY`.
        name: name of the evaluation.
        settings: its settings, JSON values.
        rows: its rows, from :func:`scoring.robustness.run.evaluate`.
    """
    trial = key["trial"]
    others = [row for row in read_rows(root, "robustness", trial) if row["of"] != name]
    same = {"of": name, "settings": json.dumps(settings)}
    new = [{**key, **row, **same} for row in rows]
    write_table(root, "robustness", trial, others + new)


def recorded_evaluations(root: str, trial: str) -> dict[str, Any]:
    """The evaluations in a trial's robustness table, by name, with their settings."""
    rows = read_rows(root, "robustness", trial)
    with reading(root, table_path("robustness", trial)):
        return _settings(rows)


def robustness_columns(root: str, trial: str) -> dict[str, Any]:
    """Columns of the trials table that sum up the robustness table; empty if that has no rows."""
    rows = read_rows(root, "robustness", trial)
    if not rows:
        return {}
    with reading(root, table_path("robustness", trial)):
        return {"evaluations": json.dumps(_settings(rows), sort_keys=True)} | summary(rows)


def _settings(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    texts = {row["of"]: row["settings"] for row in rows}
    return {name: json.loads(text) for name, text in texts.items()}
