"""Damaged arrays and downloads in the cache are deleted, and prepared or downloaded again."""

import errno
import gzip
import hashlib
import json
import os
import shutil
import struct
from urllib.error import URLError

import filelock._unix
import numpy as np
import pytest
import torchvision
from filelock import FileLock
from numpy.testing import assert_array_equal
from test_datasets import saved

from models import datasets, downloads
from models.archives import ARRAYS
from models.datasets import load
from models.downloads import delete_damaged
from models.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")


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


def test_a_constant_channel_in_an_earlier_cache_has_its_deviation_corrected(tmp_path, cache):
    path = saved(tmp_path / "mine.npz", x_train=np.full((12, 5, 4), 9, np.uint8))
    assert list(load(path).std) == [255]
    (file,) = (cache / "arrays-2").glob("*/about.json")
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"std": [1e-6]}))
    assert list(load(path).std) == [255]
    del about["std"]
    file.write_text(json.dumps(about))
    assert list(load(path).std) == [255]


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


def test_a_lock_of_the_cache_that_is_never_free_is_named_with_the_fix(cache, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "NOTICE", 0.05)
    monkeypatch.setattr(datasets, "PATIENCE", 0.2)
    (cache / "arrays-2").mkdir(parents=True)
    lock = cache / "arrays-2" / "digits.lock"
    with FileLock(lock), pytest.raises(DataError, match=f"^{lock}: .*, delete the file, or set"):
        load("digits")
    assert f"{lock}: waiting for another process" in capsys.readouterr().err
    assert load("digits").classes == 10


def test_a_lock_that_a_killed_process_left_on_another_machine_without_locks_is_named(
    cache, monkeypatch
):
    def lock(_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(filelock._unix, "lock_fd_nonblocking", lock)
    monkeypatch.setattr(datasets, "NOTICE", 0.05)
    monkeypatch.setattr(datasets, "PATIENCE", 0.2)
    (cache / "arrays-2").mkdir(parents=True)
    left = cache / "arrays-2" / "digits.lock"
    left.write_text("4711\nnode17\n12345\n")
    with (
        pytest.warns(UserWarning, match="flock not supported"),
        pytest.raises(DataError, match=f"^{left}: .*, delete the file"),
    ):
        load("digits")
    left.unlink()
    with pytest.warns(UserWarning, match="flock not supported"):
        assert load("digits").classes == 10
