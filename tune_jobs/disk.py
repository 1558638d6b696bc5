"""What a sweep's folder takes on the disk or in the object store, and what of it can be deleted."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from stat import S_ISREG

from pyarrow.fs import FileType

from models.messages import plain
from scoring import places, storage
from scoring.handover import ENDED
from tune_jobs.folder import State
from tune_jobs.mlflow_store import forget, here, mlflow_runs

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")  # how scoring.storage and MLflow's store name them
STALE = 3600.0  # seconds; a younger temporary file may belong to a report that is being written


@dataclass(frozen=True)
class Part:
    """A part of a sweep's folder that can be deleted."""

    what: str  # in words
    root: str  # the folder it is in: the sweep's, or that of MLflow's data
    paths: tuple[str, ...]  # files and subfolders, deleted in this order
    files: int  # how many files these are
    size: int  # of all of them, in bytes
    lost: str  # what is no longer possible, or how it comes back
    experiment: str = ""  # of MLflow's database, where others stay in it


def sizes(root: str) -> dict[str, tuple[int, float]]:
    """Size in bytes and time of the last change of every file in a folder, by its path there.

    Links count as nothing, and so does what cannot be read.
    """
    if storage.is_local(root):
        return dict(_on_disk(storage.open_folder(root)[1]))
    found, folders = {}, [""]
    for folder in folders:  # grows while it is read
        for info in storage.infos(root, folder, hidden=True):
            path = f"{folder}/{info.base_name}".lstrip("/")
            if info.type == FileType.Directory:
                folders.append(path)
            elif info.type == FileType.File:
                found[path] = (info.size, (info.mtime_ns or 0) / 1e9)
    return found


def _on_disk(base: str) -> Iterator[tuple[str, tuple[int, float]]]:
    for folder, _, names in os.walk(base):
        for name in names:
            try:
                info = os.lstat(os.path.join(folder, name))
            except OSError:  # it was deleted meanwhile
                continue
            if S_ISREG(info.st_mode):
                path = f"{folder.removeprefix(base)}/{name}".lstrip("/")
                yield path, (info.st_size, info.st_mtime)


def checkpoints(state: State, there: Mapping[str, tuple[int, float]]) -> Part:
    """The weights of the finished trials, and the history next to them.

    A trial that is to be trained further, scored or evaluated keeps its weights.
    """
    busy = {*state.scoring, *(t.trial for t in (*state.missing, *state.unevaluated))}
    trials = [t for t, row in state.rows.items() if row["status"] in ENDED and t not in busy]
    names = (places.best_checkpoint, places.checkpoint, places.history)
    return _part(
        "weights of finished trials",
        state.root,
        [path for trial in trials for name in names if (path := name(trial)) in there],
        there,
        "geosweep evaluate cannot measure these trials again",
    )


def mlflow(root: str, name: str) -> Part:
    """MLflow's database and files of a sweep on this machine, unless a server has them.

    Args:
        root: the sweep's folder.
        name: the sweep's name. Runs of other sweeps in the folder stay, because geosweep
            sync can only restore the runs of this sweep.
    """
    place = str(here(root))
    there = sizes(place) if os.path.isdir(place) else {}
    runs = mlflow_runs(root)
    if others := sorted(runs.keys() - {name}):
        paths = [f"{places.ARTIFACTS}/{run}" for run in runs.get(name, ())]
        lost = f"geosweep sync fills it; runs of {plain(', '.join(others))} stay"
        part = _part(f"MLflow's runs of {plain(name)}", place, paths, there, lost)
        return replace(part, experiment=name, files=max(part.files, len(paths)))
    journals = (f"{places.MLFLOW}-{what}" for what in ("journal", "wal", "shm"))
    paths = [places.MLFLOW, *journals, places.ARTIFACTS]
    return _part("MLflow's runs on this machine", place, paths, there, "geosweep sync fills it")


def leftover(state: State, there: Mapping[str, tuple[int, float]]) -> Part:
    """What no command reads: damaged files, temporary ones, and copies of the data for nodes."""
    old = time.time() - STALE
    paths = [places.ASIDE, places.DATA, places.NODES]
    paths += [places.pending(trial) for trial in state.leftover]
    for path, (_, changed) in there.items():
        inside = path.partition("/")[0] in (*paths, *places.FREE)
        if not inside and changed < old and TEMPORARY.fullmatch(path.rpartition("/")[2]):
            paths.append(path)
    aside = sum(path.startswith(f"{places.ASIDE}/") for path in there)
    lost = f"damaged files, or files of others, in {places.ASIDE}/: {aside}" if aside else ""
    return _part("files that nothing needs", state.root, paths, there, lost)


def _part(
    what: str, root: str, paths: list[str], there: Mapping[str, tuple[int, float]], lost: str
) -> Part:
    """A part of those paths that have files."""
    count = dict.fromkeys(paths, 0)
    size = 0
    for file, (each, _) in there.items():
        for path in (*storage.folders_above(file), file):
            if path in count:
                count[path] += 1
                size += each
                break
    kept = tuple(path for path, files in count.items() if files)
    return Part(what, root, kept, sum(count.values()), size, lost)


def delete(part: Part) -> None:
    """Delete a part of a folder that the caller holds; after a kill it can be repeated."""
    for path in part.paths:
        storage.delete(part.root, path)
    if part.experiment:
        forget(part.root, part.experiment)
