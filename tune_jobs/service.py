"""Runs a sweep: Ray Tune trains the missing cells, scorers finish them, MLflow shows them."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from models import order
from models.files import given_path
from models.messages import plain
from scoring import places, storage
from scoring.misplaced import set_all_aside
from scoring.tables import read_table
from tune_jobs import (
    code,
    estimates,
    folder,
    lease,
    networks,
    processes,
    room,
    signals,
    sources,
)
from tune_jobs.account import Account
from tune_jobs.board import cells
from tune_jobs.cluster.turns import place
from tune_jobs.errors import SweepError
from tune_jobs.evaluations import replaced
from tune_jobs.labels import labels, last_line, trials_of
from tune_jobs.lease import refuse_file
from tune_jobs.meter import Meter
from tune_jobs.mlflow_report import log_report
from tune_jobs.mlflow_store import prepare
from tune_jobs.precision import resolved
from tune_jobs.study import Study
from tune_jobs.sweep import Sweep, as_begun
from tune_jobs.terminal import one_line
from tune_jobs.tracking import Tracker, is_behind, load_mlflow
from tune_jobs.weights import best_of

LOADING = 30.0  # seconds to wait for what loads at the end, while signals are ignored


def check(
    sweep: Sweep,
    out: str | None,
    data: str | None,
    address: str | None,
    retry: bool | None = None,
    max_failures: int | None = None,
    download: bool = True,
) -> folder.Request:
    """Check everything that can be checked before a sweep starts.

    Prepares the data sets on this machine and downloads those that are not here.

    Args:
        sweep: the sweep to run.
        out: the sweep's folder; None means the one from :func:`tune_jobs.folder.path_of`.
        data: folder of ``NAME.npz`` files.
        address: address of a Ray cluster; None means this machine, or ``RAY_ADDRESS`` if set.
        retry: True trains only the cells that failed. False trains all missing cells except
            those. None trains all missing cells, failed ones included.
        max_failures: the sweep stops when this many cells have failed.
        download: False skips data sets that are not on this machine, without checking them.

    Raises:
        SweepError: the message names the file, the field and what is allowed.
    """
    if data is not None and not os.path.isdir(given_path(data)):
        raise SweepError(f"--data {plain(data)}: no such folder")
    root = folder.path_of(sweep.name, out)
    refuse_file(root)
    objectives = folder.description(root).objectives if sweep.implied else None
    sweep = resolved(as_begun(sweep, objectives), root)
    processes.expected_gpus()
    here = room.is_here(address)
    if here:
        room.fits(sweep)
        processes.temporary_folders()
    files = {one.identity: one for one in sweep.code.values()} or code.of_folder(root, sweep.trials)
    then = sources.checksums(root) if sweep.source == root else {}
    loaded, located, smallest = sources.load(sweep, files, data, download, then)
    found = networks.check(sweep, files, loaded)
    if here:
        room.fits_memory(sweep, loaded, found)
    return folder.Request(
        sweep=sweep,
        root=root,
        data=data,
        address=address,
        sources=located,
        checksums={name: data.checksum for name, data in loaded.items()},
        images={
            name: (len(data.y_train), len(data.y_test), *data.image, data.classes)
            for name, data in loaded.items()
        },
        retry=retry,
        max_failures=max_failures,
        code=files,
        found=found,
        notes=[
            note
            for name, kept in loaded.items()
            for note in (
                *order.note(name, kept.spread),
                *order.warnings(
                    name, kept.y_train, kept.y_test, smallest.get(name, len(kept.y_test))
                ),
            )
        ],
    )


def run(request: folder.Request, console: Console) -> folder.State:
    """Train and score all that a sweep has not done yet, and return its state afterwards."""
    root, sweep = request.root, request.sweep
    with signals.as_interrupt(), lease.hold(root):
        _prepare(request, console)
        study = _study(request, console)
        code.put(root, request.code)
        suggested, ended = (study.cells, study.ended) if study else (None, None)
        folder.claim(root, sweep, suggested, request.notes, ended)
        for note in request.notes:
            _say(console, note)
        whole = folder.inspect(root)
        if study:
            for trial, row in whole.rows.items():
                study.tell(trial, row)
        state = chosen(whole, request.retry)
        if not state.complete:
            forecast = estimates.forecast(request, estimates.left(request, state))
            if not state.scoring and (why := _nothing_fits(request, state, forecast)):
                return replace(whole, over_budget=why, left_out=state.left_out)
            ran = _run(request, state, study, forecast, console)
            state = replace(folder.inspect(root), worked=True, left_out=state.left_out, **ran)
            ended = chosen(state, request.retry).complete
            return replace(state, over_budget="") if ended else state
        if is_behind(root, state.rows):
            sync(root, console)
        return replace(whole, left_out=state.left_out)


def evaluate(request: folder.Request, console: Console) -> folder.State:
    """Evaluate a sweep's done trials without training any; return its state afterwards.

    Raises:
        SweepError: no trial can be evaluated; the message says why.
    """
    root, wanted = request.root, request.sweep.evaluations
    with signals.as_interrupt(), lease.hold(root):
        _prepare(request, console)
        state = folder.inspect(root, wanted)
        if not state.ids("done") and not state.scoring:
            raise SweepError(f"{root}: no trial is done yet; geosweep run trains them")
        some = best_of(request.sweep.keep)  # of the best trials only
        if state.unreachable and not (some or state.unevaluated or state.scoring):
            told = "; ".join(state.unreachable)
            raise SweepError(
                f"{root}: no weights were kept (keep: none, or geosweep clean): {told}"
            )
        folder.request_evaluations(root, wanted)
        if state.unevaluated or state.scoring:
            state = replace(state, missing=[], begun=[], to_suggest=0)
            forecast = estimates.Forecast(estimates.left(request, state), {}, {}, 0)
            ran = _run(request, state, None, forecast, console)
            return replace(folder.inspect(root, wanted), worked=True, **ran)
        return state


def _prepare(request: folder.Request, console: Console) -> None:
    """Prepare a folder that this driver holds: set damaged files aside, check the data."""
    root = request.root
    for line in folder.mend(root):
        _say(console, f"{root}/{line}")
    storage.delete(root, places.PROGRESS)  # written by an earlier driver
    same_data(request)


def _say(console: Console, line: str) -> None:
    console.print(one_line(line), highlight=False, markup=False, soft_wrap=True)


def same_data(request: folder.Request) -> None:
    """Refuse to mix trials of different data sets that have the same name."""
    columns = ["trial", "dataset", "data_checksum"]
    fix = "put that one back" if request.of_folder else "choose another folder with --out"
    for row in read_table(request.root, "trials", columns).to_pylist():
        now, then = request.checksums.get(row["dataset"]), row["data_checksum"]
        if now and then and now != then:
            raise SweepError(
                f"{request.root}: trial {row['trial']} was trained on another {row['dataset']} "
                f"(checksum {then}, now {now}); {fix}"
            )


def _study(request: folder.Request, console: Console) -> Study | None:
    """The study of a search. A damaged one is set aside; a new one gets the cells it had."""
    sweep, root = request.sweep, request.root
    if sweep.search is None:
        return None
    known = folder.description(root).suggested
    begin = partial(Study, root, sweep.search, sweep.space, sweep.fixed, known, rules=sweep.rules)
    try:
        return begin()
    except storage.Damaged as error:
        aside = ""
        if error.path in storage.list_files(root, ""):
            aside = f" (it is in {storage.set_aside(root, error.path)} now)"
        study = begin(again=True)
        there = {trial.trial for trial in study.cells}
        lost = sum(trial.trial not in there for trial in known)
        kept = f"{trials_of(len(known) - lost)} of it in {places.SWEEP}"
        without = f", without {lost} that its space does not have" if lost > 0 else ""
        _say(console, f"{error}{aside}; the search goes on from {kept}{without}")
        return study


def chosen(state: folder.State, retry: bool | None) -> folder.State:
    """Restrict the missing cells to the failed ones (True) or to the others (False)."""
    if retry is None:
        return state
    failed = set(state.ids("failed"))
    missing = [trial for trial in state.missing if (trial.trial in failed) == retry]
    if retry:
        return replace(state, missing=missing, to_suggest=0)
    return replace(state, missing=missing, left_out=failed)


def sync(root: str, console: Console) -> tuple[list[str], bool]:
    """Bring MLflow up to date with a sweep's folder.

    Returns:
        The trials that were missing there and are now logged, and whether MLflow failed.
    """
    processes.be_quiet()
    for line in set_all_aside(root):
        _say(console, f"{root}/{line}")
    state = folder.inspect(root)
    console.print("bringing MLflow up to date", highlight=False)
    tracker = Tracker(root, state.name, state.description, console.print)
    done = tracker.sync(state.rows, labels(state.trials))
    tracker.close("FINISHED" if state.complete else "FAILED")
    return done, tracker.failed


def page(root: str) -> str | None:
    """Path of a sweep's report; None if there is none or it is older than the results."""
    results = [info.mtime_ns for info in storage.infos(root, places.table_folder("trials"))]
    found = {info.base_name: info.mtime_ns for info in storage.infos(root, places.REPORT)}
    newer = results and found.get(Path(places.PAGE).name, 0) >= max(results)
    return f"{root}/{places.PAGE}" if newer else None


