"""One or two numbers for each experiment, from its rows: areas under curves, and ratios.

Loads no torch, so that tables can be finished where no network is at hand.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any


def area(levels: Sequence[float], accuracies: Sequence[float]) -> float:
    """Area under accuracy against level over the range of levels: a mean accuracy, in [0, 1].

    By trapezoids, straight between levels; levels in any order. Of one level, its accuracy.

    Raises:
        ValueError: no levels, or not as many accuracies.

    >>> area([0, 1, 4], [1.0, 0.5, 0.0])  # (0.75 * 1 + 0.25 * 3) / 4
    0.375
    """
    curve = sorted(zip(levels, accuracies, strict=True))
    if not curve:
        raise ValueError("an area needs a level")
    span = curve[-1][0] - curve[0][0]
    if span == 0:
        return sum(accuracy for _, accuracy in curve) / len(curve)
    parts = ((b - a) * (above + below) / 2 for (a, above), (b, below) in pairwise(curve))
    return sum(parts) / span


def summary(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What the trials table says of the rows of some evaluations.

    Returns:
        ``lesion_auc``, ``noise_auc``, ``fgsm_auc``, ``pgd_auc``: the :func:`area` of accuracy,
        in [0, 1], that of lesions over the share of units. ``mixed_ratio`` and
        ``mixed_ratio_different``: the share of pairs mixed up in the closest decile over that
        of all pairs, from 0 to 10, and 1 were track distance of no importance. Figures of
        stages are averaged over the stages, ratios over those in which a pair is mixed up; NaN
        where that is none. Only columns that there are rows of.
    """
    curves: dict[tuple[str, int | None], dict[float, float]] = defaultdict(dict)
    for one in rows:
        value = one["mixed"] if one["accuracy"] is None else one["accuracy"]
        if value is not None:  # neither in rows of variation rates
            curves[one["evaluation"], one["stage"]][one["level"]] = value
    figures: dict[str, list[float]] = defaultdict(list)
    for (name, _), curve in curves.items():
        if name in ("lesion", "noise", "fgsm", "pgd"):
            figures[f"{name}_auc"].append(area([*curve.keys()], [*curve.values()]))
        elif name in ("separation", "separation_different"):
            ratios = figures[name.replace("separation", "mixed_ratio")]
            ratios += [curve[1] / curve[0]] if curve[0] != 0 else []
    return {k: sum(v) / len(v) if v else math.nan for k, v in figures.items()}
