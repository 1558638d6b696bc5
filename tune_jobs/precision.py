"""What ``precision: auto`` stands for in a sweep: resolved once, and kept in the sweep's folder."""

import json
import subprocess
from dataclasses import replace
from typing import get_args

from models import precision
from models.config import TrialConfig
from models.errors import DataError
from scoring.places import argument
from tune_jobs import folder, processes, room
from tune_jobs.errors import SweepError
from tune_jobs.labels import last_line, trials_of
from tune_jobs.sweep import AUTO, Sweep

PRECISIONS = get_args(precision.Precision)
LONGEST = 300  # seconds for a timing of one second, on a machine that is very busy


def resolved(sweep: Sweep, root: str) -> Sweep:
    """A sweep with ``precision: auto`` replaced by the precision of its folder, or by the faster.

    The folder comes first, so a sweep that goes on elsewhere keeps its precision. All workers get
    the precision in the configuration of their trials.

    Args:
        sweep: the sweep that was asked for; returned as it is if it has no ``auto``.
        root: its folder.

    Raises:
        SweepError: the folder has trials of this sweep in another precision, from before ``auto``;
            the message names the ``--set`` that continues them. Or the timing failed.
    """
    if sweep.precision != AUTO:
        return sweep
    kept = folder.description(root).precision
    found = kept or _faster(sweep)
    settled = replace(
        sweep,
        precision=found,
        trials=_in(found, sweep.trials),
        fixed=sweep.fixed | ({"precision": found} if sweep.search else {}),
    )
    if not kept and not sweep.search:  # the study of a search notices itself that it has changed
        _keep_apart(settled, root)
    return settled


def _in(one: str, trials: list[TrialConfig]) -> list[TrialConfig]:
    return [trial.model_copy(update={"precision": one}) for trial in trials]


def _keep_apart(sweep: Sweep, root: str) -> None:
    """Refuse to go on with trials of this sweep that were begun in another precision."""
    begun = folder.begun(root)
    for other in {*PRECISIONS} - {sweep.precision}:
        if there := [t for t in _in(other, sweep.trials) if t.trial in begun]:
            trials = trials_of(len(there))
            raise SweepError(
                f"{sweep.source}: precision: {folder.short_path(root)} holds {trials} of this "
                f"sweep in {other}, but auto is {sweep.precision} here; --set precision={other} "
                f"continues them, --out {argument(folder.short_path(root))}-{sweep.precision} "
                "begins anew"
            )


def _faster(sweep: Sweep) -> precision.Precision:
    """The precision that this machine trains faster in, timed in a process that imports torch."""
    device = "cuda" if room.gpus_of_trial(sweep.resources) else "cpu"
    try:
        return precision.known(device) or _timed(device)
    except (DataError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", None)  # bytes where the time was over
        reason = last_line(said if said and isinstance(said, str) else str(error))
        raise SweepError(
            f"{sweep.source}: precision: auto: cannot time this machine ({reason}); give "
            "precision: float32 or bfloat16"
        ) from error


def _timed(device: str) -> precision.Precision:
    done = processes.run("-m", "models.precision", device, check=True, timeout=LONGEST)
    return json.loads(done.stdout)["precision"]
