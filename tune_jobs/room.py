"""What this machine has, and whether a trial fits on it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from models.architectures import architecture
from models.config import TrialConfig
from models.datasets import Dataset
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


def gpus_of_trial(resources: Resources) -> float:
    """GPUs that a trial will get, as far as that is known before Ray has started."""
    expected = processes.expected_gpus()
    there = float(gpus_here() > 0) if expected is None else expected
    return there if resources.gpus is None else resources.gpus


def at_once(resources: Resources) -> int:
    """How many trials fit on this machine side by side, at least 1."""
    fits = [cores() / resources.cpus]
    if gpus := gpus_of_trial(resources):
        fits.append(gpus_here() / gpus)
    return max(1, int(min(fits)))


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


def memory_here() -> float:
    """Memory of this machine in bytes."""
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
