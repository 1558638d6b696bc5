"""OTS: against all permutations, against SciPy, and as theorems about optimal transport."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linear_sum_assignment

from scoring import assignment, transport
from scoring.transport import (
    Problem,
    assignment_problem,
    class_scores,
    optimal_transport_score,
    solve,
)


@st.composite
def maps(draw, least=2, most=7, outputs=True):
    """Inputs and outputs (m, d) on a grid of eighths, where equal costs are exactly equal."""
    m, d = draw(st.integers(least, most)), draw(st.integers(1, 3))
    reach = draw(st.sampled_from([2, 100]))
    points = arrays("int64", (m, d), elements=st.integers(-reach, reach)).map(lambda a: a / 8)
    x, y = draw(points), draw(points)
    assume((x != x[0]).any() and (y != y[0]).any())
    return x, y


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


@pytest.mark.parametrize("seed", range(3))
def test_the_optimal_cost_is_that_of_scipy(seed):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(200, 10))
    y = x @ draw.normal(size=(10, 10)) + draw.normal(size=(200, 10))
    cost = ((x[:, None] - y) ** 2).sum(2)
    rows, columns = linear_sum_assignment(cost)
    result = optimal_transport_score(x, y)
    assert_allclose(result.optimal_cost, cost[rows, columns].mean(), rtol=1e-12)
    assert_array_equal(result.permutation, columns)


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


@settings(max_examples=25)
@given(maps(least=2, most=7))
def test_the_potentials_prove_that_no_matching_costs_less(points):
    x, y = points
    result = optimal_transport_score(x, y)
    cost = ((x[:, None] - y) ** 2).sum(2)
    assert (result.phi[:, None] + result.psi <= cost + 1e-9).all()
    assert_allclose((result.phi + result.psi).mean(), result.optimal_cost, atol=1e-9)
    assert result.suboptimality <= 1e-9


@settings(max_examples=25)
@given(maps(least=3, most=6), st.randoms())
def test_the_bound_is_reached_by_the_optimum_and_missed_by_every_other_permutation(points, chance):
    x, y = points
    m = len(x)
    result = optimal_transport_score(x, y)
    bound = m * (result.phi + result.psi).mean()
    least, best = reference.optimal_matchings(x.tolist(), y.tolist())
    assert_allclose(bound, least, atol=1e-9)
    other = list(range(m))
    chance.shuffle(other)
    excess = sum(((x[i] - y[j]) ** 2).sum() for i, j in enumerate(other)) - bound
    assert (excess > 1e-6) == (tuple(other) not in best)


KINDS = {
    "own output is plainly nearest": lambda x, draw: x + 0.01 * draw.normal(size=x.shape),
    "a few points are swapped": lambda x, draw: x[_swapped(len(x), draw)] * 1.5,
    "unrelated": lambda x, draw: draw.normal(size=x.shape),
    "folded": lambda x, draw: np.abs(x @ draw.normal(size=(x.shape[1], x.shape[1]))),
    "a line": lambda x, draw: x[:, :1] * np.ones(x.shape[1]) + 0.01 * draw.normal(size=x.shape),
}


def _swapped(m, draw):
    order = np.arange(m)
    few = draw.choice(m, 10, replace=False)
    order[few] = np.roll(few, 1)
    return order


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "d"), [(1200, 4), (1200, 700), (350, 2)])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_large_problems_have_the_cost_of_scipy_and_a_proof(kind, m, d, precision):
    draw = np.random.default_rng(m + d)
    x = draw.normal(size=(m, d)).astype(precision)
    y = KINDS[kind](x.astype(np.float64), draw).astype(precision)
    result = optimal_transport_score(x, y)
    squares = (x.astype(np.float64) ** 2).sum(1)[:, None] + (y.astype(np.float64) ** 2).sum(1)
    cost = squares - 2 * x.astype(np.float64) @ y.astype(np.float64).T
    columns = linear_sum_assignment(cost)[1]
    close = 1e-11 if precision == np.float64 else 1e-5
    assert_allclose(result.optimal_cost, cost[np.arange(m), columns].mean(), rtol=close, atol=close)
    assert (result.permutation == columns).mean() >= (1 if precision == np.float64 else 0.98)
    assert result.suboptimality <= 1e-9
    slack = cost - result.phi[:, None] - result.psi
    assert slack.min() >= -close * np.abs(cost).max()
    bound = (result.phi + result.psi).mean()
    assert_allclose(bound, result.optimal_cost, rtol=10 * close, atol=close)


def test_how_the_matrix_is_read_changes_nothing(monkeypatch):
    """Products kept, or computed again each time; blocks of any size; any number of threads."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(500, 20))
    y = np.tanh(x @ draw.normal(size=(20, 20)))
    wanted = optimal_transport_score(x, y)
    monkeypatch.setattr(transport, "HELD", 0)
    for block, threads in ((2**24, 1), (5000, 3), (1, 2)):
        monkeypatch.setattr(assignment, "BLOCK", block)
        result = optimal_transport_score(x, y, threads)
        assert_array_equal(result.permutation, wanted.permutation)
        assert_allclose(result.optimal_cost, wanted.optimal_cost, rtol=1e-12)
        assert result.suboptimality <= 1e-9
        assert [p.ots for p in result.prefixes] == [p.ots for p in wanted.prefixes]


