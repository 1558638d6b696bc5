"""How a command ends: tables that fit the terminal, where the results are, the exit status."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import zip_longest
from statistics import fmean
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from models.config import TrialConfig
from scoring import places
from scoring.history import last_epoch
from scoring.places import argument
from scoring.schemas import TABLES
from scoring.storage import list_files, read_file
from tune_jobs import estimates, room, service
from tune_jobs.account import enough
from tune_jobs.errors import SweepError
from tune_jobs.estimates import in_words
from tune_jobs.folder import Request, State, short_path, shown
from tune_jobs.labels import duration, labels, last_line, number, some, trials_of, varying_fields
from tune_jobs.mlflow_store import is_there, tracking_uri
from tune_jobs.terminal import one_line, say, table

Row = dict[str, Any]
OVER_BUDGET = 3  # the exit status where the budget left something undone
MOST = 200  # Tables on the terminal show this many trials; the report shows all of them.


def _known(value: float | None, digits: int) -> str:
    """A number as text; empty where an older version has none, or a stage has collapsed."""
    return "" if value is None or math.isnan(value) else number(value, digits)


# Heading, value and rank. On a narrow terminal columns with a low rank are left out first, so that
# the scores and their baselines stay.
SCORES: tuple[tuple[str, Callable[[Row], str], int], ...] = (
    ("train acc.", lambda row: number(row["clean_train_accuracy"]), 5),
    ("valid. acc.", lambda row: _known(row["validation_accuracy"], 3), 8),
    ("test acc.", lambda row: number(row["test_accuracy"]), 9),
    ("excess", lambda row: _known(row["geodesic_excess"], 2), 9),
    ("initial", lambda row: _known(row["geodesic_excess_initial"], 2), 7),
    ("LSS", lambda row: number(row["lss"], 2), 8),
    ("initial", lambda row: number(row["lss_initial"], 2), 6),
    ("sqrt(n)", lambda row: number(row["lss_random"], 2), 4),
    ("LSR", lambda row: number(row["lsr"], 2), 1),
    ("OTS", lambda row: "collapsed" if row["collapsed"] else number(row["ots"]), 9),
    ("initial", lambda row: number(row["ots_initial"]), 6),
    ("shuffled", lambda row: _known(row["ots_shuffled"], 3), 5),
    ("1/m", lambda row: number(row["ots_random"], 4), 4),
    ("m", lambda row: str(row["points"]), 7),
    ("epochs", lambda row: str(row["epochs_done"]), 2),
    ("seconds", lambda row: number(row["seconds"], 1), 3),
)

# Heading and column: areas under the curve of accuracy against level, and one ratio.
ROBUSTNESS: tuple[tuple[str, str], ...] = (
    ("lesion", "lesion_auc"),
    ("noise", "noise_auc"),
    ("FGSM", "fgsm_auc"),
    ("PGD", "pgd_auc"),
    ("mixed", "mixed_ratio_matched"),
    ("initial", "mixed_ratio_matched_initial"),
)
MIXED = ("mixed", "initial")  # headings of the columns that are no areas


# Heading, column and digits: the curve of measures, each number next to its baselines.
CURVE: tuple[tuple[str, str, int], ...] = (
    ("length", "curve_length_ratio", 2),
    ("initial", "curve_length_ratio_initial", 2),
    ("speed var.", "curve_speed_variation", 2),
    ("initial", "curve_speed_variation_initial", 2),
    ("block OTS", "curve_block_ots", 3),
    ("initial", "curve_block_ots_initial", 3),
    ("shuffled", "curve_block_ots_shuffled", 3),
    ("m", "curve_m", 0),
)


def curve_table(state: State) -> Group | None:
    """Each trial's curve of measures; None if no trial has one."""
    rows = [(name, row) for name, row in _rows(state) if row.get("curve_m") is not None]
    if not rows:
        return None
    made = table(["trial"], [head for head, _, _ in CURVE])
    for name, row in rows[:MOST]:
        made.add_row(name, *(_known(row[column], digits) for _, column, digits in CURVE))
    _rest(made, len(rows))
    told = "curve of measures: its W2 length over the geodesic's (1), variation of its speed (0)"
    return Group(Text(told), made)


def _rows(state: State) -> list[tuple[str, Row]]:
    """The label and the row of each trial that has a row, in the order of the sweep."""
    names = labels(state.trials)
    return [(names[t.trial], state.rows[t.trial]) for t in state.trials if t.trial in state.rows]


def _rest(made: Table, count: int) -> None:
    """Say at the end of a table how many rows it leaves out."""
    if count > MOST:
        made.add_row(f"... and {count - MOST} more, in the report")


