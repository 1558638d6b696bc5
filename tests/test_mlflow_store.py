"""MLflow's data stays with its folder: moved, copied, of any name, deleted in part, or damaged."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock
from urllib.parse import unquote

import pytest
from made_up import made_up_trial
from made_up_evaluations import EVALUATIONS
from small_sweeps import add_database

from scoring import places
from scoring.places import redact
from scoring.tables import read_rows, read_table, write_table
from tune_jobs import mlflow_store
from tune_jobs.commands import folder as commands
from tune_jobs.commands import serving
from tune_jobs.mlflow_store import adopt, find_parent, is_there, open_client, tracking_uri
from tune_jobs.tracking import METRICS, ROBUSTNESS, TRIAL_TAG, Tracker, is_behind

pytestmark = pytest.mark.ray  # for the warnings that MLflow causes

NAMES = [
    "plain",
    "a?b",
    "a#b",
    "a%20b",
    "a b",
    "it's",
    'say "x"',
    "two\nlines",
    "ü ✓",
    "a\\b",
    "50%",
]
NAMES += ["[bold]", "a&b=c;d", "a:b@c", "file:x", "%3F?"]
TRIAL = "0123456789ab"
MOMENT = datetime(2026, 6, 1, tzinfo=UTC)


def track(root, said=None) -> Tracker:
    said = [] if said is None else said
    tracker = Tracker(str(root), "tiny", "", said.append)
    tracker.start(TRIAL, {"gamma": 0.1}, "label")
    tracker.fail(TRIAL, "an error")
    tracker.close("FAILED")
    return tracker


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A folder with one trial in MLflow."""
    root = tmp_path_factory.mktemp("logged") / "first"
    root.mkdir()
    said = []
    track(root, said)
    assert said == []
    return root


@pytest.fixture
def content(logged):
    """What is in the folder and what MLflow says of it, to see that nothing changes there."""

    def look():
        return {path: path.read_bytes() for path in logged.rglob("*") if path.is_file()}

    before = look()
    yield
    assert look() == before


def runs(root):
    client = open_client(str(root))
    experiment = client.get_experiment_by_name("tiny")
    return client, experiment, client.search_runs([experiment.experiment_id])


