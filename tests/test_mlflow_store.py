"""MLflow's data stays with its folder: moved, copied, of any name, deleted in part, or damaged."""

import shutil

import pytest

from scoring import places
from tune_jobs.mlflow_store import adopt, find_parent, is_there, open_client, redact, tracking_uri
from tune_jobs.tracking import Tracker

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
