"""What a trial leaves behind for scoring, and the tables that are made of it.

A trial writes its assignment problems and its history into ``pending/<trial>/`` before it
gives its CPU or GPU back; from there on nothing needs the network any more. Whoever finishes
it (an actor, or the next run after a crash) solves the problems, writes the four tables,
the trials table last, and then deletes the folder. Neither torch nor Ray is needed.

While it trains, its history (what is known of it, and the rows of its epochs and tracks so far)
lies beside its checkpoint, so that a trial which is stopped early can be finished from it.
"""

import json
import math
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring import schemas
from scoring.robustness.areas import summary as robustness_summary

if TYPE_CHECKING:
    from scoring.stages import Stage
    from scoring.transport import Transport

PENDING = "pending"
INITIAL, FINAL = "initial.npz", "final.npz"
ENDED = ("done", "diverged", "stopped")  # statuses of a trial that has nothing left to do
CHECKPOINTS = "checkpoints"  # <trial>.pt and .best.pt, which torch reads, and <trial>.json


def write_history(root: str, trial: str, history: Mapping[str, Any]) -> None:
    """Keep what is known of a trial so far: JSON values, as :func:`leave_final` takes them."""
    schemas.write_file(root, f"{CHECKPOINTS}/{trial}.json", json.dumps(history).encode())


def read_history(root: str, trial: str, epoch: int) -> dict[str, Any] | None:
    """What was known of a trial at the end of an epoch; None if that is not there."""
    content = schemas.read_file(root, f"{CHECKPOINTS}/{trial}.json")
    try:
        history = json.loads(content or b"")
    except ValueError:
        return None
    for name in ("epochs", "tracks"):  # it is written before the checkpoint, and may be ahead
        history[name] = [row for row in history[name] if row["epoch"] <= epoch]
    return history if history["epochs"] and history["epochs"][-1]["epoch"] == epoch else None


def leave_initial(root: str, trial: str, stages: Sequence["Stage"]) -> None:
    """Keep the assignment problems of the network before training."""
    _save(root, f"{PENDING}/{trial}/{INITIAL}", _problems(stages))


def leave_final(
    root: str,
    trial: str,
    stages: Sequence["Stage"],
    labels: np.ndarray,
    predictions: np.ndarray,
    history: Mapping[str, Any],
) -> None:
    """Hand a trained network over: with this file its training is done for good.

    Args:
        root: the sweep's folder.
        trial: its id.
        stages: measured after the last epoch, with problems unless the trial diverged.
        labels: classes (m,) of the points measured.
        predictions: the network's classes (m,).
        history: JSON values. ``summary`` has columns of the trials table, ``epochs`` rows of
            the epochs table and ``tracks`` rows of the tracks table; each row of the last two
            gets the trial's key here.
    """
    summary, epochs = history["summary"], history["epochs"]
    summary |= {
        "seconds": math.fsum(record["seconds"] for record in epochs),
        "trained_at": epochs[-1]["finished_at"],
    }
    arrays = _problems(stages) | {"labels": labels, "predictions": predictions}
    for stage in stages:
        arrays |= {f"score{stage.stage}": stage.score, f"ratio{stage.stage}": stage.ratio}
    arrays["history"] = np.array(json.dumps(history))
    _save(root, f"{PENDING}/{trial}/{FINAL}", arrays)


def leave_stopped(root: str, trial: str, epoch: int) -> None:
    """Hand over a trial that its scheduler has stopped after an epoch, as its history has it.

    Raises:
        FileNotFoundError: there is no history that ends with this epoch.
    """
    history = read_history(root, trial, epoch)
    if history is None:
        raise FileNotFoundError(f"{root}/{CHECKPOINTS}/{trial}.json: no epoch {epoch}")
    history["summary"]["status"] = "stopped"
    nothing = np.zeros(0, np.int64)
    leave_final(root, trial, [], nothing, nothing, history)


def handed_over(root: str, trial: str) -> bool:
    """Whether a trial is trained and waits to be finished."""
    return FINAL in schemas.list_files(root, f"{PENDING}/{trial}")


def waiting(root: str) -> list[str]:
    """Trials that are trained and wait to be finished."""
    return [t for t in schemas.list_files(root, PENDING) if handed_over(root, t)]


def finish(
    root: str, trial: str, released_at: datetime | None = None, threads: int | None = None
) -> None:
    """Solve a trial's assignments, write its tables, and delete what it left.

    Of one that has nothing left, bring its row up to date with how it was evaluated since.
    Safe to repeat after a crash at any point: the row of the trials table is written last,
    and a trial that has it and left nothing is finished.

    Raises:
        FileNotFoundError: the trial has left nothing to finish.
        schemas.StoreError: what it left is torn. That is deleted; the next run of the trial
            leaves it once more, from its last checkpoint.
    """
    try:
        _finish(root, trial, released_at, threads)
    except (zipfile.BadZipFile, EOFError) as error:
        discard(root, trial)
        raise schemas.StoreError(f"{root}/{PENDING}/{trial}: torn: {error}") from error


