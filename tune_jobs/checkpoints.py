"""Checkpoints of a trial: ``checkpoints/<trial>.pt`` in the sweep's folder, read by torch."""

import io
from typing import Any

import torch

from scoring import places, storage


def read(root: str, name: str) -> dict[str, Any] | None:
    """Read a checkpoint; None if there is none.

    A file that torch cannot read is set aside, so its trial starts again from the beginning.
    """
    content = storage.read_file(root, places.checkpoint(name))
    if content is None:
        return None
    try:
        return torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # pickle, zipfile and torch's own reader raise many types
        storage.set_aside(root, places.checkpoint(name))
        return None


def write(root: str, name: str, state: dict[str, Any]) -> None:
    """Write a checkpoint. It replaces an earlier one atomically."""
    content = io.BytesIO()
    torch.save(state, content)
    storage.write_file(root, places.checkpoint(name), content.getvalue())
