"""Rows of the tracks, samples and trials tables, from what was measured and what was solved."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scoring.excess import Action, excess, without_drift
from scoring.schemas import LOSSES

if TYPE_CHECKING:  # numba need not load to look at a sweep's folder
    from scoring.transport import Transport


FACTORS = {  # column of the tracks table -> field of scoring.excess.GeodesicExcess
    "geodesic_excess": "excess",
    "straightness_factor": "straightness",
    "transport_factor": "transport",
}
STRAIGHTNESS = ("straightness_factor", "straightness_factor_without_drift")
"""The columns that are known after every epoch."""
DRIFTLESS = "_without_drift"  # ends the name of a factor that is taken without the mean steps
GEOMETRIC = [name + end for name in FACTORS for end in ("", DRIFTLESS)]
"""Columns with a geometric mean over stages, so that the mean excess is still the product."""
LINE_SHAPE = (
    *("lss", "lss_std", "inverse_lss", "lsr", "lsr_std", "lss_random", *STRAIGHTNESS, "spacing"),
    *("lss_scaled", "lss_without_drift", "fuzziness_fit"),
)
"""Scores that say nothing of a stage of a single block: 1 or 0 by definition."""
NEWEST = "lss_scaled"  # the column of the trials table that was added last


class Solved(NamedTuple):
    """A solved assignment problem of a stage."""

    transport: "Transport"
    by_class: list[float]  # OTS of the points of each class
    seconds: float  # to solve it
    shuffled: "Transport | None" = None  # of shuffled displacements; None in earlier versions
    shuffled_seconds: float = 0.0


def geometric_mean(values: Iterable[float]) -> float:
    """Geometric mean; NaN if a value is NaN or there are none, +inf if a value is.

    >>> geometric_mean([2.0, 8.0])
    4.0
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp2(_mean(np.log2(list(values)))))


def _mean(values: Iterable[float]) -> float:
    """Mean of all values; NaN where there are none."""
    values = list(values)
    return float(np.mean(values)) if values else np.nan


def track_row(
    row: Mapping[str, Any],
    baseline: Mapping[str, Any],
    solved: Solved | None,
    solved_baseline: Solved | None,
) -> dict[str, Any]:
    """A row of the tracks table: the scores of a stage, and its baselines.

    Args:
        row: what was measured of the stage after an epoch.
        baseline: the same of the first epoch.
        solved: the assignment after this epoch, if there was one to solve.
        solved_baseline: the assignment of the first epoch.
    """
    row = {"split": "test"} | dict(row) | {"ots_random": 1 / row["m"]}
    row |= {f"{name}_initial": baseline[name] for name in ("lss", "inverse_lss", "lsr")}
    row["straightness_factor_initial"] = baseline.get("straightness_factor", np.nan)
    for name in ("lss_scaled", "lss_without_drift"):  # known in the first and the last epoch
        if name in row:
            row[f"{name}_initial"] = baseline.get(name, np.nan)
    if solved is None:
        return row
    transport = solved.transport
    row |= {
        "ots": transport.ots,
        "ots_by_class": solved.by_class,
        "gap": transport.gap,
        "movement": transport.movement,
        "network_cost": transport.network_cost,
        "optimal_cost": transport.optimal_cost,
        "suboptimality": transport.suboptimality,
        "ties": transport.ties,
        "collapsed": transport.collapsed,
        "prefix_m": [prefix.m for prefix in transport.prefixes],
        "prefix_ots": [prefix.ots for prefix in transport.prefixes],
        "prefix_gap": [prefix.gap for prefix in transport.prefixes],
        "solve_rounds": transport.rounds,
        "solve_edges": transport.edges,
        "solve_seconds": solved.seconds,
        **_excess(row, transport),
    }
    if not _is_measurable(row):
        row |= dict.fromkeys(STRAIGHTNESS, np.nan)
    if solved.shuffled is not None:
        row |= {"ots_shuffled": solved.shuffled.ots, "gap_shuffled": solved.shuffled.gap}
        row["shuffled_seconds"] = solved.shuffled_seconds
    if solved_baseline is not None:
        before = solved_baseline.transport
        factors = _excess(baseline, before)
        row |= {"ots_initial": before.ots, "gap_initial": before.gap}
        row |= {
            f"{name}_initial": factors[name] for name in ("geodesic_excess", "transport_factor")
        }
    return row


def _excess(row: Mapping[str, Any], transport: "Transport") -> dict[str, Any]:
    """The geodesic excess of a stage and its factors, with drift and without.

    NaN where the row lacks what an earlier version did not measure.
    """
    energy = row.get("energy") or [np.nan]
    action = Action(
        energy,
        row.get("drift") or [np.nan] * len(energy),
        transport.network_cost,
        transport.shift,
        transport.optimal_cost,
        transport.random_cost,
        transport.collapsed,
    )
    columns = {"transport_share": excess(action).transport_share, "shift": transport.shift}
    for end, found in (("", excess(action)), (DRIFTLESS, excess(without_drift(action)))):
        columns |= {f"{name}{end}": getattr(found, field) for name, field in FACTORS.items()}
    return columns


