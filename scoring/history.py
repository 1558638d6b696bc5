"""Training history of a trial, kept next to its checkpoint while it trains.

It holds the trial's columns that are known so far, and its rows of the epochs and tracks tables.
So a trial that its scheduler stops early can be finished from its history.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import pyarrow as pa

from scoring import checked, places, schemas, storage

NEEDED = {  # columns that are in every row of every version; never add one
    "summary": [field.name for field in schemas.KEY] + ["started_at"],
    "epochs": [
        *("epoch", "seconds", "finished_at", "train_loss", "train_accuracy"),
        *("clean_train_loss", "clean_train_accuracy", "test_loss", "test_accuracy"),
    ],
    "tracks": ["epoch", "stage", "m", "lss", "inverse_lss", "lsr", "lss_random"],
}
TIMES = ("started_at", "trained_at", "finished_at")  # text in a history


def write_history(root: str, trial: str, history: Mapping[str, Any]) -> None:
    """Keep the history of a trial so far. It need not survive a power failure until the end.

    Args:
        root: the sweep's folder.
        trial: its id.
        history: JSON values. ``summary`` has columns of the trials table, ``epochs`` rows of
            the epochs table and ``tracks`` rows of the tracks table.
    """
    storage.write_file(root, places.history(trial), checked.dump(history), lasting=False)


def read_history(root: str, trial: str, epoch: int | None = None) -> dict[str, Any] | None:
    """The history of a trial up to the end of an epoch, or all of it.

    The history is written before the checkpoint, so it can be ahead of it; later rows are
    dropped.

    Returns:
        The history; None where there is none, or none that has this epoch.

    Raises:
        storage.Damaged: the file is not a history.
    """
    content = storage.read_file(root, places.history(trial))
    if content is None:
        return None
    with storage.reading(root, places.history(trial)):
        history = checked.load(content)
        check_history(history)
    if epoch is None:
        return history
    for name in ("epochs", "tracks"):
        history[name] = [row for row in history[name] if row["epoch"] <= epoch]
    return history if history["epochs"] and history["epochs"][-1]["epoch"] == epoch else None


def last_epoch(root: str, trial: str) -> int | None:
    """The last epoch of a trial that has begun; None if its history is missing or damaged."""
    with suppress(storage.Damaged):
        if history := read_history(root, trial):
            return history["epochs"][-1]["epoch"]
    return None


def check_history(history: Any) -> None:
    """Check that a history has the columns that every version wrote, in the types of the tables.

    Raises:
        Exception: of many types; this is not a history, or a column is missing.
    """
    for name, table in (("summary", "trials"), ("epochs", "epochs"), ("tracks", "tracks")):
        rows = [history[name]] if name == "summary" else history[name]
        if not isinstance(rows, list) or not rows:
            raise TypeError(f"{name}: no rows")
        for row in rows:
            for column in NEEDED[name]:
                if row[column] is None:
                    raise TypeError(f"{name}: {column} is null")
        typed = [
            {n: datetime.fromisoformat(v) if n in TIMES else v for n, v in row.items()}
            for row in rows
        ]
        pa.Table.from_pylist(typed, schemas.TABLES[table])


def forget_weights(root: str, trial: str) -> None:
    """Delete the checkpoints of a trial and the history next to them."""
    storage.delete(root, places.best_checkpoint(trial))
    storage.delete(root, places.checkpoint(trial))
    storage.delete(root, places.history(trial))
