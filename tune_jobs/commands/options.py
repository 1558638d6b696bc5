"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from tune_jobs import sweep
from tune_jobs.cells import MOST_CELLS
from tune_jobs.errors import SweepError


def builtin_names(incomplete: str) -> list[str]:
    """The built-in sweeps that a word may become; the shell adds files."""
    return [name for name in sweep.builtin() if name.startswith(incomplete)]


Sweep = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP",
        autocompletion=builtin_names,
        help="A YAML file, - for standard input, or the name of a built-in sweep "
        "([b]geosweep sweeps[/] lists them).",
    ),
]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="A sweep's folder, like runs/demo.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=V1,V2",
        help="Replace a field of the sweep file; several values make it an axis. Repeatable.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Folder with NAME.npz data sets. Default: $GEOSWEEP_DATA, if set."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDR",
        help="Address of a running Ray cluster, or auto. Default: start Ray on this machine.",
    ),
]
RetryFailed = Annotated[
    bool | None,
    typer.Option(
        "--retry-failed/--leave-failed",
        help="Train only the trials that failed before, or all others. Default: both.",
    ),
]
MaxFailures = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_CELLS,
        metavar="N",
        help="Stop once N trials have failed; each is tried three times. Default: never stop.",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="LIMITS",
        help="What the sweep may take in all its runs together: hours (2h, 1h30m, 1d), GPU hours "
        "(8gpuh) and the size of its folder (10GB), with commas between them. It stops after an "
        "epoch; a larger budget continues it. Default: budget: of the sweep file, if it has one.",
    ),
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first failure, like --max-failures 1.")
]


def most_failures(fail_fast: bool, max_failures: int | None) -> int | None:
    """After how many failures a sweep stops.

    Raises:
        SweepError: both options are given.
    """
    if fail_fast and max_failures is not None:
        raise SweepError("--fail-fast and --max-failures: give one of them")
    return 1 if fail_fast else max_failures


Report = Annotated[
    bool,
    typer.Option(
        "--report/--no-report",
        help="Whether to write the report at the end; [b]geosweep report[/] writes it later.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="The cluster file given to [b]ray up[/]; geosweep reaches the head through SSH.",
    ),
]
Slurm = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Instead of --cluster: a file like clusters/slurm.yaml, on the login node of a Slurm "
        "cluster.",
    ),
]
Dashboard = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="Instead of --cluster: where the Ray dashboard answers, like http://127.0.0.1:8265.",
    ),
]
Job = Annotated[
    str | None,
    typer.Argument(
        metavar="[JOB|DIR]",
        help="A job id, a sweep's folder on the cluster, or the name of that folder, like table4. "
        "Default: the last sweep that was submitted.",
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the log until the sweep ends.")]
