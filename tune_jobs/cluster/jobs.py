"""Sweeps as jobs of a Ray cluster: submit, find and follow them.

A job's driver runs on the head, so the machine that submitted it may be switched off. The code of
the four packages is sent with the job, so a sweep runs with the code that it was submitted with.
Only the dependencies in pyproject.toml come from the cluster.
"""

import asyncio
import logging
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from models.callables import SENT, sent_name
from models.messages import first_line, short
from scoring.places import argument
from tune_jobs import processes, provenance, signals
from tune_jobs.cluster import dashboard, folders
from tune_jobs.cluster.keys import token
from tune_jobs.cluster.reach import DASHBOARD, STORAGE, tunnel
from tune_jobs.errors import SweepError
from tune_jobs.sweep import Sweep, builtin, check_name

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

OF_USERS = "sent"  # folder in the package for files of the user
PACKAGES = ("models", "scoring", "tune_jobs", "analysis")
SWEEP, FOLDER = "geosweep.sweep", "geosweep.folder"  # keys in the metadata of a job
KIND, PROBE = "geosweep.kind", "probe"  # marks a job that is not a sweep
MOST_SENT = 120_000  # bytes of a sweep file; Linux allows 131,072 in an environment variable
DOLLAR = "\1"  # sent for $ in a sweep file, since Ray replaces $NAME; it is no character of YAML
PATIENCE = 120.0  # seconds for a command on the head to answer
LINES = 20_000  # of the log of orders; the autoscaler writes a few a second at most
STOPPING = {  # Ray sends a stopped job the signal of Ctrl-C, and kills it after this long.
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "600",
}


@contextmanager
def connect(cluster: str | None, address: str | None) -> Iterator["JobSubmissionClient"]:
    """A client of the cluster's Jobs API, through an SSH tunnel or directly.

    Args:
        cluster: its file.
        address: of the dashboard, like ``http://127.0.0.1:8265``; used if there is no file.

    Raises:
        SweepError: there is no such cluster, or no token, or the wrong one; or the connection
            was lost, or the dashboard does not answer.
    """
    token()
    from requests import RequestException, Timeout

    given = f"--cluster {argument(cluster)}" if cluster else f"--address {argument(str(address))}"
    with tunnel(cluster, DASHBOARD) if cluster else nullcontext() as port:
        url = f"127.0.0.1:{port}" if port else str(address)
        logging.disable(logging.INFO)  # Ray's client logs every upload.
        try:
            yield dashboard.client(url if "://" in url else f"http://{url}", given)
        except RequestException as error:
            slow = isinstance(error, Timeout)
            why = dashboard.no_answer() if slow else "the connection was lost"
            after = f"geosweep status {given} shows what was done"
            raise SweepError(f"{given}: {why}; {after}") from error
        finally:
            logging.disable(logging.NOTSET)


@contextmanager
def package(files: Mapping[str, bytes] | None = None) -> Iterator[str]:
    """A temporary folder with a copy of the code, and nothing else but files of the user.

    Ray uploads and unpacks equal folders only once. Until the context ends, Ray's own temporary
    files are next to the copy, and are deleted with it.

    Args:
        files: content of the user's files by name; they are put into a separate folder.
    """
    with signals.as_interrupt(), processes.scratch() as parent:
        folder, before = Path(parent, "code"), tempfile.tempdir
        copy_code(folder, files or {})
        tempfile.tempdir = parent
        try:
            yield str(folder)
        finally:
            tempfile.tempdir = before


def copy_code(folder: Path, files: Mapping[str, bytes]) -> None:
    """Copy the four packages into a new folder, and files of the user into one within it."""
    hidden = shutil.ignore_patterns("__pycache__", ".*")
    for name in PACKAGES:
        shutil.copytree(str(resources.files(name)), folder / name, ignore=hidden)
    for name, content in files.items():
        (folder / OF_USERS).mkdir(exist_ok=True)
        (folder / OF_USERS / name).write_bytes(content)


def sent_files(sweep: Sweep) -> dict[str, bytes]:
    """The Python files that a sweep names, by the names that they are sent under."""
    return {sent_name(text.rpartition(":")[0]): one.content for text, one in sweep.code.items()}


