"""What a sweep has used of its budget, and whether a trial, or one more epoch, still fits.

The sweep's folder keeps an entry for each run, which only that run writes. So what a killed run
used counts, up to the last seconds, and nothing counts twice.
"""

import json
import math
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from models.config import TrialConfig
from scoring import places, storage
from scoring.tables import read_table
from tune_jobs import disk
from tune_jobs.board import Cell
from tune_jobs.budget import Budget, words
from tune_jobs.costs import Cost, traits
from tune_jobs.estimates import Estimate, Forecast, mean
from tune_jobs.folder import TIMES, description, used
from tune_jobs.meter import Meter

EVERY = 10.0  # seconds between two updates of a run's entry, and of the folder's size
BEFORE = "before"  # name of the entry that stands for lost ones


def read(root: str) -> dict[str, dict[str, float]]:
    """The entries of a folder's runs, in seconds.

    Where there is no file, or a damaged one, one entry has the times of the trials instead.
    """
    with suppress(storage.Damaged):
        if found := used(root):
            return found
    return _of_trials(root)


def _of_trials(root: str) -> dict[str, dict[str, float]]:
    """The time in which some trial was trained or scored, and the time of trials on GPUs."""
    columns = ["started_at", "seconds", "scoring_seconds", "device"]
    rows = read_table(root, "trials", columns).to_pylist()
    rows = [row for row in rows if row["started_at"] and row["seconds"]]
    hours, until = 0.0, 0.0
    for row in sorted(rows, key=lambda row: row["started_at"]):
        start = row["started_at"].timestamp()
        end = start + row["seconds"] + (row["scoring_seconds"] or 0.0)
        hours += max(0.0, end - max(start, until))
        until = max(until, end)
    on_gpus = sum(
        row["seconds"] for row in rows if row["device"] and not row["device"].endswith("CPU")
    )
    share = description(root).resources.gpus if on_gpus else 0.0
    gpu_hours = on_gpus * (1.0 if share is None else share)
    return {BEFORE: {"hours": hours, "gpu_hours": gpu_hours}} if rows else {}


def enough(root: str, budget: Budget, more: Estimate) -> str:
    """A value of ``--budget`` with which a sweep can probably finish.

    Args:
        root: the sweep's folder.
        budget: its limits are raised.
        more: what is left of the sweep.
    """
    runs = read(root).values()
    used = {name: sum(run[name] for run in runs) / 3600 for name in TIMES}
    texts = []
    if budget.hours and more.seconds:
        texts.append(f"{math.ceil(60 * (used['hours'] + more.seconds.high / 3600))}m")
    if budget.gpu_hours and more.gpu_seconds:
        texts.append(f"{math.ceil(used['gpu_hours'] + more.gpu_seconds.high / 3600)}gpuh")
    if budget.disk and more.disk:
        size = sum(size for size, _ in disk.sizes(root).values()) + more.disk.high
        texts.append(f"{math.ceil(size / 1e6)}MB")
    return ",".join(texts)


def told(root: str, budget: Budget) -> str:
    """The limits of a budget, and what earlier runs have used, in words."""
    runs = read(root).values()
    parts = []
    for name, limit in budget.limits.items():
        spent = sum(run.get(name, 0.0) for run in runs)
        parts.append(words(name, limit) + (f" ({words(name, spent)} used)" if spent else ""))
    return ", ".join(parts)


