"""The command on a page that follows a sweep: geosweep watch."""

import os
from typing import Annotated

import typer

from scoring import places, storage
from tune_jobs import folder, processes
from tune_jobs.cluster import jobs, pages, reach
from tune_jobs.cluster.at import At
from tune_jobs.commands import options, serving
from tune_jobs.errors import SweepError
from tune_jobs.terminal import say

app = typer.Typer()


@app.command(rich_help_panel="Results")
def watch(
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]",
            help="A sweep's folder, a path or a URI. On a cluster also a job id, or the folder's "
            "name, like table4; by default the last sweep that was submitted.",
        ),
    ] = None,
    cluster: options.Cluster = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, show_default=True, help="Port of the page.")
    ] = 5050,
    host: Annotated[
        str,
        typer.Option(
            show_default=True,
            help="Address to listen on. The page has no password: whoever reaches it sees the "
            "sweep's results.",
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve a page that follows a sweep while it runs, until Ctrl-C.

    It prints the address of the page, for your browser. The page shows
    progress and time left, curves by epoch, charts in which you select trials,
    failures and the log. It reads the folder alone, so it also works when the
    sweep has ended, on a copy, and on s3://. Only this machine can open it
    unless --host says otherwise.

    [b]geosweep watch runs/demo[/]
    [b]geosweep watch s3://bucket/sweeps/demo[/]
    [b]geosweep watch table4 --cluster ray_cluster.yaml[/]
    """
    if directory is None and not cluster:
        raise SweepError("which sweep? geosweep watch DIR, or --cluster FILE")
    serving.check_port(host, port)
    if cluster and "://" not in (directory or ""):
        directory = _on_cluster(directory, cluster, host, port)
    root = folder.absolute(str(directory))
    if not storage.list_files(root, places.RESULTS):
        folder.inspect(root)  # raises an error that says what is missing
    command = processes.python("-m", "analysis.watch", "--host", host, "--port", str(port))
    variables = os.environ | processes.environment()
    raise typer.Exit(serving.serve([*command, "--", root], host, port, list, variables))


def _on_cluster(which: str | None, cluster: str, host: str, port: int) -> str:
    """Serve the page of a folder on the nodes; return the URI of one in an object store."""
    if host != "127.0.0.1":
        raise SweepError("--host: with --cluster the page is on the loopback address alone")
    with jobs.connect(cluster, None) as client:
        there = jobs.metadata(At(cluster).find(client, which), jobs.FOLDER)
        if "://" in there:
            return there
        with pages.page(client, there) as far, reach.tunnel(cluster, far, port):
            say(f"http://{host}:{port}  ({there} on the cluster; Ctrl-C to stop)")
            serving.hold(cluster, port, pages.is_there)
