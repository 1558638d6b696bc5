"""The four tables of a sweep: what their columns mean, how they lie on disk and are read."""

import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import results
from analysis.results import ResultsError, load
from models.config import TrialConfig
from scoring import pieces, places, schemas, storage, trial_files
from scoring import tables as stored
from scoring.places import table_path
from scoring.storage import StoreError, write_file
from scoring.tables import MANY, read_row, read_rows, read_table, write_table

UNITS = {"degree", "dimensions", "", "1", "fraction", "nat", "s", "images", "points", "segments"}
UNITS |= {"distance", "squared distance", "GB", "epochs"}


def row(trial="a", **values):
    return {"trial": trial, "dataset": "digits", "network": "plain", "gamma": 0.1} | values


def files_under(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("table", schemas.TABLES)
def test_every_column_has_a_unit_a_meaning_and_a_name_of_its_own(table):
    schema = schemas.TABLES[table]
    assert len(set(schema.names)) == len(schema.names)
    for field in schema:
        assert field.metadata[b"unit"].decode() in UNITS
        assert field.metadata[b"meaning"].decode().strip()


@pytest.mark.parametrize("table", schemas.TABLES)
def test_every_table_begins_with_the_trial_it_belongs_to(table):
    key = [field.name for field in schemas.KEY]
    assert key[0] == "trial"
    assert schemas.TABLES[table].names[: len(key)] == key


def test_the_first_columns_of_trials_are_the_configuration_of_a_trial():
    columns = [field.name for field in schemas.KEY + schemas.CONFIG]
    assert set(columns) - {"trial"} == set(TrialConfig.model_fields)
    assert schemas.TABLES["trials"].names[: len(columns)] == columns


def test_a_configuration_is_a_row_as_it_is(tmp_path):
    config = TrialConfig(dataset="cifar10", K=4, gamma=5e-3)
    stored = {"trial": config.trial} | config.model_dump()
    write_table(str(tmp_path), "trials", config.trial, [stored])
    table = read_table(str(tmp_path), "trials", list(stored))
    assert table.to_pylist() == [stored]


def test_what_is_written_is_read_with_units_and_nulls(tmp_path):
    rows = [row(epoch=0, stage=1, shares=[0.25, 0.75]), row(epoch=1, stage=1, lss=1.5)]
    write_table(str(tmp_path), "tracks", "a", rows)
    write_table(str(tmp_path), "tracks", "b", [row("b", epoch=0, stage=1)])
    table = read_table(str(tmp_path), "tracks")
    assert table.schema.names == schemas.TABLES["tracks"].names
    assert table["trial"].to_pylist() == ["a", "a", "b"]
    assert table["shares"].to_pylist() == [[0.25, 0.75], None, None]
    assert table["lss"].to_pylist() == [None, 1.5, None]
    file = pq.read_schema(tmp_path / table_path("tracks", "a"))
    assert file.field("lss").metadata[b"unit"] == b"1"
    assert file.metadata[b"geosweep"] == schemas.FORMAT.encode()


def test_a_column_can_be_read_alone(tmp_path):
    write_table(str(tmp_path), "epochs", "a", [row(epoch=3, lss=2.0)])
    assert read_table(str(tmp_path), "epochs", ["lss", "epoch"]).to_pylist() == [
        {"lss": 2.0, "epoch": 3}
    ]


@pytest.mark.parametrize("table", schemas.TABLES)
def test_a_sweep_without_results_has_empty_tables(tmp_path, table):
    empty = read_table(str(tmp_path / "nowhere"), table)
    assert (empty.num_rows, empty.schema) == (0, schemas.TABLES[table])
    assert read_table(str(tmp_path), table, ["trial"]).schema.names == ["trial"]


def test_a_file_from_before_a_column_was_added_reads_as_null(tmp_path):
    older = pa.table({"trial": ["a"], "epoch": [1]})
    path = tmp_path / table_path("epochs", "a")
    path.parent.mkdir(parents=True)
    pq.write_table(older, path)
    write_table(str(tmp_path), "epochs", "b", [row("b", epoch=1, lss=2.0)])
    table = read_table(str(tmp_path), "epochs")
    assert table["lss"].to_pylist() == [None, 2.0]


@pytest.mark.parametrize("table", schemas.TABLES)
def test_files_from_before_the_geometry_was_measured_read_as_null(tmp_path, table):
    new = {"energy", "weight_norms", "energy_ratio", "cosines", "straight_distance", "turning"}
    new |= {n for n in schemas.TABLES[table].names if n.startswith(("separat", "not_mono"))}
    new |= {
        n for n in schemas.TABLES[table].names if n.endswith(("_factor", "_shuffled", "_drift"))
    }
    new |= {"lss_scaled", "relative_energy", "curvature", "spacing", "nc1", "effective_rank"}
    new |= {"fuzziness", "fuzziness_slope", "fuzziness_fit", "participation_ratio"}
    new |= {"geodesic_excess", "transport_share", "shuffled_seconds", "drift", "shift"}
    new |= {f"{n}_initial" for n in new}
    schema = schemas.TABLES[table]
    older = pa.schema([field for field in schema if field.name not in new])
    path = tmp_path / table_path(table, "a")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row()], older), path)
    assert list(read_row(str(tmp_path), table, "a")) == schema.names
    write_table(str(tmp_path), table, "b", [row("b")])
    read = read_table(str(tmp_path), table)
    assert read.schema.names == schema.names
    for name in new & set(schema.names):
        assert read[name].to_pylist() == [None, None]


