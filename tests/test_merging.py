"""Merged files: whatever happens to them and to the trials' files, every row is read once."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.results import load
from scoring import merging, pieces, places, storage, tables, trial_files
from scoring.merging import merge
from scoring.tables import BrokenFiles, broken_files, read_rows, read_table, write_table
from tune_jobs import merging as driving
from tune_jobs.merging import Merger, is_due

TABLE = "epochs"
NAMES = [f"{i:012x}" for i in range(12)]


class Killed(BaseException):
    """What ends a process in these tests."""


class Sweep:
    """A folder of results in which anything may happen."""

    def __init__(self, root: Path):
        self.root, self.clock, self.lost = root, 0, {}

    def write(self, name: str, rows: int) -> None:
        """A trial ends, or is written again, with as many bytes as before."""
        self.clock += 1
        found = [{"trial": name, "epoch": self.clock, "seconds": float(row)} for row in range(rows)]
        write_table(str(self.root), TABLE, name, found)
        moment = 10**18 + self.clock  # long ago, and never twice
        os.utime(self.root / places.table_path(TABLE, name), ns=(moment, moment))

    def delete(self, name: str) -> None:
        storage.delete(str(self.root), places.table_path(TABLE, name))

    def merged(self) -> list[Path]:
        return sorted((self.root / "results").glob(f".{TABLE}.*.merged"))

    def plain(self) -> list[dict]:
        """What the trials' own files hold, one by one."""
        names = storage.list_files(str(self.root), places.table_folder(TABLE))
        return [r for name in names for r in read_rows(str(self.root), TABLE, Path(name).stem)]

    def check(self) -> None:
        assert read_table(str(self.root), TABLE).to_pylist() == self.plain()
        assert broken_files(str(self.root), TABLE) == []

    def keep(self) -> None:
        """Remember the merged files, to put them back when they are out of date."""
        self.lost |= {path.name: path.read_bytes() for path in self.merged()}

    def bring_back(self) -> None:
        for name, content in self.lost.items():
            (self.root / "results" / name).write_bytes(content)

    def killed(self, after: int, finish: bool) -> None:
        """A process that merges is killed at its n-th change of the folder."""
        left = iter(range(after))

        def until(call):
            def step(*arguments):
                if next(left, None) is None:
                    raise Killed
                return call(*arguments)

            return step

        with (
            mock.patch.object(merging, "write_piece", until(pieces.write_piece)),
            mock.patch.object(merging, "remove", until(pieces.remove)),
            suppress(Killed),
        ):
            merge(str(self.root), TABLE, finish)

    def torn(self, share: float, flip: bool) -> None:
        """A byte of a merged file changes, or its end is lost."""
        for path in [path for path in self.merged() if path.stat().st_size][:1]:
            content = bytearray(path.read_bytes())
            at = int(share * len(content))
            content[at] ^= 0x10
            path.write_bytes(content if flip else content[:at])

    def copied(self, times: bool) -> None:
        """The folder is copied elsewhere, with or without the times of its files."""
        other = self.root.with_name(f"{self.root.name}x")
        shutil.copytree(self.root, other, copy_function=shutil.copy2 if times else shutil.copy)
        self.root = other

    def doubled(self) -> None:
        """Two processes have merged the same files."""
        for path in self.merged():
            self.clock += 1
            shutil.copy(path, path.with_name(f".{TABLE}.{self.clock:012x}.merged"))


NAME = st.sampled_from(NAMES)
SHARE = st.floats(0, 1, exclude_max=True)
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), NAME, st.integers(0, 3)),
    st.tuples(st.just("write"), NAME, st.integers(0, 3)),
    st.tuples(st.just("delete"), NAME),
    st.tuples(st.just("merge"), st.booleans()),
    st.tuples(st.just("killed"), st.integers(0, 4), st.booleans()),
    st.tuples(st.just("torn"), SHARE, st.booleans()),
    st.tuples(st.just("copied"), st.booleans()),
    st.tuples(st.sampled_from(["keep", "bring_back", "doubled", "check"])),
)


