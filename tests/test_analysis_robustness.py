"""Lesions, noise, attacks and separation in tables, sentences and the page, on made-up sweeps."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluated import EVERY, NAMES, evaluated_sweep
from made_up import made_up_trial, scored_at_another_m
from made_up_evaluations import EVALUATIONS, evaluated_with
from numpy.testing import assert_allclose
from one_claim import line

from analysis import figures, report, tables
from analysis.measures import robustness
from analysis.measures.layout import fold
from analysis.measures.robustness import (
    ALL_AUCS,
    AUCS,
    RATIOS,
    by_cell,
    lost_sentence,
    mixed_sentence,
    of_trials,
    settings_of,
    settings_sentence,
)
from analysis.results import load
from scoring.robustness.subject import MEASURED
from scoring.tables import read_rows, write_table


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return evaluated_sweep(tmp_path / "demo")


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_numbers_that_are_missing_everywhere_are_nothing_measured(tmp_path: Path) -> None:
    trial = made_up_trial(tmp_path, tried=EVERY, **dict.fromkeys([*ALL_AUCS, *RATIOS], np.nan))  # type: ignore[arg-type]
    nothing = dict.fromkeys(MEASURED, np.nan)
    changed = [row | nothing for row in read_rows(str(tmp_path), "robustness", trial)]
    write_table(str(tmp_path), "robustness", trial, changed)
    results = load(tmp_path)
    assert not set(NAMES) & set(figures.draw(results))
    assert len(by_cell(results)) == 0
    assert 'id="robustness"' not in report.build(tmp_path).read_text()


def test_mixed_pairs_are_told_next_to_the_untrained_network(sweep: Path) -> None:
    said = mixed_sentence(of_trials(load(sweep)))
    assert "plain 1.15, ResNet 1.15; before training plain 1.00, ResNet 1.00" in said
    assert "too few" not in said


def test_trials_with_too_few_mixed_pairs_are_counted(tmp_path: Path) -> None:
    name = "mixed_ratio_different_matched"
    made_up_trial(tmp_path, tried=["separation"], **{name: np.nan})
    few = mixed_sentence(of_trials(load(tmp_path)))
    assert few == "In 1 trial noise mixes up too few pairs to say whether close tracks go first."
    made_up_trial(tmp_path, seed=1, tried=["separation"])
    said = mixed_sentence(of_trials(load(tmp_path)))
    assert said.startswith("Of pairs of two classes")
    assert said.endswith(few)


def test_nothing_is_said_about_pairs_that_were_not_controlled(tmp_path: Path) -> None:
    old = {name: np.nan for name in RATIOS if name.endswith(("matched", "initial"))}
    made_up_trial(tmp_path, tried=["separation"], **old)
    assert mixed_sentence(of_trials(load(tmp_path))) == ""


def test_losses_are_told_for_each_replacement(sweep: Path) -> None:
    said = lost_sentence(load(sweep))
    for part in ("to lesions plain", "to lesions by means plain", "to lesions of random units"):
        assert part in said


@pytest.mark.parametrize(
    ("name", "column", "other"),
    [("noise", "noise_auc", "fgsm_auc"), ("lesion", "lesion_top_mean_auc", "noise_auc")],
)
def test_numbers_of_several_settings_have_no_mean(
    tmp_path: Path, name: str, column: str, other: str
) -> None:
    for seed in range(4):
        given = {what: EVALUATIONS[what] for what in EVERY}
        if seed > 1:
            given[name] = {**given[name], "levels": [0.0, 0.5, 1.0]}
        made_up_trial(tmp_path, seed=seed, tried=EVERY, evaluations=json.dumps(given))
    results = load(tmp_path)
    (row,) = by_cell(results).to_dict("records")
    assert np.isnan(row[column])
    assert np.isnan(row[f"{column}_ci95"])
    assert np.isfinite([row[other], row["mixed_ratio"], row["clean_accuracy"]]).all()
    assert (row["seeds"], row["warning"]) == (4, f"several settings or m: {name}")
    said = lost_sentence(results)
    left = {"noise": "to random noise", "lesion": "to lesions, to lesions by means"}[name]
    told, _, after = said.partition("The accuracy that networks lose ")
    assert after.startswith(left)
    assert after.endswith("has no mean: it was measured with several settings or m.")
    assert f"{left} ResNet" not in told


def test_numbers_of_equal_settings_have_a_mean_however_these_are_written(tmp_path: Path) -> None:
    levels = [8, 16, 32, 64, 128]
    ways = (
        {"lesion": {"seed": 3, "units": ["top"]}, "noise": {"levels": levels}},
        {"lesion": {"seed": 4, "units": ["top"]}, "noise": {"levels": [0.0, *map(float, levels)]}},
        {"noise": {"levels": levels[::-1]}, "separation": {"points": 5000, "level": 32.0}},
        {"separation": {"controls": False}},
    )
    tried = (*EVERY, "curve")
    for seed, way in enumerate(ways):
        given = {name: {**EVALUATIONS[name], **way.get(name, {})} for name in tried}
        if not seed:  # as an earlier version recorded it
            given["lesion"] = {name: EVALUATIONS["lesion"][name] for name in ("levels", "block")}
        made_up_trial(tmp_path, seed=seed, tried=tried, evaluations=json.dumps(given))
    results = load(tmp_path)
    (row,) = by_cell(results).to_dict("records")
    assert (row["seeds"], row["warning"]) == (4, None)
    assert np.isfinite([row[name] for name in (*ALL_AUCS, *RATIOS)]).all()
    assert "several settings" not in lost_sentence(results) + mixed_sentence(of_trials(results))


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("noise", {"levels": [0, 8], "seed": 0}, {"levels": [0, 8], "seed": 1}),
        ("noise", {"seed": 2**62}, {"seed": 2**62 + 1}),
        ("pgd", {"levels": [8], "steps": 3}, {"levels": [8], "steps": 4}),
        ("lesion", {"levels": [0.1, 0.5]}, {"levels": [0, 0.1, 0.5]}),  # of an earlier version
        ("lesion", {"units": ["random"], "seed": 1}, {"units": ["random"], "seed": 2}),
        ("separation", {"level": 32}, {"level": 33}),
        ("separation", {"level": 32}, {}),
    ],
)
def test_settings_that_measure_something_else_stay_apart(name, one, other) -> None:
    texts = [settings_of(json.dumps({name: given}), name) for given in (one, other)]
    assert texts[0] != texts[1]
    assert settings_of("{}", name) == settings_of(None, name) == "null"


def test_numbers_of_several_m_have_no_mean(tmp_path: Path) -> None:
    for seed in range(2):
        trial = made_up_trial(tmp_path, seed=seed, tried=EVERY)
        rows = read_rows(str(tmp_path), "robustness", trial)
        m = {0: lambda row: row["m"], 1: lambda row: 2 * row["m"]}[seed]
        write_table(str(tmp_path), "robustness", trial, [row | {"m": m(row)} for row in rows])
    results = load(tmp_path)
    (row,) = by_cell(results).to_dict("records")
    assert np.isnan([row["clean_accuracy"], row["noise_auc"], row["mixed_ratio"]]).all()
    assert row["warning"].startswith("several settings or m: clean accuracy, lesion")
    assert lost_sentence(results).startswith("The accuracy that networks lose to lesions")
    assert "has no mean over trials" in mixed_sentence(of_trials(results))


def test_each_evaluation_has_its_own_m(tmp_path: Path) -> None:
    """PGD has 50 points everywhere, which hides nothing of those behind noise."""
    for network, seed in product(("plain", "resnet"), range(4)):
        trial = made_up_trial(tmp_path, network, seed=seed, tried=["noise", "pgd"])
        for name in ("noise", "pgd"):
            few = name == "pgd" or (network == "resnet" and seed > 1)
            evaluated_with(tmp_path, trial, name, 50 if few else 1000)
    results = load(tmp_path)
    plain, resnet = by_cell(results).to_dict("records")
    assert np.isfinite([plain["noise_auc"], plain["pgd_auc"], plain["clean_accuracy"]]).all()
    assert np.isfinite(resnet["pgd_auc"])
    assert np.isnan([resnet["noise_auc"], resnet["clean_accuracy"]]).all()
    assert resnet["warning"] == "several settings or m: clean accuracy, noise"
    assert "(m = 50, 4 seeds, 8 trials)" in lost_sentence(results)
    found = line(tmp_path, "noise")["numbers"]
    assert "m = 1,000: lost to random noise" in found
    assert "4 and 2 seeds" in found


def test_networks_that_were_scored_at_two_m_are_no_more_seeds(sweep: Path) -> None:
    results = load(sweep)
    pd.testing.assert_frame_equal(by_cell(scored_at_another_m(results)), by_cell(results))
    lone = results._replace(trials=results.trials[results.trials.seed == 0])
    table = by_cell(scored_at_another_m(lone))
    assert set(table.seeds) == {1}
    assert table.filter(like="_ci95").isna().all(axis=None)


def test_seeds_of_different_cells_give_a_mean_without_an_interval(tmp_path: Path) -> None:
    for seed, gamma in enumerate((0.0, 0.01, 0.1)):
        made_up_trial(tmp_path, "plain", gamma, seed, tried=["noise"], fragile=1 + seed)
        for other in (0.0, 0.01, 0.1):
            made_up_trial(tmp_path, "resnet", other, seed, tried=["noise"], fragile=1 + seed)
    said = lost_sentence(load(tmp_path))
    assert re.search(r"noise plain 0\.\d\d, ResNet 0\.\d\d ± 0\.\d\d \(", said)


def test_a_table_without_warnings_does_not_show_them(sweep: Path) -> None:
    table = by_cell(load(sweep))
    assert table.warning.isna().all()
    assert "warning" not in fold(table)[0]


# Tables


def test_a_row_for_each_cell_that_was_evaluated(sweep: Path) -> None:
    made_up_trial(sweep, gamma=0.1)  # not evaluated
    results = load(sweep)
    table = by_cell(results).set_index(["network", "gamma"])
    assert len(table) == 4
    row = table.loc[("resnet", 0.0)]
    trials = results.trials[(results.trials.network == "resnet") & (results.trials.gamma == 0)]
    assert (row.seeds, row.m, row.separation_m) == (2, 500, 300)  # of three trials
    for score in (*AUCS, *RATIOS):
        assert_allclose(row[score], trials[score].mean())
        varies = score in AUCS  # ratios are the same in all seeds, so they have no interval
        assert np.isfinite(row[f"{score}_ci95"]) == varies
    evaluated = trials[trials.noise_auc.notna()]
    assert_allclose(row.clean_accuracy, evaluated.test_accuracy.mean())
    assert_allclose(row.mixed_ratio, 1.45)
    assert_allclose(row.mixed_ratio_matched, 1.15)
    assert row.lesion_top_mean_auc < row.lesion_auc


def test_a_trial_with_some_evaluations_has_those_numbers(tmp_path: Path) -> None:
    made_up_trial(tmp_path, tried=["separation"])
    made_up_trial(tmp_path, gamma=0.1, tried=["noise"])
    table = by_cell(load(tmp_path)).set_index("gamma").sort_index()
    assert table.mixed_ratio.notna().tolist() == [True, False]
    assert table.noise_auc.notna().tolist() == [False, True]
    assert table.lesion_auc.isna().all()
    assert table.m.notna().tolist() == table.clean_accuracy.notna().tolist() == [False, True]


def test_a_network_that_has_learnt_nothing_has_nothing_to_lose(tmp_path: Path) -> None:
    made_up_trial(tmp_path, tried=EVERY)
    rng = np.random.default_rng(0)
    lost = made_up_trial(tmp_path, gamma=0.1, seed=1, tried=EVERY, lesion_auc=0.1)
    changed = read_rows(str(tmp_path), "robustness", lost)
    for row in changed:
        if row["accuracy"] is not None:
            row["accuracy"] = 0.1 + 0.001 * rng.random()
    write_table(str(tmp_path), "robustness", lost, changed)
    trials = of_trials(load(tmp_path)).set_index("gamma").sort_index()
    for name in ("lesion", "noise", "fgsm", "pgd"):
        assert trials[f"{name}_lost"].notna().tolist() == [True, False]
        expected = 1 - trials[f"{name}_auc"][0.0] / trials.clean_accuracy[0.0]
        assert_allclose(trials[f"{name}_lost"][0.0], expected)
        learnt = [name != "lesion", False]
        assert trials[f"{name}_variation"].notna().tolist() == learnt
    levels = np.array(EVALUATIONS["noise"]["levels"][1:]) / 128
    assert_allclose(trials.noise_variation[0.0], 11 * levels.mean())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["md", "latex", "csv", "json"])
def test_the_command_prints_the_table(sweep: Path, form: str, capsys) -> None:
    assert tables.main([str(sweep), "--table", "robustness", "--format", form]) == 0
    told = capsys.readouterr().out
    assert ("PGD AUC" if form in ("md", "latex") else "pgd_auc") in told
    assert robustness.MEASURED[0] in told or "clean accuracy" in told


# The page


@pytest.mark.long
def test_the_page_has_a_section_with_table_figures_and_correlations(sweep: Path) -> None:
    page = report.build(sweep)
    html = page.read_text()
    section = html[html.index('<h2 id="robustness">') : html.index('<h2 id="correlations">')]
    for name in NAMES:
        assert f'<figure id="{name}">' in section
        assert html.count(f'<figure id="{name}">') == 1
    assert '<a href="#robustness">Robustness</a>' in html
    assert "lesion AUC given accuracy" in section
    assert "given accuracy" not in html[html.index('<h2 id="correlations">') :]
    for link in re.findall(r"""<a[^>]*href=["']([^"'#]+)""", section):
        assert page.with_name(link).is_file()
    table = pd.read_csv(page.with_name("robustness.csv"))
    assert table.seeds.tolist() == [2, 2, 2, 2]


def test_a_sweep_without_evaluations_has_a_page_without_that_section(report_page: Path) -> None:
    html = report_page.read_text()
    assert 'id="robustness"' not in html
    assert "#robustness" not in html


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_one_trial_with_evaluations_makes_a_page(tmp_path: Path) -> None:
    made_up_trial(tmp_path, tried=EVERY)
    html = report.build(tmp_path).read_text()
    assert '<h2 id="robustness">' in html
    assert "Robustness against LSS" not in html  # one cell has no correlation


def test_what_evaluations_were_run_with_is_told(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0)
    assert settings_sentence(load(tmp_path)) == ""
    assert robustness._short(["previous", "mean"]) == "previous and mean"
    for seed, steps in ((1, 10), (2, 40)):
        asked = {"pgd": {"levels": [0.0, 8.0], "steps": steps, "seed": 0}}
        made_up_trial(tmp_path, seed=seed, evaluations=json.dumps(asked))
    assert settings_sentence(load(tmp_path)) == (
        "Evaluated: pgd with levels 0 8, steps 10, seed 0 and others with levels 0 8, steps 40, "
        "seed 0."
    )
