"""Correlations of scores with accuracy: the coefficients, their intervals and p values, the
scopes of a sweep, and single points."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_sweep, made_up_trial, paper_sweep
from scipy import stats

from analysis import correlation
from analysis.measures import correlations as correlations_module
from analysis.measures import resampling
from analysis.measures.association import METHODS, association
from analysis.measures.correlations import SCORES, WITHIN, correlations, left_out
from analysis.measures.points import COLUMNS, auc, influences, interval, points
from analysis.results import Results, load
from scoring.tables import write_table

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


def test_the_same_numbers_come_each_time(tmp_path: Path) -> None:
    results = load(made_up_sweep(tmp_path))
    once = correlations(results)
    resampling._permutations.cache_clear()
    pd.testing.assert_frame_equal(once, correlations(results))


# A sweep


def chosen(table: pd.DataFrame, score: str = "lss", method: str = "spearman") -> pd.DataFrame:
    """Rows of a score and a method over cells, by scope and network."""
    rows = table[(table.score == score) & (table.method == method) & (table.scope != WITHIN)]
    return rows.set_index(rows.network.fillna("all"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "plain", "resnet", "pooled"),
    [
        (4, -0.81, -0.88, -0.59),
        (5, -0.30, -0.70, -0.42),
        (6, -0.50, -0.20, -0.84),
        (7, -0.20, 0.60, -0.71),
    ],
)
def test_the_papers_own_tables(
    tmp_path: Path, table: int, plain: float, resnet: float, pooled: float
) -> None:
    rows = chosen(correlations(load(paper_sweep(tmp_path, table)), resamples=200))
    found = rows.value.round(2).to_dict()
    assert (found["plain"], found["resnet"], found["pooled"]) == (plain, resnet, pooled)
    assert rows.warning.str.contains("Simpson").any() == (table == 7)


def test_simpsons_paradox_is_told_from_networks_that_differ(tmp_path: Path) -> None:
    rows = chosen(correlations(load(paper_sweep(tmp_path, 7)), resamples=50))
    assert rows.warning.to_dict() == {
        "plain": "n < 10; networks differ in sign",
        "resnet": "n < 10; Simpson's paradox: opposite when pooled; networks differ in sign",
        "pooled": "Simpson's paradox: opposite within resnet; networks differ in sign",
        "partial": "networks differ in sign",
    }


def two_networks(root: Path, fall: bool = False, **change: object) -> Results:
    """LSS rises with accuracy in ten cells of each network; as ResNets are better, and lower
    in LSS, it falls when they are pooled. With ``fall`` it falls within ResNets, too."""
    for i in range(10):
        made_up_trial(root, "plain", i / 100, lss=20 + i, test_accuracy=0.1 + i / 100, **change)
        lss = 10 - i if fall else 1 + i
        made_up_trial(root, "resnet", i / 100, lss=lss, test_accuracy=0.8 + i / 100, **change)
    return load(root)


def test_pooling_that_turns_every_correlation_round_is_simpsons_paradox(tmp_path: Path) -> None:
    rows = chosen(correlations(two_networks(tmp_path), resamples=50))
    assert (rows.value > 0).to_dict() == {
        "plain": True, "resnet": True, "pooled": False, "partial": True
    }  # fmt: skip
    assert rows.warning.to_dict() == {
        "plain": "Simpson's paradox: opposite when pooled",
        "resnet": "Simpson's paradox: opposite when pooled",
        "pooled": "Simpson's paradox: opposite within plain and resnet",
        "partial": "",
    }


def test_networks_that_agree_with_the_pooled_sign_give_no_warning(tmp_path: Path) -> None:
    for i in range(10):
        for network, lss in (("plain", 20), ("resnet", 10)):
            made_up_trial(tmp_path, network, i / 100, lss=lss - i, test_accuracy=0.5 + i / 100)
    rows = chosen(correlations(load(tmp_path), resamples=50))
    assert set(rows.warning) == {""}


@pytest.mark.slow
def test_there_is_a_row_for_each_scope_outcome_score_and_method(tmp_path: Path) -> None:
    for dataset in ("digits", "mnist"):
        two_networks(tmp_path, fall=dataset == "mnist", dataset=dataset)
    table = correlations(load(tmp_path), resamples=50)
    scopes = ["stratum", "stratum", "networks pooled", "networks partial"] * 2
    scopes += ["all pooled", "all partial"]
    assert len(table) == len(scopes) * len(SCORES) * len(METHODS)
    rows = chosen(table)
    assert rows.scope.tolist() == scopes
    assert rows.n.tolist() == [10, 10, 20, 20] * 2 + [40, 40]
    assert rows.network.tolist()[:4] == ["plain", "resnet", "pooled", "partial"]
    assert rows.dataset.tolist()[:8] == ["digits"] * 4 + ["mnist"] * 4
    assert rows.iloc[-2:][["dataset", "layers", "stages", "network"]].isna().all(axis=None)
    pooled, partial = rows.warning.tolist()[-2:]
    assert pooled == "Simpson's paradox: opposite within 3 of 4 strata; strata differ in sign"
    assert partial == "strata differ in sign"
    assert table[table.score == "energy"].value.isna().all()


def test_every_p_value_counts_in_the_correction(tmp_path: Path) -> None:
    table = correlations(two_networks(tmp_path), resamples=100)
    known = table.p.notna()
    assert 0 < known.sum() < len(table)
    expected = stats.false_discovery_control(table.p[known])
    np.testing.assert_allclose(table.p_adjusted[known], expected)
    assert table.p_adjusted[~known].isna().all()


def test_replicates_are_averaged_before_anything_else(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    accuracy, lss = random.normal(size=(2, 5, 3))
    for i in range(5):
        for seed in range(3):
            given = {"test_accuracy": accuracy[i, seed], "lss": lss[i, seed]}
            made_up_trial(tmp_path, gamma=i / 100, seed=seed, **given)
    row = chosen(correlations(load(tmp_path))).loc["resnet"]
    assert (row.n, row.trials, row.gammas) == (5, 15, 5)
    expected = association(accuracy.mean(axis=1), lss.mean(axis=1))
    np.testing.assert_allclose(row.value, expected["value"])
    np.testing.assert_allclose(row.p, expected["p"])


def test_pooled_rows_have_a_value_but_no_p_value(tmp_path: Path) -> None:
    table = correlations(two_networks(tmp_path), resamples=100)
    pooled = table.scope == "networks pooled"
    known = table.value.notna()
    assert (pooled & known).any()
    assert table.p[known].isna().eq(pooled[known]).all()


def seeds_in_cells(root: Path, effect: float, within: float) -> Results:
    """8 gammas x 4 seeds; LSS and accuracy share ``effect`` by gamma, and ``within`` a cell."""
    random = np.random.default_rng(11)
    for i in range(8):
        for seed in range(4):
            a, b = random.normal(size=2)
            given = {"lss": effect * i + a, "test_accuracy": effect * i + b + within * a}
            made_up_trial(root, gamma=i / 100, seed=seed, **given)
    return load(root)


@pytest.mark.slow
def test_within_gamma_only_differences_between_seeds_count(tmp_path: Path) -> None:
    results = seeds_in_cells(tmp_path / "gamma", effect=3.0, within=0.0)
    rows = correlations(results, resamples=400)
    rows = rows[(rows.score == "lss") & (rows.method == "pearson")].set_index("scope")
    assert rows.loc["stratum", "p"] < 0.01
    row = rows.loc[WITHIN]
    left = results.trials[["lss", "test_accuracy"]]
    left = left - left.groupby(results.trials.gamma).transform("mean")
    np.testing.assert_allclose(row.value, left.corr().iloc[0, 1])
    assert (row.n, row.trials, row.gammas) == (32, 32, 8)
    assert row.p > 0.05
    assert np.isnan([row.low, row.high]).all()
    seeds_in_cells(tmp_path / "seeds", effect=0.0, within=3.0)
    rows = correlations(load(tmp_path / "seeds"), resamples=400)
    assert (rows.p[(rows.score == "lss") & (rows.scope == WITHIN)] < 0.01).all()


def test_without_replicates_there_are_no_rows_within_gamma(tmp_path: Path) -> None:
    table = correlations(two_networks(tmp_path), resamples=50)
    assert WITHIN not in set(table.scope)


def test_another_setting_that_varies_makes_another_cell(tmp_path: Path) -> None:
    for size in (64, 128):
        made_up_trial(tmp_path, seed=size, batch_size=size)
    row = chosen(correlations(load(tmp_path))).loc["resnet"]
    assert (row.n, row.trials, row.gammas) == (2, 2, 1)


@pytest.mark.slow
def test_trials_that_are_not_done_or_have_collapsed_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    results = two_networks(tmp_path / "done")
    two_networks(tmp_path / "more")
    outlying = {"lss": 1e3, "test_accuracy": 1e3}
    for i, status in enumerate(("stopped", "stopped", "diverged", "failed", "done")):
        collapsed = status == "done"
        made_up_trial(
            tmp_path / "more", gamma=1 + i, status=status, collapsed=collapsed, **outlying
        )
    more = load(tmp_path / "more")
    pd.testing.assert_frame_equal(correlations(results), correlations(more))
    assert left_out(results) == {"stopped": 0, "diverged": 0, "failed": 0, "collapsed": 0}
    assert left_out(more) == {"stopped": 2, "diverged": 1, "failed": 1, "collapsed": 1}


def test_an_infinite_lss_is_in_no_correlation_by_any_method(tmp_path: Path) -> None:
    for i in range(6):
        lss = np.inf if i == 2 else i**2
        made_up_trial(tmp_path, gamma=i / 100, lss=lss, test_accuracy=0.5 + i / 100)
    table = correlations(load(tmp_path), resamples=50)
    lss = table[table.score == "lss"]
    assert lss.n.tolist() == lss.trials.tolist() == [5, 5, 5]
    assert np.isfinite(lss.value).all()
    assert set(table[table.score == "lsr"].n) == {6}


def test_an_ots_is_correlated_at_equal_m_only(tmp_path: Path) -> None:
    for i in range(12):
        m = 1000 if i < 6 else 500
        made_up_trial(tmp_path, gamma=i / 100, points=m, ots=i / 20, test_accuracy=i / 20, gap=i)
    table = correlations(load(tmp_path), resamples=50)
    for score in ("ots", "gap"):
        row = chosen(table, score).loc["resnet"]
        assert np.isnan([row.value, row.p, row.p_adjusted]).all()
        assert (row.n, row.warning) == (12, "several m")
    row = chosen(table).loc["resnet"]
    assert np.isfinite(row.value)
    assert row.warning == ""


def test_every_outcome_that_was_measured_is_correlated(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        correlations_module, "OUTCOMES", ("test_accuracy", "movement", "nonsense", "energy")
    )
    for i in range(5):
        made_up_trial(tmp_path, gamma=i / 100, movement=float(i), lss=float(-i))
    table = correlations(load(tmp_path), resamples=50)
    assert table.outcome.unique().tolist() == ["test_accuracy", "movement"]
    assert chosen(table[table.outcome == "movement"]).value.tolist() == [-1.0]


def robust_sweep(root: Path, **change: object) -> Results:
    """LSS, accuracy and accuracy under noise in 12 cells; the last follows accuracy, not LSS."""
    random = np.random.default_rng(10)
    for i in range(12):
        accuracy, lss = random.normal(size=2) + 2 * random.normal()
        auc = {"noise_auc": accuracy + 0.1 * random.normal(), "test_accuracy": accuracy}
        made_up_trial(root, gamma=i / 100, lss=lss, **{**auc, **change})
    return load(root)


def test_accuracy_under_noise_counts_beside_accuracy_and_with_it_held_fixed(tmp_path: Path) -> None:
    results = robust_sweep(tmp_path)
    table = correlations(results, resamples=200)
    names = ["test_accuracy", "noise_auc", "noise_auc given test_accuracy"]
    assert table.outcome.unique().tolist() == names
    assert len(table) == len(names) * len(SCORES) * len(METHODS)
    rows = table[(table.score == "lss") & (table.method == "spearman")].set_index("outcome")
    trials = results.trials.sort_values("gamma")
    x, y, z = (trials[n].to_numpy() for n in ("noise_auc", "lss", "test_accuracy"))
    assert rows.value["noise_auc"] == pytest.approx(association(x, y)["value"])
    expected = association(x, y, resamples=200, held=z)
    given = rows.loc["noise_auc given test_accuracy"]
    assert (given.value, given.p) == (pytest.approx(expected["value"]), expected["p"])
    assert rows.value["noise_auc"] > 0.5 > abs(given.value)
    known = table.p.notna()
    adjusted = stats.false_discovery_control(table.p[known])  # over all outcomes
    np.testing.assert_allclose(table.p_adjusted[known], adjusted)


def test_areas_under_other_settings_are_not_correlated(tmp_path: Path) -> None:
    robust_sweep(tmp_path, evaluations='{"noise": {"levels": [0, 8]}}')
    rows = chosen(correlations(load(tmp_path), resamples=50))
    assert rows.value.notna().all()
    other = '{"noise": {"levels": [0, 16]}}'
    made_up_trial(tmp_path, gamma=1.0, noise_auc=0.5, evaluations=other)
    rows = chosen(correlations(load(tmp_path), resamples=50)).set_index("outcome")
    assert rows.value.notna().to_dict() == {
        "test_accuracy": True, "noise_auc": False, "noise_auc given test_accuracy": False
    }  # fmt: skip
    assert rows.warning["noise_auc"] == "several settings"


def test_a_sweep_in_which_nothing_is_done_gives_empty_tables(tmp_path: Path) -> None:
    made_up_trial(tmp_path, status="failed")
    results = load(tmp_path)
    table = correlations(results)
    assert len(table) == len(points(results)) == 0
    assert {"scope", "outcome", "score", "method", "n", "value", "warning"} <= set(table)


# Points


@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_an_auc_is_the_share_of_couples_with_the_wrong_point_above(seed: int, m: int) -> None:
    random = np.random.default_rng(seed)
    score, wrong = random.integers(5, size=m).astype(float), random.integers(2, size=m) > 0
    found = auc(score, wrong)
    if wrong.all() or not wrong.any():
        assert np.isnan(found)
        return
    u = stats.mannwhitneyu(score[wrong], score[~wrong]).statistic
    np.testing.assert_allclose(found, u / (wrong.sum() * (~wrong).sum()))
    above = score[wrong][:, None] - score[~wrong]
    np.testing.assert_allclose(found, np.mean(above > 0) + np.mean(above == 0) / 2)


def write_points(root: Path, trial: str, wrong: list[int], lss: list[float], **change) -> None:
    """A trial's points: those in ``wrong`` are given another class than theirs."""
    rows = [
        {"trial": trial, "stage": 1, "point": i, "label": 3, "lss": value, "lsr": 1 + value}
        | {"prediction": 5 if i in wrong else 3, "dataset": "digits", "network": "resnet"}
        | change
        for i, value in enumerate(lss)
    ]
    write_table(str(root), "samples", trial, rows)