def measurable(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The stages whose line shape says something; all of them if there are none.

    A stage of a single block in an architecture of a user has no line shape: sqrt(n) is NaN there.

    >>> measurable([{"stage": 1, "lss_random": 2.0}, {"stage": 2, "lss_random": float("nan")}])
    [{'stage': 1, 'lss_random': 2.0}]
    """
    return [row for row in rows if _is_measurable(row)] or rows


def _is_measurable(row: Mapping[str, Any]) -> bool:
    return not np.isnan(row.get("lss_random", 1.0))


def has_all_scores(row: Mapping[str, Any]) -> bool:
    """Whether a row of the trials table has the scores of this version, even if they are NaN."""
    return row.get(NEWEST) is not None


def completed(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """New rows of a table, in which known values of the old rows replace new ones.

    Args:
        old: rows that were stored before, with None or NaN for what they lack.
        new: rows of the same trial that were measured again.
        names: the columns that tell rows apart.

    >>> completed([{"stage": 1, "lss": 2.0, "ots": None}], [{"stage": 1, "lss": 3.0, "ots": 1.0}],
    ...           ["stage"])
    [{'stage': 1, 'lss': 2.0, 'ots': 1.0}]
    """
    has = {
        tuple(row[name] for name in names): {n: v for n, v in row.items() if _is_known(v)}
        for row in old
    }
    return [{**row, **has.get(tuple(row[name] for name in names), {})} for row in new]


def _is_known(value: Any) -> bool:
    """Whether a value is neither None nor NaN."""
    return value is not None and not (isinstance(value, float) and np.isnan(value))


def sample_rows(
    same: Mapping[str, Any],
    labels: np.ndarray,
    predictions: np.ndarray,
    score: np.ndarray,
    ratio: np.ndarray,
    transport: "Transport",
) -> list[dict[str, Any]]:
    """Rows of the samples table for one stage, one for each point.

    Args:
        same: columns that all rows share.
        labels: true classes (m,).
        predictions: the network's classes (m,).
        score: LSS of each point (m,).
        ratio: LSR of each point (m,).
        transport: the solved assignment of the stage.
    """
    columns = {
        "label": labels,
        "prediction": predictions,
        "lss": score,
        "lsr": ratio,
        "permutation": transport.permutation,
        "own_cost": transport.own_cost,
        "matched_cost": transport.matched_cost,
    }
    points = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {**same, "point": point, **dict(zip(columns, values, strict=True))}
        for point, values in enumerate(points)
    ]


class _OverStages(NamedTuple):
    """How a column of the trials table sums up the stages' rows of the tracks table."""

    lines: bool = False  # only those of stages whose line shape says something
    mean: Callable[[Iterable[float]], float] = _mean
    column: str = ""  # of the tracks table, if it has another name
    part: Callable[[Any], float] = lambda value: value  # what counts, if it is a list

    def values(self, name: str, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """Its number of each stage; NaN where an earlier version did not measure it."""
        column, stages = self.column or name, measurable(rows) if self.lines else rows
        return [self.part(row[column]) if column in row else np.nan for row in stages]


LINES, ALL = _OverStages(lines=True), _OverStages()
FINAL = {  # taken after the last epoch, where rows of the tracks table hold the baselines as well
    **dict.fromkeys(("lss", "inverse_lss", "lsr", "lss_random"), LINES),
    **dict.fromkeys(("lss_initial", "inverse_lss_initial", "lsr_initial"), LINES),
    **dict.fromkeys(("ots", "gap", "ots_random", "ots_initial", "gap_initial"), ALL),
}
BOTH = {  # taken after the last epoch, and as a baseline before training
    **dict.fromkeys(GEOMETRIC, _OverStages(lines=True, mean=geometric_mean)),
    **dict.fromkeys(("lss_scaled", "lss_without_drift"), LINES),
    **dict.fromkeys(("curvature", "spacing", "fuzziness_fit"), LINES),
    "turning": _OverStages(lines=True, column="cosines", part=_mean),
    **dict.fromkeys(("transport_share", "ots_shuffled", "gap_shuffled"), ALL),
    **dict.fromkeys(("separated", "not_monotone", "fuzziness_slope"), ALL),
    **dict.fromkeys(("energy", "relative_energy"), _OverStages(part=sum)),
    "effective_rank": _OverStages(part=itemgetter(-1)),
}


def summary_columns(rows: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of the trials table: means over the stages after the last epoch, and baselines.

    Deviations over the stages have ddof = 0, as in the paper's Tables 6 and 7.

    Args:
        rows: the trial's rows of the tracks table, in the order of epochs.
        last: its last row of the epochs table.
    """
    final = [row for row in rows if row["epoch"] == last["epoch"]]
    first = [row for row in rows if row["epoch"] == rows[0]["epoch"]]
    summary = {field.name: last.get(field.name) for field in LOSSES}
    summary["epochs_done"] = last["epoch"]
    for end, here, table in (("", final, FINAL | BOTH), ("_initial", first, BOTH)):
        for name, how in table.items():
            summary[name + end] = how.mean(how.values(name, here))
        last_stage = max(here, key=lambda row: row["stage"])
        summary[f"nc1{end}"] = last_stage.get("nc1", np.nan)
    for name in ("lss", "lsr", "ots"):
        values = FINAL[name].values(name, final)
        with np.errstate(invalid="ignore"):  # an infinite LSS has no deviation
            # If only one of several stages has a line shape, there is no deviation.
            spread = np.std(values) if len(values) > 1 or len(final) == 1 else np.nan
        summary[f"{name}_std"] = float(spread)
    solved = [row for row in final if "ots" in row]
    if solved:
        summary["suboptimality"] = max(_known(row["suboptimality"] for row in solved))
        summary["movement"] = min(_known(row["movement"] for row in solved))
        summary["ties"] = sum(row["ties"] for row in solved)
        summary["collapsed"] = any(row["collapsed"] for row in solved)
    if not any(NEWEST in row for row in final):  # an earlier version measured the trial
        summary[NEWEST] = None
    return summary


def _known(values: Iterable[float]) -> list[float]:
    """The values that are not NaN, which has no place in an order; NaN alone if there are none."""
    return [value for value in values if not math.isnan(value)] or [math.nan]