class Account:
    """The account of a run.

    Args:
        root: the sweep's folder.
        budget: its limits; without any, what is used is only written down.
        forecast: what trials are expected to cost.
        meter: of this run.
        cells: the trials of the sweep, which may grow.
    """

    def __init__(
        self,
        root: str,
        budget: Budget,
        forecast: Forecast,
        meter: Meter,
        cells: Mapping[str, Cell],
    ):
        self._root, self._limits, self._forecast = root, budget.limits, forecast
        self._meter, self._cells = meter, cells
        self._run, self._runs = uuid.uuid4().hex, read(root)
        self._earlier = {name: sum(run[name] for run in self._runs.values()) for name in TIMES}
        self._began = self._written = meter.clock()
        self._looked, self._size = -EVERY, 0.0
        trials = forecast.left.trials if self._limits else []
        self._left = {trial.trial: epochs for trial, epochs in trials}
        self._paused: set[str] = set()
        self._kinds: dict[str, str] = {}  # what decides the cost, by trial
        kinds = {self._kind(c.trial, c): c for c in forecast.cells} if self._limits else {}
        count = Counter(self._kinds.values())
        # Of what a search picks from, a cell of each kind, and how many there are.
        self._picked = [(cell, count[kind]) for kind, cell in kinds.items()]
        self.over = ""  # why something had to wait, in words

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return bool(self._limits)

    def used(self) -> dict[str, float]:
        """What all runs have used: seconds, seconds of GPUs, and bytes of the folder."""
        now = self._meter.clock()
        if "disk" in self._limits and now - self._looked >= EVERY:
            sizes = disk.sizes(self._root).values()
            self._size, self._looked = float(sum(size for size, _ in sizes)), now
        return {
            "hours": self._earlier["hours"] + now - self._began,
            "gpu_hours": self._earlier["gpu_hours"] + self._forecast.gpus * self._meter.seconds,
            "disk": self._size,
        }

    def fitting(
        self, trials: Iterable[TrialConfig], is_busy: Callable[[], bool]
    ) -> Iterator[TrialConfig | None]:
        """Yield the trials that fit, one after the other; None means "ask again later".

        A running trial reserves its expected cost. A trial that does not fit is checked again when
        another one has left its slot, since that trial may have used less than expected.
        """
        waiting = list(trials)
        while waiting:
            ended, refused = len(self._meter.held), []
            for trial in waiting:
                while self._limits and is_busy():
                    yield None
                if self.fits(trial):
                    yield trial
                else:
                    refused.append(trial)
            waiting = refused
            while waiting and self._meter.running and len(self._meter.held) == ended:
                yield None
            if len(self._meter.held) == ended:
                return

    def fits(self, trial: TrialConfig | None) -> bool:
        """Whether a trial that starts now can finish; None is one that a search will suggest.

        A trial of unknown cost may start while anything is left.
        """
        if not self._limits:
            return True
        need = {"hours": 0.0, "gpu_hours": 0.0, "disk": 0.0}
        if cost := self._cost(trial):
            epochs = self._forecast.left.epochs if trial is None else self._epochs_left(trial)
            held = cost.seconds(epochs)
            need = {"hours": held + cost.scoring, "disk": cost.disk}
            need["gpu_hours"] = self._forecast.gpus * held
        for running in self._meter.running:
            config = self._cells[running].config
            if other := self._cost(config):
                left = self._epochs_left(config) * other.epoch
                need["gpu_hours"] += self._forecast.gpus * left
                need["disk"] += other.disk
        if not self._within(need):
            return False
        if not self._paused:
            self.over = ""  # What did not fit before may fit later.
        return True

    def pauses(self, trial: str, epoch: int) -> bool:
        """Whether a trial has to stop after an epoch, because the next one does not fit."""
        config = self._cells[trial].config
        if not self._limits or epoch >= config.epochs:
            return False
        pace = self._meter.epoch(trial)
        if pace is None:
            cost = self._cost(config)
            pace = cost.epoch if cost else 0.0
        gpus = self._forecast.gpus * len(self._meter.running)
        if not self._within({"hours": pace, "gpu_hours": gpus * pace, "disk": 0.0}):
            self._paused.add(trial)
        return trial in self._paused

    def stops(self, result: Mapping[str, Any]) -> bool:
        """Like :meth:`pauses`, for a result that a trial has reported."""
        return "epoch" in result and self.pauses(result["trial"], result["epoch"])

    def paused(self, trial: str) -> bool:
        """Whether a trial had to stop at the end of an epoch."""
        return trial in self._paused

    @property
    def spent(self) -> bool:
        """Whether nothing is left, so that even trials that are trained have to wait."""
        return bool(self._limits) and not self._within(dict.fromkeys((*TIMES, "disk"), 0.0))

    def write(self, at_once: bool = False) -> None:
        """Write this run's entry, every few seconds."""
        now = self._meter.clock()
        if at_once or now - self._written >= EVERY:
            self._written = now
            used = self.used()
            own = {name: used[name] - self._earlier[name] for name in TIMES}
            content = self._runs | {self._run: own}
            storage.write_file(self._root, places.USED, json.dumps(content).encode())

    def _within(self, need: Mapping[str, float]) -> bool:
        used = self.used()
        for name, limit in self._limits.items():
            if used[name] + need[name] > limit:
                more = f"; what is next takes {words(name, need[name])}" if need[name] else ""
                self.over = f"{words(name, used[name])} of {words(name, limit)} used{more}"
                return False
        return True

    def _epochs_left(self, config: TrialConfig) -> int:
        trial = config.trial
        cell = self._cells.get(trial)
        reported = config.epochs - max(cell.epoch, 0) if cell else config.epochs
        return min(reported, self._left.get(trial, config.epochs))

    def _cost(self, trial: TrialConfig | None) -> Cost | None:
        """The cost of a trial: that of its kind in this run if known, else its forecast.

        For None it is the average over the cells that a search picks from.
        """
        expected = self._forecast.cost(trial)
        found = expected.cost if expected else None
        if trial is None:
            costs = [(self._cost(cell), n) for cell, n in self._picked]
            known = [(cost, n) for cost, n in costs if cost]
            return mean(*zip(*known, strict=True)) if known else found
        kind = self._kind(trial.trial, trial)
        same = [t for t in self._meter.known if self._kind(t) == kind]
        for other in reversed(same):
            if cost := self._meter.cost(self._cells[other]):
                return cost.model_copy(update={"disk": found.disk if found else 0.0})
        paces = [pace for other in same if (pace := self._meter.epoch(other))]
        return found.model_copy(update={"epoch": max(paces)}) if paces and found else found

    def _kind(self, trial: str, config: TrialConfig | None = None) -> str:
        if trial not in self._kinds:
            config = config or self._cells[trial].config
            self._kinds[trial] = f"{config.dataset} {traits(config)}"
        return self._kinds[trial]
