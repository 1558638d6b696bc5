"""Serving pages in a process of its own, until it ends or Ctrl-C."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

import typer

from tune_jobs.cluster.reach import answers
from tune_jobs.errors import SweepError
from tune_jobs.terminal import say

PATIENCE = 5.0  # seconds for a server to end


def check_port(host: str, port: int) -> None:
    """Check that a server can listen there.

    Raises:
        SweepError: it cannot; the message says why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            which = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
            raise SweepError(f"{host}:{port}: {error.strerror}; choose another {which}") from None


def hold(cluster: str, port: int, is_there: Callable[[int], bool] = answers) -> NoReturn:
    """Wait until Ctrl-C, while a tunnel to a cluster is open.

    Args:
        cluster: its file.
        port: of the tunnel, on this machine.
        is_there: whether the page still answers.

    Raises:
        SweepError: the page does not answer any more.
        typer.Exit: after Ctrl-C.
    """
    try:
        while is_there(port):
            time.sleep(2)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise SweepError(
        f"--cluster {cluster}: the page ended, or the cluster is gone; run the same command again"
    )


def serve(
    command: Sequence[str],
    host: str,
    port: int,
    lines: Callable[[], Sequence[str]],
    environment: Mapping[str, str],
    place: str | None = None,
) -> int:
    """Run a server until it ends or is interrupted; its exit status.

    Args:
        command: the server's.
        host: address that it listens on.
        port: likewise.
        lines: called while the server starts; its lines are printed as soon as the server answers.
        environment: its variables.
        place: its current folder.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # so that `finally` ends the server
    # Ctrl-C must not reach the server: it would print tracebacks. Hence a session of its own.
    process = subprocess.Popen(command, env=environment, cwd=place, start_new_session=True)
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        told = lines()
        while process.poll() is None and not answers(port, here):
            time.sleep(0.1)
        if process.poll() is None:
            for line in told:
                say(line)
        # No wait(): once MLflow's client is loaded, a signal does not interrupt a system call.
        while (status := process.poll()) is None:
            time.sleep(0.1)
        return status
    except KeyboardInterrupt:
        return 130
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            os.killpg(process.pid, signal.SIGKILL)  # it waits for a browser to close its connection
        process.wait()
