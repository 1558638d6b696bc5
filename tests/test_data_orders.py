"""Data sets that are sorted by class: what is said, and the order that is taken instead."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from models import datasets, order
from models.archives import ARRAYS
from models.datasets import load

pytestmark = pytest.mark.usefixtures("cache")


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


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.arange(100) % 10 + 1, "has 10 different labels from 1 to 10, so networks get 11 outp"),
        (np.arange(100) % 9 * 1000, "has 9 different labels from 0 to 8000, so networks get 8,001"),
    ],
)
def test_numbers_of_classes_that_no_train_image_has_are_warned_of(labels, told):
    (said,) = order.warnings("mine.npz", labels, labels, 100)
    assert told in said
    assert "numpy.unique(y, return_inverse=True)[1]" in said
    renumbered = np.unique(labels, return_inverse=True)[1]
    assert order.warnings("mine.npz", renumbered, renumbered, 100) == []


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
