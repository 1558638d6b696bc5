"""Shows a sweep's progress: a live table, plain lines in a pipe, and ``progress.json``."""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from models.config import TrialConfig
from scoring import places, storage
from scoring.handover import ENDED
from tune_jobs import notebook
from tune_jobs.folder import State
from tune_jobs.labels import duration, labels, number
from tune_jobs.terminal import table

ORDER = ("running", "evaluating", "scoring", "failed", "diverged")
ORDER += ("waiting", "to evaluate", "stopped", "done")
QUIET = ("running", "evaluating", "waiting", "to evaluate")  # in a pipe these print no line
LINES = 100  # of the log in ``progress.json``
EVERY = 30.0  # seconds between two plain lines of progress in a pipe
STYLE = {"running": "cyan", "evaluating": "cyan", "scoring": "magenta", "done": "green"}
STYLE |= {"diverged": "yellow", "stopped": "yellow", "failed": "red"}


@dataclass
class Cell:
    """One trial of the sweep as the driver knows it."""

    config: TrialConfig
    label: str
    status: str = "waiting"  # or any other of ORDER
    epoch: int = -1  # the last epoch reported; -1 if none was
    record: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # spent in the epochs reported to this driver
    epochs: int = 0  # number of epochs that `seconds` covers
    evaluating_since: float = 0.0
    reported_at: float = 0.0  # this driver's clock, at the last epoch