@pytest.mark.parametrize("kind", ["unrelated", "own output is plainly nearest"])
def test_the_scores_of_the_first_points_are_those_of_these_points_alone(kind):
    draw = np.random.default_rng(1)
    x = draw.normal(size=(1100, 6))
    y = KINDS[kind](x, draw)
    result = optimal_transport_score(x, y)
    assert [prefix.m for prefix in result.prefixes] == [100, 300, 1000, 1100]
    for prefix in result.prefixes:
        alone = optimal_transport_score(x[: prefix.m], y[: prefix.m])
        assert prefix.ots == alone.ots
        assert_allclose(prefix.gap, alone.gap, rtol=1e-9)
        assert prefix.suboptimality <= 1e-9
    assert (result.prefixes[-1].ots, result.prefixes[-1].gap) == (result.ots, result.gap)


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


LINES = np.sort(np.random.default_rng(0).normal(size=(700, 1)), axis=0)
CIRCLE = np.linspace(0, 2 * np.pi, 700, endpoint=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.arange(701.0)[:, None], -np.arange(701.0)[:, None]),
        (LINES, -LINES),
        (LINES @ np.ones((1, 20)), -LINES @ np.ones((1, 20))),
        (LINES, np.roll(LINES, 1, axis=0)),
        (np.c_[np.cos(CIRCLE), np.sin(CIRCLE)], np.c_[-np.sin(CIRCLE), np.cos(CIRCLE)]),
    ],
    ids=["line", "normal", "line in 20-d", "rolled", "circle"],
)
def test_points_in_order_are_matched_exactly_however_many_passes_it_takes(x, y):
    cost = ((x[:, None] - y) ** 2).sum(2)
    rows, columns = linear_sum_assignment(cost)
    result = optimal_transport_score(x, y)
    least = cost[rows, columns].mean()
    assert result.suboptimality <= 1e-6
    assert_allclose(result.optimal_cost, least, rtol=1e-9, atol=1e-9)


def test_good_points_far_from_the_origin_have_not_collapsed():
    x = np.random.default_rng(0).normal(size=(50, 3))
    near, far = optimal_transport_score(x, x + 1), optimal_transport_score(x + 1e7, x + 1e7 + 1)
    assert not far.collapsed
    assert far.ots == near.ots
    assert optimal_transport_score(x, 1e-6 * x).ots == 1


def test_a_prefix_that_has_collapsed_has_no_ots_of_its_own():
    x, y = np.random.default_rng(0).normal(size=(2, 150, 3))
    y[:100] = 1
    first, whole = optimal_transport_score(x, y).prefixes
    assert math.isnan(first.ots)
    assert math.isnan(first.gap)
    assert whole.ots < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("power", [-1000, -565, -300, 300, 664, 1000])
@given(points=maps())
def test_points_of_any_size_are_matched_alike(power, points):
    x, y = points
    found, wanted = (optimal_transport_score(s * x, s * y) for s in (2.0**power, 1.0))
    for name in ("ots", "gap", "movement", "suboptimality", "collapsed", "ties", "permutation"):
        assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
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
