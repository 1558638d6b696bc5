"""What MLflow shows of a trial that is evaluated, stopped or trained again, and after outages."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from made_up import made_up_trial
from mlflow.tracking import MlflowClient
from small_sweeps import add_database

from scoring import places
from scoring.tables import read_rows, read_table, write_table
from tune_jobs import mlflow_report, mlflow_store, tracking
from tune_jobs.mlflow_report import log_report
from tune_jobs.mlflow_store import ID_TAG, SWEEP_TAG, open_client, read_note
from tune_jobs.tracking import ERROR, TRIAL_TAG, Tracker

pytestmark = pytest.mark.ray  # for the warnings that MLflow causes

MOMENT = datetime(2026, 6, 1, tzinfo=UTC)
TRIAL = "0123456789ab"


@pytest.fixture
def root(tmp_path):
    add_database(str(tmp_path / "out"))
    return tmp_path / "out"


@pytest.fixture
def said():
    """What a tracker complains about: nothing, unless the test takes it away."""
    lines = []
    yield lines
    assert lines == []


def trained(root: Path, **change) -> dict:
    """The row of a made-up trial whose tables are in a folder, with plausible times."""
    trial = made_up_trial(root, epochs=2, **change)
    rows = read_rows(str(root), "epochs", trial)
    timed = [r | {"finished_at": MOMENT + timedelta(seconds=r["epoch"])} for r in rows]
    write_table(str(root), "epochs", trial, timed)
    rows = read_table(str(root), "trials").to_pylist()
    (row,) = [row for row in rows if row["trial"] == trial]
    return row | {"trained_at": MOMENT, "scored_at": MOMENT + timedelta(minutes=1)}


def run_of(root: Path, trial: str):
    client = open_client(str(root))
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    query = f"tags.`{TRIAL_TAG}` = '{trial}'"
    (run,) = client.search_runs([experiment.experiment_id], query)
    return client, run


def test_a_later_evaluation_replaces_a_higher_value(root, said):
    row = trained(root, tried=("noise",)) | {"noise_auc": 0.8}
    for minute, value in enumerate((0.8, 0.3, 0.5)):
        tracker = Tracker(str(root), "tiny", "", said.append)
        scored = row | {"noise_auc": value, "scored_at": MOMENT + timedelta(minutes=minute)}
        for _ in range(2):  # logged twice is logged once
            tracker._noted.clear()
            tracker.sync({row["trial"]: scored}, {row["trial"]: "x"})
        client, run = run_of(root, row["trial"])
        assert run.data.metrics["noise_auc"] == value
        assert len(client.get_metric_history(run.info.run_id, "noise_auc")) == minute + 1


def test_a_number_that_was_not_measured_again_is_shown_no_more(root, said):
    row = trained(root, tried=("noise",))
    trial = row["trial"]
    values = ({"noise_auc": 0.8, "fgsm_auc": 0.7}, {"noise_auc": 0.6}, {"fgsm_auc": 0.5})
    for minute, measured in enumerate(values):
        tracker = Tracker(str(root), "tiny", "", said.append)
        scored = row | {"noise_auc": None, "fgsm_auc": None} | measured
        scored |= {"scored_at": MOMENT + timedelta(minutes=minute)}
        for _ in range(2):  # logged twice is logged once
            tracker._noted.clear()
            tracker.sync({trial: scored}, {trial: "x"})
        client, run = run_of(root, trial)
        shown = {n: run.data.metrics[n] for n in ("noise_auc", "fgsm_auc")}
        assert {n: value for n, value in shown.items() if value == value} == measured
        assert "lesion_auc" not in run.data.metrics  # never measured
        assert len(client.get_metric_history(run.info.run_id, "fgsm_auc")) == minute + 1


def test_what_an_earlier_attempt_left_is_gone(root, said):
    row = trained(root)
    trial = row["trial"]
    tracker = Tracker(str(root), "tiny", "", said.append)
    tracker.start(trial, {"gamma": 0.1}, "label")
    tracker.finish(trial, row | {"status": "stopped", "collapsed": True, "nc1": 0.5})
    _, run = run_of(root, trial)
    stopped = run.data.tags
    assert {"geosweep.collapsed", "geosweep.nc1", "geosweep.scored_at"} < stopped.keys()
    tracker.start(trial, {"gamma": 0.1}, "label")
    tracker.fail(trial, "an error\nin two lines")
    client, run = run_of(root, trial)
    own = {name for name in run.data.tags if name.startswith("geosweep.")}
    assert own == {"geosweep.trial", "geosweep.status", "geosweep.error"}
    assert ERROR in [file.path for file in client.list_artifacts(run.info.run_id)]
    tracker.start(trial, {"gamma": 0.1}, "label")
    tracker.finish(trial, row | {"nc1": None})
    client, run = run_of(root, trial)
    assert run.data.tags["geosweep.status"] == "done"
    assert not {"geosweep.error", "geosweep.collapsed", "geosweep.nc1"} & run.data.tags.keys()
    assert run.data.tags[TRIAL_TAG] == trial
    files = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert places.RESULTS in files
    assert ERROR not in files


def test_tags_of_a_user_stay_whatever_they_are_called(root, said):
    row = trained(root)
    trial = row["trial"]
    tracker = Tracker(str(root), "tiny", "", said.append)
    tracker.start(trial, {"gamma": 0.1}, "label")
    own = {"geosweep.comment": "look here", "geosweep.nc1.note": "x", "mine": "y"}
    client, run = run_of(root, trial)
    for name, text in own.items():
        client.set_tag(run.info.run_id, name, text)
    tracker.fail(trial, "an error")
    tracker.start(trial, {"gamma": 0.1}, "label")
    tracker.finish(trial, row)
    assert own.items() < run_of(root, trial)[1].data.tags.items()


def test_a_trial_that_starts_again_from_the_beginning_shows_its_new_curve(root, said):
    def record(epoch, loss, minute):
        at = MOMENT + timedelta(minutes=minute, seconds=epoch)
        return {"epoch": epoch, "test_loss": loss, "finished_at": at.isoformat()}

    for attempt in range(2):
        tracker = Tracker(str(root), "tiny", "", said.append)
        tracker.start(TRIAL, {}, "label")
        for _ in range(2):  # reported twice is logged once
            for epoch in range(3):
                tracker.epoch(TRIAL, record(epoch, 3.0 - epoch - attempt, attempt))
    client, run = run_of(root, TRIAL)
    history = client.get_metric_history(run.info.run_id, "test_loss")
    assert len(history) == 6
    latest = {m.step: m.value for m in sorted(history, key=lambda m: (m.step, m.timestamp))}
    assert latest == {0: 2.0, 1: 1.0, 2: 0.0}
    assert run.data.metrics["test_loss"] == 0.0


@pytest.mark.parametrize("then", ["epoch", "finish", "fail"])
def test_a_running_trial_is_in_mlflow_again_after_an_outage(root, monkeypatch, then):
    monkeypatch.setattr(tracking, "PAUSE", 0.0)
    row, lines = trained(root), []
    trial = row["trial"]
    tracker = Tracker(str(root), "tiny", "", lines.append)
    tracker.start(trial, {"gamma": 0.1}, "label")
    real = tracker._client.log_batch
    monkeypatch.setattr(tracker._client, "log_batch", None)  # calling it fails
    epochs = read_rows(str(root), "epochs", trial)
    tracker.epoch(trial, epochs[0])
    assert len(lines) == 1
    assert lines[0].startswith("MLflow: 'NoneType' object is not callable; the sweep goes on")
    monkeypatch.setattr(tracker._client, "log_batch", real)
    if then == "epoch":
        tracker.epoch(trial, epochs[1])
    elif then == "finish":
        tracker.finish(trial, row)
    else:
        tracker.fail(trial, "an error")
    _, run = run_of(root, trial)
    status = {"epoch": "RUNNING", "finish": "FINISHED", "fail": "FAILED"}
    assert run.info.status == status[then]
    if then == "epoch":
        assert run.data.metrics["test_loss"] == epochs[1]["test_loss"]
    tracker.close("KILLED")
    _, run = run_of(root, trial)
    assert run.info.status == (status | {"epoch": "KILLED"})[then]


def parents(root: Path) -> dict[str, str]:
    client = open_client(str(root))
    experiment = client.get_experiment_by_name("tiny").experiment_id
    found = client.search_runs([experiment], f"tags.`{SWEEP_TAG}` LIKE '%'")
    return {run.info.run_id: run.data.tags.get(ID_TAG, "") for run in found}


def test_folders_of_two_machines_with_the_same_path_are_two_runs_on_a_server(
    root, said, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / places.MLFLOW}")
    path = tmp_path / "sweep"

    def log():
        path.mkdir(exist_ok=True)
        tracker = Tracker(str(path), "tiny", "", said.append)
        tracker.close("FINISHED")
        return tracker._parent

    first = log()
    path.rename(tmp_path / "of another machine")
    second = log()
    assert first != second
    assert log() == second
    path.rename(tmp_path / "of this machine")
    (tmp_path / "of another machine").rename(path)
    assert log() == first
    assert len({*parents(path).values()}) == len(parents(path)) == 2


def test_a_folder_that_an_earlier_version_logged_goes_on_in_its_run(
    root, said, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / places.MLFLOW}")
    client = open_client(str(root))
    experiment = client.create_experiment("tiny")
    old = client.create_run(experiment, tags={SWEEP_TAG: str(tmp_path)})
    assert Tracker(str(tmp_path), "tiny", "", said.append)._parent == old.info.run_id
    assert Tracker(str(tmp_path), "tiny", "", said.append)._parent == old.info.run_id
    assert [*parents(root)] == [old.info.run_id]


@pytest.fixture
def shared(root, tmp_path, monkeypatch):
    """The path of a sweep's folder that logs to a server."""
    monkeypatch.setattr(tracking, "PAUSE", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / places.MLFLOW}")
    path = tmp_path / "sweep"
    path.mkdir()
    return path


