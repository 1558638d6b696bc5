"""OTS of shuffled displacements: the map itself, its problem from kept products, and its limits."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from scoring.shuffled import shuffled, shuffled_score
from scoring.transport import assignment_problem, optimal_transport_score, solve


def clouds(m, d, seed, size=1.0, kind=np.float64):
    """Inputs away from the origin, and outputs whose displacements have another size."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(m, d)) + 3
    return x.astype(kind), (x + size * draw.normal(size=(m, d)) + 1).astype(kind)


@given(
    st.sampled_from([(40, 60), (40, 30), (40, 29), (40, 5)]),  # products twice, points twice
    st.integers(0, 1000),
    st.sampled_from([1e-3, 0.3, 1.0, 40.0]),
    st.sampled_from([np.asarray, torch.from_numpy]),
)
def test_the_problem_of_shuffled_displacements_is_that_of_the_map_itself(shape, seed, size, kind):
    x, y = clouds(*shape, seed, size)
    order = np.random.default_rng(seed).permutation(len(x))
    problem = shuffled(assignment_problem(kind(x), kind(y), baseline=True), order)
    direct = assignment_problem(x, x + (y - x)[order])
    for name in ("own", "columns", "rows", "shift"):
        assert_allclose(getattr(problem, name), getattr(direct, name), rtol=1e-8, err_msg=name)
    found, wanted = solve(problem), solve(direct)
    assert (found.permutation == wanted.permutation).all()
    for name in ("ots", "gap", "network_cost", "optimal_cost", "matched_cost", "movement"):
        assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-8, err_msg=name)
    assert_allclose(found.phi + found.psi[found.permutation], found.matched_cost, rtol=1e-8)


@pytest.mark.parametrize("d", [3, 4])
@given(seed=st.integers(0, 1000))
def test_the_score_is_that_of_plain_loops(d, seed):
    x, y = clouds(6, d, seed)
    order = np.random.default_rng(seed).permutation(6)
    moved = reference.shuffled(x.tolist(), y.tolist(), order.tolist())
    best = reference.optimal_matchings(x.tolist(), moved)[1]
    assert shuffled_score(x, y, order) in [np.mean(np.equal(s, range(6))) for s in best]


def test_without_a_shuffle_it_is_the_score_of_the_map_itself():
    for d in (5, 60):
        x, y = clouds(40, d, 3, size=2.0)
        assert shuffled_score(x, y, np.arange(40)) == optimal_transport_score(x, y).ots


def test_in_high_dimension_shuffled_displacements_are_optimal_and_in_low_dimension_not():
    order = np.random.default_rng(0).permutation(100)
    assert shuffled_score(*clouds(100, 2000, 1), order) == 1
    assert shuffled_score(*clouds(100, 3, 1), order) < 0.2


def test_single_precision_gives_the_score_of_double_precision():
    order = np.random.default_rng(0).permutation(300)
    for d in (100, 1000):
        wanted = shuffled_score(*clouds(300, d, 2, 3.0), order)
        found = shuffled_score(*clouds(300, d, 2, 3.0, np.float32), order)
        assert found == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize("d", [5, 60])
@pytest.mark.parametrize("power", [-500, 500])
def test_the_size_of_the_points_does_not_matter(d, power):
    x, y = clouds(40, d, 4, size=2.0)
    order = np.random.default_rng(0).permutation(40)
    scaled = shuffled_score(x * 2.0**power, y * 2.0**power, order)
    assert scaled == shuffled_score(x, y, order)


@pytest.mark.parametrize("d", [5, 60])
def test_a_stage_that_has_collapsed_has_no_baseline_and_one_that_is_still_has_one(d):
    x, y = clouds(40, d, 5)
    order = np.random.default_rng(0).permutation(40)
    assert np.isnan(shuffled_score(x, 0 * y, order))
    assert np.isnan(shuffled_score(0 * x, y, order))
    assert shuffled_score(x, x, order) == 1


@pytest.mark.parametrize("d", [5, 60])
def test_a_problem_of_an_earlier_version_has_no_baseline(d):
    x, y = clouds(40, d, 6)
    names = ("own", "columns", "rows", "shift", "collapsed", "unit", "inner", "x", "y", "scale")
    problem = assignment_problem(x, y, baseline=True)
    arrays = problem.arrays()
    older = {name: arrays[name] for name in names if name in arrays}
    assert shuffled(type(problem)(**older), np.arange(40)) is None
    if d > 20:
        assert shuffled(assignment_problem(x, y), np.arange(40)) is None
