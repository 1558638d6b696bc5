"""Two sweeps side by side: the cells that both have, and whether they differ.

Used by ``geosweep report DIR --compare DIR2``: another seed, another version, another machine.
"""

from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.cells import CELL, difference, done, without_collapsed
from analysis.results import Results
from scoring.schemas import CONFIG

SCORES = ("test_accuracy", "lss", "ots")


def compare(results: Results, other: Results) -> pd.DataFrame:
    """The cells that two sweeps share: trials that are equal in all but their seed.

    Args:
        results: of :func:`analysis.results.load`; trials that are done count.
        other: likewise, of the sweep to compare with.

    Returns:
        A row for each cell and score: the cell's configuration (with m: OTS compares at equal m
        only), ``score``, ``here`` and ``there`` (means over seeds), ``seeds`` and
        ``seeds_there``, ``difference`` (here less there) with Welch's 95% interval ``low`` to
        ``high``, NaN where a side has one seed. No row where they share no cell.
    """
    cell = list(dict.fromkeys([*CELL, *(field.name for field in CONFIG)]))
    here, there = (_values(side, cell) for side in (results, other))
    rows: list[dict[str, Any]] = []
    for key in here.keys() & there.keys():
        for score in SCORES:
            x, y = (side[key][score].to_numpy("float64") for side in (there, here))
            x, y = x[np.isfinite(x)], y[np.isfinite(y)]
            if not len(x) or not len(y):
                continue
            value, low, high = difference(x, y)
            row = dict(zip(cell, key, strict=True)) | {"score": score}
            row |= {"here": y.mean(), "there": x.mean(), "seeds": len(y), "seeds_there": len(x)}
            rows.append(row | {"difference": value, "low": low, "high": high})
    numbers = ["score", "here", "there", "seeds", "seeds_there", "difference", "low", "high"]
    table = pd.DataFrame(rows, columns=[*cell, *numbers]).rename(columns={"points": "m"})
    order = ["dataset", "stages", "layers", "network", "gamma", "score"]
    return table.sort_values(order, ignore_index=True)


def _values(results: Results, cell: list[str]) -> dict[tuple, pd.DataFrame]:
    trials = without_collapsed(done(results))
    filled = trials.assign(**{name: trials[name].astype("object").fillna("") for name in cell})
    return dict(iter(filled.groupby(cell)))  # type: ignore[arg-type]


def sentence(table: pd.DataFrame, name: str) -> str:
    """What a comparison says, with its counts."""
    if not len(table):
        return (
            f"{name} shares no finished cell with this sweep: there is nothing to compare. Cells "
            "are compared that are equal in all of their configuration but the seed."
        )
    parts = []
    for score, rows in table.groupby("score", sort=False):
        known = rows.low.notna()
        apart = known & ((rows.low > 0) | (rows.high < 0))
        told = f"{str(score).replace('_', ' ') if 'acc' in str(score) else str(score).upper()} "
        told += f"differs by {rows.difference.abs().median():.2g} (median)"
        if known.any():
            told += f", beyond its 95% interval in {apart.sum()} of {known.sum()}"
        parts.append(told)
    cells = int(table.groupby("score", sort=False).size().max())
    one = "" if table.low.notna().any() else " With one seed on a side no interval can be given."
    return f"Compared with {name}, {cells} cells in both: {'; '.join(parts)}.{one}"
