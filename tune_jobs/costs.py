"""What earlier trials cost: seconds, memory and disk, by kind of trial, in the cache folder.

There is one small file for each kind of machine, and for each cluster. Losing it only affects the
next estimate, so files that cannot be read count as empty, and files that cannot be written stay
unchanged.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

from models.config import TrialConfig
from models.datasets import cache_folder
from models.errors import DataError
from models.precision import kind_of_machine
from scoring.cores import cores
from tune_jobs.sweep import Sweep

MOST = 20  # trials remembered of each kind, and runs; the oldest go
KINDS = 1000  # kinds remembered; the one unused for longest is dropped first
PATIENCE = 5.0  # seconds to wait for another sweep that writes the file
NO_COST = {"gamma", "decay", "seed", "epochs", "learning_rate", "momentum", "schedule", "warmup"}
NO_COST |= {"initialisation", "initial_scale", "split"}
NO_COST |= {"dataset"}  # the counts and shape of its images decide instead
PENALTIES = {"transport_penalty", "straightness_penalty"}  # they cost the same at any weight


class _Kept(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Cost(_Kept):
    """What one trial cost, or is expected to."""

    epoch: float = Field(ge=0)  # seconds of an epoch with its evaluation and line shape
    other: float = Field(ge=0)  # further seconds that it holds its CPU or GPU
    scoring: float = Field(ge=0)  # seconds to solve its assignments, after that
    memory: float = Field(ge=0)  # bytes of the process that trains it, at its peak
    disk: float = Field(ge=0)  # bytes that it leaves in the sweep's folder

    def seconds(self, epochs: int) -> float:
        """How long a trial with this many epochs left holds its CPU or GPU."""
        return self.other + epochs * self.epoch


class Known(_Kept):
    """What is known of one kind of trial."""

    trials: list[Cost] = []  # that were trained, the latest last
    timed: Cost | None = None  # from a timed step


class Past(_Kept):
    """The content of a file."""

    machine: str = ""
    kinds: dict[str, Known] = {}  # those seen last come last
    around: list[float] = []  # seconds of runs before their first and after their last trial


def place(address: str | None, gpus: float) -> str:
    """What the costs apply to: this machine, or a cluster as seen from it.

    Args:
        address: of a Ray cluster; None means this machine.
        gpus: of each trial.
    """
    cluster = address or os.environ.get("RAY_ADDRESS")
    told = f"cluster {cluster}, " if cluster else ""
    told += f"{kind_of_machine('cpu')[0]}, {cores()} cores"
    return f"{told}, {kind_of_machine('cuda')[0]}" if gpus else told


def traits(trial: TrialConfig) -> dict[str, Any]:
    """The fields of a trial that decide its cost on given data; penalties count as on or off."""
    about: dict[str, Any] = trial.model_dump(exclude_defaults=True, exclude=NO_COST)
    return about | {name: True for name in PENALTIES if about.pop(name, 0)}


def kind(trial: TrialConfig, images: Sequence[int], sweep: Sweep, gpus: float) -> str:
    """A name for all that decides what a trial costs on one machine.

    Args:
        trial: its configuration.
        images: counts of train and test images, their channels, height and width, and classes.
        sweep: which evaluates trials, keeps weights and gives out cores.
        gpus: of each trial.
    """
    about = traits(trial) | {
        "images": list(images),
        "cpus": sweep.resources.cpus,
        "gpus": float(gpus),
    }
    about |= {"evaluations": sweep.evaluations} if sweep.evaluations else {}
    about |= {"keep": sweep.keep} if sweep.keep != "final" else {}
    text = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(where: str) -> Past:
    """What is known of a machine from :func:`place`; nothing if the file cannot be read."""
    with suppress(OSError, ValueError, RecursionError, DataError):  # pydantic's are ValueErrors
        return Past.model_validate_json(_file(where).read_bytes())
    return Past()


def add(
    where: str,
    trials: Sequence[tuple[str, Cost]] = (),
    timed: Mapping[str, Cost] | None = None,
    around: float | None = None,
) -> None:
    """Add what was measured to the file of a machine; nothing happens if it cannot be written.

    Args:
        where: from :func:`place`.
        trials: kinds and costs of trials that were trained.
        timed: costs from timed steps, by kind.
        around: seconds of a run before its first and after its last trial.
    """
    with suppress(OSError, Timeout, DataError):
        file = _file(where)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock", timeout=PATIENCE):
            past = read(where)
            for name, cost in trials:
                found = past.kinds.pop(name, Known())
                kept = [*found.trials, cost][-MOST:]
                past.kinds[name] = Known(trials=kept, timed=found.timed)
            for name, cost in (timed or {}).items():
                found = past.kinds.pop(name, Known())
                past.kinds[name] = Known(trials=found.trials, timed=cost)
            runs = past.around if around is None else [*past.around, around][-MOST:]
            kinds = dict([*past.kinds.items()][-KINDS:])
            text = Past(machine=where, kinds=kinds, around=runs).model_dump_json()
            written = file.with_name(f"{file.name}.{os.getpid()}.tmp")
            written.write_text(text)
            written.replace(file)


def _file(where: str) -> Path:
    key = hashlib.sha256(where.encode()).hexdigest()[:16]
    return cache_folder() / "costs" / f"{key}.json"
