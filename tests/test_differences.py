"""Differences of means over seeds: their intervals, and sides that are surely equal."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.measures.comparisons import compare, equal, paired, reaches
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
    x = np.array([0.5, 0.502, 0.504])
    for a, b in ((x, x + shift), (x + shift, x)):
        sides = (trials(train_accuracy=side) for side in (a, b))
        (found,) = equal("", ("plain", "ResNet"), "train_accuracy", *sides, 0.01)
        assert (found.agrees, found.p < 0.05) == (agrees, sure)
        change, half, _ = welch(a, b)
        inside = abs(change) + half < 0.01
        assert (found.agrees and found.p < 0.05) == inside


def trials(collapsed: int = 0, **scores: np.ndarray) -> pd.DataFrame:
    """A trial for each seed, the first of which collapsed."""
    frame = pd.DataFrame(scores)
    seed = np.arange(len(frame))
    return frame.assign(seed=seed, trial=seed.astype("str"), collapsed=seed < collapsed)


SIDES = ("here", "there")
TESTS = {
    "compare": lambda a, b: compare("", SIDES, "lss", a, b, 1),
    "equal": lambda a, b: equal("", SIDES, "lss", a, b, 0.1),
    "paired": lambda a, b: paired("", SIDES, ("lss_initial", "lss"), b, 1),
    "reaches": lambda a, b: reaches("", "lss", b, 1.0, 1),
}
each_test = pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)


def two_sides(seeds: int, collapsed: int = 0) -> list[pd.DataFrame]:
    random = np.random.default_rng(seeds)
    return [
        trials(collapsed, lss=random.normal(2, 0.1, seeds), lss_initial=random.normal(2, 1, seeds))
        for _ in range(2)
    ]


@each_test
def test_trials_of_one_seed_are_no_replicates(test) -> None:
    """Two trials of a seed, such as those at two m, count as their mean."""
    for seeds in (1, 4):
        a, b = two_sides(seeds)
        apart = [
            pd.concat([side.assign(lss=side.lss + by) for by in (-0.01, 0.01)]) for side in (a, b)
        ]
        (once,), (twice,) = test(a, b), test(*apart)
        assert twice.numbers == once.numbers
        np.testing.assert_allclose(twice.p, once.p)
        assert np.isnan(once.p) == (seeds == 1)


@each_test
def test_collapsed_trials_are_left_out_of_scores_of_tracks_and_counted(test) -> None:
    a, b = two_sides(5, collapsed=2)
    (found,) = test(a, b)
    (without,) = test(a[~a.collapsed], b[~b.collapsed])
    assert found.left_out == {"0", "1"}
    assert found._replace(left_out=frozenset()) == without
    (nothing,) = test(a, b[b.collapsed])
    assert (nothing.compared, nothing.left_out) == (False, {"0", "1"})
    assert nothing.numbers.endswith("not compared: 2 trials collapsed")
    assert not list(test(a, b[:0]))


def test_accuracies_of_collapsed_trials_count() -> None:
    a, b = (trials(2, test_accuracy=np.array([0.1, 0.1, 0.8]) + by) for by in (0, 0.1))
    (found,) = compare("", SIDES, "test_accuracy", a, b, 1)
    assert "0.333 here, 0.433 there" in found.numbers
    assert not found.left_out
