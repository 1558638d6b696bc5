"""Correlations of scores with accuracy over the scopes of a sweep, and the command for them."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep, made_up_trial, paper_sweep, write_points
from made_up_evaluations import evaluated_with
from scipy import stats

from analysis import correlation
from analysis.measures import correlations as correlations_module
from analysis.measures.association import METHODS, association
from analysis.measures.correlations import SCORES, WITHIN, correlations, left_out, shared
from analysis.measures.points import points
from analysis.results import Results, load

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
    assert not rows.warning.str.contains("Simpson").any()
    assert rows.warning.str.contains("networks differ in sign").any() == (table == 7)


def test_networks_that_differ_in_sign_are_no_paradox(tmp_path: Path) -> None:
    table = correlations(load(paper_sweep(tmp_path, 7)), resamples=50)
    assert chosen(table).warning.to_dict() == {
        "plain": "n < 10; networks differ in sign",
        "resnet": "n < 10; networks differ in sign",
        "pooled": "networks differ in sign",
        "partial": "networks differ in sign",
    }
    said = correlation.correlation_sentence(table)
    assert said.endswith("Networks differ in sign, so do not pool them.")
    assert "Simpson" not in said


def two_networks(root: Path, fall: bool = False, **change: object) -> Results:
    """LSS rises with accuracy in ten cells of each network; as ResNets are better, and lower
    in LSS, it falls when they are pooled. With ``fall`` it falls within ResNets, too."""
    for i in range(10):
        made_up_trial(root, "plain", i / 100, lss=20 + i, test_accuracy=0.1 + i / 100, **change)
        lss = 10 - i if fall else 1 + i
        made_up_trial(root, "resnet", i / 100, lss=lss, test_accuracy=0.8 + i / 100, **change)
    return load(root)


def test_pooling_that_turns_every_correlation_round_is_simpsons_paradox(tmp_path: Path) -> None:
    table = correlations(two_networks(tmp_path), resamples=50)
    assert "the sign is opposite (Simpson's" in correlation.correlation_sentence(table)
    rows = chosen(table)
    assert (rows.value > 0).to_dict() == {
        "plain": True, "resnet": True, "pooled": False, "partial": True
    }  # fmt: skip
    assert rows.warning.to_dict() == {
        "plain": "Simpson's paradox: opposite when pooled",
        "resnet": "Simpson's paradox: opposite when pooled",
        "pooled": "Simpson's paradox: opposite within plain and resnet",
        "partial": "",
    }


@pytest.mark.parametrize("flat", [True, False])
def test_a_network_without_a_correlation_makes_no_paradox(tmp_path: Path, flat: bool) -> None:
    """Plain networks have one, and the pooled sign is opposite; ResNets have none, or two cells."""
    for i in range(10):
        made_up_trial(tmp_path, "plain", i / 100, lss=5 + i / 10, test_accuracy=0.5 + i / 100)
        if flat or i < 2:
            made_up_trial(tmp_path, "resnet", i / 100, lss=1 + i / 10, test_accuracy=0.9)
    rows = chosen(correlations(load(tmp_path), resamples=50))
    assert not rows.warning.str.contains("Simpson").any()


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
    assert pooled == partial == "strata differ in sign"
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
    """8 gammas x 6 seeds; LSS and accuracy share ``effect`` by gamma, and ``within`` a cell."""
    random = np.random.default_rng(11)
    for i in range(8):
        for seed in range(6):
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
    assert (row.n, row.trials, row.gammas) == (48, 48, 8)
    assert row.p > 0.05
    assert np.isnan([row.low, row.high]).all()
    seeds_in_cells(tmp_path / "seeds", effect=0.0, within=3.0)
    rows = correlations(load(tmp_path / "seeds"), resamples=400)
    assert (rows.p[(rows.score == "lss") & (rows.scope == WITHIN)] < 0.01).all()


def test_without_replicates_there_are_no_rows_within_gamma(tmp_path: Path) -> None:
    table = correlations(two_networks(tmp_path), resamples=50)
    assert WITHIN not in set(table.scope)


def within_gamma(root: Path) -> pd.Series:
    """Spearman's correlation of accuracy with LSS within gamma."""
    rows = correlations(load(root), resamples=50)
    chosen = (rows.scope == WITHIN) & (rows.score == "lss") & (rows.method == "spearman")
    return rows[chosen].iloc[0]


