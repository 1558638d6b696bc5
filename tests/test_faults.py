"""Real sweeps in which something is killed, broken or full, and what they lead to afterwards."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import TypeVar
from unittest import mock

import numpy as np
import optuna
import psutil
import pytest
from mlflow.tracking import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from small_sweeps import add_database, copy_sweep, geosweep

from scoring import handover, places, schemas, storage
from scoring.robustness.record import recorded_evaluations
from scoring.tables import broken_files, read_rows, read_table
from tune_jobs import folder
from tune_jobs.mlflow_store import tracking_uri
from tune_jobs.study import STUDY
from tune_jobs.tracking import TRIAL_TAG

pytestmark = [
    pytest.mark.ray,
    pytest.mark.faults,
    pytest.mark.usefixtures("ray_here"),
]

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
            content = read_table(self.root, table).to_pylist()
            last = [row for row in content if row["epoch"] == max(r["epoch"] for r in content)]
            assert len(last) == 2 * each
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


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path) -> str:
    """A sweep's folder: on a disk, or in an object store on loopback."""
    if request.param == "disk":
        return str(tmp_path / "out")
    return f"{request.getfixturevalue('object_store')}/{tmp_path.name}"


@pytest.fixture(scope="module")
def undisturbed(shared, ray_here) -> Sweep:
    """A finished sweep in which nothing was killed or broken; to be read only."""
    folder = shared("undisturbed", lambda folder: Sweep(folder, epochs=40).again())
    sweep = Sweep(folder, epochs=40, data=folder / "random.npz")
    sweep.check()
    return sweep


@pytest.fixture
def finished(tmp_path, undisturbed) -> Sweep:
    """A copy of a finished sweep."""
    data = undisturbed.file.with_name("random.npz")
    sweep = Sweep(tmp_path, epochs=40, data=data)
    copy_sweep(undisturbed.root, sweep.root)
    return sweep


def wait_until_trained(sweep: Sweep) -> str:
    """Wait until a trial that is trained is being scored; the trial."""
    sweep.find(SCORER)
    return next(iter(handover.waiting(sweep.root)))


def test_a_killed_scorer_costs_nothing_but_time(tmp_path):
    sweep = Sweep(tmp_path, epochs=1, points=4000)

    def kill() -> tuple[str, float]:
        trial = wait_until_trained(sweep)
        trained_at = os.path.getmtime(f"{sweep.root}/pending/{trial}/{places.FINAL}")
        sweep.find(SCORER).send_signal(signal.SIGKILL)
        return trial, trained_at

    _, (trial, trained_at) = sweep.meanwhile(kill)
    rows = sweep.check()
    assert rows[trial]["trained_at"].replace(tzinfo=UTC).timestamp() <= trained_at
    assert rows[trial]["released_at"] < rows[trial]["scored_at"]


def test_a_killed_trial_goes_on_and_ends_with_the_numbers_of_an_undisturbed_one(
    tmp_path, place, undisturbed
):
    sweep = Sweep(tmp_path, epochs=40, root=place)

    def kill() -> None:
        process = sweep.find(TRIAL)
        sweep.wait_for_checkpoint()
        process.send_signal(signal.SIGKILL)

    sweep.meanwhile(kill)
    rows = sweep.check()
    both = (rows, undisturbed.rows())
    by_network = [{r["network"]: r for r in found.values()} for found in both]
    assert numbers(by_network[0]) == numbers(by_network[1])
    assert {row["epochs_done"] for row in rows.values()} == {40}


def test_a_driver_killed_while_scoring_trains_nothing_again(tmp_path, place):
    with Sweep(tmp_path, epochs=1, points=4000, root=place, report=True) as sweep:
        trial = wait_until_trained(sweep)
        sweep.driver.kill()
        sweep.driver.wait()
        assert trial in handover.waiting(sweep.root)
        before = sweep.checkpoints()
        said = sweep.again()
        after = sweep.checkpoints()
        rows = sweep.check()
    assert "to score" in said
    assert before[trial] == after[trial]
    page = storage.read_file(sweep.root, "report/index.html").decode()
    assert "2 trials: 2 done" in page
    trained_at = rows[trial]["trained_at"].replace(tzinfo=UTC).timestamp()
    assert int(trained_at) <= before[trial] / 1e9  # a store's clock counts whole seconds


