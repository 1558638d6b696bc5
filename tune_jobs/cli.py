"""The command line: geosweep run | evaluate | status | sync | report | ui | sweeps."""

import errno
import os
import socket
import sys
import time
from dataclasses import replace
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from scoring.schemas import StoreError
from tune_jobs import cli_cluster, folder, service, sweep
from tune_jobs.board import duration, labels
from tune_jobs.evaluations import NAMES, EvaluationError
from tune_jobs.evaluations import read as read_evaluations
from tune_jobs.tables import end, results_table, some
from tune_jobs.tracking import is_there, tracking_uri

app = typer.Typer(
    help="Does a deep network learn the geodesic between its input and output distributions in "
    "Wasserstein space? Sweep weight decay gamma, K, data set and architecture, and measure.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A sweep's folder, like runs/demo.")]
Data = Annotated[
    str | None, typer.Option(help="Folder with NAME.npz data sets; default GEOSWEEP_DATA.")
]
Address = Annotated[
    str | None, typer.Option(help="A Ray cluster's address; default: Ray on this machine.")
]

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
    data: Data = None,
    address: Address = None,
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
    console = _console()
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
    failed, unfinished = len(state.ids("failed")), state.unfinished
    left_out = failed if retry is False else unfinished if retry else 0
    lacking = failed + unfinished > left_out or bool(state.ids("diverged"))
    raise typer.Exit(end(request, state, console, begun, lacking))


@app.command()
def evaluate(
    directory: Folder,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"Of {', '.join(NAMES)}; default: all."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME.SETTING=V1,V2",
            help="Another setting than the default, like noise.levels=0,8,16. May be given again.",
        ),
    ] = None,
    data: Data = None,
    address: Address = None,
) -> None:
    """Try how robust the trained networks of a sweep are; trains nothing.

    The same as [b]evaluations:[/] of a sweep file, for trials that are done and kept their weights.
    What was evaluated is not evaluated again: killed half-way, the same command goes on.

    [b]lesion[/]      units of a block as they were before it (Fig. 7); blocks skipped, swapped
    [b]noise[/]       Gaussian noise (Fig. 8); [b]noise.levels[/] in pixel values, 0 to 255
    [b]fgsm[/]        the fast gradient sign method (Fig. 8); [b]fgsm.levels[/], likewise
    [b]pgd[/]         projected gradient descent; [b]pgd.levels[/], [b]pgd.steps[/]
    [b]separation[/]  does noise mix up points of close tracks first? [b]separation.level[/]

    [b]geosweep evaluate runs/demo noise fgsm[/]
    [b]geosweep evaluate runs/mnist pgd --set pgd.steps=40 --data DIR[/]
    """
    console = _console()
    begun = time.monotonic()
    root = folder.absolute(directory)
    known = folder.as_sweep(root)
    try:
        wanted = read_evaluations(names or [], settings or [], known.evaluations)
    except EvaluationError as error:
        raise sweep.SweepError(str(error)) from None
    asked = replace(known, evaluations=wanted)
    request = service.check(asked, root, data, address)
    try:
        state = service.evaluate(request, console)
    except KeyboardInterrupt:  # the second one
        print("geosweep: stopped; the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    raise typer.Exit(end(request, state, console, begun))


def _console() -> Console:
    console = Console(stderr=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console


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
    live = folder.progress(root)
    if live and folder.held(root) and not state.complete:
        left = live["seconds_left"]
        words = f"about {duration(left)} left" if left is not None else "just begun"
        console.print(f"running now, {words}:", highlight=False)
        for cell in live["running"].values():
            console.print(f"  {cell['label']}: epoch {max(cell['epoch'], 0)} of {cell['epochs']}")
    elif not state.complete:
        only = state.unevaluated and not (state.missing or state.scoring or state.to_suggest)
        asked = " ".join(folder.as_sweep(root).evaluations)
        command = f"geosweep evaluate {root} {asked}" if only else "geosweep run"
        console.print(f"not running; {command} goes on with it", highlight=False)


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
    if not is_there(uri):
        raise sweep.SweepError(
            f"{root}: MLflow on this machine has nothing of it yet; geosweep sync {directory}"
        )
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


if __name__ == "__main__":
    main()
