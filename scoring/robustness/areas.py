"""Summaries of experiments from their rows: areas under accuracy, ratios, the curve of measures.

This module does not load torch, as actors finish tables without it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from scoring.rows import geometric_mean
from scoring.schemas import TABLES

LEVELS = ("lesion", "noise", "fgsm", "pgd")  # evaluations that measure accuracy against a level
FEW = 100  # With fewer mixed-up pairs, the share of close ones among them is erratic.
MIXED = ("", "_initial", "_matched", "_matched_initial")  # ends of the columns of mixed-up shares
CURVES = {"": "curve", "_initial": "curve_initial", "_shuffled": "curve_shuffled"}  # by suffix
FACTORS = ("length_ratio", "block_factor", "speed_factor")  # of the geodesic excess
COLUMNS = tuple(
    name
    for name in TABLES["trials"].names
    if name.endswith("_auc") or name.startswith(("mixed_ratio", "curve_"))
)
"""Columns of the trials table that :func:`summary` may give."""


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


def curve_name(row: Mapping[str, Any]) -> str:
    """The name of the curve of accuracy that a row of an evaluation belongs to.

    It is the evaluation's name, except for lesions that are not the paper's: their curves are
    ``lesion_top_mean``, ``lesion_random_previous`` and ``lesion_random_mean``. Rows of earlier
    versions have neither a replacement nor units; theirs were the paper's.
    """
    kind = (row["units"] or "top", row["replacement"] or "previous")
    paper = row["evaluation"] != "lesion" or kind == ("top", "previous")
    return row["evaluation"] if paper else "_".join(("lesion", *kind))


def summary(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Columns of the trials table from the rows of some evaluations.

    Returns:
        ``lesion_auc``, ``lesion_top_mean_auc``, ``lesion_random_previous_auc``,
        ``lesion_random_mean_auc`` (see :func:`curve_name`), ``noise_auc``, ``fgsm_auc``,
        ``pgd_auc``: the :func:`area` under accuracy, in [0, 1], for lesions over the share of
        units. All levels of the rows count, also a level 0 that was added to those given.
        ``mixed_ratio`` and ``mixed_ratio_different``: the share of mixed-up pairs in the closest
        decile over that in all pairs, from 0 to 10. The same with ``_matched``: among pairs matched
        by the distance of their ends, where it is 1 if track distance did not matter; and with
        ``_initial``: in the untrained network. Values of stages are averaged over the stages.
        Ratios are averaged over the stages where a pair is mixed up; matched ratios over the stages
        where about :data:`FEW` pairs are mixed up, also in the untrained network, so that both
        cover the same stages. NaN if there is no such stage. Columns without rows are left out.
        Those of the curve of measures are in :func:`curve_summary`.
    """
    rows = list(rows)
    curves: dict[tuple[str, int | None], dict[float, float]] = defaultdict(dict)
    pairs: dict[tuple[str, int | None], dict[str, dict[float, float]]] = defaultdict(dict)
    number: dict[tuple[str, int | None], float] = {}
    for one in rows:
        if one["evaluation"] in LEVELS and one["accuracy"] is not None:  # not a variation rate
            curves[f"{curve_name(one)}_auc", one["stage"]][one["level"]] = one["accuracy"]
        for end in MIXED if one["evaluation"].startswith("separation") else ():
            if (share := one[f"mixed{end}"]) is not None:
                place = (one["evaluation"].replace("separation", "mixed_ratio"), one["stage"])
                pairs[place].setdefault(end, {})[one["level"]] = share
                number[place] = one["m"] * (one["m"] - 1) / 2  # of all classes, so an upper bound
    figures: dict[str, list[float]] = defaultdict(list)
    for (name, _), curve in curves.items():
        figures[name].append(area(list(curve), list(curve.values())))
    for place, ends in pairs.items():
        matched = [shares[0] for end, shares in ends.items() if "matched" in end]
        few = any(share * number[place] < FEW for share in matched)
        for end, shares in ends.items():
            unknown = few if "matched" in end else shares[0] == 0
            figures[f"{place[0]}{end}"] += [] if unknown else [shares[1] / shares[0]]
    means = {k: sum(v) / len(v) if v else math.nan for k, v in figures.items()}
    return means | curve_summary(rows)


def curve_summary(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Columns of the trials table from the rows of the evaluation ``curve``; empty without them.

    Returns:
        ``curve_m``; then, for the trained network and with ``_initial`` before training, the
        geometric means over stages of ``curve_length_ratio``, ``curve_block_factor`` and
        ``curve_speed_factor``, and the means of ``curve_speed_variation``, ``curve_polar_share``
        and ``curve_block_ots`` (over the blocks of all stages). Those of single blocks also have
        ``_shuffled``: of displacements shuffled between points. ``curve_blocks`` counts the blocks
        that have not collapsed. Only they are in the means of OTS and polar share, and only stages
        that have not collapsed; NaN if there are none. The curve of a stage of a single block is a
        geodesic by definition: if there are longer stages, it is left out of the means of the
        factors and of ``curve_speed_variation``.
    """
    found: dict[str, float] = {}
    for end, name in CURVES.items():
        here = [row for row in rows if row["evaluation"] == name]
        stages = [row for row in here if row["block"] is None]
        if not here:
            continue
        found["curve_m"] = here[0]["m"]
        blocks = [row for row in here if row["block"] is not None]
        longer = {row["stage"] for row in blocks if row["block"] > 1}
        lines = [row for row in stages if row["stage"] in longer] or stages
        means = {"block_ots": _known(row["ots"] for row in blocks)}
        if end == "_shuffled":
            factors = ("block_factor",)
        else:
            factors = FACTORS
            means["speed_variation"] = [row["speed_variation"] for row in lines]
            means["polar_share"] = _known(row["polar_share"] for row in stages)
            found[f"curve_blocks{end}"] = len(means["block_ots"])
        for factor in factors:
            found[f"curve_{factor}{end}"] = geometric_mean(row[factor] for row in lines)
        found |= {f"curve_{n}{end}": sum(v) / len(v) if v else math.nan for n, v in means.items()}
    return found


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