def test_a_sweep_may_lie_in_a_hidden_folder_and_under_a_uri(tmp_path):
    folder = tmp_path / ".hidden" / "_runs"
    write_table(str(folder), "trials", "a", [row()])
    assert read_table(folder.as_uri(), "trials")["trial"].to_pylist() == ["a"]
    write_table(folder.as_uri(), "trials", "b", [row("b")])
    assert read_table(str(folder), "trials")["trial"].to_pylist() == ["a", "b"]


def test_a_file_that_is_being_written_is_not_read(tmp_path):
    write_table(str(tmp_path), "trials", "a", [row()])
    (tmp_path / "results/trials/.b.parquet.0123abcd").write_bytes(b"PAR1 half of")
    assert read_table(str(tmp_path), "trials")["trial"].to_pylist() == ["a"]
    assert storage.list_files(str(tmp_path), "results/trials") == ["a.parquet"]


@pytest.mark.parametrize(
    "content", [b"", b"not a table", b"PAR1"], ids=["empty", "text", "cut to its first bytes"]
)
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    for trial in ("a", "b"):
        write_table(str(tmp_path), "trials", trial, [row(trial)])
    (tmp_path / table_path("trials", "b")).write_bytes(content)
    with pytest.raises(StoreError, match=r"results/trials/b\.parquet"):
        read_table(str(tmp_path), "trials")


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_torn_file_is_named(tmp_path, kept):
    for trial in ("a", "b", "c"):
        write_table(str(tmp_path), "samples", trial, [row(trial, point=i) for i in range(500)])
    torn = tmp_path / table_path("samples", "b")
    torn.write_bytes(torn.read_bytes()[: int(kept * torn.stat().st_size)])
    with pytest.raises(StoreError, match=r"results/samples/b\.parquet"):
        read_table(str(tmp_path), "samples")


def test_a_file_with_damage_in_its_middle_is_named(tmp_path):
    write_table(str(tmp_path), "samples", "a", [row(point=i, lss=i**0.5) for i in range(500)])
    path = tmp_path / table_path("samples", "a")
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"results/samples/a\.parquet"):
        read_table(str(tmp_path), "samples")


def test_a_table_of_something_else_is_named(tmp_path):
    path = tmp_path / table_path("trials", "other")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"trial": [["a", "list"]]}), path)
    with pytest.raises(StoreError, match=r"other\.parquet"):
        read_table(str(tmp_path), "trials")


