"""How a trained network takes noise, attacks and lesions: the experiments of the appendix.

One name an experiment, with settings of its own; rows for a table, and a number or two each.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from scoring.attacks import fgsm, pgd
from scoring.lesion import lesion, rearrangement
from scoring.noise import mixing, noise
from scoring.subject import Subject

Rows = list[dict[str, Any]]

DEFAULTS: dict[str, dict[str, Any]] = {
    "lesion": {"levels": (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1), "block": 3},
    "noise": {"levels": (0, 8, 16, 32, 64, 128), "seed": 0},
    "fgsm": {"levels": (0, 1, 2, 4, 8, 16)},
    "pgd": {"levels": (0, 1, 2, 4, 8, 16), "steps": 10, "seed": 0},
    "separation": {"level": 32, "points": 1000, "seed": 0},
}
LEAST = {"block": 1, "steps": 1, "points": 2, "seed": 0}  # of settings that are whole numbers


def settings(name: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of an evaluation: what is given, and the defaults of what is not.

    Raises:
        ValueError: no such evaluation or setting, or a value it cannot have; the message says
            what is allowed.

    >>> settings("noise", {"levels": [0, 16]})
    {'levels': [0, 16], 'seed': 0}
    """
    if name not in DEFAULTS:
        raise ValueError(f"no evaluation {name!r}; should be one of {', '.join(DEFAULTS)}")
    for key, value in (given or {}).items():
        if key not in DEFAULTS[name]:
            raise ValueError(
                f"{name}: no setting {key!r}; should be of {', '.join(DEFAULTS[name])}"
            )
        most = 1 if name == "lesion" else 255
        if key == "levels":
            told = f"a list of numbers from 0 to {most}"
            fits = isinstance(value, list | tuple) and len(value) > 0
            fits = fits and all(_is_number(x) and 0 <= x <= most for x in value)
        elif key == "level":
            told, fits = f"a number from 0 to {most}", _is_number(value) and 0 <= value <= most
        else:
            told = f"a whole number, at least {LEAST[key]}"
            fits = isinstance(value, int) and _is_number(value) and value >= LEAST[key]
        if not fits:
            raise ValueError(f"{name}: {key} is {value!r}; should be {told}")
    return DEFAULTS[name] | dict(given or {})


def evaluate(name: str, subject: Subject, given: Mapping[str, Any] | None = None) -> Rows:
    """Run one evaluation by its name.

    Args:
        name: ``lesion`` (with the rows of :func:`scoring.lesion.rearrangement`), ``noise``,
            ``fgsm``, ``pgd`` or ``separation`` (:func:`scoring.noise.mixing`).
        subject: the network and its points; afterwards as it was.
        given: settings that are not to be those of ``DEFAULTS``.

    Returns:
        Rows, each as of :func:`scoring.subject.row`.

    Raises:
        ValueError: see :func:`settings`.
    """
    chosen = settings(name, given)
    if name == "lesion":
        return lesion(subject, **chosen) + rearrangement(subject)
    run: dict[str, Callable[..., Rows]] = {"noise": noise, "fgsm": fgsm, "pgd": pgd}
    return run.get(name, mixing)(subject, **chosen)


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
