"""Reaching a Ray cluster by SSH, from the machine that called ``ray up``.

The dashboard and MLflow listen on the loopback address of the head alone. SSH tunnels lead there.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from pyarrow import fs

from models.files import given_path, is_there
from models.messages import plain
from scoring import places
from scoring.storage import open_folder, read_file, write_file
from tune_jobs import processes, signals, yaml_file
from tune_jobs.cluster import folders, ray_file
from tune_jobs.cluster.keys import check
from tune_jobs.errors import SweepError

DASHBOARD, MLFLOW = 8265, 5000  # ports on the loopback address of the head
LEFT = [  # Parts of a sweep's folder that are large, or of no use on another machine.
    places.CHECKPOINTS,
    places.PENDING,
    places.ASIDE,
    places.MLFLOW,
    places.MLFLOW_NOTE,
    places.ARTIFACTS,
    places.HOLDERS,
    places.NODES,
    places.DATA,
]
STOP = ". ~/geosweep/environment; [ ! -e ~/mlflow/pid ] || pkill -F ~/mlflow/pid mlflow; ray stop"
STORAGE = "GEOSWEEP_STORAGE"


def cluster_file(path: str) -> dict[str, Any]:
    """The content of a cluster file, as for ``ray up``.

    Raises:
        SweepError: there is no such file, or it is no cluster file.
    """
    if not is_there(given_path(path)):
        raise SweepError(f"--cluster {path}: no such file")
    try:
        text = yaml_file.read_text(given_path(path))
        _, lines = yaml_file.parse(text, overriding=True)  # refuses what is given twice or too deep
        content = yaml.safe_load(text)  # as Ray reads it
    except yaml_file.YamlError as error:
        line = f"line {error.line}: " if error.line else ""
        raise SweepError(f"--cluster {path}: {line}{error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        said = " ".join(str(error).split())
        raise SweepError(f"--cluster {path}: cannot be read: {said}; quote that value") from error
    if not isinstance(content, dict) or not isinstance(content.get("provider"), dict):
        raise SweepError(f"--cluster {path}: not a cluster file for ray up (it has no provider)")
    ray_file.check(f"--cluster {places.argument(path)}", content, lines)
    return content


def folder_there(cluster: str | None, out: str | None, name: str, option: str = "--out ") -> str:
    """A sweep's folder as the nodes of a cluster see it.

    Args:
        cluster: its file, which may set ``GEOSWEEP_STORAGE`` for the nodes.
        out: an absolute path or URI, which is used as it is, or a name within the storage.
        name: of the sweep; used if there is no ``out``.
        option: how a message names ``out``.

    Raises:
        SweepError: neither the cluster file nor the environment says where the storage is; or the
            folder is not one that all nodes reach.
    """
    storage = "" if folders.is_whole(out) else _storage(cluster)
    return folders.within(storage, out, name, option)


def _storage(cluster: str | None) -> str:
    start, in_file = "", ""
    if cluster:
        start = f"--cluster {places.argument(cluster)}"
        in_file = ray_file.variable(start, cluster_file(cluster), STORAGE)
    storage = in_file or os.environ.get(STORAGE)
    if not storage:
        raise SweepError(
            "--out: give an absolute path or a URI that all nodes reach. A name alone needs "
            "GEOSWEEP_STORAGE, which neither the cluster file nor the environment sets"
        )
    try:
        return folders.storage(storage)
    except ValueError as error:
        where = f"{start}: " if in_file else ""
        raise SweepError(f"{where}{STORAGE} = {plain(storage)}: {error}") from None


# Runs a command until it ends or standard input ends, which the caller holds open until it dies.
# Then it ends its process group, as Ray starts ssh in it.
TIED = """
import os, signal, subprocess, sys, threading

def watch():
    os.read(0, 1)
    os.killpg(0, signal.SIGTERM)

threading.Thread(target=watch, daemon=True).start()
sys.exit(subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL))
"""


@contextmanager
def tunnel(cluster: str, port: int, here: int | None = None) -> Iterator[int]:
    """Forward a port on this machine to a port on the loopback address of the head, through SSH.

    Args:
        cluster: its file.
        port: on the head.
        here: on this machine; any free one if None.

    Yields:
        The port on this machine.

    Raises:
        SweepError: the head cannot be reached, its key is not here, or the port is taken; the
            message says why.
    """
    check(cluster, cluster_file(cluster))
    here = here or _free_port()
    if answers(here):  # else it would be taken for the tunnel
        raise SweepError(f"127.0.0.1:{here}: another program listens there; choose another --port")
    command = processes.python("-m", "ray.scripts.scripts", "dashboard", cluster)
    command += ["--port", str(here), "--remote-port", str(port)]
    with signals.as_interrupt(), tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            processes.python("-c", TIED, *command),
            env=os.environ | processes.environment(),
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + 90
            while not (there := answers(here)) and process.poll() is None:
                if time.monotonic() > until:
                    break
                time.sleep(0.1)
            if not there or process.poll() is not None:  # ssh ends if it cannot have the port
                said.seek(0)
                raise SweepError(f"--cluster {cluster}: cannot be reached: {_reason(said.read())}")
            yield here
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.communicate()


def _reason(said: str) -> str:
    """The line that says most about a failure, in the output of Ray, SSH or rsync."""
    if "not found" in said and "ead node" in said:
        return "no head is running; ray up starts one"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"ssh:|rror|refused|denied|in use", line)]
    return (telling or lines or ["ray dashboard ended"])[-1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections on a port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


# Ray's rsync takes no options besides filters. Without --safe-links a link in the folder, which
# anybody with access to the cluster can put there, could lead to any file of this machine.
RSYNC = """
import sys, yaml
from ray.autoscaler._private.command_runner import SSHCommandRunner
from ray.autoscaler.sdk import rsync

