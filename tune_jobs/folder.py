"""A sweep's folder as the driver sees it: its cells, their progress, and the current holder."""

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import ValidationError

from models.callables import Code
from models.config import TrialConfig
from models.files import given_path
from models.messages import first_line, plain
from scoring import handover, places, schemas, storage
from scoring.misplaced import set_all_aside
from scoring.tables import broken_files, read_table
from tune_jobs.errors import SweepError
from tune_jobs.evaluations import beyond
from tune_jobs.kept import Description, Progress, instead, wrong
from tune_jobs.lease import refuse_file, unwritable
from tune_jobs.sweep import Sweep
from tune_jobs.weights import best_of, evaluations, is_earlier, lacks

if TYPE_CHECKING:  # torch need not load to look at a sweep's folder
    from tune_jobs.blocks import Found

LONGEST = 5000  # characters; file systems allow paths of 4,096 bytes
TIMES = ("hours", "gpu_hours")  # what used.json has of each run, both in seconds


@dataclass(frozen=True)
class Request:
    """A validated request of a user."""

    sweep: Sweep
    root: str
    data: str | None
    address: str | None
    sources: dict[str, str]  # location of each data set, by name
    checksums: dict[str, str]  # checksum of each data set, by name
    retry: bool | None = None  # True: train only failed cells; False: all but those; None: all
    max_failures: int | None = None  # the sweep stops when this many cells have failed
    notes: Sequence[str] = ()  # warnings about the data sets
    code: Mapping[str, Code] = field(default_factory=dict)  # files of users, by identity
    found: Mapping[str, "Found"] = field(default_factory=dict)  # blocks of architectures, by trial
    # Of each data set, by name: train and test images, channels, height, width, and classes.
    images: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def of_folder(self) -> bool:
        """Whether the sweep is what its folder has, as for ``geosweep evaluate``, and no file."""
        return self.sweep.source == self.root


@dataclass(frozen=True)
class State:
    """The cells of a sweep's folder, grouped by progress."""

    root: str
    name: str
    description: str
    trials: list[TrialConfig]  # all cells, in the order of the sweep file or of the search
    rows: dict[str, dict[str, Any]]  # rows of the trials table, by trial
    scoring: list[str]  # trained; assignments still have to be solved
    leftover: list[str]  # finished, but killed before their pending files were deleted
    missing: list[TrialConfig]  # still to train: never run, interrupted or failed
    begun: list[str]  # the missing trials that have a checkpoint to go on from
    extra: list[str]  # trials with a row that are not cells of this version of the sweep
    to_suggest: int  # number of cells that a search has not suggested yet
    unevaluated: list[TrialConfig]  # done, lack an evaluation, and have weights for it
    weightless: list[str]  # done and lack an evaluation, but kept no weights for it
    # Likewise, but nothing is amiss: they lack only parts that are new, or are not among the best.
    excused: list[str] = field(default_factory=list)
    evaluations: Mapping[str, Any] = field(default_factory=dict)  # wanted ones, by name
    seeds: int = 1  # of each cell of a search
    ended: Mapping[str, int] = field(default_factory=dict)  # as in :func:`claim`
    worked: bool = False  # whether this run had something to do
    interrupted: bool = False  # whether Ctrl-C ended the run
    at_once: int = 0  # trials that fitted side by side in this run; 0 if none was to run
    busy: float = 0.0  # seconds of this run from its first trial to its last score
    over_budget: str = ""  # what of the budget ended the run, in words
    left_out: Collection[str] = ()  # failed cells that the run was told to leave

    def ids(self, *statuses: str) -> list[str]:
        """The trials whose row has one of these statuses."""
        return [t for t, row in self.rows.items() if row["status"] in statuses]

    @property
    def planned(self) -> int:
        """How many trials the sweep will have in the end."""
        return len(self.trials) + self.to_suggest

    @property
    def unfinished(self) -> int:
        """How many cells are neither done nor failed."""
        failed = self.ids("failed")
        missing = sum(trial.trial not in failed for trial in self.missing)
        return len(self.scoring) + self.to_suggest + missing

    @property
    def complete(self) -> bool:
        """Whether nothing is left to train, to score, to suggest or to evaluate."""
        return not (self.missing or self.scoring or self.to_suggest or self.unevaluated)

    @property
    def unreachable(self) -> list[str]:
        """What cannot be evaluated because weights were not kept, in words."""
        rows = [self.rows[trial] for trial in (*self.weightless, *self.excused)]
        points = [row.get("points") for row in rows]
        return beyond(map(evaluations, rows), self.evaluations, points)


