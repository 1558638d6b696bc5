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

from tune_jobs import folder, service
from tune_jobs.cluster.reach import answers
from tune_jobs.commands import cluster as cluster_commands
from tune_jobs.commands.ending import output, some
from tune_jobs.errors import SweepError
from tune_jobs.labels import duration, labels
from tune_jobs.tracking import is_there, tracking_uri

app = typer.Typer()

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A sweep's folder, like runs/demo.")]


@app.command()
def status(
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]",
            help="A sweep's folder; on a cluster a job's id, too, or the folder's name (table4).",
        ),
    ] = None,
    cluster: cluster_commands.Cluster = None,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="As for [b]geosweep submit[/].")
    ] = None,
) -> None:
    """Say what of a sweep is done, running, failed and missing; asks neither Ray nor MLflow.

    With --cluster: which sweeps run there, queue, or have ended; or how far one of them is.
    """
    if cluster or address:
        cluster_commands.show(directory, cluster, address)
        return
    if directory is None:
        raise SweepError("which sweep? geosweep status DIR, or --cluster FILE for all there")
    root = folder.absolute(directory)
    state = folder.inspect(root)
    console = output()
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
    console.print(f"[bold]{state.name}[/]: {state.planned} trials", highlight=False)
    for what, count in counts.items():
        if count or what == "done":
            console.print(f"  {count:5} {what}", highlight=False)
    if state.extra:
        console.print(f"  extra, of another sweep: {some(state.extra)}", highlight=False)
    names = labels(state.trials)
    for trial in failed:
        console.print(
            f"  failed {trial} ({names[trial]}): {state.rows[trial]['error']}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    holder, live = folder.holder(root), folder.progress(root)
    if holder and live and not state.complete:
        left = live["seconds_left"]
        words = f"about {duration(left)} left" if left is not None else "just begun"
        placed = ":" if live["running"] else "; no trial has its place yet"
        console.print(f"running now, {words}{placed}", highlight=False)
        for cell in live["running"].values():
            line = f"  {cell['label']}: epoch {max(cell['epoch'], 0)} of {cell['epochs']}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    elif holder and not state.complete:
        console.print(f"starting ({holder} holds the folder)", highlight=False, markup=False)
    elif not state.complete:
        only = state.unevaluated and not (state.missing or state.scoring or state.to_suggest)
        asked = " ".join(state.evaluations)
        command = f"geosweep evaluate {root} {asked}" if only else "geosweep run"
        console.print(f"not running; {command} goes on with it", highlight=False, soft_wrap=True)


@app.command()
def sync(directory: Folder) -> None:
    """Bring MLflow up to date with a sweep's results: after it was away, or is another one."""
    root = folder.absolute(directory)
    folder.inspect(root)
    with folder.hold(root):
        done, missed = service.sync(root, output())
    print(f"{len(done)} trials logged to {tracking_uri(root)}")
    if missed:
        raise typer.Exit(1)


@app.command()
def report(
    directory: Folder,
    mlflow: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="URI EXPERIMENT",
            help="Read the results from MLflow instead; DIR gets the report alone.",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="DIR2", help="Another sweep, to compare the cells that both have."),
    ] = None,
) -> None:
    """Write report/index.html: the answer, the paper's claims, tables and figures, correlations.

    Works on a half-finished sweep, too. The sweep's run in MLflow gets the same pages.

    [b]geosweep report runs/demo[/]
    [b]geosweep report runs/demo --compare runs/other-seeds[/]
    [b]geosweep report out --mlflow sqlite:///runs/demo/mlflow.db demo[/]
    """
    root = folder.absolute(directory)
    name = None if mlflow else folder.inspect(root).name
    page, missed = service.report(root, name, mlflow, compare)
    print(page)
    if missed:
        print(f"geosweep: MLflow has no report: {missed}", file=sys.stderr)


@app.command()
def ui(
    directory: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="A sweep's folder, like runs/demo.")
    ] = None,
    cluster: cluster_commands.Cluster = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 5000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is this machine only.")
    ] = "127.0.0.1",
) -> None:
    """Serve a sweep's MLflow pages on this machine, until Ctrl-C; with --cluster the cluster's."""
    if cluster:
        cluster_commands.serve(cluster, port)
        return
    if directory is None:
        raise SweepError("which sweep? geosweep ui DIR, or --cluster FILE")
    root = folder.absolute(directory)
    folder.inspect(root)
    uri = tracking_uri(root)
    here = "127.0.0.1" if host == "0.0.0.0" else host
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            raise SweepError(f"{host}:{port}: {error.strerror}; choose another --port") from None
    if not is_there(uri):
        raise SweepError(
            f"{root}: MLflow on this machine has nothing of it yet; geosweep sync {directory}"
        )
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # through `finally`
    quiet = {"PYTHONWARNINGS": "ignore"}  # of what MLflow is made of
    # In a session of its own, or Ctrl-C would have it end with tracebacks.
    server = subprocess.Popen(command, env=quiet | os.environ, start_new_session=True)
    try:
        while server.poll() is None and not answers(port, here):
            time.sleep(0.2)
        if server.poll() is None:
            print(f"http://{host}:{port}  ({uri}; Ctrl-C to stop)", flush=True)
        raise typer.Exit(server.wait())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
