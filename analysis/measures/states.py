"""What happens to the states along a network: scores without their scale, classes, dimensions."""

import math

import pandas as pd

from analysis.measures.cells import CELL, as_strings, done, mean_interval, varying
from analysis.measures.layout import network_name, plural
from analysis.results import Results

SCORES = [
    "lss",
    "lss_scaled",
    "lss_without_drift",
    "energy",
    "relative_energy",
    "curvature",
    "spacing",
    "fuzziness_slope",
    "fuzziness_fit",
    "nc1",
    "effective_rank",
]
LAW = 0.9  # Blocks obey the law of separation if log D is a line with at least this R^2.


def states(results: Results) -> pd.DataFrame:
    """One row per cell with scores that ignore scale, and with the spread of its states.

    Args:
        results: from :func:`analysis.results.load`.

    Returns:
        Frame with the cell (as in :func:`analysis.measures.summary.summary`) and, for each score,
        the mean over trials that are done, the half-width of its 95% interval over seeds
        (``_ci95``) and the mean before training (``_initial``). No rows where no trial has these
        scores.
    """
    cell = [*CELL, *varying(results.trials), "points"]
    trials = as_strings(done(results))
    trials = trials[trials.lss_scaled.notna()]
    columns = [*SCORES, *(f"{name}_initial" for name in SCORES)]
    table = mean_interval(trials, cell, columns)
    order = [*cell]
    for name in SCORES:
        order += [name, f"{name}_ci95", f"{name}_initial"]
    return table.reset_index()[order].rename(columns={"points": "m"})


def sentences(table: pd.DataFrame) -> list[str]:
    """For each network, what the table says: one sentence about scale, one about classes.

    Args:
        table: from :func:`states`.
    """
    said = []
    for network, rows in table.groupby("network", observed=True):
        name = network_name(network)
        mean = rows.mean(numeric_only=True)
        said.append(
            f"{name[0].upper() + name[1:]}: LSS is {mean.lss:.2f}, and {mean.lss_scaled:.2f} on "
            f"states of equal size; before training {mean.lss_initial:.2f} and "
            f"{mean.lss_scaled_initial:.2f}. The energy of all blocks is {mean.energy:,.0f} "
            f"(before training {mean.energy_initial:,.0f}), relative to the spread of the states "
            f"{mean.relative_energy:.3g} ({mean.relative_energy_initial:.3g})."
        )
        falls = int((rows.fuzziness_slope < rows.fuzziness_slope_initial).sum())
        obey = int(((rows.fuzziness_slope < 0) & (rows.fuzziness_fit >= LAW)).sum())
        count = plural(len(rows), "cell")
        said.append(
            f"{name[0].upper() + name[1:]}: each block multiplies the fuzziness of the classes by "
            f"{_factor(mean.fuzziness_slope)} on average, before training by "
            f"{_factor(mean.fuzziness_slope_initial)}; training improved this in {falls} of "
            f"{count}. The law of separation (equal factors, R² ≥ {LAW:g}) holds in {obey}."
        )
    return said


def _factor(slope: float) -> str:
    return f"{math.exp(slope):.2f}"
