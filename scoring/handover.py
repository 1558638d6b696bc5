"""Hands a trained network over to scoring, and finishes its tables.

A trial leaves its assignment problems and its training history in ``pending/<trial>/`` before
it gives its CPU or GPU back. From then on nothing needs the network. An actor, or the next run
after a crash, finishes the trial: it solves the problems, writes the four tables, the trials
table last, and then deletes the folder. This needs neither torch nor Ray.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pyarrow.fs import FileType

from scoring import places, schemas, storage
from scoring.archive import Archive, open_archive, write_archive
from scoring.history import check_history, read_history
from scoring.left_curve import finish_curve
from scoring.robustness.record import robustness_columns
from scoring.rows import Solved, completed, sample_rows, summary_columns, track_row
from scoring.tables import read_row, read_rows, write_table

if TYPE_CHECKING:
    from scoring.stages import Stage

PROBLEM = {"own", "columns", "rows", "shift", "collapsed", "unit"}  # arrays in every version
BASELINE = {"random_cost", "along", "relative"}  # arrays added with the baseline of OTS
PLACE = {  # columns that tell a trial's rows of a table apart
    "trials": (),
    "epochs": ("epoch",),
    "tracks": ("epoch", "stage"),
    "samples": ("stage", "point"),
}
ENDED = ("done", "diverged", "stopped")  # statuses of trials with nothing left to do


def leave_initial(root: str, trial: str, stages: Sequence["Stage"]) -> None:
    """Keep the assignment problems of the network before training; all stages have one.

    As the files of each epoch, they survive a power failure only once the trial is handed over.
    """
    arrays = {stage.stage: _problem_arrays(stage) for stage in stages}
    write_archive(root, places.initial(trial), arrays, lasting=False)


def leave_final(
    root: str,
    trial: str,
    stages: Sequence["Stage"],
    labels: np.ndarray,
    predictions: np.ndarray,
    history: Mapping[str, Any],
) -> None:
    """Hand a trained network over. Once this file exists, the trial is not trained again.

    What was written while it trained is made to survive a power failure first.

    Args:
        root: the sweep's folder.
        trial: its id.
        stages: measured after the last epoch, with problems unless the trial diverged.
        labels: classes (m,) of the points measured.
        predictions: the network's classes (m,).
        history: as :func:`scoring.history.write_history` takes it. With ``"initial": False`` the
            problems from before training are missing, and nothing is added about that epoch.
    """
    epochs = history["epochs"]
    summary = history["summary"] | {
        "seconds": math.fsum(record["seconds"] for record in epochs),
        "trained_at": epochs[-1]["finished_at"],
    }
    arrays = {stage.stage: _problem_arrays(stage) | _line_shape(stage) for stage in stages}
    weights = (places.history(trial), places.checkpoint(trial), places.best_checkpoint(trial))
    storage.settle(root, *weights, places.initial(trial))
    write_archive(
        root,
        places.final(trial),
        arrays,
        labels=labels,
        predictions=predictions,
        history=np.array(json.dumps({**history, "summary": summary})),
    )


def leave_stopped(root: str, trial: str, epoch: int) -> None:
    """Hand over a trial that its scheduler stopped after an epoch, from its history alone.

    A trial whose history says how it ended has handed itself over, even if a network file system
    does not show that here yet. Nothing is written then.

    Raises:
        FileNotFoundError: there is no history that ends with this epoch.
    """
    history = read_history(root, trial, epoch)
    if history is None:
        raise FileNotFoundError(f"{root}/{places.history(trial)}: no epoch {epoch}")
    if "status" in history["summary"]:
        return
    history["summary"]["status"] = "stopped"
    nothing = np.zeros(0, np.int64)
    leave_final(root, trial, [], nothing, nothing, history)


def handed_over(root: str, trial: str) -> bool:
    """Whether a trial is trained and waits to be finished."""
    return places.FINAL in storage.list_files(root, places.pending(trial))


def waiting(root: str) -> list[str]:
    """Trials that are trained and wait to be finished."""
    kinds = {info.base_name: info.type for info in storage.infos(root, places.PENDING)}
    trials = sorted(t for t, kind in kinds.items() if kind == FileType.Directory)
    return [trial for trial in trials if handed_over(root, trial)]


def check(root: str, trial: str) -> None:
    """Check what a trial left, except for its large arrays, which are checked when they are read.

    Raises:
        storage.Damaged: a file is damaged, or lacks something, or is missing.
    """
    with _open(root, trial):
        pass


def put_aside(root: str, error: storage.Damaged) -> list[str]:
    """Set a damaged file aside, with whatever else its trial left for scoring.

    If the trial is trained, it then leaves all of these files again, from its last checkpoint.

    Returns:
        The paths of the files before they were moved.
    """
    folder = error.path.rpartition("/")[0]
    if not folder.startswith(f"{places.PENDING}/"):
        moved = [error.path]
    else:  # the final file first, as the initial one is not used without it
        moved = [f"{folder}/{name}" for name in storage.list_files(root, folder)]
    for path in moved:
        storage.set_aside(root, path)
    return moved


def finish(
    root: str, trial: str, released_at: datetime | None = None, threads: int | None = None
) -> None:
    """Solve a trial's assignments, write its tables, and delete what it left.

    The curve of measures comes first, as the row summarises it. When nothing else is left to score,
    only update the row with later evaluations. It is safe to repeat this after a crash at any
    point: the row of the trials table is written last, and a trial that has a row and left nothing
    is finished.

    Raises:
        FileNotFoundError: the trial has left nothing to finish.
        storage.Damaged: a file is damaged. It is set aside; the next run of the trial leaves it
            again, from its last checkpoint.
    """
    try:
        finish_curve(root, trial, threads)
        if handed_over(root, trial):
            _finish(root, trial, released_at, threads)
        else:
            _update(root, trial)
    except storage.Damaged as error:
        put_aside(root, error)
        raise


def discard(root: str, trial: str) -> None:
    """Delete what a trial left, as far as possible; the next driver deletes the rest.

    The tables have all of it by then, so an error here must not fail a finished trial. There may
    be one on NFS, where the folder of a file that is open on this machine cannot be deleted.
    """
    with suppress(OSError, storage.StoreError):
        storage.delete(root, places.final(trial))  # first, as the others are not used without it
        storage.delete(root, places.pending(trial))


def _update(root: str, trial: str) -> None:
    """Only update the row of a trial with its evaluations, when nothing is left to score."""
    row = read_row(root, "trials", trial)
    if row.get("status") not in ENDED:
        raise FileNotFoundError(f"{root}/{places.final(trial)}")
    since = robustness_columns(root, trial)
    if any(_differ(row.get(name), value) for name, value in since.items()):
        since["scored_at"] = datetime.now(UTC)
        write_table(root, "trials", trial, [row | since])
    discard(root, trial)  # the folder of a curve


def _differ(a: Any, b: Any) -> bool:
    return a != b and not (a != a and b != b)  # NaN is like NaN here


class _Left(NamedTuple):
    """What a trial left; large arrays are read later."""

    history: dict[str, Any]
    labels: np.ndarray
    predictions: np.ndarray
    initial: Archive | None  # None if there is nothing to solve in it
    final: Archive


@contextmanager
def _open(root: str, trial: str) -> Iterator[_Left]:
    with ExitStack() as opened:
        final = opened.enter_context(open_archive(root, places.final(trial)))
        labels = final.shared("labels", None)
        predictions = final.shared("predictions", len(labels))
        text = final.text("history")
        with storage.reading(root, places.final(trial)):
            history = json.loads(text)
            check_history(history)
            summary, epochs, tracks = history["summary"], history["epochs"], history["tracks"]
            status, last = summary["status"], epochs[-1]["epoch"]
            stages = {row["stage"] for row in tracks if row["epoch"] == last}
            if status not in ENDED or not {"seconds", "trained_at"} <= summary.keys() or not stages:
                raise ValueError("its history has no end")
            if status == "done":
                _check_problems(final, stages)
        initial = None
        # A trial that was stopped has no final OTS, so its initial problems are not worth solving.
        none = status == "stopped" or (status, last) == ("diverged", epochs[0]["epoch"])
        if not none and history.get("initial", True):
            initial = opened.enter_context(open_archive(root, places.initial(trial)))
            with storage.reading(root, places.initial(trial)):
                _check_problems(initial, stages)
        yield _Left(history, labels, predictions, initial, final)


def _check_problems(archive: Archive, stages: set[int]) -> None:
    """Raise ValueError unless there is a problem for each of these stages."""
    for stage in stages:
        names = {*archive.stages.get(stage, [])}
        if not (names >= PROBLEM and ("inner" in names or {"x", "y"} <= names)):
            raise ValueError(f"stage {stage} has no assignment problem")
        wanted = BASELINE | {"gram"} if "inner" in names else BASELINE
        if names & wanted and not names >= wanted:
            raise ValueError(f"stage {stage} has half of what its baseline needs")


def _finish(root: str, trial: str, released_at: datetime | None, threads: int | None) -> None:
    start = time.perf_counter()
    with _open(root, trial) as left:
        tables = _tables(left, threads)
    summary = tables["trials"][0]
    summary |= {"scoring_seconds": time.perf_counter() - start, "released_at": released_at}
    if read_row(root, "trials", trial).get("status") == "done":  # it was measured again
        for name, new in tables.items():
            tables[name] = completed(read_rows(root, name, trial), new, PLACE[name])
    row = tables.pop("trials")[0] | robustness_columns(root, trial)
    for name, content in tables.items():
        write_table(root, name, trial, content)
    write_table(root, "trials", trial, [row | {"scored_at": datetime.now(UTC)}])
    discard(root, trial)


def _tables(left: _Left, threads: int | None) -> dict[str, list[dict[str, Any]]]:
    """Solve a trial's assignments; the rows of its four tables, by name."""
    history, labels, predictions, initial, final = left
    summary, epochs, tracks = history["summary"], history["epochs"], history["tracks"]
    key = {field.name: summary[field.name] for field in schemas.KEY}
    split = {"split": summary.get("split", "test")}
    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]

    solved: dict[tuple[int, int], Solved] = {}  # by epoch and stage
    if initial is not None:
        solved |= {
            (first, k): one for k, one in _solve(initial, summary["seed"], labels, threads).items()
        }
    solved_last = _solve(final, summary["seed"], labels, threads)
    solved |= {(last, k): one for k, one in solved_last.items()}

    baselines = {row["stage"]: row for row in reversed(tracks)}  # of the first epoch
    rows = [
        track_row(
            key | split | row,
            baselines[row["stage"]],
            solved.get((row["epoch"], row["stage"])),
            solved.get((first, row["stage"])),
        )
        for row in tracks
    ]
    samples = []
    for stage, one in solved_last.items():
        score, ratio = (final.array(stage, name, len(labels)) for name in ("score", "ratio"))
        same = key | split | {"epoch": last, "stage": stage}
        samples += sample_rows(same, labels, predictions, score, ratio, one.transport)
    for record in epochs:
        record["finished_at"] = datetime.fromisoformat(record["finished_at"])
    summary |= summary_columns(rows, epochs[-1])
    summary |= {
        "started_at": datetime.fromisoformat(summary["started_at"]),
        "trained_at": datetime.fromisoformat(summary["trained_at"]),
    }
    epochs = [key | record for record in epochs]
    return {"epochs": epochs, "tracks": rows, "samples": samples, "trials": [summary]}


