"""Coefficients of correlation, their intervals and p values."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_sweep
from scipy import stats

from analysis.measures import resampling
from analysis.measures.association import METHODS, association
from analysis.measures.correlations import correlations
from analysis.results import load

SCIPY = {"spearman": stats.spearmanr, "pearson": stats.pearsonr, "kendall": stats.kendalltau}
TRUTH = {  # of bivariate normal numbers whose Pearson correlation is r
    "spearman": lambda r: 6 / np.pi * np.arcsin(r / 2),
    "pearson": lambda r: r,
    "kendall": lambda r: 2 / np.pi * np.arcsin(r),
}
methods = pytest.mark.parametrize("method", METHODS)


def normal_pairs(random: np.random.Generator, n: int, r: float) -> np.ndarray:
    """Two columns, (2, n), whose Pearson correlation is r."""
    a, b = random.normal(size=(2, n))
    return np.array([a, r * a + np.sqrt(1 - r * r) * b])


@pytest.fixture
def tied() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs with many ties, in three strata of their own levels."""
    random = np.random.default_rng(4)
    strata = np.array(["b", "a", "c"])[random.integers(3, size=40)]
    level = pd.Series(strata).map({"a": 0, "b": 2, "c": 5}).to_numpy()
    x, y = normal_pairs(random, 40, 0.5).round()
    return x + level, y - level, strata


# The coefficients


@methods
@pytest.mark.parametrize("n", [3, 4, 12, 70])
def test_the_coefficients_are_those_of_scipy(method: str, n: int) -> None:
    x, y = normal_pairs(np.random.default_rng(n), n, 0.4).round(1)
    found = association(x, y, method=method)
    np.testing.assert_allclose(found["value"], SCIPY[method](x, y).statistic)
    assert found["n"] == n


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_a_partial_correlation_is_that_of_the_residuals(method: str, tied) -> None:
    x, y, strata = tied
    dummies = (strata[:, None] == np.unique(strata)).astype(float)
    columns = np.stack([stats.rankdata(v) if method == "spearman" else v for v in (x, y)], axis=1)
    fitted = dummies @ np.linalg.lstsq(dummies, columns)[0]
    expected = np.corrcoef((columns - fitted).T)[0, 1]
    np.testing.assert_allclose(association(x, y, strata, method)["value"], expected)


def test_a_partial_tau_counts_the_couples_within_strata(tied) -> None:
    x, y, strata = tied
    agree = untied_x = untied_y = 0
    for i in range(len(x)):
        for j in range(i):
            if strata[i] == strata[j]:
                agree += np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])
                untied_x += x[i] != x[j]
                untied_y += y[i] != y[j]
    found = association(x, y, strata, "kendall")
    np.testing.assert_allclose(found["value"], agree / np.sqrt(untied_x * untied_y))


@methods
def test_levels_of_strata_change_no_partial_value_within(method: str) -> None:
    x, y = normal_pairs(np.random.default_rng(3), 30, 0.0)
    strata = np.arange(30) % 3
    pooled = association(x + 9 * strata, y - 9 * strata, method=method)
    partial = association(x + 9 * strata, y - 9 * strata, strata, method)
    assert pooled["value"] < -0.6
    assert abs(partial["value"]) < 0.3
    if method != "spearman":  # whose ranks are over all pairs
        np.testing.assert_allclose(partial["value"], association(x, y, strata, method)["value"])


@pytest.mark.parametrize("method", ["spearman", "pearson"])
@pytest.mark.parametrize("within", [False, True])
def test_a_column_held_fixed_is_taken_out_by_regression(method: str, within: bool, tied) -> None:
    x, y, strata = tied
    z = x + np.random.default_rng(5).normal(size=len(x)).round(1)
    means = (strata[:, None] == np.unique(strata)).astype(float) if within else np.ones((len(x), 1))
    columns = [stats.rankdata(v) if method == "spearman" else v for v in (x, y, z)]
    given = np.column_stack([means, columns[2]])
    left = [v - given @ np.linalg.lstsq(given, v)[0] for v in columns[:2]]
    found = association(x, y, strata if within else None, method, held=z)
    np.testing.assert_allclose(found["value"], np.corrcoef(left)[0, 1])
    assert found["low"] < found["value"] < found["high"]


@methods
@pytest.mark.parametrize("n", [4, 5, 6])
def test_fewer_than_six_pairs_have_a_p_value_but_no_interval(method: str, n: int) -> None:
    x, y = normal_pairs(np.random.default_rng(n), n, 0.5)
    found = association(x, y, method=method, resamples=100)
    assert np.isfinite(found["p"])
    assert np.isfinite([found["low"], found["high"]]).all() == (n >= 6)


