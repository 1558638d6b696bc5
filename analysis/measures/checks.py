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
    in_parts,
    paired,
    place,
    reaches,
    sizes,
)
from analysis.measures.layout import heading
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
            for gamma in _gammas(trials[_decayed(trials.gamma)]):
                names = ("at γ = 0", f"at {gamma:g}")
                none, here = _at(trials, 0), _at(trials, gamma)
                yield from compare(place(key), names, score, none, here, -1)

    return check


def training_lowers(score: str, only: str | None = None) -> Check:
    """Compare a score after training with its value before, at each gamma in (0, 0.1].

    The arguments are those of :func:`decay_lowers`.
    """

    def check(evidence: Evidence) -> Iterator[Comparison]:
        names, scores = ("before training", "after it"), (f"{score}_initial", score)
        for key, where, here in evidence.at_gammas(score):
            if only in (None, key["network"]) and _decayed(key["gamma"]):
                yield from paired(where, names, scores, here, -1)

    return check


def _decayed(gamma: Any) -> Any:
    return (gamma > 0) & (gamma <= HEAVY)


def window(evidence: Evidence) -> Iterator[Comparison]:
    """Compare LSS and both accuracies at the smallest and largest gamma in [1e-3, 1e-2], K = 1."""
    for key, trials in evidence.strata():
        inside = _gammas(trials[trials.gamma.between(1e-3, 1e-2)])
        if key["stages"] != 1 or len(inside) < 2:
            continue
        low, high = inside[0], inside[-1]
        names = (f"at γ = {low:g}", f"at {high:g}")
        for score, sign in (("lss", -1), ("train_accuracy", 1), ("test_accuracy", 1)):
            yield from compare(place(key), names, score, _at(trials, low), _at(trials, high), sign)


def heavy(evidence: Evidence) -> Iterator[Comparison]:
    """Compare both accuracies at the largest gamma <= 0.1 and the smallest one above it, K = 1."""
    for key, trials in evidence.strata():
        below, above = _gammas(trials[trials.gamma <= HEAVY]), _gammas(trials[trials.gamma > HEAVY])
        if key["stages"] != 1 or not below or not above or below[-1] == 0:
            continue
        names = (f"at γ = {below[-1]:g}", f"at {above[0]:g}")
        for score in ("train_accuracy", "test_accuracy"):
            a, b = _at(trials, below[-1]), _at(trials, above[0])
            yield from compare(place(key), names, score, a, b, -1)


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
                every = in_parts(_at(trials, gamma), score)
                both = [here for here in every if {*NETWORKS} <= {*here.network}]
                for here in both:
                    a, b = (here[here.network == name] for name in NETWORKS)
                    where = place(key, f"γ = {gamma:g}", *sizes(here, score), m="ots" in score)
                    yield from compare(where, ("plain", "ResNet"), score, a, b, sign, least)
                if not both and {*NETWORKS} <= {name for here in every for name in here.network}:
                    told = f"{heading(score)} not compared: the settings or m of both sides differ"
                    yield Comparison(place(key, f"γ = {gamma:g}"), told, False, np.nan, False)

    return check


def more_stages(score: str) -> Check:
    """Compare K > 1 with K = 1: the same network and gamma, at any m."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        for _, where, trials in evidence.at_gammas("", "stages", "points"):
            one = trials[trials.stages == 1]
            for stages, here in trials[trials.stages > 1].groupby("stages"):
                yield from compare(where, ("at K = 1", f"at K = {stages}"), score, one, here, -1)

    return check


def later_stages(score: str) -> Check:
    """Compare each stage of a network with the one before it, in the same trials."""

    def check(evidence: Evidence) -> Iterator[Comparison]:
        stages = evidence.tracks.pivot(index="trial", columns="stage", values=score)
        for key, where, trials in evidence.at_gammas():
            rows = trials[["trial", "seed", "collapsed"]].join(stages, on="trial")
            for stage in range(2, key["stages"] + 1):
                if {stage - 1, stage} <= {*rows}:
                    names = (f"in stage {stage - 1}", f"in stage {stage}")
                    both = rows.rename(columns={stage - 1: score, stage: f"next {score}"})
                    yield from paired(where, names, (score, f"next {score}"), both, -1)

    return check


def stages_vary(evidence: Evidence) -> Iterator[Comparison]:
    """Check that the deviation of LSS over stages is above :data:`SPREAD` of its mean."""
    for key, where, here in evidence.at_gammas():
        if key["stages"] > 1:
            relative = here.assign(**{"relative lss_std": here.lss_std / here.lss})
            yield from reaches(where, "relative lss_std", relative, SPREAD, 1)


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
                    a, b = (here[here.depth == n] for n in (few, most))
                    where = place(key, f"γ = {gamma:g}")
                    yield from compare(where, names, "clean_train_loss", a, b, sign)

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
        for gamma in _gammas(deep[_decayed(deep.gamma)]):
            names, where = ("at γ = 0", f"at {gamma:g}"), place(key, f"{most:g} blocks")
            none, here = _at(deep, 0), _at(deep, gamma)
            yield from compare(where, names, "clean_train_loss", none, here, -1)


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
        yield from reaches(where, "ots", _at(known, best), LOW, -1)


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
        a, b = _at(judged, best), _at(own, claimed)
        yield from compare(place(key), names, "test_accuracy", a, b, 1)


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
        a, b = (_at(judged, gamma) for gamma in (other, train))
        yield from compare(place(key), names, "test_accuracy", a, b, 1, -EQUAL)


def equal_training(evidence: Evidence) -> Iterator[Comparison]:
    """Compare a ResNet of several stages with the plain one: equal in training, better in tests."""
    names = ("plain", "ResNet")
    for key, where, here in evidence.at_gammas("", "network"):
        if key["stages"] > 1:
            plain, resnet = (here[here.network == name] for name in NETWORKS)
            for same in equal(where, names, "train_accuracy", plain, resnet, EQUAL):
                yield same
                yield from compare(where, names, "test_accuracy", plain, resnet, 1)


def figure_3(evidence: Evidence) -> Iterator[Comparison]:
    """Check a ResNet on MNIST at gamma 5e-4: nearly straight tracks, and a nearly optimal map."""
    for key, trials in evidence.strata():
        if key["dataset"] == "mnist" and key["network"] == "resnet":
            here = _at(trials, 5e-4)
            yield from reaches(place(key), "lss", here, STRAIGHT, -1)
            yield from reaches(place(key, m=True), "ots", here, OPTIMAL, 1)


def units(flat: float, lost: str = "lesion_lost") -> Check:
    """Check that a ResNet with eliminated units loses less than the plain one, and than a limit.

    Args:
        flat: the limit.
        lost: the column with the share of its accuracy that a network loses.
    """

    def check(evidence: Evidence) -> Iterator[Comparison]:
        yield from networks(lost, -1)(evidence)
        for key, where, here in evidence.at_gammas(lost):
            if key["network"] == "resnet":
                yield from reaches(where, lost, here, flat, -1)

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
    names, before = ("before training (or 1)", "after it"), f"{MATCHED}_initial"
    for _, where, here in evidence.at_gammas(MATCHED):
        least = here.assign(**{before: here[before].clip(lower=1)})
        yield from paired(where, names, (before, MATCHED), least, 1)


def mixed_first_untrained(evidence: Evidence) -> Iterator[Comparison]:
    """Check whether the untrained network mixes up the closest tracks more often than all."""
    for _, where, here in evidence.at_gammas(f"{MATCHED}_initial"):
        yield from reaches(where, f"{MATCHED}_initial", here, 1, 1)
