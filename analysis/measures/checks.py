"""The checks of the paper's claims. A claim is checked wherever a sweep has both of its sides.

Two sides are compared over seeds: the same network at two gammas, the two networks at one gamma,
or two values of K. Two numbers of the same trial, such as those of two stages, are compared trial
by trial. Numbers of evaluations are compared only at equal settings and equal m. Each check takes
the evidence of a sweep and yields comparisons.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.comparisons import (
    OPTIMAL,
    STRAIGHT,
    Check,
    Evidence,
    compare,
    equal,
    falls,
    halves,
    paired,
    place,
    reaches,
)
from analysis.measures.layout import heading, span
from analysis.measures.robustness import alike
from analysis.measures.verdicts import Comparison

HEAVY = 0.1  # The paper says that tracks straighten up to this gamma; above it, accuracy falls.
LOW = 0.5  # An OTS below this counts as fallen "towards 0"; from this on, it does not.
EQUAL = 0.01  # Accuracies that differ by less than this count as equal.
SPREAD = 0.1  # A deviation over stages above this share of the mean is "large".
NETWORKS = ("plain", "resnet")
MATCHED = "mixed_ratio_different_matched"  # 1 where close tracks are mixed up as often as others


def _at(trials: pd.DataFrame, gamma: Any) -> pd.DataFrame:
    return trials[trials.gamma == gamma]


def _gammas(trials: pd.DataFrame) -> list[float]:
    return sorted(trials.gamma.unique())


def _sizes(trials: pd.DataFrame, score: str) -> list[str]:
    """The number of points behind a score of an evaluation, which has its own; else nothing."""
    if score.startswith("mixed_ratio"):
        return [f"m = {span(trials.separation_m)}"]
    if score.startswith("curve_"):
        return [f"m = {span(trials.curve_m)}"]
    return [f"m = {span(trials.m)}"] if score.endswith(("_lost", "_variation")) else []


def _parts(trials: pd.DataFrame, score: str) -> list[pd.DataFrame]:
    """The trials with a finite score, in parts with equal settings and m of its evaluation."""
    known = trials[np.isfinite(trials[score].astype("float64"))]
    return [part for _, part in known.groupby(alike(known, score))]


def decay_lowers(score: str, only: str | None = None) -> Check:
    """Compare a score at each gamma in (0, 0.1] with that of the same network at gamma 0.

    Args:
        score: the column to compare.
        only: the network to check; by default all.
    """

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for key, trials in evidence.strata():
            if only not in (None, key["network"]):
                continue
            none = _at(trials, 0)[score]
            for gamma in _decayed(trials):
                here = _at(trials, gamma)[score]
                yield from compare(place(key), ("at γ = 0", f"at {gamma:g}"), none, here, -1)

    return check


def training_lowers(score: str, only: str | None = None) -> Check:
    """Compare a score after training with its value before, at each gamma in (0, 0.1].

    The arguments are those of :func:`decay_lowers`.
    """

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for key, trials in evidence.strata():
            if only not in (None, key["network"]):
                continue
            for gamma in _decayed(trials):
                names = ("before training", "after it")
                for here in _parts(_at(trials, gamma), score):
                    where = place(key, f"γ = {gamma:g}", *_sizes(here, score))
                    yield from paired(where, names, here[f"{score}_initial"], here[score], -1)

    return check


def _decayed(trials: pd.DataFrame) -> list[float]:
    return _gammas(trials[trials.gamma.between(0, HEAVY, inclusive="right")])


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

    If the score is from an evaluation, both sides have equal settings and m of it. If both were
    measured, but never so, the check yields a note in the place of a comparison.

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
                parts = _parts(_at(trials, gamma), score)
                both = [here for here in parts if {*NETWORKS} <= {*here.network}]
                for here in both:
                    plain, resnet = (here[here.network == n][score] for n in NETWORKS)
                    where = place(key, f"γ = {gamma:g}", *_sizes(here, score), m="ots" in score)
                    yield from compare(where, ("plain", "ResNet"), plain, resnet, sign, least)
                if not both and {*NETWORKS} <= {name for here in parts for name in here.network}:
                    told = f"{heading(score)} not compared: the settings or m of both sides differ"
                    yield Comparison(place(key, f"γ = {gamma:g}"), told, False, np.nan, False)

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
    """Compare each stage of a network with the one before it, in the same trials."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for key, trials in evidence.strata():
            rows = evidence.tracks.merge(trials[["trial", "gamma"]], on="trial")
            for gamma, here in rows.groupby("gamma"):
                stages = here.pivot(index="trial", columns="stage", values=score)
                stages = stages.reindex(columns=range(1, key["stages"] + 1))
                for stage in range(2, key["stages"] + 1):
                    a, b = (stages[k].rename("lss") for k in (stage - 1, stage))
                    names = (f"in stage {stage - 1}", f"in stage {stage}")
                    yield from paired(place(key, f"γ = {gamma:g}"), names, a, b, -1)

    return check