def test_kendalls_with_a_column_held_fixed_is_partial_tau() -> None:
    x, y = normal_pairs(np.random.default_rng(6), 20, 0.5)
    z = x + y
    xy, xz, yz = (stats.kendalltau(*p).statistic for p in ((x, y), (x, z), (y, z)))
    found = association(x, y, method="kendall", held=z)
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    np.testing.assert_allclose(found["value"], expected)
    assert np.isnan(found["p"])


@methods
def test_a_column_that_says_all_of_a_side_leaves_nothing(method: str) -> None:
    x, y = normal_pairs(np.random.default_rng(7), 12, 0.5)
    found = association(x, y, method=method, held=2 * x + 1)
    assert found["n"] == 12
    assert np.isnan([found["value"], found["low"], found["high"], found["p"]]).all()


@methods
def test_a_constant_held_fixed_changes_no_value(method: str) -> None:
    x, y = normal_pairs(np.random.default_rng(8), 12, 0.5)
    found = association(x, y, method=method, held=np.ones(12))
    np.testing.assert_allclose(found["value"], association(x, y, method=method)["value"])


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_p_values_are_uniform_where_a_third_column_makes_all_of_a_correlation(method: str) -> None:
    random = np.random.default_rng(9)
    p = []
    for _ in range(300):
        a, b, z = random.normal(size=(3, 10))
        x, y = a + z, b + z
        p.append(association(x, y, method=method, resamples=100, held=z)["p"])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.09


@given(st.integers(0, 2**32 - 1), st.integers(3, 15), st.sampled_from(METHODS))
def test_sides_may_be_exchanged_and_turned_round(seed: int, n: int, method: str) -> None:
    x, y = np.random.default_rng(seed).integers(-3, 4, size=(2, n))
    found = association(x, y, method=method, resamples=30)
    exchanged = association(y, x, method=method, resamples=30)
    turned = association(-x, y, method=method, resamples=30)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(found[name], exchanged[name], atol=1e-9)
    np.testing.assert_allclose(found["value"], -turned["value"], atol=1e-9)
    if np.isfinite(found["value"]):
        assert -1 <= found["value"] <= 1


@pytest.mark.parametrize("method", ["spearman", "kendall"])
def test_ranks_do_not_mind_a_change_of_scale(method: str) -> None:
    x, y = normal_pairs(np.random.default_rng(5), 20, 0.6)
    assert association(np.exp(5 * x), y**3, method=method) == association(x, y, method=method)


@methods
def test_pairs_that_are_not_finite_are_left_out(method: str) -> None:
    x, y = normal_pairs(np.random.default_rng(6), 12, 0.6)
    more = association(
        np.append(x, [np.nan, 1.0, np.inf, 0.0]), np.append(y, [0.0, np.nan, 1.0, -np.inf]),
        method=method,
    )  # fmt: skip
    assert more == association(x, y, method=method)


@methods
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        ([1.0, 2.0], [1.0, 2.0]),
        ([0.7] * 9, range(9)),
        (range(9), [0.1] * 9),
        ([np.nan] * 9, range(9)),
    ],
)
def test_without_three_pairs_that_vary_there_is_no_correlation(x, y, method: str) -> None:
    found = association(np.array(x, float), np.array(y, float), method=method)
    assert np.isnan([found[name] for name in ("value", "low", "high", "p")]).all()


@methods
def test_three_pairs_have_a_value_but_no_interval(method: str) -> None:
    found = association(np.arange(3.0), np.array([1.0, 2.0, 4.0]), method=method)
    assert found["value"] > 0.9
    assert np.isnan([found["low"], found["high"], found["p"]]).all()


@methods
def test_what_is_constant_in_every_stratum_has_no_partial_correlation(method: str) -> None:
    strata = np.repeat([0.1, 0.2, 0.3], 4)
    found = association(strata, np.arange(12.0), strata, method)
    assert np.isnan(found["value"])


@methods
def test_resamples_that_are_constant_do_not_destroy_the_interval(method: str) -> None:
    found = association(np.array([1.0, 1, 1, 1, 1, 0.9]), np.arange(6.0), method=method)
    assert found["low"] <= found["value"] <= found["high"]


@methods
def test_strata_of_one_pair_do_no_harm(method: str) -> None:
    found = association(
        np.arange(9.0), np.arange(9.0) ** 2, np.repeat([0, 1, 2], [7, 1, 1]), method
    )
    assert found["value"] > 0.7
    assert 0 < found["p"] < 0.05


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="'cosine'; should be one of spearman, pearson, kendall"):
        association(np.arange(5.0), np.arange(5.0), method="cosine")