def report(
    root: str,
    name: str | None = None,
    mlflow: tuple[str, str] | None = None,
    compare: str | None = None,
    more: Sequence[str] = (),
    out: str | None = None,
) -> tuple[str, str | None]:
    """Write the report of a sweep into ``report/`` in its folder, in a separate process.

    Args:
        root: the sweep's folder.
        name: the sweep's name. If given, the report is also attached to the parent run in MLflow.
        mlflow: MLflow's address and the experiment to read the results from, instead of the
            folder.
        compare: folder of another sweep to compare with.
        more: folders of further sweeps, whose results are pooled with this one's.
        out: folder to write to, instead of the usual one.

    Returns:
        The path of the report's page, and why MLflow did not get the report (None if it did).

    Raises:
        SweepError: the report could not be written; the message says why.
    """
    command = processes.python("-m", "analysis.report", "--json")
    if mlflow:
        command += ["--tracking-uri", mlflow[0], "--out", out or f"{root}/{places.REPORT}"]
    elif out:
        command += ["--out", out]
    if compare:
        command += ["--compare", compare]
    command += ["--", mlflow[1] if mlflow else root, *more]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with signals.as_interrupt(), processes.child(command, text=True, **pipes) as process:
        if name:
            load_mlflow()  # as slow as the report, so import it meanwhile
        printed, errors = process.communicate()
    if process.returncode not in (0, 2):  # the process crashed
        reason = last_line(errors) if errors.strip() else f"exit status {process.returncode}"
        raise SweepError(f"report: {reason}")
    result = json.loads(printed.splitlines()[-1])
    if "error" in result:
        raise SweepError(result["error"])
    page = result["page"]
    return page, log_report(root, name, page.rpartition("/")[0]) if name else None