def stages_vary(evidence: Evidence) -> Iterator[Comparison]:
    """Check that the deviation of LSS over stages is above :data:`SPREAD` of its mean."""
    for key, trials in evidence.strata():
        if key["stages"] == 1:
            continue
        for gamma, here in trials.groupby("gamma"):
            values = (here.lss_std / here.lss).rename("relative lss_std")
            yield from reaches(place(key, f"γ = {gamma:g}"), values, SPREAD, 1)


def more_blocks(network: str, sign: int) -> Check:
    """Compare the train loss of a network with the most blocks and with the fewest.

    Both have the same gamma.

    Args:
        network: which network.
        sign: +1 if it should be higher with the most blocks, -1 if lower.
    """

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for key, trials in evidence.strata("depth"):
            if key["network"] != network or trials.depth.nunique() < 2:
                continue
            for gamma, here in trials.groupby("gamma"):
                few, most = here.depth.min(), here.depth.max()
                if few < most:
                    names = (f"with {few:g} blocks", f"with {most:g}")
                    a, b = (here[here.depth == n].clean_train_loss for n in (few, most))
                    yield from compare(place(key, f"γ = {gamma:g}"), names, a, b, sign)

    return check


def decay_helps_deep(evidence: Evidence) -> Iterator[Comparison]:
    """Compare the train loss of plain networks at each gamma in (0, 0.1] with that at gamma 0.

    The networks are those with the most blocks.
    """
    for key, trials in evidence.strata("depth"):
        if key["network"] != "plain" or trials.depth.nunique() < 2:
            continue
        most = trials.depth.max()
        deep = trials[trials.depth == most]
        for gamma in _decayed(deep):
            names = ("at γ = 0", f"at {gamma:g}")
            none, here = (_at(deep, value).clean_train_loss for value in (0, gamma))
            yield from compare(place(key, f"{most:g} blocks"), names, none, here, -1)


def with_accuracy(evidence: Evidence) -> Iterator[Comparison]:
    """Check whether test accuracy falls as LSS rises over gammas, for each network separately."""
    for key, trials in evidence.strata():
        yield from falls(place(key), trials, "lss", "test_accuracy")


def falling(evidence: Evidence) -> Iterator[Comparison]:
    """Check whether train accuracy falls as a ResNet's OTS rises over gammas, K = 1.

    OTS falls "towards 0" only if it is below :data:`LOW` at the highest train accuracy. If one of
    the two is the same in all trials, they have no correlation: nothing falls then, and this is
    not sure.
    """
    for key, trials in evidence.strata():
        if key["stages"] != 1 or key["network"] != "resnet":
            continue
        known = trials[trials.ots.notna() & trials.train_accuracy.notna()]
        if len(known) < 3 or known.gamma.nunique() < 2:
            continue
        where = place(key, m=True)
        found = list(falls(where, trials, "ots", "train_accuracy"))
        same = [n for n in ("ots", "train_accuracy") if known[n].nunique() == 1]
        if not found and same:
            told = f"{heading(same[0])} is {known[same[0]].iloc[0]:.3g} in all {len(known)} trials"
            found = [Comparison(where, told, False, np.nan)]
        yield from found
        best = known.groupby("gamma").train_accuracy.mean().idxmax()
        where = place(key, f"γ = {best:g}, the highest train accuracy", m=True)
        yield from reaches(where, _at(known, best).ots, LOW, -1)


def best_gamma(evidence: Evidence) -> Iterator[Comparison]:
    """Compare the paper's best gamma with the best other one, if at least two others were tried.

    The best other one is chosen on one half of the seeds and judged on the other half: see
    :func:`analysis.measures.comparisons.halves`. The paper's needs no choice, so all its seeds
    count.
    """
    for key, trials in evidence.strata():
        if key["stages"] not in (1, 4) or key["layers"] != "convolutional":
            continue
        several = {"resnet": 5e-3, "plain": 1e-3}.get(key["network"])
        claimed = 1e-2 if key["stages"] == 1 else several
        chosen, judged = halves(trials, evidence.points)
        means = chosen.groupby("gamma").test_accuracy.mean().dropna()
        if claimed not in means.index or len(means) < 3:
            continue
        best = means.drop(claimed).idxmax()
        names = (f"at γ = {best:g}, the best other", f"at {claimed:g}")
        own = trials if trials.seed.nunique() > 1 else judged
        a, b = _at(judged, best).test_accuracy, _at(own, claimed).test_accuracy
        yield from compare(place(key), names, a, b, 1)