def _line_shape(stage: "Stage") -> dict[str, Any]:
    shape = {"score": stage.score, "ratio": stage.ratio}
    return shape if stage.measurable else {n: np.full_like(v, np.nan) for n, v in shape.items()}


def _problem_arrays(stage: "Stage") -> dict[str, Any]:
    return {} if stage.problem is None else stage.problem.arrays()


def _solve(
    archive: Archive, seed: int, labels: np.ndarray, threads: int | None
) -> dict[int, Solved]:
    """Solve each stage's problem, if it has one, and the problem of its shuffled displacements.

    The trial's seed also seeds the shuffle, so that a second run gives the same baseline.
    """
    from scoring.shuffled import shuffled  # loads numba
    from scoring.transport import class_scores, solve

    solved = {}
    for stage, names in sorted(archive.stages.items()):
        if "own" not in names:
            continue
        start = time.perf_counter()
        problem = archive.problem(stage, len(labels))
        transport = solve(problem, threads)
        middle = time.perf_counter()
        order = np.random.default_rng([seed, stage]).permutation(len(labels))
        other = shuffled(problem, order)
        solved[stage] = Solved(
            transport,
            class_scores(transport, labels).tolist(),
            middle - start,
            other and solve(other, threads),
            time.perf_counter() - middle,
        )
    return solved
