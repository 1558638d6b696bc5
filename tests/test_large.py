"""Assignments of points whose products are not kept: the same cost, matching and proof."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linear_sum_assignment

from scoring import large, passes, rough, transport
from scoring.transport import optimal_transport_score

KINDS = {
    "unrelated": lambda x, draw: draw.normal(size=x.shape),
    "of lower dimension": lambda x, draw: draw.normal(size=(len(x), 3)) @ x[:3],
    "clusters": lambda x, draw: np.sign(x) + 0.01 * draw.normal(size=x.shape),
    "own output is plainly nearest": lambda x, draw: 1.5 * x + 0.01 * draw.normal(size=x.shape),
    "every point there twice": lambda x, draw: np.repeat(draw.normal(size=x[::2].shape), 2, axis=0),
    "of very different sizes": lambda x, draw: np.exp(3 * x),
}


@pytest.fixture
def not_kept(monkeypatch):
    """Products of no problem are kept in memory."""
    monkeypatch.setattr(transport, "HELD", 0)


def clouds(kind, m, d, precision=np.float32, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(m, d))
    return x.astype(precision), KINDS[kind](x, draw).astype(precision)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [4, 70])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_the_cost_is_that_of_scipy_and_the_potentials_prove_it(not_kept, kind, d, precision):
    x, y = clouds(kind, 1150, d, precision)
    result = optimal_transport_score(x, y)
    a, b = x.astype(np.float64), y.astype(np.float64)
    cost = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    rows, columns = linear_sum_assignment(cost)
    size = np.abs(cost).max() * (1e-11 if precision == np.float64 else 1e-6)
    assert_allclose(result.optimal_cost, cost[rows, columns].mean(), rtol=1e-6, atol=size)
    assert result.suboptimality <= 1e-9
    assert (cost - result.phi[:, None] - result.psi).min() >= -size
    assert_allclose((result.phi + result.psi).mean(), result.optimal_cost, rtol=1e-6, atol=size)
    if result.ties == 0:
        assert_array_equal(result.permutation, columns)


@settings(max_examples=8)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(20, 300),
    st.integers(20, 300),
    st.integers(1, 3),
    st.booleans(),
)
def test_tiles_threads_and_the_kind_of_screening_change_nothing(
    kind, rows, columns, threads, small
):
    x, y = clouds(kind, 400, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "HELD", 0)
        wanted = optimal_transport_score(x, y)
        patch.setattr(passes, "ROWS", rows)
        patch.setattr(passes, "COLUMNS", columns)
        patch.setattr(large, "integers", lambda: small)
        result = optimal_transport_score(x, y, threads)
    assert_allclose(result.optimal_cost, wanted.optimal_cost, rtol=1e-12)
    assert result.ties == wanted.ties
    if wanted.ties == 0:
        assert_array_equal(result.permutation, wanted.permutation)


@pytest.mark.parametrize("kind", KINDS)
def test_however_few_candidates_there_are_the_matching_is_optimal(not_kept, kind, monkeypatch):
    x, y = clouds(kind, 400, 6)
    wanted = optimal_transport_score(x, y)
    monkeypatch.setattr(passes, "CANDIDATES", 2)
    for name in ("MOST", "ADDED"):
        monkeypatch.setattr(large, name, 2)
    result = optimal_transport_score(x, y)
    assert_allclose(result.optimal_cost, wanted.optimal_cost, rtol=1e-12)
    assert result.suboptimality <= 1e-9


@settings(max_examples=30)
@given(st.sampled_from(sorted(KINDS)), st.integers(1, 90), st.booleans(), st.integers(0, 10**6))
def test_rough_products_are_off_by_no_more_than_their_bound(kind, d, small, seed):
    x, y = clouds(kind, 64, max(d, 3), seed=seed)
    a, b = rough.rough_copies(x, y, small)
    found = rough.products(a, b).astype(np.float64)
    found *= a.scale.astype(np.float64)[:, None] * b.scale
    error = np.abs(found - x.astype(np.float64) @ y.astype(np.float64).T)
    assert (error <= a.spare.astype(np.float64) @ b.spare.astype(np.float64).T).all()


def test_products_of_eight_bits_are_exact_here():
    assert rough.integers()
    a = np.full((1, 4096), -127, np.int8)
    copy = rough.Rough(a, np.ones(1, np.float32), np.ones((1, 3), np.float32))
    assert rough.products(copy, copy).item() == 4096 * 127**2


@pytest.mark.parametrize(
    ("few", "m", "levels"),
    [(10, 11, [11]), (10, 100, [100]), (10, 1000, [100, 1000]), (10, 500, [71, 500])],
)
def test_problems_grow_tenfold_at_most(few, m, levels):
    assert large._levels(few, m) == levels
