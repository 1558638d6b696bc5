"""The commands on a sweep's folder: geosweep status | sync | report | ui."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.text import Text

from models.messages import plain
from scoring import places, storage
from scoring.places import argument
from tune_jobs import disk, folder, processes, service
from tune_jobs.cluster.reach import answers
from tune_jobs.commands import cluster as cluster_commands
from tune_jobs.commands import options
from tune_jobs.commands.ending import some
from tune_jobs.errors import SweepError
from tune_jobs.labels import duration, labels
from tune_jobs.mlflow_store import adopt, is_there, server, tracking_uri
from tune_jobs.terminal import complain, output, say

app = typer.Typer()


@app.command(rich_help_panel="Results")
def status(
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]",
            help="A sweep's folder. On a cluster also a job id, or the folder's name, like table4.",
        ),
    ] = None,
    cluster: options.Cluster = None,
    address: Annotated[  # not from the environment, where it would redirect every status
        str | None, typer.Option(metavar="URL", help="As for [b]geosweep submit[/].")
    ] = None,
) -> None:
    """Show which trials of a sweep are done, running, failed or missing.

    It reads the folder alone, so it works while the sweep runs and without
    Ray or MLflow. With --cluster it lists the sweeps that run, wait or have
    ended there, or shows one of them.

    [b]geosweep status runs/demo[/]
    [b]geosweep status --cluster ray_cluster.yaml[/]
    [b]geosweep status table4 --cluster ray_cluster.yaml[/]
    """
    if cluster or address:
        cluster_commands.show(directory, cluster, address)
        return
    if directory is None:
        raise SweepError("which sweep? geosweep status DIR, or --cluster FILE for all there")
    root = folder.absolute(directory)
    state = folder.inspect(root)
    _show_counts(state)
    names = labels(state.trials)
    for trial in state.ids("failed"):
        say(f"  failed {trial} ({names[trial]}): {state.rows[trial]['error']}")
    if not state.complete:
        _show_driver(state)


def _show_counts(state: folder.State) -> None:
    """How many trials there are of each kind."""
    failed = state.ids("failed")
    counts = {
        "done": len(state.ids("done")),
        "stopped early": len(state.ids("stopped")),
        "diverged": len(state.ids("diverged")),
        "failed": len(failed),
        "to score": len(state.scoring),
        "begun, go on from a checkpoint": len(set(state.begun) - set(failed)),
        "missing": len({t.trial for t in state.missing} - {*state.begun, *failed}),
        "to be suggested by the search": state.to_suggest,
        "to evaluate": len(state.unevaluated),
        "to evaluate, but kept no weights": len(state.weightless),
    }
    title = Text.assemble((plain(state.name), "bold"), f": {state.planned} trials")
    output().print(title, soft_wrap=True)
    for what, count in counts.items():
        if count or what == "done":
            say(f"  {count:5} {what}")
    for told in state.unreachable:
        say(f"  no weights: {told}")
    if state.extra:
        say(f"  extra, of another sweep: {some(state.extra)}")
    there = disk.sizes(state.root)
    size = sum(each for each, _ in there.values())
    weights = sum(n for path, (n, _) in there.items() if path.startswith(f"{places.CHECKPOINTS}/"))
    merged = sum(each for path, (each, _) in there.items() if path.endswith(places.MERGED))
    told = f" and {decimal(merged)} merged files, which may be deleted" if merged else ""
    say(f"size: {decimal(size)}, of which {decimal(weights)} are checkpoints{told}")


def _show_driver(state: folder.State) -> None:
    """Who trains what is missing now, or how to continue."""
    holder, live = folder.holder(state.root), folder.progress(state.root)
    if holder and live:
        left = live["seconds_left"]
        words = f"about {duration(left)} left" if left is not None else "just begun"
        placed = ":" if live["running"] else "; no trial has its place yet"
        say(f"running now, {words}{placed}")
        for cell in live["running"].values():
            say(f"  {cell['label']}: epoch {max(cell['epoch'], 0)} of {cell['epochs']}")
    elif holder:
        say(f"starting ({holder} holds the folder)")
    else:
        only = state.unevaluated and not (state.missing or state.scoring or state.to_suggest)
        names = " ".join(state.evaluations)
        command = f"geosweep evaluate {argument(state.root)} {names}" if only else "geosweep run"
        say(f"not running; {command} continues")


@app.command(rich_help_panel="Results")
def sync(directory: options.Folder) -> None:
    """Add to MLflow the results that it does not have yet.

    Needed after MLflow was unreachable during a sweep, or after you set
    MLFLOW_TRACKING_URI to another server. Runs that exist are completed, not
    copied.

    [b]geosweep sync runs/demo[/]
    """
    root = folder.absolute(directory)
    folder.inspect(root)
    with folder.hold(root):
        done, missed = service.sync(root, output())
    say(f"{len(done)} trials logged to {tracking_uri(root)}")
    if missed:
        raise typer.Exit(1)


@app.command(rich_help_panel="Results")
def report(
    directory: options.Folder,
    mlflow: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="URI EXPERIMENT",
            help="Read the results from MLflow instead; DIR then only receives the report.",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="DIR2", help="Compare with another sweep, on the cells of both."),
    ] = None,
) -> None:
    """Write report/index.html: the answer, the paper's claims, tables, figures and correlations.

    Every sweep gets a report when it ends; this command writes it again, or
    early, while the sweep is half done. The sweep's run in MLflow gets the
    same pages.

    [b]geosweep report runs/demo[/]
    [b]geosweep report runs/demo --compare runs/other-seeds[/]
    [b]geosweep report out --mlflow sqlite:///runs/demo/mlflow.db demo[/]
    """
    root = folder.absolute(directory)
    storage.refuse_links(root)
    name = None if mlflow else folder.inspect(root).name
    page, missed = service.report(root, name, mlflow, compare)
    say(page)
    if missed:
        complain(f"MLflow has no report: {missed}")


@app.command(rich_help_panel="Results")
def ui(
    directory: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="A sweep's folder, like runs/demo.")
    ] = None,
    cluster: options.Cluster = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, show_default=True, help="Port of the pages.")
    ] = 5000,
    host: Annotated[
        str,
        typer.Option(
            show_default=True,
            help="Address to listen on. MLflow has no passwords: whoever reaches it can read "
            "and change every run.",
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve MLflow's pages of a sweep until Ctrl-C.

    Only this machine can open them unless --host says otherwise. With
    --cluster they are the pages of the cluster, through SSH.

    [b]geosweep ui runs/demo[/]
    [b]geosweep ui runs/demo --port 5001[/]
    [b]geosweep ui --cluster ray_cluster.yaml[/]
    """
    if cluster:
        cluster_commands.serve(cluster, port)
        return
    if directory is None:
        raise SweepError("which sweep? geosweep ui DIR, or --cluster FILE")
    root = folder.absolute(directory)
    storage.refuse_links(root)
    folder.inspect(root)
    _check_port(host, port)
    if not is_there(tracking_uri(root)):
        raise SweepError(
            f"{root}: MLflow on this machine has no results of it yet; "
            f"geosweep sync {argument(directory)}"
        )
    adopt(root, complain)
    with server(root) as (environment, place):
        raise typer.Exit(_serve(tracking_uri(root), host, port, environment, place))


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            raise SweepError(f"{host}:{port}: {error.strerror}; choose another --port") from None


