"""Data sets: prepared once, shared by all, and refused with a message that helps."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets
import torchvision
from numpy.testing import assert_allclose, assert_array_equal

from models import datasets
from models.archives import ARRAYS
from models.datasets import load
from models.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")


def arrays(shape=(5, 4), train=12, test=6, classes=3, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "x_train": draw.integers(0, 256, (train, *shape), dtype=np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": draw.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": np.arange(test) % classes,
    }


def saved(path, **changes):
    """An .npz file; a change to None leaves the array out."""
    content = arrays() | changes
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    return str(path)


def test_digits_are_1297_and_500_real_images():
    data = load("digits")
    assert (data.x_train.shape, data.x_test.shape) == ((1297, 8, 8, 1), (500, 8, 8, 1))
    assert (data.x_train.dtype, data.y_train.dtype) == (np.uint8, np.int64)
    assert (data.classes, data.image) == (10, (1, 8, 8))
    assert (data.x_train.min(), data.x_train.max()) == (0, 16)
    real = sklearn.datasets.load_digits()
    both = np.concatenate([data.x_train, data.x_test]).reshape(-1, 64)
    labels = np.concatenate([data.y_train, data.y_test])
    ours = sorted([*image, label] for image, label in zip(both.tolist(), labels, strict=True))
    theirs = zip(real.data.astype(int).tolist(), real.target, strict=True)
    assert ours == sorted([*image, label] for image, label in theirs)


def test_digits_are_always_split_alike(monkeypatch, tmp_path):
    one = load("digits")
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "another"))
    other = load("digits")
    for key in ARRAYS:
        assert_array_equal(getattr(one, key), getattr(other, key))
    assert one.y_test[:8].tolist() == [6, 6, 6, 2, 5, 6, 6, 2]


def test_mean_and_deviation_are_those_of_the_train_split_per_channel(tmp_path):
    content = arrays(shape=(4, 5, 3))
    content["x_train"][..., 2] = 9  # a channel without any variation
    data = load(saved(tmp_path / "mine.npz", **content))
    assert_allclose(data.mean, content["x_train"].mean((0, 1, 2)))
    assert_allclose(data.std[:2], content["x_train"].std((0, 1, 2))[:2])
    assert data.mean[2] == 9
    assert data.std[2] == 255  # not nearly 0, by which the padding of a crop would be divided
    assert data.image == (3, 4, 5)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3)])
def test_an_npz_file_is_taken_by_its_path(tmp_path, shape):
    content = arrays(shape)
    data = load(saved(tmp_path / "mine.npz", **content))
    for split in ("train", "test"):
        x = content[f"x_{split}"]
        assert_array_equal(getattr(data, f"x_{split}"), x.reshape(len(x), 5, 4, -1))
        assert_array_equal(getattr(data, f"y_{split}"), content[f"y_{split}"])
    assert data.classes == 3


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64])
def test_labels_may_be_whole_numbers_of_any_kind(tmp_path, kind):
    labels = {key: arrays()[key].astype(kind) for key in ("y_train", "y_test")}
    data = load(saved(tmp_path / "mine.npz", **labels))
    assert (data.y_train.dtype, data.y_test.dtype) == (np.int64, np.int64)


def test_a_relative_path_is_looked_up_here_and_then_in_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    saved(tmp_path / "data" / "mine.npz")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"mine\.npz"):
        load("mine.npz")
    assert len(load("mine.npz", "data").y_train) == 12
    saved(tmp_path / "mine.npz", x_train=arrays()["x_train"][:9], y_train=arrays()["y_train"][:9])
    assert len(load("mine.npz", "data").y_train) == 9


@pytest.mark.parametrize("how", ["argument", "GEOSWEEP_DATA"])
def test_mnist_npz_in_the_data_folder_is_used_as_it_is(tmp_path, monkeypatch, how):
    content = arrays(shape=(28, 28))
    saved(tmp_path / "mnist.npz", **content)
    monkeypatch.setattr(torchvision.datasets, "MNIST", None)
    if how == "GEOSWEEP_DATA":
        monkeypatch.setenv("GEOSWEEP_DATA", str(tmp_path))
    data = load("mnist", str(tmp_path) if how == "argument" else None)
    assert_array_equal(data.x_train[..., 0], content["x_train"])
    assert data.image == (1, 28, 28)


def test_arrays_are_prepared_once_and_mapped_from_the_cache(tmp_path, cache, monkeypatch):
    path = saved(tmp_path / "mine.npz")
    first = load(path)

    def again(*_):
        raise AssertionError("prepared twice")

    monkeypatch.setattr(datasets, "_prepare", again)
    second = load(path)
    for key in ARRAYS:
        one, other = getattr(first, key), getattr(second, key)
        assert isinstance(one, np.memmap)
        assert one.filename == other.filename
        assert cache.resolve() in one.filename.resolve().parents
    assert second.mean == first.mean


def test_writing_to_an_array_does_not_reach_the_cache(tmp_path):
    path = saved(tmp_path / "mine.npz")
    load(path).x_train[:] = 0
    assert_array_equal(load(path).x_train[..., 0], arrays()["x_train"])


def test_a_file_that_changed_is_prepared_again(tmp_path):
    path = saved(tmp_path / "mine.npz")
    load(path)
    saved(tmp_path / "mine.npz", **arrays(shape=(6, 6)))
    assert load(path).image == (1, 6, 6)


def test_files_of_one_name_in_two_folders_are_two_data_sets(tmp_path):
    for name, shape in (("a", (5, 4)), ("b", (4, 5))):
        (tmp_path / name).mkdir()
        saved(tmp_path / name / "mine.npz", **arrays(shape))
    images = [load(str(tmp_path / name / "mine.npz")).image for name in "ab"]
    assert images == [(1, 5, 4), (1, 4, 5)]


SLOWLY = """
import sys, time
from models import datasets