def _finish(root: str, trial: str, released_at: datetime | None, threads: int | None) -> None:
    start = time.perf_counter()
    final = _load(root, f"{PENDING}/{trial}/{FINAL}")
    if final is None:
        row = schemas.read_row(root, "trials", trial)
        if row.get("status") in ENDED:  # evaluated since; or killed after its last step
            since = evaluated(root, trial)
            if since.get("evaluations") != row["evaluations"]:
                since["scored_at"] = datetime.now(UTC)
                schemas.write_table(root, "trials", trial, [row | since])
            return
        raise FileNotFoundError(f"{root}/{PENDING}/{trial}/{FINAL}")
    history = json.loads(str(final["history"]))
    summary, epochs, tracks = history["summary"], history["epochs"], history["tracks"]
    key = {field.name: summary[field.name] for field in schemas.KEY}

    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
    stopped = summary["status"] == "stopped"  # and so without an OTS to compare with a null
    initial = None if stopped else _load(root, f"{PENDING}/{trial}/{INITIAL}")
    transports = _solve_all(initial, first, threads) | _solve_all(final, last, threads)
    for record in epochs:
        record["finished_at"] = datetime.fromisoformat(record["finished_at"])
    rows = [_track_row(key | row, tracks, transports, final["labels"]) for row in tracks]
    schemas.write_table(root, "epochs", trial, [key | row for row in epochs])
    schemas.write_table(root, "tracks", trial, rows)
    schemas.write_table(root, "samples", trial, _sample_rows(key, final, transports, last))
    summary |= _over_stages(rows, epochs[-1]) | evaluated(root, trial)
    summary |= {
        "scoring_seconds": time.perf_counter() - start,
        "released_at": released_at,
        "scored_at": datetime.now(UTC),
        **{k: datetime.fromisoformat(summary[k]) for k in ("started_at", "trained_at")},
    }
    schemas.write_table(root, "trials", trial, [summary])
    discard(root, trial)


def add_evaluation(
    root: str, key: Mapping[str, Any], name: str, settings: Mapping[str, Any], rows: Iterable[Any]
) -> None:
    """Write the rows of an evaluation into a trial's robustness table, in place of earlier ones.

    Args:
        root: the sweep's folder.
        key: the trial's columns of :data:`scoring.schemas.KEY`.
        name: of the evaluation.
        settings: it was made with, JSON values.
        rows: of :func:`scoring.robustness.run.evaluate`.
    """
    others = [r for r in schemas.read_rows(root, "robustness", key["trial"]) if r["of"] != name]
    mine = {"of": name, "settings": json.dumps(settings)}
    schemas.write_table(
        root, "robustness", key["trial"], [*others, *({**key, **row, **mine} for row in rows)]
    )


def evaluations(root: str, trial: str) -> dict[str, Any]:
    """The evaluations in a trial's robustness table, by name, with their settings."""
    rows = schemas.read_rows(root, "robustness", trial)
    return {name: json.loads(text) for name, text in {r["of"]: r["settings"] for r in rows}.items()}


def evaluated(root: str, trial: str) -> dict[str, Any]:
    """The columns of the trials table that sum up a trial's robustness table; empty without."""
    rows = schemas.read_rows(root, "robustness", trial)
    if not rows:
        return {}
    done = json.dumps(evaluations(root, trial), sort_keys=True)
    return {"evaluations": done} | robustness_summary(rows)


def forget_weights(root: str, trial: str) -> None:
    """Delete the checkpoints of a trial, and the history beside them."""
    for ending in ("best.pt", "pt", "json"):
        schemas.delete(root, f"{CHECKPOINTS}/{trial}.{ending}")


def discard(root: str, trial: str) -> None:
    """Delete what a trial left; for one that is finished."""
    schemas.delete(root, f"{PENDING}/{trial}/{FINAL}")  # first: the rest alone asks for nothing
    schemas.delete(root, f"{PENDING}/{trial}")


def _problems(stages: Sequence["Stage"]) -> dict[str, Any]:
    arrays = {}
    for stage in stages:
        if stage.problem is not None:
            for name, value in stage.problem.arrays().items():
                arrays[f"{name}{stage.stage}"] = value
    return arrays


def _save(root: str, path: str, arrays: dict[str, Any]) -> None:
    with schemas.writing(root, path) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _load(root: str, path: str) -> Any:
    """An open .npz, whose arrays are read one at a time as they are asked for."""
    file = schemas.open_file(root, path)
    if file is None:
        return None
    try:
        return np.load(file, allow_pickle=False)  # type: ignore[arg-type]
    except ValueError as error:  # no zip file at all
        raise zipfile.BadZipFile(str(error)) from error


