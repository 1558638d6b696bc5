"""Rows of the trials table, from rows of the tracks table."""

import math
from itertools import permutations

import pytest
import torch

from scoring.rows import Solved, summary_columns, track_row
from scoring.schemas import TABLES
from scoring.stages import measure
from scoring.transport import solve

DRAW = torch.Generator().manual_seed(0)
POINTS = torch.randn(20, 4, generator=DRAW)
STAGES = {
    "short": [POINTS, POINTS + 0.1 * torch.randn(20, 4, generator=DRAW)],
    "long": [POINTS, POINTS + torch.randn(20, 4, generator=DRAW)],
    "collapsed": [POINTS, 0 * POINTS + 1],
}


def summary(*names):
    """The summary of a trial with these stages after its only epoch."""
    walk = [(k, state) for k, name in enumerate(names, 1) for state in STAGES[name]]
    rows = []
    for stage in measure(lambda _: walk, [POINTS], transport=True):
        row = stage.row() | {"epoch": 1}
        rows.append(track_row(row, row, Solved(solve(stage.problem), [], 0.0), None))
    return summary_columns(rows, {"epoch": 1})


def test_a_summary_does_not_depend_on_the_order_of_stages():
    wanted = summary("short", "collapsed", "long")
    for names in permutations(STAGES):
        found = summary(*names)
        for name in ("movement", "suboptimality", "ties", "collapsed", "straightness_factor"):
            assert found[name] == pytest.approx(wanted[name])


def test_the_movement_is_that_of_the_stage_that_moves_least_and_has_not_collapsed():
    assert summary("long", "collapsed", "short")["movement"] == summary("short")["movement"]
    assert math.isnan(summary("collapsed")["movement"])


def test_a_collapsed_stage_has_no_excess_but_a_straightness_factor():
    found = summary("collapsed")
    assert found["straightness_factor"] >= 1 - 1e-9
    for name in ("geodesic_excess", "transport_factor", "transport_share"):
        assert math.isnan(found[name])
    for name in ("geodesic_excess_without_drift", "transport_factor_without_drift"):
        assert math.isnan(found[name])


def test_a_stage_of_a_single_block_counts_only_where_no_line_shape_is_needed():
    lists = {"energy": [1.0, 2.0], "cosines": [0.5], "effective_rank": [9.0, 4.0]}
    line = {"lss": 2.0, "lss_random": 1.4, "geodesic_excess": 2.0, "ots": 0.5} | lists
    block = {"lss": 1.0, "lss_random": math.nan, "geodesic_excess": 1.0, "ots": 1.0} | lists
    same = {"epoch": 0, "suboptimality": 0.0, "movement": 1.0, "ties": 0, "collapsed": False}
    rows = [row | same | {"stage": k} for k, row in enumerate((line, line, block), 1)]
    rows[1] |= {"lss": 4.0, "geodesic_excess": 8.0, "energy": [9.0], "cosines": [0.0, 0.5]}
    found = summary_columns(rows, {"epoch": 0})
    assert found["lss"] == 3
    assert found["geodesic_excess"] == 4
    assert found["turning"] == 0.375
    assert found["ots"] == pytest.approx(2 / 3)
    assert found["energy"] == found["energy_initial"] == 5
    assert found["effective_rank"] == 4
    assert math.isnan(found["spacing"])  # it was not measured


def test_what_a_summary_holds_are_columns_of_the_trials_table():
    assert summary("short", "long").keys() <= set(TABLES["trials"].names)
