"""The table a sweep ends with, fitted to the width of the terminal."""

from collections.abc import Callable
from typing import Any

from rich.table import Table

from tune_jobs.board import labels, number
from tune_jobs.folder import State

Row = dict[str, Any]
MOST = 200  # rows shown

# name, figure, and from which width on it is shown: scores first, their nulls beside them
COLUMNS: tuple[tuple[str, Callable[[Row], str], int], ...] = (
    ("train acc.", lambda row: number(row["clean_train_accuracy"]), 80),
    ("test acc.", lambda row: number(row["test_accuracy"]), 0),
    ("LSS", lambda row: number(row["lss"], 2), 0),
    ("initial", lambda row: number(row["lss_initial"], 2), 60),
    ("sqrt(n)", lambda row: number(row["lss_random"], 2), 80),
    ("LSR", lambda row: number(row["lsr"], 2), 100),
    ("OTS", lambda row: "collapsed" if row["collapsed"] else number(row["ots"]), 0),
    ("initial", lambda row: number(row["ots_initial"]), 60),
    ("1/m", lambda row: number(row["ots_random"], 4), 80),
    ("m", lambda row: str(row["points"]), 40),
    ("epochs", lambda row: str(row["epochs_done"]), 100),
    ("seconds", lambda row: number(row["seconds"], 1), 80),
)


def results_table(state: State, width: int) -> Table:
    """Every trial of a sweep, its scores, and what they are worth before training and at random."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", overflow="fold")
    shown = [(name, figure) for name, figure, least in COLUMNS if width >= least]
    for name, _ in shown:
        table.add_column(name, justify="right", no_wrap=True)
    names = labels(state.trials)
    for trial in state.trials[:MOST]:
        row = state.rows.get(trial.trial)
        if row is None or row["status"] == "failed":
            word = (
                "to score" if trial.trial in state.scoring else row["status"] if row else "missing"
            )
            table.add_row(names[trial.trial], word)
        else:
            mark = "" if row["status"] == "done" else f" ({row['status']})"
            table.add_row(names[trial.trial] + mark, *(figure(row) for _, figure in shown))
    if len(state.trials) > MOST:
        table.add_row(f"... and {len(state.trials) - MOST} more, in the report")
    return table