class Board:
    """Tracks the cells of a sweep and shows them.

    Use it as a context manager; it draws while the context is open.

    Args:
        root: the sweep's folder.
        cells: the cells by trial ID.
        at_once: returns how many trials train side by side.
        console: where to draw.
        to_come: how many trials a search has yet to suggest.
    """

    def __init__(
        self,
        root: str,
        cells: Mapping[str, Cell],
        at_once: Callable[[], int],
        console: Console,
        to_come: int = 0,
    ):
        self.root = root
        self.cells = dict(cells)
        self.console = console
        self._at_once = at_once
        self._to_come = to_come
        self._evaluated: list[float] = []  # seconds per trial that was evaluated, not trained
        self._ends: list[float] = []  # seconds per trial after its last epoch, e.g. evaluations
        self._log: deque[tuple[float, str]] = deque(maxlen=LINES)  # when, and what happened
        self._started = time.time()
        self._said = self._written = time.monotonic()
        self._draws = console.is_terminal or console.is_jupyter
        terminal = Live(console=console, auto_refresh=False, transient=True)
        self._live = notebook.Live() if console.is_jupyter else terminal

    def __enter__(self) -> "Board":
        if self._draws:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def add(self, cell: Cell) -> None:
        """Add a cell that a search has suggested."""
        self.cells[cell.config.trial] = cell

    def expect(self, to_come: int) -> None:
        """Set how many trials a search has yet to suggest, as it gives some cells no more seeds."""
        self._to_come = to_come

    def report(self, trial: str, record: Mapping[str, Any]) -> None:
        """Record that a trial has finished an epoch."""
        cell, now = self.cells[trial], time.monotonic()
        if record["epoch"] > 0:
            cell.seconds += record["seconds"]
            cell.epochs += 1
        if record["epoch"] == cell.config.epochs and cell.epoch == record["epoch"] - 1 >= 0:
            self._ends.append(max(0.0, now - cell.reported_at - record["seconds"]))
        cell.status, cell.epoch, cell.record = "running", record["epoch"], dict(record)
        cell.reported_at = now

    def change(self, trial: str, status: str, note: str = "") -> None:
        """Set a trial's status. In a pipe this prints a line, unless the status is in QUIET."""
        cell = self.cells[trial]
        if status == "evaluating":
            cell.evaluating_since = time.monotonic()
        elif cell.status == "evaluating":
            self._evaluated.append(time.monotonic() - cell.evaluating_since)
        cell.status = status
        if status not in QUIET:
            record = cell.record
            scores = "  ".join(
                f"{short} {record[name]:.3f}"
                for short, name in (("test", "test_accuracy"), ("LSS", "lss"), ("OTS", "ots"))
                if record.get(name) is not None
            )
            line = (
                f"{self._count(*ENDED, 'failed')}/{self._planned()}  "
                f"{status:8} {cell.label}  {scores} {note}".rstrip()
            )
            self._note(line)
            if not self._draws:
                self._print(line)

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._note(text)
        self._print(text)

    def _note(self, text: str) -> None:
        self._log.append((time.time(), text))

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._said = time.monotonic()

    def refresh(self, last: bool = False) -> None:
        """Redraw, and write ``progress.json`` at most once a second, and for the last time."""
        now = time.monotonic()
        if last or now - self._written >= 1:
            self._written = now
            content = json.dumps(self.snapshot()).encode()
            storage.write_file(self.root, places.PROGRESS, content, lasting=False)
        if self._draws:
            self._live.update(self._table(), refresh=True)
        elif now - self._said >= EVERY:
            self._print(self._line())

    def snapshot(self) -> dict[str, Any]:
        """What goes on, as ``geosweep status`` and the page of ``geosweep watch`` read it."""
        running = {
            trial: {"label": cell.label, "epoch": cell.epoch, "epochs": cell.config.epochs}
            for trial, cell in self.cells.items()
            if cell.status in ("running", "evaluating", "scoring")
        }
        return {
            "written_at": time.time(),
            "started_at": self._started,
            "counts": dict(Counter(cell.status for cell in self.cells.values())),
            "running": running,
            "seconds_left": self.seconds_left(),
            "log": list(self._log),
        }

    def seconds_left(self) -> float | None:
        """Estimate the seconds left; None if no pace has been measured yet.

        Each epoch left counts at the average pace of trials of the same kind. Once a trial has
        ended, the average time that trials spend outside their epochs is added. The total is
        divided by the number of trials side by side.
        """
        paces: dict[Any, tuple[float, int]] = {}
        for cell in self.cells.values():
            for kind in (_kind(cell.config), None):
                seconds, epochs = paces.get(kind, (0.0, 0))
                paces[kind] = seconds + cell.seconds, epochs + cell.epochs
        to_train = self._count("waiting", "running")
        to_evaluate = self._count("to evaluate", "evaluating")
        no_pace = not paces or not paces[None][1]
        if no_pace and (to_train or self._to_come or not (to_evaluate or self._evaluated)):
            return None
        if to_evaluate and not self._evaluated:
            return None
        total = to_evaluate * fmean(self._evaluated) if to_evaluate else 0.0
        total += (to_train + self._to_come) * fmean(self._ends or [0.0])
        for cell in self.cells.values():
            if cell.status in ("waiting", "running"):
                kind = _kind(cell.config)
                seconds, epochs = paces[kind] if paces[kind][1] else paces[None]
                total += (cell.config.epochs - max(cell.epoch, 0)) * seconds / epochs
        if self._to_come and self.cells:  # assume the average length of the cells known so far
            seconds, epochs = paces[None]
            each = sum(cell.config.epochs for cell in self.cells.values()) / len(self.cells)
            total += self._to_come * each * seconds / epochs
        return total / max(1, min(self._at_once(), to_train + to_evaluate))

    def _planned(self) -> int:
        return len(self.cells) + self._to_come

    def _count(self, *statuses: str) -> int:
        return sum(cell.status in statuses for cell in self.cells.values())

    def _line(self) -> str:
        left = self.seconds_left()
        parts = [f"{self._count(*ENDED, 'failed')} of {self._planned()} done"]
        for status in ORDER[:-1]:
            if self._count(status):
                parts.append(f"{self._count(status)} {status}")
        parts.append(f"{duration(time.time() - self._started)} so far")
        if left:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _table(self) -> RenderableType:
        rows = max(3, self.console.height - 6)
        cells = sorted(self.cells.values(), key=lambda cell: ORDER.index(cell.status))
        wide = self.console.width >= 72
        made = table()
        made.add_column("trial", overflow="ellipsis", no_wrap=True, ratio=1 if not wide else None)
        if wide:
            made.add_column("", width=16)
        for name in ("epoch", "test acc.", "LSS", "OTS") if wide else ("epoch",):
            made.add_column(name, justify="right", no_wrap=True)
        made.add_column("", no_wrap=True)
        for cell in cells[:rows]:
            record, total = cell.record, cell.config.epochs
            line: list[RenderableType] = [cell.label]
            if wide:
                line.append(ProgressBar(total=total, completed=max(cell.epoch, 0), width=16))
            line.append(f"{cell.epoch}/{total}" if cell.epoch >= 0 else "")
            if wide:
                line += [number(record.get(n)) for n in ("test_accuracy", "lss", "ots")]
            line.append(Text(cell.status, style=STYLE.get(cell.status, "dim")))
            made.add_row(*line)
        hidden = len(cells) - rows
        more = [Text(f"... and {hidden} more", style="dim")] if hidden > 0 else []
        return Group(made, *more, Text(self._line(), style="bold", overflow="ellipsis"))


def cells(
    state: State, names: Sequence[str] | None = None, exact: Collection[str] = ()
) -> dict[str, Cell]:
    """The board's cells, with what is known of each, and labels from the given fields."""
    called = labels(state.trials, names, exact)
    missing, unevaluated = ({t.trial for t in of} for of in (state.missing, state.unevaluated))
    made = {}
    for config in state.trials:
        trial = config.trial
        cell = made[trial] = Cell(config, called[trial])
        row = state.rows.get(trial, {})
        if trial in unevaluated:
            cell.status, cell.epoch, cell.record = "to evaluate", row["epochs_done"], row
        elif trial in state.scoring:
            cell.status, cell.epoch = "scoring", config.epochs
        elif row and trial not in missing:
            cell.status, cell.epoch, cell.record = row["status"], row["epochs_done"], row
    return made


def _kind(config: TrialConfig) -> tuple[Any, ...]:
    own = config.network, config.layers, config.stages
    return config.dataset, config.architecture, repr(config.model), *own  # 1 == 1.0 == True
