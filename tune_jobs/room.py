"""What this machine or a cluster has, and whether a trial fits on it.

    python -m tune_jobs.room ADDRESS

prints what a Ray cluster has, as JSON. It serves :func:`capacity`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import archives
from models.architectures import architecture
from models.config import TrialConfig
from models.datasets import Dataset
from models.messages import plain
from scoring.cores import cores
from tune_jobs import processes
from tune_jobs.errors import SweepError
from tune_jobs.sweep import Resources, Sweep

if TYPE_CHECKING:
    from tune_jobs.blocks import Found


def is_here(address: str | None) -> bool:
    """Whether a sweep starts its own Ray on this machine, instead of using a cluster."""
    return address is None and "RAY_ADDRESS" not in os.environ


def gpus_here() -> int:
    """How many NVIDIA GPUs this machine has."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def gpus_of_trial(resources: Resources, have: Mapping[str, float] | None = None) -> float:
    """GPUs that a trial will get.

    Args:
        resources: what the sweep asks for.
        have: as for :func:`at_once`; this machine's if None, before Ray has started.
    """
    if resources.gpus is not None:
        return resources.gpus
    expected = processes.expected_gpus()  # on a cluster whose GPU workers are yet to start
    known = gpus_here() if have is None else have.get("GPU", 0)
    return float(known > 0) if expected is None else expected


def capacity(address: str | None) -> Mapping[str, float]:
    """CPUs and GPUs of where a sweep would run, by Ray's names for them.

    Args:
        address: of a Ray cluster, which is asked; None means this machine, or ``RAY_ADDRESS``.

    Raises:
        SweepError: the cluster cannot be reached.
    """
    if is_here(address) or address == processes.SLURM:
        nodes = 1 if is_here(address) else int(os.environ.get("SLURM_JOB_NUM_NODES", 1))
        return {"CPU": nodes * cores(), "GPU": nodes * gpus_here()}
    # In a separate process: after importing Ray, this one could start no Ray with a token.
    command = processes.python("-m", "tune_jobs.room", address or "")
    with processes.child(command, stdout=subprocess.PIPE, text=True) as child:
        said, _ = child.communicate()
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        where = plain(address or os.environ.get("RAY_ADDRESS", ""))
        found = {"error": f"Ray at {where}: does not say what it has; is it running?"}
    if "error" in found:
        raise SweepError(found["error"])
    return found


def at_once(resources: Resources, have: Mapping[str, float], gpus: float) -> int:
    """How many trials fit side by side; 0 if one of them needs more than there is.

    Args:
        resources: what the sweep asks for.
        have: CPUs and GPUs, as of :func:`capacity` or of Ray.
        gpus: of each trial, from :func:`gpus_of_trial`.
    """
    fits = have.get("CPU", 1) / resources.cpus
    return int(min(fits, have.get("GPU", 0) / gpus) if gpus else fits)


def slots(address: str | None, resources: Resources) -> int:
    """How many trials would train side by side, at least 1, as a cluster may get more nodes.

    Raises:
        SweepError: as for :func:`capacity`.
    """
    have = capacity(address)
    return max(1, at_once(resources, have, gpus_of_trial(resources, have)))


def fits(sweep: Sweep) -> None:
    """Check that this machine has the cores and GPUs that one trial asks for.

    Raises:
        SweepError: it has fewer.
    """
    there, cpus = cores(), sweep.resources.cpus
    if cpus > there:
        raise SweepError(
            f"{sweep.source}: resources.cpus = {cpus:g}: this machine has {there} cores"
        )
    gpus, asked = gpus_here(), sweep.resources.gpus
    if asked is not None and asked > gpus:
        raise SweepError(
            f"{sweep.source}: resources.gpus = {asked:g}: this machine has {gpus or 'no'} GPUs; "
            "0 trains on the CPU, and --address NAME on a cluster"
        )


def needed_memory(trial: TrialConfig, data: Dataset, found: "Found | None" = None) -> float:
    """Least memory of a trial at hand-over, in bytes: every stage's points, or their products."""
    own = found is None
    row = architecture(trial.layers, data.image, trial.stages, data.classes) if own else found
    m = trial.points
    return sum(4.0 * min(1.5 * m * m, 2 * m * d) for d in row.dimensions)


def fits_memory(sweep: Sweep, loaded: Mapping[str, Dataset], found: Mapping[str, "Found"]) -> None:
    """Check that this machine has the memory that each trial needs at least.

    Args:
        sweep: to be run here.
        loaded: its data sets by name; trials of others are not checked.
        found: the blocks of its architectures, by trial.

    Raises:
        SweepError: it has less.
    """
    there = archives.memory()
    for trial in sweep.trials:
        if trial.dataset not in loaded:
            continue
        needed = needed_memory(trial, loaded[trial.dataset], found.get(trial.trial))
        if needed > there:
            what = f"K = {trial.stages} {trial.layers}" if trial.layers else trial.architecture
            raise SweepError(
                f"{plain(sweep.source)}: points = {trial.points}: the states of {what} stages take "
                f"{needed / 1e9:.1f} GB, this machine has {there / 1e9:.1f} GB; take fewer points"
            )


def main() -> None:
    """Print what the cluster at an address has, or an error; see the top of this module."""
    address = sys.argv[1] or None
    lines = os.fdopen(os.dup(1), "w")  # what Ray prints goes to standard error
    with redirect_stdout(sys.stderr):
        processes.be_quiet()
        found: Mapping[str, object]
        try:
            with processes.guarded(address, False), processes.ray_running(address, False):
                import ray

                found = ray.cluster_resources()
        except SweepError as error:
            found = {"error": str(error)}
    print(json.dumps(found), file=lines, flush=True)


if __name__ == "__main__":
    main()