def failing(real, number: int, arrived: bool):
    """A method of MLflow's client of which one call fails, before or after it did its work."""
    left = iter(range(number, -1000, -1))

    def call(*given, **named):
        fails = next(left) == 0
        if fails and not arrived:
            raise TimeoutError("read timed out")
        done = real(*given, **named)
        if fails:
            raise TimeoutError("read timed out")
        return done

    return call


@pytest.mark.parametrize("name", ["search_runs", "set_tag", "create_run", "update_run"])
@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_beginning_that_fails_at_any_call_leaves_one_run_with_the_id_of_the_note(
    shared, monkeypatch, name, arrived, earlier
):
    """In the first place the note is missing, or that of a version which knew no ids."""
    path, lines, scored = str(shared), [], {}
    if earlier:
        tracker = Tracker(path, "tiny", "", lines.append)
        client, old, scored = tracker._client, tracker._parent, {TRIAL: "x"}
        client.delete_tag(old, ID_TAG)
        tags = {TRIAL_TAG: TRIAL, "mlflow.parentRunId": old, "geosweep.scored_at": "x"}
        trial = client.create_run(tracker._experiment, tags=tags).info.run_id
        client.set_terminated(trial)
        note = read_note(path) | {"scored_at": scored}
        del note["id"]
        (shared / places.MLFLOW_NOTE).write_text(json.dumps(note))
    for number in range(4):  # the call that fails; the driver tries again, or the next one does
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, name, failing(getattr(MlflowClient, name), number, arrived))
            tracker = Tracker(path, "tiny", "", lines.append)
            assert tracking.noted(path) == scored
        if number % 2:
            tracker._safely(lambda: None)
        else:
            tracker = Tracker(path, "tiny", "", lines.append)
        assert tracker._begun
        assert parents(shared) == {tracker._parent: read_note(path)["id"]}
        assert not earlier or tracker._parent == old
        assert tracking.noted(path) == scored


