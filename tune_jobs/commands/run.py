"""The commands that train and evaluate: geosweep run | evaluate | sweeps."""

import json
import time
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from models.messages import did_you_mean, plain, several
from tune_jobs import sweep
from tune_jobs.cluster.at import At
from tune_jobs.commands import options, plan, sending, work
from tune_jobs.errors import SweepError
from tune_jobs.evaluations import NAMES
from tune_jobs.terminal import complain, output, say, table

app = typer.Typer()
FOR_GPUS = "meant for GPUs"  # in the comment of a built-in sweep that takes too long on CPUs


@app.command(rich_help_panel="Sweeps", epilog=options.FIELDS)
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
    retry_failed: options.RetryFailed = False,
    leave_failed: options.LeaveFailed = False,
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

    As many trials train at once as the machine has cores for, or GPUs. With
    [b]--set resources.cpus=4[/] each holds four cores, so fewer fit side by side;
    [b]taskset -c 0-3 geosweep run ...[/] leaves the other cores to other programs.

    [b]geosweep run demo[/]                       real digits, 16 trials, a minute
    [b]geosweep run mnist --data DIR[/]           uses DIR/mnist.npz if it exists
    [b]geosweep run demo --set seeds=5[/]         means and intervals over 5 seeds
    [b]geosweep run table4 --budget 2h[/]         what can be done in two hours
    [b]geosweep run table4 --set epochs=1 --set gamma=0.01,0.1 --out runs/try[/]

    Exit status: 0 all done; 1 some trials failed or diverged, or the disk is
    full; 2 bad input; 3 the budget is used up and something is left; 130 after
    Ctrl-C.
    """
    begun = time.monotonic()
    retry = options.which_failed(retry_failed, leave_failed)
    most = options.most_failures(fail_fast, max_failures)
    request = work.request_run(
        name,
        settings or [],
        out=out,
        data=data,
        address=address,
        retry=retry,
        max_failures=most,
        download=not dry_run,
        budget=budget,
    )
    if dry_run:
        say(str(plan.plan(request)))
        return
    _exit(lambda: work.run(request, report, begun))


@app.command(rich_help_panel="Sweeps")
def evaluate(
    directory: options.Folder,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help=f"What to measure: {', '.join(NAMES)}. Default: all of them."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME.SETTING=V1,V2",
            help="Replace a default setting, like noise.levels=0,8,16. Repeatable. "
            "docs/evaluations.md has all settings.",
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

    It takes trials that are done and kept their weights. Results go to the
    tables, the report and MLflow's runs of the sweep. Evaluations that are done
    are not repeated, so the same command continues after a kill. New settings
    replace earlier results. In a sweep file, [b]evaluations:[/] asks for the same.

    [b]lesion[/]      replaces units of a block (Fig. 7); skips and swaps blocks;
                [b]lesion.replacement[/] previous,mean; [b]lesion.units[/] top,random
    [b]noise[/]       adds Gaussian noise (Fig. 8); [b]noise.levels[/] are pixel values, 0-255
    [b]fgsm[/]        attacks with the fast gradient sign method (Fig. 8); [b]fgsm.levels[/]
    [b]pgd[/]         attacks with projected gradient descent; [b]pgd.levels[/], [b]pgd.steps[/]
    [b]separation[/]  does noise mix up close tracks first, at equal ends and against
                the untrained network? [b]separation.level[/]
    [b]curve[/]       the curve of measures in Wasserstein space; [b]curve.points[/] is m
    [b]scores[/]      scores that an earlier version did not have; no settings

    Architectures of libraries and users have no [b]lesion[/]: name the others.

    With --cluster or --slurm it runs as a job there. DIR is then a job, the
    folder there, or that folder's name.

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
    _exit(lambda: work.evaluate(request, report, begun))


def _exit(call: Callable[[], int]) -> NoReturn:
    """End the command with the exit status that a call returns."""
    try:
        status = call()
    except KeyboardInterrupt:  # the second one
        complain("stopped; run the same command again to continue")
        raise typer.Exit(work.INTERRUPTED) from None
    raise typer.Exit(status)


@app.command(rich_help_panel="Sweeps")
def sweeps(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A built-in sweep, whose file is printed. Default: list all of them.",
            autocompletion=options.builtin_names,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the built-in sweeps, or print the file of one.

    To make a sweep of your own, copy a file and change it. [b]geosweep run --help[/]
    lists the fields that it can have.

    [b]geosweep sweeps[/]
    [b]geosweep sweeps demo > my.yaml[/]   copy it, then: geosweep run my.yaml
    """
    known = sweep.builtin()
    if name is not None:
        if as_json:
            raise SweepError("--json prints the list; leave it out, or leave the name out")
        if name not in known:
            hint = did_you_mean(name, known)
            raise SweepError(f"{plain(name)}: no built-in sweep{hint} ({several(known, 20)})")
        say(known[name].read_text(encoding="utf-8"), end="")
        return
    found = {each: sweep.read(each) for each in known}
    listed = [
        {
            "name": each,
            "dataset": list(dict.fromkeys(trial.dataset for trial in one.trials)),
            "trials": len(one.trials),
            "gpu": FOR_GPUS in one.text,
            "description": one.description,
            "file": str(known[each]),
        }
        for each, one in found.items()
    ]
    if as_json:
        say(json.dumps(listed, indent=1))
        return
    made = table()
    made.add_column("sweep", no_wrap=True)
    made.add_column("dataset", overflow="fold")
    made.add_column("trials", justify="right", no_wrap=True)
    made.add_column("for a GPU", no_wrap=True)
    made.add_column("what")
    for row in listed:
        gpu = "yes" if row["gpu"] else ""
        data = ", ".join(row["dataset"])
        made.add_row(row["name"], data, str(row["trials"]), gpu, row["description"])
    output().print(made)
    say("\ngeosweep run NAME trains one; geosweep sweeps NAME > my.yaml copies its file")
