"""One trial: the function Ray Tune runs, once for every cell of a sweep."""

import io
import platform
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ray import tune

from models.config import TrialConfig
from models.datasets import Dataset
from models.network import Network, build, decayed
from models.training import diverged, standardiser, train
from scoring import handover, schemas
from scoring.energy import energy_ratio
from scoring.robustness.run import evaluate
from scoring.robustness.subject import Subject
from scoring.stages import Stage, geometry, measure
from tune_jobs import provenance
from tune_jobs.cluster import nodes

BATCH = 250  # points measured at a time: two states of 65,536 float64 numbers each are 262 MB


def run_trial(
    config: dict[str, Any],
    root: str,
    sources: dict[str, str],
    folder: str | None,
    cpus: float,
    gpus: float,
    revision: str = "",
    evaluations: Mapping[str, Any] | None = None,
    keep: str = "final",
    shared: nodes.Shared | None = None,
) -> None:
    """Train one trial, measure it after every epoch, evaluate it, and hand it over for scoring.

    One that is done is evaluated only. Goes on after the last epoch that any earlier process
    finished. Every epoch is written to ``checkpoints/<trial>.json`` and ``.pt`` in the sweep's
    folder before it is reported.

    Args:
        config: the fields of a :class:`TrialConfig`.
        root: the sweep's folder, an absolute path or a URI.
        sources: where each data set is, by its name in the configuration.
        folder: the data folder.
        cpus: cores to train on.
        gpus: GPUs that Ray has given this trial; any share of one means to train on it.
        revision: git's, of the source; kept with the results.
        evaluations: to run on the trained network, by name, with their settings.
        keep: ``best`` keeps the weights of the epoch of highest test accuracy, too.
        shared: what lies in the sweep's folder for the nodes of a cluster.
    """
    trial = TrialConfig.model_validate(config)
    if handover.handed_over(root, trial.trial):
        return
    torch.set_num_threads(max(1, round(cpus)))
    device = "cuda" if gpus > 0 else "cpu"
    data = nodes.load(root, trial.dataset, sources, folder, shared or nodes.Shared())
    provenance.reset_peaks(device)
    checkpoint = _read_checkpoint(root, trial.trial)
    wanted = evaluations or {}
    if schemas.read_row(root, "trials", trial.trial).get("status") == "done":
        if checkpoint is None:
            raise FileNotFoundError(f"{root}/{handover.CHECKPOINTS}/{trial.trial}.pt: no weights")
        network = build(trial, data.image, data.classes).to(device)
        network.load_state_dict(checkpoint["network"])
        evaluate_all(root, trial, data, device, network, wanted)
        tune.report({"trial": trial.trial})
        return
    history = checkpoint and handover.read_history(root, trial.trial, checkpoint["epoch"])
    if not checkpoint or not history:
        checkpoint, history = None, {"summary": {}, "epochs": [], "tracks": []}
        history["summary"]["started_at"] = _now()
    elif "optimizer" not in checkpoint:
        _hand_over_again(root, trial, data, device, checkpoint, history, wanted)
        return

    for epoch in train(trial, data, device, checkpoint):
        start = time.perf_counter()
        number = epoch.record["epoch"]
        failed = diverged(epoch.record)
        last = failed or number == trial.epochs
        ends = number == 0 or last
        m = trial.points if ends else min(trial.epoch_points, len(data.y_test))
        stages = score(epoch.network, data, device, m, transport=ends and not failed)
        rows = [{"epoch": number, **stage.row()} for stage in stages]
        for row, norms in zip(rows, epoch.network.weight_norms(), strict=True):
            row |= {
                "weight_norms": norms,
                "energy_ratio": energy_ratio(row["energy"], norms).tolist(),
            }
        if ends:
            pairs = min(m, trial.epoch_points)
            for row, more in zip(rows, apart(epoch.network, data, device, pairs), strict=True):
                row |= more
        if number == 0:
            handover.leave_initial(root, trial.trial, stages)
            history["summary"] |= _summary(trial, epoch.network, data, device, revision)
        means = {name: float(np.mean([r[name] for r in rows])) for name in SCORES}
        seconds = epoch.record["seconds"] + time.perf_counter() - start
        record = epoch.record | means | {"seconds": seconds, "finished_at": _now()}
        before = max((r["test_accuracy"] for r in history["epochs"]), default=-1.0)
        if keep == "best" and record["test_accuracy"] > before:
            best = {"epoch": number, "network": epoch.checkpoint["network"]}
            _write_checkpoint(root, f"{trial.trial}.best", best)
        history["epochs"].append(record)
        history["tracks"] += rows
        history["summary"] |= provenance.peaks(device)
        state = epoch.checkpoint
        if last:
            state.pop("optimizer")  # nothing goes on from here; the weights are kept
            history["summary"]["status"] = "diverged" if failed else "done"
        handover.write_history(root, trial.trial, history)
        _write_checkpoint(root, trial.trial, state)
        if last:  # trained for good
            _hand_over(root, trial, data, device, epoch.network, stages, history, wanted)
        tune.report({**record, "trial": trial.trial, "diverged": failed})


