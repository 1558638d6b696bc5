"""What a probe found: a table to read, rows, data frames and JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch and numba need not load to show a result
    from scoring.probing.measured import MeasuredStage

COMPARED = ("lss", "straightness_factor", "lsr", "cosine", "spacing", "ots")
"""Columns that also have a value for each null."""

COLUMNS = {  # of the printed table: heading -> column
    "stage": "stage",
    "blocks": "blocks",
    "m": "m",
    "d": "dimension",
    "LSS": "lss",
    "sqrt(n)": "lss_random",
    "LSR": "lsr",
    "straightness": "straightness_factor",
    "cosine": "cosine",
    "spacing": "spacing",
    "rank": "effective_rank",
    "OTS": "ots",
    "shuffled": "ots_shuffled",
    "1/m": "ots_random",
    "excess": "geodesic_excess",
    "W length": "length_ratio",
    "at m": "transport_points",
}

WIDTH = 100  # of a printed table, in characters


@dataclass(frozen=True)
class ProbeResult:
    """The scores of every stage that a probe followed.

    Printed, it is a table with a line for each stage, or with a column for each where that would
    be too wide.

    Attributes:
        stages: in the order of their first calls.
        nulls: the stages of other models on the same batches, by name.
        matched: a line about each group of blocks.
        skipped: a line about each call that is no step of a stage.
        batches: how many forward passes there were.
    """

    stages: "list[MeasuredStage]"
    nulls: "Mapping[str, list[MeasuredStage]]" = field(default_factory=dict)
    matched: Sequence[str] = ()
    skipped: Sequence[str] = ()
    batches: int = 0

    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each stage, with its row as measured and the values of nulls."""
        rows = [stage.row() for stage in self.stages]
        for name, stages in self.nulls.items():
            for row, other in zip(rows, (stage.row() for stage in stages), strict=True):
                row |= {f"{column}_{name}": other[column] for column in COMPARED if column in other}
        return rows

    def blocks(self) -> list[dict[str, Any]]:
        """A mapping for each block: its step, and the state after it.

        ``cosine`` is between its step and the next one, NaN for the last block of a stage.
        ``sum_error`` is how far input plus output is from the state that the model goes on with,
        over the size of the output: 0 where blocks return what is added to their input; NaN where
        that is not known, as without ``branches``.
        """
        found = []
        for stage in self.stages:
            row = stage.row()
            cosines = [*row["cosines"], math.nan]
            speeds = row.get("speeds", [math.nan] * len(stage.blocks))
            for place, name in enumerate(stage.blocks):
                found.append(
                    {
                        "stage": row["stage"],
                        "block": place + 1,
                        "name": name,
                        "energy": row["energy"][place],
                        "share": row["shares"][place],
                        "cosine": cosines[place],
                        "effective_rank": row["effective_rank"][place + 1],
                        "rounding": row["rounding"][place],
                        "speed": speeds[place],
                        "sum_error": stage.sum_error[place],
                    }
                )
        return found

    def frame(self) -> Any:
        """:meth:`rows` as a pandas data frame."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values of single points, for JSON."""
        return {
            "batches": self.batches,
            "matched": list(self.matched),
            "skipped": list(self.skipped),
            "stages": self.rows(),
            "blocks": self.blocks(),
        }

    def table(self) -> list[list[str]]:
        """The printed table: headings, then a line of cells for each stage."""
        rows = self.rows()
        columns: dict[str, str] = {}
        for heading, column in COLUMNS.items():
            if any(column in row for row in rows):
                columns[heading] = column
                if column in ("lss", "straightness_factor", "ots"):
                    columns |= {f"{heading} {name}": f"{column}_{name}" for name in self.nulls}
        return [list(columns), *([_cell(row, c) for c in columns.values()] for row in rows)]

    def notes(self) -> list[str]:
        """Lines below the table: the blocks of each stage, what was matched and what skipped."""
        lines = [f"stage {stage.points.stage}: {_range(stage)}" for stage in self.stages]
        points = ", ".join(map(str, dict.fromkeys(stage.rank_points for stage in self.stages)))
        lines.append(f"rank at m = {points}, the first points")
        drawn = [name for name in self.nulls if name in ("reinit", "shuffle")]
        if drawn:
            lines.append(f"{' and '.join(drawn)}: one draw, seed 0")
        lines += [f"matched {line}" for line in self.matched]
        return lines + [f"skipped {line}" for line in self.skipped]

    def __str__(self) -> str:
        cells = fitting(self.table(), WIDTH)
        widths = _widths(cells)
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in cells
        ]
        return "\n".join([*lines, *self.notes()])

    __repr__ = __str__


def fitting(cells: list[list[str]], width: int) -> list[list[str]]:
    """A table; transposed if it is wider than ``width`` characters and would get narrower."""
    turned = list(map(list, zip(*cells, strict=True)))
    wide, high = (sum(_widths(some)) + 2 * len(some[0]) - 2 for some in (cells, turned))
    return turned if high < wide > width else cells


def _widths(cells: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _range(stage: "MeasuredStage") -> str:
    if len(stage.blocks) == 1:
        text = f"{stage.blocks[0]}; one block: its line shape is not measurable"
    else:
        text = f"{stage.blocks[0]} to {stage.blocks[-1]}"
    return text if stage.points.finite else f"{text}; some states are not finite"


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, list):  # the effective rank of the first and of the last state
        value = "-" if math.isnan(value[0] + value[-1]) else f"{value[0]:.1f} to {value[-1]:.1f}"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if column == "ots_random" else f"{value:.3f}"
    return str(value)