@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_points_pull_an_auc_as_a_small_change_of_their_weight_does(seed: int, m: int) -> None:
    random = np.random.default_rng(seed)
    score, wrong = random.integers(5, size=m).astype(float), np.arange(m) % 3 == 0
    pull = influences(score, wrong)
    np.testing.assert_allclose(pull.sum(), 0, atol=1e-9)
    copies = 2000 * m  # a point more among so many changes the AUC by its pull over their number
    weights = np.full(m, 2000.0)
    for i in range(m):
        heavier = weights + (np.arange(m) == i)
        before, after = (weighted_auc(score, wrong, w) for w in (weights, heavier))
        np.testing.assert_allclose((after - before) * copies, pull[i], atol=2e-2)


def weighted_auc(score: np.ndarray, wrong: np.ndarray, weight: np.ndarray) -> float:
    """The AUC if point i is there ``weight[i]`` times."""
    above = np.sign(score[wrong][:, None] - score[~wrong]) / 2 + 0.5
    couples = weight[wrong][:, None] * weight[~wrong]
    return float((above * couples).sum() / couples.sum())


def test_a_made_up_sweep_point_by_point(tmp_path: Path) -> None:
    rising = [1.0, 2.0, 3.0, 4.0, np.nan]
    wrongs = {(0.0, 0): [3], (0.0, 1): [0], (0.1, 0): [2, 3], (0.2, 0): [2], (0.3, 0): []}
    for (gamma, seed), wrong in wrongs.items():
        write_points(tmp_path, made_up_trial(tmp_path, gamma=gamma, seed=seed), wrong, rising)
    lost = made_up_trial(tmp_path, gamma=0.4, collapsed=True)
    write_points(tmp_path, lost, [0], rising)
    table = points(load(tmp_path, columns={"samples": COLUMNS}))
    assert table.score.tolist() == ["lss", "lsr"]
    row = table.iloc[0]
    assert (row.dataset, row.network, row.stages, row.stage) == ("digits", "resnet", 1, 1)
    assert (row.cells, row.seeds, row.trials, row.left_out) == (3, 2, 4, 1)
    assert (row.m, row.wrong) == (4, 5 / 5)
    np.testing.assert_allclose(row.auc, np.mean([(1 + 0) / 2, 1, 2 / 3]))  # cells, of seeds first
    assert 0 <= row.low < row.auc < row.high <= 1
    assert row.p > 0.05


