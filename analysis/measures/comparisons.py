"""Comparisons of two sides of a claim over seeds, and the evidence of a sweep to compare.

:mod:`analysis.measures.checks` uses them for the paper's claims.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.measures.association import association
from analysis.measures.cells import as_strings, other_settings, varying, without_collapsed
from analysis.measures.layout import heading, network_name, plural, span
from analysis.measures.means import student, welch
from analysis.measures.robustness import COLUMNS as ROBUSTNESS
from analysis.measures.robustness import alike, evaluation_of, of_trials
from analysis.measures.verdicts import Comparison
from analysis.results import Results

COLUMNS = {
    "tracks": ["trial", "epoch", "stage", "lss", "lss_initial"],
    "samples": ["trial", "stage", "split", "point", "label", "prediction"],
    "robustness": ROBUSTNESS,
}
STRAIGHT = 1.25  # Tracks with an LSS up to this count as nearly straight (the paper's: 1.12).
OPTIMAL = 0.9  # A map with an OTS from this counts as nearly optimal (the paper's: 0.96).
STRATUM = ["dataset", "layers", "stages", "depth", "network", "points", "setting"]
OF_TRACKS = ("lss", "relative lss", "energy", "curve_")  # how the names of scores of tracks begin


class Evidence(NamedTuple):
    """The trials of a sweep on which claims are checked, and the stages of each."""

    trials: pd.DataFrame
    """From robustness.of_trials. ``depth`` is null if it does not vary. ``setting`` has the other
    columns that vary, as text. ``collapsed`` is a boolean."""
    tracks: pd.DataFrame
    """LSS of each stage after training."""
    points: pd.DataFrame
    """Whether each point is ``correct``, by ``trial``; may have no rows."""

    def strata(self, *without: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """Yield each combination of the columns of STRATUM, except some, with its trials."""
        names = [name for name in STRATUM if name not in without]
        for key, trials in self.trials.groupby(names, dropna=False):
            yield dict(zip(names, key, strict=True)), trials

    def at_gammas(
        self, score: str = "", *without: str
    ) -> Iterator[tuple[dict[str, Any], str, pd.DataFrame]]:
        """Yield each stratum at each gamma: its key with ``gamma``, its place, and its trials.

        With a score, these are the trials that have it, in :func:`in_parts`.
        """
        for key, trials in self.strata(*without):
            for gamma, own in trials.groupby("gamma"):
                for here in in_parts(own, score) if score else [own]:
                    where = place(key, f"γ = {gamma:g}", *sizes(here, score))
                    yield key | {"gamma": gamma}, where, here


Check = Callable[[Evidence], Iterator[Comparison]]


def evidence(results: Results, trials: pd.DataFrame | None = None) -> Evidence:
    """Collect what claims are checked on.

    Args:
        results: from :func:`analysis.results.load`; only trials that are done are used.
        trials: from :func:`analysis.measures.robustness.of_trials`, if it is already computed.
    """
    trials = without_collapsed(of_trials(results) if trials is None else trials)
    others = varying(results.trials)
    if "depth" not in others:
        trials = trials.assign(depth=np.nan)
    others = [name for name in others if name not in STRATUM]
    tracks = as_strings(results.tracks[COLUMNS["tracks"]])
    last = tracks[tracks.epoch == tracks.groupby("trial").epoch.transform("max")]
    points = results.samples.loc[results.samples.stage == 1, COLUMNS["samples"]]
    points = as_strings(points[points.label.notna() & points.prediction.notna()])
    points = points[points.split == "test"]
    points = points.assign(correct=points.prediction == points.label)
    collapsed, setting = trials.collapsed.eq(True), other_settings(trials, others)
    return Evidence(trials.assign(collapsed=collapsed, setting=setting), last, points)


def in_parts(trials: pd.DataFrame, score: str) -> list[pd.DataFrame]:
    """The trials with a finite score, in parts with equal settings and m of its evaluation."""
    known = trials[np.isfinite(trials[score].astype("float64"))]
    return [part for _, part in known.groupby(alike(known, score))]


def sizes(trials: pd.DataFrame, score: str) -> list[str]:
    """The number of points behind a score of an evaluation, which has its own; else nothing."""
    name = evaluation_of(score)
    return [f"m = {span(trials[f'{name}_m'])}"] if name else []


def compare(
    where: str,
    names: tuple[str, str],
    score: str,
    a: pd.DataFrame,
    b: pd.DataFrame,
    sign: int,
    least: float = 0,
) -> Iterator[Comparison]:
    """Compare two sides of a claim over the seeds of each, by Welch's test.

    Args:
        where: what both sides have in common.
        names: of the two sides.
        score: the column to compare.
        a: trials of one side. Those without a finite score are left out, and so are collapsed ones
            if the score is one of tracks: where all points begin or end at one point, straight
            tracks are no merit. Several trials of a seed are averaged first.
        b: trials of the other side.
        sign: +1 if the claim is that b is larger than a, -1 if smaller.
        least: the difference must be larger than this; if it is negative, b may be that much worse.

    Yields:
        The comparison. A note in its place if one side has only collapsed trials; nothing if it
        has no trials with the score.
    """
    x, y, lost = _sides(score, a, b)
    if len(x) and len(y):
        change, half, p = welch(x, y, sign * least)
        told = f"{_both(score, names, x, y)} ({_difference(change, half)}, {_seeds(x, y)})"
        yield Comparison(where, told, sign * change > least, p, left_out=lost)
    else:
        yield from _collapsed(where, names, score, lost)


def equal(
    where: str,
    names: tuple[str, str],
    score: str,
    a: pd.DataFrame,
    b: pd.DataFrame,
    margin: float,
) -> Iterator[Comparison]:
    """Check that two sides differ by less than a margin over seeds.

    It is sure if the whole 95% interval of the difference lies within the margins: two one-sided
    tests (Schuirmann 1987, J. Pharmacokin. Biopharm. 15, 657), each at 0.025.
    """
    x, y, lost = _sides(score, a, b)
    if len(x) and len(y):
        change, half, _ = welch(x, y)
        p = float(np.max([welch(x, y, edge)[2] for edge in (-margin, margin)]))
        how = f"{_difference(change, half)}, margin {margin:g}, {_seeds(x, y)}"
        told = f"{_both(score, names, x, y)} ({how})"
        yield Comparison(where, told, abs(change) < margin, p, left_out=lost)
    else:
        yield from _collapsed(where, names, score, lost)


def paired(
    where: str, names: tuple[str, str], scores: tuple[str, str], trials: pd.DataFrame, sign: int
) -> Iterator[Comparison]:
    """Compare two numbers of the same trials, by Student's test of their difference over seeds.

    Args:
        where: what both sides have in common.
        names: of the two sides.
        scores: the columns of the two sides.
        trials: as in :func:`compare`; they need both numbers.
        sign: +1 if the claim is that the second number is larger, -1 if smaller.
    """
    known, lost = _kept(trials, *scores)
    x, y = _by_seed(known, *scores)
    if len(x):
        change, half, p = student(y - x, scale=max(abs(x).max(), abs(y).max()))
        told = f"{_both(scores[0], names, x, y)} ({_difference(change, half)}, {_seeds(x)})"
        yield Comparison(where, told, sign * change > 0, p, left_out=lost)
    else:
        yield from _collapsed(where, names, scores[0], lost)


def reaches(
    where: str, score: str, trials: pd.DataFrame, limit: float, sign: int
) -> Iterator[Comparison]:
    """Compare a mean over seeds with a limit: it should be above (+1) or below (-1)."""
    known, lost = _kept(trials, score)
    (x,) = _by_seed(known, score)
    if len(x):
        mean, half, p = student(x, limit)
        told = f"{_number(score, mean)}{_around(half)} (limit {limit:g}), {_seeds(x)}"
        yield Comparison(where, told, sign * (mean - limit) > 0, p, left_out=lost)
    else:
        yield from _collapsed(where, (), score, lost)


def falls(where: str, trials: pd.DataFrame, x: str, y: str) -> Iterator[Comparison]:
    """Check whether y falls as x rises over gammas, by their rank correlation within seeds.

    The p value permutes gammas within each seed. It is NaN with one seed: gammas of one seed are
    no replicates.
    """
    known, lost = _kept(trials, x, y)
    found = _ranks(known, x, y)
    value, seeds = found["value"], known.seed.nunique()
    if np.isnan(value):
        if lost and np.isfinite(_ranks(trials, x, y)["value"]):
            yield from _collapsed(where, (), x, lost, "; the others have no correlation")
        return
    p = found["p"] if seeds > 1 else np.nan
    told = f"Spearman ρ {value:+.2f} over γ (n = {found['n']}, {plural(seeds, 'seed')}"
    told += f", p = {p:.2g})" if np.isfinite(p) else ")"
    yield Comparison(where, told, value < 0, p, left_out=lost)


def _ranks(trials: pd.DataFrame, x: str, y: str) -> dict[str, float]:
    """The rank correlation of two columns within seeds."""
    numbers = [trials[name].to_numpy("float64") for name in (x, y)]
    return association(*numbers, strata=trials.seed.to_numpy(), interval=False)


def halves(trials: pd.DataFrame, points: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two halves of the evidence on test accuracy: one to choose a gamma, one to judge the choice.

    What is best in some numbers looks better in them than it is, so others have to judge it.

    Args:
        trials: of one network.
        points: from :class:`Evidence`.

    Returns:
        The trials of every second seed, and those of the other seeds (the larger half). With one
        seed, the trials twice, with the test accuracy on each half of the points of which we know
        whether they are correct. If we do not know, the trials as they are, twice.
    """
    seeds = sorted(trials.seed.unique())
    if len(seeds) > 1:
        return trials[trials.seed.isin(seeds[1::2])], trials[trials.seed.isin(seeds[::2])]
    own = points[points.trial.isin(trials.trial)]
    parts = [own[own.point % 2 == rest].groupby("trial").correct.mean() for rest in (1, 0)]
    if any(len(part) < len(trials) for part in parts):
        return trials, trials
    first, second = (trials.assign(test_accuracy=trials.trial.map(part)) for part in parts)
    return first, second