def _solve_all(
    arrays: Any, epoch: int, threads: int | None
) -> dict[tuple[int, int], tuple["Transport", float]]:
    """The transport of each stage that has a problem, by (epoch, stage), with its seconds."""
    from scoring.transport import Problem, solve  # loads numba, which looking at a folder need not

    solved = {}
    stage = 1
    while arrays is not None and f"own{stage}" in arrays:
        start = time.perf_counter()
        names = [name for name in Problem._fields if f"{name}{stage}" in arrays]
        problem = Problem(**{name: arrays[f"{name}{stage}"] for name in names})
        solved[epoch, stage] = solve(problem, threads), time.perf_counter() - start
        stage += 1
    return solved


def _track_row(
    row: dict[str, Any],
    tracks: list[dict[str, Any]],
    transports: dict[tuple[int, int], tuple["Transport", float]],
    labels: np.ndarray,
) -> dict[str, Any]:
    """A row of the tracks table: its scores, and beside them what they are worth at random."""
    stage, epoch = row["stage"], row["epoch"]
    null = next(t for t in tracks if t["stage"] == stage)  # the first epoch's
    row |= {f"{s}_initial": null[s] for s in ("lss", "inverse_lss", "lsr")}
    row |= {"split": "test", "ots_random": 1 / row["m"]}
    untrained, _ = transports.get((null["epoch"], stage), (None, 0))
    here, seconds = transports.get((epoch, stage), (None, 0))
    if here is not None:
        from scoring.transport import class_scores

        row |= {
            "ots": here.ots,
            "ots_by_class": class_scores(here, labels).tolist(),
            "gap": here.gap,
            "movement": here.movement,
            "network_cost": here.network_cost,
            "optimal_cost": here.optimal_cost,
            "suboptimality": here.suboptimality,
            "ties": here.ties,
            "collapsed": here.collapsed,
            "prefix_m": [prefix.m for prefix in here.prefixes],
            "prefix_ots": [prefix.ots for prefix in here.prefixes],
            "prefix_gap": [prefix.gap for prefix in here.prefixes],
            "solve_rounds": here.rounds,
            "solve_edges": here.edges,
            "solve_seconds": seconds,
        }
        if untrained is not None:
            row |= {"ots_initial": untrained.ots, "gap_initial": untrained.gap}
    return row


def _sample_rows(
    key: dict[str, Any],
    final: Any,
    transports: dict[tuple[int, int], tuple["Transport", float]],
    epoch: int,
) -> list[dict[str, Any]]:
    rows = []
    labels, predictions = final["labels"].tolist(), final["predictions"].tolist()
    for (solved_at, stage), (transport, _) in transports.items():
        if solved_at != epoch:
            continue
        columns = zip(
            labels,
            predictions,
            final[f"score{stage}"].tolist(),
            final[f"ratio{stage}"].tolist(),
            transport.permutation.tolist(),
            transport.own_cost.tolist(),
            transport.matched_cost.tolist(),
            strict=True,
        )
        names = ("label", "prediction", "lss", "lsr", "permutation", "own_cost", "matched_cost")
        here = key | {"epoch": epoch, "stage": stage, "split": "test"}
        for point, values in enumerate(columns):
            rows.append(here | {"point": point} | dict(zip(names, values, strict=True)))
    return rows


def _over_stages(rows: list[dict[str, Any]], last: dict[str, Any]) -> dict[str, Any]:
    """Means (and deviations, ddof = 0, as in the paper's Tables 6 and 7) over the stages."""
    final = [row for row in rows if row["epoch"] == last["epoch"]]
    losses = {field.name: last[field.name] for field in schemas.LOSSES}
    summary: dict[str, Any] = losses | {"epochs_done": last["epoch"]}
    for name in ("lss", "lsr", "ots"):
        values = [row.get(name, np.nan) for row in final]
        with np.errstate(invalid="ignore"):  # an infinite LSS has no deviation
            summary |= {name: float(np.mean(values)), f"{name}_std": float(np.std(values))}
    nulls = [f"{n}_initial" for n in ("lss", "inverse_lss", "lsr", "ots", "gap")]
    for name in ("inverse_lss", "gap", *nulls, "lss_random", "ots_random"):
        summary[name] = float(np.mean([row.get(name, np.nan) for row in final]))
    solved = [row for row in final if "ots" in row]
    if solved:
        summary["suboptimality"] = max(row["suboptimality"] for row in solved)
        summary["movement"] = min(row["movement"] for row in solved)
        summary["ties"] = sum(row["ties"] for row in solved)
        summary["collapsed"] = any(row["collapsed"] for row in solved)
    first = [row for row in rows if row["epoch"] == rows[0]["epoch"]]
    for suffix, here in (("", final), ("_initial", first)):
        summary[f"energy{suffix}"] = _mean(sum(row.get("energy", [np.nan])) for row in here)
        summary[f"turning{suffix}"] = _mean(_mean(row.get("cosines", [])) for row in here)
        for name in ("separated", "not_monotone"):
            summary[f"{name}{suffix}"] = _mean(row.get(name, np.nan) for row in here)
    return summary


def _mean(values: Iterable[float]) -> float:
    """NaN of nothing."""
    values = list(values)
    return float(np.mean(values)) if values else np.nan
