"""LSR, LSS and segment shares: against the paper's equations in plain loops, and as geometry."""

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch.testing import assert_close

from scoring.line_shape import LineShape, line_shape_ratio, line_shape_score, segment_shares

HALF_TURN = torch.tensor(  # a rotation of four dimensions with no rounding on a grid
    [[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, -1.0], [1.0, -1.0, 1.0, 1.0]],
    dtype=torch.float64,
).div(2)


@st.composite
def tracks(draw, dimension=None):
    """Tracks (n + 1, m, d) on a grid of eighths: a step is zero or plainly not."""
    n, m, d = draw(array_shapes(min_dims=3, max_dims=3, max_side=6))
    shape = (n + 1, m, dimension or d)
    reach = draw(st.sampled_from([1, 3, 100]))  # short ones stand still and cancel often
    grid = draw(arrays("int64", shape, elements=st.integers(-reach, reach)))
    return torch.from_numpy(grid) / torch.tensor(8.0, dtype=torch.float64)


def expected(track, score):
    """A score of the reference for each point, None as NaN."""
    values = [score(point) for point in track.transpose(0, 1).tolist()]
    return torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)


def same(actual, wanted):
    assert_close(actual, wanted, rtol=1e-9, atol=1e-12, equal_nan=True)


@given(tracks())
def test_lss_is_equation_44(track):
    same(1 / line_shape_score(track), expected(track, reference.inverse_line_shape_score))


@given(tracks())
def test_lsr_is_equation_42(track):
    same(1 / line_shape_ratio(track), expected(track, reference.inverse_line_shape_ratio))


@given(tracks())
def test_segment_shares_are_mean_fractions_of_the_track_length(track):
    shares = [reference.segment_shares(point) for point in track.transpose(0, 1).tolist()]
    shares = torch.tensor([s for s in shares if s is not None], dtype=torch.float64)
    wanted = shares.mean(0) if len(shares) else torch.full((len(track) - 1,), math.nan).double()
    same(segment_shares(track), wanted)


@given(tracks())
def test_segment_shares_sum_to_one_if_anything_moves(track):
    total = segment_shares(track).sum()
    moves = bool((track.diff(dim=0) != 0).any())
    same(total, torch.tensor(1.0 if moves else math.nan, dtype=torch.float64))


@given(tracks())
def test_no_track_is_straighter_than_a_line(track):
    for score in (line_shape_score(track), line_shape_ratio(track)):
        assert (score[~score.isnan()] >= 1 - 1e-12).all()


@given(tracks(), st.data())
def test_repeating_a_state_changes_nothing(track, data):
    place = data.draw(st.integers(0, len(track) - 1))
    repeated = torch.cat([track[: place + 1], track[place:]])
    same(1 / line_shape_score(repeated), 1 / line_shape_score(track))
    same(1 / line_shape_ratio(repeated), 1 / line_shape_ratio(track))


@given(tracks(), st.data())
def test_length_of_a_segment_does_not_matter_to_lss(track, data):
    factors = data.draw(st.lists(st.integers(1, 9), min_size=len(track), max_size=len(track)))
    stretched = track.diff(dim=0, prepend=track[:1]) * torch.tensor(factors)[:, None, None]
    same(1 / line_shape_score(stretched.cumsum(0)), 1 / line_shape_score(track))


@given(tracks(dimension=4), st.integers(-80, 80), st.sampled_from([1e-6, 0.3, 1.0, 7e5]))
def test_scale_place_and_rotation_of_a_track_do_not_matter(track, shift, scale):
    assert_close(HALF_TURN @ HALF_TURN.T, torch.eye(4, dtype=torch.float64))
    moved = scale * ((track + shift / 8) @ HALF_TURN)
    same(1 / line_shape_score(moved), 1 / line_shape_score(track))
    same(1 / line_shape_ratio(moved), 1 / line_shape_ratio(track))
    same(segment_shares(moved), segment_shares(track))


@given(tracks())
def test_a_track_read_backwards_has_the_same_shape(track):
    same(1 / line_shape_score(track.flip(0)), 1 / line_shape_score(track))
    same(1 / line_shape_ratio(track.flip(0)), 1 / line_shape_ratio(track))
    same(segment_shares(track.flip(0)), segment_shares(track).flip(0))


@given(tracks())
def test_states_in_turn_give_what_the_whole_track_gives(track):
    shape = LineShape()
    for state in track:
        shape.update(state)
    assert_close(shape.score(), line_shape_score(track), rtol=0, atol=0, equal_nan=True)
    assert_close(shape.ratio(), line_shape_ratio(track), rtol=0, atol=0, equal_nan=True)
    assert_close(shape.shares(), segment_shares(track), rtol=0, atol=0, equal_nan=True)


@given(tracks())
def test_every_prefix_of_a_stream_can_be_read(track):
    shape = LineShape()
    shape.update(track[0])
    for n in range(1, len(track)):
        shape.update(track[n])
        same(1 / shape.score(), 1 / line_shape_score(track[: n + 1]))


@given(tracks())
def test_zero_segments_are_counted_and_one_over_lss_stays_in_the_unit_interval(track):
    shape = LineShape()
    for state in track:
        shape.update(state)
    points = shape.points()
    assert_close(points.zero_segments, (track.diff(dim=0) == 0).all(2).sum(0))
    inverse = points.inverse_score[~points.inverse_score.isnan()]
    assert ((inverse >= 0) & (inverse <= 1)).all()
    same(1 / points.score, points.inverse_score)


