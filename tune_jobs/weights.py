"""Which trials keep their weights, and which need theirs for an evaluation that is yet to be made.

``keep: {best: k}`` keeps those of the k best trials of a sweep. Of two trials that finish, the
worse one never becomes one of the best again, so it loses its weights at once. Whatever order the
trials finish in, and however often the sweep is killed, the same k remain.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

from pydantic import PlainValidator
from pydantic_core import PydanticKnownError

from models.config import TrialConfig
from models.fields import number
from scoring.rows import has_all_scores
from tune_jobs.evaluations import earlier, lacking

WORDS = ("final", "best", "none")
MOST = 100_000


def _keep(given: Any) -> Any:
    if not isinstance(given, dict):
        if given in WORDS:
            return given
        expected = {"expected": "'final', 'best', 'none' or {best: k}"}
        raise PydanticKnownError("literal_error", expected)
    count = given.get("best")
    with suppress(ValueError):  # 1e1 is 10
        count = number(count)
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    if len(given) != 1 or type(count) is not int or not 1 <= count <= MOST:
        raise ValueError("should be {best: k}, for the weights of the k best trials, 1 to 10^5")
    return {"best": count}


Keep = Annotated[str | dict[str, int], PlainValidator(_keep)]  # weights of trials that are done


def best_of(keep: str | Mapping[str, int]) -> int | None:
    """How many trials of a sweep keep their weights in the end; None if all do.

    >>> best_of("final"), best_of("none"), best_of({"best": 3})
    (None, 0, 3)
    """
    return 0 if keep == "none" else None if isinstance(keep, str) else keep["best"]


def aim(objectives: Mapping[str, str] | None, trials: Sequence[TrialConfig]) -> tuple[str, str]:
    """What the best trials are the best in: a column of the trials table, and ``max`` or ``min``.

    It is the first objective of a search. Without one it is validation accuracy if all trials have
    a validation split, else test accuracy.
    """
    if objectives:
        return next(iter(objectives.items()))
    held_out = all(trial.validation for trial in trials)
    return ("validation_accuracy" if held_out else "test_accuracy"), "max"


def spare(
    rows: Mapping[str, Mapping[str, Any]],
    keep: str | Mapping[str, int],
    best_in: tuple[str, str],
    wanted: Mapping[str, Any],
    ended: Sequence[str],
) -> list[str]:
    """Trials whose weights nothing needs any more.

    Args:
        rows: rows of the trials table, by trial. Trials that lost their weights may be left out.
        keep: as a sweep file gives it.
        best_in: from :func:`aim`. Of equal trials the one whose ID comes first is better.
        wanted: evaluations with their settings. A trial that lacks one keeps its weights.
        ended: statuses of trials that are not trained any further.

    >>> rows = {"a": {"status": "done", "lss": 1.2}, "b": {"status": "done", "lss": 1.1}}
    >>> spare(rows, {"best": 1}, ("lss", "min"), {}, ["done"])
    ['a']
    """
    count, (name, way) = best_of(keep), best_in
    if count is None:
        return []

    def rank(trial: str) -> tuple[float, str]:
        value = rows[trial].get(name)
        value = math.nan if value is None else float(value)
        return (math.inf if math.isnan(value) else -value if way == "max" else value), trial

    best = sorted((t for t, row in rows.items() if row["status"] == "done"), key=rank)[:count]
    rest = [t for t, row in rows.items() if row["status"] in ended and t not in best]
    return [trial for trial in rest if not lacks(rows[trial], wanted)]


def evaluations(row: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a trial's evaluations, by name."""
    has = json.loads(row.get("evaluations") or "{}")
    return has | {"scores": {}} if has_all_scores(row) else has


def lacks(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a trial is done but lacks a wanted evaluation, or has it with other settings."""
    if not wanted or row["status"] != "done":
        return False
    return bool(lacking(evaluations(row), wanted, row.get("points")))


def is_earlier(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether all that a trial lacks are parts that earlier versions did not measure."""
    has, m = evaluations(row), row.get("points")
    return all(n in has and earlier(n, has[n], wanted[n], m) for n in lacking(has, wanted, m))