def absolute(out: str) -> str:
    """Turn a sweep's folder into a name that holds in every process: absolute path or URI.

    Raises:
        SweepError: the URI cannot be opened or reached, or the path is not UTF-8.
    """
    if "://" not in out:
        root = os.path.realpath(given_path(out))
        if root.encode(errors="replace") != root.encode(errors="ignore"):  # pyarrow needs UTF-8
            raise SweepError(f"{root}: the name is not UTF-8; choose another folder with --out")
        return root
    try:
        return storage.open_folder(out)[1] if storage.is_local(out) else out.rstrip("/")
    except ValueError as error:
        raise SweepError(
            f"{out}: {error}; a folder is a path or a URI like s3://bucket/sweeps/demo"
        ) from error
    except OSError as error:  # an object store that does not answer, or does not know the bucket
        raise SweepError(
            f"{out}: cannot be reached: {first_line(error)}; name another folder, or set what the "
            "store needs (AWS_DEFAULT_REGION, AWS_ENDPOINT_URL)"
        ) from error


def path_of(name: str, out: str | None = None) -> str:
    """The folder of a sweep: a given one, or ``<name>`` in ``GEOSWEEP_STORAGE``, or in runs.

    An empty ``GEOSWEEP_STORAGE`` counts as not set.
    """
    return absolute(out or storage.subfolder(os.environ.get("GEOSWEEP_STORAGE") or "runs", name))


def short_path(root: str) -> str:
    """A sweep's folder relative to the current folder; unchanged if it is not below that."""
    relative = os.path.relpath(root) if "://" not in root else root
    return root if relative.startswith("..") else relative


def shown(path: str) -> str:
    """A path as a line on the terminal shows it; in quotes if it has invisible characters."""
    return plain(short_path(path), LONGEST)


def identity(root: str) -> tuple[int, int] | None:
    """Device and inode, which reveal that a folder was replaced; None if the folder is gone."""
    if not storage.is_local(root):
        return 0, 0  # an object store has no folders
    try:
        found = os.stat(storage.open_folder(root)[1])
    except OSError:
        return None
    return found.st_dev, found.st_ino


def claim(
    root: str,
    sweep: Sweep,
    suggested: list[TrialConfig] | None = None,
    notes: Sequence[str] = (),
    ended: Mapping[str, int] | None = None,
) -> None:
    """Write the cells of a sweep to ``sweep.json``.

    Cells that only an earlier version of the sweep had stay listed as extra.

    Args:
        root: the sweep's folder.
        sweep: the sweep that was asked for.
        suggested: the cells of a search so far.
        notes: warnings about the data sets; stored with the cells.
        ended: cells of a search that get no more seeds, by their first trials -> how many they
            were given.

    Raises:
        SweepError: the folder cannot be written.
    """
    _write(root, _content(root, sweep, suggested, notes, ended))


