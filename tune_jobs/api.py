"""Sweeps from Python and from notebooks: the commands of geosweep as functions.

They have the defaults and checks of the commands, and do the same in the same folders, so either
can continue a sweep that the other began. Ray and torch are imported when a sweep starts.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tune_jobs import folder, surroundings
from tune_jobs import status as standing
from tune_jobs.commands import plan as planning
from tune_jobs.commands import work
from tune_jobs.commands.plan import Plan
from tune_jobs.errors import SweepError
from tune_jobs.status import Status

__all__ = ["Plan", "Status", "evaluate", "load_network", "plan", "run", "status"]

if TYPE_CHECKING:  # torch need not load before it is used
    from models.config import TrialConfig
    from models.network import AnyNetwork

Source = str | os.PathLike[str] | Mapping[str, Any]
STOPPED = "stopped; the same call continues the sweep"
_ONE = threading.Lock()  # held while this process runs a sweep


def run(
    sweep: Source,
    settings: Sequence[str] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    address: str | None = None,
    retry_failed: bool | None = None,
    max_failures: int | None = None,
    budget: str | None = None,
    report: bool = True,
) -> str:
    """Train and score the trials of a sweep that are missing, and write its report.

    It is ``geosweep run``: trials that are done are not trained again, and the same call continues
    a sweep that was stopped. A live table shows the progress, in a notebook, too. Interrupting it
    (Ctrl-C, or the kernel's interrupt) lets the epochs end that are running; a second interrupt
    stops at once. No finished epoch is lost, and no process of the sweep stays behind.

    Args:
        sweep: path of a YAML file, the name of a built-in sweep, or a mapping with the fields of
            such a file, ``name`` among them.
        settings: ``field=value`` or ``field=v1,v2``; each replaces a field of the sweep.
        out: folder for the results, a path or a URI. By default the sweep's name in
            ``GEOSWEEP_STORAGE``, or in ``runs``.
        data: folder with ``NAME.npz`` data sets. By default ``GEOSWEEP_DATA``, if that is set.
        address: address of a running Ray cluster. By default Ray is started on this machine, or
            the process's own Ray is used.
        retry_failed: True trains only the trials that failed before, False all others.
        max_failures: stop once this many trials have failed; each is tried three times.
        budget: what the sweep may take in all its runs together, like ``2h,10GB``; by default what
            its field ``budget`` says. What does not fit is left for a larger budget.
        report: whether to write the report.

    Returns:
        The sweep's folder, an absolute path or a URI, for :func:`status`, :func:`evaluate` and
        ``analysis.results.load``. :func:`status` tells whether trials have failed.

    Raises:
        SweepError: the sweep cannot be run; the message is that of the command. Or another thread
            of this process runs a sweep.
        DataError: a data set cannot be read.
        scoring.storage.StoreError: a file in the folder is damaged or foreign.
        KeyboardInterrupt: the sweep was interrupted. The same call continues it.
    """
    surroundings.prepare()
    with _alone():
        request = work.request_run(
            _source(sweep),
            settings,
            out=_path(out),
            data=_path(data),
            address=address,
            retry=retry_failed,
            max_failures=max_failures,
            budget=budget,
        )
        if work.run(request, report) == work.INTERRUPTED:
            raise KeyboardInterrupt(STOPPED)
    return request.root


def plan(
    sweep: Source,
    settings: Sequence[str] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
) -> Plan:
    """Check a sweep, list its trials and estimate its time; start nothing.

    It is ``geosweep run --dry-run``. The estimate is in ``Plan.estimate``.

    Args:
        sweep: as for :func:`run`.
        settings: as for :func:`run`.
        out: as for :func:`run`.
        data: as for :func:`run`. Data sets that are not here are not downloaded.

    Raises:
        SweepError: the sweep cannot be run; the message is that of the command.
    """
    surroundings.prepare()
    request = work.request_run(
        _source(sweep), settings, out=_path(out), data=_path(data), address=None, download=False
    )
    return planning.plan(request)


def status(directory: str | os.PathLike[str]) -> Status:
    """How far the sweep in a folder is, as ``geosweep status``; also while it runs.

    Args:
        directory: the sweep's folder, a path or a URI.

    Raises:
        SweepError: there is no sweep in the folder.
        scoring.storage.StoreError: a file in the folder is damaged or foreign.
    """
    surroundings.prepare()
    return standing.status(folder.absolute(os.fspath(directory)))


def evaluate(
    directory: str | os.PathLike[str],
    names: Sequence[str] = (),
    settings: Sequence[str] = (),
    *,
    data: str | os.PathLike[str] | None = None,
    address: str | None = None,
    report: bool = True,
) -> str:
    """Measure more of the trained networks of a sweep, as ``geosweep evaluate``.

    Args:
        directory: the sweep's folder, a path or a URI.
        names: evaluations, like ``noise``; by default all of them.
        settings: ``name.setting=v1,v2``, like ``noise.levels=0,8,16``.
        data: as for :func:`run`.
        address: as for :func:`run`.
        report: whether to write the report.

    Returns:
        The sweep's folder, an absolute path or a URI.

    Raises:
        SweepError: there is no such evaluation, or nothing to evaluate, or another thread of this
            process runs a sweep.
        KeyboardInterrupt: it was interrupted. The same call continues it.
    """
    surroundings.prepare()
    names = [names] if isinstance(names, str) else names
    with _alone():
        request = work.request_evaluation(
            os.fspath(directory), names, settings, data=_path(data), address=address
        )
        if work.evaluate(request, report) == work.INTERRUPTED:
            raise KeyboardInterrupt(STOPPED)
    return request.root


def load_network(
    directory: str | os.PathLike[str], trial: str
) -> tuple["AnyNetwork", "TrialConfig"]:
    """A trained network of a sweep, with the weights after its last epoch.

    The network maps standardised images (m, c, h, w) to logits (m, classes), and its ``states``
    walks through its blocks. The file of a user's own network, which the folder keeps, is run;
    weights are read as tensors alone.

    Args:
        directory: the sweep's folder, a path or a URI.
        trial: the trial's id, as in the column ``trial`` of its tables.

    Returns:
        The ``torch.nn.Module`` in evaluation mode on the CPU, and the trial's
        :class:`~models.config.TrialConfig`. Its images are standardised by
        ``models.training.standardiser(models.validation.of_trained(config, data), "cpu")``.

    Raises:
        SweepError: there is no such trial, or its weights were not kept.
        models.errors.CodeError: the network of a library or a user cannot be built here.
        scoring.storage.StoreError: a file in the folder is damaged, or of another network.

    >>> network, config = load_network("runs/demo", "6ad3ab5aa2c3")  # doctest: +SKIP
    >>> network(torch.zeros(5, 1, 8, 8)).shape  # doctest: +SKIP
    torch.Size([5, 10])
    """
    surroundings.prepare()
    from tune_jobs import trained  # torch takes seconds to import

    return trained.load(folder.absolute(os.fspath(directory)), trial)


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse a second sweep at once: a process has one Ray, on which Ray Tune runs one sweep.

    Raises:
        SweepError: another thread runs a sweep.
    """
    if not _ONE.acquire(blocking=False):
        raise SweepError(
            "a sweep runs in this process already; call this again when it has ended, or in "
            "another process"
        )
    try:
        yield
    finally:
        _ONE.release()


def _source(sweep: Source) -> str | Mapping[str, Any]:
    return sweep if isinstance(sweep, Mapping) else os.fspath(sweep)


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
