"""What a sweep would add to its folder, before anything starts."""

import itertools
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from models.config import TrialConfig
from scoring.tables import read_table
from tune_jobs import evaluations, folder
from tune_jobs.commands.ending import some
from tune_jobs.errors import SweepError
from tune_jobs.labels import label, labels, varying_fields
from tune_jobs.sweep import Sweep


def keep_apart(sweep: Sweep, root: str) -> None:
    """Refuse a folder that nobody named where it has results of cells that a sweep has not.

    Those would be extra from then on, which is rarely meant. A search is let through: its cells
    come from the study in the folder, which knows whether it is of another search.

    Raises:
        SweepError: how many cells, in what they differ, and the way out.
    """
    if sweep.search:
        return
    ids, begun = {trial.trial for trial in sweep.trials}, folder.begun(root)
    others = [t for t in folder.listed(root) if t.trial in begun - ids]
    if not others:
        return
    here = folder.short_path(root)
    trials = f"{len(others)} {'trial' if len(others) == 1 else 'trials'}"
    raise SweepError(
        f"{sweep.source}: {here} holds {trials} that this sweep does not have "
        f"({_difference(others, sweep.trials)}); --out {_free(here)} takes another folder, "
        f"--out {here} keeps both in one"
    )


def _difference(others: Sequence[TrialConfig], trials: Sequence[TrialConfig]) -> str:
    """The values that only the others have; where each value is in both, what they are called."""
    found = []
    for name in TrialConfig.model_fields:
        ours = {getattr(trial, name) for trial in trials}
        found += [label(trial, [name]) for trial in others if getattr(trial, name) not in ours]
    names = labels([*trials, *others])
    return some(list(dict.fromkeys(found or [names[trial.trial] for trial in others])))


def _free(root: str) -> str:
    """A folder beside another one that has no sweep yet."""
    names = (f"{root}-{number}" for number in itertools.count(2))
    return next(n for n in names if not folder.listed(folder.absolute(n)))


def show(request: folder.Request, console: Console) -> None:
    """What a sweep would train, and what of it is done."""
    sweep, root = request.sweep, request.root
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    rows = read_table(root, "trials", ["trial", "status"]).to_pylist()
    cells = folder.listed(root) if sweep.search else sweep.trials
    ids, begun = {trial.trial for trial in cells}, folder.begun(root)
    status = {row["trial"]: row["status"] for row in rows if row["trial"] in ids}
    done = sum(word == "done" for word in status.values())
    axes = f", suggested over {', '.join(sweep.space)}" if sweep.search else ""
    say(f"{sweep.name}: {sweep.search.trials if sweep.search else len(cells)} cells{axes}")
    there = f"{done} of them done" if done else "none done"
    say(f"folder   {folder.short_path(root)} ({there} there)")
    fixed = [n for n in TrialConfig.model_fields if n not in varying_fields(sweep.trials)]
    if other := [name for name in fixed if not _is_default(sweep.trials[0], name)]:
        say(f"fixed    {label(sweep.trials[0], other)}")
    if sweep.evaluations:
        say(f"evaluate {evaluations.changed(sweep.evaluations)}")
    for name in sorted({trial.dataset for trial in sweep.trials} - request.checksums.keys()):
        say(f"data     {name} is not on this machine yet; geosweep run downloads it")
    for note in request.notes:
        say(f"warning  {note}")
    if sweep.search:
        return
    for trial, called in labels(sweep.trials).items():
        word = status.get(trial) or ("begun" if trial in begun else "")
        say(f"  {trial}  {called}{f'  ({word})' if word else ''}")


def _is_default(trial: TrialConfig, name: str) -> bool:
    """Whether a field has the value that it would have if nobody had given it."""
    fields = trial.model_dump(exclude={name})
    try:
        return getattr(TrialConfig.model_validate(fields), name) == getattr(trial, name)
    except ValueError:  # the others need it
        return False