filters = SSHCommandRunner._create_rsync_filter_args
SSHCommandRunner._create_rsync_filter_args = lambda *a, **k: ["--safe-links", *filters(*a, **k)]
rsync(yaml.safe_load(sys.stdin), source=sys.argv[1], target=sys.argv[2], down=True)
"""


def fetch(cluster: str | None, folder: str, to: str, left: Sequence[str] = LEFT) -> None:
    """Copy a sweep's folder from a cluster to this machine, over files that are here already.

    Args:
        cluster: its file; needed if the folder is a path on the nodes.
        folder: path on the nodes, or URI.
        to: folder on this machine.
        left: names within the folder that are not copied.

    Raises:
        SweepError: the folder could not be copied; the message says why.
    """
    try:
        if "://" in folder:
            Path(to).mkdir(parents=True, exist_ok=True)
            _copy(folder, to, left)
            return
        hidden = (".*", f"{places.RESULTS}/.*")  # merged files are made again here
        _rsync(cluster, folder, to, [f"/{name}" for name in (*left, *hidden)])
    except (OSError, ValueError) as error:
        raise _not_copied(folder, error) from error


def read(cluster: str | None, folder: str, name: str) -> bytes | None:
    """The content of a file in a sweep's folder on a cluster; None if there is no such file.

    Args:
        cluster: as for :func:`fetch`.
        folder: as for :func:`fetch`.
        name: of the file in the folder.

    Raises:
        SweepError: the folder cannot be reached; the message says why.
    """
    try:
        if "://" in folder:
            return read_file(folder, name)
        with processes.scratch() as to:
            _rsync(cluster, folder, to, [f"+ /{name}", "*"])  # rsync includes what follows a +
            return read_file(to, name)
    except (OSError, ValueError) as error:
        raise _not_copied(folder, error) from error


def _not_copied(folder: str, error: Exception) -> SweepError:
    if isinstance(error, SweepError):
        return error
    return SweepError(f"{folder}: cannot be copied: {error}")


def _rsync(cluster: str | None, folder: str, to: str, left: Sequence[str]) -> None:
    """Copy a folder on the nodes, without what rsync's patterns leave out."""
    if not cluster:
        raise SweepError(
            f"{folder}: a path on the cluster's nodes; --cluster FILE says how to reach them"
        )
    for program in ("rsync", "ssh"):
        if shutil.which(program) is None:
            raise SweepError(
                f"{folder}: cannot be copied: {program} is not installed on this machine"
            )
    Path(to).mkdir(parents=True, exist_ok=True)
    config = cluster_file(cluster) | {"rsync_exclude": list(left)}
    words = "-c", RSYNC, f"{folder}/", f"{Path(to)}/"
    # In another process, because Ray prints a lot.
    done = processes.run(*words, input=yaml.safe_dump(config), errors="replace")
    if done.returncode:
        raise SweepError(f"{folder}: cannot be copied: {_reason(done.stdout + done.stderr)}")


def _copy(uri: str, to: str, left: Sequence[str]) -> None:
    source, base = open_folder(uri)

    def copy(path: str) -> None:
        inside = path.removeprefix(base).strip("/")
        if ".." in inside.split("/"):  # possible in an object store
            raise SweepError(f"{uri}: cannot be copied: {inside} leads out of the folder")
        with source.open_input_stream(path) as stream:
            write_file(to, inside, stream.read(), lasting=False)

    found = source.get_file_info(fs.FileSelector(base))
    wanted = [i for i in found if i.base_name not in left and not i.base_name.startswith(".")]
    files = [info for info in wanted if info.is_file]
    for folder in wanted:
        if not folder.is_file:
            inside = source.get_file_info(fs.FileSelector(folder.path, recursive=True))
            files += [i for i in inside if i.is_file and not i.base_name.startswith(".")]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(copy, [info.path for info in files]))


def down(cluster: str) -> list[str]:
    """Shut a cluster down: ``ray down``, then the workers that it leaves running.

    ``ray down`` stops only the head if the cluster is a list of machines.

    Returns:
        The machines that could not be stopped, each with the reason.

    Raises:
        SweepError: ``ray down`` failed.
    """
    config = cluster_file(cluster)
    provider, auth = config["provider"], config.get("auth", {})
    head = provider.get("external_head_ip") or provider.get("head_ip")
    of_machines = provider["type"] == "local"
    if of_machines and not (head and auth.get("ssh_user")):
        raise SweepError(f"--cluster {cluster}: provider.head_ip or auth.ssh_user is missing")
    words = "-m", "ray.scripts.scripts", "down", "--yes", cluster
    done = processes.run(*words, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SweepError(f"--cluster {cluster}: ray down: {_reason(done.stdout + done.stderr)}")
    if not of_machines:
        return []
    options = ["BatchMode=yes", "ConnectTimeout=10", "LogLevel=ERROR"]
    options += ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]  # as `ray up` does
    if proxy := auth.get("ssh_proxy_command"):
        options.append(f"ProxyCommand={proxy}")
    ssh = ["ssh", *(word for option in options for word in ("-o", option))]
    if key := auth.get("ssh_private_key"):
        ssh += ["-i", str(given_path(key))]
    machines = [head, *provider.get("worker_ips", [])]
    stops = {
        machine: subprocess.Popen(
            [*ssh, f"{auth['ssh_user']}@{machine}", STOP],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for machine in machines
    }
    said = {machine: stop.communicate()[0] for machine, stop in stops.items()}
    return [f"{m}: {_reason(said[m])}" for m, stop in stops.items() if stop.returncode]