def robustness_table(state: State) -> Group | None:
    """Each trial's mean accuracy over the levels of each evaluation; None without evaluations.

    ``mixed``: how much more often noise mixes up the closest tenth of tracks than all pairs with
    equally distant ends; ``initial``: the same before training.
    """
    there = [
        (head, name)
        for head, name in ROBUSTNESS
        if any(row.get(name) is not None for row in state.rows.values())
    ]
    if not there:
        return None
    made = table(["trial"], ["test acc.", *(head for head, _ in there), "m"])
    rows = [(name, row) for name, row in _rows(state) if row["evaluations"]]
    for name, row in rows[:MOST]:
        figures = [number(row[column]) for _, column in there]
        made.add_row(name, number(row["test_accuracy"]), *figures, str(row["points"]))
    _rest(made, len(rows))
    areas = ", ".join(head for head, _ in there if head not in MIXED)
    notes = []
    if areas:
        notes.append(f"mean accuracy over the levels of {areas} (area under the curve)")
    if there[-1][0] in MIXED:
        notes.append(
            "mixed: how much more often noise mixes up the closest tenth of tracks, of pairs with "
            "equally distant ends; initial: before training"
        )
    return Group(Text(f"robustness: {'; '.join(notes)}"), made)


def results_table(state: State, width: int) -> Table:
    """Every trial of a sweep: its scores, and their values before training and at random.

    Args:
        state: of the sweep.
        width: characters in a line. Columns that do not fit are left out, those of the lowest
            rank first, so that every trial stays on one line. So are columns without a value, as
            in older results.
    """
    names, lines = labels(state.trials), []
    for trial in state.trials[:MOST]:
        row = state.rows.get(trial.trial)
        if row is None or row["status"] == "failed":
            lines.append([names[trial.trial], _word(state, trial, row)])
        else:
            mark = "" if row["status"] == "done" else f" ({row['status']})"
            lines.append([names[trial.trial] + mark, *(figure(row) for _, figure, _ in SCORES)])
    full = [line for line in lines if len(line) > 2]
    known = [i for i in range(1, len(SCORES) + 1) if not full or any(line[i] for line in full)]
    for least in range(1, 10):
        kept = [0, *(i for i in known if SCORES[i - 1][2] >= least)]
        fitted = [[line[i] for i in kept] if len(line) > 2 else line for line in lines]
        heads = ["trial", *(SCORES[i - 1][0] for i in kept[1:])]
        columns = zip_longest(heads, *fitted, fillvalue="")
        if sum(max(map(len, column)) + 2 for column in columns) - 2 <= width:
            break
    made = table(heads[:1], heads[1:])
    for line in fitted:
        made.add_row(*line)
    _rest(made, len(state.trials))
    return made


def _word(state: State, trial: TrialConfig, row: Row | None) -> str:
    """The progress of a trial without scores, in words."""
    if trial.trial in state.scoring:
        return "to score"
    if row:
        return row["status"]
    if trial.trial not in state.begun:
        return "missing"
    epoch = last_epoch(state.root, trial.trial)
    return "begun" if epoch is None else f"begun, epoch {epoch} of {trial.epochs}"


def end(
    request: Request,
    state: State,
    console: Console,
    begun: float,
    lacking: bool = False,
    report: bool = True,
) -> int:
    """Write the report if it is wanted, then print what is done and where to find it.

    Args:
        request: what the command was asked to do.
        state: of the sweep afterwards.
        console: to print on.
        begun: when the command began, by the monotonic clock.
        lacking: whether trials that the command should have trained are not done.
        report: whether to write the report.

    Returns:
        The exit status: 0, 1 if something is missing, 3 if the budget is used up, 130 after Ctrl-C.
    """
    for more in filter(None, (robustness_table(state), curve_table(state))):
        console.print(more)
    page, unwritten = _report(request, state) if report else (service.page(request.root), None)
    stopped = "stopped: " if state.interrupted else ""
    took = duration(time.monotonic() - begun)
    say(f"{stopped}{_counts(state)} in {took}")
    lines = _chosen(request, state) + _places(request.root, page)
    if state.rows and not (report or page):
        later = f"geosweep report {argument(short_path(request.root))}"
        lines.insert(0, ("report", f"not written; {later} writes it"))
    if unwritten:
        lines.append(("no report", unwritten))
    for what, text in lines + _left(request, state, _more(request, state)):
        say(one_line(f"{what:8} {text}"))
    if state.interrupted:
        return 130
    if state.over_budget:
        return OVER_BUDGET
    return int(lacking or bool(state.unevaluated or state.weightless or unwritten))


def _report(request: Request, state: State) -> tuple[str | None, str | None]:
    """Write the report if results are newer than it; its page, and why it could not be written."""
    page = service.page(request.root)
    if not state.rows or (page and not state.worked):
        return page, None
    try:
        page, missed = service.report(request.root, state.name)
    except SweepError as error:  # The results are complete; only the report is missing.
        return page, str(error)
    if missed:
        say(f"MLflow has no report: {missed}")
    return page, None


def _counts(state: State) -> str:
    """How many trials are done, and how many are not, by reason."""
    counts = {
        "stopped early": len(state.ids("stopped")),
        "diverged": len(state.ids("diverged")),
        "failed": len(state.ids("failed")),
        "not finished": state.unfinished,
        "not evaluated": len(state.unevaluated) + len(state.weightless),
    }
    text = f"{len(state.ids('done'))} of {state.planned} done"
    text += "".join(f", {count} {what}" for what, count in counts.items() if count)
    return text + (f" ({len(state.begun)} kept at their last epoch)" if state.begun else "")


