"""One trial: the function that Ray Tune runs once for every cell of a sweep."""

import os
import platform
import socket
import time
import traceback
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ray import tune

from models import fits
from models.config import TrialConfig
from models.errors import DataError
from models.memory import keep_freed
from models.network import AnyNetwork, build, decayed
from models.training import (
    Epoch,
    Split,
    diverged,
    loss_and_accuracy,
    place,
    standardiser,
    train,
    untrained,
)
from models.validation import of_trained
from scoring import handover, places, storage
from scoring.history import read_history, write_history
from scoring.rows import STRAIGHTNESS, geometric_mean, has_all_scores, measurable
from scoring.stages import Stage
from scoring.tables import read_row
from tune_jobs import checkpoints, code, provenance
from tune_jobs.blocks import find
from tune_jobs.cluster import nodes
from tune_jobs.labels import by_sizes
from tune_jobs.measuring import Job, Walk, add_rates, evaluate_all, measure_epoch, predict, score
from tune_jobs.remeasuring import measure_again
from tune_jobs.tuning import Setup
from tune_jobs.weights import lacks

Row = dict[str, Any]
SCORES = ("lss", "inverse_lss", "lsr")  # means over the stages are reported after every epoch


def run_trial(config: dict[str, Any], setup: Setup) -> None:
    """Train one trial, measure it after every epoch, evaluate it, and hand it over for scoring.

    A trial that is already done is only evaluated. Training resumes after the last epoch that an
    earlier process finished. Every epoch is written to ``checkpoints/<trial>.json`` and ``.pt``
    in the sweep's folder before it is reported.

    Args:
        config: the fields of a :class:`TrialConfig`.
        setup: the settings that all trials of the sweep share.
    """
    trial = TrialConfig.model_validate(config)
    _check_folder(setup)
    if handover.handed_over(setup.root, trial.trial):
        return
    job = _prepare(trial, setup)
    check = partial(fits.check, trial, job.data, blocks=job.blocks)
    checkpoint = job.usable(checkpoints.read, check)
    row = read_row(job.root, "trials", job.id)
    if row.get("status") == "done":
        _evaluate_only(job, checkpoint, row)
        return
    history = job.usable(read_history, checkpoint["epoch"]) if checkpoint else None
    if history is not None:
        _check_data(job, history)
    ended = history is not None and "status" in history["summary"]
    if checkpoint is None or history is None or not (ended or "optimizer" in checkpoint):
        started = {"started_at": _now()}
        _train(job, None, {"summary": started, "epochs": [], "tracks": []})
    elif "optimizer" in checkpoint:
        history["summary"].pop("status", None)  # killed between the two files of the last epoch
        _train(job, checkpoint, history)
    else:  # the last checkpoint of a trial has no optimizer
        _hand_over_again(job, checkpoint, history)


def _prepare(trial: TrialConfig, setup: Setup) -> Job:
    """Load the data, and set the threads, the memory and the device of this process."""
    torch.set_num_threads(max(1, round(setup.cpus)))
    keep_freed()
    device = "cuda" if setup.gpus > 0 else "cpu"
    data = nodes.load(setup.root, trial.dataset, setup.sources, setup.folder, setup.shared)
    provenance.reset_peaks(device)
    code.load_kept(setup.root, trial)
    own = trial.architecture is None
    return Job(
        root=setup.root,
        trial=trial,
        data=of_trained(trial, data),
        device=device,
        wanted=setup.evaluations,
        keep=setup.keep,
        revision=setup.revision,
        held=setup.held,
        blocks=() if own else find(trial, data.image, data.classes).blocks,
    )


