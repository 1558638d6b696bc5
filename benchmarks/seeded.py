"""One seeded trial, trained and scored by whatever checkout of geosweep is imported.

    PYTHONPATH=CHECKOUT python benchmarks/seeded.py '{"dataset": "digits", "seed": 1}' IMAGES FOLDER

Other benchmarks import this module. It uses only what earlier versions of geosweep have, too.
"""

import json
import sys
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional

FIRST = 10  # steps whose losses are kept
losses: list[float] = []
cross_entropy = torch.nn.functional.cross_entropy


def kept(*arguments: Any, **named: Any) -> torch.Tensor:
    """The cross-entropy; that of the first steps of training is kept."""
    loss = cross_entropy(*arguments, **named)
    if torch.is_grad_enabled() and len(losses) < FIRST:
        losses.append(loss.item())
    return loss


torch.nn.functional.cross_entropy = kept  # before the training loop imports it

from models.config import TrialConfig  # noqa: E402
from models.datasets import load  # noqa: E402
from models.training import train  # noqa: E402
from scoring.transport import solve  # noqa: E402
from tune_jobs.measuring import score  # noqa: E402


def trained(settings: dict[str, Any], images: int, folder: str | None) -> dict[str, Any]:
    """Accuracy, LSS and OTS after training, and the losses of the first steps.

    Args:
        settings: fields of the trial.
        images: of the train split; the test split has as many as the trial has points.
        folder: where the data set is.
    """
    config, data = TrialConfig(**settings), load(settings["dataset"], folder)
    data = replace(
        data,
        x_train=data.x_train[:images],
        y_train=data.y_train[:images],
        x_test=data.x_test[: config.points],
        y_test=data.y_test[: config.points],
    )
    losses.clear()
    *_, last = train(config, data)
    (stage,) = score(last.network, data, "cpu", config.points, transport=True)
    row = stage.row()
    assert stage.problem is not None
    ots = solve(stage.problem).ots
    accuracy = last.record["test_accuracy"]
    return {"accuracy": accuracy, "LSS": row["lss"], "OTS": ots, "losses": [*losses]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    settings, images, *folder = sys.argv[1:]
    print(json.dumps(trained(json.loads(settings), int(images), folder[0] if folder else None)))