def test_a_killed_evaluation_goes_on_and_trains_nothing(finished):
    sweep = finished
    trained = sweep.check()
    sweep.words = ["evaluate", sweep.root, "lesion", "pgd", "--set", "pgd.steps=100"]
    sweep.words.append("--no-report")
    with sweep:
        while not (first := storage.list_files(sweep.root, "results/robustness")):
            assert sweep.driver.poll() is None, sweep.driver.communicate()[0]
            time.sleep(0.02)
        sweep.driver.kill()
        sweep.driver.wait()
    kept = [recorded_evaluations(sweep.root, name.removesuffix(".parquet")) for name in first]
    assert sum(map(len, kept)) < 4
    said = sweep.again()
    rows = sweep.check()
    assert "0 to train" in said
    for trial, row in rows.items():
        assert row["trained_at"] == trained[trial]["trained_at"]
        assert list(json.loads(row["evaluations"])) == ["lesion", "pgd"]
        assert 0 <= row["pgd_auc"] <= 1
        table = read_rows(sweep.root, "robustness", trial)
        key = ("evaluation", "replacement", "units", "stage", "block", "level")
        cells = [tuple(row[name] for name in key) for row in table]
        assert len(cells) == len(set(cells))


def test_ctrl_c_lets_epochs_end_a_second_run_is_refused_and_the_sweep_goes_on(tmp_path):
    with Sweep(tmp_path, epochs=1500) as sweep:
        sweep.wait_for_checkpoint()
        refused = sweep.again(status=2)
        assert f"process {sweep.driver.pid}" in refused
        assert "is running this sweep" in refused
        os.killpg(sweep.driver.pid, signal.SIGINT)
        said = sweep.end(status=130)
    assert "stopping when the epochs that are running have ended (Ctrl-C" in said
    assert "not finished" in said
    kept = sweep.epochs()
    assert kept
    client = MlflowClient(f"sqlite:///{sweep.root}/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {run.info.status for run in found} == {"KILLED"}

    with sweep:
        sweep.find(TRIAL)
        os.killpg(sweep.driver.pid, signal.SIGINT)
        while "stopping when" not in sweep.driver.stdout.readline():
            assert sweep.driver.poll() is None
        os.killpg(sweep.driver.pid, signal.SIGINT)
        # The epochs may have ended before the second signal comes.
        assert "run the same command again" in sweep.end(status=130)
    assert all(sweep.epochs()[trial] >= number for trial, number in kept.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_end_a_sweep_as_ctrl_c_does_and_leave_nothing(tmp_path, number):
    with Sweep(tmp_path, epochs=1500) as sweep:
        sweep.find(TRIAL)
        sweep.wait_for_checkpoint()
        started = psutil.Process(sweep.driver.pid).children(recursive=True)
        scratch = {Path(each.cwd()).parent for each in started if "geosweep-ray-" in each.cwd()}
        sweep.driver.send_signal(number)
        said = sweep.end(status=130)
        _, alive = psutil.wait_procs(started, timeout=60)
        assert alive == []
    assert f"epochs that are running have ended ({signal.Signals(number).name}" in said
    assert "not finished" in said
    assert sweep.epochs()
    client = MlflowClient(f"sqlite:///{sweep.root}/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {run.info.status for run in found} == {"KILLED"}
    assert scratch
    assert not any(folder.exists() for folder in scratch)


def test_a_sweep_whose_folder_is_deleted_stops_and_does_not_create_it_again(tmp_path):
    sweep = Sweep(tmp_path, epochs=1500)

    def delete() -> None:
        sweep.wait_for_checkpoint()
        while os.path.exists(sweep.root):  # a file may appear while the others are deleted
            shutil.rmtree(sweep.root, ignore_errors=True)

    said, _ = sweep.meanwhile(delete, status=2)
    assert "the folder was deleted or replaced; the sweep has stopped" in said
    assert "Traceback" not in said
    assert not os.path.exists(sweep.root)


def test_a_trial_out_of_memory_fails_by_name_and_runs_where_there_is_some(tmp_path):
    sweep = Sweep(tmp_path, epochs=40)
    # Ray ends workers where more of the memory than this is in use; here that is always so.
    sweep.environment = {
        "RAY_memory_usage_threshold": "0.001",
        "RAY_memory_monitor_refresh_ms": "50",
        "RAY_task_oom_retries": "0",
    }
    sweep.words.append("--fail-fast")
    with sweep:
        said = sweep.end(status=1)
    assert ": out of memory" in said or "OutOfMemoryError" in said
    sweep.environment = {}
    sweep.words.remove("--fail-fast")
    sweep.again()
    sweep.check()


def test_the_sweep_goes_on_without_mlflow_and_sync_brings_it_up_to_date(tmp_path):
    sweep = Sweep(tmp_path, epochs=2)
    sweep.environment = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}  # no server there
    said = sweep.again()
    assert said.count("MLflow: ") == 1
    assert {row["status"] for row in sweep.rows().values()} == {"done"}
    for logged in (2, 0):
        status, output = geosweep("sync", sweep.root)
        assert status == 0, output
        assert f"{logged} trials logged" in output
    sweep.environment = {}
    sweep.check()
    storage.delete(sweep.root, places.MLFLOW_NOTE)  # as after a killed driver: logs all again
    sweep.again()
    sweep.check()


def test_a_locked_mlflow_database_costs_mlflow_only_and_the_next_run_catches_up(tmp_path):
    sweep = Sweep(tmp_path, epochs=2)
    sweep.again("--set", "network=plain")
    with closing(sqlite3.connect(f"{sweep.root}/mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = sweep.again()
        assert "MLflow: " in said
        assert len(sweep.rows()) == 2
        other.rollback()
    assert "bringing MLflow up to date" in sweep.again()
    sweep.check()


@pytest.fixture
def small_disk():
    """A function that mounts a small disk at a folder, and returns one that makes it larger."""
    mounted = []

    def mount(place: Path, size: str) -> Callable[[], object]:
        place.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if os.geteuid() or not shutil.which("mount") or subprocess.run(command).returncode:
            pytest.skip("mounting a small disk needs root")
        mounted.append(place)
        return lambda: subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)

    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", "--lazy", place], check=True)


# Small disks in the sweep's folder in the order in which they fill, their sizes, and the folder
# that has files by then.
FULL = [
    ("checkpoints", "16k", "pending"),
    (".", "6m", "checkpoints"),
    ("results/trials", "8k", "results/samples"),
]


def test_a_full_disk_is_named_nothing_is_half_written_and_it_goes_on_with_room(
    tmp_path, small_disk
):
    root = tmp_path / "out"
    grow = {place: small_disk(root / place, size) for place, size, _ in sorted(FULL)}
    sweep = Sweep(tmp_path, epochs=3, points=4000, root=root)
    for place, _, filled in FULL:
        said = sweep.again(status=1)
        told = [line for line in said.splitlines() if "geosweep: " in line]
        assert len(told) == 1
        assert "no space left on the disk (" in told[0]
        assert str(tmp_path) in told[0]
        assert "Traceback" not in said
        assert not any(row["status"] == "failed" for row in sweep.rows().values())
        for table in schemas.TABLES:
            assert broken_files(sweep.root, table) == []
        assert any((root / filled).rglob("*.*"))
        assert place == "." or not [*(root / place).glob("*.pt*"), *(root / place).glob("*.par*")]
        grow[place]()
    sweep.again()
    sweep.check()


def test_a_full_disk_under_ray_is_named_by_rays_folder_not_by_the_sweeps(tmp_path, small_disk):
    short = Path(tempfile.mkdtemp(prefix="full", dir="/tmp"))
    small_disk(short, "100k")
    sweep = Sweep(tmp_path, epochs=3)
    sweep.environment = {"RAY_TMPDIR": str(short)}
    with sweep:
        said = sweep.end(status=1)
    assert f"no space left on the disk ({short}/" in said
    assert "Traceback" not in said
    sweep.environment = {}
    sweep.again()
    sweep.check()


def test_a_full_disk_under_mlflow_costs_mlflow_only_and_sync_catches_up(tmp_path, small_disk):
    small_disk(tmp_path / "disk", "100k")
    sweep = Sweep(tmp_path, epochs=2)
    sweep.environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/disk/mlflow.db"}
    said = sweep.again()
    assert said.count("MLflow: ") == 1
    assert {row["status"] for row in sweep.rows().values()} == {"done"}
    sweep.environment = {}
    status, output = geosweep("sync", sweep.root)
    assert status == 0, output
    assert "2 trials logged" in output
    sweep.check()


def test_torn_and_foreign_tables_are_set_aside_and_done_again_without_training(finished):
    sweep = finished
    before = sweep.check()
    torn, foreign = sorted(before)
    path = places.table_path("tracks", torn)
    storage.write_file(sweep.root, path, storage.read_file(sweep.root, path)[:1000])
    path = places.table_path("trials", foreign)
    storage.write_file(sweep.root, path, b"PAR1 from elsewhere")
    storage.write_file(sweep.root, "results/epochs/notes.parquet", b"mine")
    kept = sweep.checkpoints()
    said = sweep.again()
    for name in (f"tracks/{torn}", f"trials/{foreign}", "epochs/notes"):
        assert f"results/{name}.parquet: torn, or not of geosweep" in said
    assert len(storage.list_files(sweep.root, places.ASIDE)) == 4  # and torn's row
    after = sweep.check()
    assert numbers(after) == numbers(before)
    for trial, row in after.items():
        assert row["trained_at"] == before[trial]["trained_at"]
    assert sweep.checkpoints() == kept


def test_failures_are_counted_kept_and_tried_again_alone(tmp_path):
    sweep = Sweep(tmp_path, epochs=2)
    cells = sweep.again("--dry-run")
    broken = next(line.split()[0] for line in cells.splitlines() if "plain" in line)
    in_the_way = Path(sweep.root, "pending", broken)  # of a folder; the driver would move it
    in_the_way.parent.mkdir()
    in_the_way.touch()
    with mock.patch.object(folder, "mend", return_value=[]):
        said = sweep.again("--fail-fast", status=1)
    assert "too many cells failed" in said
    assert f"failed   {broken}: " in said
    assert "1 failed" in said
    assert "run_trial" in storage.read_file(sweep.root, places.error(broken)).decode()
    client = MlflowClient(f"sqlite:///{sweep.root}/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (run,) = [r for r in found if r.data.tags.get(TRIAL_TAG) == broken]
    assert run.info.status == "FAILED"
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["error.txt"]

    sweep.again("--leave-failed")
    assert sorted(row["status"] for row in sweep.rows().values()) == ["done", "failed"]
    sweep.again("--retry-failed")
    sweep.check()


def test_a_search_killed_half_way_ends_with_its_trials_and_a_pareto_figure(tmp_path):
    sweep = Sweep(tmp_path, epochs=2, report=True)
    sweep.file.write_text(
        "layers: fully_connected\nnetwork: [plain, resnet]\ngamma: {low: 1e-5, high: 0.1}\n"
        "epochs: 2\npoints: 60\nsearch: {trials: 20, objectives: [test_accuracy, lss]}\n"
    )
    with sweep:
        while len(storage.list_files(sweep.root, "results/trials")) < 8:
            assert sweep.driver.poll() is None, sweep.driver.communicate()[0]
            time.sleep(0.1)
        before = sweep.rows()
        sweep.started = psutil.Process(sweep.driver.pid).children(recursive=True)
        sweep.driver.kill()
        sweep.driver.wait()
        said = sweep.again()
    assert "20 of 20 done" in said
    rows = sweep.rows()
    assert len(rows) == 20
    assert {trial: rows[trial] for trial in before} == before
    assert len({row["gamma"] for row in rows.values()}) == 20
    sweep.check_mlflow(rows)
    assert Path(sweep.root, "report", "pareto_front.png").stat().st_size > 10_000
    study = optuna.load_study(
        study_name=None, storage=JournalStorage(JournalFileBackend(f"{sweep.root}/{STUDY}"))
    )
    told = {t.params["gamma"]: t.values for t in study.trials}
    assert told == {r["gamma"]: [r["test_accuracy"], r["lss"]] for r in rows.values()}
