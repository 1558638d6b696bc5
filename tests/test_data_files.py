"""Data files that are damaged or hostile: each is refused in one line that says what to do."""

import gzip
import hashlib
import io
import os
import re
import shutil
import socket
import struct
import warnings
import zipfile
from pathlib import Path
from unittest import mock
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_datasets import arrays

from models import archives, datasets, downloads, order
from models.datasets import ARRAYS, DataError, load
from models.downloads import delete_damaged

pytestmark = pytest.mark.usefixtures("cache")


def saved(path, **changes):
    np.savez(path, **(arrays() | changes))
    return str(path)


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
        ({"x_train": GREY["x_train"] > 9}, "should be uint8 images"),
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
    monkeypatch.setattr(archives, "_memory", lambda: 2000.0)
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


def test_a_file_sorted_by_class_is_warned_of_and_a_shuffled_one_is_not():
    ordered = np.repeat(np.arange(10), 100)
    random = np.random.default_rng(0).permutation(ordered)
    (told,) = order.warnings("mine.npz", random, ordered, 150)
    assert "the first 150, which are scored, have 2 of 10 classes; shuffle the file" in told
    (told,) = order.warnings("mine.npz", np.repeat(ordered, 20), random, 150)
    assert "the train images seem to be sorted by class" in told
    assert order.warnings("mine.npz", random, ordered, 1000) == []  # all images are scored
    for seed in range(50):
        random = np.random.default_rng(seed).permutation(np.arange(1000) % (2 + seed * 7))
        for m in (2, 10, 50, 300):
            assert order.warnings("mine.npz", random, random, m) == []


def test_a_split_that_is_sorted_by_class_is_taken_in_a_fixed_random_order(tmp_path, monkeypatch):
    labels, draw = np.repeat(np.arange(4), 50), np.random.default_rng(0).permutation(200)
    images = np.arange(200, dtype=np.uint8).repeat(4).reshape(200, 2, 2)  # their own numbers
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels[::-1]}
    np.savez(tmp_path / "both.npz", **arrays)
    arrays |= {"y_test": np.arange(200) % 4}
    np.savez(tmp_path / "train.npz", **arrays)
    both, train = (load(str(tmp_path / f"{name}.npz")) for name in ("both", "train"))
    assert (both.spread, train.spread) == (["train", "test"], ["train"])
    for split in (both.x_train, train.x_train, both.x_test):
        assert_array_equal(split[:, 0, 0, 0], draw)
    assert_array_equal(both.y_test, labels[::-1][draw])
    assert_array_equal(train.x_test[..., 0], images)
    assert order.classes_at_start(both.y_test, 50) is None
    (said,) = order.note("both.npz", both.spread)
    assert said.startswith("both.npz: the train and test images are sorted by class, so")
    assert order.note("mine.npz", load("digits").spread) == []
    as_before = {key: getattr(train, key)[np.argsort(draw)] for key in ("x_train", "y_train")}
    as_before |= {key: getattr(train, key) for key in ("x_test", "y_test")}
    assert datasets._checksum(as_before) != train.checksum
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "another node"))
    np.savez(tmp_path / "sent.npz", **{key: getattr(both, key) for key in ARRAYS})
    sent = datasets.keep(both.checksum, lambda: (tmp_path / "sent.npz").open("rb"))
    assert_array_equal(sent.x_train, both.x_train)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 300))
def test_a_random_order_stays_as_it_is(seed, classes):
    random = np.random.default_rng(seed).permutation(np.arange(1000) % classes)
    assert order.spread(random) is None


def test_digits_are_not_sorted():
    data = load("digits")
    assert order.spread(data.y_train) is order.spread(data.y_test) is None
    for m in (2, 50, 500):
        assert order.warnings("digits", data.y_train, data.y_test, m) == []


def cut(place):
    file = place / "x_test.npy"
    file.write_bytes(file.read_bytes()[:-9])


def zero(place):
    file = place / "y_train.npy"
    file.write_bytes(bytes(file.stat().st_size))


def zero_the_end(place):
    file = place / "x_train.npy"
    file.write_bytes(file.read_bytes()[:-200] + bytes(200))


