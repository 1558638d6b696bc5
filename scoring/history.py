"""Training history of a trial, kept next to its checkpoint while it trains.

It holds what is known of the trial and its rows of epochs and tracks so far, so that a trial
which its scheduler stops early can be finished from it.
"""

import json
from collections.abc import Mapping
from typing import Any

from scoring import places, storage


def write_history(root: str, trial: str, history: Mapping[str, Any]) -> None:
    """Keep the history of a trial so far.

    Args:
        root: the sweep's folder.
        trial: its id.
        history: JSON values. ``summary`` has columns of the trials table, ``epochs`` rows of
            the epochs table and ``tracks`` rows of the tracks table.
    """
    storage.write_file(root, places.history(trial), json.dumps(history).encode())


def read_history(root: str, trial: str, epoch: int) -> dict[str, Any] | None:
    """The history of a trial up to the end of an epoch; None where there is none.

    The history is written before the checkpoint, so it can be ahead of it; later rows are
    dropped.
    """
    content = storage.read_file(root, places.history(trial))
    try:
        history = json.loads(content or b"")
    except ValueError:
        return None
    for name in ("epochs", "tracks"):
        history[name] = [row for row in history[name] if row["epoch"] <= epoch]
    return history if history["epochs"] and history["epochs"][-1]["epoch"] == epoch else None


def forget_weights(root: str, trial: str) -> None:
    """Delete the checkpoints of a trial and the history next to them."""
    storage.delete(root, places.best_checkpoint(trial))
    storage.delete(root, places.checkpoint(trial))
    storage.delete(root, places.history(trial))
