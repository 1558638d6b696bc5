"""Data files that are damaged or hostile: each is refused in one line that says what to do."""

import io
import os
import re
import shutil
import socket
import warnings
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_datasets import arrays, saved

from models import archives, datasets
from models.archives import ARRAYS
from models.datasets import load
from models.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")


def zipped(path, members):
    """An archive of members as they are given: names and bytes, or names and arrays."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # zipfile's, about names given twice
        for name, content in members:
            if isinstance(content, np.ndarray):
                buffer = io.BytesIO()
                np.save(buffer, content)
                content = buffer.getvalue()
            archive.writestr(name, content)
    return str(path)


def npy(dtype: str, shape: tuple[int, ...], content: bytes = b"") -> bytes:
    """An .npy file whose header says this, whatever follows."""
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + content


def refusal(path) -> str:
    """The message that a data set is refused with; it names the file and leaves nothing behind."""
    with pytest.raises(DataError) as error:
        load(str(path))
    message = str(error.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    assert len(message) < 1200
    left = datasets.cache_folder() / "arrays-2"
    assert not left.exists() or list(left.iterdir()) == []
    return message


GREY = arrays()
Y = GREY["y_train"]
COLOURED = arrays(shape=(8, 8, 3))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x_train": GREY["x_train"] / 255}, "(255 * x).round().astype(numpy.uint8)"),
        ({"x_train": GREY["x_train"] * np.nan}, "float64 (12, 5, 4); should be uint8"),
        ({"x_train": GREY["x_train"].astype(np.int64)}, "x.astype(numpy.uint8)"),
        ({"x_train": GREY["x_train"] > 9}, "; 255 * x.astype(numpy.uint8)"),
        ({"x_train": GREY["x_train"].astype("S4")}, "should be uint8 images"),
        ({"y_train": Y + 0.5}, "use y.astype(numpy.int64)"),
        ({"y_train": Y > 0}, "y_train is bool (12,); should be 12 integer labels"),
        ({"y_train": Y.astype("timedelta64[s]")}, "should be 12 integer labels"),
        ({"y_train": Y * 0 + 2**62}, "has the label 4611686018427387904; should be below 100000"),
        ({"y_test": np.uint64(2**63) + np.arange(6, dtype=np.uint64)}, "the label 922337203685477"),
        ({"y_train": Y + 100_000}, "number the classes 0, 1, 2, ..."),
        ({"y_test": np.arange(6) - 3}, "y_test has the label -3; labels start at 0"),
        (
            {k: np.moveaxis(COLOURED[k], 3, 1) for k in ("x_train", "x_test")},
            "the channels come first; should be uint8 images of shape (count, height, width) or "
            "(count, height, width, channels): x.transpose(0, 2, 3, 1)",
        ),
    ],
)
def test_an_array_that_cannot_be_trained_on_is_refused_with_the_fix(tmp_path, change, told):
    assert told in refusal(saved(tmp_path / "mine.npz", **change))


def test_four_channels_are_images_and_byte_orders_do_not_matter(tmp_path):
    content = arrays(shape=(6, 5, 4))
    strange = {
        "x_train": np.asfortranarray(content["x_train"]),
        "y_train": content["y_train"].astype(">i2"),
        "y_test": content["y_test"].astype(">u8"),
    }
    data = load(saved(tmp_path / "strange.npz", **content | strange))
    assert data.image == (4, 6, 5)
    for key in ARRAYS:
        assert_array_equal(getattr(data, key), content[key])
    assert data.checksum == load(saved(tmp_path / "plain.npz", **content)).checksum


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("pipe", "is a named pipe, not a regular file"),
        ("folder", "is a folder, not a regular file"),
        ("device", "is a device, not a regular file"),
        ("socket", "is a socket, not a regular file"),
        ("link", "is a link to nowhere, which does not exist"),
        ("loop", "Too many levels of symbolic links"),
    ],
)
@pytest.mark.parametrize("name", ["mine.npz", "mnist"])
def test_only_regular_files_are_opened(tmp_path, monkeypatch, name, kind, told):
    monkeypatch.chdir(tmp_path)
    path = Path("mine.npz" if name == "mine.npz" else "mnist.npz")
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "socket":
            listening.bind(str(path))
        else:
            path.symlink_to({"device": "/dev/zero", "link": "nowhere", "loop": str(path)}[kind])
        with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read: {told}")):
            load(name, str(tmp_path))


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("x_train.npy", GREY["x_train"])] * 2, "holds x_train twice"),
        ([("x_train.npy", GREY["x_train"]), ("x_train", b"")], "holds x_train twice"),
        ([(f"mine/{k}.npy", v) for k, v in GREY.items()], "found: mine/x_train, mine/y_train"),
        ([(f"{'a' * 5000}{i}.npy", b"") for i in range(100)], "and 90 more)"),
        ([(f"{k}.npy", b"<html>" * 100) for k in GREY], "magic string is not correct"),
        ([(f"{k}.npy", npy("|O", (3,))) for k in GREY], "pickled Python objects"),
        ([(f"{k}.npy", npy("|u1", (3, -1))) for k in GREY], "is damaged"),
        ([(f"{k}.npy", npy("|u1", (2**40,))) for k in GREY], "is damaged: its header says uint8"),
        ([(f"{k}.npy", npy("|u1", (9,), b"12345678")) for k in GREY], "9 bytes, and 8 follow"),
        ([(f"{k}.npy", b"\x93NUMPY\x03\x00") for k in GREY], "npy version (3, 0)"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path, members, told):
    assert told in refusal(zipped(tmp_path / "mine.npz", members))


def test_an_archive_that_unpacks_to_more_than_the_memory_is_refused_by_its_headers(
    tmp_path, monkeypatch
):
    path = zipped(tmp_path / "mine.npz", [(f"{k}.npy", v) for k, v in GREY.items()])
    monkeypatch.setattr(archives, "memory", lambda: 2000.0)
    monkeypatch.setattr(archives, "_array", None)
    told = refusal(path)
    assert "takes 0.0 GB unpacked (x_train: uint8 (12, 5, 4)) and 0.0 GB while" in told


def test_no_more_is_prepared_than_the_disk_has_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 0, 9))
    with pytest.raises(DataError, match="are free; make room, or set GEOSWEEP_CACHE"):
        load(saved(tmp_path / "mine.npz"))


@pytest.mark.parametrize("name", ["a" * 5000 + ".npz", "a" * 300 + ".npz", "~nobody/x.npz"])
def test_a_name_that_no_file_has_is_named(name):
    with pytest.raises(DataError, match=r"no such file: .*npz") as error:
        load(name)
    assert len(str(error.value)) < 400


EXAMPLES = 200 if "CI" in os.environ else 40
ORDINARY = io.BytesIO()
np.savez_compressed(ORDINARY, **GREY)
DTYPES = ["|u1", "<u2", ">i4", "<i8", "<u8", "<f4", "|b1", "|S3", "<U2", "<M8[s]", "<c8", "|V5"]
SHAPES = st.lists(st.integers(0, 6), max_size=5).map(tuple)


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_any_archive_is_a_data_set_or_is_refused_in_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    path = folder / "mine.npz"
    content = bytearray(ORDINARY.getvalue())
    if data.draw(st.booleans()):  # other types, shapes and values
        members = dict(GREY)
        for key in data.draw(st.sets(st.sampled_from(ARRAYS), min_size=1)):
            dtype, shape = data.draw(st.sampled_from(DTYPES)), data.draw(SHAPES)
            filled = data.draw(st.sampled_from([0, 1, 255, 2**40]))
            with np.errstate(all="ignore"):
                members[key] = np.full(shape, filled, "<u8").view("<i8").astype(dtype)
        zipped(path, [(f"{key}.npy", value) for key, value in members.items()])
    else:  # other bytes
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content)))
            content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        path.write_bytes(content)
    with mock.patch.dict(os.environ, {"GEOSWEEP_CACHE": str(folder / "cache")}):
        try:
            found = load(str(path))
        except DataError:
            refusal(path)
        else:
            assert found.x_train.dtype == found.x_test.dtype == np.uint8
            assert 0 <= found.y_train.min() <= found.y_train.max() < found.classes <= 100_000