def test_within_gamma_the_seeds_are_permuted_in_all_cells_together(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(2, 3, 5))
    for i in range(3):
        for seed in range(5):
            given = {"test_accuracy": x[i, seed], "lss": y[i, seed]}
            made_up_trial(tmp_path, gamma=i / 100, seed=seed, **given)
    cell, seed = np.indices((3, 5))
    expected = association(x.ravel(), y.ravel(), cell.ravel(), units=seed.ravel())
    row = within_gamma(tmp_path)
    np.testing.assert_allclose([row.value, row.p], [expected["value"], expected["p"]])
    assert row.warning == ""


@pytest.mark.parametrize("seeds", [2, 3])
def test_with_few_seeds_there_is_a_correlation_within_gamma_but_no_p(
    tmp_path: Path, seeds: int
) -> None:
    for i in range(6):
        for seed in range(seeds):
            made_up_trial(tmp_path, gamma=i / 100, seed=seed)
    row = within_gamma(tmp_path)
    assert np.isfinite(row.value)
    assert np.isnan([row.p, row.p_adjusted]).all()
    assert row.n == 6 * seeds
    assert row.warning == "fewer than 4 shared seeds: no p"


def test_within_gamma_trials_count_only_of_seeds_that_all_cells_have(tmp_path: Path) -> None:
    for i in range(3):
        for seed in range(6):
            if (i, seed) != (1, 2):
                made_up_trial(tmp_path / "gap", gamma=i / 100, seed=seed)
            if seed != 2:
                made_up_trial(tmp_path / "none", gamma=i / 100, seed=seed)
    row, expected = (within_gamma(tmp_path / name) for name in ("gap", "none"))
    assert row.warning == "without 2 trials of seeds that not all cells have"
    assert (row.n, row.value, row.p) == (15, expected.value, expected.p)


def test_a_cell_of_few_seeds_does_not_cost_the_other_cells_theirs() -> None:
    seeds = {"a": range(6), "b": range(1, 7), "c": [0, 5], "d": [3]}
    trials = pd.DataFrame([(cell, s) for cell, own in seeds.items() for s in own])
    trials.columns = ["cell", "seed"]
    chosen = shared(trials)
    assert sorted(zip(chosen.cell, chosen.seed, strict=True)) == [
        (cell, seed) for cell in "ab" for seed in range(1, 6)
    ]
    assert len(shared(trials[trials.seed < 3])) == 0
    assert len(shared(trials[:0])) == 0


# Settings


def recipes(root: Path, cells: int = 5, **change: object) -> Results:
    """Two rates at each gamma; accuracy falls as LSS rises at each, and rises with both."""
    for i in range(cells):
        for k, rate in enumerate((1e-3, 1e-2)):
            given = {"lss": 10 * k - i, "test_accuracy": 10 * k + i + i * k}
            trial = {"gamma": i / 100, "seed": k, "learning_rate": rate}
            made_up_trial(root, **trial, **given, **change)
    return load(root)


def test_cells_of_different_settings_are_different_strata(tmp_path: Path) -> None:
    rows = chosen(correlations(recipes(tmp_path), resamples=100))
    assert rows.scope.tolist() == ["stratum", "stratum", "settings pooled"]
    assert rows.setting.tolist() == ["learning_rate = 0.001", "learning_rate = 0.01", "pooled"]
    assert rows.n.tolist() == [5, 5, 10]
    np.testing.assert_allclose(rows.value[:2], -1)
    assert rows.value.iloc[2] > 0
    assert rows.p.notna().tolist() == [True, True, False]
    assert rows.warning.iloc[2] == (
        "settings share seeds: no p; Simpson's paradox: opposite within all 2 strata"
    )