def test_a_note_that_an_earlier_version_wrote_again_has_the_same_run(shared, said):
    """It leaves out the id, which the run has."""
    first = Tracker(str(shared), "tiny", "", said.append)
    file = shared / places.MLFLOW_NOTE
    note = json.loads(file.read_text())
    known = note.pop("id")
    file.write_text(json.dumps(note))
    second = Tracker(str(shared), "tiny", "", said.append)
    assert (second._parent, second._id) == (first._parent, known)
    assert parents(shared) == {first._parent: known}
    file.write_text(json.dumps(note | {"uri": "http://another:5000"}))
    assert Tracker(str(shared), "tiny", "", said.append)._parent != first._parent


def test_a_driver_whose_note_is_lost_goes_on_in_its_run(shared, monkeypatch):
    lines = []
    tracker = Tracker(str(shared), "tiny", "", lines.append)
    parent = tracker._parent
    (shared / places.MLFLOW_NOTE).unlink()
    tracker._safely(lambda: 1 / 0)
    tracker._safely(lambda: None)
    assert tracker._parent == parent
    assert parents(shared) == {parent: read_note(str(shared))["id"]}


ADDRESSES = ["http://me:{}@host:5000/api", "postgresql://me:{}@host/x"]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("before", [0, 150, 190, 350, 390])
def test_no_part_of_a_password_is_in_a_warning_however_long_the_error(
    root, monkeypatch, address, before
):
    def fail(*_):
        raise ConnectionError(text)

    text = "x" * before + " " + address.format("secret" * 10) + " refused" + " y" * 150
    monkeypatch.setattr(tracking, "open_client", fail)
    monkeypatch.setattr(mlflow_report, "open_client", fail)
    lines = []
    Tracker(str(root), "tiny", "", lines.append)
    lines.append(log_report(str(root), "tiny", str(root)))
    assert len(lines) == 2
    assert not any("secr" in line or "cret" in line for line in lines)
    assert all(len(line) < 600 for line in lines)


@pytest.mark.parametrize(
    ("error", "said"),
    [(TimeoutError(), "TimeoutError"), (OSError(" \n"), "OSError"), (KeyError("a\nb"), r"'a\nb'")],
)
def test_an_error_is_told_in_one_line(error, said):
    assert mlflow_store.told(error) == said