prepare = datasets._prepare

def slowly(*arguments):
    print("prepares", flush=True)
    time.sleep(0.5)
    prepare(*arguments)

datasets._prepare = slowly
print("ready", flush=True)
sys.stdin.readline()
print(datasets.load(sys.argv[1]).x_train.sum())
"""


def test_processes_that_prepare_at_once_give_one_result(tmp_path, cache):
    path = saved(tmp_path / "mine.npz")
    command = [sys.executable, "-c", SLOWLY, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].split() for process in both]
    assert sum(words.count("prepares") for words in said) == 1
    assert {words[-1] for words in said} == {str(arrays()["x_train"].sum(dtype=int))}
    assert len([p for p in (cache / "arrays-2").iterdir() if p.is_dir()]) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("No space left on device"), DataError),
        (DataError("refused"), DataError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_preparation_that_fails_leaves_nothing_behind(tmp_path, cache, monkeypatch, error, told):
    path = saved(tmp_path / "mine.npz")

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fail)
        with pytest.raises(told):
            load(path)
    assert list((cache / "arrays-2").iterdir()) == []  # neither arrays nor a lock
    assert len(load(path).y_train) == 12


def test_a_refused_file_leaves_nothing_in_the_cache(tmp_path, cache):
    with pytest.raises(DataError):
        load(saved(tmp_path / "mine.npz", y_test=None))
    assert list((cache / "arrays-2").iterdir()) == []


def test_what_a_killed_preparation_left_is_deleted_by_the_next_of_the_same_data_set(
    tmp_path, cache
):
    path = saved(tmp_path / "mine.npz")
    load(path)
    (place,) = (p for p in (cache / "arrays-2").iterdir() if p.is_dir())
    shutil.rmtree(place)
    ours, others = (place.with_name(f".{name}-{'0a' * 16}") for name in (place.name, "mine"))
    ours.mkdir()
    others.mkdir()
    load(path)
    assert not ours.exists()
    assert others.exists()


X, Y = arrays()["x_train"], arrays()["y_train"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"y_test": None}, "has no y_test; an .npz data set holds x_train, y_train, x_test"),
        ({"x_train": X.astype(np.float32)}, "x_train is float32 .* should be uint8 images"),
        ({"x_train": X.reshape(12, -1)}, r"x_train is uint8 \(12, 20\); should be .* \(count, hei"),
        ({"x_train": X[..., None, None]}, "should be uint8 images of shape"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "should be uint8 images of shape"),
        ({"x_train": np.uint8(3)}, "should be uint8 images of shape"),
        ({"y_train": Y[:5]}, r"y_train is int64 \(5,\); should be 12 integer labels"),
        ({"y_train": Y[:, None]}, r"should be 12 integer labels; use y.ravel\(\)$"),
        ({"y_train": Y[:, None] > 0}, r"use y.ravel\(\).astype\(numpy.int64\)"),
        ({"y_train": Y / 1.0}, "y_train is float64 .* should be 12 integer labels"),
        ({"y_train": Y - 1}, "y_train has the label -1; labels start at 0"),
        ({"y_test": arrays()["y_test"] + 7}, r"labels that y_train has not: \[7, 8, 9\]"),
        ({"x_test": arrays((4, 4))["x_test"]}, "train and test images differ in size"),
        (
            {"x_train": np.array([{}] * 12)},
            r"x_train cannot be read: it is object \(12,\), pickled Python objects; save images",
        ),
    ],
)
def test_a_malformed_file_is_named_with_what_is_allowed(tmp_path, cache, change, told):
    path = saved(tmp_path / "mine.npz", **change)
    with pytest.raises(DataError, match=told) as error:
        load(path)
    assert path in str(error.value)
    assert [p for p in (cache / "arrays-2").iterdir() if p.is_dir()] == []


def test_an_empty_archive_is_named(tmp_path):
    path = saved(tmp_path / "mine.npz", **dict.fromkeys(ARRAYS), other=X)
    with pytest.raises(DataError, match=r"mine\.npz: has no x_train, .* \(found: other\)"):
        load(path)


@pytest.mark.parametrize("kept", [0, 10, 500, -30])
def test_a_truncated_file_is_named(tmp_path, kept):
    path = saved(tmp_path / "mine.npz")
    content = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "mine.npz").write_bytes(content[:kept])
    with pytest.raises(DataError, match=r"cannot be read as an \.npz archive") as error:
        load(path)
    assert path in str(error.value)


def test_a_single_array_under_another_name_is_told_from_an_archive(tmp_path):
    with open(tmp_path / "mine.npz", "wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"mine\.npz: a single array, not an \.npz archive"):
        load(str(tmp_path / "mine.npz"))


def test_a_folder_is_not_a_data_set(tmp_path):
    (tmp_path / "mine.npz").mkdir()
    with pytest.raises(DataError, match=r"mine\.npz: cannot be read"):
        load(str(tmp_path / "mine.npz"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no such file: .*/nowhere\.npz"):
        load(str(tmp_path / "nowhere.npz"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        DataError, match=r"cannot write the cache .*/file/arrays.*set GEOSWEEP_CACHE"
    ):
        load("digits")


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("mnist", "MNIST", (28, 28)),
        ("fashion_mnist", "FashionMNIST", (28, 28)),
        ("cifar10", "CIFAR10", (32, 32, 3)),
        ("cifar100", "CIFAR100", (32, 32, 3)),
    ],
)
def test_other_data_sets_come_through_torchvision_once(
    cache, monkeypatch, capsys, name, kind, shape
):
    content, asked = arrays(shape), []

    class Fake:
        def __init__(self, root, train, download):
            asked.append((root, train, download))
            split = "train" if train else "test"
            self.data = content[f"x_{split}"]
            self.targets = content[f"y_{split}"].tolist()

    monkeypatch.setattr(torchvision.datasets, kind, Fake)
    for _ in range(2):
        assert_array_equal(load(name).x_test.reshape(-1, *shape), content["x_test"])
    root = str(cache.resolve() / "downloads")
    assert asked == [(root, True, True), (root, False, True)]
    assert f"{name}: downloading to {root}" in capsys.readouterr().err


def test_without_a_network_it_says_how_to_bring_the_data(cache, monkeypatch):
    class Unreachable:
        def __init__(self, *_, **__):
            raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets, "MNIST", Unreachable)
    with pytest.raises(DataError, match=r"put a mnist\.npz with x_train.* --data or GEOSWEEP_DATA"):
        load("mnist")
    assert [p for p in (cache / "arrays-2").iterdir() if p.is_dir()] == []
