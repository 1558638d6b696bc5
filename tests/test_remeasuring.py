"""Scores that an earlier version did not have are added from the weights that it kept."""

import math
import shutil
from pathlib import Path

import pytest
from numpy.testing import assert_allclose
from older import is_later, make_older

from models.config import TrialConfig
from scoring import checked, handover, places
from scoring.rows import completed, has_all_scores
from scoring.storage import read_file, write_file
from scoring.tables import read_row, read_rows
from tune_jobs import trial
from tune_jobs.tuning import Setup

CONFIG = TrialConfig(layers="fully_connected", network="resnet", epochs=2, points=40)
ASKED = {"scores": {}}
TABLES = {"trials": "trial", "epochs": "epoch", "tracks": "epoch", "samples": "point"}
OF_THE_RUN = ("_seconds", "_at")  # ends of columns that differ between two runs


@pytest.fixture
def now(shared, tmp_path, reports):
    """A folder with a finished trial."""

    def fill(path):
        run(str(path), {})
        handover.finish(str(path), CONFIG.trial)

    return shutil.copytree(shared("one_trial", fill), tmp_path / "now").as_posix()


@pytest.fixture
def old(now, tmp_path):
    """The same, as an earlier version left it."""
    folder = shutil.copytree(now, tmp_path / "old").as_posix()
    make_older(folder)
    return folder


def run(root, wanted):
    setup = Setup(root, {"digits": "digits"}, evaluations=wanted)
    trial.run_trial(CONFIG.model_dump(), setup)


def added(root):
    run(root, ASKED)
    handover.finish(root, CONFIG.trial)
    return read_row(root, "trials", CONFIG.trial)


def change_history(root, epoch, **values):
    path = places.history(CONFIG.trial)
    history = checked.load(read_file(root, path))
    for row in history["tracks"]:
        if row["epoch"] == epoch:
            row |= values
    write_file(root, path, checked.dump(history))


def test_what_is_added_is_what_this_version_measures_at_once(now, old):
    before = {table: read_rows(old, table, CONFIG.trial) for table in TABLES}
    assert not has_all_scores(before["trials"][0])
    assert has_all_scores(added(old))
    for table, rows in before.items():
        wanted, found = (read_rows(root, table, CONFIG.trial) for root in (now, old))
        assert len(found) == len(rows)
        for one, other, earlier in zip(wanted, found, rows, strict=True):
            for name, value in one.items():
                if name.endswith(OF_THE_RUN):
                    continue
                # Epochs between the first and the last have only the baselines of the first.
                lost = table != "trials" and one["epoch"] == 1 and not name.endswith("_initial")
                if not is_later(name):
                    assert other[name] == earlier[name] or other[name] != other[name]
                elif value is None or lost:
                    assert other[name] is None
                else:
                    assert_allclose(other[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_time_of_scoring_changes_so_that_mlflow_gets_the_new_columns(old):
    earlier = read_row(old, "trials", CONFIG.trial)
    found = added(old)
    assert found["scored_at"] > earlier["scored_at"]
    for name in ("trained_at", "released_at", "scoring_seconds", "evaluations"):
        assert found[name] == earlier[name]


def test_a_trial_with_all_scores_is_not_measured_again(now, monkeypatch):
    monkeypatch.setattr(trial, "measure_again", None)
    run(now, ASKED)
    assert not handover.handed_over(now, CONFIG.trial)


def test_a_run_that_was_killed_before_scoring_adds_the_same_later(old):
    run(old, ASKED)
    assert read_row(old, "trials", CONFIG.trial)["lss_scaled"] is None
    handover.discard(old, CONFIG.trial)  # as the next driver does
    first = added(old)
    handover.discard(old, CONFIG.trial)
    assert read_row(old, "trials", CONFIG.trial) == first


def test_baselines_stay_empty_where_the_untrained_network_is_another(old, reports):
    change_history(old, 0, inverse_lss=0.123)
    found = added(old)
    assert found["lss_scaled"] > 1
    assert found["geodesic_excess"] > 1
    for name in ("lss_scaled_initial", "geodesic_excess_initial", "ots_shuffled_initial"):
        assert found[name] != found[name]  # NaN
    assert found["ots_initial"] > 0  # as it was
    (line,) = reports[-1]["set_aside"]
    assert "cannot be made again" in line
    rows = read_rows(old, "tracks", CONFIG.trial)
    assert [row["lss_scaled"] is None for row in rows] == [True, True, False]


def test_other_weights_add_nothing(old):
    change_history(old, 2, inverse_lss=0.123)
    with pytest.raises(ValueError, match="other weights"):
        run(old, ASKED)
    assert not handover.handed_over(old, CONFIG.trial)


def test_weights_without_their_history_add_nothing(old):
    Path(old, places.history(CONFIG.trial)).unlink()
    with pytest.raises(FileNotFoundError, match="no such file"):
        run(old, ASKED)


def test_values_that_are_there_stay():
    had = [{"epoch": 1, "stage": 1, "a": 0.0, "b": None, "c": math.nan}]
    now = [
        {"epoch": 1, "stage": 1, "a": 5.0, "b": 6.0, "c": 8.0},
        {"epoch": 2, "stage": 1, "a": 7.0},
    ]
    assert completed(had, now, ("epoch", "stage")) == [
        {"epoch": 1, "stage": 1, "a": 0.0, "b": 6.0, "c": 8.0},
        {"epoch": 2, "stage": 1, "a": 7.0},
    ]
