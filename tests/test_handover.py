"""What a trained trial leaves for scoring, and how it is finished."""

import errno
import json
import math
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_evaluations import made_up_rows
from numpy.testing import assert_array_equal

from scoring import handover, places, schemas, storage
from scoring.history import read_history, write_history
from scoring.left_curve import leave_curve
from scoring.problems import Place
from scoring.robustness.areas import COLUMNS
from scoring.robustness.record import add_evaluation
from scoring.tables import read_row, read_rows, write_table
from scoring.transport import assignment_problem, optimal_transport_score

POINTS = 30
MOMENT = "2026-01-01T00:00:00+00:00"
OF_EVERY_VERSION = ("train_loss", "train_accuracy", "clean_train_loss", "clean_train_accuracy")
LOSSES = dict.fromkeys((*OF_EVERY_VERSION, "test_loss", "test_accuracy"), 1.0)


def made_history(status="done", stages=(1, 2), epochs=(0, 1)):
    """History of a trial whose stages all have the same scores."""
    key = {"trial": "a", "dataset": "digits", "network": "plain", "stages": len(stages)}
    summary = key | {"gamma": 0.0, "seed": 0, "status": status, "started_at": MOMENT}
    scores = {"lss": 1.5, "inverse_lss": 0.7, "lsr": 1.2, "lss_random": 2.0, "m": POINTS}
    return {
        "summary": summary,
        "epochs": [{"epoch": e} | LOSSES | {"seconds": 1.0, "finished_at": MOMENT} for e in epochs],
        "tracks": [{"epoch": e, "stage": k, "blocks": 4} | scores for e in epochs for k in stages],
    }


KEY = {name: made_history()["summary"][name] for name in [field.name for field in schemas.KEY]}


def noise_row(accuracy):
    where = {"evaluation": "noise", "stage": None, "level": 0.0, "m": POINTS}
    return where | {"accuracy": accuracy, "replacement": None, "units": None}


def made_points(seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(2, POINTS, 5))


def save(root, path, arrays):
    with storage.writing(root, path) as stream:
        np.savez(stream, **arrays)


@pytest.mark.parametrize("kept", ["products", "points"])
def test_files_that_an_earlier_version_left_are_finished(tmp_path, kept):
    """Names of arrays as they have been from the start: a field and the number of its stage."""
    root = str(tmp_path)
    history = made_history()
    history["summary"] |= {"seconds": 2.0, "trained_at": MOMENT}
    files = {places.initial("a"): {}, places.final("a"): {}}
    for number, arrays in enumerate(files.values()):
        for stage in (1, 2):
            x, y = made_points([number, stage])
            if kept == "products":  # more dimensions than half the points
                x, y = np.tile(x, 5), np.tile(y, 5)
            problem = assignment_problem(x, y).arrays()
            for later in ("random_cost", "along", "relative", "gram"):
                problem.pop(later, None)
            assert ("inner" in problem) == (kept == "products")
            arrays |= {f"{name}{stage}": value for name, value in problem.items()}
    labels = np.arange(POINTS) % 3
    files[places.final("a")] |= {"labels": labels, "predictions": labels[::-1]}
    for stage in (1, 2):
        line = np.linspace(1, 2, POINTS) + stage
        files[places.final("a")] |= {f"score{stage}": line, f"ratio{stage}": line / 2}
    files[places.final("a")]["history"] = np.array(json.dumps(history))
    for path, arrays in files.items():
        save(root, path, arrays)

    assert handover.waiting(root) == ["a"]
    handover.finish(root, "a")
    assert handover.waiting(root) == []
    tracks = read_rows(root, "tracks", "a")
    wanted = {
        (number, stage): optimal_transport_score(*made_points([number, stage]))
        for number in (0, 1)
        for stage in (1, 2)
    }
    for row in tracks:
        assert row["ots"] == wanted[row["epoch"], row["stage"]].ots
        assert row["ots_initial"] == wanted[0, row["stage"]].ots
        assert len(row["ots_by_class"]) == 3
        assert (row["ots_shuffled"], row["shuffled_seconds"]) == (None, None)
    samples = read_rows(root, "samples", "a")
    assert [(row["stage"], row["point"]) for row in samples] == [
        (stage, point) for stage in (1, 2) for point in range(POINTS)
    ]
    second = samples[POINTS:]
    assert_array_equal([row["permutation"] for row in second], wanted[1, 2].permutation)
    assert_array_equal([row["lss"] for row in second], np.linspace(1, 2, POINTS) + 2)
    assert_array_equal([row["prediction"] for row in second], labels[::-1])
    trial = read_row(root, "trials", "a")
    assert trial["ots"] == np.mean([wanted[1, stage].ots for stage in (1, 2)])
    assert math.isnan(trial["ots_shuffled"])
    assert trial["seconds"] == 2.0


