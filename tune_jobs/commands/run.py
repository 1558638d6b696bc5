"""The commands that train and evaluate: geosweep run | evaluate | sweeps."""

import os
import time
from typing import Annotated

import typer
from rich.table import Table

from tune_jobs import sweep
from tune_jobs.cluster.at import At
from tune_jobs.commands import options, plan, sending, work
from tune_jobs.errors import SweepError
from tune_jobs.evaluations import NAMES
from tune_jobs.terminal import complain, output, say

app = typer.Typer()


@app.command(rich_help_panel="Sweeps")
def run(
    name: options.Sweep,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results: a path, or a URI like s3://bucket/sweeps/demo. "
            "Default: the sweep's name in $GEOSWEEP_STORAGE, or in runs if that is not set.",
        ),
    ] = None,
    settings: options.Settings = None,
    data: options.Data = None,
    address: options.RayAddress = None,
    retry: options.RetryFailed = None,
    max_failures: options.MaxFailures = None,
    fail_fast: options.FailFast = False,
    budget: options.Budget = None,
    report: options.Report = True,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check the sweep, list its trials and the blocks of its architectures, and "
            "estimate its time, memory and disk; start and download nothing.",
        ),
    ] = False,
) -> None:
    """Train and score the trials of a sweep that are missing, and write its report.

    Trials that are done are not trained again. Run the same command again to
    continue a sweep that was stopped, or to add trials after the sweep file
    has grown. Ctrl-C stops after the epochs that are running; a second Ctrl-C
    stops at once. A sweep does not write into a folder that holds trials of
    another sweep, unless --out names that folder.

    [b]geosweep run demo[/]                       real digits, 16 trials, a minute
    [b]geosweep run mnist --data DIR[/]           uses DIR/mnist.npz if it exists
    [b]geosweep run demo --set seeds=5[/]         means and intervals over 5 seeds
    [b]geosweep run table4 --budget 2h[/]         what can be done in two hours
    [b]geosweep run table4 --set epochs=1 --set gamma=0.01,0.1 --out runs/try[/]
    """
    begun = time.monotonic()
    most = options.most_failures(fail_fast, max_failures)
    asked = (name, settings or [], out, data, address)
    request = work.request_run(*asked, retry, most, download=not dry_run, budget=budget)
    if dry_run:
        say(str(plan.plan(request)))
        return
    try:
        status = work.run(request, report, begun)
    except KeyboardInterrupt:  # the second one
        complain("stopped; run the same command again to continue")
        raise typer.Exit(130) from None
    raise typer.Exit(status)


@app.command(rich_help_panel="Sweeps")
def evaluate(
    directory: options.Folder,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"Of {', '.join(NAMES)}. Default: all."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME.SETTING=V1,V2",
            help="Replace a default setting, like noise.levels=0,8,16. Repeatable.",
        ),
    ] = None,
    data: options.Data = None,
    address: options.RayAddress = None,
    cluster: options.Cluster = None,
    slurm: options.Slurm = None,
    follow: options.Follow = False,
    report: options.Report = True,
) -> None:
    """Measure more of the trained networks of a sweep, without training.

    It does what [b]evaluations:[/] in a sweep file does, for trials that are done
    and kept their weights. Evaluations that are done are not repeated, so the
    same command continues after a kill. New settings replace earlier results.

    [b]lesion[/]      units of a block are replaced (Fig. 7); skip, swap blocks.
                [b]lesion.replacement[/] previous,mean; [b]lesion.units[/] top,random
    [b]noise[/]       Gaussian noise (Fig. 8); [b]noise.levels[/] are pixel values, 0-255
    [b]fgsm[/]        fast gradient sign method (Fig. 8); [b]fgsm.levels[/], likewise
    [b]pgd[/]         projected gradient descent; [b]pgd.levels[/], [b]pgd.steps[/]
    [b]separation[/]  does noise mix up close tracks first, at equal ends and against
                the untrained network? [b]separation.level[/]
    [b]curve[/]       the curve of measures in Wasserstein space; [b]curve.points[/] is m
    [b]scores[/]      scores that an earlier version did not have; no settings

    Architectures of libraries and users have no [b]lesion[/]: name the others.

    With --cluster or --slurm it is a job there, like a sweep of [b]geosweep
    submit[/]. DIR is then a job, the folder there, or that folder's name.

    [b]geosweep evaluate runs/demo noise fgsm[/]
    [b]geosweep evaluate runs/mnist pgd --set pgd.steps=40 --data DIR[/]
    [b]geosweep evaluate table4 noise --cluster ray_cluster.yaml[/]
    """
    if cluster or slurm:
        if address:
            raise SweepError(
                "--address names a running Ray; leave it out with --cluster or --slurm"
            )
        at = At(cluster, None, slurm)
        sending.evaluate(at, directory, names or [], settings or [], data, report, follow)
    begun = time.monotonic()
    request = work.request_evaluation(directory, names or [], settings or [], data, address)
    try:
        status = work.evaluate(request, report, begun)
    except KeyboardInterrupt:  # the second one
        complain("stopped; run the same command again to continue")
        raise typer.Exit(130) from None
    raise typer.Exit(status)


@app.command(rich_help_panel="Sweeps")
def sweeps() -> None:
    """List the built-in sweeps.

    Each is a YAML file that you can copy and change.

    [b]geosweep sweeps[/]
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sweep", no_wrap=True)
    table.add_column("trials", justify="right")
    table.add_column("what")
    for name in sweep.builtin():
        found = sweep.read(name)
        table.add_row(name, str(len(found.trials)), found.description)
    output().print(table)
    here = os.path.relpath(next(iter(sweep.builtin().values())).parent)
    say(f"\ngeosweep run NAME trains one; their files in {here} are examples for your own")
