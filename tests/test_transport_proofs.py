"""OTS of large and of hard problems: the cost of SciPy, a proof, and its first points alone."""

import math

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from point_maps import maps
from scipy.optimize import linear_sum_assignment

from scoring import assignment, transport
from scoring.transport import optimal_transport_score


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


def test_a_prefix_that_has_collapsed_has_no_ots_of_its_own():
    x, y = np.random.default_rng(0).normal(size=(2, 150, 3))
    y[:100] = 1
    first, whole = optimal_transport_score(x, y).prefixes
    assert math.isnan(first.ots)
    assert math.isnan(first.gap)
    assert whole.ots < 0.9