def _nothing_fits(
    request: folder.Request, state: folder.State, forecast: estimates.Forecast
) -> str:
    """Why no trial fits into what is left of the budget; empty if one does."""
    budget = request.sweep.budget
    if not budget.limits:
        return ""
    account = Account(request.root, budget, forecast, Meter(), cells(state))
    waiting = [*state.missing, *state.unevaluated, *([None] if state.to_suggest else [])]
    return "" if any(map(account.fits, waiting)) else account.over


def _run(
    request: folder.Request,
    state: folder.State,
    study: Study | None,
    forecast: estimates.Forecast,
    console: Console,
) -> dict[str, Any]:
    """Train and score; return what is known of the run afterwards, as fields of its state."""
    processes.be_quiet()
    rows = [state.rows[trial.trial] for trial in state.unevaluated]
    for line in replaced(rows, request.sweep.evaluations):
        _say(console, line)
    to_train = len(state.missing) + state.to_suggest
    begun = f" ({len(state.begun)} go on from a checkpoint)" if state.begun else ""
    to_evaluate = f", {len(state.unevaluated)} to evaluate" if state.unevaluated else ""
    counts = (
        f"{trials_of(state.planned)}, {to_train} to train{begun}, {len(state.scoring)} to score"
    )
    name = Text(plain(request.sweep.name), style="bold")
    console.print(name + f": {counts}{to_evaluate}; starting Ray and MLflow")
    where = request.address, room.is_here(request.address)
    with (
        processes.guarded(*where),
        _loading(request.root) as loaded,
        processes.ray_running(*where) as scratch,
    ):
        loaded()
        from tune_jobs.driver import Driver

        with _place(request, console):
            driver = Driver(request, state, study, console, scratch, forecast)
            for line in forecast.total(at_once := driver.at_once()).lines():
                _say(console, line)
            driver.run()
            ran = {"interrupted": driver.interrupted, "busy": driver.meter.busy}
            return ran | {"over_budget": driver.account.over, "at_once": at_once}


@contextmanager
def _loading(root: str) -> Iterator[Callable[[], None]]:
    """Load MLflow and Ray Tune, which takes seconds, in a thread, while Ray's processes start.

    It creates MLflow's database of the sweep, too. What it yields waits for the thread, which has
    ended when the context is left.
    """

    def load() -> None:
        with suppress(Exception):  # the driver will meet the same error
            prepare(root)
        import tune_jobs.driver  # noqa: F401

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    try:
        yield thread.join
    finally:
        with signals.ignored():  # else Ray might load after this, without its variables
            thread.join(LOADING)


def _place(request: folder.Request, console: Console) -> AbstractContextManager[None]:
    """This sweep's place on a cluster, or on its own Ray on this machine."""
    if room.is_here(request.address):
        return nullcontext()
    return place(request.address, request.sweep.name, partial(_say, console))
