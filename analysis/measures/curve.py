"""The curve of measures in Wasserstein space: by cell as a table, by block, and in a sentence.

:mod:`scoring.curve` defines the numbers. Command: ``python -m analysis.tables DIR --table curve``.
"""

import numpy as np
import pandas as pd

from analysis.measures.cells import cell_columns, done, mean_interval
from analysis.measures.layout import first_word, network_name, plural, span
from analysis.measures.means import over_seeds
from analysis.measures.robustness import comparable, several
from analysis.results import Results

COLUMNS = ["trial", "evaluation", "stage", "block", "m", "speed"]  # of the robustness table
TRAINED, INITIAL = "curve", "curve_initial"  # its rows
SCORES = {  # columns of the trials table -> the ends of those with their baselines
    "curve_length_ratio": ["_initial"],
    "curve_speed_variation": ["_initial"],
    "curve_block_factor": ["_initial", "_shuffled"],
    "curve_block_ots": ["_initial", "_shuffled"],
    "curve_polar_share": ["_initial"],
}


def by_cell(results: Results) -> pd.DataFrame:
    """One row per cell of the sweep in which the curve of any trial was measured.

    Args:
        results: from :func:`analysis.results.load`; ``trials`` is enough.

    Returns:
        Frame with the cell (see :func:`analysis.measures.summary.summary`, without m), ``seeds``
        (those with a trial that is done and has a curve) and ``m``, the smallest of the cell. Then
        the mean over seeds of each of SCORES with the half-width of its 95% t-interval (``_ci95``),
        followed by its baselines, and ``warning``: not null in cells with several settings or
        several m of the curve, whose numbers have no mean. No rows if nothing was measured.
    """
    trials = done(results)
    trials = trials[trials.curve_m.notna()]
    cell = cell_columns(results, points=False)
    baselines = [f"{score}{end}" for score, ends in SCORES.items() for end in ends]
    numbers = [*SCORES, *baselines]
    trials = trials.astype(dict.fromkeys(numbers, "float64")).copy()  # as in robustness.of_trials
    trials = comparable(trials, cell, numbers)
    group = trials.groupby(cell, dropna=False)
    counts = group[["curve_m"]].min().assign(seeds=group.seed.nunique())
    counts["warning"] = group.warning.first()  # the same in all trials of a cell
    table = counts.join(mean_interval(trials, cell, numbers)).reset_index()
    columns = [*cell, "seeds", "curve_m"]
    for score, ends in SCORES.items():
        columns += [score, f"{score}_ci95", *(f"{score}{end}" for end in ends)]
    return table[[*columns, "warning"]].rename(columns={"curve_m": "m"})


def by_block(results: Results) -> pd.DataFrame:
    """Speeds of the blocks of all trials that are done, in units of the geodesic's constant speed.

    Returns:
        Frame with ``trial``, ``evaluation`` (TRAINED or INITIAL), ``stage``, ``block``, ``m`` and
        ``speed``: n W2(mu_(l-1), mu_l) / W2(mu_0, mu_n), which is 1 in every block of a geodesic
        at constant speed. Its mean over the blocks is the length ratio.
    """
    rows = results.robustness[COLUMNS].astype({"trial": "str", "evaluation": "str"})
    rows = rows[rows.evaluation.isin([TRAINED, INITIAL]) & rows.trial.isin(done(results).trial)]
    place = ["trial", "evaluation", "stage"]
    blocks, whole = rows[rows.block.notna()], rows[rows.block.isna()]
    ends = whole[[*place, "speed"]].rename(columns={"speed": "distance"})
    blocks = blocks.merge(ends, on=place)
    n = blocks.groupby(place).block.transform("max")
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = (n * blocks.speed / blocks.distance).replace(np.inf, np.nan)
    return blocks.assign(speed=speed).drop(columns="distance")


def sentences(results: Results) -> list[str]:
    """What the curve of measures says: a sentence for each network; empty if it is not measured.

    Trials with different settings or m of the curve have no mean; the sentence says so.

    Args:
        results: from :func:`analysis.results.load`; ``trials`` is enough.
    """
    trials, cell = done(results), cell_columns(results)
    said = []
    for network, rows in trials[trials.curve_m.notna()].groupby("network"):
        known = rows.replace([np.inf, -np.inf], np.nan).dropna(
            subset=["curve_length_ratio", "curve_length_ratio_initial"]
        )
        if not len(known):
            continue
        seeds = plural(known.seed.nunique(), "seed")
        name, speed = first_word(network_name(network)), "curve_speed_variation"
        if several(known, speed):
            said.append(
                f"{name}: the curve of measures has no mean over trials: it was measured with "
                "several settings or m."
            )
            continue
        told = (
            f"{name}: the curve of measures is {_ratio(known, cell)} times as long "
            f"as the geodesic (before training {_ratio(known, cell, '_initial')}), and its speed "
            f"varies by {_mean(known, cell, speed, '.0%')} over blocks (before training "
            f"{_mean(known, cell, f'{speed}_initial', '.0%')}; the geodesic has 0%)"
        )
        ots = [f"curve_block_ots{end}" for end in ("", "_initial", "_shuffled")]
        if np.isfinite(known[ots].astype("float64").mean()).all():
            after, before, shuffled = (_mean(known, cell, column, ".3f") for column in ots)
            told += (
                f". Single blocks have OTS {after}; before training {before}, of shuffled "
                f"displacements {shuffled}"
            )
        said.append(f"{told} ({plural(len(known), 'trial')}, {seeds}, m = {span(known.curve_m)}).")
    return said


def _mean(trials: pd.DataFrame, cell: list[str], column: str, form: str) -> str:
    """The mean over trials of a column as a text, with its interval over seeds if it has one."""
    mean, half = over_seeds(trials.dropna(subset=column), column, cell)
    return f"{mean:{form}}" + (f" ± {half:{form}}" if np.isfinite(half) else "")


def _ratio(trials: pd.DataFrame, cell: list[str], end: str = "") -> str:
    """The geometric mean of the length ratio as a text, with the ends of its interval."""
    logarithm = np.log(trials[f"curve_length_ratio{end}"].astype("float64"))
    mean, half = over_seeds(trials.assign(logarithm=logarithm), "logarithm", cell)
    ends = f" ({np.exp(mean - half):.2f} to {np.exp(mean + half):.2f})"
    return f"{np.exp(mean):.2f}{ends if np.isfinite(half) else ''}"