@pytest.mark.parametrize("name", NAMES)
def test_a_copied_folder_goes_on_on_its_own_whatever_its_name(tmp_path, logged, content, name):
    root = tmp_path / name
    shutil.copytree(logged, root)
    said = []
    track(root, said)
    assert said == []
    client, experiment, found = runs(root)
    assert len(found) == 2  # the sweep's and the trial's, each once
    assert find_parent(client, experiment.experiment_id, str(root)).info.lifecycle_stage == "active"
    for run in found:
        assert run.info.artifact_uri.startswith((root / places.ARTIFACTS).as_uri() + "/")
    assert len(list(root.rglob("error.txt"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert is_there(tracking_uri(str(root)))


def test_a_moved_folder_does_not_come_back(tmp_path, logged):
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(logged, old)
    track(old)
    old.rename(new)
    track(new)
    assert not old.exists()
    assert len(runs(new)[2]) == 2


def state(root):
    """The runs of a folder's database, and where each keeps its files."""
    found = sorted(runs(root)[2], key=lambda run: run.info.start_time)
    return [(run.info.run_id, run.info.artifact_uri, run.data.tags) for run in found]


def test_a_folder_that_moves_twice_and_comes_back_has_each_run_once(tmp_path, logged, content):
    place = tmp_path / "a?"
    shutil.copytree(logged, place)
    for name in ("b %41", "c#", "a?"):
        place = place.rename(tmp_path / name)
        track(place)
        assert len(runs(place)[2]) == 2
        assert {path.name for path in tmp_path.iterdir()} == {name}
    assert len(list(place.rglob("error.txt"))) == 1


def test_a_folder_and_its_copy_both_go_on_and_neither_writes_into_the_other(tmp_path, logged):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(logged, first)
    track(first)
    shutil.copytree(first, second)

    def files(root):
        return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    for one, other in ((second, first), (first, second), (second, first)):
        before = files(other)
        track(one)
        assert files(other) == before
        assert len(state(one)) == 2
        for _, uri, tags in state(one):
            assert uri.startswith((one / places.ARTIFACTS).as_uri() + "/")
            assert tags.get("geosweep.sweep", str(one)) == str(one)
    assert [run[0] for run in state(first)] == [run[0] for run in state(second)]  # copied, not new


@pytest.mark.parametrize("how", ["moved", "copied", "moved twice", "copied and moved"])
def test_what_mlflow_has_in_full_is_not_logged_again_in_another_place(tmp_path, logged, how):
    root = tmp_path / "sweep"
    shutil.copytree(logged, root)
    trial = made_up_trial(root, epochs=2)
    timed = [r | {"finished_at": MOMENT} for r in read_rows(str(root), "epochs", trial)]
    write_table(str(root), "epochs", trial, timed)
    (row,) = read_table(str(root), "trials").to_pylist()
    rows, names = {row["trial"]: row}, {row["trial"]: "label"}

    def sync(place):
        tracker = Tracker(str(place), "tiny", "", said.append)
        done = tracker.sync(rows, names)
        tracker.close("FINISHED")
        return done

    said = []
    assert sync(root) == [row["trial"]]
    assert not is_behind(str(root), rows)
    for step, way in enumerate(how.replace("moved twice", "moved and moved").split(" and ")):
        new = tmp_path / f"place {step}%?"
        root = root.rename(new) if way == "moved" else Path(shutil.copytree(root, new))
        assert not is_behind(str(root), rows)
        assert sync(root) == []
        assert len(runs(root)[2]) == 3
    assert said == []


@pytest.mark.parametrize("validation", [0.0, 0.1])
@pytest.mark.parametrize("tried", [(), ("noise",), ("curve",), tuple(EVALUATIONS)])
def test_mlflow_gets_at_most_sixteen_keys_whatever_was_measured(
    tmp_path, logged, tried, validation
):
    root = tmp_path / "sweep"
    shutil.copytree(logged, root)
    split = {"validation": validation, "validation_accuracy": 0.5} if validation else {}
    trial = made_up_trial(root, epochs=2, tried=tried, **split)
    known = {name: 0.5 for name in METRICS if split or name != "validation_accuracy"}
    epochs = read_rows(str(root), "epochs", trial)
    write_table(str(root), "epochs", trial, [r | known | {"finished_at": MOMENT} for r in epochs])
    (row,) = read_table(str(root), "trials").to_pylist()
    said = []
    assert Tracker(str(root), "tiny", "", said.append).sync({trial: row}, {trial: "x"}) == [trial]
    assert said == []
    (data,) = [run.data for run in runs(root)[2] if run.data.tags.get(TRIAL_TAG) == trial]
    assert len(data.metrics) <= 16
    measured = [f"{name}_auc" for name in tried if f"{name}_auc" in ROBUSTNESS]
    assert data.metrics.keys() == {*known, *measured}
    for name in ("curve_length_ratio", "curve_speed_variation"):
        for tag in (name, f"{name}_initial"):
            assert (f"geosweep.{tag}" in data.tags) == ("curve" in tried)


@pytest.mark.parametrize("deleted", ["experiment", "parent", "trial"])
def test_what_a_user_deletes_in_mlflow_is_there_again_after_the_next_run(tmp_path, logged, deleted):
    root = tmp_path / "sweep"
    shutil.copytree(logged, root)
    client, experiment, found = runs(root)
    parent = find_parent(client, experiment.experiment_id, str(root)).info.run_id
    (child,) = [run.info.run_id for run in found if run.info.run_id != parent]
    if deleted == "experiment":
        client.delete_experiment(experiment.experiment_id)
    else:
        client.delete_run(parent if deleted == "parent" else child)
    said = []
    track(root, said)
    assert len(runs(root)[2]) == 2
    told = [f"the {'run' if deleted == 'parent' else 'experiment'}" in line for line in said]
    assert told == ([] if deleted == "trial" else [True])


@pytest.mark.parametrize("damage", ["text", "cut", "empty", "folder"])
def test_a_damaged_database_is_set_aside(tmp_path, logged, damage):
    root = tmp_path / "sweep"
    shutil.copytree(logged, root)
    database = root / places.MLFLOW
    whole = database.read_bytes()
    database.unlink()
    if damage == "folder":
        database.mkdir()
    else:
        database.write_bytes({"text": b"not a database", "cut": whole[:50], "empty": b""}[damage])
    adopt(str(root))
    assert database.exists() == (damage == "empty")  # an empty file is a database without tables
    assert (root / places.ASIDE / places.MLFLOW).exists() == (damage != "empty")


def test_an_experiment_may_have_the_name_of_any_sweep(tmp_path):
    add_database(str(tmp_path))
    for name in ("-x", "a\nb \x1b[31m `x` %41?", " ", "n" * 200):
        for _ in range(2):  # it is found again
            said = []
            tracker = Tracker(str(tmp_path), name, "", said.append)
            tracker.close("FINISHED")
            assert said == []
        client = open_client(str(tmp_path))
        experiment = client.get_experiment_by_name(name)
        assert len(client.search_runs([experiment.experiment_id])) == 1


@pytest.mark.parametrize("step", [1, 20, 60])
def test_a_database_that_was_left_half_made_is_set_aside_and_made_again(tmp_path, step):
    """As a kill leaves it: MLflow makes its tables one by one, then the first experiment."""
    root = tmp_path / "sweep"
    root.mkdir()
    add_database(str(root))
    path = root / places.MLFLOW
    with closing(sqlite3.connect(path)) as whole:
        made = [line for line in whole.iterdump() if line.startswith("CREATE TABLE")]
    path.unlink()
    with closing(sqlite3.connect(path)) as half, half:
        for line in made[:step]:
            half.execute(line)
    said = []
    assert not adopt(str(root), said.append)
    assert said == [
        f"{path}: torn: it was left half made; it is in set-aside/mlflow.db now, and MLflow gets "
        "everything again"
    ]
    assert not path.exists()
    assert (root / places.ASIDE / places.MLFLOW).exists()


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk is full"), KeyboardInterrupt()])
def test_a_database_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch, error):
    root = tmp_path / "a?b %41"
    root.mkdir()
    (root / ".mlflow.db.of-a-killed-process").touch()
    (root / places.MLFLOW).touch()  # empty, as SQLite makes it first

    def fill(address):
        path = Path(unquote(address.removeprefix("sqlite:///")))
        assert path.parent == root
        for name in (path.name, f"{path.name}-journal"):
            path.with_name(name).touch()
        raise error

    monkeypatch.setattr("mlflow.tracking.MlflowClient", fill)
    with pytest.raises(type(error)):
        open_client(str(root))
    assert [file.name for file in root.iterdir()] == [places.MLFLOW]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://host:5000/x"),
        ("API request to https://me:se@cret@host failed", "API request to https://host failed"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_passwords_are_left_out(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize("uri", ["http://me:secret@host:5000", "postgresql://me:secret@host/x"])
def test_the_server_gets_a_password_in_its_environment_alone(tmp_path, monkeypatch, capsys, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    process = mock.Mock(**{"poll.side_effect": [None, None, 0], "pid": 2**22 + 1})
    monkeypatch.setattr(subprocess, "Popen", started := mock.Mock(return_value=process))
    monkeypatch.setattr(serving, "answers", lambda *_: True)
    with mlflow_store.server(str(tmp_path)) as (environment, place):
        commands._serve(str(tmp_path), None, "127.0.0.1", 5000, environment, place)
    (command,) = started.call_args.args
    assert "secret" not in " ".join(command)
    assert started.call_args.kwargs["env"]["MLFLOW_BACKEND_STORE_URI"] == uri
    assert started.call_args.kwargs["cwd"] is None
    assert "secret" not in capsys.readouterr().out


SERVED = """
import os, sys
from mlflow.server import handlers
for place in sys.stdin.read().split("\\0"):
    if not os.fork():  # a server for each of them, without importing MLflow again
        os.chdir(place)
        store = handlers._get_tracking_store(sys.argv[1])
        print([experiment.name for experiment in store.search_experiments()])
        sys.exit()
    os.wait()
"""


@pytest.mark.long
def test_the_server_opens_the_database_and_makes_no_folder_beside_it(tmp_path, logged):
    names = ["a?b", "%41", "50%/?x", "two\nlines", "a#b", "[a]*{}'\""]
    roots = [tmp_path / f"{number}/{name}" for number, name in enumerate(names)]
    for root in roots:
        shutil.copytree(logged, root)
    before = sorted(tmp_path.rglob("*"))
    with ExitStack() as servers:
        opened = [servers.enter_context(mlflow_store.server(str(root))) for root in roots]
        folders = [Path(place) for _, place in opened]
        (uri,) = {environment["MLFLOW_BACKEND_STORE_URI"] for environment, _ in opened}
        done = subprocess.run(
            [sys.executable, "-c", SERVED, uri],
            input="\0".join(map(str, folders)),
            capture_output=True,
            text=True,
        )
        served = done.stdout.splitlines()
        assert len(served) == len(names), done.stderr
        assert all("tiny" in line for line in served)
        for place in folders:
            assert [path.name for path in place.iterdir()] == ["sweep"]
    assert sorted(tmp_path.rglob("*")) == before
    assert not any(place.exists() for place in folders)
