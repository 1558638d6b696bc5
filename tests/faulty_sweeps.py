"""Sweeps in which tests kill, break or fill something while they run."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from unittest import mock

import numpy as np
import psutil
from mlflow.tracking import MlflowClient
from small_sweeps import add_database, geosweep

from scoring import handover, places, storage
from scoring.tables import read_table
from tune_jobs.mlflow_store import tracking_uri
from tune_jobs.tracking import TRIAL_TAG

SWEEP = """
dataset: {data}
layers: fully_connected
network: [plain, resnet]
gamma: 1e-3
epochs: {epochs}
points: {points}
epoch_points: 50
"""
T = TypeVar("T")
SPLITS = {"train": 256, "test": 4000}
SCORER, TRIAL = "ray::Scorer.finish", "ray::ImplicitFunc.train"


class Sweep:
    """A sweep to run in this process, or in its own one, whose parts can be found and killed.

    In ``with``, the driver is a child process with its own Ray. Starting Python and Ray takes
    seconds, so :meth:`again` runs the command in this process, which has Ray already, and
    :meth:`meanwhile` does so while a thread kills something of it.

    Args:
        folder: where the sweep file is.
        epochs: of each trial.
        points: m of each trial.
        root: the sweep's folder; by default in ``folder``.
        data: images to train on; by default new ones in ``folder``.
        report: whether to write the report, which takes as long as the sweep.
    """

    def __init__(
        self,
        folder: Path,
        epochs: int,
        points: int = 100,
        root: Path | str | None = None,
        data: Path | None = None,
        report: bool = False,
    ):
        folder.mkdir(exist_ok=True)
        data = data or write_images(folder / "random.npz")
        self.root, self.file = str(root or folder / "out"), folder / "sweep.yaml"
        self.file.write_text(SWEEP.format(data=data, epochs=epochs, points=points))
        self.points = points
        self.words = ["run", str(self.file), "--out", self.root]  # of the command
        if not report:
            self.words.append("--no-report")
        self.environment: dict[str, str] = {}
        self.started: list[psutil.Process] = []
        self.driver: subprocess.Popen | None = None
        self.here = threading.Event()  # set while the driver is this process
        if root is None:
            add_database(self.root)

    def __enter__(self) -> "Sweep":
        self.driver = subprocess.Popen(
            [sys.executable, "-m", "tune_jobs.cli", *self.words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | self.environment,
            start_new_session=True,  # to send Ctrl-C to all its processes, as a terminal does
        )
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.started:  # also those of a killed driver
            if process.is_running():
                process.kill()
        if self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        self.driver.stdout.close()

    def find(self, name: str) -> psutil.Process:
        """Wait for a process of this sweep with this name; the first one."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            self.check_running()
            pid = os.getpid() if self.here.is_set() else self.driver.pid
            found = psutil.Process(pid).children(recursive=True)
            if not self.here.is_set():
                self.started = found
            for process in found:
                try:
                    if process.cmdline()[:1] == [name]:
                        return process
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.25)  # each look takes a while
        raise AssertionError(f"no {name} within two minutes")

    def wait_for_checkpoint(self) -> None:
        """Wait until some trial has an epoch to continue from."""
        while not storage.list_files(self.root, places.CHECKPOINTS):
            self.check_running()
            time.sleep(0.05)

    def check_running(self) -> None:
        """Check that the driver has not ended."""
        if not self.here.is_set():
            assert self.driver is not None, "the sweep in this process has ended"
            assert self.driver.poll() is None, self.driver.communicate()[0]

    def end(self, status: int = 0) -> str:
        """Wait for the driver's end; returns its output."""
        output, _ = self.driver.communicate(timeout=200)
        assert self.driver.returncode == status, output
        return output

    def again(self, *options: str, status: int = 0) -> str:
        """Run the command once more, in this process; returns its output."""
        with mock.patch.dict(os.environ, self.environment):
            found, output = geosweep(*self.words, *options)
        assert found == status, output
        return output

    def meanwhile(self, fault: Callable[[], T], status: int = 0) -> tuple[str, T]:
        """Run the command in this process while ``fault`` runs in a thread.

        Returns:
            The command's output, and what ``fault`` returned.
        """
        with ThreadPoolExecutor(1) as thread:
            self.here.set()
            done = thread.submit(fault)
            try:
                output = self.again(status=status)
            finally:
                self.here.clear()
            return output, done.result()

    def epochs(self) -> dict[str, int]:
        """The epoch that each trial would continue from."""
        names = storage.list_files(self.root, places.CHECKPOINTS)
        contents = {
            Path(n).stem: json.loads(storage.read_file(self.root, f"{places.CHECKPOINTS}/{n}"))
            for n in names
            if n.endswith(".json")
        }
        return {trial: known["epochs"][-1]["epoch"] for trial, known in contents.items()}

    def checkpoints(self) -> dict[str, int]:
        """Time at which the weights of each trial were written, in nanoseconds."""
        found = storage.infos(self.root, places.CHECKPOINTS)
        return {Path(i.path).stem: i.mtime_ns for i in found if i.extension == "pt"}

    def rows(self) -> dict[str, dict]:
        """Rows of the trials table."""
        return {row["trial"]: row for row in read_table(self.root, "trials").to_pylist()}

    def check(self) -> dict[str, dict]:
        """Check that Parquet and MLflow have every cell once; returns rows of the trials table."""
        rows = self.rows()
        assert len(rows) == len(storage.list_files(self.root, "results/trials")) == 2
        assert all(row["status"] == "done" and 0 <= row["ots"] <= 1 for row in rows.values())
        assert all(row["suboptimality"] <= 1e-6 for row in rows.values())
        for table, each in (("tracks", 1), ("samples", self.points)):
            epochs = read_table(self.root, table, ["epoch"]).column("epoch").to_pylist()
            assert epochs.count(max(epochs)) == 2 * each
        epochs = read_table(self.root, "epochs", ["trial", "epoch"]).to_pylist()
        assert len(epochs) == len({(row["trial"], row["epoch"]) for row in epochs})
        assert handover.waiting(self.root) == []
        self.check_mlflow(rows)
        return rows

    def check_mlflow(self, rows: dict[str, dict]) -> None:
        """Check that MLflow has each trial once, finished, with every epoch once."""
        client = MlflowClient(tracking_uri(self.root))
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        runs = [run for run in found if TRIAL_TAG in run.data.tags]
        assert sorted(run.data.tags[TRIAL_TAG] for run in runs) == sorted(rows)
        for run in runs:
            row = rows[run.data.tags[TRIAL_TAG]]
            assert run.info.status == "FINISHED"
            history = client.get_metric_history(run.info.run_id, "lss")
            assert sorted(m.step for m in history) == list(range(row["epochs_done"] + 1))
            assert len(client.get_metric_history(run.info.run_id, "ots")) == 2  # before and after
            assert run.data.metrics["ots"] == row["ots"]


def write_images(file: Path) -> Path:
    """A data set of random images."""
    draw = np.random.default_rng(0)
    images = {f"x_{s}": draw.integers(0, 256, (n, 8, 8), np.uint8) for s, n in SPLITS.items()}
    labels = {f"y_{s}": np.arange(n) % 4 for s, n in SPLITS.items()}
    np.savez(file, **images, **labels)
    return file


def numbers(rows: dict[str, dict]) -> dict[tuple[str, str], float]:
    """Everything that trials measured, except times and memory."""
    return {
        (trial, name): value
        for trial, row in rows.items()
        for name, value in row.items()
        if isinstance(value, float) and "seconds" not in name and "memory" not in name
    }


def wait_until_trained(sweep: Sweep) -> str:
    """Wait until a trial that is trained is being scored; the trial."""
    sweep.find(SCORER)
    return next(iter(handover.waiting(sweep.root)))
