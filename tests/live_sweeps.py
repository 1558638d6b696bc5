"""A sweep that runs, as its files show it, and the server of its page."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from made_up import made_up_trial
from running import served

from analysis import watch
from scoring import places
from scoring.storage import write_file
from scoring.tables import read_row, read_rows

HOSTILE = (
    "<img src=x onerror=window.hacked=1></script><script>window.hacked=1</script>\x1b[31m\u202e"
)


def begin(root: Path | str, scratch: Path, epochs: int, gamma: float = 0.1, **more: Any) -> str:
    """Leave what a trial leaves that trains: its history up to an epoch, of twenty."""
    trial = made_up_trial(scratch, "resnet", gamma, epochs=20, **more)
    row = read_row(str(scratch), "trials", trial)
    known = ("trial", "dataset", "network", "stages", "gamma", "seed", "layers", "epochs", "points")
    curve = read_rows(str(scratch), "epochs", trial)[: epochs + 1]
    history = {"summary": {n: row[n] for n in known}, "epochs": curve, "tracks": []}
    write_file(str(root), places.history(trial), json.dumps(history, default=str).encode())
    return trial


def drive(root: Path | str, planned: int, running: dict[str, int], *log: str, **more: Any) -> None:
    """Write what a sweep's driver writes."""
    cells = {t: {"label": t, "epoch": epoch, "epochs": 20} for t, epoch in running.items()}
    now = time.time()
    progress = {"written_at": now, "started_at": now - 60, "counts": {}, "seconds_left": 75.0}
    progress |= {"running": cells, "log": [[now, line] for line in log]} | more
    write_file(str(root), places.PROGRESS, json.dumps(progress).encode())
    sweep = {"name": "demo", "trials": [{}] * planned, "extra": []}
    write_file(str(root), places.SWEEP, json.dumps(sweep).encode())


@contextmanager
def serving(root: Path | str, **words: Any) -> Iterator[watch.Server]:
    with watch.Server(str(root), **words) as server, served(server):
        yield server
