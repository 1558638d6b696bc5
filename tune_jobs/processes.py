"""Starts the processes of a sweep, Ray's and other Python ones, and deletes their leftovers.

None of them looks for modules in the current folder. A user may have a ``models.py`` or a folder
``scoring`` next to the sweep file, and these must not replace ours.
"""

import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from models.datasets import cache_folder
from models.messages import first_line, plain
from scoring.cores import cores
from tune_jobs import signals
from tune_jobs.errors import SweepError, full_disk, is_full, no_space

SOURCE = Path(__file__).parents[1]  # site-packages or the root of a source tree
SLURM = "slurm"  # an address: Ray starts here, and the other nodes of the Slurm job join it
SCRATCH = "geosweep-ray-"
LOCK = "in-use"
UNUSED = 3600.0  # seconds without a change, after which a folder without a lock counts as left
LONGEST = 20  # skip temporary folders with longer paths: a socket path has 107 characters at most
SLOW = "timed out during startup"  # Ray gives up after 30 s, too soon for a busy machine: retry
OTHER = "Version mismatch"  # Ray or Python differs from that of the cluster
ATTEMPTS = 3
ANSWER = 10.0  # seconds for a cluster to accept a connection
PATIENT = 4  # signals that Ray's start and end hold back; one more ends a start that hangs
LEAN = {  # defaults: Ray here starts a process when it is needed, not one for each core at once
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
}
QUIET = {  # defaults, which the user's environment overrides
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints boxes even when told to be silent
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # else one URL per trial
}


def python(*arguments: str) -> list[str]:
    """A command that runs Python without importing anything from the current folder.

    >>> python("-m", "mlflow")[1:]
    ['-P', '-m', 'mlflow']
    """
    return [sys.executable, "-P", *arguments]


def environment() -> dict[str, str]:
    """Environment variables that make child processes import the same code as this process.

    In ``PYTHONPATH`` relative folders become absolute ones, because children run elsewhere. Empty
    entries, which stand for the current folder, are left out.
    """
    found = {"PYTHONSAFEPATH": "1"}
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if (SOURCE / "pyproject.toml").exists():  # a source tree, which may not be installed
        paths.insert(0, str(SOURCE))
    found["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in paths if path)
    if "GEOSWEEP_CACHE" in os.environ:
        found["GEOSWEEP_CACHE"] = str(cache_folder())  # absolute: children run in other folders
    return found


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with our code, and return what it printed; options as of ``subprocess.run``."""
    words, variables = python(*arguments), os.environ | environment()
    return subprocess.run(words, env=variables, capture_output=True, text=True, **options)


def be_quiet() -> None:
    """Keep Ray and MLflow from printing. Call this before either is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # the driver has its own handler
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the driver reports failures
    # MLflow raises the errors of its database and also prints them with their tracebacks.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # In a notebook, Ray and tqdm each ask for widgets, which nothing here needs.
    logging.getLogger("ray.widgets").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "IProgress not found")


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child process that has ended when the context is left, also by an interrupt.

    Args:
        command: to run.
        options: of :class:`subprocess.Popen`; the environment is that of :func:`environment`.
    """
    with subprocess.Popen(command, env=os.environ | environment(), **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                with signals.ignored():
                    process.kill()
                    process.wait()


@contextmanager
def ray_running(address: str | None, here: bool) -> Iterator[str]:
    """Start or join Ray, and shut it down at the end. A Ray that this process has is left as is.

    Call it within :func:`guarded`.

    Args:
        address: address of a cluster; :data:`SLURM` starts Ray here, open to the job's nodes.
        here: whether to start Ray on this machine instead.

    Yields:
        A folder for temporary files. It is deleted at the end, with all that Ray left in it.

    Raises:
        SweepError: Ray did not start, or cannot be reached.
    """
    import ray

    own = here or address == SLURM
    with scratch() as folder:
        if ray.is_initialized():
            yield folder
            return
        try:
            _start(address, here, folder)
            with signals.as_interrupt():  # instead of Ray's own handler of SIGTERM
                yield folder
        finally:
            with signals.deferred(PATIENT) if own else nullcontext():  # as in `_start`
                ray.shutdown()


@contextmanager
def guarded(address: str | None, here: bool) -> Iterator[None]:
    """Let only its own processes use a Ray of ours. Import Ray within this context, not before.

    A Ray on this machine is open to this machine only; by default it listens on all networks. It
    asks for a token that only its processes know, and so does a Ray on several nodes of a Slurm
    job; by default all clusters share one token in the home folder. The environment variables are
    set only in the context, since they would change other sweeps of a notebook's process.

    Args:
        address: as for :func:`ray_running`.
        here: as for :func:`ray_running`.
    """
    with _environment(_private() if here else _asking() if address == SLURM else {}):
        yield


@cache  # Ray reads some of them once, when it is imported, so a second sweep needs the same
def _private() -> Mapping[str, str]:
    """Variables for a Ray on this machine; none if Ray was already imported without them."""
    if "ray" in sys.modules:
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # here: only on the loopback address
    return loopback | {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": token}


def _asking() -> Mapping[str, str]:
    """Variables for a Ray on several nodes; ``geosweep submit --slurm`` puts a token in a file."""
    mode = {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}
    if "RAY_AUTH_TOKEN_PATH" in os.environ or "RAY_AUTH_TOKEN" in os.environ:
        return mode
    return mode | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _start(address: str | None, here: bool, folder: str) -> None:
    import ray

    empty = Path(folder, "empty")
    empty.mkdir()
    own = here or address == SLURM
    if not own:
        _require_answer(address or os.environ.get("RAY_ADDRESS", ""))
    defaults = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch"} | (LEAN if own else {})
    chosen = {name: os.environ.get(name, value) for name, value in defaults.items()}
    for attempt in range(ATTEMPTS):
        try:
            # Ray puts the current folder first on every worker's import path. Interrupted half-way,
            # it would leave its first processes to the end of this one, which in a notebook may be
            # days away.
            whole = signals.deferred(PATIENT) if own else nullcontext()
            with whole, chdir(empty), _environment(environment() | chosen):
                ray.init(
                    address="local" if own else address,  # None would join any running cluster
                    num_cpus=cores() if own else None,  # Ray would count those of the machine
                    include_dashboard=False if own else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=folder if own else None,
                )
            return
        except Exception as error:  # Ray raises many types, including plain Exception
            ray.shutdown()
            if no_space(error) or is_full(folder):
                raise full_disk(error, folder) from error
            if SLOW in str(error) and attempt + 1 < ATTEMPTS:
                continue
            said = first_line(error)
            if OTHER in str(error):  # the lines below the first one say which versions
                said = f"{' '.join(str(error).split())}; use the versions of constraints.txt"
            raise SweepError(f"Ray at {address or 'this machine'}: {said}") from error


def _require_answer(address: str) -> None:
    """Look whether a cluster is there, as Ray would wait for it for minutes.

    Raises:
        SweepError: nothing answers at the address.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return  # like auto, which Ray looks up
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SweepError(
            f"Ray at {plain(address)}: {why}; give the address of a running Ray"
        ) from None


