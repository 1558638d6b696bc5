"""Sweeps as jobs of a Ray cluster: the way there, what is sent, what comes back.

A job's driver runs on the head, so the machine that sent it may go away. The code of the four
packages is sent along: a sweep runs with the code that it was submitted with, whatever is
submitted after it; only what pyproject.toml names is taken from the cluster's own set-up.
"""

import asyncio
import logging
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tune_jobs import provenance
from tune_jobs.sweep import Sweep, SweepError, builtin

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

PACKAGES = ("models", "scoring", "tune_jobs", "analysis")
DASHBOARD, MLFLOW = 8265, 5000  # ports on the head's loopback address
SWEEP, FOLDER = "geosweep.sweep", "geosweep.folder"  # metadata of a job
LEFT = ("checkpoints", "pending", "mlflow.db", "mlflow.json", "mlartifacts", "set-aside")
STOP = ". ~/geosweep/environment; [ ! -e ~/mlflow/pid ] || pkill -F ~/mlflow/pid mlflow; ray stop"
STORAGE = re.compile(r"GEOSWEEP_STORAGE=[\"']?([^\s\"']+)")
STOPPING = {  # a stopped job gets Ctrl-C's signal, and this long to end its epochs
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "600",
}


def cluster_file(path: str) -> dict[str, Any]:
    """The content of a file for ``ray up``.

    Raises:
        SweepError: it is none.
    """
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = str(error).splitlines()[0]
        raise SweepError(f"--cluster {path}: cannot be read: {said}") from error
    if not isinstance(content, dict) or not isinstance(content.get("provider"), dict):
        raise SweepError(f"--cluster {path}: no cluster file for ray up (it has no provider)")
    return content


def folder_there(cluster: str | None, out: str | None, name: str) -> str:
    """A sweep's folder as the cluster's nodes name it: below its storage, unless it is absolute.

    Raises:
        SweepError: the cluster's storage is not known.
    """
    if out and ("://" in out or out.startswith("/")):
        return out.rstrip("/")
    storage = os.environ.get("GEOSWEEP_STORAGE")
    if cluster:
        cluster_file(cluster)
        if found := STORAGE.search(Path(cluster).expanduser().read_text()):
            storage = found.group(1)
    if not storage:
        raise SweepError(
            "--out: give an absolute path or a URI that all nodes reach; a name alone is taken "
            "below GEOSWEEP_STORAGE, which neither the cluster file nor the environment has"
        )
    return f"{storage.rstrip('/')}/{(out or name).strip('/')}"


@contextmanager
def tunnel(cluster: str, port: int, here: int | None = None) -> Iterator[int]:
    """A port of the head's loopback address on this machine, through SSH; which port it is here.

    Raises:
        SweepError: no head can be reached; the message says why.
    """
    cluster_file(cluster)
    here = here or _free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "dashboard", cluster]
    command += ["--port", str(here), "--remote-port", str(port)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            until = time.monotonic() + 90
            while not answers(here):
                if process.poll() is not None or time.monotonic() > until:
                    said.seek(0)
                    raise SweepError(f"--cluster {cluster}: no way there: {_reason(said.read())}")
                time.sleep(0.1)
            yield here
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.wait()


def _reason(said: str) -> str:
    if "not found" in said and "ead node" in said:
        return "it has no head; ray up starts it"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"ssh:|rror|refused|denied|in use", line)]
    return (telling or lines or ["ray dashboard ended"])[-1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def connect(cluster: str | None, address: str | None) -> Iterator["JobSubmissionClient"]:
    """A client of the cluster's Jobs API: through a tunnel, or where it is reached already.

    Args:
        cluster: file for ``ray up``.
        address: like ``http://127.0.0.1:8265``; used if there is no file.

    Raises:
        SweepError: no such cluster, no token, or the wrong one.
    """
    if not cluster and not address:
        raise SweepError(
            "which cluster? --cluster FILE, the one that ray up was given; or --address "
            f"http://127.0.0.1:{DASHBOARD} where its dashboard is reached already"
        )
    token()
    if cluster:
        with tunnel(cluster, DASHBOARD) as port:
            yield _client(f"http://127.0.0.1:{port}", f"--cluster {cluster}")
    else:
        assert address
        yield _client(address if "://" in address else f"http://{address}", f"--address {address}")


def token() -> None:
    """Have Ray's clients in this process show the token.

    Raises:
        SweepError: there is none, and ``RAY_AUTH_MODE`` does not say that there need be none.
    """
    if os.environ.setdefault("RAY_AUTH_MODE", "token").lower() != "token":
        return
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if not os.environ.get("RAY_AUTH_TOKEN") and not (file.is_file() and file.read_text().strip()):
        raise SweepError(
            f"{file}: no token. For a new cluster: ray get-auth-token --generate, then ray up; "
            "for one that runs: copy this file from the machine that started it"
        )


def _client(url: str, given: str) -> "JobSubmissionClient":
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.INFO)  # Ray's client tells of every package
    try:
        client = JobSubmissionClient(url)
        client.list_jobs()
        return client
    except Exception as error:  # requests' and Ray's own kinds
        said = str(error)
        if re.search(r"\b40[13]\b|[Uu]nauthenticated|[Aa]uthentication|[Ii]nvalid .*token", said):
            said = "refused: not the cluster's token; copy ~/.ray/auth_token from where it was made"
        elif isinstance(error, ConnectionError) or "connect" in said.lower():
            said = "no Ray dashboard answers there"
        raise SweepError(f"{given}: {said.splitlines()[0]}") from error


