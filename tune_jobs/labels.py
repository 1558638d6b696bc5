"""Text for people: trial labels, numbers, durations, and the telling line of a traceback."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from models.config import ARGUMENT, TrialConfig

SHORT = {
    "network": "",
    "architecture": "",
    "dataset": "",
    "stages": "K=",
    "layers": "",
}  # prefixes; else "field="
ERROR = re.compile(r"[\w.]+(Error|Exception|Interrupt|Exit)\b")  # start of a traceback's last line


def labels(
    trials: Sequence[TrialConfig],
    names: Sequence[str] | None = None,
    exact: Collection[str] = (),
) -> dict[str, str]:
    """A label for each trial, by trial ID, made of the given fields.

    Without given fields it shows those in which the trials differ, or else the network. Fields with
    values that look alike, such as 1 and 1.0, are written exactly, and so are those in ``exact``.
    """
    varying = names or varying_fields(trials) or [_kind(trials[0])] if trials else []
    exact = {*exact, *unclear(trials, varying)}
    return {trial.trial: label(trial, varying, exact) for trial in trials}


def unclear(trials: Sequence[TrialConfig], names: Sequence[str]) -> set[str]:
    """The fields in which two values of these trials differ but look alike in a label."""
    found = set()
    for name in names:
        values = {repr(one): one for one in (value(trial, name) for trial in trials)}
        if len(set(map(_value, values.values()))) < len(values):
            found.add(name)
    return found


def _kind(trial: TrialConfig) -> str:
    return "network" if trial.architecture is None else "architecture"


def label(trial: TrialConfig, names: Sequence[str], exact: Collection[str] = ()) -> str:
    """A label for a trial, made of the given fields; those in ``exact`` as Python writes them."""
    shown = ((n, (repr if n in exact else _value)(value(trial, n))) for n in names)
    return " ".join(f"{SHORT.get(name, name + '=')}{text}" for name, text in shown)


def value(trial: TrialConfig, name: str) -> Any:
    """The value of a field, or of an argument ``model.NAME``; None if the trial has no such one."""
    if name.startswith(ARGUMENT):
        return trial.arguments.get(name.removeprefix(ARGUMENT))
    return getattr(trial, name)


def varying_fields(trials: Sequence[TrialConfig]) -> list[str]:
    """The fields in which the trials differ, in the order of the configuration."""
    return [n for n in fields(trials) if len({repr(value(trial, n)) for trial in trials}) > 1]


def fields(trials: Sequence[TrialConfig]) -> list[str]:
    """The fields of these trials, with the arguments of their architectures as ``model.NAME``."""
    given = {f"{ARGUMENT}{name}" for trial in trials for name in trial.arguments}
    return [*(name for name in TrialConfig.model_fields if name != "model"), *sorted(given)]


def number(value: Any, digits: int = 3) -> str:
    """A number as text for a table; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def trials_of(count: int, what: str = "") -> str:
    """A number of trials, in words.

    >>> trials_of(1), trials_of(16, "earlier")
    ('1 trial', '16 earlier trials')
    """
    noun = "trial" if count == 1 else "trials"
    return f"{count} {what} {noun}" if what else f"{count} {noun}"


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 20 s, 5 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def last_line(error: str) -> str:
    """The line of a traceback that names the error; for Ray's memory report, a short summary."""
    lines = error.strip().splitlines() or ["no message"]
    if short := [line for line in lines if "low on memory" in line]:
        return f"out of memory: {short[-1].partition(' Memory on')[0]}"
    return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1])


def by_sizes(shape: Sequence[int]) -> str:
    """A shape, as people write it.

    >>> by_sizes((3, 32, 32))
    '3 x 32 x 32'
    """
    return " x ".join(map(str, shape))


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if str(value).isprintable() else repr(value)  # a label is one line