def temporary_folders() -> list[str]:
    """The folders for temporary files that Ray can use here, the user's choice first.

    Raises:
        SweepError: there is none; the message says how to name one.
    """
    chosen = [os.environ.get(name, "") for name in ("RAY_TMPDIR", "TMPDIR", "TEMP", "TMP")]
    found = [
        path
        for path in dict.fromkeys([*chosen, "/tmp", "/var/tmp", "/dev/shm"])
        if os.path.isabs(path)
        and len(os.fsencode(path)) <= LONGEST
        and os.path.isdir(path)
        and os.access(path, os.W_OK | os.X_OK)
    ]
    if not found:
        raise SweepError(
            "no folder for temporary files: set RAY_TMPDIR to one that you may write to, with a "
            f"path of at most {LONGEST} characters"
        )
    return found


@contextmanager
def scratch() -> Iterator[str]:
    """Create a temporary folder with a short path, and delete those that killed sweeps left.

    Raises:
        SweepError: there is no place for it.
    """
    parents = temporary_folders()
    for parent in parents:
        for left in Path(parent).glob(f"{SCRATCH}*"):
            _delete_unused(left)
    folder = tempfile.mkdtemp(prefix=SCRATCH, dir=parents[0])
    try:
        with FileLock(Path(folder, LOCK)):
            try:
                yield folder
            finally:
                with suppress(OSError):
                    _empty(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: str | Path) -> None:
    """Delete all but the lock: it goes last, so that others find what a kill leaves."""
    for inner in Path(folder).iterdir():
        if inner.is_dir() and not inner.is_symlink():
            shutil.rmtree(inner, ignore_errors=True)
        elif inner.name != LOCK:
            with suppress(OSError):
                inner.unlink()


def _delete_unused(folder: Path) -> None:
    """Delete a temporary folder whose lock is free, because its sweep was killed.

    A sweep killed in its first or last moment leaves a folder without a lock.
    """
    try:
        if (folder / LOCK).exists():
            with FileLock(folder / LOCK, timeout=0):
                _empty(folder)
                shutil.rmtree(folder, ignore_errors=True)
        elif folder.lstat().st_uid == os.getuid() and time.time() - _changed(folder) > UNUSED:
            shutil.rmtree(folder, ignore_errors=True)  # which refuses a link
    except (OSError, Timeout):
        return  # in use, or owned by another user


def _changed(folder: Path) -> float:
    """When anything in a folder has changed last. A running Ray writes every few seconds."""
    return max(inner.lstat().st_mtime for inner in (folder, *folder.rglob("*")))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the context is open, then restore them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def expected_gpus() -> float | None:
    """GPUs of a cluster whose GPU workers are yet to start: ``GEOSWEEP_GPUS``; None if not set.

    Raises:
        SweepError: it is not a number, or below 0.
    """
    text = os.environ.get("GEOSWEEP_GPUS")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise SweepError(f"GEOSWEEP_GPUS = {text[:50]}; should be a number of GPUs, like 1")
    return number
