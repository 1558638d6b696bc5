"""How many CPU cores this process may use, which may be fewer than the machine has."""

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of the container that this process is in


def cores() -> int:
    """Number of CPU cores that this process may use, at least 1.

    A container, a job of a cluster or ``taskset`` gives a process some of the machine's cores, by
    an affinity mask or a quota of time. Slurm also tells the number in an environment variable.

    >>> cores() >= 1
    True
    """
    masked = hasattr(os, "sched_getaffinity")  # on Linux
    found = [len(os.sched_getaffinity(0)) if masked else os.cpu_count() or 1, *_quota()]
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if given.isdecimal():
        found.append(int(given))
    return max(1, min(found))


def _quota() -> list[int]:
    """The whole cores in the container's share of time; empty if it is not limited."""
    try:
        share, period = QUOTA.read_text().split()
        return [] if share == "max" else [int(share) // int(period)]
    except (OSError, ValueError, ZeroDivisionError):  # no container, or one of another kind
        return []
