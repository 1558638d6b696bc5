"""Comparisons of two sides of a claim over seeds, and the evidence of a sweep to compare.

:mod:`analysis.measures.checks` uses them for the paper's claims.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.measures.association import association
from analysis.measures.cells import as_strings, other_settings, varying, without_collapsed
from analysis.measures.layout import heading, network_name, plural
from analysis.measures.means import student, welch
from analysis.measures.robustness import COLUMNS as ROBUSTNESS
from analysis.measures.robustness import of_trials
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


class Evidence(NamedTuple):
    """The trials of a sweep on which claims are checked, and the stages of each."""

    trials: pd.DataFrame
    """From robustness.of_trials. ``depth`` is null if it does not vary. ``setting`` has the other
    columns that vary, as text."""
    tracks: pd.DataFrame
    """LSS of each stage after training."""
    points: pd.DataFrame
    """Whether each point is ``correct``, by ``trial``; may have no rows."""

    def strata(self, *without: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """Yield each combination of the columns of STRATUM, except some, with its trials."""
        names = [name for name in STRATUM if name not in without]
        for key, trials in self.trials.groupby(names, dropna=False):
            yield dict(zip(names, key, strict=True)), trials


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
    return Evidence(trials.assign(setting=other_settings(trials, others)), last, points)


def compare(
    where: str, names: tuple[str, str], a: pd.Series, b: pd.Series, sign: int, least: float = 0
) -> Iterator[Comparison]:
    """Compare two sides of a claim over the seeds of each, by Welch's test.

    Args:
        where: what both sides have in common.
        names: of the two sides.
        a: values of one side, one per seed; values that are not finite are left out.
        b: values of the other side.
        sign: +1 if the claim is that b is larger than a, -1 if smaller.
        least: the difference must be larger than this; if it is negative, b may be that much worse.

    Yields:
        The comparison; nothing if a side has no finite value.
    """
    for told, x, y in _sides(names, a, b):
        change, half, p = welch(x, y, sign * least)
        told += f" ({_difference(change, half)}, {_seeds(x, y)})"
        yield Comparison(where, told, sign * change > least, p)


def equal(
    where: str, names: tuple[str, str], a: pd.Series, b: pd.Series, margin: float
) -> Iterator[Comparison]:
    """Check that two sides differ by less than a margin over seeds.

    It is sure if the whole 95% interval of the difference lies within the margins: two one-sided
    tests (Schuirmann 1987, J. Pharmacokin. Biopharm. 15, 657), each at 0.025.
    """
    for told, x, y in _sides(names, a, b):
        change, half, _ = welch(x, y)
        p = float(np.max([welch(x, y, edge)[2] for edge in (-margin, margin)]))
        told += f" ({_difference(change, half)}, margin {margin:g}, {_seeds(x, y)})"
        yield Comparison(where, told, abs(change) < margin, p)


def paired(
    where: str, names: tuple[str, str], a: pd.Series, b: pd.Series, sign: int
) -> Iterator[Comparison]:
    """Compare two numbers of the same trials, by Student's test of their difference over seeds.

    Args:
        where: what both sides have in common.
        names: of the two sides.
        a: a number of each trial; pairs that are not finite are left out.
        b: another number of the same trials, in the same order.
        sign: +1 if the claim is that b is larger than a, -1 if smaller.
    """
    both = np.isfinite(a.to_numpy("float64")) & np.isfinite(b.to_numpy("float64"))
    for told, x, y in _sides(names, a[both], b[both]):
        change, half, p = student(y - x, scale=max(abs(x).max(), abs(y).max()))
        told += f" ({_difference(change, half)}, {_seeds(x)})"
        yield Comparison(where, told, sign * change > 0, p)


def reaches(where: str, values: pd.Series, limit: float, sign: int) -> Iterator[Comparison]:
    """Compare a mean over seeds with a limit: it should be above (+1) or below (-1)."""
    x = values[np.isfinite(values)].to_numpy("float64")
    if len(x):
        mean, half, p = student(x, limit)
        told = f"{_number(values, mean)}{_around(half)} (limit {limit:g}), {_seeds(x)}"
        yield Comparison(where, told, sign * (mean - limit) > 0, p)


def falls(where: str, trials: pd.DataFrame, x: str, y: str) -> Iterator[Comparison]:
    """Check whether y falls as x rises over gammas, by their rank correlation within seeds.

    The p value permutes gammas within each seed. It is NaN with one seed: gammas of one seed are
    no replicates.
    """
    numbers = [trials[name].to_numpy("float64") for name in (x, y)]
    found = association(*numbers, strata=trials.seed.to_numpy(), interval=False)
    value, seeds = found["value"], trials[np.isfinite(numbers).all(axis=0)].seed.nunique()
    if np.isnan(value):
        return
    p = found["p"] if seeds > 1 else np.nan
    told = f"Spearman ρ {value:+.2f} over γ (n = {found['n']}, {plural(seeds, 'seed')}"
    told += f", p = {p:.2g})" if np.isfinite(p) else ")"
    yield Comparison(where, told, value < 0, p)


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


def _sides(
    names: tuple[str, str], a: pd.Series, b: pd.Series
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the means of both sides in words, and their finite values, if both have any."""
    x, y = (side[np.isfinite(side)].to_numpy("float64") for side in (a, b))
    if len(x) and len(y):
        yield f"{_number(a, x.mean())} {names[0]}, {y.mean():.3g} {names[1]}", x, y


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


def _number(values: pd.Series, mean: float) -> str:
    return f"{heading(str(values.name).removesuffix('_initial'))} {mean:.3g}"


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