def leave(root, status="done"):
    """What a trained trial leaves for scoring, and its history."""
    history = made_history(status)
    write_history(root, "a", history)
    history["summary"] |= {"seconds": 2.0, "trained_at": MOMENT}
    arrays = {"labels": np.arange(POINTS) % 3, "predictions": np.arange(POINTS) % 3}
    arrays["history"] = np.array(json.dumps(history))
    problems = {}
    for stage in (1, 2):
        problem = assignment_problem(*made_points([7, stage])).arrays()
        problems |= {f"{name}{stage}": value for name, value in problem.items()}
        arrays |= {f"{name}{stage}": np.ones(POINTS) for name in ("score", "ratio")}
    save(root, places.initial("a"), problems)
    save(root, places.final("a"), arrays | problems)


def leave_a_curve(root):
    key = {"trial": "a", "dataset": "digits", "network": "plain", "stages": 1}
    problem = assignment_problem(*made_points(3))
    problems = [(Place("curve", 1, block), problem) for block in (1, 0)]  # 0: the whole stage
    leave_curve(root, key | {"gamma": 0.0, "seed": 0}, {}, problems)


def is_open(place):
    opened = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return any(place in os.readlink(one) for one in opened if os.path.islink(one))


@pytest.fixture
def nfs(monkeypatch):
    """As on NFS, a folder cannot be deleted if a file in it was open when it was deleted."""
    real, busy = storage.delete, set()

    def delete(root, path):
        place = f"{root}/{path}"
        if os.path.isdir(place) and any(one.startswith(f"{place}/") for one in busy):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), place)
        if is_open(place):
            busy.add(place)
        real(root, path)

    monkeypatch.setattr(storage, "delete", delete)
    return busy


@pytest.mark.parametrize("what", ["trained", "with a curve", "only a curve"])
def test_on_nfs_everything_that_a_trial_left_is_deleted_once_it_is_finished(tmp_path, nfs, what):
    root = str(tmp_path)
    leave(root)
    if what == "only a curve":
        handover.finish(root, "a")
    if what != "trained":
        leave_a_curve(root)
    handover.finish(root, "a")
    assert storage.list_files(root, places.PENDING) == []
    assert not nfs
    assert bool(read_rows(root, "robustness", "a")) == (what != "trained")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOTEMPTY, errno.EIO])