def submit(
    client: "JobSubmissionClient",
    sweep: Sweep,
    folder: str,
    options: list[str],
    named: bool = True,
) -> str:
    """Submit a sweep as a job of a cluster.

    Args:
        client: from :func:`connect`.
        sweep: checked; its file is sent with the job, and so are Python files that it names.
        folder: for the results, as the nodes see it.
        options: further options for ``geosweep run``.
        named: whether the user named the folder. If not, the job does not name it either, and so
            refuses a folder that holds trials of another sweep.

    Returns:
        The id of the job.

    Raises:
        SweepError: the sweep file is too large, or the cluster refuses the job.
    """
    there = sweep.source in builtin()
    if not there and len(sweep.text.encode()) > MOST_SENT:
        raise SweepError(
            f"{sweep.source}: is larger than {MOST_SENT:,} bytes, the most that can be submitted; "
            "shorten it, or copy it to the head and run it there with --address auto"
        )
    out = ["--out", folder] if named else []
    words = ["run", sweep.source if there else "-", *out, "--address", "auto", *options]
    own = {} if named else {STORAGE: folder.rpartition("/")[0] or "/"}
    if not there:
        own["GEOSWEEP_NAME"] = sweep.name
    # Ray replaces $NAME in the environment that it is given, so a value with $ is in the command.
    # Others are not, because all users of the head see commands, and a URI may have a password.
    variables = {name: value for name, value in own.items() if "$" not in value}
    command = command_of(*words, **{n: v for n, v in own.items() if n not in variables})
    if not there:  # The file travels in the environment: all sweeps then send the same code.
        variables["GEOSWEEP_SWEEP"] = sweep.text.replace("$", DOLLAR)
        command += " <<END\n$(printf %s \"$GEOSWEEP_SWEEP\" | tr '\\001' '$')\nEND\n"
    if files := sent_files(sweep):
        variables[SENT] = OF_USERS
    noted = {SWEEP: sweep.name, FOLDER: folder}
    return start(client, command, new_name(sweep.name), noted, variables, files)


def send(
    client: "JobSubmissionClient",
    name: str,
    folder: str,
    words: Sequence[str],
    files: Mapping[str, bytes] | None = None,
    gpus: float = 0,
    kind: str = "",
) -> str:
    """Submit a command of geosweep as a job, which :func:`find` finds like a sweep's.

    Args:
        client: from :func:`connect`.
        name: of the sweep, or of what is measured.
        folder: for the results, as the nodes see it.
        words: of the command.
        files: files of the user by name, which come into the folder ``OF_USERS``.
        gpus: GPUs of the command itself; without any it runs on the head.
        kind: :data:`PROBE` if the folder is no sweep's.

    Returns:
        The id of the job.

    Raises:
        SweepError: the cluster refuses the job.
    """
    noted = {SWEEP: name, FOLDER: folder} | ({KIND: kind} if kind else {})
    return start(client, command_of(*words), new_name(name), noted, files=files, gpus=gpus)


def command_of(*words: str, module: str = "tune_jobs.cli", **variables: str) -> str:
    """A shell's command that becomes Python with a module of ours, so that signals reach it.

    >>> command_of("run", "my sweep", GEOSWEEP_NAME="$1")
    "exec env 'GEOSWEEP_NAME=$1' python -m tune_jobs.cli run 'my sweep'"
    """
    given = [f"{name}={value}" for name, value in variables.items()]
    before = ["env", *given] if given else []
    return f"exec {shlex.join([*before, 'python', '-m', module, *words])}"


def new_name(sweep: str) -> str:
    """The name of a new job: that of its sweep, and the time."""
    return f"{word(sweep)}-{datetime.now():%Y%m%d-%H%M%S}"


def word(name: str) -> str:
    """A name as part of addresses and of commands.

    >>> word("-my sweep?"), word("---")
    ('my-sweep-', 'sweep')
    """
    return re.sub(r"[^\w.-]", "-", name).lstrip("-") or "sweep"


def start(
    client: "JobSubmissionClient",
    command: str,
    job: str,
    metadata: Mapping[str, str] = {},
    variables: Mapping[str, str] = {},
    files: Mapping[str, bytes] | None = None,
    gpus: float = 0,
) -> str:
    """Start a shell's command on the head, with the code, as a job of this id and metadata.

    Ray replaces ``$NAME`` in the variables.
    """
    variables = {"GEOSWEEP_REVISION": provenance.revision(), **STOPPING, **variables}
    with package(files) as code:
        environment = {"working_dir": code, "env_vars": variables}
        try:
            return client.submit_job(
                entrypoint=command,
                submission_id=job,
                runtime_env=environment,
                metadata=dict(metadata),
                entrypoint_num_gpus=gpus,
            )
        except RuntimeError as error:
            raise SweepError(f"{job}: refused: {first_line(error)}") from error


