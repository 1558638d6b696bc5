"""A power failure: what was not written to the disk is lost, and what was finished is not."""

import errno
import os
import shutil

import pytest

from models.config import TrialConfig
from scoring import handover, places, storage
from scoring.history import forget_weights, read_history
from scoring.schemas import TABLES
from scoring.tables import broken_files, read_row, read_rows
from tune_jobs import checkpoints, folder, sweep, trial
from tune_jobs.study import Study
from tune_jobs.tuning import Setup

CONFIG = TrialConfig(layers="fully_connected", epochs=2, points=30, epoch_points=20)
VARIES = ("seconds", "_at", "memory")  # in the names of columns


class PowerFailure(BaseException):
    """Nothing runs after it."""


class Disk:
    """A disk that is only as good as it promises: it loses all that it was not asked to keep.

    Names that were deleted stay deleted, which is the worst that can happen.
    """

    def __init__(self):
        self.calls, self.fails_at = 0, None
        self._names: dict[int, dict[str, int]] = {}  # folder -> what it held when it was kept
        self._contents: set[tuple[int, int, int]] = set()
        self._fsync = os.fsync

    def fsync(self, opened):
        self.calls += 1
        if self.calls == self.fails_at:
            raise PowerFailure
        self._fsync(opened)
        about = os.fstat(opened)
        if os.path.isdir(place := os.readlink(f"/proc/self/fd/{opened}")):
            self._names[about.st_ino] = {entry.name: entry.inode() for entry in os.scandir(place)}
        else:
            self._contents.add((about.st_ino, about.st_mtime_ns, about.st_size))

    def fail(self, root):
        """Lose everything else in a folder."""
        names = self._names.get(os.stat(root).st_ino, {})
        for entry in list(os.scandir(root)):
            about = entry.stat()
            if names.get(entry.name) != about.st_ino:
                shutil.rmtree(entry) if entry.is_dir() else os.remove(entry)
            elif entry.is_dir():
                self.fail(entry.path)
            elif (about.st_ino, about.st_mtime_ns, about.st_size) not in self._contents:
                os.truncate(entry, 0)


@pytest.fixture(autouse=True)
def disk(monkeypatch):
    found = Disk()
    monkeypatch.setattr(os, "fsync", found.fsync)
    monkeypatch.setattr(trial.tune, "report", lambda result: None)
    return found


def train(root, config=CONFIG, **settings):
    trial.run_trial(config.model_dump(), Setup(root, {"digits": "digits"}, **settings))


def rows(root):
    """A trial's rows without times, as text."""
    found = [row for table in TABLES for row in read_rows(root, table, CONFIG.trial)]
    return [
        {n: repr(v) for n, v in row.items() if not any(word in n for word in VARIES)}
        for row in found
    ]


@pytest.fixture
def wanted(tmp_path):
    """The rows of an undisturbed trial."""
    train(str(tmp_path / "whole"), keep="best")
    handover.finish(str(tmp_path / "whole"), CONFIG.trial)
    return rows(str(tmp_path / "whole"))


def test_a_disk_loses_what_it_was_not_asked_to_keep(tmp_path, disk):
    root = str(tmp_path)
    for name in ("results/a", "b"):
        storage.write_file(root, name, b"old")
    storage.write_file(root, "results/a", b"new")
    for name in ("results/c", "b"):
        storage.write_file(root, name, b"new", lasting=False)
    disk.fail(root)
    assert storage.read_file(root, "results/a") == b"new"
    assert storage.list_files(root, "results") == ["a"]
    assert storage.read_file(root, "b") is None


@pytest.mark.parametrize("required", [False, True])
def test_a_file_in_new_folders_survives(tmp_path, disk, required):
    (tmp_path / "out").mkdir()
    root = str(tmp_path / "out") if required else str(tmp_path / "out/new/sweep")
    if required:
        storage.require(root)
    storage.write_file(root, "pending/a/final.npz", b"1")
    disk.fail(root)
    assert storage.read_file(root, "pending/a/final.npz") == b"1"


def test_a_trained_trial_and_its_weights_survive_and_then_its_tables(tmp_path, disk, wanted):
    root = str(tmp_path / "out")
    train(root, keep="best")
    disk.fail(root)
    assert checkpoints.read(root, CONFIG.trial)["epoch"] == CONFIG.epochs
    assert checkpoints.read(root, f"{CONFIG.trial}.best")
    assert read_history(root, CONFIG.trial, CONFIG.epochs)
    handover.finish(root, CONFIG.trial)
    forget_weights(root, CONFIG.trial)
    disk.fail(root)
    assert storage.list_files(root, places.PENDING) == []
    assert all(broken_files(root, table) == [] for table in TABLES)
    assert rows(root) == wanted


