"""What Ray Tune is given: the cells, when to end the sweep, and which trials to stop early."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from models.config import TrialConfig
from scoring.tables import read_rows
from tune_jobs import signals
from tune_jobs.cluster.nodes import Shared
from tune_jobs.folder import State
from tune_jobs.search import EPOCH_METRICS
from tune_jobs.sweep import Sweep

MEMORY_PAUSE = 10  # seconds for another program to give memory back


@dataclass(frozen=True)
class Setup:
    """What all trials of a sweep share; the driver sends it to their workers.

    Attributes:
        root: the sweep's folder, an absolute path or a URI.
        sources: location of each data set, by its name in the configuration.
        folder: the data folder.
        cpus: number of cores to train on.
        gpus: GPUs that Ray gives each trial; with any share above 0 it trains on the GPU.
        evaluations: the evaluations of the trained network, by name, with their settings.
        keep: ``best`` also keeps the weights of the epoch with the highest validation accuracy, or
            test accuracy without a validation split.
        revision: git revision of the source; kept with the results.
        shared: what the sweep's folder provides for the nodes of a cluster.
        held: whether a driver holds the sweep's folder. If so, a deleted folder is not recreated.
    """

    root: str
    sources: Mapping[str, str]
    folder: str | None = None
    cpus: float = 1
    gpus: float = 0
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keep: str | Mapping[str, int] = "final"
    revision: str = ""
    shared: Shared = field(default_factory=Shared)
    held: bool = False


class NotKept:
    """Pickles as an empty object. Ray saves its inputs for a restore, which we never do."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Cells(NotKept, Searcher):
    """Hands out the cells of a sweep until the sweep is stopping."""

    def __init__(self, cells: Iterator[TrialConfig | None], stopping: Callable[[], bool]):
        super().__init__()
        self._cells, self._stopping = cells, stopping

    def suggest(self, trial_id: str) -> Any:
        """The next cell; None to be asked again later; FINISHED if there are no more."""
        if self._stopping():
            return Searcher.FINISHED
        try:
            config = next(self._cells)
        except StopIteration:
            return Searcher.FINISHED
        return None if config is None else config.model_dump()

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Do nothing: the driver's own callback handles it."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the sweep's folder shows what is left to do."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as in :meth:`save`."""


class Stop(NotKept, tune.Stopper):
    """Ends a sweep early: running trials finish their epoch, and no other trial starts.

    A single trial ends early when ``pauses`` says so of the result of an epoch.

    This happens on Ctrl-C, SIGTERM or SIGHUP, when too many cells have failed, and when the
    driver calls :meth:`ask`. A second signal ends the sweep at once.
    """

    def __init__(
        self,
        max_failures: int | None,
        say: Callable[[str], None],
        pauses: Callable[[dict[str, Any]], bool] = lambda result: False,
    ):
        self.asked = self.interrupted = False
        self._say, self._why, self._pauses = say, "", pauses
        self._failures_left = max_failures
        self._running: set[str] | None = None  # trials that are finishing their epoch

    def failed(self) -> None:
        """Count a failed cell; ask to stop if too many have failed."""
        if self._failures_left is not None:
            self._failures_left -= 1
            if self._failures_left <= 0 and not self.asked:
                self.ask("too many cells failed")

    def look(self, trials: list[Any]) -> None:
        """Once a stop was asked for, announce it and update which trials still run."""
        if self.asked:
            if self._why:
                self._say(f"stopping when the epochs that are running have ended ({self._why})")
                self._why = ""
            running = {t.trial_id for t in trials if t.status == "RUNNING"}
            self._running = running if self._running is None else self._running & running

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._pauses(result) or self.asked

    def stop_all(self) -> bool:
        """Whether a stop was asked for and every running epoch has ended."""
        return self.asked and self._running == set()

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Ask to stop on the first signal, and raise KeyboardInterrupt on the second."""

        def stop(number: int, frame: Any) -> None:
            if number == signal.SIGHUP:
                signals.forget_terminal()
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            self.ask(f"{signals.name(number)}: once more to stop now")

        with signals.handled(stop):
            yield

    def ask(self, why: str) -> None:
        """Ask the sweep to stop once the running epochs have ended."""
        self.asked, self._why = True, why


@contextmanager
def lost_workers(say: Callable[[str], None]) -> Iterator[None]:
    """Let Ray Tune restart a trial from its last epoch, whatever its worker died of.

    Ray Tune does so for RayActorError and RayTaskError, and ends the whole sweep on any other error
    of Ray, such as OutOfMemoryError: when a machine runs out of memory, Ray kills workers on it,
    even if another program took the memory. The sweep then waits, once for all of these workers.
    """
    original, waited = RayActorManager._actor_task_failed, -math.inf

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            say("Ray has stopped a trial because memory ran out")
            nonlocal waited
            if time.monotonic() - waited > MEMORY_PAUSE:
                time.sleep(MEMORY_PAUSE)
                waited = time.monotonic()
        known = not isinstance(exception, RayError) or isinstance(
            exception, RayActorError | RayTaskError
        )
        died = exception if known else RayActorError(error_msg=str(exception))
        original(self, tracked_actor_task, died)

    RayActorManager._actor_task_failed = failed  # type: ignore[method-assign]
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original  # type: ignore[method-assign]


def scheduler(sweep: Sweep, root: str, state: State) -> TrialScheduler:
    """A first-come, first-served scheduler, or ASHA if the sweep asks for it.

    ASHA is first told the epochs of trials that ended in earlier runs, as if they were part of
    this one.
    """
    asha = sweep.scheduler
    if asha is None:
        return FIFOScheduler()
    longest = max(trial.epochs for trial in sweep.trials)
    found = ASHAScheduler(
        time_attr="epoch",
        metric=asha.metric,
        mode=EPOCH_METRICS[asha.metric],
        max_t=longest,
        grace_period=min(longest, asha.grace or max(1, longest // 10)),
        reduction_factor=asha.factor,
    )
    for trial in state.ids("done", "stopped"):
        known: Any = SimpleNamespace(trial_id=trial)
        nobody: Any = None
        found.on_trial_add(nobody, known)
        for row in read_rows(root, "epochs", trial):
            found.on_trial_result(nobody, known, row)
    return found
