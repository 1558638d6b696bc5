"""Comparisons of two sides of a claim over seeds, and the evidence of a sweep to compare.

:mod:`analysis.measures.checks` uses them for the paper's claims.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.measures.association import association
from analysis.measures.cells import (
    as_strings,
    difference,
    other_settings,
    varying,
    without_collapsed,
)
from analysis.measures.layout import heading, network_name
from analysis.measures.robustness import COLUMNS as ROBUSTNESS
from analysis.measures.robustness import of_trials
from analysis.results import Results

COLUMNS = {
    "tracks": ["trial", "epoch", "stage", "lss", "lss_initial"],
    "robustness": ROBUSTNESS,
}
STRAIGHT = 1.25  # Tracks with an LSS up to this count as nearly straight (the paper's: 1.12).
OPTIMAL = 0.9  # A map with an OTS from this counts as nearly optimal (the paper's: 0.96).
STRATUM = ["dataset", "layers", "stages", "network", "points", "setting"]


class Comparison(NamedTuple):
    """A comparison of the two sides of a claim, in one place of a sweep."""

    where: str
    numbers: str  # of both sides
    agrees: bool  # the means differ in the claimed direction
    sure: bool  # and the 95% interval of their difference excludes 0
    against: bool  # they differ in the other direction, and the interval excludes 0


class Evidence(NamedTuple):
    """The trials of a sweep on which claims are checked, and the stages of each."""

    trials: pd.DataFrame  # from robustness.of_trials; ``setting``: other varying columns, as text
    tracks: pd.DataFrame  # LSS of each stage after training

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
    others = [name for name in varying(results.trials) if name != "layers"]
    tracks = as_strings(results.tracks[COLUMNS["tracks"]])
    last = tracks[tracks.epoch == tracks.groupby("trial").epoch.transform("max")]
    return Evidence(trials.assign(setting=other_settings(trials, others)), last)


def compare(
    where: str, names: tuple[str, str], a: pd.Series, b: pd.Series, sign: int, least: float = 0
) -> Iterator[Comparison]:
    """Compare two sides of a claim over the seeds of each.

    Args:
        where: what both sides have in common.
        names: of the two sides.
        a: values of one side, one per seed; values that are not finite are left out.
        b: values of the other side.
        sign: +1 if the claim is that b is larger than a, -1 if smaller.
        least: the difference must be larger than this.

    Yields:
        The comparison; nothing if a side has no finite value.
    """
    x, y = (side[np.isfinite(side)].to_numpy("float64") for side in (a, b))
    if len(x) and len(y):
        told = f"{_number(a, x.mean())} {names[0]}, {y.mean():.3g} {names[1]}"
        yield _compared(where, told, *difference(x, y), sign, least)


def reaches(where: str, values: pd.Series, limit: float, sign: int) -> Iterator[Comparison]:
    """Compare a mean over seeds with a limit: it should be above (+1) or below (-1)."""
    x = values[np.isfinite(values)].to_numpy("float64")
    if len(x):
        half = np.nan if len(x) < 2 else stats.sem(x) * stats.t.ppf(0.975, len(x) - 1)
        above = float(x.mean() - limit)
        told = f"{_number(values, x.mean())} (limit {limit:g})"
        yield _compared(where, told, above, above - half, above + half, sign, 0)


def falls(where: str, trials: pd.DataFrame, x: str, y: str) -> Iterator[Comparison]:
    """Check whether y falls as x rises, by the rank correlation of their means over gammas."""
    cells = trials.groupby("gamma")[[x, y]].mean()
    found = association(cells[x].to_numpy(), cells[y].to_numpy(), method="spearman")
    value, p = found["value"], found["p"]
    if np.isnan(value):
        return
    told = f"Spearman ρ {value:+.2f} (n = {found['n']}"
    told += f", p = {p:.2g})" if np.isfinite(p) else ")"
    sure = bool(p < 0.05)
    yield Comparison(where, told, value < 0, sure and value < 0, sure and value > 0)


def _compared(
    where: str, told: str, value: float, low: float, high: float, sign: int, least: float
) -> Comparison:
    low, high = sorted((sign * low, sign * high))
    return Comparison(where, told, sign * value > least, low > least, high < least)


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
    if "network" in key:
        parts.append(network_name(key["network"]))
    if m:
        parts.append(f"m = {key['points']:,}")
    if key["setting"]:
        parts.append(key["setting"])
    return ", ".join([*parts, *extra])
