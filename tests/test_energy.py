"""Kinetic energy, straying and turning: against the paper's equations in plain loops."""

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_line_shape import HALF_TURN, same, tracks
from torch.testing import assert_close

from scoring.energy import (
    StraightDistance,
    energy_ratio,
    kinetic_energy,
    straight_distance,
    turning,
)
from scoring.line_shape import LineShape, line_shape_ratio


def points_of(track):
    """The tracks of a tensor (n + 1, m, d), a list each."""
    return track.transpose(0, 1).tolist()


def columns(values, length):
    """A list for each point, None as NaN -> (length, m)."""
    values = [[math.nan if v is None else v for v in point] for point in values]
    return torch.tensor(values, dtype=torch.float64).reshape(len(values), length).T


@given(tracks())
def test_kinetic_energy_is_the_mean_squared_step(track):
    wanted = torch.tensor(reference.kinetic_energy(points_of(track)), dtype=torch.float64)
    same(kinetic_energy(track), wanted)


@given(tracks())
def test_straight_distance_is_that_to_equation_5(track):
    wanted = [reference.straight_distance(point) for point in points_of(track)]
    same(straight_distance(track), columns(wanted, len(track)))


@given(tracks())
def test_turning_is_the_cosine_between_segments(track):
    wanted = [reference.turning(point) for point in points_of(track)]
    same(turning(track), columns(wanted, len(track) - 2))


@given(tracks())
def test_lengths_and_cosines_of_a_stream_are_those_of_its_track(track):
    shape = LineShape()
    for state in track:
        shape.update(state)
    points = shape.points()
    assert_close(points.lengths, track.diff(dim=0).norm(dim=2))
    assert_close(points.cosines, turning(track), rtol=0, atol=0, equal_nan=True)
    assert_close(points.lengths.square().mean(1), kinetic_energy(track), rtol=0, atol=0)


@given(tracks())
def test_states_in_turn_stray_as_the_whole_track_does(track):
    straight = StraightDistance(track[0], track[-1], len(track) - 1)
    for state in track:
        straight.update(state)
    assert_close(straight.distances(), straight_distance(track), rtol=0, atol=0)


@given(tracks())
def test_nothing_strays_at_its_ends_nor_further_than_its_length(track):
    away = straight_distance(track)
    assert (away[[0, -1]] == 0).all()
    assert (away <= track.diff(dim=0).norm(dim=2).sum(0) + 1e-9).all()


@given(tracks())
def test_a_cosine_lies_between_minus_one_and_one_unless_a_segment_is_zero(track):
    cosines = turning(track)
    zero = (track.diff(dim=0) == 0).all(2)
    assert_close(cosines.isnan(), zero[1:] | zero[:-1])
    assert ((cosines[~cosines.isnan()]).abs() <= 1).all()


@given(tracks(dimension=4), st.integers(-80, 80), st.sampled_from([1e-6, 1.0, 7e5]))
def test_place_and_rotation_do_not_matter_and_scale_does_as_it_should(track, shift, scale):
    moved = scale * ((track + shift / 8) @ HALF_TURN)
    same(kinetic_energy(moved) / scale**2, kinetic_energy(track))
    same(straight_distance(moved) / scale, straight_distance(track))
    same(turning(moved), turning(track))


@given(tracks())
def test_a_track_read_backwards_costs_as_much_and_turns_as_often(track):
    same(kinetic_energy(track.flip(0)), kinetic_energy(track).flip(0))
    same(straight_distance(track.flip(0)), straight_distance(track).flip(0))
    same(turning(track.flip(0)), turning(track).flip(0))


@given(tracks())
def test_no_track_costs_less_than_the_straight_one_in_equal_steps(track):
    """Cauchy and Schwarz: n times the energy is at least |x^(n) - x^(0)|^2; eq. (5) has it."""
    n, mean_square = len(track) - 1, (track[-1] - track[0]).square().sum(1).mean()
    assert n * kinetic_energy(track).sum() >= mean_square - 1e-9
    steps = torch.arange(n + 1).double()[:, None, None] / n
    line = track[0] + steps * (track[-1] - track[0])
    same(n * kinetic_energy(line).sum(), mean_square)


