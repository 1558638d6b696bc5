"""Summaries of experiments from their rows: areas under accuracy, ratios, the curve of measures.

This module does not load torch, as actors finish tables without it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from scoring.rows import geometric_mean

CURVES = {"": "curve", "_initial": "curve_initial", "_shuffled": "curve_shuffled"}  # by suffix
FACTORS = ("length_ratio", "block_factor", "speed_factor")  # of the geodesic excess


def area(levels: Sequence[float], accuracies: Sequence[float]) -> float:
    """Area under the curve of accuracy against level, over the range of levels, in [0, 1].

    This is a mean accuracy, by the trapezoidal rule. The levels may be in any order. For a single
    level it is the accuracy there.

    Raises:
        ValueError: there are no levels, or not as many accuracies as levels.

    >>> area([0, 1, 4], [1.0, 0.5, 0.0])  # (0.75 * 1 + 0.25 * 3) / 4
    0.375
    """
    curve = sorted(zip(levels, accuracies, strict=True))
    if not curve:
        raise ValueError("an area needs at least one level")
    span = curve[-1][0] - curve[0][0]
    if span == 0:
        return sum(accuracy for _, accuracy in curve) / len(curve)
    parts = ((b - a) * (above + below) / 2 for (a, above), (b, below) in pairwise(curve))
    return sum(parts) / span


def summary(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Columns of the trials table from the rows of some evaluations.

    Returns:
        ``lesion_auc``, ``noise_auc``, ``fgsm_auc``, ``pgd_auc``: the :func:`area` under
        accuracy, in [0, 1], for lesions over the share of units. ``mixed_ratio`` and
        ``mixed_ratio_different``: the share of mixed-up pairs in the closest decile over that in
        all pairs, from 0 to 10; it would be 1 if track distance did not matter. Values of stages
        are averaged over the stages. Ratios are averaged over the stages where a pair is mixed
        up; NaN if there is none. Those of the curve of measures are in :func:`curve_summary`.
        Columns without rows are left out.
    """
    rows = list(rows)
    curves: dict[tuple[str, int | None], dict[float, float]] = defaultdict(dict)
    for one in rows:
        value = one["mixed"] if one["accuracy"] is None else one["accuracy"]
        if value is not None:  # rows of variation rates have neither
            curves[one["evaluation"], one["stage"]][one["level"]] = value
    figures: dict[str, list[float]] = defaultdict(list)
    for (name, _), curve in curves.items():
        if name in ("lesion", "noise", "fgsm", "pgd"):
            figures[f"{name}_auc"].append(area(list(curve), list(curve.values())))
        elif name in ("separation", "separation_different"):
            ratios = figures[name.replace("separation", "mixed_ratio")]
            ratios += [curve[1] / curve[0]] if curve[0] != 0 else []
    means = {k: sum(v) / len(v) if v else math.nan for k, v in figures.items()}
    return means | curve_summary(rows)


def curve_summary(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Columns of the trials table from the rows of the evaluation ``curve``; empty without them.

    Returns:
        ``curve_m``; then, for the trained network and with ``_initial`` before training, the
        geometric means over stages of ``curve_length_ratio``, ``curve_block_factor`` and
        ``curve_speed_factor``, and the means of ``curve_speed_variation``, ``curve_polar_share``
        and ``curve_block_ots`` (over the blocks of all stages). Those of single blocks also have
        ``_shuffled``: of displacements shuffled between points.
    """
    found: dict[str, float] = {}
    for end, name in CURVES.items():
        here = [row for row in rows if row["evaluation"] == name]
        stages = [row for row in here if row["block"] is None]
        if not here:
            continue
        found["curve_m"] = here[0]["m"]
        means = {"block_ots": [row["ots"] for row in here if row["block"] is not None]}
        if end == "_shuffled":
            factors = ("block_factor",)
        else:
            factors = FACTORS
            means |= {n: [row[n] for row in stages] for n in ("speed_variation", "polar_share")}
        for factor in factors:
            found[f"curve_{factor}{end}"] = geometric_mean(row[factor] for row in stages)
        found |= {f"curve_{n}{end}": sum(v) / len(v) for n, v in means.items()}
    return found
