"""Geodesic excess and the curve of measures: exact identities, bounds, and cases by hand."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from test_energy import points_of
from test_line_shape import tracks
from torch.testing import assert_close

from scoring.excess import Action, without_drift
from scoring.geodesic import action, curve_from_costs, geodesic_excess, wasserstein_curve

CLOSE = {"rel": 1e-6, "abs": 1e-9}


def cloud(m, d, seed=0):
    return torch.randn(m, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def geodesic(x, blocks):
    """x + t (T(x) - x) at equal steps, T the gradient of a convex function of each coordinate."""
    moved = x + x.pow(3) / 3 + 2 * x + 1
    return torch.stack([x + t / blocks * (moved - x) for t in range(blocks + 1)])


def moving(track):
    """A track that moves, with few enough points to try every matching, and apart at both ends."""
    track = track[:, :6]
    assume(all(len(track[end].unique(dim=0)) >= 2 for end in (0, -1)))
    assume(reference.squared_wasserstein(points_of(track), 0, -1) > 0)
    return track


@given(tracks())
def test_the_excess_and_its_factors_are_those_of_plain_loops(track):
    track = moving(track)
    wanted = reference.geodesic_excess(points_of(track))
    assert geodesic_excess(track)[:3] == pytest.approx(wanted, **CLOSE)


@given(tracks())
def test_the_excess_is_the_product_of_its_factors_and_each_is_at_least_one(track):
    found = geodesic_excess(moving(track))
    assert found.excess == pytest.approx(found.straightness * found.transport, **CLOSE)
    assert min(found.straightness, found.transport) >= 1 - 1e-9


@given(tracks())
def test_the_excess_splits_along_the_curve_of_measures(track):
    track = moving(track)
    blocks = range(1, len(track))
    costs = [reference.squared_wasserstein(points_of(track), k - 1, k) for k in blocks]
    curve = wasserstein_curve(track)
    np.testing.assert_allclose(curve.speeds, np.sqrt(costs), atol=1e-6)
    split = curve.block_factor * curve.speed_factor * curve.length_ratio**2
    assert curve.excess == pytest.approx(split, **CLOSE)
    assert curve.excess == pytest.approx(geodesic_excess(track).excess, **CLOSE)
    assert min(curve.block_factor, curve.speed_factor, curve.length_ratio) >= 1 - 1e-9


@pytest.mark.parametrize("blocks", [1, 2, 5, 10])
def test_the_gradient_of_a_convex_function_in_equal_steps_is_a_geodesic(blocks):
    track = geodesic(cloud(80, 3), blocks)
    found, curve = geodesic_excess(track), wasserstein_curve(track)
    assert found[:3] == pytest.approx((1, 1, 1), rel=1e-9)
    assert found.transport_share == pytest.approx(0, abs=1e-9)
    assert curve.length_ratio == pytest.approx(1, rel=1e-9)
    assert curve.speed_variation == pytest.approx(0, abs=1e-4)


def test_unequal_steps_along_a_geodesic_cost_action_but_stay_straight():
    x, y = geodesic(cloud(60, 3), 1)
    track = torch.stack([x + t * (y - x) for t in (0.0, 0.5, 0.75, 1.0)])
    found, curve = geodesic_excess(track), wasserstein_curve(track)
    assert found.straightness == pytest.approx(3 * (0.25 + 0.0625 + 0.0625), rel=1e-9)
    assert curve.length_ratio == pytest.approx(1, rel=1e-9)
    assert curve.speed_factor == pytest.approx(found.straightness, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_independent_directions_of_any_lengths_have_a_straightness_near_n(scale):
    n = 8
    lengths = scale ** torch.arange(n, dtype=torch.float64)
    steps = torch.stack([cloud(40, 20_000, seed) for seed in range(n)]) * lengths[:, None, None]
    track = torch.cat([torch.zeros(1, 40, 20_000), steps.cumsum(0)])
    assert geodesic_excess(action(track, transport=False)).straightness == pytest.approx(
        n, rel=0.02
    )


@given(tracks(), st.integers(0, 2**32))
def test_a_common_shift_of_every_block_changes_nothing_without_drift(track, seed):
    track = moving(track).double()
    assume(without_drift(action(track)).optimal_cost > 1e-6)
    shifts = 5 * cloud(len(track), track.shape[2], seed)
    before = geodesic_excess(without_drift(action(track)))
    after = geodesic_excess(without_drift(action(track + shifts[:, None])))
    assert after[:3] == pytest.approx(before[:3], rel=1e-6)


def test_two_clouds_far_apart_hide_a_random_map_unless_drift_is_removed():
    x, y = cloud(200, 30), cloud(200, 30, seed=1)
    found = action(torch.stack([x, y + 50]))
    assert geodesic_excess(found).transport < 1.001
    assert geodesic_excess(without_drift(found)).transport > 1.2
    assert geodesic_excess(found).transport_share == pytest.approx(1, abs=0.15)


def test_without_an_assignment_only_the_straightness_factor_is_known():
    found = geodesic_excess(action(geodesic(cloud(20, 2), 3), transport=False))
    assert found.straightness == pytest.approx(1)
    assert all(map(math.isnan, (found.excess, found.transport, found.transport_share)))


def test_points_that_come_back_have_an_infinite_factor_and_still_points_none():
    x = torch.tensor([[0.0], [5.0]])
    back = geodesic_excess(torch.stack([x, x + 1, x]))
    assert back[:2] == (math.inf, math.inf)
    assert math.isnan(back.transport)
    assert all(map(math.isnan, geodesic_excess(torch.stack([x, x]))[:3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_a_stage_that_only_shifts_its_points_has_no_excess_without_drift(dtype, offset):
    x, step = cloud(50, 8).to(dtype) + offset, 3 * cloud(1, 8, seed=1).to(dtype)
    track = [x]
    for _ in range(3):
        track.append(track[-1] + step)
    found = action(torch.stack(track))
    assert geodesic_excess(found).straightness == pytest.approx(1)
    for known in (found, found._replace(optimal_cost=math.nan)):
        assert all(map(math.isnan, geodesic_excess(without_drift(known))[:3]))


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0])
def test_small_moves_beside_a_large_shift_keep_their_excess(size):
    x, y = geodesic(cloud(40, 3), 1)
    corner = torch.stack([x, x + size * y.flip(0), x + size * y])
    corner -= corner.mean(1, keepdim=True)
    wanted = geodesic_excess(corner)
    found = geodesic_excess(without_drift(action(corner + torch.arange(3)[:, None, None])))
    assert found[:3] == pytest.approx(wanted[:3], rel=1e-4)
    assert wanted.straightness > 1.5


@pytest.mark.parametrize("size", [1e-3, 1e-5, 5e-6, 2e-6])
def test_small_random_steps_beside_a_large_shift_keep_their_straightness(size):
    track = torch.stack([cloud(50, 20, seed) for seed in range(51)]).cumsum(0) * size
    moved = track + torch.arange(51, dtype=torch.float64)[:, None, None]
    wanted = geodesic_excess(without_drift(action(track)))
    found = geodesic_excess(without_drift(action(moved)))
    assert found.straightness == pytest.approx(wanted.straightness, rel=0.02)
    assert 10 < wanted.straightness < 100


@pytest.mark.parametrize("end", [0, -1])
def test_a_collapsed_stage_has_speeds_and_a_straightness_but_no_excess(end):
    track = torch.stack([cloud(20, 3, seed) for seed in range(3)])
    track[end] = 1.0
    found, curve = geodesic_excess(track), wasserstein_curve(track)
    assert found.straightness >= 1
    assert all(map(math.isnan, (found.excess, found.transport, found.transport_share)))
    assert len(curve.speeds) == 2
    assert (curve.speeds > 0).all()
    assert all(map(math.isnan, curve[1:]))
    rest = geodesic_excess(without_drift(action(track)))
    assert math.isnan(rest.transport)
    assert rest.straightness >= 1


def test_a_swap_of_two_points_is_free_in_wasserstein_space():
    track = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[:, :, None]
    assert action(track).network_cost == 1
    assert geodesic_excess(track)[:3] == (math.inf, 1, math.inf)


def test_arrays_and_sums_give_what_tensors_give():
    track = geodesic(cloud(10, 2), 2).flip(1)
    assert geodesic_excess(track.numpy()) == geodesic_excess(track)
    found = action(track)
    assert_close(torch.tensor(found.energy), track.diff(dim=0).square().sum(2).mean(1))
    same = Action(found.energy.tolist(), found.drift, *found[2:])
    assert geodesic_excess(same) == geodesic_excess(track)
    assert curve_from_costs(found, found.energy).block_factor == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("power", [-565, 664])
@given(track=tracks())
def test_the_excess_does_not_depend_on_the_size_of_a_track(power, track):
    track = moving(track)
    found, wanted = geodesic_excess(track * 2.0**power), geodesic_excess(track)
    assert list(found) == pytest.approx(list(wanted), **CLOSE, nan_ok=True)
    curve, other = wasserstein_curve(track * 2.0**power), wasserstein_curve(track)
    assert list(curve[1:]) == pytest.approx(list(other[1:]), **CLOSE, nan_ok=True)
    assert curve.speeds * 2.0**-power == pytest.approx(other.speeds, **CLOSE)