def _chosen(request: Request, state: State) -> list[tuple[str, str]]:
    """What a search optimised, and its best trial so far if that was one number."""
    search = request.sweep.search
    if search is None:
        return []
    aims = [f"{name.replace('_', ' ')} ({way})" for name, way in search.objectives.items()]
    told = f"optimised {' and '.join(aims)}"
    (name, way), *others = search.objectives.items()
    seeds = request.sweep.rules.seeds
    found = _cell_means(state, name, seeds)
    if found and not others:
        sign = 1 if way == "max" else -1
        best = max(found, key=lambda trial: sign * found[trial])
        names = [one for one in varying_fields(state.trials) if seeds == 1 or one != "seed"]
        told += f"; best: {labels(state.trials, names)[best]} with {number(found[best])}"
        if name != "test_accuracy":
            accuracy = _cell_means(state, "test_accuracy", seeds)[best]
            told += f", test accuracy {number(accuracy)}"
        told += f" (means over {seeds} seeds)" if seeds > 1 else ""
    return [("search", told)]


def _cell_means(state: State, name: str, seeds: int) -> dict[str, float]:
    """A score of each cell that has it with all its seeds, by the cell's first trial."""
    done, found = set(state.ids("done")), {}
    cells: dict[str, list[str]] = {}
    for trial in state.trials:
        cell = trial.model_copy(update={"seed": 0}) if seeds > 1 else trial
        cells.setdefault(cell.trial, []).append(trial.trial)
    for trials in cells.values():
        values = [state.rows[trial][name] for trial in trials if trial in done]
        known = [value for value in values if value is not None and math.isfinite(value)]
        if len(known) == seeds:
            found[trials[0]] = fmean(known)
    return found


def _places(root: str, page: str | None) -> list[tuple[str, str]]:
    """Where the report, the tables and MLflow's pages are."""
    lines = [("report", shown(page))] if page else []
    tables = [table for table in TABLES if list_files(root, places.table_folder(table))]
    if tables:
        which = tables[0] if len(tables) == 1 else f"{{{','.join(tables)}}}"
        lines.append(("tables", f"{shown(root)}/{places.RESULTS}/{which}/*.parquet"))
    if is_there(tracking_uri(root)):
        lines.append(("MLflow", f"geosweep ui {argument(short_path(root))}"))
    return lines


def _more(request: Request, state: State) -> str:
    """What a sweep still needs after its budget ended it, and how to continue it."""
    if not state.over_budget:
        return ""
    left = estimates.left(request, service.chosen(state, request.retry))
    forecast, slots = estimates.forecast(request, left), state.at_once
    if forecast.costs and not slots:
        with suppress(SweepError):  # what the budget did is said anyway
            slots = room.slots(request.address, request.sweep.resources)
    found = forecast.total(slots or 1)
    epochs = sum(epochs for _, epochs in left.trials) + left.to_suggest * left.epochs
    time = f", {in_words(found.seconds, duration)}" if found.seconds else ""
    amount = enough(request.root, request.sweep.budget, found)
    larger = f"--budget {amount}" if amount else "a larger --budget"
    say(one_line(f"budget   {state.over_budget}"))
    if found.trials:
        say(f"remains  {trials_of(found.trials)}, {epochs} epochs{time}")
    else:
        to_score, to_evaluate = len(state.scoring), len(state.unevaluated)
        say(f"remains  {trials_of(to_score)} to score, {to_evaluate} to evaluate")
    return f"run the same command again with {larger}"


def _left(request: Request, state: State, more: str) -> list[tuple[str, str]]:
    """Trials that failed, that are not evaluated or that belong to another sweep, and the way on.

    Args:
        request: what the command was asked to do.
        state: of the sweep afterwards.
        more: how to go on after the budget ended the run; empty if it did not.
    """
    lines = []
    failed = state.ids("failed")
    if state.extra:
        lines.append(("extra", f"{some(state.extra)}: trials of another sweep in this folder"))
    for trial in failed:
        lines.append(("failed", f"{trial}: {state.rows[trial]['error']} ({places.error(trial)})"))
    for trial in (trial.trial for trial in state.unevaluated):
        error = (read_file(state.root, places.error(trial)) or b"").decode(errors="replace")
        why = f": {last_line(error)} ({places.error(trial)})" if error else ""
        lines.append(("to do", f"{trial} is not evaluated yet{why}"))
    lines += [("no weights", told) for told in state.unreachable]
    if failed or state.unfinished or state.unevaluated:
        how = "again"
        if request.retry is False and failed:
            how = "without --leave-failed"
        elif request.retry and state.unfinished > len(state.scoring):
            how = "without --retry-failed"
        told = f"run the same command {how} for what is missing"
        if request.of_folder and not (state.unevaluated or state.scoring):
            told = "geosweep run with the sweep file trains what is missing"
        lines.append(("continue", more or told))
    return lines