def _kept(trials: pd.DataFrame, *scores: str) -> tuple[pd.DataFrame, frozenset[str]]:
    """The trials with finite scores that count, and the collapsed ones that do not."""
    numbers = trials[[*scores]].astype("float64").replace([np.inf, -np.inf], np.nan)
    known = trials.loc[numbers.notna().all(axis=1)]
    if not any(s.startswith(OF_TRACKS) and not s.endswith("_initial") for s in scores):
        return known, frozenset()
    lost = known.collapsed.astype("bool")
    return known.loc[~lost], frozenset(known.trial[lost])


def _by_seed(trials: pd.DataFrame, *scores: str) -> np.ndarray:
    """Means over the trials of each seed, (scores, seeds): trials of one seed are no replicates."""
    return trials.groupby("seed")[[*scores]].mean().to_numpy("float64").T


def _sides(
    score: str, a: pd.DataFrame, b: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, frozenset[str]]:
    """The values of both sides by seed, and the collapsed trials left out of their comparison."""
    (a, lost), (b, others) = _kept(a, score), _kept(b, score)
    (x,), (y,) = _by_seed(a, score), _by_seed(b, score)
    both = (len(x) or lost) and (len(y) or others)
    return x, y, lost | others if both else frozenset()


def _collapsed(
    where: str, names: tuple[str, ...], score: str, lost: frozenset[str], more: str = ""
) -> Iterator[Comparison]:
    """Yield a note that there is no comparison, if that is for want of trials that count."""
    if lost:
        sides = f" ({', '.join(names)})" if names else ""
        name = heading(score.removesuffix("_initial"))
        told = f"{name}{sides} not compared: {plural(len(lost), 'trial')} collapsed{more}"
        yield Comparison(where, told, False, np.nan, False, lost)


