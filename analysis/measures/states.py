"""What happens to the states along a network: scores without their scale, classes, dimensions."""

import math

import pandas as pd

from analysis.measures.cells import as_strings, cell_columns, done, mean_interval
from analysis.measures.layout import first_word, network_name, plural, sample
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
        Frame with the cell (as in :func:`analysis.measures.summary.summary`), ``seeds`` (those
        with a trial that is done and has these scores) and, for each score, the mean over them, the
        half-width of its 95% interval over seeds (``_ci95``) and the mean before training
        (``_initial``). Fuzziness, its slope and fit, nc1 and effective rank are of the first
        min(m, epoch_points) points. No rows where no trial has these scores.
    """
    cell = cell_columns(results)
    trials = as_strings(done(results))
    trials = trials[trials.lss_scaled.notna()]
    columns = [*SCORES, *(f"{name}_initial" for name in SCORES)]
    seeds = trials.groupby(cell, dropna=False).seed.nunique().rename("seeds")
    table = mean_interval(trials, cell, columns).join(seeds)
    order = [*cell, "seeds"]
    for name in SCORES:
        order += [name, f"{name}_ci95", f"{name}_initial"]
    return table.reset_index()[order].rename(columns={"points": "m"})


def sentences(table: pd.DataFrame) -> list[str]:
    """For each network, what the table says: about scale, and about classes if they are known.

    Args:
        table: from :func:`states`.
    """
    said = []
    for network, rows in table.groupby("network", observed=True):
        name = first_word(network_name(network))
        mean = rows.mean(numeric_only=True)
        said.append(
            f"{name}: LSS is {mean.lss:.2f}, and {mean.lss_scaled:.2f} on states of equal size; "
            f"before training {_number(mean.lss_initial, '.2f')} and "
            f"{_number(mean.lss_scaled_initial, '.2f')}. The energy of all blocks is "
            f"{mean.energy:,.0f} (before training {_number(mean.energy_initial, ',.0f')}), "
            f"relative to the spread of the states {mean.relative_energy:.3g} "
            f"({_number(mean.relative_energy_initial, '.3g')}). Means over "
            f"{plural(len(rows), 'cell')}, {sample(rows)}."
        )
        said += _classes(name, rows.dropna(subset=["fuzziness_slope", "fuzziness_fit"]))
    return said


def _classes(name: str, rows: pd.DataFrame) -> list[str]:
    """How the classes of a network come apart, in cells where that is known."""
    if not len(rows):
        return []
    mean = rows.fuzziness_slope.mean()
    told = f"{name}: each block multiplies the fuzziness of the classes by {math.exp(mean):.2f} "
    obey = f"The law of separation (equal factors, R² ≥ {LAW:g}) holds in {_obey(rows, '')}"
    both = rows.dropna(subset=["fuzziness_slope_initial", "fuzziness_fit_initial"])
    if not len(both):
        unknown = "on average; its value before training is unknown."
        return [f"{told}{unknown} {obey} of {plural(len(rows), 'cell')}."]
    falls = int((both.fuzziness_slope < both.fuzziness_slope_initial).sum())
    before = math.exp(both.fuzziness_slope_initial.mean())
    return [
        f"{told}on average, before training by {before:.2f}; "
        f"training improved this in {falls} of {plural(len(both), 'cell')}. {obey} of "
        f"{len(rows)}, before training in {_obey(both, '_initial')} of {len(both)}."
    ]


def _obey(cells: pd.DataFrame, when: str) -> int:
    falls = cells[f"fuzziness_slope{when}"] < 0
    return int((falls & (cells[f"fuzziness_fit{when}"] >= LAW)).sum())


def _number(value: float, form: str) -> str:
    """A number as a text; "unknown" where a network before training was not measured."""
    return format(value, form) if math.isfinite(value) else "unknown"