# Intervals and p values


@pytest.mark.slow
@methods
@pytest.mark.parametrize(("n", "r"), [(9, 0.0), (9, 0.8), (25, 0.6)])
def test_intervals_cover_the_truth_as_often_as_they_say(method: str, n: int, r: float) -> None:
    random = np.random.default_rng(7)
    found = [
        association(*normal_pairs(random, n, r), method=method, resamples=399) for _ in range(250)
    ]
    covered = np.mean([each["low"] <= TRUTH[method](r) <= each["high"] for each in found])
    assert 0.90 <= covered <= 0.99


@pytest.mark.slow
@methods
def test_partial_intervals_cover_the_truth_as_well(method: str) -> None:
    random = np.random.default_rng(8)
    strata = np.repeat([0.0, 0.5], 12)
    pairs = [normal_pairs(random, 24, 0.5) + np.outer([1, -1], strata) for _ in range(250)]
    large = normal_pairs(random, 4000, 0.5) + np.outer([1, -1], np.repeat([0.0, 0.5], 2000))
    truth = association(*large, np.repeat([0, 1], 2000), method, resamples=2)["value"]
    found = [association(*pair, strata, method, resamples=399) for pair in pairs]
    covered = np.mean([each["low"] <= truth <= each["high"] for each in found])
    assert 0.90 <= covered <= 0.99


@pytest.mark.slow
@methods
@pytest.mark.parametrize("n", [30, 60])
@pytest.mark.parametrize("levels", [1, 3])
def test_p_values_are_uniform_where_nothing_is_associated(method: str, n: int, levels: int) -> None:
    random = np.random.default_rng(n)
    strata = np.arange(n) % levels  # their levels alone are associated
    found = [
        association(*(random.normal(size=(2, n)) + 2 * strata), strata, method, resamples=199)
        for _ in range(150)
    ]
    assert stats.kstest([each["p"] for each in found], "uniform").pvalue > 0.01


@methods
def test_p_values_of_few_pairs_are_near_the_exact_ones(method: str) -> None:
    x, y = np.arange(6.0), np.array([1.0, 2, 3, 4, 6, 5.5])
    exact = stats.permutation_test(
        (x,), lambda x: abs(SCIPY[method](x, y).statistic), permutation_type="pairings",
        alternative="greater",
    )  # fmt: skip
    np.testing.assert_allclose(association(x, y, method=method)["p"], exact.pvalue, atol=0.01)


def test_the_p_value_of_a_long_tau_is_that_of_scipy() -> None:
    x, y = normal_pairs(np.random.default_rng(9), 80, 0.2).round(1)
    expected = stats.kendalltau(x, y, method="asymptotic").pvalue
    np.testing.assert_allclose(association(x, y, method="kendall")["p"], expected)


def test_a_long_stratified_tau_has_the_p_value_of_its_permutations(tied, monkeypatch) -> None:
    normal, permuted = [], []
    for limit, found in ((10, normal), (100, permuted)):
        monkeypatch.setattr(resampling, "PERMUTED", limit)
        for shift in range(0, 40, 4):
            x, y, strata = tied
            found.append(association(np.roll(x, shift), y, strata, "kendall")["p"])
    np.testing.assert_allclose(normal, permuted, atol=0.04)


# Units, which are permuted in all strata together


def by_seed(random: np.random.Generator, cells: int, seeds: int, share: float) -> np.ndarray:
    """Normal numbers of (cells x seeds) trials; a seed has a share of the variance in all cells."""
    own, common = random.normal(size=(cells, seeds)), random.normal(size=seeds)
    return np.sqrt(1 - share) * own + np.sqrt(share) * common


def labels(cells: int, seeds: int) -> dict[str, np.ndarray]:
    """Strata and units of (cells x seeds) trials."""
    cell, seed = np.indices((cells, seeds))
    return {"strata": cell.ravel(), "units": seed.ravel()}


@methods
@pytest.mark.parametrize("tied", [False, True])
def test_the_p_value_over_units_counts_all_orders_of_the_seeds(method: str, tied: bool) -> None:
    x, y = np.random.default_rng(12).normal(size=(2, 3, 4))
    y = y + 0.7 * x
    if tied:
        x, y = x.round(), y.round()

    def value(x: np.ndarray) -> float:
        return association(x.ravel(), y.ravel(), labels(3, 4)["strata"], method)["value"]

    as_far = [
        abs(value(x[:, [a, b, c, d]])) >= abs(value(x)) - 1e-9
        for a, b, c, d in permutations(range(4))
    ]
    assert len(as_far) == 24
    found = association(x.ravel(), y.ravel(), method=method, **labels(3, 4))
    np.testing.assert_allclose(found["p"], np.mean(as_far))
    assert found["value"] == value(x)


