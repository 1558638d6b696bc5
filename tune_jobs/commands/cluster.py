"""The commands for a cluster: geosweep submit | logs | stop | fetch | down."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from models.files import given_path
from models.messages import plain
from scoring.places import argument
from tune_jobs import folder, processes, service, sweep
from tune_jobs.cluster import aws, jobs, leftovers, orders, reach
from tune_jobs.cluster.at import At, Client, state_of
from tune_jobs.cluster.doctor import examine
from tune_jobs.cluster.slurm import Slurm, Status
from tune_jobs.commands import fetching, options, plan, serving
from tune_jobs.errors import SweepError
from tune_jobs.status import status
from tune_jobs.terminal import complain, say

app = typer.Typer()
PAUSE = 2.0  # seconds between two questions whether a job has ended


@app.command(rich_help_panel="Clusters", epilog=options.FIELDS)
def submit(
    ctx: typer.Context,
    name: options.Sweep,
    cluster: options.Cluster = None,
    address: options.Dashboard = None,
    slurm: options.Slurm = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results that every node reaches: an absolute path, a URI, or a "
            "name within the cluster's storage. Default: the sweep's name.",
        ),
    ] = None,
    settings: options.Settings = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder with NAME.npz data sets, on the head or, on Slurm, on every node.",
        ),
    ] = None,
    retry_failed: options.RetryFailed = False,
    leave_failed: options.LeaveFailed = False,
    max_failures: options.MaxFailures = None,
    fail_fast: options.FailFast = False,
    budget: options.Budget = None,
    follow: options.Follow = False,
) -> None:
    """Run a sweep on a cluster of Ray or Slurm, without waiting for its end.

    The sweep file, Python files that it names, and this code are sent to
    the cluster, so you can switch this machine off. A Ray cluster runs one
    sweep at a time; others wait in a queue. On Slurm each sweep is a job,
    which goes back into Slurm's queue before its time limit and goes on
    where it was. Submit a sweep again to continue it after it was stopped.

    [b]geosweep submit demo --cluster ray_cluster.yaml --follow[/]
    [b]geosweep submit demo --slurm clusters/slurm.yaml[/]
    [b]geosweep submit my.yaml --cluster ray_cluster.yaml --out try-2 --set seeds=5[/]
    [b]geosweep status --cluster ray_cluster.yaml[/]        all sweeps there
    [b]geosweep fetch try-2 --cluster ray_cluster.yaml[/]   copy results to this machine
    """
    retry = options.which_failed(retry_failed, leave_failed)
    at = _at(ctx, cluster, address, slurm)
    at.check()
    found = sweep.read(name, settings or [])
    arguments = [word for setting in settings or [] for word in ("--set", setting)]
    arguments += data_there(at, data)
    if retry is not None:
        arguments.append("--retry-failed" if retry else "--leave-failed")
    if budget is not None:
        found.budget.replaced(budget)  # refuses what is no budget
        arguments += ["--budget", budget]
    if most := options.most_failures(fail_fast, max_failures):
        arguments += ["--max-failures", str(most)]
    if not at.slurm:  # from a file here or the environment, before a tunnel is made
        reach.folder_there(cluster, out, found.name)
    with at.connect() as client:
        there = at.folder(client, out, found.name)
        if isinstance(client, Slurm):
            _check(client, found, there, data, named=out is not None)
            ahead = []
            job = client.submit(found, there, arguments, named=out is not None)
        else:
            ahead = [job for job in jobs.sweeps(client) if _takes_a_turn(job)]
            job = jobs.submit(client, found, there, arguments, named=out is not None)
        tell(at, client, job, there, follow, [str(other.submission_id) for other in ahead])


def tell(
    at: At, client: Client, job: str, there: str, follow: bool, ahead: Sequence[str] = ()
) -> None:
    """Say what was submitted and how to go on; show its log if that is asked for."""
    say(f"job      {job}\nfolder   {plain(there, folder.LONGEST)}")
    if ahead:
        say(f"queued   behind {', '.join(ahead)}")
    say(f"log      geosweep logs {job} {at}")
    say(f"results  geosweep fetch {job} {at}")
    if follow:
        follow_log(at, client, job)


@app.command(rich_help_panel="Clusters")
def logs(
    ctx: typer.Context,
    which: options.Job = None,
    cluster: options.Cluster = None,
    address: options.Dashboard = None,
    slurm: options.Slurm = None,
    follow: options.Follow = False,
) -> None:
    """Show the log of a job on a cluster: of a sweep, an evaluation or a probe.

    With --follow it shows new lines until the job ends, and ends with the
    job's exit status. Ctrl-C then stops the display, not the job.

    [b]geosweep logs table4 --follow --cluster ray_cluster.yaml[/]
    [b]geosweep logs --slurm clusters/slurm.yaml[/]   of the last job
    """
    at = _at(ctx, cluster, address, slurm)
    with at.connect() as client:
        found = at.find(client, which)
        job = str(found.submission_id)
        if follow:
            follow_log(at, client, job)
        said = client.get_job_logs(job) or f"{job}: {state_of(found)}, and no output yet\n"
        say(said, end="")


@app.command(rich_help_panel="Clusters")
def stop(
    ctx: typer.Context,
    which: options.ActiveJob = None,
    cluster: options.Cluster = None,
    address: options.Dashboard = None,
    slurm: options.Slurm = None,
) -> None:
    """Stop a job on a cluster, as Ctrl-C stops a sweep here.

    The epochs that are running end and are kept, which may take ten minutes.
    Submit the sweep again to continue it. (Slurm's own [b]scancel[/] stops a sweep
    at once, and the epochs that are running are lost.) If several jobs run or
    wait, give the name of one.

    [b]geosweep stop table4 --cluster ray_cluster.yaml[/]
    """
    at = _at(ctx, cluster, address, slurm)
    with at.connect() as client:
        active = [job for job in jobs.sweeps(client) if not job.status.is_terminal()]
        if which is None and len(active) > 1:
            names = ", ".join(str(job.submission_id) for job in active)
            raise SweepError(f"which of {names}? geosweep stop JOB {at}")
        found = active[0] if which is None and active else at.find(client, which)
        job = str(found.submission_id)
        if found.status.is_terminal():
            say(f"{job}: not running ({found.status.value.lower()})")
            return
        client.stop_job(job)
        while not (now := client.get_job_status(job)).is_terminal():
            if isinstance(client, Slurm) and now is Status.PENDING:
                client.stop_job(job)  # it was on its way back into the queue
            time.sleep(PAUSE)
    say(f"{job}: stopped; submit it again to continue")


@app.command(rich_help_panel="Clusters")
def fetch(
    ctx: typer.Context,
    which: options.Job = None,
    cluster: options.Cluster = None,
    address: options.Dashboard = None,
    slurm: options.Slurm = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder on this machine. Default: runs/<last part of the folder there>.",
        ),
    ] = None,
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints",
            help="Also copy the networks, so that the sweep can continue on this machine.",
        ),
    ] = False,
) -> None:
    """Copy the results of a sweep or a probe from a cluster to this machine.

    Of a sweep it copies tables and report, and makes MLflow's runs again from
    the tables. The copy is a sweep's folder like any other: [b]geosweep status[/],
    [b]report[/], [b]ui[/] and [b]python -m analysis.tables[/] work on it. You can fetch
    while the sweep runs; the next fetch adds what is new. Without --out it does
    not mix two sweeps.

    [b]geosweep fetch table4 --cluster ray_cluster.yaml[/]
    [b]geosweep fetch s3://bucket/sweeps/table4[/]
    """
    at = _at(ctx, cluster, address, slurm)
    probe = False
    if which is not None and "://" in which:
        there = which.rstrip("/")
    else:
        with at.connect() as client:
            job = at.find(client, which)
            there, probe = jobs.metadata(job, jobs.FOLDER), _is_probe(job)
        if at.slurm and fetching.is_empty(there):
            state = f"geosweep status {argument(str(job.submission_id))} {at}"
            raise SweepError(f"{there}: nothing there yet; {state} says why")
    root = fetching.target(there, out)
    source = fetching.as_uri(there) if at.slurm else there
    if probe:
        fetching.probe(cluster, source, root)
    else:
        fetching.results(cluster, source, root, checkpoints, named=out is not None)


@app.command(rich_help_panel="Clusters")
def down(
    cluster: options.ClusterFile,
) -> None:
    """Shut a cluster down: its nodes, and MLflow on the head.

    It calls [b]ray down[/], and stops the workers that this leaves running on
    machines of a list. In a cloud it then looks for machines that still carry
    the cluster's tag and cost money. It names them, with the command that ends
    them. Results stay on the cluster's storage.

    Exit status: 0 if nothing is left; 1 if something is, or if that is not
    known; 2 if [b]ray down[/] failed.

    [b]geosweep down --cluster ray_cluster.yaml[/]
    """
    try:
        missed = [f"not stopped: {machine}" for machine in reach.down(cluster)]
    except SweepError:
        for line in leftovers.left(cluster):
            complain(line)
        raise
    missed += leftovers.left(cluster)
    for line in missed:
        complain(line)
    if missed:
        raise typer.Exit(1)
    say("down")


@app.command(rich_help_panel="Clusters")
def doctor(
    cluster: options.ClusterFile,
) -> None:
    """Look for what would go wrong, before ray up starts anything that costs money.

    On AWS it checks token, credentials, region, bucket, SSH key, subnet,
    quotas, image and roles, and asks about a machine of each type without
    ordering one. On all other clusters it only checks the token. It changes
    nothing. Each line starts with a mark: ✓ is well, ! is worth a look, ✗ has
    to be mended, and the line says how.

    Exit status: 0 if nothing has to be mended, otherwise 2.

    [b]geosweep doctor --cluster ray_cluster.yaml[/]
    """
    wrong = False
    for check, finding in examine(cluster):
        wrong = wrong or finding.mark == aws.WRONG
        fix = f" → {finding.fix}" if finding.fix else ""
        say(f"{finding.mark} {check:12}{finding.found}{fix}")
    if wrong:
        raise typer.Exit(2)


def _check(slurm: Slurm, found: sweep.Sweep, there: str, data: str | None, named: bool) -> None:
    """Check a sweep before it waits in Slurm's queue, and get its data, as nodes may be offline.

    Raises:
        SweepError: the message names the file, the field and what is allowed.
    """
    asked, file = found.resources, slurm.file
    for what, each, most in (("cpus", asked.cpus, file.cpus), ("gpus", asked.gpus or 0, file.gpus)):
        if each > most:
            raise SweepError(
                f"{found.source}: resources.{what} = {each:g}: a node of the Slurm file has {most}"
            )
    request = service.check(found, there, data, processes.SLURM)
    if not named:
        plan.keep_apart(request.sweep, there, there)


def _takes_a_turn(job: Any) -> bool:
    """Whether a job on a Ray cluster runs or waits, and others wait for it."""
    return not job.status.is_terminal() and not _is_probe(job)


def _is_probe(job: Any) -> bool:
    """Whether a job is that of a model's probe, which has no trials."""
    return (job.metadata or {}).get(jobs.KIND) == jobs.PROBE


