"""The commands that speak to a cluster: geosweep submit | logs | stop | fetch | down."""

import sys
import time
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console

from scoring import places
from tune_jobs import folder, service, sweep
from tune_jobs.cluster import jobs, reach
from tune_jobs.errors import SweepError
from tune_jobs.tracking import tracking_uri

app = typer.Typer()

Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="The cluster's file, as for ray up; the way there is an SSH tunnel."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="Where its dashboard is reached already, like http://127.0.0.1:8265.",
    ),
]
Which = Annotated[
    str | None,
    typer.Argument(
        metavar="[JOB|DIR]",
        help="A job's id, a sweep's folder on the cluster, or that folder's name, like table4; "
        "default: the last sweep.",
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the log until the sweep ends.")]


@app.command()
def submit(
    name: Annotated[
        str,
        typer.Argument(metavar="SWEEP", help="A YAML file, or a name from [b]geosweep sweeps[/]."),
    ],
    cluster: Cluster = None,
    address: Address = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder of the results as all nodes reach it; a name is taken below the "
            "cluster's GEOSWEEP_STORAGE. Default: the sweep's name."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=V1,V2", help="As for [b]geosweep run[/]."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder with NAME.npz data sets, on the head.")
    ] = None,
    retry: Annotated[
        bool | None,
        typer.Option("--retry-failed/--leave-failed", help="As for [b]geosweep run[/]."),
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="As for [b]geosweep run[/].")
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="As for [b]geosweep run[/].")
    ] = False,
    follow: Follow = False,
) -> None:
    """Have a Ray cluster run a sweep, and return: this machine may go away.

    The sweep and this code are sent along; one sweep runs at a time, others queue. The same
    command goes on with a sweep that was stopped.

    [b]geosweep submit demo --cluster ray_cluster.yaml --follow[/]
    [b]geosweep submit my.yaml --cluster ray_cluster.yaml --out try-2 --set seeds=5[/]
    [b]geosweep status --cluster ray_cluster.yaml[/]        all sweeps there
    [b]geosweep fetch try-2 --cluster ray_cluster.yaml[/]   tables, report, MLflow's runs
    """
    jobs.ask_which(cluster, address)
    found = sweep.read(name, settings or [])
    there = reach.folder_there(cluster, out, found.name)
    options = [word for setting in settings or [] for word in ("--set", setting)]
    options += ["--data", data] if data else []
    options += [] if retry is None else ["--retry-failed" if retry else "--leave-failed"]
    if fail_fast or max_failures:
        options += ["--max-failures", "1" if fail_fast else str(max_failures)]
    with jobs.connect(cluster, address) as client:
        ahead = [job for job in jobs.sweeps(client) if not job.status.is_terminal()]
        job = jobs.submit(client, found, there, options, named=out is not None)
        way = f"--cluster {cluster}" if cluster else f"--address {address}"
        print(f"job      {job}\nfolder   {there}")
        if ahead:
            print(f"queued   behind {', '.join(str(other.submission_id) for other in ahead)}")
        print(
            f"log      geosweep logs {job} {way}\nresults  geosweep fetch {job} {way}", flush=True
        )
        if follow:
            _follow(client, job)


@app.command()
def logs(
    which: Which = None, cluster: Cluster = None, address: Address = None, follow: Follow = False
) -> None:
    """Show the log of a sweep on a cluster; Ctrl-C ends the showing, not the sweep.

    [b]geosweep logs table4 --follow --cluster ray_cluster.yaml[/]
    """
    with jobs.connect(cluster, address) as client:
        job = str(jobs.find(client, which, cluster).submission_id)
        if follow:
            _follow(client, job)
        print(client.get_job_logs(job), end="")


@app.command()
def stop(which: Which = None, cluster: Cluster = None, address: Address = None) -> None:
    """Stop a sweep on a cluster as Ctrl-C does: the epochs that are running end, and are kept.

    [b]geosweep stop table4 --cluster ray_cluster.yaml[/]
    """
    with jobs.connect(cluster, address) as client:
        found = jobs.find(client, which, cluster)
        job = str(found.submission_id)
        if found.status.is_terminal():
            print(f"{job}: not running ({found.status.value.lower()})")
            return
        client.stop_job(job)
        while not client.get_job_status(job).is_terminal():
            time.sleep(0.5)
    print(f"{job}: stopped; submitting it again goes on")


