"""OTS where differences are small against the points: exact for the points, or said not to be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linear_sum_assignment

from scoring import resolution, transport
from scoring.problems import assignment_problem
from scoring.shuffled import shuffled_score
from scoring.transport import optimal_transport_score


def clusters(draw, m, d):
    centres = draw.normal(size=(10, d))
    centres *= 1000 / np.linalg.norm(centres, axis=1, keepdims=True)
    label = np.arange(m) % 10
    return [centres[label] + draw.normal(size=(m, d)) / d**0.5 for _ in range(2)]


def outlier(draw, m, d, size=1e5):
    x = draw.normal(size=(m, d))
    y = x[draw.permutation(m)] + 0.3 * draw.normal(size=(m, d))
    x[0] = y[0] = size
    return x, y


def offset(draw, m, d):
    x = draw.normal(size=(m, d))
    return x + 1000, np.tanh(2 * x @ draw.normal(size=(d, d))) + 1000


def line(draw, m, d):
    x = draw.uniform(size=(m, 1)) * np.ones(d)
    return x, x + draw.normal(size=(m, d)) / (4 * m)


def copies(draw, m, d):
    x = draw.normal(size=(m, d))
    y = x + 0.5 * draw.normal(size=(m, d))
    y[: m // 4] = y[0]
    return x, y


def moved_copies(draw, m, d):
    x = draw.normal(size=(m, d))
    return x, x[draw.permutation(m)] + 1e-4 * draw.normal(size=(m, d))


def small(draw, m, d):
    return tuple(1e-12 * points for points in clusters(draw, m, d))


FAMILIES = [clusters, outlier, offset, line, copies, moved_copies, small]


def costs(x, y):
    difference = x.astype(np.float64)[:, None] - y.astype(np.float64)
    return (difference**2).sum(2)


def bounds(x, y):
    """By how much rounding may spoil phi_i + psi_j <= |x_i - y_j|^2, (m, m)."""
    a, b = (np.linalg.norm(p - p.mean(0, dtype=np.float64), axis=1) for p in (x, y))
    size = assignment_problem(x, y)
    size = (size.x if size.inner is None else size.inner).dtype.itemsize
    far = 1e-14 * ((y - x.mean(0, dtype=np.float64)) ** 2).sum(1).max()  # sums in float64
    return 4 * resolution.rounding(x.shape[1], size) * a[:, None] * b.max() + far


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("d", [2, 150], ids=["points kept", "products kept"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_matching_is_the_best_one_for_the_points_themselves(family, d, kind):
    x, y = (p.astype(kind) for p in family(np.random.default_rng(d), 120, d))
    cost, here = costs(x, y), np.arange(120)
    best = cost[linear_sum_assignment(cost)].mean()
    result = optimal_transport_score(x, y)
    assert_allclose(cost[here, result.permutation].mean(), best, rtol=1e-6)
    assert_allclose(result.optimal_cost, best, rtol=1e-6)
    assert_allclose(result.matched_cost.mean(), best, rtol=1e-6)
    assert result.suboptimality <= (1e-9 if d == 2 or kind == np.float64 else 1e-5)
    assert_allclose(result.lower_bound, best, rtol=1e-5)
    if result.ties == 0:
        assert_array_equal(result.permutation, linear_sum_assignment(cost)[1])
    assert (result.phi[:, None] + result.psi <= cost + bounds(x, y)).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_points_whose_products_are_not_kept_are_matched_alike(family, kind, monkeypatch):
    x, y = (p.astype(kind) for p in family(np.random.default_rng(0), 250, 3))
    kept = optimal_transport_score(x, y)
    monkeypatch.setattr(transport, "HELD", 0)
    result = optimal_transport_score(x, y)
    assert_allclose(result.optimal_cost, kept.optimal_cost, rtol=1e-6)
    assert result.suboptimality <= 1e-4
    if kept.ties == 0:
        assert_array_equal(result.permutation, kept.permutation)
    assert (result.phi[:, None] + result.psi <= costs(x, y) + bounds(x, y)).all()


@pytest.mark.parametrize("size", [1e6, 1e7, 1e8, 1e9])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_no_product_can_decide_is_not_certified(size, kind):
    """The matching may be wrong next to such an outlier, and the bound says by how much."""
    for seed in range(3):
        x, y = (p.astype(kind) for p in outlier(np.random.default_rng(seed), 60, 3, size))
        cost = costs(x, y)
        best = cost[linear_sum_assignment(cost)].mean()
        result = optimal_transport_score(x, y)
        found = cost[np.arange(60), result.permutation].mean()
        assert (found - best) / found <= result.suboptimality + 1e-6
        assert result.lower_bound <= best * (1 + 1e-6)
        assert result.suboptimality >= 0.1 or size < 1e8


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(-6, 6), st.sampled_from([3, 60]))
def test_no_pair_costs_less_than_its_potentials(seed, power, d):
    """For clusters at any distance: beyond that they are products in float64."""
    draw = np.random.default_rng(seed)
    centres, label = 10.0**power * draw.normal(size=(5, d)), draw.integers(5, size=50)
    x, y = (np.float32(centres[label] + draw.normal(size=(50, d))) for _ in range(2))
    result, cost = optimal_transport_score(x, y), costs(x, y)
    assert (result.phi[:, None] + result.psi <= cost + bounds(x, y)).all()
    best = cost[linear_sum_assignment(cost)].mean()
    found = cost[np.arange(50), result.permutation].mean()
    assert (found - best) / found <= result.suboptimality + 1e-9


def test_ordinary_points_are_multiplied_in_float32_and_tight_clusters_in_float64():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 100, 70))
    for d in (3, 70):
        far = clusters(draw, 100, d)
        for points, kind in ((x[:, :d], y[:, :d]), np.float32), (far, np.float64):
            problem = assignment_problem(*map(np.float32, points))
            assert (problem.x if problem.inner is None else problem.inner).dtype == kind


@pytest.mark.parametrize("family", [clusters, outlier, line])
def test_displacements_of_such_points_are_shuffled_as_precisely(family):
    for d in (2, 150):
        x, y = map(np.float32, family(np.random.default_rng(d), 120, d))
        order = np.random.default_rng(1).permutation(120)
        cost = costs(x, x.astype(np.float64) + (y.astype(np.float64) - x)[order])
        wanted = (linear_sum_assignment(cost)[1] == np.arange(120)).mean()
        assert shuffled_score(x, y, order) == wanted


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("swapped", [0, 5, 300])
@pytest.mark.parametrize("equal", [2, 20, 200])
def test_equal_outputs_are_tied_however_the_others_are_matched(kind, swapped, equal):
    draw = np.random.default_rng(equal)
    x = draw.normal(size=(500, 100))
    y = x + 0.3 * draw.normal(size=x.shape)
    y[500 - swapped :] = np.roll(y[500 - swapped :], 1, axis=0)
    y[:equal] = 0
    result = optimal_transport_score(x.astype(kind), y.astype(kind))
    assert result.ties == equal


@pytest.mark.parametrize("equal", [2, 20])
def test_ties_of_points_in_float32_are_proved_as_precisely_as_in_float64(equal):
    draw = np.random.default_rng(equal)
    x = draw.normal(size=(500, 30)).astype(np.float32)
    y = x + np.float32(0.3) * draw.normal(size=x.shape).astype(np.float32)
    y[:equal] = 0
    for outputs in (y, y[draw.permutation(500)]):
        result = optimal_transport_score(x, outputs)
        assert result.ties == equal
        assert result.suboptimality <= 1e-12
