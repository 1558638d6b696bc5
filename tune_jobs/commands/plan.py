"""What a sweep would train and where, before anything starts."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.config import ARGUMENT, TrialConfig
from models.messages import plain
from scoring.places import argument
from tune_jobs import estimates, evaluations, folder, room, service
from tune_jobs.account import told
from tune_jobs.errors import SweepError
from tune_jobs.estimates import Estimate
from tune_jobs.labels import (
    fields,
    label,
    labels,
    some,
    trials_of,
    unclear,
    value,
    varying_fields,
)
from tune_jobs.sweep import Sweep


def keep_apart(sweep: Sweep, root: str, here: str = "") -> None:
    """Refuse the default folder of a sweep if it holds trials that the sweep does not have.

    Continuing there would mix two sweeps, which users rarely want. A search may continue in the
    folder of a search: its study, which lies there, notices another search itself.

    Args:
        sweep: what is to run.
        root: its default folder.
        here: what ``--out`` calls it; the shortest path from the current folder if empty.

    Raises:
        SweepError: the message counts those trials, says how they differ, and suggests --out.
    """
    known = folder.description(root)
    if sweep.search and known.suggested:
        return
    ids, begun = {trial.trial for trial in sweep.trials}, folder.begun(root)
    others = [t for t in known.trials if t.trial in begun - ids]
    if not others:
        return
    here = here or folder.short_path(root)
    trials = trials_of(len(others))
    raise SweepError(
        f"{sweep.source}: {here} holds {trials} that this sweep does not have "
        f"({_difference(others, sweep.trials)}); --out {argument(_free(here))} uses another "
        f"folder, --out {argument(here)} keeps both sweeps in this one"
    )


def _difference(others: Sequence[TrialConfig], trials: Sequence[TrialConfig]) -> str:
    """How other trials differ: the values that only they have, or else their labels."""
    found = []
    for name in fields([*trials, *others]):
        ours = {repr(value(trial, name)) for trial in trials}
        different = [trial for trial in others if repr(value(trial, name)) not in ours]
        exact = unclear([*trials, *others], [name]) if different else ()
        found += [label(trial, [name], exact) for trial in different]
    names = labels([*trials, *others])
    return some(list(dict.fromkeys(found or [names[trial.trial] for trial in others])))


def _free(root: str) -> str:
    """The first of ``root-2``, ``root-3``, ... without a sweep."""
    names = (f"{root}-{number}" for number in itertools.count(2))
    return next(n for n in names if not folder.description(folder.absolute(n)).trials)


@dataclass(frozen=True, repr=False)
class Plan:
    """What a sweep would train. As text, it is what ``geosweep run --dry-run`` prints."""

    name: str  # of the sweep
    folder: str  # absolute path or URI
    trials: Sequence[Mapping[str, Any]]  # id, label, status (empty if not begun) and fields of each
    notes: Sequence[str]  # warnings about the data sets
    lines: Sequence[str]  # of the text
    estimate: Estimate  # of what is left

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__


def plan(request: folder.Request) -> Plan:
    """The trials of a sweep, and how far each of them is in its folder."""
    sweep, root = request.sweep, request.root
    service.same_data(request)
    state = folder.foreseen(root, sweep)
    called, begun = labels(state.trials), folder.begun(root)
    status = {trial: row["status"] for trial, row in state.rows.items()}
    status |= dict.fromkeys(state.scoring, "to score")
    trials = [
        {"trial": each.trial, "label": called[each.trial], "status": word, **each.model_dump()}
        for each in state.trials
        for word in [status.get(each.trial) or ("begun" if each.trial in begun else "")]
    ]
    left = estimates.left(request, service.chosen(state, request.retry))
    forecast = estimates.forecast(request, left)
    slots = room.slots(request.address, sweep.resources) if forecast.costs else 1
    estimate = forecast.total(slots)
    lines = _lines(request, len(state.trials), len(state.ids("done")))
    lines += estimate.lines()
    for each in trials if not sweep.search else ():
        word = f"  ({each['status']})" if each["status"] else ""
        lines.append(f"  {each['trial']}  {each['label']}{word}")
    return Plan(sweep.name, root, trials, list(request.notes), lines, estimate)


def _lines(request: folder.Request, cells: int, done: int) -> list[str]:
    """What is said of a sweep as a whole: cells, folder, fixed fields, search, evaluations, data.

    Args:
        request: of the sweep.
        cells: how many it has so far.
        done: how many of them are done.
    """
    sweep, root = request.sweep, request.root
    spaces = [sweep.space, *(branch.space for branch in sweep.rules.branches)]
    names = ", ".join(dict.fromkeys(name for one in spaces for name in one))
    axes = f", suggested over {names}" if sweep.search else ""
    seeds = f", each with up to {sweep.rules.seeds} seeds" if sweep.rules.seeds > 1 else ""
    there = f"{done} of them done" if done else "none done"
    lines = [
        f"{plain(sweep.name)}: {sweep.search.trials if sweep.search else cells} cells{axes}{seeds}",
        f"folder   {folder.shown(root)} ({there} there)",
    ]
    varying = varying_fields(sweep.trials)
    fixed = [name for name in fields(sweep.trials) if name not in varying]
    if other := [name for name in fixed if not _is_default(sweep.trials[0], name)]:
        lines.append(f"fixed    {label(sweep.trials[0], other)}")
    if sweep.precision:
        lines.append(f"auto     precision is {sweep.precision} here")
    if sweep.search:
        aims = [f"{name} ({way})" for name, way in sweep.search.objectives.items()]
        lines.append(f"search   by {', '.join(aims)}")
    if sweep.budget.limits:
        lines.append(f"budget   {told(root, sweep.budget)}")
    if sweep.evaluations:
        lines.append(f"evaluate {evaluations.changed(sweep.evaluations)}")
    for name in sorted({trial.dataset for trial in sweep.trials} - request.checksums.keys()):
        lines.append(f"data     {name} is not on this machine yet; geosweep run will download it")
    lines += _networks(request)
    return lines + [f"warning  {note}" for note in request.notes]


def _networks(request: folder.Request) -> list[str]:
    """What was found in each architecture of a sweep."""
    trials = {trial.trial: trial for trial in request.sweep.trials}
    arguments = [name for name in fields(request.sweep.trials) if name.startswith(ARGUMENT)]
    exact = unclear(request.sweep.trials, arguments)
    told: dict[str, list[str]] = {}
    for trial, found in request.found.items():
        own = [name for name in fields([trials[trial]]) if name.startswith(ARGUMENT)]
        told.setdefault(label(trials[trial], ["architecture", *own], exact), found.lines())
    return [
        f"{'' if number else 'network':9}{line}"
        for name, lines in told.items()
        for number, line in enumerate([f"{name}: {lines[0]}", *lines[1:]])
    ]


def _is_default(trial: TrialConfig, name: str) -> bool:
    """Whether a field has the value that it would have if the sweep did not set it."""
    given = trial.model_dump()
    value = given.pop(name, None)
    try:
        return TrialConfig.model_validate(given).model_dump().get(name) == value
    except ValueError:  # The other fields are only valid together with this one.
        return False
