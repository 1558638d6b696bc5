"""The trained networks of a sweep's folder."""

import torch

from models.config import TrialConfig
from models.network import AnyNetwork, build
from scoring import places
from scoring.tables import read_row
from tune_jobs import blocks, checkpoints, code, folder
from tune_jobs.errors import SweepError


def load(root: str, trial: str) -> tuple[AnyNetwork, TrialConfig]:
    """The network of :func:`tune_jobs.api.load_network`, which says more."""
    row = read_row(root, "trials", trial)
    if not row:
        there = {each.trial for each in folder.inspect(root).trials}
        why = "has no results yet" if trial in there else "is not in this folder"
        raise SweepError(f"{root}: trial {trial} {why}; geosweep status --json lists the trials")
    if not (row["image"] and row["classes"]):
        raise SweepError(
            f"{root}: trial {trial} ({row['status']}) has no size of images in its row"
        )
    config = TrialConfig.of_row(row)
    channels, height, width = map(int, row["image"].split(" x "))
    image = channels, height, width
    code.load_kept(root, config)
    own = config.architecture is None
    names = () if own else blocks.find(config, image, row["classes"]).blocks
    network = build(config, image, row["classes"], names)

    def fill(state: dict[str, dict[str, torch.Tensor]]) -> None:
        network.load_state_dict(state["network"])

    if checkpoints.read(root, trial, fill) is None:
        raise SweepError(
            f"{root}/{places.checkpoint(trial)}: no weights of trial {trial} were kept (keep: of "
            "the sweep file, or geosweep clean)"
        )
    return network.eval(), config
