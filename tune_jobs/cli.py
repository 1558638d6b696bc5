"""The command line: geosweep run | status | sync | report | ui | sweeps, and cli_cluster's."""

import errno
import os
import socket
import sys
import time
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from scoring.schemas import StoreError
from tune_jobs import cli_cluster, folder, service, sweep
from tune_jobs.board import duration, labels
from tune_jobs.tables import results_table
from tune_jobs.tracking import tracking_uri

app = typer.Typer(
    help="Does a deep network learn the geodesic between its input and output distributions in "
    "Wasserstein space? Sweep weight decay gamma, K, data set and architecture, and measure.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A sweep's folder, like runs/demo.")]

app.add_typer(cli_cluster.app)


def main() -> NoReturn:
    """Entry point: bad input ends with one message and exit status 2, never with a traceback."""
    try:
        app()
    except (sweep.SweepError, StoreError) as error:
        print(f"geosweep: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        place = f" ({error.filename})" if error.filename else ""
        print(
            f"geosweep: no space left on the disk{place}; make room, the same command goes on",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(0)


@app.command()
def run(
    name: Annotated[
        str,
        typer.Argument(metavar="SWEEP", help="A YAML file, or a name from [b]geosweep sweeps[/]."),
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder of the results; default runs/<name of the sweep>.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=V1,V2",
            help="Another value, or another axis, than the file's. May be given again.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder with NAME.npz data sets; default GEOSWEEP_DATA."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster's address; default: Ray on this machine.")
    ] = None,
    retry: Annotated[
        bool | None,
        typer.Option(
            "--retry-failed/--leave-failed",
            help="Train only the cells that failed, or all but them; default: with the missing.",
        ),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop once N cells have failed (each after two more tries); default: never.",
        ),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first: --max-failures 1.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the sweep, list its cells, start nothing.")
    ] = False,
) -> None:
    """Train and score what is missing of a sweep, and write its report.

    What is done is never trained again: the same command goes on where it was stopped, and
    adds cells when the sweep file has grown. Ctrl-C lets the epochs that are running end; a
    second one stops now.

    [b]geosweep run demo[/]                       real digits, 16 trials, two minutes
    [b]geosweep run mnist --data DIR[/]           DIR/mnist.npz is used if it is there
    [b]geosweep run table4 --set epochs=1 --set gamma=0.01,0.1 --out runs/try[/]
    [b]geosweep run demo --set seeds=5[/]         means with intervals over 5 seeds
    """
    console = Console(stderr=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    begun = time.monotonic()
    request = service.check(
        sweep.read(name, settings or []),
        out,
        data,
        address,
        retry=retry,
        max_failures=1 if fail_fast else max_failures,
    )
    if dry_run:
        _list_cells(request.sweep, console)
        return
    try:
        state = service.run(request, console)
    except KeyboardInterrupt:  # the second one
        print("geosweep: stopped; the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    console.print(results_table(state, console.width))
    page, unwritten = service.page(request.root), None
    try:
        if state.rows and (state.worked or page is None):
            page, missed = service.report(request.root, state.name)
            if missed:
                console.print(f"MLflow has no report: {missed}", highlight=False, markup=False)
    except sweep.SweepError as error:  # not bad input: what was trained is kept
        unwritten = str(error)
    failed, unfinished = state.ids("failed"), len(state.scoring) + state.to_suggest
    unfinished += sum(trial.trial not in failed for trial in state.missing)
    counts = {
        "done": len(state.ids("done")),
        "stopped early": len(state.ids("stopped")),
        "diverged": len(state.ids("diverged")),
        "failed": len(failed),
        "not finished": unfinished,
    }
    console.print(
        ("stopped: " if state.interrupted else "")
        + f"{counts.pop('done')} of {state.planned} done"
        + "".join(f", {count} {what}" for what, count in counts.items() if count)
        + (f" ({len(state.begun)} kept at their last epoch)" if state.begun else "")
        + f" in {duration(time.monotonic() - begun)}",
        highlight=False,
    )
    lines = [("report", page)] if page else []
    if state.extra:
        lines.append(("extra", f"{_some(state.extra)}: of another sweep, in this folder too"))
    lines += [
        ("tables", f"{request.root}/results/{{trials,epochs,tracks,samples}}/*.parquet"),
        ("MLflow", f"geosweep ui {_shown(request.root)}"),
    ]
    if unwritten:
        lines.append(("no report", unwritten))
    for trial in failed:
        lines.append(("failed", f"{trial}: {state.rows[trial]['error']} (errors/{trial}.txt)"))
    if failed or unfinished:
        lines.append(("go on", "the same command trains what is missing"))
    for what, where in lines:
        console.print(f"{what:8} {where}", highlight=False, markup=False, soft_wrap=True)
    if state.interrupted:
        raise typer.Exit(130)
    left_out = len(failed) if retry is False else unfinished if retry else 0
    if len(failed) + unfinished > left_out or counts["diverged"] or unwritten:
        raise typer.Exit(1)


@app.command()
def status(
    directory: Annotated[
        str | None,
        typer.Argument(metavar="[DIR]", help="A sweep's folder; on a cluster a job's id, too."),
    ] = None,
    cluster: cli_cluster.Cluster = None,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="As for [b]geosweep submit[/].")
    ] = None,
) -> None:
    """Say what of a sweep is done, running, failed and missing; asks neither Ray nor MLflow.

    With --cluster: which sweeps run there, queue, or have ended; or how far one of them is.
    """
    if cluster or address:
        cli_cluster.show(directory, cluster, address)
        return
    if directory is None:
        raise sweep.SweepError("which sweep? geosweep status DIR, or --cluster FILE for all there")
    root = folder.absolute(directory)
    state = folder.inspect(root)
    console = Console()
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
    }
    console.print(f"[bold]{state.name}[/]: {state.planned} trials", highlight=False)
    for what, count in counts.items():
        if count or what == "done":
            console.print(f"  {count:5} {what}", highlight=False)
    if state.extra:
        console.print(f"  extra, of another sweep: {_some(state.extra)}", highlight=False)
    names = labels(state.trials)
    for trial in failed:
        console.print(
            f"  failed {trial} ({names[trial]}): {state.rows[trial]['error']}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    live = folder.progress(root)
    if live and folder.held(root) and not state.complete:
        left = live["seconds_left"]
        words = f"about {duration(left)} left" if left is not None else "just begun"
        console.print(f"running now, {words}:", highlight=False)
        for cell in live["running"].values():
            console.print(f"  {cell['label']}: epoch {max(cell['epoch'], 0)} of {cell['epochs']}")
    elif not state.complete:
        console.print("not running; geosweep run goes on with it", highlight=False)


@app.command()
def sync(directory: Folder) -> None:
    """Bring MLflow up to date with a sweep's results: after it was away, or is another one."""
    root = folder.absolute(directory)
    folder.inspect(root)
    with folder.hold(root):
        done, missed = service.sync(root, Console())
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
    cluster: cli_cluster.Cluster = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 5000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is this machine only.")
    ] = "127.0.0.1",
) -> None:
    """Serve a sweep's MLflow pages on this machine, until Ctrl-C; with --cluster the cluster's."""
    if cluster:
        cli_cluster.serve(cluster, port)
        return
    if directory is None:
        raise sweep.SweepError("which sweep? geosweep ui DIR, or --cluster FILE")
    root = folder.absolute(directory)
    folder.inspect(root)
    uri = tracking_uri(root)
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            raise sweep.SweepError(
                f"{host}:{port}: {error.strerror}; choose another --port"
            ) from None
    print(f"http://{host}:{port}  ({uri}; Ctrl-C to stop)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, command)


@app.command()
def sweeps() -> None:
    """List the built-in sweeps."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sweep", no_wrap=True)
    table.add_column("trials", justify="right")
    table.add_column("what")
    for name in sweep.builtin():
        found = sweep.read(name)
        table.add_row(name, str(len(found.trials)), found.description)
    console = Console()
    console.print(table)
    console.print(
        "\ngeosweep run NAME, or a YAML file of your own (they are examples: "
        f"{os.path.relpath(next(iter(sweep.builtin().values())).parent)})",
        highlight=False,
    )


def _list_cells(found: sweep.Sweep, console: Console) -> None:
    """What a sweep would train."""
    names = labels(found.trials)
    if found.search:
        axes = ", ".join(found.space)
        console.print(f"{found.name}: {found.search.trials} cells, suggested over {axes}")
        return
    console.print(f"{found.name}: {len(found.trials)} cells")
    for trial, label in names.items():
        console.print(f"  {trial}  {label}", highlight=False, markup=False)


def _some(trials: list[str], most: int = 5) -> str:
    more = f" and {len(trials) - most} more" if len(trials) > most else ""
    return ", ".join(trials[:most]) + more


def _shown(root: str) -> str:
    relative = os.path.relpath(root) if "://" not in root else root
    return root if relative.startswith("..") else relative


if __name__ == "__main__":
    main()
