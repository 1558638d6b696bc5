"""The validation split: images of the train split that a trial holds out of training."""

import math
from dataclasses import replace

import numpy as np

from models.config import TrialConfig
from models.datasets import FLAT, LEVELS, Dataset
from models.errors import DataError

FEWEST = 2  # images to train on: one image has no variance to normalise with
AT_ONCE = 1000  # images converted to float64 at a time: 25 MB for CIFAR


def divided(config: TrialConfig, data: Dataset) -> tuple[np.ndarray | slice, np.ndarray]:
    """The rows of the train split to train on, and those held out.

    Without a validation split the first is a slice of all rows, which copies nothing.

    Raises:
        DataError: too few images are left, see :func:`count`.
    """
    held = held_out(data.y_train, config.validation, config.seed)
    rest = np.delete(np.arange(len(data.y_train)), held) if len(held) else slice(None)
    return rest, held


def count(share: float, images: int) -> int:
    """How many images a share of the train split is: at least one, unless the share is 0.

    Raises:
        DataError: fewer than two images would be left to train on.
    """
    held = max(1, round(share * images)) if share else 0
    if held and images - held < FEWEST:
        raise DataError(
            f"validation = {share:g} leaves {images - held} of {images} train images to train on; "
            "give a smaller share, or 0"
        )
    return held


def held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The images of the train split that validation takes, the same for every network.

    Args:
        labels: classes of the train split, (count,).
        share: of the images, 0 to 1.
        seed: of the trial.

    Returns:
        Their indices in ascending order. Each class has its share of them within one image. Classes
        of two images or more keep one to train on; where too few images are left for that, fewer
        are held out.

    Raises:
        DataError: too few images are left, see :func:`count`.

    >>> np.bincount(np.repeat([0, 1], [80, 20])[held_out(np.repeat([0, 1], [80, 20]), 0.1, 0)])
    array([8, 2])
    """
    held = count(share, len(labels))
    order = np.random.default_rng([seed, len(labels)]).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    steps = (np.arange(held) + 0.5) * (len(labels) / max(held, 1))  # every tenth, for 0.1
    taken = np.zeros(len(labels), bool)
    taken[steps.astype(np.int64)] = True
    _leave_one(labels[by_class], taken, share)
    return np.sort(by_class[taken])


def _leave_one(labels: np.ndarray, taken: np.ndarray, share: float) -> None:
    """Give one image back to each class of several that was taken as a whole.

    A class that has given its share or less, and has more than one image left, gives another.
    """
    _, kind, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    left = np.bincount(kind[~taken], minlength=len(sizes))
    for one in np.flatnonzero((left == 0) & (sizes > 1)):
        taken[np.flatnonzero(kind == one)[-1]] = False
        left[one] = 1
        owed = np.where(left > 1, share * sizes - (sizes - left), -1)
        if owed.max() >= 0:
            other = owed.argmax()
            taken[np.flatnonzero((kind == other) & ~taken)[-1]] = True
            left[other] -= 1


def scorable(config: TrialConfig, images: tuple[int, int]) -> int:
    """How many images of its ``split`` a trial could score, given its train and test images.

    Raises:
        DataError: too few images are left to train on, see :func:`count`.
    """
    left = images[0] - count(config.validation, images[0])
    return left if config.split == "train" else images[1]


def scored(config: TrialConfig, data: Dataset) -> Dataset:
    """The data set with the images that a trial scores in the place of its test split.

    With ``split: train`` these are the first images that it trains on, without augmentation.
    """
    if config.split == "test":
        return data
    rows, held = divided(config, data)
    if len(held):  # a copy, so of no more images than are scored
        rows = np.arange(len(data.y_train))[rows][: max(config.points, config.epoch_points)]
    return replace(data, x_test=data.x_train[rows], y_test=data.y_train[rows])


def of_trained(config: TrialConfig, data: Dataset) -> Dataset:
    """The data set with the mean and deviation of the images that a trial trains on.

    So the images held out have no part in how images are standardised. Without a validation split
    it is the same data set.
    """
    rows, held = divided(config, data)
    if not len(held):
        return data
    kept = np.arange(len(data.y_train))[rows]
    total, squares = (np.zeros(data.x_train.shape[3]) for _ in range(2))  # exact below 2^53
    for some in np.array_split(kept, math.ceil(len(kept) / AT_ONCE)):
        images = data.x_train[some].astype(np.float64)
        total += images.sum(axis=(0, 1, 2))
        squares += (images**2).sum(axis=(0, 1, 2))
    pixels = len(kept) * data.x_train.shape[1] * data.x_train.shape[2]
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0.0))
    std[std <= FLAT] = LEVELS
    return replace(data, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
