"""The checks of the paper's claims. A claim is checked wherever a sweep has both of its sides.

Two sides are compared over seeds: the same network at two gammas, the two networks at one gamma,
two values of K, or two stages of a network. Each check takes the evidence of a sweep and yields
comparisons.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.comparisons import (
    Check,
    Comparison,
    Evidence,
    compare,
    falls,
    place,
    reaches,
)

HEAVY = 0.1  # The paper says that tracks straighten up to this gamma; above it, accuracy falls.
LOW = 0.5  # An OTS below this counts as fallen "towards 0"; from this on, it does not.


def _at(trials: pd.DataFrame, gamma: Any) -> pd.DataFrame:
    return trials[trials.gamma == gamma]


def _gammas(trials: pd.DataFrame) -> list[float]:
    return sorted(trials.gamma.unique())


def decay_lowers(score: str) -> Check:
    """Compare a score at each gamma in (0, 0.1] with that of the same network at gamma 0."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for key, trials in evidence.strata():
            none = _at(trials, 0)[score]
            for gamma in _gammas(trials[trials.gamma.between(0, HEAVY, inclusive="right")]):
                here = _at(trials, gamma)[score]
                yield from compare(place(key), ("at γ = 0", f"at {gamma:g}"), none, here, -1)

    return check


def window(evidence: Evidence) -> Iterator[Comparison]:
    """Compare LSS and both accuracies at the smallest and largest gamma in [1e-3, 1e-2], K = 1."""
    for key, trials in evidence.strata():
        inside = _gammas(trials[trials.gamma.between(1e-3, 1e-2)])
        if key["stages"] != 1 or len(inside) < 2:
            continue
        low, high = inside[0], inside[-1]
        names = (f"at γ = {low:g}", f"at {high:g}")
        for score, sign in (("lss", -1), ("train_accuracy", 1), ("test_accuracy", 1)):
            a, b = _at(trials, low)[score], _at(trials, high)[score]
            yield from compare(place(key), names, a, b, sign)


def heavy(evidence: Evidence) -> Iterator[Comparison]:
    """Compare both accuracies at the largest gamma <= 0.1 and the smallest one above it, K = 1."""
    for key, trials in evidence.strata():
        below, above = _gammas(trials[trials.gamma <= HEAVY]), _gammas(trials[trials.gamma > HEAVY])
        if key["stages"] != 1 or not below or not above or below[-1] == 0:
            continue
        names = (f"at γ = {below[-1]:g}", f"at {above[0]:g}")
        for score in ("train_accuracy", "test_accuracy"):
            a, b = _at(trials, below[-1])[score], _at(trials, above[0])[score]
            yield from compare(place(key), names, a, b, -1)


def networks(score: str, sign: int, least: float = 0, several: bool = False) -> Check:
    """Compare a ResNet with the plain network at the same gamma.

    Args:
        score: the column to compare.
        sign: +1 if the ResNet's should be higher, -1 if lower.
        least: the difference must be larger than this.
        several: whether to check only networks with several stages.
    """

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for key, trials in evidence.strata("network"):
            if several and key["stages"] == 1:
                continue
            for gamma in _gammas(trials):
                here = _at(trials, gamma)
                plain, resnet = (here[here.network == n][score] for n in ("plain", "resnet"))
                where = place(key, f"γ = {gamma:g}", m="ots" in score)
                yield from compare(where, ("plain", "ResNet"), plain, resnet, sign, least)

    return check


def more_stages(score: str) -> Check:
    """Compare K > 1 with K = 1: the same network and gamma, at any m."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for key, trials in evidence.strata("stages", "points"):
            one = trials[trials.stages == 1]
            for (stages, gamma), here in trials[trials.stages > 1].groupby(["stages", "gamma"]):
                names = ("at K = 1", f"at K = {stages}")
                a, b = _at(one, gamma)[score], here[score]
                yield from compare(place(key, f"γ = {gamma:g}"), names, a, b, -1)

    return check


def later_stages(score: str) -> Check:
    """Compare the last stage of a network with its first."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for key, trials in evidence.strata():
            if key["stages"] == 1:
                continue
            rows = evidence.tracks.merge(trials[["trial", "gamma"]], on="trial")
            for gamma, here in rows.groupby("gamma"):
                first = here[here.stage == 1][score].rename("lss")
                last = here[here.stage == key["stages"]][score].rename("lss")
                names = ("in stage 1", f"in stage {key['stages']}")
                yield from compare(place(key, f"γ = {gamma:g}"), names, first, last, -1)

    return check