def test_settings_that_say_only_which_network_or_data_set_it_is_make_no_strata(
    tmp_path: Path,
) -> None:
    for i in range(5):
        made_up_trial(tmp_path, "plain", i / 100, learning_rate=1e-3)
        made_up_trial(tmp_path, "resnet", i / 100, learning_rate=1e-2)
    table = correlations(load(tmp_path), resamples=50)
    assert table.setting.isna().all()
    assert table.scope.unique().tolist() == ["stratum", "networks pooled", "networks partial"]


def test_all_partial_has_no_p_value_if_its_strata_are_settings(tmp_path: Path) -> None:
    for stages in (1, 2):
        recipes(tmp_path, stages=stages)
    rows = chosen(correlations(load(tmp_path), resamples=50)).set_index("scope")
    assert rows.loc["all partial", "warning"] == "settings share seeds: no p"
    assert np.isfinite(rows.loc["all partial", "value"])
    assert np.isnan(rows.loc["all partial", "p"])


def test_a_search_over_rates_has_one_row_for_all_its_settings(tmp_path: Path) -> None:
    for i in range(12):
        made_up_trial(tmp_path, gamma=i / 100, learning_rate=1e-3 + i / 1000)
    table = correlations(load(tmp_path), resamples=50)
    rows = chosen(table)
    assert rows.scope.tolist() == ["settings pooled"]
    assert rows.n.tolist() == [12]
    assert np.isfinite(rows.value.iloc[0])
    assert table.p.isna().all()
    assert correlation.correlation_sentence(table).startswith("Too few cells in any stratum")


def test_the_sentence_names_the_settings(tmp_path: Path) -> None:
    said = correlation.correlation_sentence(correlations(recipes(tmp_path), resamples=50))
    assert "K = 1, ResNet, learning_rate = 0.001 \N{MINUS SIGN}1.00 (n = 5)" in said


def test_a_network_with_one_setting_has_no_column_for_it_to_read(tmp_path: Path, capsys) -> None:
    for root, sweep in ((tmp_path / "one", two_networks), (tmp_path / "two", recipes)):
        sweep(root)
        assert correlation.main([str(root), "--table", "correlations"]) == 0
        assert ("| setting |" in capsys.readouterr().out) == (sweep == recipes)


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
        rows = chosen(table, score).set_index("setting")
        np.testing.assert_allclose(rows.value[["points = 500", "points = 1000"]], 1)
        row = rows.loc["pooled"]
        assert np.isnan([row.value, row.p, row.p_adjusted]).all()
        assert (row.n, row.warning) == (12, "several m; settings share seeds: no p")
    row = chosen(table).set_index("setting").loc["pooled"]
    assert np.isfinite(row.value)
    assert row.warning.startswith("settings share seeds: no p")


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
    assert rows.warning["noise_auc"] == "several settings or m of the evaluation"


def test_areas_at_several_m_are_not_correlated_or_averaged(tmp_path: Path) -> None:
    for i in range(12):
        for seed in range(2):
            given = {"tried": ("noise", "pgd"), "fragile": 1 + i + 0.1 * seed}
            trial = made_up_trial(tmp_path, gamma=i / 100, seed=seed, **given)
            evaluated_with(tmp_path, trial, "noise", 50 if seed else 1000)
    rows = chosen(correlations(load(tmp_path), resamples=50)).set_index("outcome")
    rows = rows[rows.scope == "stratum"]
    assert rows.value[["test_accuracy", "noise_auc", "pgd_auc"]].notna().tolist() == [
        True, False, True
    ]  # fmt: skip
    assert (rows.n["noise_auc"], rows.n["pgd_auc"]) == (24, 12)
    assert rows.warning["noise_auc"] == "several settings or m of the evaluation"


def test_a_sweep_in_which_nothing_is_done_gives_empty_tables(tmp_path: Path) -> None:
    made_up_trial(tmp_path, status="failed")
    results = load(tmp_path)
    table = correlations(results)
    assert len(table) == len(points(results)) == 0
    assert {"scope", "outcome", "score", "method", "n", "value", "warning"} <= set(table)


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
