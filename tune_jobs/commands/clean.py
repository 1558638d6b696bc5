"""The command that frees disk space: geosweep clean."""

import sys
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from tune_jobs import disk, folder, lease
from tune_jobs.commands import options
from tune_jobs.errors import SweepError
from tune_jobs.terminal import output, say, table

app = typer.Typer()


@app.command(rich_help_panel="Results")
def clean(
    directory: options.Folder,
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints",
            help="Delete the weights of finished trials, which cannot be evaluated again then.",
        ),
    ] = False,
    mlflow: Annotated[
        bool,
        typer.Option(
            "--mlflow",
            help="Delete MLflow's database and files; [b]geosweep sync[/] makes them again.",
        ),
    ] = False,
    leftover: Annotated[
        bool,
        typer.Option(
            "--leftover",
            help="Delete what nothing needs: what was set aside (damaged files, and files of "
            "others), temporary files, and copies of data sets for the nodes of a cluster. This "
            "is the default.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking, in a script.")] = False,
) -> None:
    """Free disk space in a sweep's folder, once you have agreed.

    It shows what it would delete and how large that is, then asks. The results
    and the report always stay, and so does what a trial needs that is not
    finished or not evaluated. Nothing is deleted while the sweep runs.

    [b]geosweep clean runs/demo[/]                  deletes what nothing needs
    [b]geosweep clean runs/demo --checkpoints[/]    the weights of finished trials
    [b]geosweep clean runs/demo --mlflow --yes[/]   in a script, which cannot answer
    """
    root = folder.absolute(directory)
    folder.inspect(root)
    with lease.hold(root):
        state, there = folder.inspect(root), disk.sizes(root)
        parts = {
            "--checkpoints": (checkpoints, disk.checkpoints(state, there)),
            "--mlflow": (mlflow, disk.mlflow(root, state.name)),
            "--leftover": (leftover or not (checkpoints or mlflow), disk.leftover(state, there)),
        }
        chosen = [part for wanted, part in parts.values() if wanted and part.files]
        rest = {option: part for option, (wanted, part) in parts.items() if not wanted}
        if chosen:
            output().print(_table(chosen))
        else:
            say("nothing to delete")
        for option, part in rest.items():
            if part.files:
                say(f"{option} would free {decimal(part.size)}: {part.what}")
        if not chosen or not _agreed(yes):
            return
        for part in chosen:
            disk.delete(part)
    say(f"freed {decimal(sum(part.size for part in chosen))}")


def _table(parts: list[disk.Part]) -> Table:
    made = table(["to delete"], ["files", "size"])
    made.add_column("", overflow="fold")
    for part in parts:
        made.add_row(part.what, str(part.files), decimal(part.size), part.lost)
    return made


def _agreed(yes: bool) -> bool:
    """Whether the user wants it.

    Raises:
        SweepError: nobody can be asked.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise SweepError("nothing was deleted: no terminal to ask on; --yes deletes without asking")
    agreed = typer.confirm("Delete?")
    if not agreed:
        say("nothing was deleted")
    return agreed