def test_the_interval_of_few_seeds_is_students_with_the_variance_over_points() -> None:
    seeds, pulls = np.array([0.6, 0.7, 0.65]), np.random.default_rng(0).normal(size=(3, 50))
    low, high, p = interval(0.65, seeds, 0 * pulls)
    np.testing.assert_allclose([low, high], stats.t.interval(0.95, 2, 0.65, stats.sem(seeds)))
    np.testing.assert_allclose(p, stats.ttest_1samp(seeds, 0.5).pvalue)
    wider = interval(0.65, seeds, 0.1 * pulls)
    assert wider[1] - wider[0] > high - low


@pytest.mark.parametrize("seeds", [2, 8])
def test_one_seed_or_no_spread_has_no_interval(seeds: int) -> None:
    assert np.isnan(interval(0.7, np.array([0.7]), np.ones((1, 9)))).all()
    assert np.isnan(interval(0.7, np.full(seeds, 0.7), np.zeros((seeds, 9)))).all()


def test_each_stage_has_a_row_of_its_own(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path, stages=4)
    rows = [
        {"trial": trial, "stage": k, "label": 0, "prediction": i, "lss": k * i, "lsr": -i}
        for k in (1, 2)
        for i in (0, 1)
    ]
    write_table(str(tmp_path), "samples", trial, rows)
    table = points(load(tmp_path))
    assert table[["stages", "stage", "score", "auc"]].to_numpy().tolist() == [
        [4, 1, "lss", 1.0],
        [4, 1, "lsr", 0.0],
        [4, 2, "lss", 1.0],
        [4, 2, "lsr", 0.0],
    ]
    assert table[["low", "high", "p", "p_adjusted"]].isna().all(axis=None)  # of one cell