def test_a_table_is_replaced_as_a_whole(tmp_path):
    write_table(str(tmp_path), "epochs", "a", [row(epoch=i) for i in range(5)])
    write_table(str(tmp_path), "epochs", "a", [row(epoch=9)])
    assert read_table(str(tmp_path), "epochs", ["epoch"]).to_pylist() == [{"epoch": 9}]
    assert files_under(tmp_path) == ["results/epochs/a.parquet"]


NEWER = pa.field("later", pa.timestamp("us", tz="UTC"), metadata={"meaning": "of a newer version"})


@pytest.mark.parametrize("table", schemas.TABLES)
def test_a_rewrite_keeps_the_columns_of_a_newer_version(tmp_path, table):
    root, path = str(tmp_path), tmp_path / table_path(table, "a")
    write_table(root, table, "a", [row()])
    moment = pa.scalar(1, NEWER.type)
    pq.write_table(pq.read_table(path).append_column(NEWER, pa.array([moment])), path)
    (old,) = read_rows(root, table, "a")
    write_table(root, table, "a", [old | {"gamma": 0.2}, row(unknown=1)])
    assert read_rows(root, table, "a")[0] == old | {"gamma": 0.2}
    now = pq.read_table(path)
    assert now.schema.names == [*schemas.TABLES[table].names, "later"]
    assert now.schema.field("later").type == NEWER.type
    assert now.schema.field("later").metadata[b"meaning"] == b"of a newer version"
    assert now["later"].to_pylist() == [moment.as_py(), None]
    assert read_table(root, table).schema == schemas.TABLES[table]


def test_a_rewrite_keeps_the_arguments_of_an_architecture(tmp_path):
    root, path = str(tmp_path), tmp_path / table_path("trials", "a")
    config = TrialConfig(architecture="timm:x", **{"model.width": 16, "model.act": "relu"})
    write_table(root, "trials", "a", [row() | config.row(1)])
    first = pq.read_table(path)
    assert first["model.width"].to_pylist() == [16]
    write_table(root, "trials", "a", [read_row(root, "trials", "a") | {"lss": 2.0}])
    again = pq.read_table(path)
    assert again.schema == first.schema
    assert again.select(["model.width", "model.act"]) == first.select(["model.width", "model.act"])
    pq.write_table(first.drop_columns(["model.width", "model.act"]), path)  # as was done before
    write_table(root, "trials", "a", [read_row(root, "trials", "a")])
    assert pq.read_schema(path) == first.schema


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((16, 24.5, 2**60), pa.float64()),
        (("none", "a"), pa.string()),
        ((True, False), pa.bool_()),
    ],
)
def test_an_argument_has_one_type_in_the_files_of_all_trials(tmp_path, values, kind):
    found = []
    for value in values:
        config = TrialConfig(architecture="timm:x", **{"model.one": value, "model.two": 1})
        write_table(str(tmp_path), "trials", config.trial, [config.row(1)])
        path = tmp_path / table_path("trials", config.trial)
        found.append(pq.read_schema(path))
        assert pq.read_table(path)["model.one"].to_pylist() == [value]
        assert read_row(str(tmp_path), "trials", config.trial)["model"] == config.row(1)["model"]
    assert pa.unify_schemas(found).field("model.one").type == kind


def test_a_failure_on_the_way_leaves_the_old_content_and_nothing_else(tmp_path):
    write_file(str(tmp_path), "notes/a.txt", b"old")
    with pytest.raises(TypeError):
        write_file(str(tmp_path), "notes/a.txt", object())  # fails once the new file is open
    assert (tmp_path / "notes/a.txt").read_bytes() == b"old"
    assert files_under(tmp_path) == ["notes/a.txt"]


def test_a_row_that_does_not_fit_leaves_the_old_table_and_nothing_else(tmp_path):
    write_table(str(tmp_path), "epochs", "a", [row(epoch=1)])
    with pytest.raises((pa.ArrowException, TypeError)):
        write_table(str(tmp_path), "epochs", "a", [row(epoch="one")])
    assert read_table(str(tmp_path), "epochs", ["epoch"]).to_pylist() == [{"epoch": 1}]
    assert files_under(tmp_path) == ["results/epochs/a.parquet"]


