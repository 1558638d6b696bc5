"""Read images or text for a probe, in batches that its model takes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.messages import first_line, plain
from tune_jobs.errors import SweepError

NAMES = ("x_test", "x", "images")  # of the array, the first of these that there is
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as models expect


def images(
    file: str, points: int, batch: int, standard: bool, kind: torch.dtype = torch.float32
) -> list[Tensor]:
    """The first images of an ``.npz`` file.

    Args:
        file: it holds an array ``x_test``, ``x`` or ``images``: uint8 of shape (count, height,
            width[, channels]), or floating-point numbers as the model takes them.
        points: the most images to read.
        batch: at most so many in a batch.
        standard: the model takes three colours, standardised like ImageNet.
        kind: the number format of the model.

    Raises:
        SweepError: the file has no such array, or the array has numbers that are not finite.
    """
    what = f"--data {plain(file)}"
    try:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise SweepError(
                f"{what}: an .npy file; should be .npz, which np.savez('images.npz', x=...) writes"
            )
        with archive:
            name = next((name for name in NAMES if name in archive), None)
            if name is None:
                raise SweepError(f"{what}: it has no array {', '.join(NAMES[:-1])} or {NAMES[-1]}")
            x = archive[name]
            x = x[:points] if x.ndim else x
    except SweepError:
        raise
    except FileNotFoundError as error:
        raise SweepError(f"{what}: no such file") from error
    except Exception as error:  # NumPy and zipfile raise many kinds
        raise SweepError(f"{what}: cannot be read as .npz: {first_line(error)}") from error
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        x = x[..., None] if x.ndim == 3 else x
        x = x.transpose(0, 3, 1, 2).astype(np.float32) / 255
        if standard:
            x = np.repeat(x, 3, axis=1) if x.shape[1] == 1 else x
            if x.shape[1] != 3:
                raise SweepError(f"{what}: {name} has {x.shape[1]} channels; should be 1 or 3")
            shape = (1, 3, 1, 1)
            x = (x - np.reshape(MEAN, shape)) / np.reshape(DEVIATION, shape)
    elif x.dtype.kind != "f" or x.ndim < 2:
        raise SweepError(
            f"{what}: {name} is {x.dtype} {x.shape}; should be uint8 (count, height, width[, "
            "channels]), or numbers as the model takes them"
        )
    if len(x) == 0:
        raise SweepError(f"{what}: {name} is empty")
    with np.errstate(over="ignore"):
        wide = np.float64 if kind == torch.float64 else np.float32
        made = torch.from_numpy(np.ascontiguousarray(x, dtype=wide)).to(kind)
    wrong = (~made.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
    if len(wrong):
        raise SweepError(
            f"{what}: {len(wrong)} of {len(x)} images of {name} have numbers that are NaN or "
            f"infinite, the first is image {wrong[0]} (counted from 0); leave them out"
        )
    return list(made.split(batch))


def texts(file: str, points: int, batch: int, tokenizer: Any, longest: int) -> list[dict[str, Any]]:
    """The first lines of a text file that are not empty, as batches of tokens.

    Args:
        file: UTF-8.
        points: the most lines to read.
        batch: at most so many in a batch.
        tokenizer: of transformers.
        longest: the most tokens of a line.

    Raises:
        SweepError: the file cannot be read, or has no text.
    """
    what = f"--text {plain(file)}"
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{what}: cannot be read: {first_line(error)}") from error
    lines = [line for line in lines if line.strip()][:points]
    if not lines:
        raise SweepError(f"{what}: it has no text")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise SweepError(
            "--text: the model's tokenizer has no pad_token and no eos_token; set one and save it "
            "with tokenizer.save_pretrained"
        )
    found = []
    told = {"return_tensors": "pt", "padding": True, "truncation": True, "max_length": longest}
    for start in range(0, len(lines), batch):
        found.append(dict(tokenizer(lines[start : start + batch], **told)))
    return found
