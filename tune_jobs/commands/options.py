"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from models.config import TrialConfig
from tune_jobs import sweep
from tune_jobs.axes import ALIASES
from tune_jobs.cells import MOST_CELLS
from tune_jobs.errors import SweepError


def builtin_names(incomplete: str) -> list[str]:
    """The built-in sweeps that a word may become; the shell adds files."""
    return [name for name in sweep.builtin() if name.startswith(incomplete)]


def _fields() -> str:
    """The names of all fields of a sweep file, for the end of a command's help."""
    aliases = {full: alias for alias, full in ALIASES.items()}
    names = {
        name: f"{name} ({aliases[name]})" if name in aliases else name
        for name in sweep.SweepFile.model_fields
    }
    of_trials = ", ".join(names.pop(name) for name in TrialConfig.model_fields)
    return (
        "Fields of a sweep file, which docs/sweeps.md explains one by one. "
        f"[b]Of a trial:[/] {of_trials}. [b]Of the sweep:[/] {', '.join(names.values())}. "
        "A dot leads to a part of a field, as in resources.cpus, model.NAME and "
        "evaluations.noise.levels."
    )


FIELDS = _fields()

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
        help="Replace a field of the sweep file, like gamma=0,1e-3; several values make it an "
        "axis. Repeatable. The names of all fields are below.",
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
    bool, typer.Option("--retry-failed", help="Train only the trials that failed before.")
]
LeaveFailed = Annotated[
    bool,
    typer.Option(
        "--leave-failed", help="Train only trials that have not failed before this start."
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


def which_failed(retry_failed: bool, leave_failed: bool) -> bool | None:
    """Whether a run trains only failed trials (True), only others (False), or both (None).

    Raises:
        SweepError: both options are given.
    """
    if retry_failed and leave_failed:
        raise SweepError("--retry-failed and --leave-failed: give one of them")
    return True if retry_failed else False if leave_failed else None


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
        help="The Ray cluster: the file that was given to [b]ray up[/], like ray_cluster.yaml. "
        "geosweep reaches its head through SSH.",
    ),
]
ClusterFile = Annotated[
    str, typer.Option(metavar="FILE", help="The file for [b]ray up[/], like ray_cluster.yaml.")
]
Slurm = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Instead of --cluster: a file like clusters/slurm.yaml, on the login node of a Slurm "
        "cluster.",
    ),
]
DASHBOARD = "Instead of --cluster: where the Ray dashboard answers, like http://127.0.0.1:8265."
Dashboard = Annotated[
    str | None,
    typer.Option("--address", metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help=DASHBOARD),
]
NAMES = "A job id, a folder of results on the cluster, or the name of that folder, like table4."
Job = Annotated[
    str | None,
    typer.Argument(metavar="[JOB|DIR]", help=f"{NAMES} Default: the last job that was submitted."),
]
ActiveJob = Annotated[
    str | None,
    typer.Argument(metavar="[JOB|DIR]", help=f"{NAMES} Default: the one that runs or waits."),
]
Follow = Annotated[
    bool,
    typer.Option("--follow", "-f", help="On a cluster: show the job's log until it ends."),
]