def ask(client: "JobSubmissionClient", *words: str) -> str:
    """The output of a geosweep command that runs on the head, as a job that is then deleted.

    Raises:
        SweepError: the command failed; the message is its last line. Or it took too long.
    """
    job = f"geosweep-{words[0]}-{time.time_ns()}"
    start(client, command_of(*words), job)
    until = time.monotonic() + PATIENCE
    while not (status := client.get_job_status(job)).is_terminal():
        if time.monotonic() > until:
            client.stop_job(job)
            raise SweepError(f"{words[0]}: no answer from the cluster in {PATIENCE:g} s")
        time.sleep(0.3)
    said = client.get_job_logs(job)  # lines of Ray first, then those of the command
    client.delete_job(job)
    lines = said.partition("\nRunning entrypoint")[2].splitlines()[1:]
    if status.value != "SUCCEEDED":
        raise SweepError((lines or [status.value])[-1].removeprefix("geosweep: "))
    return "\n".join(lines)


def autoscaler_log(client: "JobSubmissionClient") -> list[str]:
    """The last lines of the head's log of orders of workers.

    Raises:
        SweepError: the dashboard does not show the log.
    """

    def get(path: str, **words: str | int) -> Any:
        response = client._do_request("GET", f"/api/v0/{path}?{urlencode(words)}")
        if response.status_code != 200:
            raise SweepError(f"whether orders failed is not known: {response.text.strip()[:200]}")
        return response

    head = get("nodes", filter_keys="is_head_node", filter_predicates="=", filter_values="True")
    (node,) = head.json()["data"]["result"]["result"]
    log = get("logs/file", node_id=node["node_id"], filename="monitor.log", lines=LINES)
    return log.text.splitlines()


def metadata(job: "JobDetails", what: str) -> str:
    """A sweep's name (``SWEEP``) or folder (``FOLDER``), as :func:`submit` noted it in its job.

    Anyone who reaches the cluster can change the metadata, so both are checked before use.

    Raises:
        SweepError: it is not the name of a sweep, or no absolute path or URI of a store.
    """
    text = (job.metadata or {}).get(what, "")
    try:
        if what == SWEEP:
            return check_name(text)
        return folders.noted(text)
    except ValueError as error:
        raise SweepError(f"{job.submission_id}: {what} = {short(text)}: {error}") from None


def _folder(job: "JobDetails") -> str:
    """A sweep's folder as noted in its job, for comparisons only; do not use it as a path."""
    return (job.metadata or {}).get(FOLDER, "")


def _names(job: "JobDetails") -> tuple[str, str]:
    """The name of a sweep's folder, as it is in a path and as it may be in a URI."""
    name = _folder(job).rpartition("/")[2]
    return name, unquote(name)


def sweeps(client: Any) -> list[Any]:
    """The jobs of a cluster that are sweeps, oldest first."""
    jobs = [job for job in client.list_jobs() if SWEEP in (job.metadata or {})]
    return sorted(jobs, key=lambda job: job.start_time or 0)


def find(client: Any, which: str | None, there: str | None = None) -> Any:
    """Find the job of a sweep.

    Args:
        client: from :func:`connect`.
        which: a job's id, or a sweep's folder or name, which finds the sweep's last job; None
            finds the last job of all.
        there: the folder that a name stands for in the cluster's storage, if that is known.

    Raises:
        SweepError: there is no such job; the message lists some that exist.
    """
    known = sweeps(client)
    if not known and which is None:
        raise SweepError("no sweep was submitted to this cluster yet; geosweep submit does so")
    rules: list[Callable[[Any], bool]] = [
        lambda job: which in (None, job.submission_id),
        lambda job: there is not None and _folder(job) == there,
        lambda job: which in _names(job),
    ]
    for rule in rules:
        if found := [job for job in known if rule(job)]:
            return found[-1]
    have = ", ".join(str(job.submission_id) for job in known[-5:]) or "none"
    raise SweepError(f"{which}: no such job or folder on the cluster (jobs: {have})")


def follow(client: Any, job: str, show: Callable[[str], None]) -> int:
    """Show the log of a job until it ends.

    Args:
        client: from :func:`connect`.
        job: its id.
        show: called with each part of the log.

    Returns:
        The exit status of the job.

    Raises:
        SweepError: the connection was lost; the job continues.
    """

    from aiohttp import ClientError  # of Ray's client

    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            show(text)

    try:
        asyncio.run(tail())
        details = client.get_job_info(job)
    except (OSError, RuntimeError, ClientError) as error:
        raise SweepError(
            f"{job}: lost the connection to the cluster ({error}); the job continues there"
        ) from error
    if details.driver_exit_code is None:
        return 0 if details.status.value == "SUCCEEDED" else 1
    return details.driver_exit_code
