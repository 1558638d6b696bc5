"""Whether the first images of a split can stand for all of it.

Scores are taken on the first test images, and normalisations settle on the first train images. In a
file that is sorted by class these are images of a few classes only.
"""

import math

import numpy as np

CHANCE = math.log(1e-6)  # a random order has a lower chance than this of looking sorted


def classes_at_start(labels: np.ndarray, m: int) -> tuple[int, int] | None:
    """Classes among the first ``m`` labels and among all, if no random order explains a gap.

    The chance that m random labels miss a set of classes that hold a share s of all is
    (1 - s)^m, and there are as many sets as ways to choose so many classes.

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


def warnings(name: str, y_train: np.ndarray, y_test: np.ndarray, m: int) -> list[str]:
    """What to tell about a data set of which the first ``m`` test images are scored."""
    told = []
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
