"""What the command line and :mod:`tune_jobs.api` share: a request, and what is done with it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tune_jobs import estimates, evaluations, folder, service, sweep
from tune_jobs.commands import plan, targets
from tune_jobs.commands.ending import end, results_table
from tune_jobs.terminal import output

INTERRUPTED = 130  # the exit status after Ctrl-C


def request_run(
    source: str | Mapping[str, Any],
    settings: Sequence[str],
    out: str | None,
    data: str | None,
    address: str | None,
    retry: bool | None = None,
    max_failures: int | None = None,
    download: bool = True,
    budget: str | None = None,
) -> folder.Request:
    """A checked request to run a sweep; the arguments are those of :func:`service.check`.

    A text for ``budget`` takes precedence over the budget of the sweep.

    Raises:
        SweepError: the message names the file, the field and what is allowed.
    """
    found = sweep.read(source, settings)
    if budget is not None:
        found = replace(found, budget=found.budget.replaced(budget))
    root = folder.path_of(found.name, out)
    targets.refuse_inner(root)
    request = service.check(
        found, out, data, address, retry=retry, max_failures=max_failures, download=download
    )
    if out is None:  # last, since a misspelt field may be all that differs from the folder
        plan.keep_apart(request.sweep, request.root)
    return request


def run(request: folder.Request, report: bool, begun: float | None = None) -> int:
    """Train and score what is missing, print the results, and return the exit status.

    Args:
        request: from :func:`request_run`.
        report: whether to write the report.
        begun: when the command began, by the monotonic clock.

    Raises:
        KeyboardInterrupt: a second Ctrl-C.
    """
    console, begun = output(), begun or time.monotonic()
    state = service.run(request, console)
    console.print(results_table(state, console.width))
    failed = set(state.ids("failed")) - {*state.left_out}
    unfinished = 0 if request.retry else state.unfinished
    lacking = bool(failed or unfinished or state.ids("diverged"))
    status = end(request, state, console, begun, lacking, report)
    if report and not state.interrupted:
        estimates.learn(request, time.monotonic() - begun, state.busy)
    return status


def request_evaluation(
    directory: str,
    names: Sequence[str],
    settings: Sequence[str],
    data: str | None,
    address: str | None,
) -> folder.Request:
    """A checked request to evaluate a sweep's trained networks.

    Raises:
        SweepError: the message names what is wrong, and what is allowed.
    """
    root = folder.absolute(directory)
    known = folder.as_sweep(root)
    wanted = evaluations.read(names, settings, known.evaluations)
    return service.check(replace(known, evaluations=wanted), root, data, address)


def evaluate(request: folder.Request, report: bool, begun: float | None = None) -> int:
    """Evaluate trained networks, print the results, and return the exit status, as :func:`run`."""
    console, begun = output(), begun or time.monotonic()
    state = service.evaluate(request, console)
    return end(request, state, console, begun, report=report)
