"""Watches one node of a cluster, from the command that starts Ray there until the node ends.

On a worker (``--head HOST:PORT``) it does two things. AWS announces two minutes ahead that it takes
a spot machine away. Ray is told, so that nothing new starts there and the driver does not count the
loss (:mod:`tune_jobs.cluster.machines`). And a worker whose head is gone would run, and cost,
forever: after ten minutes it is shut down. Until this starts, a timer that the cluster file sets
when the machine starts does that; it is cancelled here.

On the head (without ``--head``) it stops orders of workers that cannot be set up
(:mod:`tune_jobs.cluster.orders`). If asked to, it shuts the head down when no sweep has been there
for some hours. ``ray_cluster.yaml`` starts it.
"""

import argparse
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

METADATA = "http://169.254.169.254"  # where every machine on AWS learns about itself
SHUTDOWN = "sudo shutdown -h now"
CANCEL = "sudo shutdown -c"  # does nothing if no timer is set
# Ray is stopped this many seconds before the machine is taken. A node that says goodbye is replaced
# at once; one that vanishes is missed only after half a minute.
GOODBYE = 20.0
REASON = "DRAIN_NODE_REASON_PREEMPTION"


def say(text: str) -> None:
    """Write a line to the log, with the time."""
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", flush=True)


def seconds_left(metadata: str = METADATA) -> float | None:
    """How long this spot machine has until it is taken away, in seconds.

    Args:
        metadata: base address of the instance metadata service, which is asked by its version 2.

    Returns:
        None if nothing is announced, or if this is no machine on AWS. At least 0.
    """

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(method: str, path: str, header: str, value: str) -> str:
        headers = {f"X-aws-ec2-metadata-{header}": value}
        request = urllib.request.Request(f"{metadata}/latest/{path}", None, headers, method=method)
        with direct.open(request, timeout=2) as answer:
            return answer.read().decode()

    try:
        token = ask("PUT", "api/token", "token-ttl-seconds", "60")
        notice = json.loads(ask("GET", "meta-data/spot/instance-action", "token", token))
        left = datetime.fromisoformat(notice["time"]) - datetime.now(UTC)
    except (OSError, ValueError, KeyError, TypeError):  # 404: nothing is announced
        return None
    return max(0.0, left.total_seconds())


def answers(address: str) -> bool:
    """Whether something accepts connections at HOST:PORT.

    :mod:`tune_jobs.cluster.reach` loads more than a watcher should hold in memory all the time.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def drain(head: str, left: float, node: str | None = None) -> bool:
    """Tell Ray that a node will be taken away: it gets no new work, and its end is no failure.

    Args:
        head: HOST:PORT of the head's scheduler.
        left: seconds until then.
        node: id of the node in hexadecimal; this machine's if None.

    Returns:
        Whether Ray has accepted it.
    """
    from tune_jobs.processes import python  # loads more than a watcher should hold all the time

    command = python("-m", "ray.scripts.scripts", "drain-node", "--address", head)
    command += ["--reason", REASON, "--reason-message", "AWS takes this spot machine away"]
    command += ["--deadline-remaining-seconds", str(int(left))]
    command += ["--node-id", node] if node else []
    done = subprocess.run(
        command,
        env=os.environ | {"RAY_ADDRESS": head},  # where it asks for the id of this machine's node
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        say(f"Ray was not told: {(done.stdout + done.stderr).strip()[-500:]}")
    return done.returncode == 0


@dataclass
class Worker:
    """What the watcher of a worker knows.

    Attributes:
        head: HOST:PORT of the head's scheduler.
        patience: a head that does not answer for this many seconds is gone.
        stop: command that stops Ray on this machine.
        shutdown: command that shuts this machine down.
        metadata: base address of the instance metadata service.
        goodbye: seconds before the machine is taken at which Ray is stopped.
        node: as for :func:`drain`.
    """

    head: str
    patience: float = 600.0
    stop: str = "ray stop"
    shutdown: str = SHUTDOWN
    metadata: str = METADATA
    goodbye: float = GOODBYE
    node: str | None = None
    _drained: bool = False
    _seen: float = field(default_factory=time.monotonic)

    def look(self) -> bool:
        """Look once and do what is due; whether there is anything left to watch."""
        left = seconds_left(self.metadata)
        if left is not None:
            if not self._drained:
                say(f"AWS takes this machine away in {left:.0f} s")
                self._drained = drain(self.head, left, self.node)
            if left <= self.goodbye:
                run(self.stop)
                return False
            return True
        if answers(self.head):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen >= self.patience:
            say(f"{self.head}: no head for {self.patience:g} s; this machine shuts down")
            run(self.shutdown)
            return False
        return True


@dataclass
class Head:
    """What the watcher of a head knows.

    Attributes:
        hours: shut down when no sweep has been in the queue for this long; 0 is never.
        busy: whether a sweep runs or waits here.
        orders: looks after failing orders of workers.
        shutdown: command that shuts this machine down.
    """

    hours: float
    busy: Callable[[], bool]
    orders: Callable[[], None]
    shutdown: str = SHUTDOWN
    _seen: float = field(default_factory=time.monotonic)

    def look(self) -> bool:
        """Look once and do what is due; whether there is anything left to watch."""
        self.orders()
        if self.busy():
            self._seen = time.monotonic()
        elif self.hours and time.monotonic() - self._seen >= self.hours * 3600:
            say(f"no sweep for {self.hours:g} hours; the head shuts down")
            run(self.shutdown)
            return False
        return True


def run(command: str) -> None:
    """Run a shell command, and log how it ended if not well."""
    say(command)
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        say(f"exit status {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")


def main(words: list[str] | None = None) -> None:
    """Watch until there is nothing left to watch."""
    summary = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="watch", description=summary[0], epilog=summary[2])
    add = parser.add_argument
    add("--head", metavar="HOST:PORT", help="this is a worker of that head")
    add("--patience", type=float, default=600.0, help="seconds without a head (600)")
    add("--goodbye", type=float, default=GOODBYE, help=f"stop Ray so long before ({GOODBYE:g} s)")
    add("--every", type=float, default=5.0, help="seconds between two looks (5)")
    add("--idle-hours", type=float, default=0.0, help="a head without sweeps shuts down (0: never)")
    add("--config", default="~/ray_bootstrap_config.yaml", help="the head's cluster file")
    add("--log", default="/tmp/ray/session_latest/logs/monitor.log", help="of the autoscaler")
    add("--metadata", default=METADATA, help="the instance metadata service")
    add("--stop", default="ray stop", help="stops Ray on this machine")
    add("--shutdown", default=SHUTDOWN, help="shuts this machine down")
    add("--cancel", default=CANCEL, help="cancels the timer that a worker was started with")
    add("--node", help="id of the node; default: of this machine")
    given = parser.parse_args(words)
    if given.head:
        run(given.cancel)
        watcher: Worker | Head = Worker(
            head=given.head,
            patience=given.patience,
            stop=given.stop,
            shutdown=given.shutdown,
            metadata=given.metadata,
            goodbye=given.goodbye,
            node=given.node,
        )
    else:
        from tune_jobs.cluster import orders, turns  # which a worker does not need

        config, log = Path(given.config).expanduser(), Path(given.log)
        watcher = Head(
            hours=given.idle_hours,
            busy=turns.busy,
            orders=orders.Limiter(config, log, say),
            shutdown=given.shutdown,
        )
    while watcher.look():
        time.sleep(given.every)


if __name__ == "__main__":
    main()