@contextmanager
def package() -> Iterator[str]:
    """A folder with the code of this geosweep alone: equal code is sent and unpacked once."""
    with tempfile.TemporaryDirectory() as folder:
        for name in PACKAGES:
            spec = find_spec(name)
            assert spec and spec.submodule_search_locations
            source = spec.submodule_search_locations[0]
            hidden = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, Path(folder, name), ignore=hidden)
        yield folder


def submit(client: "JobSubmissionClient", sweep: Sweep, folder: str, options: list[str]) -> str:
    """Have a cluster run a sweep; the job's id.

    Args:
        client: of :func:`connect`.
        sweep: checked; its file is sent along.
        folder: of the results, as the nodes name it.
        options: for ``geosweep run``, besides the sweep, its folder and the address.
    """
    name, content = sweep.source, {}
    run = ["python", "-m", "tune_jobs.cli", "run"]
    rest = shlex.join(["--out", folder, "--address", "auto", *options])
    if name in builtin():
        command = f"exec {shlex.join([*run, name])} {rest}"
    else:  # in the environment, so that the code that is sent stays the same for all sweeps
        content["GEOSWEEP_SWEEP"] = Path(name).expanduser().read_text()
        file = f'"$place"/{shlex.quote(Path(name).name)}'
        command = f'place=$(mktemp -d) && printf %s "$GEOSWEEP_SWEEP" > {file} && '
        command += f"exec {shlex.join(run)} {file} {rest}"
    return _send(client, command, content, f"{sweep.name}-{datetime.now():%Y%m%d-%H%M%S}", {
        SWEEP: sweep.name,
        FOLDER: folder,
    })


def _send(
    client: "JobSubmissionClient",
    command: str,
    variables: dict[str, str],
    job: str,
    metadata: dict[str, str],
) -> str:
    variables = {"GEOSWEEP_REVISION": provenance.revision(), **STOPPING, **variables}
    with package() as code:
        environment = {"working_dir": code, "env_vars": variables}
        return client.submit_job(
            entrypoint=command, submission_id=job, runtime_env=environment, metadata=metadata
        )


def ask(client: "JobSubmissionClient", *words: str, patience: float = 120) -> str:
    """What a command of geosweep says on the cluster's head, as a job that is then forgotten."""
    job = f"geosweep-{words[0]}-{time.time_ns()}"
    command = shlex.join(["python", "-m", "tune_jobs.cli", *words])
    _send(client, f"exec {command}", {}, job, {})
    until = time.monotonic() + patience
    while not (status := client.get_job_status(job)).is_terminal():
        if time.monotonic() > until:
            client.stop_job(job)
            raise SweepError(f"{words[0]}: no answer from the cluster in {patience:g} s")
        time.sleep(0.3)
    said = client.get_job_logs(job)  # Ray's own lines, and then the command's
    client.delete_job(job)
    lines = said.partition("\nRunning entrypoint")[2].splitlines()[1:]
    if status.value != "SUCCEEDED":
        raise SweepError((lines or [status.value])[-1].removeprefix("geosweep: "))
    return "\n".join(lines)


def sweeps(client: "JobSubmissionClient") -> list["JobDetails"]:
    """The cluster's sweeps, the oldest first."""
    jobs = [job for job in client.list_jobs() if SWEEP in (job.metadata or {})]
    return sorted(jobs, key=lambda job: job.start_time or 0)


