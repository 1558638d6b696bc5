"""Measuring all stages of a network in one pass over its data, batch by batch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scoring import schemas
from scoring.line_shape import line_shape_ratio, line_shape_score, segment_shares
from scoring.stages import measure
from scoring.transport import optimal_transport_score, solve

POINTS = 12
SHAPES = {1: (2, 4, 4), 2: (3, 2, 2)}  # stage -> shape of its states


def tracks():
    """Tracks (n + 1, m, c, h, w) of two stages with 3 blocks each, float32."""
    draw = torch.Generator().manual_seed(0)
    return {k: torch.randn(4, POINTS, *shape, generator=draw) for k, shape in SHAPES.items()}


def walk_of(tracks):
    """What a network does, for points given by their number."""

    def walk(points):
        for stage, track in tracks.items():
            for state in track:
                yield stage, state[points]

    return walk


def test_each_stage_has_the_scores_of_its_own_track():
    both = tracks()
    stages = measure(walk_of(both), torch.arange(POINTS).split(5))
    assert [s.stage for s in stages] == [1, 2]
    assert [s.dimension for s in stages] == [32, 12]
    for stage in stages:
        track = both[stage.stage].flatten(2)
        assert_allclose(stage.score, line_shape_score(track), rtol=1e-12)
        assert_allclose(stage.ratio, line_shape_ratio(track), rtol=1e-12)
        assert_allclose(stage.inverse_score, 1 / line_shape_score(track), rtol=1e-12)
        assert_allclose(stage.shares.mean(1), segment_shares(track), rtol=1e-12)
        assert stage.problem is None


def test_transport_is_between_the_inputs_and_the_outputs_of_a_stage():
    both = tracks()
    for stage in measure(walk_of(both), torch.arange(POINTS).split(5), transport=True):
        track = both[stage.stage].flatten(2)
        wanted, result = optimal_transport_score(track[0], track[-1]), solve(stage.problem)
        assert_array_equal(result.permutation, wanted.permutation)
        assert_allclose(result.own_cost, wanted.own_cost, rtol=1e-12)
        assert_allclose(result.optimal_cost, wanted.optimal_cost, rtol=1e-5)


@given(st.lists(st.integers(1, POINTS - 1), max_size=5, unique=True))
def test_how_the_points_are_split_into_batches_changes_nothing(cuts):
    walk = walk_of(tracks())
    batches = torch.arange(POINTS).tensor_split(sorted(cuts))
    whole = measure(walk, [torch.arange(POINTS)], transport=True)
    for one, other in zip(whole, measure(walk, batches, transport=True), strict=True):
        assert_allclose(other.score, one.score, rtol=1e-12)
        assert_allclose(other.ratio, one.ratio, rtol=1e-12)
        assert_allclose(other.shares, one.shares, rtol=1e-12)
        for a, b in zip(one.problem, other.problem, strict=True):
            assert_array_equal(b, a)
        for name, value in one.row().items():
            assert_allclose(other.row()[name], value, rtol=1e-12)


def test_no_batch_is_walked_before_the_one_before_it_is_done():
    events = []

    def batches():
        for start in range(0, POINTS, 4):
            events.append(f"batch {start}")
            yield torch.arange(start, start + 4)

    def walk(points):
        for stage_and_state in walk_of(tracks())(points):
            events.append("state")
            yield stage_and_state

    measure(walk, batches())
    assert events == [e for s in (0, 4, 8) for e in [f"batch {s}", *["state"] * 8]]


def test_states_are_measured_in_full_precision_under_autocast():
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    types = []

    def walk(x):
        for _ in range(3):
            yield 1, x
            x = x + 1e-3 * (x @ weight)
            types.append(x.dtype)

    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    (wanted,) = measure(walk, [x])
    with torch.autocast("cpu", torch.bfloat16):
        (stage,) = measure(walk, [x])
    assert set(types) == {torch.float32}
    assert_array_equal(stage.score, wanted.score)


def test_a_row_holds_columns_of_the_tracks_table_and_can_be_stored(tmp_path):
    stages = measure(walk_of(tracks()), torch.arange(POINTS).split(5))
    columns = {field.name: field for field in schemas.TRACKS}
    rows = [stage.row() for stage in stages]
    assert set(rows[0]) <= set(columns)
    schemas.write_table(str(tmp_path), "tracks", "a", rows)
    stored = schemas.read_table(str(tmp_path), "tracks", list(rows[0])).to_pylist()
    assert stored == rows
    assert (rows[0]["blocks"], rows[0]["m"], rows[0]["dimension"]) == (3, POINTS, 32)
    assert_allclose(rows[0]["lss_random"], math.sqrt(3))
    assert_allclose(rows[0]["lss"], stages[0].score.mean())
    assert_allclose(rows[0]["lsr_std"], stages[0].ratio.std())
    assert_allclose(sum(rows[0]["shares"]), 1)


def test_still_points_are_counted_and_in_no_mean():
    track = torch.zeros(4, 3, 2)  # the first point stands still, the second once
    track[:, 1] = torch.tensor([0.0, 1.0, 1.0, 3.0])[:, None]
    track[:, 2] = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    (stage,) = measure(walk_of({1: track}), [torch.arange(3)])
    row = stage.row()
    assert (row["still_points"], row["zero_segments"]) == (1, 1)
    assert_allclose(row["lss"], (1 + 3 / math.sqrt(5)) / 2)
    assert_allclose(row["lsr"], (1 + 3 / math.sqrt(5)) / 2)
    assert_allclose(row["shares"], [1 / 3, 1 / 6, 1 / 2])


def test_a_network_in_which_nothing_moves_has_no_scores():
    (stage,) = measure(walk_of({1: torch.ones(3, 2, 2)}), [torch.arange(2)], transport=True)
    row = stage.row()
    assert row["still_points"] == row["m"] == 2
    assert all(math.isnan(row[name]) for name in ("lss", "lss_std", "inverse_lss", "lsr"))
    assert np.isnan(row["shares"]).all()
    assert stage.problem.collapsed


def test_one_point_that_turns_back_leaves_the_mean_of_one_over_lss_finite():
    track = torch.tensor([[[0.0], [0.0]], [[1.0], [1.0]], [[0.0], [2.0]]])
    row = measure(walk_of({1: track}), [torch.arange(2)])[0].row()
    assert row["lss"] == math.inf
    assert_allclose(row["inverse_lss"], 0.5)


def test_states_that_are_not_finite_have_no_assignment():
    track = torch.ones(2, 3, 2)
    track[1, 1] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        measure(walk_of({1: track}), [torch.arange(3)], transport=True)
