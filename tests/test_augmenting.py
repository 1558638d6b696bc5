"""Shortest augmenting paths of sparse assignments, and the edges that they follow."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linear_sum_assignment

from scoring import augmenting, kernels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("m", "edges"), [(2, 1), (40, 3), (300, 8)])
def test_paths_from_all_free_rows_at_once_end_in_the_cheapest_matching(m, edges, seed):
    draw = np.random.default_rng(seed)
    cost = np.full((m, m), np.inf)
    np.put_along_axis(cost, draw.integers(m, size=(m, edges)), draw.random((m, edges)), 1)
    np.fill_diagonal(cost, 3.0)  # so that there is a matching
    row, column = np.nonzero(np.isfinite(cost))
    first = np.searchsorted(row, np.arange(m + 1))
    v, columns, owners = draw.normal(size=m), np.full(m, -1), np.full(m, -1)
    sparse = first, column.astype(np.int32), cost[row, column]
    assert augmenting.augment(*sparse, v, columns, owners)
    assert_array_equal(owners[columns], np.arange(m))
    best = cost[linear_sum_assignment(np.where(np.isfinite(cost), cost, 1e3))].sum()
    assert_allclose(cost[np.arange(m), columns].sum(), best)
    assert_allclose((cost - v).min(1).sum() + v.sum(), best)  # the potentials prove it


def test_without_a_matching_paths_say_so():
    first, column, cost = np.array([0, 1, 2]), np.zeros(2, np.int32), np.ones(2)
    assert not augmenting.augment(first, column, cost, np.zeros(2), *np.full((2, 2), -1))


def test_a_column_that_many_rows_find_cheaper_gives_in_and_otherwise_the_row():
    found = np.array([[0, -1], [0, -1], [1, 2]], np.int32)
    costs = np.array([[2.0, 0.0], [1.0, 0.0], [2.0, 2.5]])
    u, v = np.full(3, 3.0), np.zeros(3)
    assert_array_equal(kernels.lowered(found, costs, u, v, 1e-9), [-2, 0, 0])


def test_rows_that_block_each_other_leave_far_potentials_alone():
    """Each of the free rows may have any of the first columns; a long chain follows the last."""
    m, far = 20, 50
    cost = np.full((m + far, m + far), np.inf)
    cost[:m, :m] = 0.0
    np.fill_diagonal(cost, 0.0)
    cost[m, m - 1] = 7.0
    here = np.arange(m, m + far - 1)
    cost[here, here + 1] = 3.0
    row, column = np.nonzero(np.isfinite(cost))
    edges = np.searchsorted(row, np.arange(m + far + 1)), column.astype(np.int32), cost[row, column]
    v, columns = np.zeros(m + far), np.where(np.arange(m + far) < m, -1, np.arange(m + far))
    assert augmenting.augment(*edges, v, columns, columns.copy())
    assert_array_equal(v[m:], 0)


def test_single_pairs_join_the_edges_once():
    edges = np.array([0, 1, 2]), np.array([0, 1], np.int32), np.array([5.0, 6.0])
    more = np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([5.0, 7.0, 8.0])
    for got, wanted in zip(
        kernels.joined(*edges, *more, 5), ([0, 2, 4], [0, 1, 1, 0], [5, 7, 6, 8]), strict=True
    ):
        assert_array_equal(got, wanted)
