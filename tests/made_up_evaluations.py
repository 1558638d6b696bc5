"""Made-up rows of evaluations, for trials that were never trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scoring.robustness.subject import result_row
from scoring.tables import read_rows, write_table
from tune_jobs.evaluations import read

EVALUATIONS = read(
    ["lesion", "noise", "fgsm", "pgd", "separation", "curve"]
)  # with default settings


def made_up_rows(
    tried: Sequence[str], stages: int, blocks: int, clean: float, fragile: float
) -> list[dict]:
    """Rows of evaluations in which accuracy falls from ``clean`` towards chance.

    At the highest level, 1 / (1 + 3 fragile) of the accuracy above chance is left. The variation
    rate at block l is fragile (l + 1) times the level's share of the highest level. Units set to
    their means are three times as important. The tenths of the pairs are mixed up in shares of
    0.145, 0.135, ..., 0.055, and all pairs in a share of 0.1. These shares are 1/2 as far from 0.1
    in the untrained network, 1/3 among matched pairs, and 0.1 in both.
    The curve of measures is :func:`made_up_curve`.
    """

    def accuracy(share: float) -> float:
        return 0.1 + (clean - 0.1) / (1 + 3 * fragile * share)

    rows = []
    places = [(k, l) for k in range(1, stages + 1) for l in range(blocks + 1)]  # noqa: E741
    for name in tried:
        if name == "curve":
            rows += made_up_curve(stages, blocks)
            continue
        if name == "separation":
            for stage in range(1, stages + 1):
                for kind in (name, f"{name}_different"):
                    shares = [0.1, *(0.15 - 0.01 * (tenth - 0.5) for tenth in range(1, 11))]
                    what = (kind, "decile of track distance", 300, stage)
                    rows += [
                        result_row(
                            what[0],
                            k,
                            *what[1:],
                            mixed=v,
                            mixed_initial=(v + 0.1) / 2,
                            mixed_matched=(v + 0.2) / 3,
                            mixed_matched_initial=0.1,
                        )
                        for k, v in enumerate(shares)
                    ]
            continue
        levels = EVALUATIONS[name]["levels"]
        for level in levels:
            share = level / max(levels)
            value = accuracy(share)
            if name == "lesion":
                rows += [
                    result_row(
                        name,
                        level,
                        "share of units",
                        500,
                        stage,
                        3,
                        replacement=replacement,
                        units=units,
                        accuracy=accuracy(share * (1 + 2 * (replacement == "mean"))),
                    )
                    for stage in range(1, stages + 1)
                    for replacement in ("previous", "mean")
                    for units in ("top", "random")
                ]
                continue
            rows.append(result_row(name, level, "pixel value", 500, accuracy=value, loss=1 - value))
            for k, l in places:  # noqa: E741
                rate = fragile * (l + 1) * share
                rows.append(result_row(name, level, "pixel value", 500, k, l, variation_rate=rate))
        if name == "lesion":
            for k, l in places:  # noqa: E741
                skipped, swapped = accuracy(1.0), accuracy(0.5)
                rows += [result_row("skip", 1, "blocks", 500, k, l, accuracy=skipped)] * (l > 0)
                rows += [result_row("swap", 1, "pairs", 500, k, l, accuracy=swapped)] * (
                    0 < l < blocks
                )
    return rows


def evaluated_with(root: Path, trial: str, evaluation: str, m: int) -> None:
    """Change the number of points behind an evaluation of a made-up trial."""
    rows = read_rows(str(root), "robustness", trial)
    changed = [row | ({"m": m} if row["evaluation"] == evaluation else {}) for row in rows]
    write_table(str(root), "robustness", trial, changed)


def made_up_curve(stages: int, blocks: int) -> list[dict]:
    """Rows of the evaluation curve, with ends that are half as far apart as the way is long.

    Every block moves the cloud by 2; before training by 1, 2, 3, ...
    """
    rows = []
    nothing = dict.fromkeys(("level", "accuracy", "loss", "variation_rate", "mixed", "distance"))
    for name, speeds in (("curve", [2.0] * blocks), ("curve_initial", [*range(1, blocks + 1)])):
        mean, squares = np.mean(speeds), np.square(speeds)
        for k in range(1, stages + 1):
            place = {"evaluation": name, "stage": k, "unit": "", "m": 500} | nothing
            rows += [
                place
                | {"block": l, "speed": speed, "energy": 1.5 * speed**2}
                | {"ots": 0.75, "gap": 1 / 1.5, "polar_share": 0.5}
                for l, speed in enumerate(speeds, 1)  # noqa: E741
            ]
            speed_factor = squares.mean() / mean**2
            whole = {"speed": mean * blocks / 2, "energy": 1.5 * squares.sum(), "ots": 0.5}
            whole |= {"length_ratio": 2.0, "block_factor": 1.5, "speed_factor": speed_factor}
            whole |= {"speed_variation": (speed_factor - 1) ** 0.5, "polar_share": 0.5}
            whole |= {"geodesic_excess": 1.5 * speed_factor * 4}
            rows.append(place | {"block": None} | whole)
    for k in range(1, stages + 1):
        place = {"evaluation": "curve_shuffled", "stage": k, "unit": "", "m": 500} | nothing
        rows += [place | {"block": l, "ots": 0.75} for l in range(1, blocks + 1)]  # noqa: E741
        rows.append(place | {"block": None, "block_factor": 1.25})
    return rows
