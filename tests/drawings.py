"""What is drawn in a figure's panels, and rows changed before it is drawn."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scoring.tables import read_rows, write_table


def lines(figure: Figure, place: int) -> dict[str, np.ndarray]:
    """The lines of a panel as (points, 2), by label; of several, the last one."""
    here = figure.axes[place].lines
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in here}


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_visible()]


def legend(figure: Figure) -> list[str]:
    """The texts of the legend, which is the figure's or in an empty panel."""
    legends = [*figure.legends, *(one for axes in figure.axes if (one := axes.get_legend()))]
    return [text.get_text().replace("\n", " ") for one in legends for text in one.get_texts()]


def change(root: Path, table: str, trial: str, **columns: object) -> None:
    """Change columns in all rows that a trial has in a table."""
    rows = [row | columns for row in read_rows(str(root), table, trial)]
    write_table(str(root), table, trial, rows)