@pytest.mark.parametrize("what", ["trained", "only a curve"])
def test_what_cannot_be_deleted_fails_no_finished_trial(tmp_path, monkeypatch, number, what):
    root = str(tmp_path)
    leave(root)
    if what == "only a curve":
        handover.finish(root, "a")
        leave_a_curve(root)
    real = storage.delete

    def delete(root, path):
        if path == places.pending("a"):
            raise OSError(number, os.strerror(number))
        real(root, path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", delete)
        handover.finish(root, "a")
    row = read_row(root, "trials", "a")
    assert row["status"] == "done"
    assert not handover.handed_over(root, "a")
    assert storage.list_files(root, places.PENDING) == ["a"]
    handover.discard(root, "a")  # as the next driver does
    assert storage.list_files(root, places.PENDING) == []
    assert str(read_row(root, "trials", "a")) == str(row)


def test_later_evaluations_keep_the_columns_that_this_version_does_not_write(tmp_path):
    root = str(tmp_path)
    leave(root)
    handover.finish(root, "a")
    for table in ("trials", "robustness"):
        if table == "robustness":
            add_evaluation(root, KEY, "noise", {"levels": [0]}, [noise_row(0.25)])
        path = tmp_path / places.table_path(table, "a")
        content = pq.read_table(path)
        pq.write_table(content.append_column("later", pa.array([7] * len(content))), path)
    add_evaluation(root, KEY, "fgsm", {"levels": [0]}, [noise_row(0.5) | {"evaluation": "fgsm"}])
    handover.finish(root, "a")
    row = read_row(root, "trials", "a")
    assert (row["later"], row["noise_auc"], row["fgsm_auc"]) == (7, 0.25, 0.5)
    assert [one["later"] for one in read_rows(root, "robustness", "a")] == [7, None]


EVERY = ("lesion", "noise", "fgsm", "pgd", "separation", "curve")


def evaluated(root):
    """The row of a trial with all evaluations."""
    leave(root)
    for name in EVERY:
        add_evaluation(root, KEY, name, {}, made_up_rows([name], 2, 4, 0.9, 1.0))
    handover.finish(root, "a")
    row = read_row(root, "trials", "a")
    assert all(row[name] is not None for name in COLUMNS)
    return row


def changed(row, now):
    """The columns in which two rows differ, without times."""
    assert row.keys() == now.keys()
    names = {name for name in row if repr(row[name]) != repr(now[name])}
    return {name for name in names if not name.endswith(("_at", "_seconds"))}


@pytest.mark.parametrize("again", [False, True], ids=["evaluated", "scored again, too"])
def test_an_evaluation_with_fewer_results_leaves_no_number_of_the_earlier_one(tmp_path, again):
    root = str(tmp_path)
    before = evaluated(root)
    kept = {
        "lesion": lambda row: (row["units"], row["replacement"]) == ("top", "previous"),
        "separation": lambda row: row["evaluation"] == "separation",
        "curve": lambda row: row["evaluation"] == "curve",
    }
    controls = dict.fromkeys(("mixed_initial", "mixed_matched", "mixed_matched_initial"))
    for name, keep in kept.items():
        rows = [row | controls for row in made_up_rows([name], 2, 4, 0.9, 1.0) if keep(row)]
        add_evaluation(root, KEY, name, {"other": 1}, rows)
    if again:
        leave(root)
    handover.finish(root, "a")
    after = read_row(root, "trials", "a")
    there = {name for name in COLUMNS if after[name] is not None}
    assert {name for name in there if not name.startswith("curve_")} == {
        *("lesion_auc", "noise_auc", "fgsm_auc", "pgd_auc", "mixed_ratio")
    }
    assert {"curve_m", "curve_length_ratio"} < there
    assert not any(name.endswith(("_initial", "_shuffled")) for name in there)
    assert changed(before, after) == {"evaluations", *COLUMNS} - there


@pytest.mark.parametrize("then", ["nothing", "noise", "scores"])
def test_no_number_stays_of_a_robustness_table_that_was_deleted(tmp_path, then):
    root = str(tmp_path)
    before = evaluated(root)
    storage.delete(root, places.table_path("robustness", "a"))
    if then == "noise":
        add_evaluation(root, KEY, "noise", {}, [noise_row(0.25)])
    if then == "scores":
        leave(root)
    handover.finish(root, "a")
    after = read_row(root, "trials", "a")
    wanted = {"noise_auc": 0.25} if then == "noise" else {}
    assert {name: after[name] for name in COLUMNS if after[name] is not None} == wanted
    assert after["evaluations"] == ('{"noise": {}}' if wanted else None)
    assert changed(before, after) == {"evaluations", *COLUMNS}
    assert after["scored_at"] > before["scored_at"]


def test_a_number_without_rows_goes_even_if_no_setting_has_changed(tmp_path):
    """Earlier versions left some in the trials table."""
    root = str(tmp_path)
    leave(root)
    add_evaluation(root, KEY, "noise", {}, [noise_row(0.25)])
    handover.finish(root, "a")
    row = read_row(root, "trials", "a")
    handover.finish(root, "a")
    assert repr(read_row(root, "trials", "a")) == repr(row)  # nothing has changed
    write_table(root, "trials", "a", [row | {"lesion_auc": 0.5}])
    handover.finish(root, "a")
    now = read_row(root, "trials", "a")
    assert changed(row, now) == set()
    assert now["scored_at"] > row["scored_at"]


@pytest.mark.parametrize("status", ["done", "diverged"])
def test_a_trial_that_has_ended_does_not_become_a_stopped_one(tmp_path, status):
    """The driver may not see yet that it was handed over."""
    root = str(tmp_path)
    leave(root, status)
    before = storage.read_file(root, places.final("a"))
    handover.leave_stopped(root, "a", 1)
    assert storage.read_file(root, places.final("a")) == before
    history = read_history(root, "a")
    del history["summary"]["status"]
    write_history(root, "a", history)
    handover.leave_stopped(root, "a", 1)
    assert storage.read_file(root, places.final("a")) != before
    with pytest.raises(FileNotFoundError, match="no epoch 2"):
        handover.leave_stopped(root, "a", 2)