def test_a_column_held_fixed_is_taken_out_of_every_order_of_the_seeds() -> None:
    x, y, z = np.random.default_rng(13).normal(size=(3, 3, 4))
    y = y + x

    def left(v: np.ndarray, given: np.ndarray) -> np.ndarray:
        v, given = (u - u.mean(axis=1, keepdims=True) for u in (v, given))
        return v - given * (v * given).sum() / (given * given).sum()

    def value(x: np.ndarray) -> float:
        return np.corrcoef(left(x, z).ravel(), left(y, z).ravel())[0, 1]

    residuals = left(x, z)
    orders = [list(order) for order in permutations(range(4))]
    as_far = [abs(value(residuals[:, o])) >= abs(value(x)) - 1e-9 for o in orders]
    found = association(x.ravel(), y.ravel(), method="pearson", held=z.ravel(), **labels(3, 4))
    np.testing.assert_allclose(found["p"], np.mean(as_far))


def test_many_units_are_permuted_at_random() -> None:
    random = np.random.default_rng(14)
    x, y = by_seed(random, 2, 8, 0.5), by_seed(random, 2, 8, 0.5)
    y = y + 0.5 * x
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (x, y))
    orders = np.array([*permutations(range(8))])
    exact = np.mean(abs((a[:, orders] * b[:, None]).sum(axis=(0, 2))) >= abs((a * b).sum()))
    found = association(x.ravel(), y.ravel(), method="pearson", **labels(2, 8))
    np.testing.assert_allclose(found["p"], exact, atol=0.03)


def test_seeds_that_last_through_all_cells_give_false_positives_only_without_units() -> None:
    random = np.random.default_rng(15)
    within, joint = [], []
    for _ in range(150):
        x, y = (by_seed(random, 9, 5, 0.9).ravel() for _ in range(2))
        units = labels(9, 5)
        joint.append(association(x, y, **units, interval=False)["p"])
        strata = units["strata"]
        within.append(association(x, y, strata, resamples=99, interval=False)["p"])
    assert np.mean(np.array(within) <= 0.05) > 0.25
    assert np.mean(np.array(joint) <= 0.05) < 0.10
    assert stats.kstest(joint, "uniform").pvalue > 0.01


@methods
def test_the_order_of_the_rows_and_the_names_of_the_units_do_not_matter(method: str) -> None:
    random = np.random.default_rng(16)
    x, y = (by_seed(random, 3, 5, 0.5).ravel() for _ in range(2))
    units = labels(3, 5)
    order = random.permutation(15)
    moved = {name: label[order] for name, label in units.items()}
    moved["units"] = np.array(["e", "b", "c", "a", "d"])[moved["units"]]
    once = association(x, y, method=method, interval=False, **units)
    again = association(x[order], y[order], method=method, interval=False, **moved)
    for name in ("value", "p"):
        np.testing.assert_allclose(once[name], again[name])


@methods
def test_units_need_two_that_differ(method: str) -> None:
    x = np.arange(9.0)
    alone = association(x, x, method=method, **labels(9, 1))
    assert np.isnan([alone["value"], alone["p"]]).all()  # each cell is one trial
    constant = association(np.repeat(x, 4), np.arange(36.0), method=method, **labels(9, 4))
    assert np.isnan([constant["value"], constant["p"]]).all()
    same = association(np.tile([0.0, 0, 0, 1], 9), np.arange(36.0), method=method, **labels(9, 4))
    np.testing.assert_allclose(same["p"], 0.5)  # seed 3 is last in y, and first in as many orders


def test_strata_of_different_units_are_refused() -> None:
    x, units = np.arange(8.0), np.array([0, 1, 2, 3, 0, 1, 2, 4])
    with pytest.raises(ValueError, match="units; should be the same in all strata"):
        association(x, x, np.arange(8) // 4, units=units)
    with pytest.raises(ValueError, match="each of them once"):
        association(x, x, np.arange(8) // 4, units=units // 2)


def test_the_same_numbers_come_each_time(tmp_path: Path) -> None:
    results = load(made_up_sweep(tmp_path))
    once = correlations(results)
    resampling._permutations.cache_clear()
    pd.testing.assert_frame_equal(once, correlations(results))
