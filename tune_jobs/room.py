"""Whether this machine has what one trial of a sweep asks for."""

from pathlib import Path

from scoring.cores import cores
from tune_jobs.errors import SweepError
from tune_jobs.sweep import Sweep


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
    gpus, asked = len(list(Path("/proc/driver/nvidia/gpus").glob("*"))), sweep.resources.gpus
    if asked is not None and asked > gpus:
        raise SweepError(
            f"{sweep.source}: resources.gpus = {asked:g}: this machine has {gpus or 'no'} GPUs; "
            "0 trains on the CPU, and --address NAME on a cluster"
        )