def test_a_stopped_trial_and_its_weights_survive(tmp_path, disk):
    root = str(tmp_path)
    train(root)
    history = read_history(root, CONFIG.trial, 1)
    history["summary"].pop("status")
    trial.write_history(root, CONFIG.trial, history)
    handover.discard(root, CONFIG.trial)
    handover.leave_stopped(root, CONFIG.trial, 1)
    disk.fail(root)
    assert read_history(root, CONFIG.trial, 1)
    handover.finish(root, CONFIG.trial)
    disk.fail(root)
    assert read_row(root, "trials", CONFIG.trial)["status"] == "stopped"


@pytest.mark.long
def test_wherever_the_power_fails_a_trial_ends_with_the_same_rows(tmp_path, disk, wanted):
    counted = str(tmp_path / "counted")
    os.mkdir(counted)
    before, trained = disk.calls, 0
    train(counted, keep="best")
    steps = disk.calls - before
    handover.finish(counted, CONFIG.trial)
    total = disk.calls - before
    for number in range(1, total + 1):
        root = str(tmp_path / f"failed{number}")
        os.mkdir(root)
        disk.fails_at = disk.calls + number
        with pytest.raises(PowerFailure):  # noqa: PT012
            train(root, keep="best")
            trained += 1
            handover.finish(root, CONFIG.trial)
        disk.fails_at = None
        disk.fail(root)
        folder.mend(root)
        if number > steps:  # it is not trained again
            assert handover.handed_over(root, CONFIG.trial) or read_row(
                root, "trials", CONFIG.trial
            )
        if not read_row(root, "trials", CONFIG.trial):
            train(root, keep="best")
            handover.finish(root, CONFIG.trial)
        assert rows(root) == wanted
    assert trained == total - steps


@pytest.mark.parametrize("keep", ["final", "best", "none"])
def test_waiting_for_the_disk_takes_no_longer_with_more_epochs(tmp_path, disk, keep):
    counts = []
    for epochs in (1, 2, 4):
        config = CONFIG.model_copy(update={"epochs": epochs})
        before = disk.calls
        train(str(tmp_path / "out"), config, keep=keep)
        handover.finish(str(tmp_path / "out"), config.trial)
        counts.append(disk.calls - before)
    assert counts[0] > counts[1] == counts[2] <= 17  # the first one creates folders


def test_the_cells_of_a_sweep_and_the_suggestions_of_a_search_survive(tmp_path, disk):
    root = str(tmp_path)
    about = {"name": "p", "network": ["plain", "resnet"], "dataset": "digits", "epochs": 2}
    grid = sweep.read(about | {"layers": "fully_connected"})
    folder.claim(root, grid)
    disk.fail(root)
    assert len(folder.inspect(root).missing) == 2
    search = {"search": {"trials": 3, "objectives": ["test_accuracy"]}}
    asked = sweep.read(about | {"layers": "fully_connected", "gamma": [0.0, 0.001]} | search)
    study = Study(root, asked.search, asked.space, asked.fixed, [], rules=asked.rules)
    first = study.suggest()
    folder.claim(root, asked, study.cells)
    disk.fail(root)
    known = folder.description(root).suggested
    assert first in known
    again = Study(root, asked.search, asked.space, asked.fixed, known, rules=asked.rules)
    assert again.cells == study.cells


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_file_system_that_cannot_be_asked_to_keep_files_is_used_without(
    tmp_path, monkeypatch, number
):
    def cannot(opened):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", cannot)
    storage.write_file(str(tmp_path), "a/b", b"1")
    storage.settle(str(tmp_path), "a/b", "a/missing")
    assert storage.read_file(str(tmp_path), "a/b") == b"1"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_only_when_it_is_asked_to_keep_a_file_leaves_the_earlier_one(
    tmp_path, monkeypatch, number
):
    """On NFS, writes are sent late."""

    def full(opened):
        raise OSError(number, os.strerror(number))

    storage.write_file(str(tmp_path), "a", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"{tmp_path}/.a") as raised:
        storage.write_file(str(tmp_path), "a", b"new")
    assert raised.value.errno == number
    assert os.listdir(tmp_path) == ["a"]
    assert storage.read_file(str(tmp_path), "a") == b"old"