@pytest.fixture(scope="module")
def few():
    """Tables are merged as soon as they have two files."""
    with (
        mock.patch.object(merging, "MANY", 2),
        mock.patch.object(tables, "MANY", 2),
        mock.patch.object(merging, "TOGETHER", 3),
    ):
        yield


@pytest.mark.long
@pytest.mark.parametrize("mapped", [True, False])
@given(start=st.integers(0, 12), operations=st.lists(OPERATIONS, max_size=12))
def test_whatever_happens_every_row_is_read_once(few, tmp_path_factory, mapped, start, operations):
    sweep = Sweep(tmp_path_factory.mktemp("sweep"))
    with mock.patch.object(pieces, "is_on_disk", return_value=mapped):
        for name in NAMES[:start]:
            sweep.write(name, 2)
        for what, *how in operations:
            if what == "merge":
                merge(str(sweep.root), TABLE, *how)
            else:
                getattr(sweep, what)(*how)
        sweep.check()
        merge(str(sweep.root), TABLE, finish=True)
        sweep.check()
        assert len(sweep.merged()) <= 2


@pytest.fixture
def many(tmp_path):
    """A sweep with more trials than are merged, each with three epochs."""
    sweep = Sweep(tmp_path)
    for number in range(merging.MANY + 10):
        sweep.write(f"{number:012x}", 3)
    return sweep


