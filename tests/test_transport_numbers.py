"""OTS of points of any type, size and place: matched alike, or refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from point_maps import maps

from scoring.transport import assignment_problem, optimal_transport_score, solve


def test_arrays_tensors_lists_of_images_and_float32_give_the_same():
    draw = np.random.default_rng(0)
    x, y = (draw.integers(-99, 99, (12, 2, 3)) / 8 for _ in range(2))
    wanted = optimal_transport_score(x.reshape(12, 6), y.reshape(12, 6))
    tensors = torch.tensor(x, requires_grad=True), torch.from_numpy(y)
    for a, b in [(x, y), (x.tolist(), y.tolist()), tensors, [np.float32(x), np.float32(y)]]:
        result = optimal_transport_score(a, b)
        assert_array_equal(result.permutation, wanted.permutation)
        assert_array_equal(result.own_cost, wanted.own_cost)
        assert_allclose(result.optimal_cost, wanted.optimal_cost, rtol=1e-6)
    single = solve(assignment_problem(torch.from_numpy(x).float(), torch.from_numpy(y).float()))
    assert_array_equal(single.permutation, wanted.permutation)
    assert_allclose(single.optimal_cost, wanted.optimal_cost, rtol=1e-6)


def test_points_far_from_the_origin_are_matched_as_well_as_near_ones():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 100, 8))
    near = optimal_transport_score(x, y)
    far = optimal_transport_score(x + 1e6, y + 1e6)
    assert_array_equal(far.permutation, near.permutation)
    assert_allclose(far.optimal_cost, near.optimal_cost, rtol=1e-6)


def test_states_whose_products_overflow_float32_are_still_matched():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 20, 6, generator=draw)
    near, far = (solve(assignment_problem(scale * x, scale * y)) for scale in (1.0, 1e25))
    assert not far.collapsed
    assert_array_equal(far.permutation, near.permutation)
    assert_allclose(far.gap, near.gap, rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_values_that_are_not_finite_are_refused(side, bad):
    points = [np.ones((3, 2)), np.ones((3, 2))]
    points[side][1, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        optimal_transport_score(*points)


@pytest.mark.parametrize(("x", "y"), [((3, 2), (4, 2)), ((3, 2), (3, 3)), ((1, 2), (1, 2))])
def test_points_that_do_not_pair_up_are_refused(x, y):
    with pytest.raises(ValueError, match="should be"):
        optimal_transport_score(np.zeros(x), np.zeros(y))


def test_good_points_far_from_the_origin_have_not_collapsed():
    x = np.random.default_rng(0).normal(size=(50, 3))
    near, far = optimal_transport_score(x, x + 1), optimal_transport_score(x + 1e7, x + 1e7 + 1)
    assert not far.collapsed
    assert far.ots == near.ots
    assert optimal_transport_score(x, 1e-6 * x).ots == 1


@pytest.mark.slow
@pytest.mark.parametrize("power", [-1000, -565, -300, 300, 664, 1000])
@given(points=maps())
def test_points_of_any_size_are_matched_alike(power, points):
    x, y = points
    found, wanted = (optimal_transport_score(s * x, s * y) for s in (2.0**power, 1.0))
    for name in ("ots", "gap", "suboptimality", "collapsed", "ties", "permutation"):
        assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    assert_allclose(found.movement, wanted.movement, rtol=1e-14)  # tiny costs may be denormal
    with np.errstate(over="ignore"):  # costs of these sizes are 0, inf, or lose digits
        costs = wanted.own_cost * 2.0**power * 2.0**power
    assert_allclose(found.own_cost, costs, rtol=1e-12, atol=1e-300)
    assert_allclose(found.optimal_cost, found.matched_cost.mean(), rtol=1e-9, atol=1e-300)


def test_float32_points_may_be_as_large_as_float32_numbers():
    draw = np.random.default_rng(0)
    x, y = draw.uniform(-1, 1, (2, 300, 4)).astype(np.float32)
    large = optimal_transport_score(x * np.float32(2**127), y * np.float32(2**127))
    assert_array_equal(large.permutation, optimal_transport_score(x, y).permutation)
    assert large.ots == optimal_transport_score(x, y).ots