def with_accuracy(evidence: Evidence) -> Iterator[Comparison]:
    """Check whether test accuracy falls as LSS rises over gammas, for each network separately."""
    for key, trials in evidence.strata():
        yield from falls(place(key), trials, "lss", "test_accuracy")


def falling(evidence: Evidence) -> Iterator[Comparison]:
    """Check whether train accuracy falls as a ResNet's OTS rises over gammas, K = 1.

    OTS falls "towards 0" only if it is below :data:`LOW` at the highest train accuracy.
    """
    for key, trials in evidence.strata():
        if key["stages"] != 1 or key["network"] != "resnet":
            continue
        cells = trials.groupby("gamma")[["ots", "train_accuracy"]].mean().dropna()
        for found in falls(place(key, m=True), trials, "ots", "train_accuracy"):
            last = float(cells.ots.iloc[int(np.argmax(cells.train_accuracy))])
            told = f"{found.numbers}, OTS {last:.3g} at the highest train accuracy"
            agrees, sure = found.agrees and last < LOW, found.sure and last < LOW
            yield Comparison(found.where, told, agrees, sure, found.against)


def best_gamma(evidence: Evidence) -> Iterator[Comparison]:
    """Compare the paper's best gamma with the best other one, if at least two others were tried."""
    for key, trials in evidence.strata():
        if key["stages"] not in (1, 4) or key["layers"] != "convolutional":
            continue
        several = {"resnet": 5e-3, "plain": 1e-3}.get(key["network"])
        claimed = 1e-2 if key["stages"] == 1 else several
        means = trials.groupby("gamma").test_accuracy.mean().dropna()
        if claimed not in means.index or len(means) < 3:
            continue
        best = means.drop(claimed).idxmax()
        names = (f"at γ = {best:g}, the best other", f"at {claimed:g}")
        a, b = _at(trials, best).test_accuracy, _at(trials, claimed).test_accuracy
        yield from compare(place(key), names, a, b, 1)


def figure_3(straight: float, optimal: float) -> Check:
    """Check a ResNet on MNIST at gamma 5e-4: nearly straight tracks, and a nearly optimal map."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for key, trials in evidence.strata():
            if key["dataset"] == "mnist" and key["network"] == "resnet":
                here = _at(trials, 5e-4)
                yield from reaches(place(key), here.lss, straight, -1)
                yield from reaches(place(key, m=True), here.ots, optimal, 1)

    return check


def units(flat: float) -> Check:
    """Check that a ResNet with eliminated units loses less than the plain one, and than a limit."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        yield from networks("lesion_lost", -1)(evidence)
        for key, trials in evidence.strata("network"):
            for gamma, here in trials[trials.network == "resnet"].groupby("gamma"):
                where = place(key | {"network": "resnet"}, f"γ = {gamma:g}")
                yield from reaches(where, here.lesion_lost, flat, -1)

    return check


def noise(*scores: str) -> Check:
    """Check whether each of these scores under noise is lower for a ResNet than for a plain one."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for score in scores:
            yield from networks(score, -1)(evidence)

    return check


def mixed_first(evidence: Evidence) -> Iterator[Comparison]:
    """Check whether, of pairs of two classes, the closest tenth is mixed up more often than all."""
    for key, trials in evidence.strata():
        for gamma, here in trials.groupby("gamma"):
            where = place(key, f"γ = {gamma:g}")
            yield from reaches(where, here.mixed_ratio_different, 1, 1)
