"""Probe a model that was loaded, on images or text."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from models.messages import first_line, plain
from scoring.probe import TrackProbe
from scoring.probing.errors import ProbeError, ProbeWarning
from scoring.probing.nulls import SEED
from scoring.probing.result import ProbeResult
from tune_jobs.errors import SweepError
from tune_jobs.probing import inputs
from tune_jobs.probing.model import Loaded


def run(
    loaded: Loaded,
    files: tuple[str | None, str | None],
    sizes: tuple[int, int, int],
    device: str,
    settings: dict[str, Any],
) -> tuple[ProbeResult, list[str]]:
    """Run a model on all points.

    Args:
        loaded: the model.
        files: of images, or of text; the other one is None.
        sizes: how many points, how many at a time, how many tokens of a line.
        device: of torch.
        settings: of :class:`scoring.probe.TrackProbe`.

    Returns:
        The result, and what the probe warned of.

    Raises:
        SweepError: the points or the device cannot be used, or the model refuses them.
        ProbeError: the model cannot be measured.
    """
    model, (points, batch, longest) = loaded.model, sizes
    data, text = files
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise SweepError(f"--device {plain(device)}: {first_line(error)}") from error
    if text is not None:
        if loaded.tokenizer is None:
            raise SweepError("--text: only transformers:FOLDER has a tokenizer; give --data")
        batches: list[Any] = inputs.texts(text, points, batch, loaded.tokenizer, longest)
        if getattr(model.config, "is_encoder_decoder", False):
            for one in batches:
                one["decoder_input_ids"] = one["input_ids"]
                one["decoder_attention_mask"] = one["attention_mask"]
    else:
        assert data is not None
        kinds = (p.dtype for p in model.parameters() if p.is_floating_point())
        kind = next(kinds, torch.float32)
        batches = inputs.images(data, points, batch, loaded.pictures, kind)
    if loaded.again is not None and "reinit" in settings["null"]:
        settings = settings | {"null": [_again(loaded.again, device), *settings["null"]]}
        settings["null"].remove("reinit")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ProbeWarning)
        with torch.inference_mode(), TrackProbe(model, **settings) as probe:
            for one in batches:
                _call(model, one, device)
    found = [str(one.message) for one in caught if issubclass(one.category, ProbeWarning)]
    nulls = {"reinit" if name == "null" else name: s for name, s in probe.result.nulls.items()}
    return replace(probe.result, nulls=nulls), found


def _again(build: Callable[[], torch.nn.Module], device: str) -> torch.nn.Module:
    """A model with new weights, the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build().to(device)


def _call(model: torch.nn.Module, batch: Any, device: str) -> None:
    try:
        if isinstance(batch, dict):
            model(**{name: value.to(device) for name, value in batch.items()})
        else:
            model(batch.to(device))
    except ProbeError:
        raise
    except Exception as error:  # whatever the user's model raises on these points
        shape = "tokens" if isinstance(batch, dict) else f"points of shape {tuple(batch.shape)}"
        raise SweepError(
            f"the model fails on {shape}: {type(error).__name__}: {first_line(error)}"
        ) from error
