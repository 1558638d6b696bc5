"""What Ray Tune gets: the cells, when to stop, and which trials to stop early."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from models.config import TrialConfig
from scoring.tables import read_rows
from tune_jobs import signals
from tune_jobs.cluster.nodes import Shared
from tune_jobs.folder import State
from tune_jobs.search import EPOCH_METRICS
from tune_jobs.sweep import Sweep


@dataclass(frozen=True)
class Setup:
    """What all trials of a sweep share; the driver sends it to their workers.

    Attributes:
        root: the sweep's folder, an absolute path or a URI.
        sources: where each data set is, by its name in the configuration.
        folder: the data folder.
        cpus: cores to train on.
        gpus: GPUs that Ray has given the trial; any share of one means to train on it.
        evaluations: to run on the trained network, by name, with their settings.
        keep: ``best`` also keeps the weights of the epoch with the highest test accuracy.
        revision: git revision of the source; kept with the results.
        shared: what the sweep's folder holds for the nodes of a cluster.
        held: a driver holds the sweep's folder; if it disappears it is not created again.
    """

    root: str
    sources: Mapping[str, str]
    folder: str | None = None
    cpus: float = 1
    gpus: float = 0
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keep: str = "final"
    revision: str = ""
    shared: Shared = field(default_factory=Shared)
    held: bool = False


class NotKept:
    """Pickled as nothing: Ray keeps what it is given for a restore, which is never asked for."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Cells(NotKept, Searcher):
    """Hands out the cells of a sweep, until it is stopping."""

    def __init__(self, cells: Iterator[TrialConfig | None], stopping: Callable[[], bool]):
        super().__init__()
        self._cells, self._stopping = cells, stopping

    def suggest(self, trial_id: str) -> Any:
        """The next cell; None: later; FINISHED: there is none."""
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
        """The driver hears of it as a callback."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is left to do is what the sweep's folder has not."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


class Stop(NotKept, tune.Stopper):
    """Ends a sweep early: running trials finish their epoch, and no other trial begins.

    This happens on Ctrl-C, SIGTERM or SIGHUP, and when too many cells have failed. A second
    signal ends the sweep at once.
    """

    def __init__(self, max_failures: int | None, say: Callable[[str], None]):
        self.asked = self.interrupted = False
        self._say, self._why = say, ""
        self._failures_left = max_failures
        self._running: set[str] | None = None  # trials whose epoch is waited for

    def failed(self) -> None:
        """A cell has failed."""
        if self._failures_left is not None:
            self._failures_left -= 1
            if self._failures_left <= 0 and not self.asked:
                self.ask("too many cells failed")

    def look(self, trials: list[Any]) -> None:
        """Which trials are still to finish their epoch."""
        if self.asked:
            if self._why:
                self._say(f"stopping when the epochs that are running have ended ({self._why})")
                self._why = ""
            running = {t.trial_id for t in trials if t.status == "RUNNING"}
            self._running = running if self._running is None else self._running & running

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.asked

    def stop_all(self) -> bool:
        """Whether nothing is waited for any more."""
        return self.asked and self._running == set()

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Ask to stop on the first signal; the second one interrupts."""

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
        """Stop, once the epochs that are running have ended."""
        self.asked, self._why = True, why


def scheduler(sweep: Sweep, root: str, state: State) -> TrialScheduler:
    """First come, first served; or ASHA, as if earlier runs had been part of this one."""
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