@app.command()
def fetch(
    which: Which = None,
    cluster: Cluster = None,
    address: Address = None,
    out: Annotated[
        str | None, typer.Option(help="Folder on this machine; default runs/<name of the sweep>.")
    ] = None,
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="Networks too, so that it can go on on this machine."),
    ] = False,
) -> None:
    """Bring a sweep's results home: Parquet tables, report, and its runs in MLflow.

    Also while it runs; again later brings what is new. What comes is a sweep's folder like any
    other: [b]geosweep ui[/], [b]report[/], [b]status[/] and [b]analysis[/] work on it. MLflow's
    runs are made anew from the tables.

    [b]geosweep fetch table4 --cluster ray_cluster.yaml[/]
    """
    if which is not None and "://" in which:
        there, name = which.rstrip("/"), which.rstrip("/").rpartition("/")[2]
    else:
        with jobs.connect(cluster, address) as client:
            job = jobs.find(client, which, cluster)
            there, name = jobs.metadata(job, jobs.FOLDER), jobs.metadata(job, jobs.SWEEP)
    root = folder.absolute(out or f"runs/{name}")
    wanted = (places.CHECKPOINTS, places.PENDING) if checkpoints else ()
    left = [name for name in reach.LEFT if name not in wanted]
    with folder.hold(root):
        reach.fetch(cluster, there, root, left)
        state = folder.inspect(root)
        done, missed = service.sync(root, Console())
    if state.rows:
        page, unseen = service.report(root, state.name)
        missed = missed or unseen is not None
        print(f"report   {page}")
    print(f"trials   {len(state.rows)} of {state.planned}\ntables   {root}/results")
    print(f"MLflow   {tracking_uri(root)} ({len(done)} trials new); geosweep ui {root}")
    if missed:
        raise typer.Exit(1)


@app.command()
def down(
    cluster: Annotated[str, typer.Option(metavar="FILE", help="The file that ray up was given.")],
) -> None:
    """Take a cluster down: ray down, and on machines of a list also what that leaves running.

    The head's MLflow goes too; results stay on the storage.
    """
    missed = reach.down(cluster)
    for machine in missed:
        print(f"geosweep: not stopped: {machine}", file=sys.stderr)
    if missed:
        raise typer.Exit(1)
    print("down")


def show(which: str | None, cluster: str | None, address: str | None) -> None:
    """``geosweep status`` on a cluster: all its sweeps, or how far one is."""
    with jobs.connect(cluster, address) as client:
        if which is not None:
            job = jobs.find(client, which, cluster)
            print(f"{job.submission_id}: {job.status.value.lower()}")
            print(jobs.ask(client, "status", jobs.metadata(job, jobs.FOLDER)))
            return
        rows = [("job", "state", "submitted", "folder")]
        busy = False
        for job in jobs.sweeps(client):
            state = job.status.value.lower()
            if not job.status.is_terminal():
                busy, state = True, "queued" if busy else state
            at = datetime.fromtimestamp((job.start_time or 0) / 1000)
            there = jobs.metadata(job, jobs.FOLDER)
            rows.append((str(job.submission_id), state, f"{at:%Y-%m-%d %H:%M}", there))
    if len(rows) == 1:
        print("no sweep was submitted to this cluster yet")
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def serve(cluster: str, port: int) -> None:
    """``geosweep ui`` of a cluster: its MLflow on this machine, until Ctrl-C."""
    with reach.tunnel(cluster, reach.MLFLOW, port):
        print(f"http://127.0.0.1:{port}  (MLflow of {cluster}; Ctrl-C to stop)", flush=True)
        try:
            while reach.answers(port):
                time.sleep(2)
        except KeyboardInterrupt:
            return
    raise SweepError(f"--cluster {cluster}: the tunnel ended")


def _follow(client: "jobs.JobSubmissionClient", job: str) -> None:
    try:
        status = jobs.follow(client, job, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        print(f"\ngeosweep: the sweep goes on; geosweep stop {job} stops it", file=sys.stderr)
        raise typer.Exit(0) from None
    raise typer.Exit(status)
