"""Measures a trained trial again, to add the scores that an earlier version did not have."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from models.network import AnyNetwork
from models.training import untrained
from scoring import handover, places
from scoring.history import read_history
from scoring.rows import STRAIGHTNESS, geometric_mean, measurable
from scoring.stages import Stage
from tune_jobs.measuring import Job, measure_epoch, predict

SAME = 1e-3  # 1/LSS of the same weights differs by less, even between a CPU and a GPU.

Rows = list[dict[str, Any]]


def measure_again(job: Job, network: AnyNetwork) -> None:
    """Measure a trial that is done before training and at the end, and leave it for scoring.

    The scorer then adds the columns that the trial's tables lack; values that are there stay.
    The network before training is made again from the configuration. If its scores are not those
    that were stored, the baselines stay empty, and the next report says so.

    Args:
        job: the trial.
        network: the network with its stored weights.

    Raises:
        FileNotFoundError: the history next to the weights is gone.
        ValueError: the stored weights do not have the stored scores.
    """
    history = job.usable(read_history)
    if history is None:
        damaged = "".join(job.set_aside)
        raise FileNotFoundError(damaged or f"{job.root}/{places.history(job.id)}: no such file")
    first, last = history["epochs"][0]["epoch"], history["epochs"][-1]["epoch"]
    stages, rows = measure_epoch(job, network, last, ends=True, transport=True)
    if not _add(history, rows):
        raise ValueError(
            f"{job.root}/{places.checkpoint(job.id)}: its LSS is not that in the tracks table, so "
            "these are other weights, or other data"
        )
    before, rows = _before_training(job, first)
    history["initial"] = _add(history, rows)
    if history["initial"]:
        handover.leave_initial(job.root, job.id, before)
    else:
        job.set_aside.append(
            f"{job.id}: the network before training cannot be made again here (its LSS differs), "
            "so new columns have no baselines"
        )
    labels, predictions = predict(network, job.scored, job.device, job.trial.points)
    handover.leave_final(job.root, job.id, stages, labels, predictions, history)


def _before_training(job: Job, epoch: int) -> tuple[list[Stage], Rows]:
    network = untrained(job.trial, job.data, job.device, blocks=job.blocks)
    return measure_epoch(job, network, epoch, ends=True, transport=True)


def _add(history: Mapping[str, Any], rows: Rows) -> bool:
    """Add to the rows of an epoch what they lack; False, without a change, if LSS differs."""
    epoch = rows[0]["epoch"]
    old = [row for row in history["tracks"] if row["epoch"] == epoch]
    if not _same(old, rows):
        return False
    for had, found in zip(old, rows, strict=True):
        had |= {name: value for name, value in found.items() if name not in had}
    for record in history["epochs"]:
        if record["epoch"] == epoch:
            lines = measurable(rows)
            means = {n: geometric_mean(row[n] for row in lines) for n in STRAIGHTNESS}
            record |= {name: mean for name, mean in means.items() if name not in record}
    return True


def _same(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all stages have the same 1/LSS within rounding; NaN where no point moves."""
    if [row["stage"] for row in old] != [row["stage"] for row in new]:
        return False
    pairs = [
        (one["inverse_lss"], other["inverse_lss"]) for one, other in zip(old, new, strict=True)
    ]
    return all(
        math.isclose(a, b, rel_tol=SAME, abs_tol=SAME / 100) or (math.isnan(a) and math.isnan(b))
        for a, b in pairs
    )
