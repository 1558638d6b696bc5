"""Run a sweep: Ray Tune trains what is missing, scorers finish it, MLflow shows it."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from rich.console import Console

from models import datasets
from tune_jobs import folder
from tune_jobs.sweep import Sweep, SweepError
from tune_jobs.tracking import load_mlflow


def check(sweep: Sweep, out: str | None, data: str | None, address: str | None) -> folder.Request:
    """Everything that can be wrong before anything starts.

    Prepares the data sets on this machine, which downloads those that are not here.

    Raises:
        SweepError: the message names the file, the field and what is allowed.
    """
    if data is not None and not Path(data).expanduser().is_dir():
        raise SweepError(f"--data {data}: no such folder")
    cores, cpus = os.cpu_count() or 1, sweep.resources.cpus
    if address is None and "RAY_ADDRESS" not in os.environ and cpus > cores:
        raise SweepError(
            f"{sweep.source}: resources.cpus = {cpus:g}: this machine has {cores} cores"
        )
    sources = {}
    for trial in sweep.trials:
        name = trial.dataset
        if name not in sources:
            try:
                sources[name] = datasets.locate(name, data)
                loaded = datasets.load(name, data)
            except datasets.DataError as error:
                raise SweepError(f"{sweep.source}: dataset: {error}") from error
            most = max(t.points for t in sweep.trials if t.dataset == name)
            if most > len(loaded.y_test):
                raise SweepError(
                    f"{sweep.source}: points = {most}: {name} has {len(loaded.y_test)} test images"
                )
    root = folder.absolute(out or f"runs/{sweep.name}")
    return folder.Request(sweep, root, data, address, sources)


def run(request: folder.Request, console: Console) -> folder.State:
    """Train and score whatever of a sweep is not done yet; where it stands afterwards."""
    root = request.root
    with folder.hold(root):
        folder.claim(root, request.sweep)
        state = folder.inspect(root)
        if state.missing or state.scoring:
            _run(request, state, console)
            state = folder.inspect(root)
    return state


def report(root: str) -> str:
    """Write the report of a sweep's folder, in a process of its own; the path of its page.

    Raises:
        SweepError: it could not be written; the message says why.
    """
    command = [sys.executable, "-m", "analysis.report", root]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise SweepError(f"report: {lines[-1]}")
    return done.stdout.strip().splitlines()[-1]


def _run(request: folder.Request, state: folder.State, console: Console) -> None:
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints boxes when told not to
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # MLflow takes seconds to import; Ray's processes take as long to start.
    early = threading.Thread(target=load_mlflow, daemon=True)
    early.start()
    console.print(
        f"[bold]{request.sweep.name}[/]: {len(state.trials)} trials, {len(state.missing)} to "
        f"train{_going_on(state)}, {len(state.scoring)} to score; starting Ray and MLflow",
        highlight=False,
    )
    import ray

    from tune_jobs.driver import Driver

    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(
                address=request.address,
                include_dashboard=False if request.address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise SweepError(f"Ray at {request.address or 'this machine'}: {lines[0]}") from error
    try:
        early.join()
        Driver(request, state, console).run()
    finally:
        if mine:
            ray.shutdown()


def _going_on(state: folder.State) -> str:
    return f" ({len(state.begun)} go on from a checkpoint)" if state.begun else ""