def test_a_straight_line_scores_one_whatever_its_steps():
    line = torch.tensor([0.0, 1.0, 1.5, 40.0])[:, None, None] * torch.tensor([[3.0, -4.0, 0.1]])
    one = torch.ones(1, dtype=torch.float64)
    assert_close(line_shape_score(line), one)
    assert_close(line_shape_ratio(line), one)


def test_a_regular_polygon_cancels_and_scores_infinity():
    angles = torch.arange(8, dtype=torch.float64) * (2 * math.pi / 7)
    ring = torch.stack([angles.cos(), angles.sin()], dim=1)[:, None]
    assert line_shape_score(ring).item() == math.inf


def test_there_and_back_scores_infinity():
    back = torch.tensor([[0.3, 0.7], [0.6, 0.1], [0.3, 0.7]])[:, None]
    assert line_shape_score(back).item() == math.inf
    assert line_shape_ratio(back).item() == math.inf


def test_a_point_that_never_moves_has_no_score_and_is_in_no_mean():
    track = torch.zeros(4, 2, 3)
    track[:, 1] = torch.tensor([0.0, 1.0, 2.0, 4.0])[:, None]
    for score in (line_shape_score(track), line_shape_ratio(track)):
        assert_close(score, torch.tensor([math.nan, 1.0], dtype=torch.float64), equal_nan=True)
    assert_close(segment_shares(track), torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64))
    assert segment_shares(track[:, :1]).isnan().all()


def test_one_long_segment_hides_a_zigzag_from_lsr_but_not_from_lss():
    zigzag = [[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [3.0, 1.0], [4.0, 0.0], [1e6, 0.0]]
    track = torch.tensor(zigzag)[:, None]
    assert line_shape_ratio(track).item() < 1.0001
    assert line_shape_score(track).item() > 1.2


@pytest.mark.parametrize("n", [5, 10])
def test_a_random_walk_in_high_dimension_scores_the_square_root_of_n(n):
    draw = torch.Generator().manual_seed(n)
    walk = torch.randn(n + 1, 20, 20_000, generator=draw).cumsum(0)
    wanted = torch.full((20,), n**0.5, dtype=torch.float64)
    assert_close(line_shape_score(walk), wanted, rtol=0.05, atol=0)
    assert_close(line_shape_ratio(walk), wanted, rtol=0.05, atol=0)


def test_float32_channels_last_states_are_measured_in_float64():
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(4, 3, 2, 5, 5, generator=draw)  # n + 1, m, c, h, w
    shape = LineShape()
    for state in states:
        shape.update(state.to(memory_format=torch.channels_last))
    assert shape.score().dtype == torch.float64
    flat = states.flatten(2).double()
    assert_close(shape.score(), line_shape_score(flat))
    assert_close(shape.ratio(), line_shape_ratio(flat))
    assert_close(shape.shares(), segment_shares(flat))


def test_small_steps_far_from_the_origin_are_not_rounded_away():
    track = 1000 + torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])[:, None] / 1024
    assert_close(line_shape_score(track), torch.tensor([2**0.5], dtype=torch.float64))


def test_steps_that_would_underflow_in_float32_keep_their_direction():
    track = 1e-30 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])[:, None]
    assert_close(line_shape_score(track), torch.tensor([2**0.5], dtype=torch.float64))


def test_measuring_keeps_no_graph():
    track = torch.randn(3, 2, 4, requires_grad=True)
    assert not line_shape_score(track).requires_grad


@pytest.mark.parametrize("shape", [(3, 4), (1, 2, 3), (2, 2, 2, 2)])
@pytest.mark.parametrize("score", [line_shape_ratio, line_shape_score, segment_shares])
def test_what_is_not_a_track_is_refused(score, shape):
    with pytest.raises(ValueError, match=r"should be \(n \+ 1, m, d\)"):
        score(torch.zeros(shape))


def test_states_of_two_shapes_are_no_track():
    shape = LineShape()
    shape.update(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="one dimension"):
        shape.update(torch.zeros(2, 4))


def test_one_state_is_no_track():
    shape = LineShape()
    with pytest.raises(ValueError, match="two states"):
        shape.points()
    shape.update(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="two states"):
        shape.score()


@pytest.mark.slow
@pytest.mark.parametrize("power", [-1000, -565, -500, 500, 664, 1010])
@given(track=tracks())
def test_tracks_of_any_size_have_the_same_shape(power, track):
    scaled = track * 2.0**power
    for score in (line_shape_score, line_shape_ratio, segment_shares):
        same(1 / score(scaled), 1 / score(track))
    same(points_of(scaled).cosines, points_of(track).cosines)


def points_of(track):
    shape = LineShape()
    for state in track:
        shape.update(state)
    return shape.points()


def test_a_step_may_be_far_smaller_than_the_others():
    track = torch.tensor([[0.0, 0.0], [1e-170, 0.0], [1e-170, 1e200]], dtype=torch.float64)[:, None]
    same(line_shape_score(track), torch.tensor([math.sqrt(2)], dtype=torch.float64))
    same(line_shape_ratio(track), torch.tensor([1.0], dtype=torch.float64))