def test_points_without_a_class_say_nothing(tmp_path: Path) -> None:
    assert len(points(load(made_up_sweep(tmp_path)))) == 0


def shared_points(
    random: np.random.Generator, sharing: float, seeds: int, effect: float = 0
) -> float:
    """The p value of points in 3 cells per seed. A share of the points is the same everywhere."""
    m, cells = 60, 3
    same = random.random(m) < sharing

    def drawn() -> tuple[np.ndarray, np.ndarray]:
        wrong = random.random(m) < 0.4
        return wrong, random.normal(size=m) + effect * wrong

    everywhere, values, pulls = drawn(), [], []
    for _ in range(seeds):
        of_seed = []
        for _ in range(cells):
            wrong, score = (np.where(same, *v) for v in zip(everywhere, drawn(), strict=True))
            of_seed.append((auc(score, wrong), influences(score, wrong)))
        values.append(np.mean([value for value, _ in of_seed]))
        pulls.append(np.mean([pull for _, pull in of_seed], axis=0))
    return interval(float(np.mean(values)), np.array(values), np.array(pulls), 400)[2]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 6])
@pytest.mark.parametrize("sharing", [0, 0.5, 0.9])
def test_points_that_say_nothing_are_rarely_sure_however_many_are_shared(
    sharing: float, seeds: int
) -> None:
    random = np.random.default_rng(2)
    p = np.array([shared_points(random, sharing, seeds) for _ in range(300)])
    assert (p < 0.05).mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("seeds", [3, 6])
