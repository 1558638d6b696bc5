"""Two sweeps side by side: the cells that both have, and whether they differ.

Used by ``geosweep report DIR --compare DIR2``, for instance to compare with another seed, another
version or another machine.
"""

from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.cells import CELL, done, without_collapsed
from analysis.measures.layout import heading, plural
from analysis.measures.means import welch
from analysis.results import EARLIER, Results, whole_depth
from scoring.schemas import CONFIG

SCORES = ("test_accuracy", "lss", "ots")


def compare(results: Results, other: Results) -> pd.DataFrame:
    """Compare the cells that two sweeps share. A cell is a configuration without its seed.

    Args:
        results: from :func:`analysis.results.load`; only trials that are done are used.
        other: likewise, of the sweep to compare with.

    Returns:
        One row per cell and score: the cell's configuration (with m, because an OTS depends on m),
        ``score``, ``here`` and ``there`` (means over seeds), ``seeds`` and ``seeds_there``,
        ``difference`` (here minus there) with Welch's 95% interval ``low`` to ``high``, NaN if a
        side has one seed or if nothing varies between seeds. No rows if they share no cell.
    """
    cell = list(dict.fromkeys([*CELL, *(field.name for field in CONFIG)]))
    here, there = (_by_cell(side, cell) for side in (results, other))
    rows: list[dict[str, Any]] = []
    for key in here.keys() & there.keys():
        for score in SCORES:
            x, y = (side[key][score].to_numpy("float64") for side in (there, here))
            x, y = x[np.isfinite(x)], y[np.isfinite(y)]
            if not len(x) or not len(y):
                continue
            value, half, _ = welch(x, y)
            row = dict(zip(cell, key, strict=True)) | {"score": score}
            row |= {"here": y.mean(), "there": x.mean(), "seeds": len(y), "seeds_there": len(x)}
            ends = {"low": value - half, "high": value + half}
            rows.append(row | {"difference": value} | ends)
    numbers = ["score", "here", "there", "seeds", "seeds_there", "difference", "low", "high"]
    table = pd.DataFrame(rows, columns=[*cell, *numbers]).rename(columns={"points": "m"})
    order = ["dataset", "stages", "layers", "network", "gamma", "score"]
    return table.sort_values(order, ignore_index=True)


def _by_cell(results: Results, cell: list[str]) -> dict[tuple, pd.DataFrame]:
    """The trials of each cell. Unset fields are empty strings, so that they match each other.

    An unset depth matches that of Table 1, which it stands for. Fields that an earlier version did
    not have match what was usual then.
    """
    trials = without_collapsed(done(results))
    trials = trials.assign(depth=whole_depth(trials))
    usual = {name: EARLIER.get(name, "") for name in cell}
    filled = trials.assign(**{n: trials[n].astype("object").fillna(v) for n, v in usual.items()})
    return dict(iter(filled.groupby(cell)))  # type: ignore[arg-type]


def sentence(table: pd.DataFrame, name: str) -> str:
    """The comparison in words, with its counts.

    Args:
        table: from :func:`compare`.
        name: of the other sweep.
    """
    if not len(table):
        return (
            f"{name} shares no finished cell with this sweep, so there is nothing to compare. "
            "Cells are compared if their whole configuration is equal except for the seed."
        )
    parts = []
    for score, rows in table.groupby("score", sort=False):
        known = rows.low.notna()
        apart = known & ((rows.low > 0) | (rows.high < 0))
        told = f"{heading(str(score))} differs by {rows.difference.abs().median():.2g} (median)"
        if known.any():
            told += f", beyond its 95% interval in {apart.sum()} of {known.sum()}"
        parts.append(told)
    cells = plural(int(table.groupby("score", sort=False).size().max()), "cell")
    said = f"Compared with {name}, {cells} in both: {'; '.join(parts)}."
    if table.low.notna().any():
        return said
    return f"{said} There are no intervals: no cell has several seeds in both that differ."
