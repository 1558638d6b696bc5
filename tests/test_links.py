"""Links in a sweep's folder: none is written through, and one that leads out is refused by name."""

import os
from pathlib import Path

import pytest
from made_up import made_up_trial
from small_sweeps import geosweep

from analysis import figures, report
from models.config import TrialConfig
from scoring import places, storage
from scoring.storage import StoreError
from tune_jobs import folder, lease
from tune_jobs.sweep import Resources, Sweep

FILES = [
    places.HOLDER,
    places.LOCK,
    places.SWEEP,
    places.PROGRESS,
    places.PAGE,
    places.MLFLOW,
    places.MLFLOW_NOTE,
    places.merged("trials", "0123456789ab"),
    f"{places.REPORT}/trials.csv",
]
FOLDERS = [
    places.REPORT,
    places.RESULTS,
    places.table_folder("trials"),
    places.CHECKPOINTS,
    places.PENDING,
    places.ERRORS,
    places.ASIDE,
    places.ARTIFACTS,
]


def sweep(root: Path) -> Path:
    """A folder with a made-up trial and the description of its sweep."""
    made_up_trial(root, epochs=2)
    folder.claim(str(root), Sweep("demo", "", [TrialConfig()], Resources(), "demo"))
    return root


def replace(path: Path, goal: Path) -> None:
    """Put a link in place of a file or folder, which moves to the link's goal if that can be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and goal.parent.exists():
        path.rename(goal)
    elif path.exists():
        path.rename(path.with_name("moved"))
    path.symlink_to(goal)


def content(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture
def outside(tmp_path):
    """A folder beside the sweep's, in which nothing may change."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    return place


def commands(root: Path) -> list[list[str]]:
    """Every command that writes into a sweep's folder."""
    path = str(root)
    return [
        ["run", "demo", "--out", path, "--set", "epochs=1"],
        ["evaluate", path, "noise"],
        ["sync", path],
        ["report", path],
        ["ui", path],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["there", "dangling"])
@pytest.mark.parametrize("member", [*FILES, *FOLDERS])
def test_a_link_out_of_the_folder_is_refused_and_what_it_leads_to_stays(
    tmp_path, outside, member, kind
):
    root = sweep(tmp_path / "demo")
    goal = outside / ("goal" if kind == "there" else "no/such/place")
    replace(root / member, goal)
    if kind == "there" and not goal.exists():
        goal.mkdir() if member in FOLDERS else goal.write_text("the user's own")
    before = content(outside)
    for words in commands(root):
        code, said = geosweep(*words)
        if words[0] in ("evaluate", "sync") and "no sweep here" in said:
            continue  # they need sweep.json first, which is the link that leads nowhere
        assert code == 2, said
        assert len(said.splitlines()) == 1
        assert f"{root / member}: is a link that leads out of the folder, to {outside}" in said
    assert content(outside) == before
    assert (root / member).is_symlink()


@pytest.mark.parametrize("member", [places.REPORT, places.PAGE, f"{places.REPORT}/trials.csv"])
def test_scripts_that_write_into_the_folder_refuse_it_too(tmp_path, outside, capsys, member):
    root = sweep(tmp_path / "demo")
    replace(root / member, outside / "goal")
    before = content(outside)
    assert report.main([str(root)]) == 2
    assert str(root / member) in capsys.readouterr().err
    (root / "figures").symlink_to(outside)
    assert figures.main([str(root)]) == 2
    assert str(root / "figures") in capsys.readouterr().err
    assert content(outside) == before


@pytest.mark.parametrize("member", [places.HOLDER, places.PROGRESS, places.PAGE, places.SWEEP])
def test_a_file_that_is_a_link_within_the_folder_is_replaced_not_its_goal(tmp_path, member):
    root = sweep(tmp_path / "demo")
    (root / "notes.txt").write_text("mine")
    (root / member).unlink(missing_ok=True)
    replace(root / member, root / "notes.txt")
    storage.refuse_links(str(root))
    storage.write_file(str(root), member, b"new")
    assert (root / "notes.txt").read_text() == "mine"
    assert not (root / member).is_symlink()
    assert (root / member).read_bytes() == b"new"


def test_the_holders_note_is_not_written_through_a_link(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / places.HOLDER).symlink_to(tmp_path / "notes.txt")
    with lease.hold(str(tmp_path)):
        assert "process" in (tmp_path / places.HOLDER).read_text()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not os.path.lexists(tmp_path / places.HOLDER)


def test_the_folder_itself_may_be_a_link(tmp_path):
    sweep(tmp_path / "real")
    (tmp_path / "demo").symlink_to("real")
    (tmp_path / "real/results/again").symlink_to("trials")
    storage.refuse_links(str(tmp_path / "demo"))
    with lease.hold(str(tmp_path / "demo")):
        pass
    (tmp_path / "real/up").symlink_to("..")
    with pytest.raises(StoreError, match="up: is a link"):
        storage.refuse_links(str(tmp_path / "demo"))


def test_status_of_a_folder_whose_lock_is_a_link_changes_nothing(tmp_path, outside):
    root = sweep(tmp_path / "demo")
    (root / places.LOCK).symlink_to(outside / "mine.txt")
    code, said = geosweep("status", str(root))
    assert code == 0, said
    assert (outside / "mine.txt").read_text() == "mine"