def test_a_failure_at_the_last_moment_leaves_nothing_behind(tmp_path):
    (tmp_path / "notes/a.txt/in the way").mkdir(parents=True)
    with pytest.raises(storage.Damaged, match=r"a\.txt"):
        write_file(str(tmp_path), "notes/a.txt", b"new")
    assert files_under(tmp_path) == []


def test_files_of_a_sweep_are_written_read_listed_and_deleted(tmp_path):
    root = str(tmp_path)
    for name in ("b", "a"):
        write_file(root, f"pending/{name}", name.encode())
    assert storage.list_files(root, "pending") == ["a", "b"]
    assert bytes(storage.read_file(root, "pending/a")) == b"a"
    storage.delete(root, "pending/a")
    storage.delete(root, "pending/a")
    assert storage.read_file(root, "pending/a") is None
    storage.delete(root, "pending")
    assert storage.list_files(root, "pending") == []
    assert storage.list_files(root, "never made") == []


def test_many_files_are_kept_together_and_every_change_to_one_is_seen(tmp_path):
    root, names = str(tmp_path), [f"{i:012x}" for i in range(MANY + 5)]

    def told():
        read = read_table(root, "epochs", ["trial", "epoch"]).to_pylist()
        return [(row["trial"], row["epoch"]) for row in read]

    def write(name, epochs):
        rows = [{"trial": name, "epoch": epoch} for epoch in range(epochs)]
        write_table(root, "epochs", name, rows)

    for name in names[1:]:
        write(name, 2)
    for change in (lambda: None, lambda: write(names[0], 3), lambda: write(names[7], 1)):
        change()
        time.sleep(2 * trial_files.TICK)
        counts = dict.fromkeys(names[1:], 2)
        if read_rows(root, "epochs", names[0]):
            counts[names[0]] = 3
        counts[names[7]] = len(read_rows(root, "epochs", names[7]))
        wanted = [(name, epoch) for name in sorted(counts) for epoch in range(counts[name])]
        assert told() == wanted
        assert told() == wanted  # from the file that keeps them
    (kept,) = (tmp_path / "results").glob(".epochs.*.merged")
    storage.delete(root, places.table_path("epochs", names[3]))
    assert names[3] not in {trial for trial, _ in told()}
    before = told()
    kept.write_bytes(b"torn")
    assert told() == before
    (tmp_path / places.table_path("epochs", names[5])).write_bytes(b"PAR1 torn")
    with pytest.raises(storage.StoreError, match=names[5]):
        read_table(root, "epochs")


COUNT = MANY + 5


@pytest.fixture
def many(tmp_path):
    """A folder of as many trials as are kept together, with gaps, NaN and lists."""
    for i in range(COUNT):
        name = f"{i:012x}"
        rows = [row(name, epoch=epoch, lss=float("nan") if epoch else 1.5) for epoch in range(3)]
        rows[1] |= {"shares": [0.25, 0.75 + i], "ots": 0.5, "ties": i, "collapsed": False}
        write_table(str(tmp_path), "tracks", name, rows)
        write_table(str(tmp_path), "samples", name, [])
    time.sleep(2 * trial_files.TICK)
    return tmp_path


def merged(folder, table="tracks"):
    return list((folder / "results").glob(f".{table}.*.merged"))


def tracks_of(folder):
    return load(folder, tables=("tracks", "samples")).tracks


@pytest.mark.slow
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("large", [0, 10**6])
def test_what_was_kept_reads_as_the_files_do(many, monkeypatch, mapped, large):
    monkeypatch.setattr(pieces, "is_on_disk", lambda path: mapped)
    monkeypatch.setattr(results, "LARGE", large)
    first, later = tracks_of(many), tracks_of(many)
    monkeypatch.setattr(stored, "MANY", 10**6)
    alone = tracks_of(many)
    pd.testing.assert_frame_equal(first, alone)
    pd.testing.assert_frame_equal(later, alone)
    assert later.lss.isna().tolist() == [False, True, True] * COUNT