def same_gamma(evidence: Evidence) -> Iterator[Comparison]:
    """Compare test accuracy at the gamma of the best train accuracy with the best other gamma.

    Both are chosen on one half of the seeds and judged on the other half. The claim is that the
    first costs less than :data:`EQUAL`.
    """
    for key, trials in evidence.strata():
        chosen, judged = halves(trials, evidence.points)
        means = chosen.groupby("gamma")[["train_accuracy", "test_accuracy"]].mean().dropna()
        if len(means) < 3:
            continue
        train = means.train_accuracy.idxmax()
        other = means.test_accuracy.drop(train).idxmax()
        names = (f"at γ = {other:g}, the best other", f"at {train:g}, best in training")
        a, b = (_at(judged, gamma).test_accuracy for gamma in (other, train))
        yield from compare(place(key), names, a, b, 1, -EQUAL)


def equal_training(evidence: Evidence) -> Iterator[Comparison]:
    """Compare a ResNet of several stages with the plain one: equal in training, better in tests."""
    for key, trials in evidence.strata("network"):
        if key["stages"] == 1:
            continue
        for gamma in _gammas(trials):
            here = _at(trials, gamma)
            plain, resnet = (here[here.network == name] for name in NETWORKS)
            where, names = place(key, f"γ = {gamma:g}"), ("plain", "ResNet")
            train, test = plain.train_accuracy, plain.test_accuracy
            for same in equal(where, names, train, resnet.train_accuracy, EQUAL):
                yield same
                yield from compare(where, names, test, resnet.test_accuracy, 1)


def figure_3(evidence: Evidence) -> Iterator[Comparison]:
    """Check a ResNet on MNIST at gamma 5e-4: nearly straight tracks, and a nearly optimal map."""
    for key, trials in evidence.strata():
        if key["dataset"] == "mnist" and key["network"] == "resnet":
            here = _at(trials, 5e-4)
            yield from reaches(place(key), here.lss, STRAIGHT, -1)
            yield from reaches(place(key, m=True), here.ots, OPTIMAL, 1)


def units(flat: float, lost: str = "lesion_lost") -> Check:
    """Check that a ResNet with eliminated units loses less than the plain one, and than a limit.

    Args:
        flat: the limit.
        lost: the column with the share of its accuracy that a network loses.
    """

    def check(evidence: Evidence) -> Iterator[Comparison]:
        yield from networks(lost, -1)(evidence)
        for key, trials in evidence.strata("network"):
            for gamma, resnets in trials[trials.network == "resnet"].groupby("gamma"):
                for here in _parts(resnets, lost):
                    sizes = _sizes(here, lost)
                    where = place(key | {"network": "resnet"}, f"γ = {gamma:g}", *sizes)
                    yield from reaches(where, here[lost], flat, -1)

    return check


def noise(*scores: str) -> Check:
    """Check whether each of these scores under noise is lower for a ResNet than for a plain one."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for score in scores:
            yield from networks(score, -1)(evidence)

    return check


def mixed_first(evidence: Evidence) -> Iterator[Comparison]:
    """Compare how often the closest tracks are mixed up with 1 and with the untrained network.

    The larger of the two counts. Pairs are of two classes, matched by the distance of their ends.
    """
    for key, trials in evidence.strata():
        for gamma, own in trials.groupby("gamma"):
            names = ("before training (or 1)", "after it")
            for here in _parts(own, MATCHED):
                after, before = here[MATCHED], here[f"{MATCHED}_initial"].clip(lower=1)
                where = place(key, f"γ = {gamma:g}", *_sizes(here, MATCHED))
                yield from paired(where, names, before, after, 1)


def mixed_first_untrained(evidence: Evidence) -> Iterator[Comparison]:
    """Check whether the untrained network mixes up the closest tracks more often than all."""
    for key, trials in evidence.strata():
        for gamma, own in trials.groupby("gamma"):
            for here in _parts(own, f"{MATCHED}_initial"):
                where = place(key, f"γ = {gamma:g}", *_sizes(here, MATCHED))
                yield from reaches(where, here[f"{MATCHED}_initial"], 1, 1)
