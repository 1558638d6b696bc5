"""Training on a tiny data set of coloured noise, and what it left after each epoch."""

import io

import numpy as np
import torch
from torch.testing import assert_close

from models.config import LEARNING_RATE, TrialConfig
from models.datasets import Dataset
from models.training import train


def tiny(side=16, channels=3, train=40, test=16, classes=3):
    """A data set of coloured noise, each class brighter than the one before."""
    draw = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        noise = draw.integers(0, 100, (count, side, side, channels))
        splits[f"x_{split}"] = (noise + 60 * labels[:, None, None, None]).astype(np.uint8)
        splits[f"y_{split}"] = labels
    mean, std = ([float(f())] * channels for f in (splits["x_train"].mean, splits["x_train"].std))
    return Dataset(**splits, classes=classes, mean=tuple(mean), std=tuple(std))


CONVOLUTIONAL = {"dataset": "tiny.npz", "batch_size": 16, "epochs": 3, "seed": 7}
OTHERS = [recipe for recipe in LEARNING_RATE if recipe not in ("adam", "sgd")]
CONNECTED = {"dataset": "tiny.npz", "layers": "fully_connected", "batch_size": 16, "epochs": 3}


def run(data, checkpoint=None, **config):
    """Records without their times, checkpoints as saved on disk, and the last weights."""
    records, saved, weights = [], [], {}
    for record, network, state in train(TrialConfig(**config), data, checkpoint=checkpoint):
        file = io.BytesIO()
        torch.save(state, file)
        saved.append(file.getvalue())
        assert record["seconds"] > 0
        records.append({k: v for k, v in record.items() if k != "seconds"})
        weights = {k: v.clone() for k, v in network.state_dict().items()}
    return records, saved, weights


def assert_same(one, other):
    """Bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert_close(other[name], one[name], rtol=0, atol=0, equal_nan=True)


def images_of(data, split):
    """Standardised images (m, c, h, w), by the book."""
    x = torch.from_numpy(getattr(data, f"x_{split}")).double().permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (data.mean, data.std))
    return ((x - mean) / std).float()