def test_a_line_in_equal_steps_is_its_own_interpolation_and_never_turns():
    line = torch.arange(5.0)[:, None, None] * torch.tensor([[3.0, -4.0, 0.1]])
    assert_close(straight_distance(line), torch.zeros(5, 1).double())
    assert_close(turning(line), torch.ones(3, 1).double())
    assert_close(kinetic_energy(line), torch.full((4,), 25.01).double())


def test_a_line_in_unequal_steps_strays_though_it_is_straight():
    line = torch.tensor([0.0, 3.0, 4.0])[:, None, None] * torch.tensor([[3.0, 4.0]]) / 5
    assert_close(line_shape_ratio(line), torch.ones(1).double())
    assert_close(straight_distance(line), torch.tensor([[0.0], [1.0], [0.0]]).double())


def test_a_square_turns_at_right_angles_and_back_is_minus_one():
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0], [0.0, 2.0], [0.0, 1.0]])
    wanted = torch.tensor([0.0, 0.0, math.nan, math.nan])[:, None].double()
    assert_close(turning(square[:, None]), wanted, equal_nan=True)
    back = torch.tensor([[0.3, 0.7], [0.6, 0.1], [0.3, 0.7]])[:, None]
    assert_close(turning(back), torch.tensor([[-1.0]]).double())
    assert_close(straight_distance(back)[1], back[1].sub(back[0]).double().norm(dim=1))


def test_a_random_walk_in_high_dimension_turns_at_right_angles():
    walk = torch.randn(6, 20, 20_000, generator=torch.Generator().manual_seed(0)).cumsum(0)
    assert_close(turning(walk), torch.zeros(4, 20).double(), rtol=0, atol=0.05)


def test_one_block_has_no_turn_and_does_not_stray():
    track = torch.tensor([[[0.0, 1.0], [2.0, 2.0]], [[3.0, 5.0], [2.0, 2.0]]])
    assert turning(track).shape == (0, 2)
    assert_close(straight_distance(track), torch.zeros(2, 2).double())
    assert_close(kinetic_energy(track), torch.tensor([12.5]).double())


def test_small_steps_far_from_the_origin_are_not_rounded_away():
    track = 1000 + torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])[:, None] / 1024
    assert_close(kinetic_energy(track), torch.ones(2).double() / 1024**2)
    assert_close(straight_distance(track)[1], torch.tensor([0.5**0.5 / 1024]).double())
    assert_close(turning(track), torch.zeros(1, 1).double())


def test_energy_over_penalty_is_infinite_without_weights_and_nothing_over_nothing_is_nan():
    wanted = torch.tensor([0.25, math.inf, math.nan, 0.0], dtype=torch.float64)
    energy, norms = torch.tensor([1.0, 2.0, 0.0, 0.0]), torch.tensor([4.0, 0.0, 0.0, 3.0])
    assert_close(energy_ratio(energy, norms), wanted, equal_nan=True)
    assert_close(energy_ratio(energy.tolist(), norms.tolist()), wanted, equal_nan=True)


def test_a_state_that_is_not_finite_is_nan_where_it_counts():
    track = torch.arange(4.0)[:, None, None].repeat(1, 2, 3)
    track[2, 0] = math.nan
    assert kinetic_energy(track).isnan().tolist() == [False, True, True]
    assert turning(track).isnan().tolist() == [[True, False], [True, False]]
    assert straight_distance(track)[:, 0].isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("shape", [(3, 4), (1, 2, 3), (2, 2, 2, 2)])
@pytest.mark.parametrize("figure", [kinetic_energy, straight_distance, turning])
def test_what_is_not_a_track_is_refused(figure, shape):
    with pytest.raises(ValueError, match=r"should be \(n \+ 1, m, d\)"):
        figure(torch.zeros(shape))


def test_states_of_another_shape_or_too_many_are_refused():
    straight = StraightDistance(torch.zeros(2, 3), torch.ones(2, 3), 1)
    with pytest.raises(ValueError, match="one of 2 of shape"):
        straight.update(torch.zeros(2, 4))
    for _ in range(2):
        straight.update(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="one of 2 of shape"):
        straight.update(torch.zeros(2, 3))
