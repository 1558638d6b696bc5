"""The robustness table of a trial: what was evaluated, and with which settings."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from scoring.places import table_path
from scoring.robustness.areas import COLUMNS, summary
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
    """All columns of the trials table that sum up the robustness table.

    Those that have no rows there are None. So none of them keeps the number of an evaluation that
    was replaced, or of a table that was deleted.
    """
    found: dict[str, Any] = dict.fromkeys(("evaluations", *COLUMNS))
    if rows := read_rows(root, "robustness", trial):
        with reading(root, table_path("robustness", trial)):
            found["evaluations"] = json.dumps(_settings(rows), sort_keys=True)
            found |= summary(rows)
    return found


def _settings(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    texts = {row["of"]: row["settings"] for row in rows}
    return {name: json.loads(text) for name, text in texts.items()}