def _content(
    root: str,
    sweep: Sweep,
    suggested: list[TrialConfig] | None = None,
    notes: Sequence[str] = (),
    ended: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    known = description(root)
    cells = sweep.trials if sweep.search is None else suggested or []
    ids = {trial.trial for trial in cells}
    return {
        "name": sweep.name,
        "description": sweep.description,
        "search": sweep.search and sweep.search.model_dump(),
        "seeds": sweep.rules.seeds,  # of a search
        "ended": dict(ended or {}),  # cells that get no more -> how many seeds they were given
        "scheduler": sweep.scheduler and sweep.scheduler.model_dump(),
        "evaluations": sweep.evaluations,
        "keep": sweep.keep,
        "precision": sweep.precision or known.precision,
        "resources": sweep.resources.model_dump(),
        "notes": list(notes),
        "ids": [trial.trial for trial in cells],  # for programs that cannot compute them
        "trials": cells,
        "extra": [t for t in (*known.trials, *known.extra) if t.trial not in ids],
    }


def request_evaluations(root: str, evaluations: Mapping[str, Any]) -> None:
    """Add evaluations with their settings to those that ``sweep.json`` asks for.

    Raises:
        SweepError: the folder cannot be written.
    """
    _read(root)  # a damaged one is not changed
    content = json.loads(storage.read_file(root, places.SWEEP) or b"{}")
    _write(root, content | {"evaluations": content.get("evaluations", {}) | evaluations})


def as_sweep(root: str) -> Sweep:
    """The sweep in a folder as its last run was given it, without its search and scheduler.

    Raises:
        SweepError: there is no sweep in the folder.
    """
    known, state = description(root), inspect(root)
    return Sweep(
        name=state.name,
        description=state.description,
        trials=state.trials,
        resources=known.resources,
        source=root,
        evaluations=dict(state.evaluations),
        keep=known.keep,
    )


def description(root: str) -> Description:
    """What ``sweep.json`` in a folder says; that there are no cells, if there is no sweep.

    Raises:
        SweepError: it is torn, or not the description of a sweep.
    """
    return _read(root) or Description(name="", trials=[], extra=[])


def begun(root: str) -> set[str]:
    """Trials that have a row in the trials table or a checkpoint, by the names of their files."""
    folders = (places.table_folder("trials"), places.CHECKPOINTS)
    return {Path(name).stem for one in folders for name in storage.list_files(root, one)}


def mend(root: str) -> list[str]:
    """Set aside what is torn, foreign or misplaced: results, and what trials left for scoring.

    Their cells then count as missing. Checkpoints are read by the trials that need them.

    Returns:
        A line about each file: its path before it was moved, and what is wrong with it.
    """
    lines = set_all_aside(root)
    for trial in handover.waiting(root):
        try:
            handover.check(root, trial)
        except storage.Damaged as error:
            moved = ", ".join(handover.put_aside(root, error))
            lines.append(f"{error.path}: torn: {error.reason}; {moved} is in {places.ASIDE}/ now")
    moved = []
    for table in schemas.TABLES:
        for path in broken_files(root, table):
            row = places.table_path("trials", Path(path).stem)
            whole = table != "trials" and storage.read_file(root, row) is not None
            # The row first: after a kill in between, it would count without its other tables.
            for each in [row, path] if whole else [path]:
                storage.set_aside(root, each)
                moved.append(each)
    why = f"torn, or not of geosweep; it is in {places.ASIDE}/ now"
    lines += [f"{path}: {why}" for path in moved]
    try:
        used(root)
    except storage.Damaged as error:
        storage.set_aside(root, error.path)
        instead = "for the budget, the times of the trials count instead"
        lines.append(f"{error.path}: torn: {error.reason}; it is in {places.ASIDE}/ now; {instead}")
    return lines


def inspect(root: str, wanted: Mapping[str, Any] | None = None) -> State:
    """How far the sweep in a folder is.

    Args:
        root: the sweep's folder.
        wanted: evaluations with their settings; None means those that the sweep asks for.

    Raises:
        SweepError: there is no sweep in the folder.
        scoring.storage.StoreError: a file in it is torn or foreign.
    """
    known = _read(root)
    if known is None:
        refuse_file(root)
        there = "://" in root or Path(root).is_dir()
        why = f"no sweep here (no {places.SWEEP})" if there else "no such folder"
        raise SweepError(f"{root}: {why}; {instead(root, there)}")
    return _state(root, known, wanted)


def foreseen(root: str, sweep: Sweep) -> State:
    """How far a sweep would be in a folder, before it is run there; nothing is written."""
    known = description(root)
    content = _content(root, sweep, known.suggested, ended=known.ended)
    return _state(root, Description.model_validate(content))


def _state(root: str, known: Description, wanted: Mapping[str, Any] | None = None) -> State:
    trials = known.trials
    asked: Mapping[str, Any] = known.evaluations if wanted is None else wanted
    ids = {trial.trial for trial in trials}
    # Without a scheduler, trials that an earlier scheduler stopped are trained to the end.
    ended = handover.ENDED if known.scheduler else ("done", "diverged")
    rows = {r["trial"]: r for r in read_table(root, "trials").to_pylist()}
    extra = sorted(rows.keys() - ids)
    rows = {trial: row for trial, row in rows.items() if trial in ids}
    finished = {trial for trial, row in rows.items() if row["status"] in ended}
    waiting = handover.waiting(root)
    scoring = [t for t in waiting if t in ids - finished]
    leftover = [t for t in storage.list_files(root, places.PENDING) if t in finished]
    missing = [t for t in trials if t.trial not in finished and t.trial not in scoring]
    files = storage.list_files(root, places.CHECKPOINTS)
    kept = {Path(name).stem for name in files if name.endswith(".pt")}  # without histories
    begun = [t.trial for t in missing if t.trial in kept]
    tables = storage.list_files(root, places.table_folder("robustness"))
    tried = {Path(name).stem for name in tables}
    for trial in rows.keys() - tried:  # its table may have been deleted
        rows[trial] = rows[trial] | {"evaluations": None}
    lacking = [t for t in trials if t.trial in finished and lacks(rows[t.trial], asked)]
    weightless = [t.trial for t in lacking if t.trial not in kept]
    chosen = best_of(known.keep)
    excused = [trial for trial in weightless if chosen or is_earlier(rows[trial], asked)]
    return State(
        root=root,
        name=known.name,
        description=known.description,
        trials=trials,
        rows=rows,
        scoring=scoring,
        leftover=leftover,
        missing=missing,
        begun=begun,
        extra=extra,
        to_suggest=known.to_suggest,
        unevaluated=[t for t in lacking if t.trial in kept],
        weightless=[trial for trial in weightless if trial not in excused],
        excused=excused,
        evaluations=asked,
        seeds=known.seeds,
        ended=known.ended,
    )


def progress(root: str) -> dict[str, Any] | None:
    """The content of ``progress.json``, or None if no driver has written it or it is damaged."""
    try:
        found = json.loads(storage.read_file(root, places.PROGRESS) or b"null")
        Progress.model_validate(found)
    except (ValueError, RecursionError, storage.Damaged):
        return None
    return found


def used(root: str) -> dict[str, dict[str, float]]:
    """The content of ``used.json``: seconds of each run, by its name; empty if there is none.

    Raises:
        storage.Damaged: it is damaged.
    """
    content = storage.read_file(root, places.USED)
    if content is None:
        return {}
    with storage.reading(root, places.USED):
        found = json.loads(content)
        runs = {run: {name: float(entry[name]) for name in TIMES} for run, entry in found.items()}
        if not all(0 <= time < math.inf for run in runs.values() for time in run.values()):
            raise ValueError("a time is not a number of seconds")
    return runs


def _write(root: str, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, default=TrialConfig.model_dump)
    try:
        storage.write_file(root, places.SWEEP, text.encode())
    except (OSError, pa.ArrowException) as error:
        raise unwritable(root, error) from error


def _read(root: str) -> Description | None:
    """What ``sweep.json`` says; None if there is none.

    Raises:
        SweepError: it is torn, or not the description of a sweep.
    """
    try:
        content = storage.read_file(root, places.SWEEP)
        return None if content is None else Description.model_validate(json.loads(content))
    except (storage.Damaged, ValueError, RecursionError) as error:
        reason = error.reason if isinstance(error, storage.Damaged) else first_line(error)
        reason = wrong(error) if isinstance(error, ValidationError) else reason
        raise SweepError(
            f"{root}/{places.SWEEP}: torn: {reason}; delete it, geosweep run writes it again"
        ) from error