def data_there(at: At, data: str | None) -> list[str]:
    """The option of a command on a cluster for a folder of data sets.

    Args:
        at: the cluster. Slurm's nodes share the folder with this machine.
        data: the folder, if there is one.

    Raises:
        SweepError: it is a path relative to the current folder, which the head does not have.
    """
    if not data:
        return []
    if at.slurm:
        return ["--data", str(given_path(data).absolute())]
    if not data.startswith(("/", "~")):
        raise SweepError(f"--data {plain(data)}: should be the whole path of a folder on the head")
    return ["--data", data]


def _at(ctx: typer.Context, cluster: str | None, address: str | None, slurm: str | None) -> At:
    """The cluster of a command; an address in the environment yields to a file."""
    source = ctx.get_parameter_source("address")
    if (cluster or slurm) and source and source.name == "ENVIRONMENT":
        address = None
    return At(cluster, address, slurm)


def show(which: str | None, at: At) -> None:
    """``geosweep status`` on a cluster: all its sweeps, or one of them."""
    with at.connect() as client:
        if which is not None:
            job = at.find(client, which)
            say(f"{job.submission_id}: {state_of(job)}")
            there = jobs.metadata(job, jobs.FOLDER)
            if _is_probe(job):
                say(f"folder   {plain(there, folder.LONGEST)}")
                return
            here = isinstance(client, Slurm)
            if here and fetching.is_empty(there):
                say(f"folder   {plain(there, folder.LONGEST)} (nothing there yet)")
                return
            say(str(status(there)) if here else jobs.ask(client, "status", there))
            return
        rows = [("job", "state", "submitted", "folder")]
        busy = False
        for job in jobs.sweeps(client):
            state = state_of(job)
            if _takes_a_turn(job) and not at.slurm:
                busy, state = True, "queued" if busy else state
            begun = datetime.fromtimestamp((job.start_time or 0) / 1000)
            there = (job.metadata or {}).get(jobs.FOLDER, "")  # shown, not opened
            rows.append((str(job.submission_id), state, f"{begun:%Y-%m-%d %H:%M}", there))
        failed = [] if isinstance(client, Slurm) else _failed_orders(client, at.cluster)
    if len(rows) == 1:
        say("no sweep was submitted to this cluster yet")
    else:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            say("  ".join(map(str.ljust, row, widths)).rstrip())
    for line in failed:
        say(f"failed   {line}")


def _failed_orders(client: "jobs.JobSubmissionClient", cluster: str | None) -> list[str]:
    """What a cluster's head says about workers that it could not start."""
    try:
        return orders.explain(orders.read(jobs.autoscaler_log(client)), cluster)
    except SweepError as error:
        complain(*map(str, error.args))
        return []


def serve(cluster: str, port: int) -> None:
    """``geosweep ui`` of a cluster: its MLflow on this machine, until Ctrl-C."""
    serving.check_port("127.0.0.1", port)
    with reach.tunnel(cluster, reach.MLFLOW, port):
        say(f"http://127.0.0.1:{port}  (MLflow of {cluster}; Ctrl-C to stop)")
        serving.hold(cluster, port)


def follow_log(at: At, client: Client, job: str) -> None:
    """Show the log of a job until it ends, then end with its exit status."""
    try:
        status = jobs.follow(client, job, lambda text: say(text, end=""))
    except KeyboardInterrupt:
        complain(f"the job continues; geosweep stop {job} {at} stops it")
        raise typer.Exit(0) from None
    raise typer.Exit(status)
