"""Whether the score of a single point says how surely its class is found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_sweep, made_up_trial, write_points
from scipy import stats

from analysis.measures import points as points_module
from analysis.measures.points import COLUMNS, auc, influences, interval, points
from analysis.results import load
from scoring.tables import write_table


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


def test_a_trial_of_few_points_has_the_error_of_few_points(tmp_path: Path) -> None:
    """Both seeds agree, so the interval is that of the points; cells have 40 and 8 of them."""
    random = np.random.default_rng(0)
    lss, wrong = random.normal(size=40), [0, 3, 6, 11, 20, 33]
    pulled = np.zeros(40)
    aucs = []
    for gamma, m in ((0.0, 40), (0.1, 8)):
        is_wrong = np.isin(np.arange(m), wrong)
        pulled[:m] += influences(lss[:m], is_wrong) / m / 2
        aucs.append(auc(lss[:m], is_wrong))
        for seed in (0, 1):
            trial = made_up_trial(tmp_path, gamma=gamma, seed=seed)
            write_points(tmp_path, trial, wrong, lss[:m].tolist())
    row = points(load(tmp_path)).iloc[0]
    error = np.sqrt((pulled**2).sum())
    np.testing.assert_allclose(row.auc, np.mean(aucs))
    np.testing.assert_allclose(row.p, 2 * stats.t(1).sf(abs(row.auc - 0.5) / error))


@pytest.mark.parametrize("seeds", [5, 7])
def test_the_interval_covers_the_truth_if_cells_have_different_numbers_of_points(
    seeds: int,
) -> None:
    random, covered = np.random.default_rng(4), 0
    truth = stats.norm.cdf(0.5 / np.sqrt(2))
    for _ in range(60):
        wrong = random.random(300) < 0.3
        score = random.normal(size=300) + 0.5 * wrong
        rows = [
            pd.DataFrame({"trial": f"{m} {seed}", "point": np.arange(m), "label": 0})
            .assign(prediction=wrong[:m].astype("int64"))
            .assign(lss=score[:m] + random.normal(0, 0.05, m), seed=seed, cell=m)
            for seed in range(seeds)
            for m in (300, 40)
        ]
        samples = pd.concat(rows)
        row = points_module._row(
            samples[["trial", "seed", "cell"]].drop_duplicates(),
            list(points_module._of_trials(samples, "lss")),
        )
        covered += row["low"] <= truth <= row["high"]
    assert covered >= 60 * 0.95 - 2 * np.sqrt(60 * 0.95 * 0.05)


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


@pytest.mark.long
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