RUINED = {
    "cut": cut,
    "zeros": zero,
    "zeros at the end": zero_the_end,
    "a page": lambda place: (place / "about.json").write_text("<html>"),
    "another description": lambda place: (place / "about.json").write_text('{"classes": 3}'),
    "no description": lambda place: (place / "about.json").unlink(),
    "a list": lambda place: (place / "about.json").write_text("[1, 2]"),
    "an array less": lambda place: (place / "y_test.npy").unlink(),
    "a folder for an array": lambda place: [
        (place / "y_test.npy").unlink(),
        (place / "y_test.npy").mkdir(),
    ],
    "nothing": lambda place: [file.unlink() for file in place.iterdir()],
    "a file": lambda place: [shutil.rmtree(place), place.write_text("mine")],
    "a broken link": lambda place: [shutil.rmtree(place), place.symlink_to("nowhere")],
}


@pytest.mark.parametrize("how", RUINED)
def test_damaged_arrays_in_the_cache_are_prepared_again(tmp_path, cache, capsys, how):
    path = saved(tmp_path / "mine.npz")
    whole = {key: getattr(load(path), key).copy() for key in ARRAYS}
    (place,) = (p for p in (cache / "arrays-2").iterdir() if p.is_dir())
    RUINED[how](place)
    again = load(path, verify=True)
    for key in ARRAYS:
        assert_array_equal(getattr(again, key), whole[key])
    assert f"{place.resolve()}: damaged; preparing it again" in capsys.readouterr().err
    load(path, verify=True)
    assert capsys.readouterr().err == ""
    datasets.keep(again.checksum, lambda: pytest.fail("it is there"))


IDX = {"train": 60, "t10k": 10}


def idx(shape):
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    return header + (np.arange(np.prod(shape)) % 10).astype(np.uint8).tobytes()


def raw_mnist(cache):
    """MNIST's unpacked files as torchvision leaves them, with other images."""
    raw = cache / "downloads" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in IDX.items():
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx((count, 28, 28)))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx((count,)))
    return raw


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(downloads, "COUNTS", IDX)

    def refuse(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", refuse)
    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", refuse)


def test_downloads_that_are_whole_are_used_as_they_are(cache, no_network):
    raw_mnist(cache)
    assert load("mnist").x_train.shape == (60, 28, 28, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: bytes(len(content)),
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:3],
        lambda content: content + b"\n",
        lambda content: b"<!DOCTYPE html><html>" + bytes(47_040),
    ],
)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_download_is_deleted_and_downloaded_again(
    cache, no_network, monkeypatch, capsys, damage, name
):
    raw = raw_mnist(cache)
    whole = (raw / name).read_bytes()
    (raw / name).write_bytes(damage(whole))
    with pytest.raises(DataError, match=r"mnist: could not be downloaded; put a mnist\.npz"):
        load("mnist")
    assert f"{name}: damaged; unpacking or downloading it again" in capsys.readouterr().err
    assert not (raw / name).exists()
    assert list((cache / "arrays-2").iterdir()) == []

    def download(url, download_root, filename, md5):
        if filename == f"{name}.gz":
            (raw / name).write_bytes(whole)

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", download)
    assert len(load("mnist").y_train) == 60


def test_a_download_is_compared_with_the_archive_that_it_came_from(cache, no_network):
    raw = raw_mnist(cache)
    name = "train-images-idx3-ubyte"
    packed = gzip.compress((raw / name).read_bytes())
    (raw / f"{name}.gz").write_bytes(packed)
    sums = [(f"{name}.gz", hashlib.md5(packed).hexdigest())]
    assert delete_damaged(raw.parents[1], "mnist", sums) == []
    (raw / name).write_bytes((raw / name).read_bytes()[:-100] + bytes(100))
    assert delete_damaged(raw.parents[1], "mnist", []) == []
    assert delete_damaged(raw.parents[1], "mnist", sums) == [raw / name]
    assert delete_damaged(raw.parents[1], "mnist", sums) == []


def test_damaged_cifar_files_are_downloaded_again_or_named(cache, no_network):
    batches = cache / "downloads" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (batches / name).write_bytes(bytes(100))
    with pytest.raises(DataError, match=r"could not be downloaded; put a cifar10.npz .*no network"):
        load("cifar10")


def test_an_error_without_a_message_has_a_name(monkeypatch):
    class Broken:
        def __init__(self, *_, **__):
            raise AssertionError

    monkeypatch.setattr(torchvision.datasets, "MNIST", Broken)
    with pytest.raises(DataError, match=r"\(AssertionError\)"):
        load("mnist")