def _evaluate_only(job: Job, checkpoint: dict[str, Any] | None, row: Row) -> None:
    """Evaluate a trial that is done, with its stored weights; add scores if it lacks some.

    A search that has lost its cells may suggest a trial again whose weights were not kept. If it
    has all that is wanted, there is nothing to do.
    """
    if checkpoint is None and not lacks(row, job.wanted):
        _report(job, {})
        return
    if checkpoint is None:
        damaged = "".join(job.set_aside)
        raise FileNotFoundError(damaged or f"{job.root}/{places.checkpoint(job.id)}: no weights")
    network = build(job.trial, job.data.image, job.data.classes, job.blocks).to(job.device)
    network.load_state_dict(checkpoint["network"])
    evaluate_all(job, network)
    if "scores" in job.wanted and not has_all_scores(row):
        measure_again(job, network)
    _report(job, {})


def _train(job: Job, checkpoint: dict[str, Any] | None, history: dict[str, Any]) -> None:
    """Train from a checkpoint, or from the start, and add every epoch to the history."""
    trial, summary = job.trial, history["summary"]
    test = place(job.data, "test", job.device)
    for epoch in train(trial, job.data, job.device, checkpoint, job.blocks, test=False):
        start = time.perf_counter()
        number = epoch.record["epoch"]
        stages, rows, failed = _measured(job, epoch, test)
        last = failed or number == trial.epochs
        _check_folder(job)
        if number == 0:
            if not failed:
                handover.leave_initial(job.root, job.id, stages)
            summary |= _summary(job, epoch.network)
        lines = measurable(rows)
        means = {name: float(np.mean([row[name] for row in lines])) for name in SCORES}
        means |= {name: geometric_mean(row[name] for row in lines) for name in STRAIGHTNESS}
        means |= add_rates(job, epoch.network, epoch.record["learning_rate"], rows)
        seconds = epoch.record["seconds"] + time.perf_counter() - start
        record = epoch.record | means | {"seconds": seconds, "finished_at": _now()}
        if job.keep == "best" and not failed:
            _keep_best(job, epoch, history)
        history["epochs"].append(record)
        history["tracks"] += rows
        summary |= provenance.peaks(job.device)
        state = epoch.checkpoint
        if last:
            state.pop("optimizer")  # training ends here; only the weights are kept
            summary["status"] = "diverged" if failed else "done"
        write_history(job.root, job.id, history)
        checkpoints.write(job.root, job.id, state)
        if last:
            _hand_over(job, epoch.network, stages, history)
        _report(job, {**record, "diverged": failed})
        if last:
            return


def _measured(job: Job, epoch: Epoch, test: Split) -> tuple[list[Stage], list[Row], bool]:
    """Measure an epoch; also whether the trial diverged: a loss or a state is not finite.

    Test images that are scored are evaluated in the same pass, and the figures of the whole test
    split are added to the record. An epoch that diverged is the last one, so all points are
    measured. It has no assignments, not even of stages that are still finite.
    """
    network, number, walk = epoch.network, epoch.record["epoch"], Walk(epoch.network)
    ends = number in (0, job.trial.epochs)
    stages, rows = measure_epoch(job, network, number, ends, transport=ends, walk=walk)
    standardise = standardiser(job.data, job.device)
    known = walk.logits() if job.trial.split == "test" else None
    loss, accuracy = loss_and_accuracy(network, test, standardise, first=known)
    epoch.record.update(test_loss=loss, test_accuracy=accuracy)
    if not diverged(epoch.record, job.trial) and all(stage.finite for stage in stages):
        return stages, rows, False
    return *measure_epoch(job, network, number, ends=True, transport=False), True


def _check_data(job: Job, history: dict[str, Any]) -> None:
    """Refuse to go on with a trial that began with other images, or with others in front."""
    then, now = history["summary"].get("data_checksum"), job.data.checksum
    if then and then != now:
        raise DataError(
            f"{job.root}: trial {job.id} began with another {job.trial.dataset} (checksum {then}, "
            f"now {now}); choose another folder with --out"
        )


