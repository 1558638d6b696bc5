"""Files of a sweep's folder on a disk and in an object store, and who holds the folder."""

import json
import os
import subprocess
import sys
import threading
import time

import pyarrow.fs as pafs
import pytest

from analysis.results import load
from scoring import places, storage, trial_files
from scoring.tables import MANY, read_table, write_table
from tune_jobs import cli, folder, lease
from tune_jobs.cluster import reach
from tune_jobs.errors import SweepError
from tune_jobs.mlflow_store import tracking_uri

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the store's server


@pytest.fixture
def s3(object_store, tmp_path):
    """A sweep's folder in an object store."""
    return f"{object_store}/{tmp_path.name}/out"


@pytest.fixture(params=["path", "file", "s3"])
def root(request, tmp_path):
    """A sweep's folder, wherever."""
    if request.param == "s3":
        return request.getfixturevalue("s3")
    return str(tmp_path / "out") if request.param == "path" else (tmp_path / "out").as_uri()


def everything(root):
    fs, base = storage.open_folder(root)
    found = fs.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True))
    files = (info for info in found if info.type == pafs.FileType.File)
    return sorted(info.path.removeprefix(f"{base}/") for info in files)


def test_files_are_written_read_listed_moved_and_deleted(root):
    for name in ("b", "a", "empty"):
        storage.write_file(root, f"pending/{name}", name.encode() if name != "empty" else b"")
    assert storage.list_files(root, "pending") == ["a", "b", "empty"]
    assert storage.read_file(root, "pending/a") == b"a"
    assert storage.read_file(root, "pending/empty") == b""
    with pytest.raises(storage.Damaged, match="pending: torn: a folder is in its place"):
        storage.read_file(root, "pending")
    assert storage.set_aside(root, "pending/b") == "set-aside/pending-b"
    storage.delete(root, "pending/a")
    storage.delete(root, "pending/a")
    assert storage.read_file(root, "pending/a") is None
    storage.delete(root, "pending")
    storage.delete(root, "pending")
    assert storage.list_files(root, "pending") == []
    assert storage.list_files(root, "never made") == []
    assert everything(root) == ["set-aside/pending-b"]


def test_a_folder_is_moved_out_of_the_way_as_a_file_is(root):
    storage.write_file(root, "sweep.json/a/b", b"1")
    storage.write_file(root, "sweep.json/c", b"2")
    assert storage.set_aside(root, "sweep.json") == "set-aside/sweep.json"
    assert everything(root) == ["set-aside/sweep.json/a/b", "set-aside/sweep.json/c"]


def test_what_is_set_aside_is_moved_although_the_store_does_not_answer_at_once(
    s3, monkeypatch, tmp_path
):
    """It does not say that the copy was made, then not that the object was deleted."""
    storage.write_file(s3, "a", b"1")
    whole, calls = storage._move, []

    def lost(fs, source, goal):
        calls.append(source)
        if len(calls) == 1:
            fs.copy_file(source, goal)
        else:
            whole(fs, source, goal)
        if len(calls) < 3:
            raise OSError(f"AWS Error {storage.PASSING[0]}")

    monkeypatch.setattr(storage, "_move", lost)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert storage.set_aside(s3, "a") == "set-aside/a"
    assert len(calls) == 3
    assert everything(s3) == ["set-aside/a"]
    assert storage.read_file(s3, "set-aside/a") == b"1"


def test_a_file_in_the_place_of_a_folder_is_named_by_who_lists_or_writes(tmp_path):
    root = str(tmp_path / "out")
    for at in ("pending", "results/trials"):
        storage.write_file(root, at, b"")
        for must_exist in (False, True):
            if must_exist:
                storage.require(root)
            with pytest.raises(storage.Damaged, match=f"{root}/{at}: torn: a file is in its place"):
                storage.write_file(root, f"{at}/a/b", b"")
        with pytest.raises(storage.Damaged, match=f"{root}/{at}: torn: a file is in its place"):
            storage.list_files(root, at)
    storage.write_file(root, "x/y", b"")
    with pytest.raises(storage.Damaged, match=f"{root}/x: torn: a folder is in its place"):
        storage.write_file(root, "x", b"")
    assert everything(root) == ["pending", "results/trials", "x/y"]
    with pytest.raises(storage.StoreError, match=f"{root}/pending: is a file, not a folder"):
        storage.write_file(f"{root}/pending", "a", b"")


