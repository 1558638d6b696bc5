"""The commands on a sweep's folder: geosweep status | sync | report | ui."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from models.messages import plain
from scoring import places, storage
from scoring.places import argument
from tune_jobs import folder, lease, mlflow_views, processes, service
from tune_jobs import status as standing
from tune_jobs.cluster.at import At
from tune_jobs.commands import cluster as cluster_commands
from tune_jobs.commands import options, serving
from tune_jobs.errors import SweepError
from tune_jobs.kept import below
from tune_jobs.labels import trials_of
from tune_jobs.mlflow_store import SQLITE, adopt, is_there, server, tracking_uri
from tune_jobs.terminal import complain, one_line, output, say, table

app = typer.Typer()


@app.command(rich_help_panel="Results")
def status(
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]",
            help="A sweep's folder, like runs/demo, or one with many sweeps, like runs. On a "
            "cluster also a job id, or the folder's name, like table4; by default all sweeps "
            "there.",
        ),
    ] = None,
    cluster: options.Cluster = None,
    slurm: options.Slurm = None,
    address: Annotated[  # not from the environment, where it would redirect every status
        str | None, typer.Option(metavar="URL", help=options.DASHBOARD)
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON instead: also the status, epoch and scores of each trial."
        ),
    ] = False,
) -> None:
    """Show which trials of a sweep are done, running, failed or missing.

    It reads the folder alone, so it works while the sweep runs and without
    Ray or MLflow. Of a folder with many sweeps it shows a line for each. With
    --cluster or --slurm it lists the sweeps that run, wait or have ended
    there, or shows one of them.

    [b]geosweep status runs/demo[/]
    [b]geosweep status runs[/]                                    all sweeps there
    [b]geosweep status runs/demo --json[/]                        for a script
    [b]geosweep status --cluster ray_cluster.yaml[/]
    [b]geosweep status table4 --cluster ray_cluster.yaml[/]
    [b]geosweep status table4 --slurm clusters/slurm.yaml[/]
    """
    if cluster or address or slurm:
        if as_json:
            raise SweepError("--json reads a folder; leave it out with --cluster or --slurm")
        cluster_commands.show(directory, At(cluster, address, slurm))
        return
    if directory is None:
        raise SweepError("which sweep? geosweep status DIR, or --cluster FILE for all there")
    root = folder.absolute(directory)
    sweeps = below(root)
    if as_json:
        several = {"folder": root, "sweeps": [_told(each) for each in sweeps]}
        say(json.dumps(several if sweeps else standing.as_json(standing.status(root)), indent=1))
        return
    if sweeps:
        output().print(_overview(sweeps))
        return
    found = standing.status(root)
    name = plain(found.name)
    title = Text.assemble((name, "bold"), found.lines[0].removeprefix(name))
    output().print(title, soft_wrap=True)
    for line in found.lines[1:]:
        say(line)


def _overview(sweeps: list[str]) -> Table:
    """A line for each sweep, also for one whose folder is damaged."""
    made = table(["sweep"], ["done", "failed", "size"])
    made.add_column("", overflow="fold")
    for root in sweeps:
        try:
            found = standing.status(root)
        except (SweepError, storage.StoreError, OSError) as error:
            made.add_row(folder.shown(root), "", "", "", one_line(str(error)))
            continue
        done, failed = found.counts["done"], len(found.errors)
        counts = [f"{done} of {found.planned}", str(failed or ""), decimal(found.size)]
        made.add_row(folder.shown(root), *counts, standing.in_words(found))
    return made


def _told(root: str) -> dict[str, Any]:
    """A sweep of several as JSON values, also one whose folder is damaged."""
    try:
        return standing.as_json(standing.status(root))
    except (SweepError, storage.StoreError, OSError) as error:
        return {"folder": root, "error": str(error)}


@app.command(rich_help_panel="Results")
def sync(directory: options.Folder) -> None:
    """Add to MLflow the results of a sweep that it does not have yet.

    You need it after MLflow was unreachable during a sweep, or after you set
    MLFLOW_TRACKING_URI to another server. Runs that exist are completed, not
    copied.

    [b]geosweep sync runs/demo[/]
    """
    root = folder.absolute(directory)
    folder.inspect(root)
    with lease.hold(root):
        done, missed = service.sync(root, output())
    say(f"{trials_of(len(done))} logged to {tracking_uri(root)}")
    if missed:
        raise typer.Exit(1)


@app.command(rich_help_panel="Results")
def report(
    directories: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR...", help="A sweep's folder, like runs/demo, or several, which are pooled."
        ),
    ],
    mlflow: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="URI EXPERIMENT",
            help="Read the results from MLflow instead; DIR then only receives the report.",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="DIR2",
            help="Compare with another sweep, on the cells of both; the "
            "page is report/against-DIR2/index.html.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder to write to. Default: report in DIR; for several sweeps a folder beside "
            "the first.",
        ),
    ] = None,
) -> None:
    """Write the report of a sweep: the answer, the paper's claims, tables and figures.

    The page is report/index.html in DIR; the command prints its path. Every
    sweep gets a report when it ends; this command writes it again, or early,
    while the sweep is half done. The sweep's run in MLflow gets the same pages.
    A comparison has a page of its own, in report/against-DIR2.

    Of several folders it makes one report. Cells that they share get the seeds
    of all. A trial that several of them have is counted once.

    [b]geosweep report runs/demo[/]
    [b]geosweep report runs/demo runs/more-seeds --out runs/all[/]
    [b]geosweep report runs/demo --compare runs/other-seeds[/]
    [b]geosweep report out --mlflow sqlite:///runs/demo/mlflow.db demo[/]
    """
    root, *more = (folder.absolute(directory) for directory in directories)
    if more and (mlflow or compare):
        raise SweepError("a report on several folders takes neither --mlflow nor --compare")
    for one in (root, *more):
        storage.refuse_links(one)
    states = [] if mlflow else [folder.inspect(one) for one in (root, *more)]
    # A comparison, or a report elsewhere, is not the sweep's report.
    name = states[0].name if states and not (compare or more or out) else None
    there = folder.absolute(out) if out else None
    page, missed = service.report(root, name, mlflow, compare, more, there)
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

    It prints two links: to the trials as rows with their scores, and to
    their curves by epoch. Only this machine can open the pages unless --host
    says otherwise. With --cluster they are the pages of the cluster, through SSH.

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
    name: str | None = folder.inspect(root).name
    serving.check_port(host, port)
    _check_own(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if not is_there(tracking_uri(root)):
        raise SweepError(
            f"{root}: MLflow on this machine has no results of it yet; "
            f"geosweep sync {argument(directory)}"
        )
    name = name if adopt(root, complain) else None  # an empty database has no views yet
    with server(root) as (environment, place):
        raise typer.Exit(_serve(root, name, host, port, environment, place))


def _check_own(uri: str) -> None:
    """Check an MLflow of the user's own, whose pages a server here should show.

    Raises:
        SweepError: it has pages of its own, or is a file that is no database of MLflow.
    """
    what = f"MLFLOW_TRACKING_URI={places.redact(uri)}"
    if uri.startswith(("http://", "https://")):
        raise SweepError(f"{what}: a server, which shows its pages itself; open that address")
    path = Path(unquote(uri.removeprefix(SQLITE).partition("?")[0]))
    if not uri.startswith(SQLITE) or not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("SELECT 1 FROM experiments")
    except sqlite3.Error as error:
        raise SweepError(
            f"{what}: no database of MLflow: {error}; give another address, or unset the variable"
        ) from error


def _serve(
    root: str,
    name: str | None,
    host: str,
    port: int,
    environment: dict[str, str],
    place: str | None,
) -> int:
    """Run MLflow's server until it ends or is interrupted; its exit status.

    Args:
        root: the sweep's folder.
        name: the sweep's name; None prints no links to its views.
        host: address to listen on.
        port: likewise.
        environment: variables that the server gets, and
        place: its current folder; both from :func:`tune_jobs.mlflow_store.server`.
    """
    command = processes.python("-m", "mlflow", "server", "--host", host, "--port", str(port))
    command += ["--workers", "1"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    quiet["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # 3 processes instead of 11
    quiet["PYTHONWARNINGS"] = "ignore"  # MLflow's dependencies warn when they are imported.
    quiet["UVICORN_APP_DIR"] = os.devnull  # else MLflow's uvicorn imports from the current folder
    variables = quiet | os.environ | processes.environment() | environment
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def lines() -> list[str]:
        first = f"{address}  ({places.redact(tracking_uri(root))}; Ctrl-C to stop)"
        there = mlflow_views.shared(root, name, address) if name else {}
        return [first, *(f"{what:8} {link}" for what, link in there.items())]

    return serving.serve(command, host, port, lines, variables, place)
