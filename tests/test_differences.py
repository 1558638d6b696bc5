"""Differences of means over seeds: their intervals, and sides that are surely equal."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.measures.comparisons import equal
from analysis.measures.means import welch


def test_the_interval_of_a_difference_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        x, y = rng.normal(0, 1, 5), rng.normal(0.5, 3, 4)
        change, half, _ = welch(x, y)
        covered += abs(change - 0.5) <= half
    assert 0.90 <= covered / 400 <= 0.99


def test_the_difference_of_two_samples_is_welchs() -> None:
    x, y = np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0])
    interval = stats.ttest_ind(y, x, equal_var=False).confidence_interval()
    change, half, p = welch(x, y)
    np.testing.assert_allclose(change, y.mean() - x.mean())
    np.testing.assert_allclose([change - half, change + half], interval)
    np.testing.assert_allclose(p, stats.ttest_ind(x, y, equal_var=False).pvalue)
    np.testing.assert_allclose(welch(np.ones(2), np.ones(3)), (0, np.nan, np.nan))


def test_a_side_whose_seeds_all_agree_has_an_interval_without_a_warning() -> None:
    x, y = np.full(3, 0.1), np.array([0.3, 0.4, 0.5])
    half = stats.t.ppf(0.975, 2) * stats.sem(y)
    np.testing.assert_allclose(welch(x, y)[:2], [0.3, half])
    nearly = x + np.array([0, 1e-16, -1e-16])
    np.testing.assert_allclose(welch(nearly, x + 0.2), [0.2, np.nan, np.nan])


@pytest.mark.parametrize(
    ("shift", "agrees", "sure"),
    [(0.0, True, True), (0.004, True, True), (0.0095, True, False), (0.03, False, True)],
)
def test_sides_are_surely_equal_if_the_whole_interval_is_within_the_margins(
    shift: float, agrees: bool, sure: bool
) -> None:
    x = pd.Series([0.5, 0.502, 0.504], name="train_accuracy")
    for a, b in ((x, x + shift), (x + shift, x)):
        (found,) = equal("", ("plain", "ResNet"), a, b, 0.01)
        assert (found.agrees, found.p < 0.05) == (agrees, sure)
        change, half, _ = welch(a.to_numpy(), b.to_numpy())
        inside = abs(change) + half < 0.01
        assert (found.agrees and found.p < 0.05) == inside