def _serve(uri: str, host: str, port: int, environment: dict[str, str], place: str | None) -> int:
    """Run MLflow's server until it ends or is interrupted; its exit status.

    Args:
        uri: what is served, to be printed.
        host: address to listen on.
        port: likewise.
        environment: variables that the server gets, and
        place: its current folder; both from :func:`tune_jobs.mlflow_store.server`.
    """
    command = processes.python("-m", "mlflow", "server", "--host", host, "--port", str(port))
    command += ["--workers", "1"]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # so that `finally` ends the server
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    quiet["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # 3 processes instead of 11
    quiet["PYTHONWARNINGS"] = "ignore"  # MLflow's dependencies warn when they are imported.
    quiet["UVICORN_APP_DIR"] = os.devnull  # else MLflow's uvicorn imports from the current folder
    variables = quiet | os.environ | processes.environment() | environment
    # Ctrl-C must not reach the server: it would print tracebacks. Hence a session of its own.
    process = subprocess.Popen(command, env=variables, cwd=place, start_new_session=True)
    here = "127.0.0.1" if host == "0.0.0.0" else host
    try:
        while process.poll() is None and not answers(port, here):
            time.sleep(0.2)
        if process.poll() is None:
            say(f"http://{host}:{port}  ({uri}; Ctrl-C to stop)")
        return process.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
