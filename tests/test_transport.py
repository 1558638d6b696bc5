"""OTS: against all permutations, and as theorems about optimal transport."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from point_maps import maps

from scoring.transport import (
    Problem,
    assignment_problem,
    class_scores,
    optimal_transport_score,
    solve,
)


@given(maps(most=6))
def test_no_permutation_costs_less(points):
    x, y = points
    least, best = reference.optimal_matchings(x.tolist(), y.tolist())
    result = optimal_transport_score(x, y)
    assert_allclose(result.optimal_cost, least / len(x), rtol=1e-9, atol=1e-12)
    assert tuple(result.permutation) in best
    assert result.ots == np.mean(result.permutation == np.arange(len(x)))


@settings(max_examples=15)
@given(maps(least=7, most=7))
def test_seven_points_have_the_best_of_5040_permutations(points):
    x, y = points
    least, best = reference.optimal_matchings(x.tolist(), y.tolist())
    result = optimal_transport_score(x, y)
    assert_allclose(result.optimal_cost, least / 7, rtol=1e-9, atol=1e-12)
    assert tuple(result.permutation) in best


@given(maps(most=6))
def test_ots_is_one_when_no_other_matching_costs_less(points):
    x, y = points
    _, best = reference.optimal_matchings(x.tolist(), y.tolist())
    assert (optimal_transport_score(x, y).ots == 1) == (tuple(range(len(x))) in best)


@given(maps())
def test_costs_are_distances_between_the_matched_points(points):
    x, y = points
    result = optimal_transport_score(x, y)
    own = [reference.squared_distance(a, b) for a, b in zip(x, y, strict=True)]
    matched = [
        reference.squared_distance(a, y[j]) for a, j in zip(x, result.permutation, strict=True)
    ]
    assert_allclose(result.own_cost, own, rtol=1e-12, atol=1e-12)
    assert_allclose(result.matched_cost, matched, rtol=1e-9, atol=1e-9)
    assert_allclose(result.network_cost, np.mean(own), rtol=1e-12)
    assert_allclose(result.optimal_cost, np.mean(matched), rtol=1e-9, atol=1e-12)
    assert result.m == len(x)


@given(maps())
def test_the_answer_is_a_permutation_and_the_gap_lies_between_zero_and_one(points):
    result = optimal_transport_score(*points)
    assert result.permutation.dtype == np.int64
    assert sorted(result.permutation) == list(range(result.m))
    assert 0 <= result.gap <= 1
    assert not result.collapsed
    if result.ots == 1:
        assert result.gap == 1


@given(maps(), st.integers(-800, 800))
def test_moving_all_outputs_alike_does_not_change_the_matching(points, shift):
    x, y = points
    here, there = optimal_transport_score(x, y), optimal_transport_score(x, y + shift / 8)
    # Costs differ by the same amount under any matching; equal ones may be broken otherwise.
    saved = here.network_cost - here.optimal_cost
    assert_allclose(there.network_cost - there.optimal_cost, saved, atol=1e-6)
    assert (there.ots == 1) == (here.ots == 1)


@given(st.integers(0, 10**6))
def test_the_order_of_the_points_permutes_the_answer(seed):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(20, 3))
    y = x + draw.normal(size=(20, 3))
    order = draw.permutation(20)
    one, other = optimal_transport_score(x, y), optimal_transport_score(x[order], y[order])
    assert_array_equal(order[other.permutation], one.permutation[order])
    assert other.ots == one.ots
    assert_allclose(other.gap, one.gap, rtol=1e-12)


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_a_symmetric_positive_definite_map_is_its_own_optimal_transport(seed, roundness):
    """Brenier: the gradient of a convex function is the optimal map to its image."""
    draw = np.random.default_rng(seed)
    x, root = draw.normal(size=(30, 4)), draw.normal(size=(4, 4))
    y = x @ (root @ root.T + roundness * np.eye(4)) + draw.normal(size=4)
    result = optimal_transport_score(x, y)
    assert result.ots == 1
    assert result.gap == 1


def test_the_gradient_of_any_convex_function_is_optimal():
    x = np.random.default_rng(0).normal(size=(60, 5))
    softmax = np.exp(x) / np.exp(x).sum(1, keepdims=True)  # gradient of log-sum-exp
    assert optimal_transport_score(x, softmax).ots == 1


def test_turning_points_around_their_mean_is_the_worst_map():
    x = np.random.default_rng(0).normal(size=(50, 2))
    result = optimal_transport_score(x, -x)
    assert result.ots < 0.2
    assert result.gap < 0.1


def test_a_shuffle_of_the_points_has_gap_zero_and_is_found():
    draw = np.random.default_rng(0)
    x, order = draw.normal(size=(40, 3)), np.roll(np.arange(40), 1)
    result = optimal_transport_score(x, x[order])
    assert_array_equal(order[result.permutation], np.arange(40))
    assert result.ots == 0
    assert_allclose(result.gap, 0, atol=1e-12)


def test_the_identity_map_is_optimal_with_gap_one():
    x = np.random.default_rng(0).normal(size=(10, 3))
    result = optimal_transport_score(x, x)
    assert (result.ots, result.gap, result.network_cost, result.optimal_cost) == (1, 1, 0, 0)


def test_points_that_occur_twice_do_not_lower_ots():
    x = np.repeat(np.random.default_rng(0).normal(size=(10, 64)), 3, axis=0)
    assert optimal_transport_score(x, 2 * x + 1).ots == 1
    single = torch.from_numpy(x).float()
    assert solve(assignment_problem(single, 2 * single + 1)).ots == 1


def test_a_random_matching_scores_one_over_m_on_average():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 10, 20))
    scores = [optimal_transport_score(a, b).ots for a, b in zip(x[::2], x[1::2], strict=True)]
    assert_allclose(np.mean(scores), 1 / 10, atol=0.04)


@pytest.mark.parametrize("constant", ["inputs", "outputs", "outputs far away", "zeros"])
def test_collapsed_points_have_no_ots(constant):
    x = np.random.default_rng(0).normal(size=(8, 5))
    x, y = {
        "inputs": (np.full((8, 5), 0.1), x),
        "outputs": (x, np.full((8, 5), 0.1)),
        "outputs far away": (x, 1e9 + 1e-9 * x),
        "zeros": (x, np.zeros((8, 5))),
    }[constant]
    result = optimal_transport_score(x, y)
    assert result.collapsed
    assert math.isnan(result.ots)
    assert math.isnan(result.gap)
    assert math.isnan(result.movement)
    assert sorted(result.permutation) == list(range(8))
    assert 0 < result.network_cost < math.inf


def test_ties_are_the_points_that_another_optimal_matching_matches_otherwise():
    draw = np.random.default_rng(2)
    x = draw.normal(size=(40, 5))
    assert optimal_transport_score(x, x @ draw.normal(size=(5, 5))).ties == 0
    assert optimal_transport_score(x, 2 * x).ties == 0
    twice = np.concatenate([x, x[:3]])  # three points are there twice
    assert optimal_transport_score(twice, 2 * twice).ties == 6
    square = np.array([[1.0, 0.0], [-1.0, 0.0]])  # both matchings of these cost the same
    assert optimal_transport_score(square, square[:, ::-1]).ties == 2


CANCELLING = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0]]) / 8, np.eye(3) / 8


@example(CANCELLING)  # all products of the first row are 0 but for rounding
@given(maps(most=6))
def test_no_point_is_tied_where_one_matching_is_best(points):
    x, y = points
    _, best = reference.optimal_matchings(x.tolist(), y.tolist())
    otherwise = sum(len({sigma[i] for sigma in best}) > 1 for i in range(len(x)))
    assert optimal_transport_score(x, y).ties == otherwise


def test_movement_is_nothing_for_the_identity_and_has_no_unit():
    draw = np.random.default_rng(0)
    x, v = draw.normal(size=(2, 50, 4))
    assert optimal_transport_score(x, x).movement == 0
    assert_allclose(optimal_transport_score(x, x + 100).movement, 0, atol=1e-9)
    one = optimal_transport_score(x, x + 0.1 * v)
    assert 0.001 < one.movement < 0.1
    assert_allclose(optimal_transport_score(8 * x, 8 * (x + 0.1 * v)).movement, one.movement)


def test_each_class_has_its_own_score():
    x = np.array([[0.0], [1.0], [5.0], [6.0]])
    result = optimal_transport_score(x, x[[0, 1, 3, 2]])  # the last two are exchanged
    assert result.ots == 0.5
    assert_array_equal(class_scores(result, np.array([0, 0, 2, 2])), [1, np.nan, 0])
    collapsed = optimal_transport_score(x, 0 * x)
    assert np.isnan(class_scores(collapsed, np.array([0, 0, 1, 1]))).all()


@pytest.mark.parametrize("d", [3, 50])
def test_a_problem_comes_back_from_a_file_as_it_was(tmp_path, d):
    x, y = np.random.default_rng(0).normal(size=(2, 30, d)).astype(np.float32)
    problem = assignment_problem(x, y)
    assert (problem.inner is None) == (d == 3)  # whatever is smaller is kept
    np.savez(tmp_path / "problem.npz", **problem.arrays())
    with np.load(tmp_path / "problem.npz") as file:
        again = solve(Problem(**file))
    wanted = solve(problem)
    assert_array_equal(again.permutation, wanted.permutation)
    assert again.optimal_cost == wanted.optimal_cost
    assert again.collapsed is False
