"""What is killed with SIGKILL while a real sweep runs, and what is left of it afterwards."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC

import numpy as np
import psutil
import pytest

from scoring import handover, schemas

pytestmark = pytest.mark.ray

SWEEP = """
dataset: {data}
layers: fully_connected
network: [plain, resnet]
gamma: 1e-3
epochs: {epochs}
points: 4000
epoch_points: 50
"""
SCORER, TRIAL = "ray::Scorer.finish", "ray::ImplicitFunc.train"


class Sweep:
    """A sweep in a process of its own, whose parts can be found and killed."""

    def __init__(self, folder, epochs):
        draw = np.random.default_rng(0)
        images = {f"x_{s}": draw.integers(0, 256, (n, 8, 8), np.uint8) for s, n in SPLITS.items()}
        labels = {f"y_{s}": np.arange(n) % 4 for s, n in SPLITS.items()}
        np.savez(folder / "random.npz", **images, **labels)
        self.root, file = str(folder / "out"), folder / "sweep.yaml"
        file.write_text(SWEEP.format(data=folder / "random.npz", epochs=epochs))
        self.command = [sys.executable, "-m", "tune_jobs.cli", "run", str(file), "--out", self.root]
        self.started: list[psutil.Process] = []

    def __enter__(self):
        self.driver = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return self

    def __exit__(self, *error):
        for process in self.started:  # also of a driver that cannot end them any more
            if process.is_running():
                process.kill()
        if self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        self.driver.stdout.close()

    def find(self, name: str) -> psutil.Process:
        """The first process of this sweep with a name, as soon as there is one."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert self.driver.poll() is None, self.driver.communicate()[0]
            self.started = psutil.Process(self.driver.pid).children(recursive=True)
            for process in self.started:
                try:
                    if process.cmdline()[:1] == [name]:
                        return process
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.25)  # looking costs a core
        raise AssertionError(f"no {name} within two minutes")

    def end(self) -> str:
        """Wait for its end; what it said."""
        output, _ = self.driver.communicate(timeout=200)
        assert self.driver.returncode == 0, output
        return output

    def again(self) -> str:
        """The same command once more."""
        done = subprocess.run(self.command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def check(self) -> dict[str, dict]:
        """Every cell is there once, with every score once; its rows of the trials table."""
        rows = {row["trial"]: row for row in schemas.read_table(self.root, "trials").to_pylist()}
        assert len(rows) == len(schemas.list_files(self.root, "results/trials")) == 2
        assert all(row["status"] == "done" and 0 <= row["ots"] <= 1 for row in rows.values())
        assert all(row["suboptimality"] <= 1e-6 for row in rows.values())
        for table, each in (("tracks", 1), ("samples", 4000)):
            content = schemas.read_table(self.root, table).to_pylist()
            last = [row for row in content if row["epoch"] == max(r["epoch"] for r in content)]
            assert len(last) == 2 * each
        epochs = schemas.read_table(self.root, "epochs", ["trial", "epoch"]).to_pylist()
        assert len(epochs) == len({(row["trial"], row["epoch"]) for row in epochs})
        assert handover.waiting(self.root) == []
        return rows


SPLITS = {"train": 256, "test": 4000}


def wait_until_trained(sweep: Sweep) -> str:
    """A trial that is trained and not scored yet, at the moment when it is being scored."""
    sweep.find(SCORER)
    return next(iter(handover.waiting(sweep.root)))


def test_a_killed_scorer_costs_nothing_but_time(tmp_path):
    with Sweep(tmp_path, epochs=1) as sweep:
        trial = wait_until_trained(sweep)
        trained_at = os.path.getmtime(f"{sweep.root}/pending/{trial}/{handover.FINAL}")
        sweep.find(SCORER).send_signal(signal.SIGKILL)
        sweep.end()
        rows = sweep.check()
    assert rows[trial]["trained_at"].replace(tzinfo=UTC).timestamp() <= trained_at
    assert rows[trial]["released_at"] < rows[trial]["scored_at"]


def test_a_killed_trial_goes_on_from_its_last_epoch(tmp_path):
    with Sweep(tmp_path, epochs=200) as sweep:
        process = sweep.find(TRIAL)
        while not schemas.list_files(sweep.root, "checkpoints"):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        sweep.end()
        rows = sweep.check()
    assert {row["epochs_done"] for row in rows.values()} == {200}
    for row in schemas.read_table(sweep.root, "epochs").to_pylist():
        assert row["epoch"] == 0 or np.isfinite(row["train_loss"])


def test_a_driver_killed_while_scoring_trains_nothing_again(tmp_path):
    with Sweep(tmp_path, epochs=1) as sweep:
        trial = wait_until_trained(sweep)
        kept = f"{sweep.root}/checkpoints/{trial}.pt"
        sweep.driver.kill()
        sweep.driver.wait()
        assert trial in handover.waiting(sweep.root)
        before = os.stat(kept)
        said = sweep.again()
        after = os.stat(kept)
        rows = sweep.check()
    assert "to score" in said
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert rows[trial]["trained_at"].replace(tzinfo=UTC).timestamp() <= before.st_mtime