@pytest.mark.parametrize("mapped", [True, False])
def test_a_frame_can_be_written_into_and_nobody_else_sees_it(many, monkeypatch, mapped):
    monkeypatch.setattr(pieces, "is_on_disk", lambda path: mapped)
    monkeypatch.setattr(results, "LARGE", 0)
    tracks_of(many)
    (kept,) = merged(many)
    content = kept.read_bytes()
    mine, yours = tracks_of(many), tracks_of(many)
    for column, value in (("lss", -1.0), ("epoch", 7), ("ots", 0.1), ("collapsed", True)):
        before = yours.loc[1, column]
        mine.loc[1, column] = value
        assert mine.loc[1, column] == value
        np.testing.assert_equal(yours.loc[1, column], before)
    assert kept.read_bytes() == content


def test_lists_explode_and_come_one_by_one_as_lists(many):
    shares = tracks_of(many).shares
    assert list(shares[1]) == [0.25, 0.75]
    assert shares.isna().tolist()[:3] == [True, False, True]
    assert shares.dropna().explode().tolist()[:4] == [0.25, 0.75, 0.25, 1.75]
    np.testing.assert_allclose(np.stack(shares.dropna())[:, 0], 0.25)


def test_what_is_kept_is_written_again_when_much_has_changed(many):
    tracks_of(many)
    before = merged(many)
    tracks_of(many)
    assert merged(many) == before
    names = sorted(path.stem for path in (many / "results/tracks").iterdir())
    for name in names[::3]:
        write_table(str(many), "tracks", name, [row(name, epoch=9)])
    storage.delete(str(many), table_path("tracks", names[1]))
    changed, again = tracks_of(many), tracks_of(many)
    assert changed.trial.is_monotonic_increasing
    assert changed.groupby("trial", observed=True).size().tolist()[:4] == [1, 3, 1, 3]
    assert names[1] not in set(changed.trial)
    pd.testing.assert_frame_equal(changed, again)
    assert merged(many) == before  # a third is read beside it
    for name in names:
        write_table(str(many), "tracks", name, [row(name, epoch=7)])
    time.sleep(2 * trial_files.TICK)
    assert tracks_of(many).epoch.tolist() == [7] * COUNT
    (now,) = merged(many)
    assert now not in before


def test_what_was_kept_before_a_column_was_added_is_read_anew(many, monkeypatch):
    full = schemas.TABLES["tracks"]
    older = pa.schema([field for field in full if field.name != "ties"], full.metadata)
    monkeypatch.setitem(schemas.TABLES, "tracks", older)
    tracks_of(many)
    monkeypatch.setitem(schemas.TABLES, "tracks", full)
    assert tracks_of(many).ties[4] == 1


def test_where_nothing_can_be_kept_the_files_are_read(many, monkeypatch):
    def full_disk(*where, **how):
        raise OSError("no space left")

    monkeypatch.setattr(pieces, "writing", full_disk)
    assert len(tracks_of(many)) == 3 * COUNT
    assert merged(many) == []


def test_a_table_in_the_folder_of_another_is_named(tmp_path):
    write_table(str(tmp_path), "tracks", "a", [row()])
    (tmp_path / "results/epochs").mkdir()
    (tmp_path / table_path("tracks", "a")).rename(tmp_path / table_path("epochs", "a"))
    with pytest.raises(StoreError, match=r"epochs/a\.parquet: .*columns are not those of epochs"):
        read_table(str(tmp_path), "epochs")


def test_of_many_broken_files_one_is_named_and_the_others_are_counted(many):
    names = sorted((many / "results/tracks").iterdir())
    names[2].write_bytes(b"PAR1 torn")
    pq.write_table(pa.table({"x": [1]}), names[4])
    with pytest.raises(ResultsError, match=rf"{names[2].name}: .* \(and 1 other files\)") as told:
        tracks_of(many)
    assert names[4].name not in str(told.value)