def _check_folder(at: Setup | Job) -> None:
    """Stop if somebody has deleted the sweep's folder, rather than create it again."""
    if not at.held or not storage.is_local(at.root):
        return
    storage.require(at.root)
    if not os.path.isdir(storage.open_folder(at.root)[1]):
        raise FileNotFoundError(f"{at.root}: the sweep's folder was deleted")


def _keep_best(job: Job, epoch: Epoch, history: dict[str, Any]) -> None:
    """Keep the weights if their accuracy is higher than in all earlier epochs.

    It is the validation accuracy if the trial has a validation split, else the test accuracy.
    """
    name = "validation_accuracy" if job.trial.validation else "test_accuracy"
    before = max((row[name] for row in history["epochs"]), default=-1.0)
    if epoch.record[name] > before:
        best = {"epoch": epoch.record["epoch"], "network": epoch.checkpoint["network"]}
        checkpoints.write(job.root, f"{job.id}.best", best)


def _hand_over(job: Job, network: AnyNetwork, stages: list[Stage], history: dict[str, Any]) -> None:
    """Evaluate a trained network and leave it for scoring, even if an evaluation fails."""
    if history["summary"]["status"] == "done":
        try:
            evaluate_all(job, network)
        except Exception:  # a failed evaluation must not discard the trained network
            storage.write_file(job.root, places.error(job.id), traceback.format_exc().encode())
    _leave_lost_initial(job, history)
    labels, predictions = predict(network, job.scored, job.device, job.trial.points)
    handover.leave_final(job.root, job.id, stages, labels, predictions, history)


def _leave_lost_initial(job: Job, history: dict[str, Any]) -> None:
    """Leave the problems from before training again if they are gone.

    They are if the trial was stopped early, scored as such, and then trained further. A trial that
    had diverged before it was trained has none.
    """
    diverged_at_once = history["summary"]["status"] != "done" and len(history["epochs"]) == 1
    left = storage.list_files(job.root, places.pending(job.id))
    if diverged_at_once or places.INITIAL in left:
        return
    network = untrained(job.trial, job.data, job.device, blocks=job.blocks)
    stages = score(network, job.scored, job.device, job.trial.points, transport=True)
    handover.leave_initial(job.root, job.id, stages)


def _hand_over_again(job: Job, checkpoint: dict[str, Any], history: dict[str, Any]) -> None:
    """Leave a trained trial for scoring if it was killed before that, or its files were lost."""
    epochs = train(job.trial, job.data, job.device, None, job.blocks, test=False)
    network = next(epochs).network
    network.load_state_dict(checkpoint["network"])
    record, done = history["epochs"][-1], history["summary"]["status"] == "done"
    stages = score(network, job.scored, job.device, job.trial.points, transport=done)
    _hand_over(job, network, stages, history)
    _report(job, {**record, "diverged": not done})


def _report(job: Job, result: dict[str, Any]) -> None:
    """Report to the driver, with what was set aside since the last report."""
    told = {"set_aside": job.set_aside.copy()} if job.set_aside else {}
    job.set_aside.clear()
    tune.report({**result, **told, "trial": job.id})


def _summary(job: Job, network: AnyNetwork) -> dict[str, Any]:
    """The columns of the trials table that are known before training, as JSON values."""
    gpu = job.device == "cuda"
    stages = network.layout()
    counts = {blocks for _, blocks in stages}
    return {
        **job.trial.row(len(stages)),
        "image": by_sizes(job.data.image),
        "classes": job.data.classes,
        "shapes": ", ".join(by_sizes(shape) for shape, _ in stages),
        "blocks": counts.pop() if len(counts) == 1 else None,
        "weight_decay": job.trial.gamma,
        "parameters": sum(p.numel() for group in decayed(network, job.trial.decay) for p in group),
        "device": torch.cuda.get_device_name() if gpu else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "versions": f"geosweep {version('geosweep')}, python {platform.python_version()}, "
        f"torch {torch.__version__}",
        "revision": job.revision,
        "data_checksum": job.data.checksum,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat()
