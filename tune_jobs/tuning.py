"""What Ray Tune is given: the cells, when to end the sweep, and which trials to stop early."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from models.config import TrialConfig
from scoring import storage
from scoring.handover import ENDED
from scoring.history import read_history
from scoring.tables import read_rows
from tune_jobs import signals
from tune_jobs.cluster.nodes import Shared
from tune_jobs.folder import State
from tune_jobs.search import EPOCH_METRICS, Asha
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


class Halving(ASHAScheduler):
    """ASHA that knows trials by their ids, so that it can go on where an earlier run ended.

    Ray Tune's own ids differ from run to run. With them, a trial that goes on from a checkpoint
    would count as a new one, and be compared by a later epoch than the others.
    """

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        # Begun trials that an earlier run was to stop, and the epochs after which.
        self._due: dict[str, int] = {}

    def recall(self, trial: str, row: Mapping[str, Any], begun: bool) -> None:
        """Take note of an epoch of an earlier run; call this in the order of their ends."""
        known: Any = SimpleNamespace(trial_id=trial)
        nobody: Any = None
        if trial not in self._trial_info:
            super().on_trial_add(nobody, known)
        stop = self._judge(known, row) == self.STOP
        # After a later epoch it was not stopped. Results of two trials may come in another order.
        self._due.pop(trial, None)
        if stop and begun:
            self._due[trial] = row["epoch"]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """As Ray Tune's."""
        super().on_trial_add(tune_controller, _named(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """As Ray Tune's, which is not told values that are not finite.

        A trial that is due to stop may begin again before that epoch, if its checkpoint is damaged.
        """
        known = _named(trial)
        due = self._due.get(known.trial_id, math.inf)
        return self.STOP if result.get("epoch", -1) >= due else self._judge(known, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        """Note the last result, which Ray Tune gives to nothing else if a :class:`Stop` ends it."""
        self._judge(_named(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Do nothing: what is known of the trial still counts."""

    def _judge(self, known: Any, row: Mapping[Any, Any]) -> str:
        value = row.get(self._metric)
        if value is None or not math.isfinite(value):
            return self.CONTINUE
        nobody: Any = None
        return super().on_trial_result(nobody, known, dict(row))


def _named(trial: Any) -> Any:
    return SimpleNamespace(trial_id=TrialConfig.model_validate(trial.config).trial)


def scheduler(sweep: Sweep, root: str, state: State) -> TrialScheduler:
    """A first-come, first-served scheduler, or ASHA if the sweep asks for it.

    ASHA is first told the epochs of earlier runs, as if they were part of this one.
    """
    asha = sweep.scheduler
    if asha is None:
        return FIFOScheduler()
    longest = max(trial.epochs for trial in sweep.trials)
    found = Halving(
        time_attr="epoch",
        metric=asha.metric,
        mode=EPOCH_METRICS[asha.metric],
        max_t=longest,
        grace_period=min(longest, asha.grace or max(1, longest // 10)),
        reduction_factor=asha.factor,
    )
    told = ((at, trial, row) for trial in _known(state) for at, row in _epochs(root, trial, asha))
    for _, trial, row in sorted(told, key=lambda one: one[:2]):
        found.recall(trial, row, trial in state.begun)
    return found


def _known(state: State) -> list[str]:
    """The trials of which earlier runs have trained epochs."""
    return [*dict.fromkeys((*state.ids(*ENDED), *state.scoring, *state.begun))]


def _epochs(root: str, trial: str, asha: Asha) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """When the epochs of a trial ended, and what ASHA needs of them."""
    rows = read_rows(root, "epochs", trial)
    with suppress(storage.Damaged):  # the trial itself looks at its history
        rows = rows or (read_history(root, trial) or {"epochs": []})["epochs"]
    for row in rows:
        at = row["finished_at"]
        at = datetime.fromisoformat(at) if isinstance(at, str) else at
        yield at, {name: row.get(name) for name in ("epoch", asha.metric)}