def test_a_file_in_the_place_of_the_folder_of_damaged_files_is_moved_into_it(tmp_path):
    root = str(tmp_path)
    for name in ("set-aside", "a"):
        storage.write_file(root, name, name.encode())
    assert storage.set_aside(root, "a") == "set-aside/a"
    assert everything(root) == ["set-aside/a", "set-aside/set-aside"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_is_written_appears_when_it_is_complete_and_a_failure_leaves_what_was_there(
    root, error
):
    storage.write_file(root, "notes/a", b"old")
    with pytest.raises(error), storage.writing(root, "notes/a") as stream:  # noqa: PT012
        stream.write(b"half of the new")
        assert storage.read_file(root, "notes/a") == b"old"
        raise error
    assert storage.read_file(root, "notes/a") == b"old"
    large = os.urandom(12_000_000)  # more than one part of an upload
    with storage.writing(root, "notes/a") as stream:
        stream.write(large[:7_000_000])
        stream.write(large[7_000_000:])
    assert storage.read_file(root, "notes/a") == large
    assert everything(root) == ["notes/a"]


def test_arrow_completes_an_upload_after_an_error_so_nothing_may_fail_between(s3):
    fs, base = storage.open_folder(s3)

    def write_half():
        with fs.open_output_stream(f"{base}/a") as stream:
            stream.write(b"torn")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        write_half()
    assert storage.read_file(s3, "a") == b"torn"  # else storage.writing could do with less


UPLOADING = """
import os, signal, sys
from scoring import storage

fs, base = storage.open_folder(sys.argv[1])
stream = fs.open_output_stream(base + "/a")
stream.write(b"new" * 5_000_000)
print("uploading", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_is_killed_while_uploading_leaves_what_was_there(s3):
    storage.write_file(s3, "a", b"old")
    done = subprocess.run([sys.executable, "-c", UPLOADING, s3], capture_output=True, text=True)
    assert done.stdout == "uploading\n", done.stderr
    assert everything(s3) == ["a"]
    assert storage.read_file(s3, "a") == b"old"


@pytest.mark.slow
def test_many_tables_in_an_object_store_are_kept_together_and_a_torn_one_is_found(
    s3, tmp_path, monkeypatch
):
    names = [f"{i:012x}" for i in range(MANY + 2)]
    for name in names:
        for place in (s3, str(tmp_path)):
            write_table(place, "epochs", name, [{"trial": name, "epoch": 1, "lss": 2.0}])
    monkeypatch.setattr(trial_files, "SETTLED", 3600)
    for _ in range(2):
        assert load(s3).epochs.equals(load(tmp_path).epochs)
    assert [path for path in everything(s3) if path.endswith(".merged")] == []  # too young to tell
    monkeypatch.setattr(trial_files, "SETTLED", -5)
    for _ in range(2):
        assert load(s3).epochs.equals(load(tmp_path).epochs)
    (kept,) = (path for path in everything(s3) if path.endswith(".merged"))
    assert kept.startswith("results/.epochs.")
    storage.write_file(s3, places.table_path("epochs", names[1]), b"PAR1 torn")
    storage.write_file(s3, "results/epochs/notes.parquet", b"mine")
    with pytest.raises(storage.StoreError, match=names[1]):
        read_table(s3, "epochs")
    assert len(folder.mend(s3)) == 2
    assert len(read_table(s3, "epochs")) == len(names) - 1


def test_a_store_that_does_not_answer_is_asked_again_and_then_named(monkeypatch, tmp_path):
    calls = []

    def away(what=f"AWS Error {storage.PASSING[0]}: nobody there\nand so on"):
        calls.append(what)
        if len(calls) < 3 or "DENIED" in what:
            raise OSError(what)
        return "answer"

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert storage._patiently("s3://b/x", away) == "answer"
    with pytest.raises(storage.StoreError, match=r"s3://b/x: cannot be reached: AWS Error DENIED"):
        storage._patiently("s3://b/x", away, "AWS Error DENIED")
    monkeypatch.setattr(storage, "PATIENCE", -1)
    calls.clear()
    with pytest.raises(storage.StoreError, match=r"nobody there$"):
        storage._patiently("s3://b/x", away)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nowhere://x/y", "nowhere://x/y: Unrecognized filesystem"),
        ("s3://no-such-bucket/x", "s3://no-such-bucket/x: cannot be reached"),
        ("s3://me:secret@no-such-bucket/x", "geosweep: s3://no-such-bucket/x: cannot be reached"),
    ],
)
def test_a_uri_that_cannot_be_opened_is_named_before_anything_starts(
    object_store, monkeypatch, capsys, uri, says
):
    monkeypatch.setattr(sys, "argv", ["geosweep", "run", "demo", "--out", uri])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert says in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["50%", "a?b=c#d", "%41", "-x", "it's", "a b", "a+b&c"])
@pytest.mark.parametrize("kind", ["path", "file", "s3"])
def test_a_sweep_of_any_name_has_a_folder_of_that_name_in_any_storage(
    monkeypatch, tmp_path, request, kind, name
):
    place = str(tmp_path) if kind == "path" else tmp_path.as_uri()
    if kind == "s3":
        place = f"{request.getfixturevalue('object_store')}/{tmp_path.name}"
    monkeypatch.setenv("GEOSWEEP_STORAGE", place)
    root = folder.path_of(name)
    storage.write_file(root, "a", b"1")
    assert storage.list_files(place, name) == ["a"]
    if kind != "file":  # which would be another folder on each node of a cluster
        assert reach.folder_there(None, None, name) == storage.subfolder(place, name)


def test_the_same_folder_is_the_same_sweep_by_its_path_and_by_its_uri(tmp_path):
    assert folder.absolute(tmp_path.as_uri()) == folder.absolute(str(tmp_path)) == str(tmp_path)


def test_mlflow_of_a_sweep_in_an_object_store_is_on_this_machine(s3, monkeypatch):
    assert tracking_uri(s3).startswith(f"sqlite:///{os.environ['GEOSWEEP_CACHE']}/mlflow/s3---")
    assert tracking_uri(s3) != tracking_uri(s3 + "x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri(s3) == "http://127.0.0.1:5000"


def claim(root, name, **about):
    storage.write_file(root, f"holders/{name}", json.dumps(lease._here() | about).encode())


def test_a_second_driver_is_told_who_holds_the_folder(s3):
    assert not lease.holder(s3)
    with lease.hold(s3):
        assert lease.holder(s3)
        with pytest.raises(SweepError, match=f"process {os.getpid()} on .* is running this"):
            lease.hold(s3).__enter__()
        assert len(storage.list_files(s3, "holders")) == 1
    assert not lease.holder(s3)
    with lease.hold(s3):
        pass
    assert everything(s3) == []


@pytest.mark.slow
def test_of_drivers_that_come_at_once_one_holds_the_folder_at_a_time(s3):
    holding, most, refused = [], [], []
    start = threading.Barrier(4)

    def drive(number):
        start.wait()
        try:
            with lease.hold(s3):
                holding.append(number)
                most.append(len(holding))
                time.sleep(0.3)
                holding.remove(number)
        except SweepError:
            refused.append(number)

    threads = [threading.Thread(target=drive, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(most) <= {1}
    assert len(most) + len(refused) == 4
    assert storage.list_files(s3, "holders") == []


def test_the_folder_of_a_driver_that_was_killed_is_free_at_once_on_its_machine(s3):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    claim(s3, "killed", pid=child.pid)
    with lease.hold(s3):
        assert "killed" not in storage.list_files(s3, "holders")


@pytest.mark.slow
def test_the_folder_of_a_driver_that_is_silent_elsewhere_is_free_after_a_while(s3, monkeypatch):
    claim(s3, "silent", machine="another", who="process 7 on elsewhere")
    with pytest.raises(SweepError, match="process 7 on elsewhere"):
        lease.hold(s3).__enter__()
    monkeypatch.setattr(lease, "DEAD", 0.5)
    time.sleep(1.1)  # the store's clock counts whole seconds
    with lease.hold(s3):
        assert "silent" not in storage.list_files(s3, "holders")


@pytest.mark.slow
def test_a_driver_shows_that_it_is_alive_and_stops_when_its_folder_was_taken_over(s3, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.1)
    with pytest.raises(SweepError, match="took this sweep over"), lease.hold(s3):  # noqa: PT012
        (mine,) = storage.list_files(s3, "holders")
        before = lease._beats(s3)[mine]
        time.sleep(1.5)
        assert lease._beats(s3)[mine] > before
        for _ in range(100):  # the driver may be about to write it again
            storage.delete(s3, f"holders/{mine}")
            time.sleep(0.1)
        raise AssertionError("nobody interrupted")
    assert storage.list_files(s3, "holders") == []
