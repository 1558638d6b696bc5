"""The shapes of what a sweep's folder keeps about its sweep: ``sweep.json``, ``progress.json``.

Files are checked when they are read, so that a changed one is named and costs no traceback.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from models.config import TrialConfig
from models.messages import field_name
from tune_jobs.sweep import Resources
from tune_jobs.weights import Keep


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Search(_Part):
    trials: int
    objectives: dict[str, str] | None = None


class Description(_Part):
    """The content of ``sweep.json``, as far as it is used; earlier versions lack some of it."""

    name: str
    description: str = ""
    trials: list[TrialConfig]
    extra: list[TrialConfig]
    search: _Search | None = None
    seeds: int = 1
    ended: dict[str, int] = {}
    scheduler: dict[str, Any] | None = None
    evaluations: dict[str, dict[str, Any]] = {}
    resources: Resources = Resources()
    keep: Keep = "final"
    precision: Literal["", "float32", "bfloat16"] = ""


class _Running(_Part):
    label: str
    epoch: int
    epochs: int


class Progress(_Part):
    """The content of ``progress.json``."""

    running: dict[str, _Running]
    seconds_left: float | None


def to_suggest(known: Mapping[str, Any]) -> int:
    """How many trials a search is still to suggest; with several seeds, at most."""
    search, trials = known.get("search"), known["trials"]
    if not search:
        return 0
    seeds = known.get("seeds", 1)
    if seeds == 1:
        return max(0, search["trials"] - len(trials))
    cells = max(search["trials"], sum(trial.seed == 0 for trial in trials))
    dropped = sum(seeds - count for count in known.get("ended", {}).values())
    return max(0, cells * seeds - dropped - len(trials))


def wrong(error: ValidationError) -> str:
    """The first thing that is wrong with a file, in a few words."""
    first = error.errors(include_url=False)[0]
    return f"{field_name(first['loc'])}: {first['msg'].lower()}" if first["loc"] else first["msg"]