def test_points_that_say_much_are_sure(seeds: int) -> None:
    random = np.random.default_rng(3)
    p = np.array([shared_points(random, 0.5, seeds, effect=2) for _ in range(30)])
    assert (p < 0.05).mean() >= 0.8


# The command


def sweep_with_points(root: Path) -> Path:
    made_up_sweep(root)
    for gamma, wrong in ((0.0, [0]), (1e-2, [1])):
        write_points(root, made_up_trial(root, gamma=gamma), wrong, [1.0, 2.0, 3.0])
    return root


@pytest.mark.slow
@pytest.mark.parametrize("table", ["correlations", "points"])
def test_csv_and_json_hold_one_table_with_all_digits(tmp_path: Path, table: str, capsys) -> None:
    sweep = sweep_with_points(tmp_path)
    assert correlation.main([str(sweep), "--format", "csv", "--table", table]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    results = load(sweep)
    expected = correlations(results) if table == "correlations" else points(results)
    assert list(found) == list(expected)
    assert len(found) == len(expected) > 0
    numbers = expected.select_dtypes("number").columns
    np.testing.assert_allclose(found[numbers], expected[numbers].to_numpy(float, na_value=np.nan))
    assert correlation.main([str(sweep), "--format", "json", "--table", table]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(expected)


def test_without_a_choice_csv_holds_the_correlations(tmp_path: Path, capsys) -> None:
    assert correlation.main([str(made_up_sweep(tmp_path)), "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("scope,dataset,")


def test_both_tables_are_printed_to_read(tmp_path: Path, capsys) -> None:
    assert correlation.main([str(sweep_with_points(tmp_path))]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Trials left out: 1 diverged, 1 failed.\n")
    assert "| networks partial | partial | test accuracy | 1/LSS | kendall | 8 | 16 | 4 |" in text
    assert "energy" not in text  # which no trial has
    assert "| stratum | plain | test accuracy | LSS | spearman | 4 | 8 | 4 |" in text
    assert "| stage | score | cells |" in text
    assert correlation.main([str(tmp_path), "--format", "latex"]) == 0
    text = capsys.readouterr().out
    assert text.count(r"\toprule") == 2
    assert text.startswith("% Trials left out: 1 diverged, 1 failed.\n")


def test_a_folder_that_is_not_there_ends_with_status_2_and_one_message(
    tmp_path: Path, capsys
) -> None:
    assert correlation.main([str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("analysis.correlation: ")
    assert said.count("\n") == 1
