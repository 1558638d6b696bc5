"""Runs an experiment by its name, with its settings, and returns rows for a table."""

from collections.abc import Callable, Mapping
from typing import Any

from scoring.robustness.attacks import fgsm, pgd
from scoring.robustness.curve import curve
from scoring.robustness.lesion import lesion, rearrangement
from scoring.robustness.noise import mixing, noise
from scoring.robustness.subject import Subject

Rows = list[dict[str, Any]]


def evaluate(name: str, subject: Subject, settings: Mapping[str, Any]) -> Rows:
    """Run one evaluation by its name.

    Args:
        name: ``lesion`` (with the rows of :func:`scoring.robustness.lesion.rearrangement`),
            ``noise``, ``fgsm``, ``pgd``, ``separation``
            (:func:`scoring.robustness.noise.mixing`) or ``curve``.
        subject: the network and its points; it is unchanged afterwards.
        settings: the other arguments of that function.

    Returns:
        Rows, each as of :func:`scoring.robustness.subject.result_row`; those of ``curve`` as of
        :func:`scoring.curve.curve_rows`.

    Raises:
        KeyError: no such evaluation.
    """
    return RUN[name](subject, **settings)


def _lesions(subject: Subject, **settings: Any) -> Rows:
    return lesion(subject, **settings) + rearrangement(subject)


RUN: dict[str, Callable[..., Rows]] = {
    "lesion": _lesions,
    "noise": noise,
    "fgsm": fgsm,
    "pgd": pgd,
    "separation": mixing,
    "curve": curve,
}
