"""Text for people: names of trials, numbers, durations, and the line of a traceback that counts."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from models.config import TrialConfig

SHORT = {"network": "", "dataset": "", "stages": "K=", "layers": ""}  # shown before the value
ERROR = re.compile(r"[\w.]+(Error|Exception|Interrupt|Exit)\b")  # start of a traceback's last line


def labels(trials: Sequence[TrialConfig], names: Sequence[str] | None = None) -> dict[str, str]:
    """A short name of each trial: the fields in which the trials of a sweep differ."""
    varying = names or varying_fields(trials) or ["network"]
    return {trial.trial: label(trial, varying) for trial in trials}


def label(trial: TrialConfig, names: Sequence[str]) -> str:
    """A short name of a trial: some of its fields."""
    return " ".join(f"{SHORT.get(n, n + '=')}{_value(getattr(trial, n))}" for n in names)


def varying_fields(trials: Iterable[TrialConfig]) -> list[str]:
    """The fields in which trials differ, in the order of a configuration."""
    rows = [trial.model_dump() for trial in trials]
    return [n for n in TrialConfig.model_fields if len({str(row[n]) for row in rows}) > 1]


def number(value: Any, digits: int = 3) -> str:
    """A figure for a table; empty where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 20 s, 5 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def last_line(error: str) -> str:
    """What a traceback comes down to; of Ray's pages on memory the line that says so."""
    lines = error.strip().splitlines() or ["no message"]
    if short := [line for line in lines if "low on memory" in line]:
        return f"out of memory: {short[-1].partition(' Memory on')[0]}"
    return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1])


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
