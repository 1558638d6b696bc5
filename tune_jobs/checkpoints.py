"""Checkpoints of a trial: ``checkpoints/<trial>.pt`` in the sweep's folder, read by torch."""

import io
import zipfile
from typing import Any

import torch

from scoring import places, storage


def read(root: str, name: str) -> dict[str, Any] | None:
    """Read a checkpoint; None if there is none.

    Raises:
        storage.Damaged: torch cannot read the file, or a checksum in it does not match.
    """
    content = storage.read_file(root, places.checkpoint(name))
    if content is None:
        return None
    with storage.reading(root, places.checkpoint(name)):
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            if changed := parts.testzip():  # torch writes checksums, but does not compare them
                raise ValueError(f"the checksum of {changed} does not match")
        state = torch.load(io.BytesIO(content), weights_only=True)
        if not isinstance(state["epoch"], int) or not isinstance(state["network"], dict):
            raise TypeError("no epoch and no network")
        return state


def write(root: str, name: str, state: dict[str, Any]) -> None:
    """Write a checkpoint. It replaces an earlier one atomically."""
    content = io.BytesIO()
    torch.save(state, content)
    storage.write_file(root, places.checkpoint(name), content.getvalue())
