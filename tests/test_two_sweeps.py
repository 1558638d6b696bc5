"""Two sweeps beside each other: which cells they share, and what differs there."""

from pathlib import Path

import numpy as np
import pandas as pd
from made_up import made_up_sweep, made_up_trial

from analysis.measures.two_sweeps import compare, sentence
from analysis.results import load


def test_a_sweep_compared_with_itself_differs_nowhere(tmp_path: Path) -> None:
    results = load(made_up_sweep(tmp_path))
    table = compare(results, results)
    assert len(table) == 8 * 3
    assert table.difference.eq(0).all()
    assert (table.seeds.eq(2) & table.seeds_there.eq(2)).all()
    assert "8 cells in both" in sentence(table, "other")
    assert "in 0 of 8" in sentence(table, "other")


def test_sweeps_are_compared_over_seeds_at_equal_configuration(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for seed in range(3):
        made_up_trial(here, seed=seed, test_accuracy=0.9 + 0.001 * seed)
        made_up_trial(there, seed=seed + 3, test_accuracy=0.8 + 0.001 * seed)
        made_up_trial(there, seed=seed, points=500, test_accuracy=0.1)
    table = compare(load(here), load(there)).set_index("score")
    row = table.loc["test_accuracy"]
    np.testing.assert_allclose([row.difference, row.here, row.there], [0.1, 0.901, 0.801])
    assert row.low > 0
    assert row.m == 1000
    assert isinstance(table, pd.DataFrame)


def test_sweeps_without_a_common_cell_say_so(tmp_path: Path) -> None:
    made_up_trial(tmp_path / "a", gamma=0.1)
    made_up_trial(tmp_path / "b", gamma=0.2)
    table = compare(load(tmp_path / "a"), load(tmp_path / "b"))
    assert not len(table)
    assert "no finished cell" in sentence(table, "b")


def test_a_depth_that_is_not_given_equals_that_of_table_1(tmp_path: Path) -> None:
    made_up_trial(tmp_path / "old")  # one stage of convolutional layers: 10 blocks
    for depth in (10, 20):
        made_up_trial(tmp_path / "new", depth=depth)
    table = compare(load(tmp_path / "old"), load(tmp_path / "new"))
    assert table.depth.tolist() == [10] * 3


def test_a_sweep_of_an_earlier_version_shares_cells_with_one_of_this(tmp_path: Path) -> None:
    later = {"warmup": 0.0, "clean_train_every": 1, "validation": 0.0, "transport_penalty": 0.0}
    made_up_trial(tmp_path / "old")
    made_up_trial(tmp_path / "new", **later)
    assert len(compare(load(tmp_path / "old"), load(tmp_path / "new"))) == 3
