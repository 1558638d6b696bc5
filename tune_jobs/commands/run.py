"""The commands that train and evaluate: geosweep run | evaluate | sweeps."""

import os
import sys
import time
from dataclasses import replace
from typing import Annotated

import typer
from rich.table import Table

from tune_jobs import folder, service, sweep
from tune_jobs.commands import plan
from tune_jobs.commands.ending import end, output, results_table
from tune_jobs.commands.folder import Folder
from tune_jobs.errors import SweepError
from tune_jobs.evaluations import NAMES, EvaluationError
from tune_jobs.evaluations import read as read_evaluations

app = typer.Typer()

Data = Annotated[
    str | None, typer.Option(help="Folder with NAME.npz data sets; default GEOSWEEP_DATA.")
]
Address = Annotated[
    str | None, typer.Option(help="A Ray cluster's address; default: Ray on this machine.")
]


@app.command()
def run(
    name: Annotated[
        str,
        typer.Argument(metavar="SWEEP", help="A YAML file, or a name from [b]geosweep sweeps[/]."),
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder of the results; default runs/<name of the sweep>.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=V1,V2",
            help="Another value, or another axis, than the file's. May be given again.",
        ),
    ] = None,
    data: Data = None,
    address: Address = None,
    retry: Annotated[
        bool | None,
        typer.Option(
            "--retry-failed/--leave-failed",
            help="Train only cells that failed before, or only the others. Without either: both.",
        ),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop once N cells have failed (each after two more tries); default: never.",
        ),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first: --max-failures 1.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check the sweep, list its cells, start and download nothing."
        ),
    ] = False,
) -> None:
    """Train and score what is missing of a sweep, and write its report.

    What is done is never trained again: the same command goes on where it was stopped, and
    adds cells when the sweep file has grown. Ctrl-C lets the epochs that are running end; a
    second one stops now. Results of cells that the sweep does not have keep it out of its folder
    unless --out names it.

    [b]geosweep run demo[/]                       real digits, 16 trials, two minutes
    [b]geosweep run mnist --data DIR[/]           DIR/mnist.npz is used if it is there
    [b]geosweep run table4 --set epochs=1 --set gamma=0.01,0.1 --out runs/try[/]
    [b]geosweep run demo --set seeds=5[/]         means with intervals over 5 seeds
    """
    console = output()
    begun = time.monotonic()
    found = sweep.read(name, settings or [])
    if out is None:
        plan.keep_apart(found, folder.path_of(found.name))
    request = service.check(
        found,
        out,
        data,
        address,
        retry=retry,
        max_failures=1 if fail_fast else max_failures,
        download=not dry_run,
    )
    if dry_run:
        plan.show(request, console)
        return
    try:
        state = service.run(request, console)
    except KeyboardInterrupt:  # the second one
        print("geosweep: stopped; the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    console.print(results_table(state, console.width))
    failed, unfinished = len(state.ids("failed")), state.unfinished
    left_out = failed if retry is False else unfinished if retry else 0
    lacking = failed + unfinished > left_out or bool(state.ids("diverged"))
    raise typer.Exit(end(request, state, console, begun, lacking))


@app.command()
def evaluate(
    directory: Folder,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"Of {', '.join(NAMES)}; default: all."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME.SETTING=V1,V2",
            help="Another setting than the default, like noise.levels=0,8,16. May be given again.",
        ),
    ] = None,
    data: Data = None,
    address: Address = None,
) -> None:
    """Try how robust the trained networks of a sweep are; trains nothing.

    The same as [b]evaluations:[/] of a sweep file, for trials that are done and kept their weights.
    What was evaluated is not evaluated again: killed half-way, the same command goes on. With
    other settings than before it is, and the new results take the place of the old ones.

    [b]lesion[/]      units of a block as they were before it (Fig. 7); blocks skipped, swapped
    [b]noise[/]       Gaussian noise (Fig. 8); [b]noise.levels[/] in pixel values, 0 to 255
    [b]fgsm[/]        the fast gradient sign method (Fig. 8); [b]fgsm.levels[/], likewise
    [b]pgd[/]         projected gradient descent; [b]pgd.levels[/], [b]pgd.steps[/]
    [b]separation[/]  does noise mix up points of close tracks first? [b]separation.level[/]

    [b]geosweep evaluate runs/demo noise fgsm[/]
    [b]geosweep evaluate runs/mnist pgd --set pgd.steps=40 --data DIR[/]
    """
    console = output()
    begun = time.monotonic()
    root = folder.absolute(directory)
    known = folder.as_sweep(root)
    try:
        wanted = read_evaluations(names or [], settings or [], known.evaluations)
    except EvaluationError as error:
        raise SweepError(str(error)) from None
    asked = replace(known, evaluations=wanted)
    request = service.check(asked, root, data, address)
    try:
        state = service.evaluate(request, console)
    except KeyboardInterrupt:  # the second one
        print("geosweep: stopped; the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    raise typer.Exit(end(request, state, console, begun))


@app.command()
def sweeps() -> None:
    """List the built-in sweeps."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sweep", no_wrap=True)
    table.add_column("trials", justify="right")
    table.add_column("what")
    for name in sweep.builtin():
        found = sweep.read(name)
        table.add_row(name, str(len(found.trials)), found.description)
    console = output()
    console.print(table)
    console.print(
        "\ngeosweep run NAME, or a YAML file of your own (they are examples: "
        f"{os.path.relpath(next(iter(sweep.builtin().values())).parent)})",
        highlight=False,
    )
