"""The labels of a split: their order, of which the first should represent all, and their numbers.

Scores are measured on the first test images, and normalisations settle on the first train images.
In a file that is sorted by class, these images belong to a few classes only. So such a split gets a
fixed random order when it is prepared.
"""

import math
from collections.abc import Sequence

import numpy as np

CHANCE = math.log(1e-6)  # Below this chance, an order counts as sorted; from it on, as random.


def classes_at_start(labels: np.ndarray, m: int) -> tuple[int, int] | None:
    """Count classes among the first ``m`` labels and among all; None if a random order explains it.

    m random labels miss all classes of a set that holds a share s of the labels with probability
    (1 - s)^m. This is multiplied by the number of sets of that size, as any of them could be
    missing.

    >>> classes_at_start(np.repeat(np.arange(10), 100), 50)
    (1, 10)
    >>> classes_at_start(np.arange(1000) % 10, 50) is None
    True
    """
    counts = np.bincount(labels)
    every, first = int(np.count_nonzero(counts)), np.unique(labels[:m])
    if len(first) == every:
        return None
    share = counts[first].sum() / len(labels)
    choices = math.lgamma(every + 1) - math.lgamma(len(first) + 1)
    choices -= math.lgamma(every - len(first) + 1)
    return (len(first), every) if m * math.log(share) + choices < CHANCE else None


def spread(labels: np.ndarray) -> np.ndarray | None:
    """The order for a split that is sorted by class, the same every time; None for any other.

    Args:
        labels: classes in the order of the file, (count,).

    Returns:
        A random permutation of the indices, (count,), if the first 2, 4, 8, 16, ... of the labels
        are too few classes for a random order.

    >>> spread(np.arange(1000) % 10) is None
    True
    >>> sorted(spread(np.repeat(np.arange(10), 100))) == list(range(1000))
    True
    """
    prefixes = [2**k for k in range(1, len(labels).bit_length()) if 2**k < len(labels)]
    if not any(classes_at_start(labels, m) for m in prefixes):
        return None
    return np.random.default_rng(0).permutation(len(labels))


def note(name: str, splits: Sequence[str]) -> list[str]:
    """Says of a data set which of its splits got the order of :func:`spread`."""
    if not splits:
        return []
    return [
        f"{name}: the {' and '.join(splits)} images are sorted by class, so they are taken in a "
        "fixed random order, the same in all trials"
    ]


def warnings(name: str, y_train: np.ndarray, y_test: np.ndarray, m: int) -> list[str]:
    """Warnings about the labels of a data set whose first ``m`` test images are scored.

    They are about their order, and about numbers that no train image has.
    """
    told = []
    every, classes = len(np.unique(y_train)), int(y_train.max()) + 1
    if every < classes:
        told.append(
            f"{name}: y_train has {every} different labels from {y_train.min()} to {classes - 1}, "
            f"so networks get {classes:,} outputs; to number the classes 0, 1, 2, ...: "
            "numpy.unique(y, return_inverse=True)[1] of all labels, train and test"
        )
    for split, labels, count, use in (
        ("test", y_test, m, "which are scored"),
        ("train", y_train, 1000, "which normalisations settle on before training"),
    ):
        if found := classes_at_start(labels, count):
            told.append(
                f"{name}: the {split} images seem to be sorted by class: the first {count}, {use}, "
                f"have {found[0]} of {found[1]} classes; shuffle the file: order = "
                f"numpy.random.permutation(len(y_{split})), then x_{split}[order], y_{split}[order]"
            )
    return told