def _both(score: str, names: tuple[str, str], x: np.ndarray, y: np.ndarray) -> str:
    """The means of both sides in words."""
    return f"{_number(score, x.mean())} {names[0]}, {y.mean():.3g} {names[1]}"


def _difference(change: float, half: float) -> str:
    """A difference of means with the half-width of its 95% interval, if it has one."""
    return f"difference {change:+.2g}{_around(half)}"


def _around(half: float) -> str:
    return f" ± {half:.2g}" if np.isfinite(half) else ""


def _seeds(x: np.ndarray, *other: np.ndarray) -> str:
    """How many seeds each side has: ``5 seeds``, ``5 and 4 seeds``."""
    counts = list(dict.fromkeys(len(side) for side in (x, *other)))
    if len(counts) == 1:
        return plural(counts[0], "seed")
    return f"{' and '.join(map(str, counts))} seeds"


def _number(score: str, mean: float) -> str:
    return f"{heading(score.removesuffix('_initial'))} {mean:.3g}"


def place(key: Mapping[str, Any], *extra: str, m: bool = False) -> str:
    """A stratum in words: ``cifar10, K = 4, ResNet``.

    Args:
        key: from :meth:`Evidence.strata`.
        extra: parts to add.
        m: whether to say the number of points, which an OTS depends on.
    """
    parts = [str(key["dataset"])]
    if "stages" in key:
        parts.append(f"K = {key['stages']}")
    if pd.notna(key.get("depth")):
        parts.append(f"{key['depth']:g} blocks")
    if "network" in key:
        parts.append(network_name(key["network"]))
    if m:
        parts.append(f"m = {key['points']:,}")
    if key["setting"]:
        parts.append(key["setting"])
    return ", ".join([*parts, *extra])