def test_a_process_killed_at_any_moment_loses_and_doubles_nothing(many):
    merge(str(many.root), TABLE)
    for number in range(merging.MANY + 10, 2 * merging.MANY + 40):
        many.write(f"{number:012x}", 2)
    before = many.plain()
    code = "import sys; from scoring.merging import merge; print(flush=True)\n"
    code += "while True: merge(sys.argv[1], 'epochs', True)"
    for milliseconds in range(0, 60, 12):
        command = [sys.executable, "-c", code, str(many.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == b"\n"
            time.sleep(milliseconds / 1000)
            process.kill()
        assert read_table(str(many.root), TABLE).to_pylist() == before
        many.write("0" * 11 + "1", 3)
        before = many.plain()


@pytest.mark.slow
def test_merged_files_stay_few_and_each_row_is_written_a_few_times(few, tmp_path):
    sweep, written = Sweep(tmp_path), []

    def counted(root, table, prepare):
        path = pieces.write_piece(root, table, prepare)
        written.append(
            sum(map(len, (p.files for p in pieces.pieces(root, table) if p.path == path)))
        )
        return path

    with mock.patch.object(merging, "write_piece", counted):
        for number in range(64):
            sweep.write(f"{number:012x}", 1)
            merge(str(sweep.root), TABLE)
            assert len(sweep.merged()) <= 8
    assert sum(written) <= 64 * 8
    sweep.check()


def test_a_merged_file_is_read_instead_of_the_files_that_it_holds(many):
    merge(str(many.root), TABLE, finish=True)
    with mock.patch.object(trial_files, "read_content", side_effect=AssertionError):
        assert read_table(str(many.root), TABLE).num_rows == 3 * (merging.MANY + 10)
        assert load(many.root, tables=(TABLE,)).epochs.trial.nunique() == merging.MANY + 10
    with mock.patch.object(tables, "_is_whole", side_effect=AssertionError):
        assert broken_files(str(many.root), TABLE) == []


def test_a_changed_byte_is_found_and_the_files_are_read_instead(many):
    merge(str(many.root), TABLE, finish=True)
    (path,) = many.merged()
    size = path.stat().st_size
    for share in (0.01, 0.3, 0.6, 0.99):
        (path,) = many.merged()
        content = bytearray(path.read_bytes())
        content[int(share * size)] ^= 1
        path.write_bytes(content)
        many.check()
        merge(str(many.root), TABLE, finish=True)


def test_where_a_table_has_a_damaged_file_the_others_are_merged(many):
    torn = many.root / places.table_path(TABLE, "0" * 12)
    torn.write_bytes(b"PAR1 torn")
    time.sleep(2 * trial_files.TICK)
    merge(str(many.root), TABLE)
    (piece,) = pieces.pieces(str(many.root), TABLE)
    assert len(piece.files) == merging.MANY + 9
    with pytest.raises(BrokenFiles, match="0" * 12):
        read_table(str(many.root), TABLE)
    assert broken_files(str(many.root), TABLE) == [places.table_path(TABLE, "0" * 12)]


def test_what_a_killed_process_left_half_written_is_deleted_when_it_is_old(many):
    left = many.root / "results" / f"..{TABLE}.0123456789ab.merged.{'0' * 32}"
    left.write_bytes(b"half")
    merge(str(many.root), TABLE)
    assert left.exists()  # somebody may be writing it
    old = time.time() - 2 * pieces.ABANDONED
    os.utime(left, (old, old))
    earlier = many.root / f"results/.{TABLE}.arrow"
    earlier.write_bytes(b"of an earlier version")
    merge(str(many.root), TABLE)
    assert not left.exists()
    assert not earlier.exists()


def test_a_file_too_young_to_tell_whether_it_changes_is_not_merged(many, monkeypatch):
    young = many.root / places.table_path(TABLE, "0" * 12)
    second = int(time.time()) * 10**9
    os.utime(young, ns=(second, second))
    merge(str(many.root), TABLE)
    (piece,) = pieces.pieces(str(many.root), TABLE)
    assert young.name not in piece.files
    many.check()


def test_the_driver_merges_as_trials_end_and_leaves_one_file_at_the_end(many, monkeypatch):
    monkeypatch.setattr(driving, "FEWEST", 20)
    merger = Merger(str(many.root), ended=merging.MANY + 10)
    for number in range(1, 45):
        many.write(f"{number:06x}{0:06x}", 2)
        merger.add()
        if merger._running:
            merger._running.join()
    assert len(many.merged()) >= 1
    held = {name for piece in pieces.pieces(str(many.root), TABLE) for name in piece.files}
    assert len(held) >= merging.MANY + 40
    many.check()
    merger.finish()
    assert len(many.merged()) == 1
    many.check()


def test_the_more_trials_a_sweep_has_the_more_are_merged_at_a_time():
    assert not is_due(99, 99)
    assert is_due(100, 100)
    assert not is_due(100, 10_000)
    assert is_due(200, 10_000)


def test_merging_deletes_nothing_of_the_users(tmp_path):
    (tmp_path / "results").write_text("mine")
    merge(str(tmp_path), TABLE)
    (tmp_path / "results").rename(tmp_path / "notes")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / TABLE).write_text("mine")
    merge(str(tmp_path), TABLE, finish=True)
    pieces.remove(str(tmp_path), "notes")
    assert (tmp_path / "notes").read_text() == "mine"
    assert (tmp_path / "results" / TABLE).read_text() == "mine"


def test_where_a_store_does_not_answer_for_a_merged_file_the_files_are_read(many, monkeypatch):
    merge(str(many.root), TABLE, finish=True)
    refused = mock.Mock(side_effect=OSError("AWS Error SLOW_DOWN"))
    monkeypatch.setattr(pieces.Piece, "columns", refused)
    many.check()
    assert refused.called
    assert len(many.merged()) == 1


def test_a_folder_in_an_object_store_has_no_time_and_is_no_file_that_changed(monkeypatch):
    folder = mock.Mock(base_name="notes.parquet", size=None, mtime_ns=None)
    monkeypatch.setattr(trial_files, "infos", lambda *where: [folder])
    assert trial_files.marks("s3://bucket/runs", TABLE) == {"notes.parquet": "None 0"}


def test_the_end_of_the_program_interrupts_merging_without_a_word(many, monkeypatch, capfd):
    refused = mock.Mock(side_effect=RuntimeError("cannot schedule new futures after shutdown"))
    monkeypatch.setattr(driving, "FEWEST", 1)
    monkeypatch.setattr(driving, "merge", refused)
    merger = Merger(str(many.root))
    merger.add()
    thread = merger._running
    assert thread
    thread.join()
    assert refused.called
    assert capfd.readouterr() == ("", "")


def test_where_nothing_can_be_written_the_files_are_read(many, monkeypatch):
    def refused(*where, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pieces, "writing", refused)
    merge(str(many.root), TABLE, finish=True)
    many.check()
    assert many.merged() == []
