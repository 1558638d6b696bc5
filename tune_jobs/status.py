"""How far a sweep is, from its folder alone: neither Ray nor MLflow is asked."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rich.filesize import decimal

from models.messages import plain
from scoring import places
from scoring.history import last_epoch
from scoring.places import argument
from tune_jobs import disk, folder, lease
from tune_jobs.labels import duration, labels, some, trials_of

SCORES = ("test_accuracy", "validation_accuracy", "lss", "lsr", "ots", "geodesic_excess")


@dataclass(frozen=True, repr=False)
class Status:
    """How far a sweep is. As text, it is what ``geosweep status`` prints."""

    name: str  # of the sweep
    folder: str  # absolute path or URI
    planned: int  # how many trials the sweep will have in the end
    counts: Mapping[str, int]  # trials of each kind: done, stopped early, diverged, failed, ...
    errors: Mapping[str, str]  # of the failed trials, by their ids
    complete: bool  # whether nothing is left to train, to score, to suggest or to evaluate
    running: bool  # whether some process holds the folder
    seconds_left: float | None  # None if it does not run, or no epoch has ended yet
    size: int  # of the folder, in bytes
    trials: Sequence[Mapping[str, Any]]  # id, label, status, epoch, scores, error, fields
    lines: Sequence[str]  # of the text

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__


def status(folder_: str) -> Status:
    """How far the sweep in a folder is."""
    state = folder.inspect(folder_)
    names = labels(state.trials)
    errors = {trial: str(state.rows[trial]["error"]) for trial in state.ids("failed")}
    counts = _counts(state)
    there = disk.sizes(state.root)
    size = sum(each for each, _ in there.values())
    weights = sum(n for path, (n, _) in there.items() if path.startswith(f"{places.CHECKPOINTS}/"))
    most = "at most " if state.seeds > 1 and state.to_suggest else ""
    lines = [f"{plain(state.name)}: {most}{trials_of(state.planned)}"]
    lines += [f"  {n:5} {what}" for what, n in counts.items() if n or what == "done"]
    lines += _cells(state)
    lines += [f"  no weights: {told}" for told in state.unreachable]
    if state.extra:
        lines.append(f"  extra, of another sweep: {some(state.extra)}")
    merged = sum(each for path, (each, _) in there.items() if path.endswith(places.MERGED))
    told = f" and {decimal(merged)} merged files, which may be deleted" if merged else ""
    lines.append(f"size: {decimal(size)}, of which {decimal(weights)} are checkpoints{told}")
    lines += [f"  failed {trial} ({names[trial]}): {error}" for trial, error in errors.items()]
    holder = None if state.complete else lease.holder(state.root)
    live = folder.progress(state.root) if holder else None
    if not state.complete:
        lines += _driver(state, holder, live)
    return Status(
        name=state.name,
        folder=state.root,
        planned=state.planned,
        counts=counts,
        errors=errors,
        complete=state.complete,
        running=holder is not None,
        seconds_left=live["seconds_left"] if live else None,
        size=size,
        trials=[*_trials(state, names, live)],
        lines=lines,
    )


def _trials(
    state: folder.State, names: Mapping[str, str], live: Mapping | None
) -> Iterator[dict[str, Any]]:
    """Each trial, as ``geosweep status --json`` has it; None is what is not known yet."""
    failed, begun = state.ids("failed"), {*state.begun}
    running = live["running"] if live else {}
    missing = {trial.trial for trial in state.missing}
    for config in state.trials:
        trial = config.trial
        row = state.rows.get(trial, {})
        epoch = row.get("epochs_done")
        if trial in running:
            status, epoch = "running", max(0, running[trial]["epoch"])
        elif trial in state.scoring:
            status, epoch = "to score", config.epochs
        elif trial in missing and trial not in failed:
            status = "begun" if trial in begun else "missing"
            epoch = last_epoch(state.root, trial) if trial in begun else None
        else:
            status = row["status"]
        scores = {name: row.get(name) for name in SCORES}
        known = {n: v for n, v in scores.items() if v is not None and math.isfinite(v)}
        yield {
            "trial": trial,
            "label": names[trial],
            "status": status,
            "epoch": epoch,
            "scores": dict.fromkeys(SCORES) | known,
            "error": row.get("error"),
            **config.model_dump(),
        }


def as_json(found: Status) -> dict[str, Any]:
    """What ``geosweep status --json`` prints of a sweep: all but the lines of the text."""
    return {each.name: getattr(found, each.name) for each in fields(found) if each.name != "lines"}


def _counts(state: folder.State) -> dict[str, int]:
    """How many trials there are of each kind."""
    failed = state.ids("failed")
    return {
        "done": len(state.ids("done")),
        "stopped early": len(state.ids("stopped")),
        "diverged": len(state.ids("diverged")),
        "failed": len(failed),
        "to score": len(state.scoring),
        "begun, go on from a checkpoint": len(set(state.begun) - set(failed)),
        "missing": len({t.trial for t in state.missing} - {*state.begun, *failed}),
        "to be suggested by the search": state.to_suggest,
        "to evaluate": len(state.unevaluated),
        "to evaluate, but kept no weights": len(state.weightless),
    }


def _cells(state: folder.State) -> list[str]:
    """How many cells of a search with several seeds have them all, and how many get no more."""
    if state.seeds == 1:
        return []
    done = {*state.ids("done")}
    first = (t.model_copy(update={"seed": 0}).trial for t in state.trials if t.trial in done)
    whole = sum(count == state.seeds for count in Counter(first).values())
    return [f"  cells: {whole} with all {state.seeds} seeds, {len(state.ended)} ended after fewer"]


def _driver(state: folder.State, holder: str | None, live: Mapping | None) -> list[str]:
    """Who trains what is missing now, or how to continue."""
    if holder and live:
        left = live["seconds_left"]
        words = f"about {duration(left)} left" if left is not None else "just begun"
        placed = ":" if live["running"] else "; no trial has its place yet"
        cells = live["running"].values()
        return [f"running now, {words}{placed}"] + [
            f"  {cell['label']}: epoch {max(cell['epoch'], 0)} of {cell['epochs']}"
            for cell in cells
        ]
    if holder:
        return [f"starting ({holder} holds the folder)"]
    only = state.unevaluated and not (state.missing or state.scoring or state.to_suggest)
    names = " ".join(state.evaluations)
    command = f"geosweep evaluate {argument(state.root)} {names}" if only else "geosweep run"
    return [f"not running; {command} continues"]


def in_words(found: Status) -> str:
    """What goes on in a sweep's folder, in a few words."""
    if found.running:
        left = found.seconds_left
        return "running" if left is None else f"running, about {duration(left)} left"
    return "complete" if found.complete else "not running"
