"""Sweeps in a real notebook: the documented one, and one that is interrupted again and again."""

import io
import json
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from nbclient import NotebookClient

from analysis.results import load
from scoring import places
from scoring.history import read_history
from tune_jobs import api

NOTEBOOK = Path(__file__).parents[1] / "docs/notebook.ipynb"
SWEEP = """
import json, psutil, time
from pathlib import Path
from scoring.history import read_history
from tune_jobs.api import run, status

SWEEP = {"name": "twice", "dataset": "digits", "layers": "fully_connected"}
SWEEP |= {"network": ["plain", "resnet"], "gamma": 1e-3, "epochs": 30}
SWEEP |= {"points": 60, "epoch_points": 40}
"""
RUN = "run(SWEEP, report=False)"
LOOK = """
while not Path("interrupted{number}").exists():  # the second time may come after the run
    try:
        time.sleep(0.05)
    except KeyboardInterrupt:
        pass
kept = {{}}
for file in Path("runs/twice/checkpoints").glob("[!.]*.json"):
    history = read_history("runs/twice", file.stem)
    kept[file.stem] = [row["finished_at"] for row in history["epochs"]]
left = [child.name() for child in psutil.Process().children(recursive=True)]
print(json.dumps({{"left": left, "kept": kept, "running": status("runs/twice").running}}))
"""
GAPS = [0.2, 0.2, 2.0]  # seconds between two interrupts; the first two come while Ray starts

pytestmark = [pytest.mark.long, pytest.mark.ray]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """That of a kernel which imports this code, and has not seen the Ray of other tests."""
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    for name in [name for name in os.environ if name.startswith("RAY_AUTH")]:
        monkeypatch.delenv(name)


def cell(source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source)


def code_cells(cells: list) -> list:
    return [cell for cell in cells if cell.cell_type == "code"]


def shown(cell) -> str:
    """What a cell has shown as text."""
    found = io.StringIO()
    for output in cell.outputs:
        found.write(output.get("text") or output.get("data", {}).get("text/plain") or "")
        found.write(output.get("ename", ""))
    return found.getvalue()


def interrupt(client: NotebookClient) -> None:
    """Interrupt the kernel as Jupyter does: it and its children."""
    os.killpg(client.km.provisioner.pid, signal.SIGINT)


def test_a_notebook_runs_is_interrupted_and_goes_on(tmp_path):
    """The documented notebook; before it, the same sweep is interrupted in the same kernel."""
    book = nbformat.read(NOTEBOOK, as_version=4)
    documented = code_cells(book.cells)
    children = (
        "import os, psutil\nprint([c.name() for c in psutil.Process().children(True)])\n"
        "print([name for name in os.environ if name.startswith('RAY_AUTH')])"
    )
    cells = [cell(source) for source in (documented[0].source, documented[1].source, children)]
    book.cells = cells + book.cells
    client = NotebookClient(book, timeout=280, allow_errors=True)
    root = tmp_path / "runs/notebook"

    def once_an_epoch_has_ended() -> None:
        while not [*(root / places.CHECKPOINTS).glob("*.pt")]:
            time.sleep(0.02)
        interrupt(client)

    threading.Thread(target=once_an_epoch_has_ended, daemon=True).start()
    client.execute(cwd=str(tmp_path))
    assert "KeyboardInterrupt" in shown(cells[1])
    assert "stopping when the epochs that are running have ended" in shown(cells[1])
    assert shown(cells[2]) == "[]\n[]\n"
    told = [shown(cell) for cell in documented]
    assert not any("Error" in text or "Interrupt" in text for text in told), told
    assert "2 cells" in told[0]
    assert "2 of 2 done" in told[1]
    assert "go on from a checkpoint" in told[1]
    assert "notebook: 2 trials" in told[2]
    found = load(root)
    assert sorted(found.trials.network) == ["plain", "resnet"]
    kept = {path.stem for path in (root / places.CHECKPOINTS).glob("*.pt")}
    assert kept == {found.trials.sort_values("test_accuracy").trial.iloc[-1]}
    assert found.trials.set_index("trial").noise_auc.dropna().index.tolist() == [*kept]
    assert api.status(root).complete
    (trial,) = kept
    history = read_history(str(root), trial)
    assert [row["epoch"] for row in history["epochs"]] == [0, 1, 2, 3, 4]


def goes_on(now: dict[str, list[str]], before: dict[str, list[str]]) -> bool:
    """Whether all trials have kept their epochs, but for a last one that was cut off.

    The history of an epoch is written before its checkpoint. An interrupt that ends the worker
    between the two has the trial train this epoch again.
    """
    return all(
        len(now[trial]) >= len(ends) and now[trial][: len(ends) - 1] == ends[:-1]
        for trial, ends in before.items()
    )


def test_two_interrupts_in_a_row_leave_no_process_and_lose_no_epoch(tmp_path):
    """While Ray starts, while trials train, and while what the first one has asked for is done."""
    runs = [cell(RUN) for _ in GAPS]
    looks = [cell(LOOK.format(number=number)) for number in range(len(GAPS))]
    pairs = [one for pair in zip(runs, looks, strict=True) for one in pair]
    last = cell(RUN)
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=[cell(SWEEP), *pairs, last]), timeout=280, allow_errors=True
    )
    root = tmp_path / "runs/twice"
    seen: list[int] = []  # epochs that had ended at the first interrupt of each run

    def children() -> list[str]:
        names = []
        for child in psutil.Process(client.km.provisioner.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has just ended
                names.append(child.name())
        return names

    def ended() -> int:
        files = (root / places.CHECKPOINTS).glob("[!.]*.json")
        return sum(len(json.loads(file.read_text())["epochs"]) for file in files)

    def twice() -> None:
        while not (root / places.SWEEP).exists():  # the kernel runs
            time.sleep(0.02)
        for number, gap in enumerate(GAPS):
            before = ended()
            while "gcs_server" not in children():
                time.sleep(0.02)
            while number and ended() < before + 3:
                time.sleep(0.02)
            seen.append(ended())
            interrupt(client)
            time.sleep(gap)
            interrupt(client)
            (tmp_path / f"interrupted{number}").touch()
            while "gcs_server" in children():
                time.sleep(0.02)

    threading.Thread(target=twice, daemon=True).start()
    client.execute(cwd=str(tmp_path))
    kept: dict[str, list[str]] = {}
    for run, look, before in zip(runs, looks, seen, strict=True):
        assert "KeyboardInterrupt" in shown(run)
        found = json.loads(shown(look))
        assert (found["left"], found["running"]) == ([], False)
        assert goes_on(found["kept"], kept)
        kept = found["kept"]
        assert sum(map(len, kept.values())) >= before
    assert sum(map(len, kept.values())) >= 6
    assert "2 of 2 done" in shown(last)
    epochs = load(root).epochs
    for trial, ends in kept.items():
        rows = epochs[epochs.trial == trial]
        assert list(rows.epoch) == list(range(31))
        stamps = pd.to_datetime(ends)
        assert list(rows.finished_at[: len(ends) - 1]) == list(stamps[:-1])
    assert api.status(root).complete
    assert len(load(root).trials) == 2
