"""Measures how long the trials of a run hold their CPU or GPU, for later estimates."""

import re
import time
from collections.abc import Callable, Mapping

from scoring import places
from tune_jobs import costs, disk, room
from tune_jobs.board import Cell
from tune_jobs.costs import Cost
from tune_jobs.folder import Request

OF_TRIALS = (places.RESULTS, places.CHECKPOINTS, places.PENDING, places.ERRORS)
CHANGE = 10.0  # seconds; a slot that was free for longer had nothing to train


class Meter:
    """The clock of a run.

    A trial's time starts when the trial before it left the slot, so the change between them counts.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.held: dict[str, float] = {}  # seconds, by trial that has left its slot
        self._begun: float | None = None
        self._ended = 0.0
        self._since: dict[str, float] = {}  # trials that hold a slot
        self._free: list[float] = []  # when slots became free
        self._epochs: dict[str, tuple[int, float, int, float]] = {}  # first and latest report

    @property
    def busy(self) -> float:
        """Seconds from the first trial to the last score."""
        return 0.0 if self._begun is None else self._ended - self._begun

    @property
    def seconds(self) -> float:
        """Seconds that slots were held so far, all together."""
        now = self.clock()
        return sum(self.held.values()) + sum(now - since for since in self._since.values())

    @property
    def known(self) -> list[str]:
        """The trials that hold a slot or have left one."""
        return [*self.held, *(trial for trial in self._since if trial not in self.held)]

    @property
    def running(self) -> list[str]:
        """The trials that hold a slot."""
        return [*self._since]

    def start(self, trial: str) -> None:
        """Note that a trial takes a slot, or continues in its own slot after a failure."""
        if trial in self._since:
            return
        now = self.clock()
        self._begun = now if self._begun is None else self._begun
        self._since[trial] = max(now - CHANGE, self._free.pop(0)) if self._free else now

    def report(self, trial: str, epoch: int, epochs: int) -> None:
        """Note that a trial has ended an epoch; the last one is reported after evaluations."""
        now = self.clock()
        if trial not in self._epochs:
            self._epochs[trial] = epoch, now, epoch, now
        elif epoch < epochs:
            self._epochs[trial] = *self._epochs[trial][:2], epoch, now

    def end(self, trial: str) -> None:
        """Note that a trial leaves its slot."""
        now = self._ended = self.clock()
        self._free.append(now)
        self.held[trial] = self.held.get(trial, 0.0) + now - self._since.pop(trial, now)

    def scored(self) -> None:
        """Note that a trial has been scored."""
        self._ended = self.clock()

    def epoch(self, trial: str) -> float | None:
        """Seconds of an epoch of a trial, so far; None until two epochs can be compared."""
        first, since, last, until = self._epochs.get(trial, (0, 0.0, 0, 0.0))
        return (until - since) / (last - first) if last > first else None

    def cost(self, cell: Cell) -> Cost | None:
        """What a trial cost, without disk; None unless this run trained it from the beginning.

        Args:
            cell: with its row of the trials table as its record.
        """
        trial, row, epochs = cell.config.trial, cell.record, cell.config.epochs
        whole = trial in self.held and self._epochs.get(trial, (1,))[0] == 0
        if not whole or cell.status != "done":
            return None
        epoch = self.epoch(trial) or cell.seconds / epochs
        return Cost(
            epoch=epoch,
            other=max(0.0, self.held[trial] - epochs * epoch),
            scoring=row["scoring_seconds"],
            memory=(row["peak_memory"] or 0.0) * 1e9,
            disk=0.0,
        )

    def keep(self, request: Request, cells: Mapping[str, Cell]) -> None:
        """Keep what the trials of this run cost, for later estimates."""
        found = {trial: cost for trial, cell in cells.items() if (cost := self.cost(cell))}
        if not found:
            return
        own, common = dict.fromkeys(found, 0), 0
        for path, (size, _) in disk.sizes(request.root).items():
            trial = next((part for part in re.split("[./]", path) if part in own), None)
            if trial is None and not path.startswith(tuple(f"{n}/" for n in OF_TRIALS)):
                common += size
            elif trial is not None:
                own[trial] += size
        share = common / len(cells)
        gpus = room.gpus_of_trial(request.sweep.resources)
        kept = []
        for trial, cost in found.items():
            config = cells[trial].config
            if images := request.images.get(config.dataset):
                kind = costs.kind(config, images, request.sweep, gpus)
                kept.append((kind, cost.model_copy(update={"disk": own[trial] + share})))
        costs.add(costs.place(request.address, gpus), kept)
