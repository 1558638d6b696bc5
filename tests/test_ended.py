"""What the driver does with trials that had ended before, and with rows it does not see yet."""

from functools import partial
from types import SimpleNamespace
from unittest import mock

import pytest

from models.config import TrialConfig
from scoring import handover, places, storage
from scoring.history import forget_weights
from scoring.tables import read_row, write_table
from tune_jobs import driver, trial
from tune_jobs.driver import Driver
from tune_jobs.tuning import Setup

CONFIG = TrialConfig(layers="fully_connected", epochs=2, points=30, epoch_points=20)
TRIAL = CONFIG.trial
RESULT = {"evaluations": None, "test_accuracy": 0.9}


@pytest.fixture
def here(tmp_path):
    """As much of a driver as these methods use; the folder is real."""
    found = mock.Mock(_root=str(tmp_path), _scratch="/tmp", _evaluating=set(), _weights={})
    found._board.cells = {TRIAL: SimpleNamespace(config=CONFIG, record={}, epoch=2)}
    for name in ("_row", "_scored_row", "_is_done", "_failed"):
        setattr(found, name, partial(getattr(Driver, name), found))
    return found


def end(root, status, **more):
    write_table(root, "trials", TRIAL, [CONFIG.row(1) | {"status": status} | RESULT | more])


@pytest.mark.parametrize("status", handover.ENDED)
def test_a_failure_of_a_trial_that_has_ended_before_leaves_its_row(here, status):
    end(here._root, status)
    row = read_row(here._root, "trials", TRIAL)
    here._failed(TRIAL, "Traceback\nOSError: no weights")
    assert read_row(here._root, "trials", TRIAL) == row
    assert storage.read_file(here._root, places.error(TRIAL))
    here._study.tell.assert_called_once_with(TRIAL, row)
    here._tracker.finish.assert_called_once_with(TRIAL, row)
    here._tracker.fail.assert_not_called()
    here._board.change.assert_called_once_with(TRIAL, "failed", "OSError: no weights")


@pytest.mark.parametrize("before", [None, "failed", "torn"])
def test_the_failure_of_any_other_trial_is_written(here, before):
    if before == "torn":
        storage.write_file(here._root, places.table_path("trials", TRIAL), b"PAR1 torn")
    elif before:
        end(here._root, before)
    here._failed(TRIAL, "Traceback\nValueError: 7")
    row = read_row(here._root, "trials", TRIAL)
    assert (row["status"], row["error"]) == ("failed", "ValueError: 7")
    (told,) = here._study.tell.call_args_list
    assert told.args[1]["status"] == "failed"
    here._tracker.finish.assert_not_called()


def run(root, **settings):
    trial.run_trial(CONFIG.model_dump(), Setup(root, {"digits": "digits"}, **settings))


@pytest.mark.parametrize("wanted", [{}, {"noise": {"levels": [0.0], "seed": 0}}, {"scores": {}}])
def test_a_done_trial_without_weights_is_asked_for_again_and_needs_nothing(
    tmp_path, reports, wanted
):
    """As a search does that has lost its cells."""
    root = str(tmp_path)
    run(root, evaluations=wanted)
    handover.finish(root, TRIAL)
    forget_weights(root, TRIAL)
    row = read_row(root, "trials", TRIAL)
    reports.clear()
    run(root, evaluations=wanted)
    assert reports == [{"trial": TRIAL}]
    handover.finish(root, TRIAL)
    assert str(read_row(root, "trials", TRIAL)) == str(row)
    with pytest.raises(FileNotFoundError, match="no weights"):
        run(root, evaluations={"fgsm": {"levels": [1.0]}})


def complete(here):
    with mock.patch.object(driver, "_trial_id", return_value=TRIAL):
        Driver.on_trial_complete(here, 0, [], None)


@pytest.mark.parametrize("asked", [False, True])
def test_a_trained_trial_that_is_not_seen_yet_is_scored_as_what_it_is(
    here, reports, monkeypatch, asked
):
    """Its folder is listed as it was before, as NFS may do for a while."""
    run(here._root)
    before = storage.read_file(here._root, places.final(TRIAL))
    here._stop.asked, here.account.paused = asked, lambda name: False
    with monkeypatch.context() as patch:
        patch.setattr(handover, "handed_over", lambda root, trial: False)
        complete(here)
    assert storage.read_file(here._root, places.final(TRIAL)) == before
    if asked:
        here._board.change.assert_called_once_with(TRIAL, "waiting")
    else:
        here._pool.submit.assert_called_once_with(TRIAL)
    handover.finish(here._root, TRIAL)
    assert read_row(here._root, "trials", TRIAL)["status"] == "done"


def test_a_trial_that_goes_on_after_a_kill_in_its_last_epoch_may_still_be_stopped(
    tmp_path, reports, monkeypatch
):
    """Its history said that it diverged, but its checkpoint was not written any more."""
    root = str(tmp_path)
    write = trial.write_history

    def killed(root, name, history):
        if len(history["epochs"]) < 2:
            write(root, name, history)
            return
        history["summary"]["status"] = "diverged"
        write(root, name, history)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial, "write_history", killed)
        with pytest.raises(KeyboardInterrupt):
            run(root)

    def stopped(result):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial.tune, "report", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(root)
    handover.leave_stopped(root, TRIAL, 1)
    handover.finish(root, TRIAL)
    assert read_row(root, "trials", TRIAL)["status"] == "stopped"


@pytest.mark.parametrize("looks", [1, 3, 99])
def test_a_row_that_is_not_seen_yet_is_waited_for(here, monkeypatch, looks):
    """NFS remembers for a while that there was no such file."""
    end(here._root, "done")
    seen = []

    def read(root, table, name):
        seen.append(name)
        return read_row(root, table, name) if len(seen) >= looks else {}

    clock = mock.Mock(monotonic=lambda: 10.0 * len(seen))
    monkeypatch.setattr(driver, "time", clock)
    monkeypatch.setattr(driver, "read_row", read)
    here._pool.collect = lambda timeout: iter([(TRIAL, None)])
    Driver._collect(here)
    if looks < 99:
        here._board.change.assert_called_once_with(TRIAL, "done")
        here._study.tell.assert_called_once()
        return
    (change,) = here._board.change.call_args_list
    assert change.args[:2] == (TRIAL, "failed")
    assert f"{here._root}/results/trials/{TRIAL}.parquet: not there" in change.args[2]
    assert read_row(here._root, "trials", TRIAL)["status"] == "done"  # for the next run
