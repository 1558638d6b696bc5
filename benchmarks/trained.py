"""States of a trained network, as many as a benchmark asks for.

The network is Table 1's plain one for MNIST (fully connected, K = 1, d = 1000, gamma 5e-4). It
trains for a few epochs in the precision that ``precision: auto`` stands for on this machine.
"""

from pathlib import Path

import numpy as np
import torch

from benchmarks.training import faster_precision
from models.config import TrialConfig
from models.datasets import Dataset, load
from models.network import AnyNetwork, build
from models.training import standardiser, train

CONFIG = TrialConfig(dataset="mnist", network="plain", gamma=5e-4, epochs=5)
BATCH = 500
FARTHEST = 2  # pixels; digits keep four blank ones on each side


def weights(folder: str | None, file: Path) -> None:
    """Train the network and keep its weights, unless the file has them already."""
    if file.exists():
        return
    config = CONFIG.model_copy(update={"precision": faster_precision("cpu")})
    *_, last = train(config, load("mnist", folder))
    aside = file.with_name(f"{file.name}.part")
    torch.save(last.network.state_dict(), aside)
    aside.replace(file)


def states(folder: str | None, file: Path, m: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last states (m, 1000) in float32 of :func:`images`."""
    data = load("mnist", folder)
    network: AnyNetwork = build(CONFIG, data.image, data.classes)
    network.load_state_dict(torch.load(file, weights_only=True))
    network.eval()
    standardise = standardiser(data, "cpu")
    ends, start = np.empty((2, m, 1000), np.float32), 0
    with torch.no_grad():
        for batch in torch.from_numpy(images(data, m)).split(BATCH):
            walk = [state for _, state in network.states(standardise(batch))]
            for end, state in zip(ends, (walk[0], walk[-1]), strict=True):
                end[start : start + len(batch)] = state.numpy()
            start += len(batch)
    return ends[0], ends[1]


def images(data: Dataset, m: int) -> np.ndarray:
    """The first m of the train split, the test split, and copies of both that are shifted.

    Each copy moves by up to two pixels along each axis, and by one at least. Seed 0 draws the ways.
    """
    known = np.concatenate([data.x_train, data.x_test])
    more = m - len(known)
    if more > len(known):
        raise SystemExit(f"benchmarks.large: trained has at most {2 * len(known):,} points")
    if more <= 0:
        return known[:m]
    ways = [(a, b) for a in range(-FARTHEST, FARTHEST + 1) for b in range(-FARTHEST, FARTHEST + 1)]
    ways.remove((0, 0))
    drawn = np.random.default_rng(0).integers(len(ways), size=more)
    copies = known[:more].copy()
    for number, way in enumerate(ways):
        copies[drawn == number] = np.roll(copies[drawn == number], way, axis=(1, 2))
    return np.concatenate([known, copies])