def _hand_over(
    root: str,
    trial: TrialConfig,
    data: Dataset,
    device: str,
    network: Network,
    stages: list[Stage],
    history: dict[str, Any],
    wanted: Mapping[str, Any],
) -> None:
    """Evaluate a trained network, and leave it for scoring; also if it cannot be evaluated."""
    if history["summary"]["status"] == "done":
        try:
            evaluate_all(root, trial, data, device, network, wanted)
        except Exception:  # what was trained is not lost to an experiment
            schemas.write_file(root, f"errors/{trial.trial}.txt", traceback.format_exc().encode())
    labels, predictions = predict(network, data, device, trial.points)
    handover.leave_final(root, trial.trial, stages, labels, predictions, history)


def _hand_over_again(
    root: str,
    trial: TrialConfig,
    data: Dataset,
    device: str,
    checkpoint: dict[str, Any],
    history: dict[str, Any],
    wanted: Mapping[str, Any],
) -> None:
    """Leave a trained trial for scoring, if it was killed before, or what it had left is lost."""
    network = next(train(trial, data, device)).network
    initial = score(network, data, device, trial.points, transport=True)
    handover.leave_initial(root, trial.trial, initial)
    network.load_state_dict(checkpoint["network"])
    record, done = history["epochs"][-1], history["summary"]["status"] == "done"
    stages = score(network, data, device, trial.points, transport=done)
    _hand_over(root, trial, data, device, network, stages, history, wanted)
    tune.report({**record, "trial": trial.trial, "diverged": not done})


def evaluate_all(
    root: str,
    trial: TrialConfig,
    data: Dataset,
    device: str,
    network: Network,
    wanted: Mapping[str, Mapping[str, Any]],
) -> None:
    """Run every evaluation that is wanted and not in the trial's robustness table as it is wanted.

    Each is kept as it ends; one that is killed begins again. Levels are in pixel values from 0,
    black, to 255, white, also of images like the digits', whose white is 16.
    """
    done = handover.evaluations(root, trial.trial) if wanted else {}
    left = {name: settings for name, settings in wanted.items() if done.get(name) != settings}
    if not left:
        return
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, y = (torch.from_numpy(part[: trial.points]) for part in (data.x_test, data.y_test))
    standardise, white = standardiser(data, device), float(data.x_train.max())
    if white in (0, 255):
        subject = Subject(network, x.to(device), y.to(device), standardise, BATCH)
    else:
        images = x.to(device) * (255 / white)

        def shrunk(pixels: torch.Tensor) -> torch.Tensor:
            return standardise(pixels * (white / 255))

        subject = Subject(network, images, y.to(device), shrunk, BATCH)
    key = {"trial": trial.trial} | trial.model_dump(include={f.name for f in schemas.KEY})
    for name, settings in left.items():
        rows = evaluate(name, subject, settings)
        handover.add_evaluation(root, key, name, settings, rows)


SCORES = ("lss", "inverse_lss", "lsr")


def score(
    network: Network, data: Dataset, device: str, m: int, transport: bool = False
) -> list[Stage]:
    """Line shape (and assignment problems) of every stage on the first m test images."""
    network.eval()
    return measure(network.states, _batches(data, device, m), transport)


def apart(network: Network, data: Dataset, device: str, m: int) -> list[dict[str, Any]]:
    """Separation and straightness of every stage on the first m test images."""
    network.eval()
    return geometry(network.states, _batches(data, device, m), data.y_test[:m])


@torch.no_grad()
def predict(network: Network, data: Dataset, device: str, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes and predicted classes of the first m test images, (m,) each."""
    network.eval()
    classes = [network(images).argmax(1).cpu() for images in _batches(data, device, m)]
    return data.y_test[:m], torch.cat(classes).numpy()


def _batches(data: Dataset, device: str, m: int) -> Iterator[torch.Tensor]:
    standardise = standardiser(data, device)
    for images in torch.from_numpy(data.x_test[:m]).split(BATCH):
        yield standardise(images.to(device))


def _summary(
    trial: TrialConfig, network: Network, data: Dataset, device: str, revision: str
) -> dict[str, Any]:
    """The columns of the trials table that are known when training begins, as JSON values."""
    return {
        "trial": trial.trial,
        **trial.model_dump(),
        "image": _shape(network.shape.image),
        "classes": network.shape.classes,
        "shapes": ", ".join(_shape(shape) for shape in network.shape.shapes),
        "blocks": network.shape.blocks,
        "weight_decay": trial.gamma,
        "parameters": sum(p.numel() for group in decayed(network, trial.decay) for p in group),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine() + " CPU",
        "threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "versions": f"geosweep {version('geosweep')}, python {platform.python_version()}, "
        f"torch {torch.__version__}",
        "revision": revision,
        "data_checksum": data.checksum,
    }


def _shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _read_checkpoint(root: str, name: str) -> dict[str, Any] | None:
    path = f"{handover.CHECKPOINTS}/{name}.pt"
    content = schemas.read_file(root, path)
    if content is None:
        return None
    try:
        return torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # torch raises what pickle, zip files and its own reader raise
        schemas.set_aside(root, path)  # torn: this trial trains from its start
        return None


def _write_checkpoint(root: str, name: str, state: dict[str, Any]) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    schemas.write_file(root, f"{handover.CHECKPOINTS}/{name}.pt", content.getvalue())
