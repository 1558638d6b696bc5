"""Checkpoints of a trial: ``checkpoints/<trial>.pt`` in the sweep's folder, read by torch."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from scoring import places, storage


def read(
    root: str, name: str, check: Callable[[dict[str, Any]], None] = lambda state: None
) -> dict[str, Any] | None:
    """Read a checkpoint, with its tensors on the CPU; None if there is none.

    Args:
        root: the sweep's folder.
        name: of the checkpoint.
        check: raises an error if this is the checkpoint of another network.

    Raises:
        storage.Damaged: torch cannot read the file, a checksum in it does not match, or the check
            fails.
    """
    content = storage.read_file(root, places.checkpoint(name))
    if content is None:
        return None
    with storage.reading(root, places.checkpoint(name)):
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            if changed := parts.testzip():  # torch writes checksums, but does not compare them
                raise ValueError(f"the checksum of {changed} does not match")
        # A checkpoint from a GPU may be read on a machine without one.
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(state["epoch"], int) or not isinstance(state["network"], dict):
            raise TypeError("no epoch and no network")
        check(state)
        return state


def write(root: str, name: str, state: dict[str, Any]) -> None:
    """Write a checkpoint. It replaces an earlier one atomically.

    As this is done after every epoch, it need not survive a power failure until the trial is handed
    over (:func:`scoring.handover.leave_final`).
    """
    content = io.BytesIO()
    torch.save(state, content)
    storage.write_file(root, places.checkpoint(name), content.getvalue(), lasting=False)
