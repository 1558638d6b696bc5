"""Rows of the trials table, from rows of the tracks table."""

import math
from itertools import permutations

import pytest
import torch

from scoring.rows import Solved, summary_columns, track_row
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
