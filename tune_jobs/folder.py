"""A sweep's folder as the driver sees it: which cells it has, how far each is, who holds it."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from models.config import TrialConfig
from scoring import handover, schemas
from tune_jobs.sweep import Sweep, SweepError

CELLS = "sweep.json"
PROGRESS = "progress.json"
FINISHED = ("done", "diverged")  # a trial that diverged would diverge again


@dataclass(frozen=True)
class Request:
    """What a user asked for, checked."""

    sweep: Sweep
    root: str
    data: str | None
    address: str | None
    sources: dict[str, str]  # where each data set is


@dataclass(frozen=True)
class State:
    """The cells of a sweep's folder, by how far they are."""

    name: str
    trials: list[TrialConfig]  # all of them, in the order of the sweep file
    rows: dict[str, dict[str, Any]]  # of the trials table, by trial
    scoring: list[str]  # trained, with assignments to solve
    leftover: list[str]  # finished, but killed before they had cleared up
    missing: list[TrialConfig]  # to be trained, or to go on: never run, interrupted, failed
    begun: list[str]  # of the missing, those that have a checkpoint to go on from
    extra: int  # trials in the folder that are of an earlier version of the sweep, or another one

    def ids(self, *statuses: str) -> list[str]:
        """Trials whose row has one of these statuses."""
        return [t for t, row in self.rows.items() if row["status"] in statuses]


def absolute(out: str) -> str:
    """A sweep's folder as every process can name it: an absolute path, or the URI it is."""
    return out.rstrip("/") if "://" in out else str(Path(out).expanduser().resolve())


def claim(root: str, sweep: Sweep) -> None:
    """Write down the cells of a sweep; those of an earlier version of it stay listed as extra.

    Raises:
        SweepError: the folder cannot be written.
    """
    known = _read(root)
    ids = {trial.trial for trial in sweep.trials}
    extra = [] if known is None else known["trials"] + known["extra"]
    content = {
        "name": sweep.name,
        "description": sweep.description,
        "trials": [trial.model_dump() for trial in sweep.trials],
        "extra": [t for t in extra if TrialConfig.model_validate(t).trial not in ids],
    }
    try:
        schemas.write_file(root, CELLS, json.dumps(content, indent=1).encode())
    except (OSError, pa.ArrowException) as error:
        raise _unwritable(root, error) from error


def inspect(root: str) -> State:
    """How far the sweep in a folder is.

    Raises:
        SweepError: there is no sweep in the folder.
        scoring.schemas.StoreError: a file in it is torn or foreign.
    """
    known = _read(root)
    if known is None:
        raise SweepError(f"{root}: no sweep here (no {CELLS}); geosweep run SWEEP --out {root}")
    trials = [TrialConfig.model_validate(fields) for fields in known["trials"]]
    ids = {trial.trial for trial in trials}
    rows = {r["trial"]: r for r in schemas.read_table(root, "trials").to_pylist()}
    extra = len(rows.keys() - ids)
    rows = {trial: row for trial, row in rows.items() if trial in ids}
    finished = {trial for trial, row in rows.items() if row["status"] in FINISHED}
    waiting = handover.waiting(root)
    scoring = [t for t in waiting if t in ids - finished]
    leftover = [t for t in waiting if t in finished]
    missing = [t for t in trials if t.trial not in finished and t.trial not in scoring]
    kept = {name.removesuffix(".pt") for name in schemas.list_files(root, "checkpoints")}
    begun = [t.trial for t in missing if t.trial in kept]
    return State(known["name"], trials, rows, scoring, leftover, missing, begun, extra)


def progress(root: str) -> dict[str, Any] | None:
    """What the driver of a running sweep wrote last, if any ran here."""
    content = schemas.read_file(root, PROGRESS)
    return None if content is None else json.loads(content)


@contextmanager
def hold(root: str) -> Iterator[None]:
    """Hold a local folder for one driver.

    Raises:
        SweepError: another one has it, or it cannot be written; the message says which.
    """
    if "://" in root:
        yield
        return
    holder = Path(root, ".holder")
    lock = FileLock(Path(root, ".lock"))
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=1)  # `held` has it for a moment
    except OSError as error:
        if not isinstance(error, Timeout):
            raise _unwritable(root, error) from error
        who = holder.read_text() if holder.exists() else "another process"
        raise SweepError(f"{root}: {who} is running this sweep; wait for it, or stop it") from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _unwritable(root: str, error: Exception) -> SweepError:
    return SweepError(f"{root}: cannot be written: {error}; choose a folder with --out")


def _read(root: str) -> dict[str, Any] | None:
    content = schemas.read_file(root, CELLS)
    return None if content is None else json.loads(content)


def held(root: str) -> bool:
    """Whether a driver holds a local folder now."""
    if "://" in root or not Path(root, ".lock").exists():
        return False
    lock = FileLock(Path(root, ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
