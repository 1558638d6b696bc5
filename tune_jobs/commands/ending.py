"""What a sweep ends with: tables fitted to the terminal, where all is, and an exit status."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import zip_longest
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from models.config import TrialConfig
from scoring import places
from scoring.schemas import TABLES
from scoring.storage import list_files, read_file
from tune_jobs import service
from tune_jobs.errors import SweepError
from tune_jobs.folder import Request, State, short_path
from tune_jobs.labels import duration, labels, last_line, number
from tune_jobs.tracking import is_there, tracking_uri

Row = dict[str, Any]
MOST = 200  # rows shown

# name, figure, and which go first where they do not fit: scores stay, their nulls beside them
COLUMNS: tuple[tuple[str, Callable[[Row], str], int], ...] = (
    ("train acc.", lambda row: number(row["clean_train_accuracy"]), 5),
    ("test acc.", lambda row: number(row["test_accuracy"]), 8),
    ("LSS", lambda row: number(row["lss"], 2), 8),
    ("initial", lambda row: number(row["lss_initial"], 2), 6),
    ("sqrt(n)", lambda row: number(row["lss_random"], 2), 4),
    ("LSR", lambda row: number(row["lsr"], 2), 1),
    ("OTS", lambda row: "collapsed" if row["collapsed"] else number(row["ots"]), 8),
    ("initial", lambda row: number(row["ots_initial"]), 6),
    ("1/m", lambda row: number(row["ots_random"], 4), 4),
    ("m", lambda row: str(row["points"]), 7),
    ("epochs", lambda row: str(row["epochs_done"]), 2),
    ("seconds", lambda row: number(row["seconds"], 1), 3),
)

ROBUSTNESS: tuple[tuple[str, str], ...] = (  # areas under accuracy against level, and one ratio
    ("lesion", "lesion_auc"),
    ("noise", "noise_auc"),
    ("FGSM", "fgsm_auc"),
    ("PGD", "pgd_auc"),
    ("mixed", "mixed_ratio"),
)


def output() -> Console:
    """Standard output; in a pipe or a file no line of it is broken."""
    made = Console()
    if not made.is_terminal:
        made.width = 1000
    return made


def robustness_table(state: State) -> Group | None:
    """Mean accuracy over the levels of each evaluation, beside that without; None if there is none.

    ``mixed``: how much more often than any pair of points noise mixes up the closest tenth.
    """
    there = [
        (head, name)
        for head, name in ROBUSTNESS
        if any(row.get(name) is not None for row in state.rows.values())
    ]
    if not there:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", overflow="fold")
    for head in ["test acc."] + [head for head, _ in there] + ["m"]:
        table.add_column(head, justify="right", no_wrap=True)
    names = labels(state.trials)
    rows = [(t.trial, state.rows[t.trial]) for t in state.trials if t.trial in state.rows]
    rows = [(trial, row) for trial, row in rows if row["evaluations"]]
    for trial, row in rows[:MOST]:
        figures = [number(row[name]) for _, name in there]
        table.add_row(names[trial], number(row["test_accuracy"]), *figures, str(row["points"]))
    if len(rows) > MOST:
        table.add_row(f"... and {len(rows) - MOST} more, in the report")
    areas = ", ".join(head for head, _ in there if head != "mixed")
    told = []
    if areas:
        told.append(f"mean accuracy over the levels of {areas} (area under the curve)")
    if there[-1][0] == "mixed":
        told.append("mixed: how much more often noise mixes up the closest tenth of pairs than any")
    return Group(Text(f"robustness: {'; '.join(told)}"), table)


def results_table(state: State, width: int) -> Table:
    """Every trial of a sweep, its scores, and what they are worth before training and at random.

    Columns go where they do not fit, so that a trial's name stays on one line.
    """
    names, lines = labels(state.trials), []
    for trial in state.trials[:MOST]:
        row = state.rows.get(trial.trial)
        if row is None or row["status"] == "failed":
            lines.append([names[trial.trial], _word(state, trial, row)])
        else:
            mark = "" if row["status"] == "done" else f" ({row['status']})"
            lines.append([names[trial.trial] + mark, *(figure(row) for _, figure, _ in COLUMNS)])
    for least in range(1, 9):
        kept = [0, *(i for i, (*_, rank) in enumerate(COLUMNS, 1) if rank >= least)]
        fitted = [[line[i] for i in kept] if len(line) > 2 else line for line in lines]
        heads = ["trial", *(COLUMNS[i - 1][0] for i in kept[1:])]
        columns = zip_longest(heads, *fitted, fillvalue="")
        if sum(max(map(len, column)) + 2 for column in columns) - 2 <= width:
            break
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", overflow="fold")
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for line in fitted:
        table.add_row(*line)
    if len(state.trials) > MOST:
        table.add_row(f"... and {len(state.trials) - MOST} more, in the report")
    return table


def _word(state: State, trial: TrialConfig, row: Row | None) -> str:
    """How far a trial is that has no scores."""
    if trial.trial in state.scoring:
        return "to score"
    if row:
        return row["status"]
    if trial.trial not in state.begun:
        return "missing"
    with suppress(ValueError, LookupError):  # torn, or not there: it says no epoch
        history = json.loads(read_file(state.root, places.history(trial.trial)) or b"")
        return f"begun, epoch {history['epochs'][-1]['epoch']} of {trial.epochs}"
    return "begun"


def end(
    request: Request, state: State, console: Console, begun: float, lacking: bool = False
) -> int:
    """Write the report, and say what came out and where it is.

    Args:
        request: what was asked for.
        state: what came of it.
        console: to print on.
        begun: when, by the monotonic clock.
        lacking: whether cells that were to be trained are not done.

    Returns:
        The exit status: 0, 1 if something is lacking, 130 after Ctrl-C.
    """
    robustness = robustness_table(state)
    if robustness:
        console.print(robustness)
    page, unwritten = service.page(request.root), None
    try:
        if state.rows and (state.worked or page is None):
            page, missed = service.report(request.root, state.name)
            if missed:
                console.print(f"MLflow has no report: {missed}", highlight=False, markup=False)
    except SweepError as error:  # not bad input: what was trained is kept
        unwritten = str(error)
    failed, unevaluated = state.ids("failed"), [trial.trial for trial in state.unevaluated]
    counts = {
        "stopped early": len(state.ids("stopped")),
        "diverged": len(state.ids("diverged")),
        "failed": len(failed),
        "not finished": state.unfinished,
        "not evaluated": len(unevaluated) + len(state.weightless),
    }
    console.print(
        ("stopped: " if state.interrupted else "")
        + f"{len(state.ids('done'))} of {state.planned} done"
        + "".join(f", {count} {what}" for what, count in counts.items() if count)
        + (f" ({len(state.begun)} kept at their last epoch)" if state.begun else "")
        + f" in {duration(time.monotonic() - begun)}",
        highlight=False,
    )
    lines = [("report", short_path(str(page)))] if page else []
    if state.extra:
        lines.append(("extra", f"{some(state.extra)}: of another sweep, in this folder too"))
    tables = [table for table in TABLES if list_files(request.root, places.table_folder(table))]
    if tables:
        which = tables[0] if len(tables) == 1 else f"{{{','.join(tables)}}}"
        lines.append(("tables", f"{short_path(request.root)}/{places.RESULTS}/{which}/*.parquet"))
    if is_there(tracking_uri(request.root)):
        lines.append(("MLflow", f"geosweep ui {short_path(request.root)}"))
    if unwritten:
        lines.append(("no report", unwritten))
    for trial in failed:
        lines.append(("failed", f"{trial}: {state.rows[trial]['error']} ({places.error(trial)})"))
    for trial in unevaluated:
        error = (read_file(request.root, places.error(trial)) or b"").decode(errors="replace")
        why = f": {last_line(error)} ({places.error(trial)})" if error else ""
        lines.append(("to do", f"{trial} is to be evaluated{why}"))
    if state.weightless:
        lines.append(("no weights", f"{some(state.weightless)}: cannot be evaluated any more"))
    if failed or state.unfinished or unevaluated:
        lines.append(("go on", "the same command does what is missing"))
    for what, where in lines:
        console.print(f"{what:8} {where}", highlight=False, markup=False, soft_wrap=True)
    if state.interrupted:
        return 130
    return int(lacking or bool(unevaluated or state.weightless or unwritten))


def some(trials: list[str], most: int = 5) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(trials) - most} more" if len(trials) > most else ""
    return ", ".join(trials[:most]) + more