def find(client: "JobSubmissionClient", which: str | None, cluster: str | None) -> "JobDetails":
    """The job of an id, or the last one of a folder; without either the last one of all.

    Raises:
        SweepError: there is none; the message names those that there are.
    """
    known = sweeps(client)
    if which is None and known:
        return known[-1]
    if which is not None:
        named = [job for job in known if job.submission_id == which]
        with suppress(SweepError):
            there = folder_there(cluster, which, which)
            named = named or [job for job in known if job.metadata[FOLDER] == there]
        if named:
            return named[-1]
    have = ", ".join(str(job.submission_id) for job in known[-5:]) or "none"
    raise SweepError(f"{which or 'no sweep'}: no such job or folder on the cluster (jobs: {have})")


def follow(client: "JobSubmissionClient", job: str, show: Callable[[str], None]) -> int:
    """Show a job's log until it ends; the exit status of its sweep.

    Raises:
        SweepError: the way to the cluster is gone; the sweep is not.
    """

    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            show(text)

    try:
        asyncio.run(tail())
        details = client.get_job_info(job)
    except (OSError, RuntimeError) as error:
        raise SweepError(f"{job}: lost the cluster ({error}); the sweep goes on there") from error
    if details.driver_exit_code is None:
        return 0 if details.status.value == "SUCCEEDED" else 1
    return details.driver_exit_code


def fetch(cluster: str | None, folder: str, to: str, left: Sequence[str] = LEFT) -> None:
    """Copy a sweep's folder from a cluster to this machine; what is here already is replaced.

    Args:
        cluster: file for ``ray up``; needed where the folder is a path of the nodes.
        folder: as the nodes name it.
        to: folder on this machine.
        left: names in the folder that stay there.

    Raises:
        SweepError: it could not be had.
    """
    Path(to).mkdir(parents=True, exist_ok=True)
    try:
        if "://" in folder:
            _copy(folder, to, left)
            return
        if not cluster:
            raise SweepError(f"{folder}: a path of the cluster's nodes: --cluster FILE reaches it")
        config = cluster_file(cluster) | {"rsync_exclude": [f"/{name}" for name in (*left, ".*")]}
        program = "import sys, yaml; from ray.autoscaler.sdk import rsync; rsync("
        program += "yaml.safe_load(sys.stdin), source=sys.argv[1], target=sys.argv[2], down=True)"
        done = subprocess.run(  # a process of its own: it talks much
            [sys.executable, "-c", program, f"{folder}/", f"{Path(to)}/"],
            input=yaml.safe_dump(config),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SweepError(f"{folder}: cannot be had: {_reason(done.stdout + done.stderr)}")
    except OSError as error:
        raise SweepError(f"{folder}: cannot be had: {error}") from error


def _copy(uri: str, to: str, left: Sequence[str]) -> None:
    from pyarrow import fs

    source, base = fs.FileSystem.from_uri(uri)
    here = fs.LocalFileSystem()
    for found in source.get_file_info(fs.FileSelector(base)):
        if found.base_name not in left and not found.base_name.startswith("."):
            target = f"{Path(to).resolve()}/{found.base_name}"
            fs.copy_files(found.path, target, source_filesystem=source, destination_filesystem=here)


def down(cluster: str) -> list[str]:
    """Take a cluster down: `ray down`, and then what that leaves on machines of a list.

    Returns:
        What could not be reached, in words.

    Raises:
        SweepError: `ray down` failed.
    """
    config = cluster_file(cluster)
    command = [sys.executable, "-m", "ray.scripts.scripts", "down", "--yes", cluster]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SweepError(f"--cluster {cluster}: ray down: {_reason(done.stdout + done.stderr)}")
    provider, auth = config["provider"], config.get("auth", {})
    if provider["type"] != "local":
        return []
    options = ["BatchMode=yes", "ConnectTimeout=10", "LogLevel=ERROR"]
    options += ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]  # as `ray up` does
    if proxy := auth.get("ssh_proxy_command"):
        options.append(f"ProxyCommand={proxy}")
    ssh = ["ssh", *(word for option in options for word in ("-o", option))]
    if key := auth.get("ssh_private_key"):
        ssh += ["-i", str(Path(key).expanduser())]
    head = provider.get("external_head_ip") or provider["head_ip"]
    machines = [head, *provider.get("worker_ips", [])]
    stops = {
        machine: subprocess.Popen(
            [*ssh, f"{auth['ssh_user']}@{machine}", STOP],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for machine in machines
    }
    said = {machine: stop.communicate()[0] for machine, stop in stops.items()}
    return [f"{m}: {_reason(said[m])}" for m, stop in stops.items() if stop.returncode]
