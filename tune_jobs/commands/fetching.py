"""Copying what a cluster has of a sweep or a probe to this machine."""

import json
from pathlib import Path
from urllib.parse import unquote

import typer

from models.messages import first_line, plain
from scoring import places, storage
from scoring.places import argument
from tune_jobs import folder, lease, service, sweep
from tune_jobs.cluster import reach
from tune_jobs.commands import plan, targets
from tune_jobs.errors import SweepError
from tune_jobs.kept import Description
from tune_jobs.labels import trials_of
from tune_jobs.mlflow_store import tracking_uri
from tune_jobs.terminal import output, say


def is_empty(there: str) -> bool:
    """Whether no job has written to a sweep's folder yet, which the nodes share with us."""
    return not storage.list_files(there, "")


def as_uri(there: str) -> str:
    """A folder's path as a URI; Slurm's nodes share it with this machine."""
    if "://" in there:
        return there
    storage.refuse_links(there)
    return Path(there).as_uri()


def target(there: str, out: str | None) -> str:
    """The folder on this machine that a folder on a cluster comes to.

    Raises:
        SweepError: the last part of the folder there could not be the name of a sweep.
    """
    hint = "; name a folder with --out"
    return folder.absolute(out or f"runs/{name_of(there, hint)}")


def name_of(there: str, hint: str = "") -> str:
    """The name of a folder on a cluster.

    Raises:
        SweepError: it could not be the name of a sweep; the message ends with the hint.
    """
    try:
        return sweep.check_name(unquote(there.rpartition("/")[2]))
    except ValueError as error:
        raise SweepError(f"{there}: its last part {error}{hint}") from None


def probe(cluster: str | None, there: str, root: str) -> None:
    """Copy the results of a probe.

    Raises:
        SweepError: the folder here is a sweep's, or the results cannot be copied.
    """
    targets.refuse_sweep(root)
    reach.fetch(cluster, there, root)
    say(f"probe    {plain(root, folder.LONGEST)}")


def results(cluster: str | None, there: str, root: str, checkpoints: bool, named: bool) -> None:
    """Copy a sweep's tables, and make its report and MLflow's runs again.

    Args:
        cluster: its file, if the folder is a path on its nodes.
        there: the sweep's folder.
        root: the folder here.
        checkpoints: whether to copy the networks, too.
        named: whether the user named the folder here; if not, it may hold no other sweep.

    Raises:
        SweepError: the folder here holds another sweep, or the results cannot be copied.
        typer.Exit: MLflow or the report lacks something.
    """
    targets.refuse_inner(root)
    if not named and folder.begun(root):
        plan.keep_apart(_planned(cluster, there), root)
    wanted = (places.CHECKPOINTS, places.PENDING) if checkpoints else ()
    left = [name for name in reach.LEFT if name not in wanted]
    with lease.hold(root):
        reach.fetch(cluster, there, root, left)
        state = folder.inspect(root)
        done, missed = service.sync(root, output())
    if state.rows:
        page, unseen = service.report(root, state.name)
        missed = missed or unseen is not None
        say(f"report   {plain(page, folder.LONGEST)}")
    say(f"trials   {len(state.rows)} of {state.planned}")
    say(f"tables   {plain(root, folder.LONGEST)}/results")
    new = f"{tracking_uri(root)} ({trials_of(len(done))} new)"
    say(f"MLflow   {new}; geosweep ui {argument(root)}")
    if missed:
        raise typer.Exit(1)


def _planned(cluster: str | None, there: str) -> sweep.Sweep:
    """The sweep in a folder on a cluster, with all trials that it has ever had."""
    content = reach.read(cluster, there, places.SWEEP)
    if content is None:
        raise SweepError(f"{there}: no sweep there (no {places.SWEEP})")
    try:
        known = Description.model_validate(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise SweepError(f"{there}/{places.SWEEP}: torn: {first_line(error)}") from None
    trials = [*known.trials, *known.extra]
    return sweep.Sweep(known.name, known.description, trials, known.resources, source=there)
