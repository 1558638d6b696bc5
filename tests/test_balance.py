"""Guessed potentials in balance between cells: fewer passes in clusters, the same result."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scoring import balance, problems, transport
from scoring.rough import rough_copies
from scoring.transport import optimal_transport_score


def clusters(m: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs in ten tight clusters, and inputs that lie all over the place."""
    draw = np.random.default_rng(0)
    x, centres = draw.normal(size=(m, 20)), 3 * draw.normal(size=(10, 20))
    y = centres[draw.integers(10, size=m)] + 0.2 * draw.normal(size=(m, 20))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.fixture
def from_few(monkeypatch):
    """Products of no problem are kept, and the first 200 points are solved on a matrix."""
    monkeypatch.setattr(transport, "HELD", 0)
    monkeypatch.setattr(problems, "PREFIXES", (100, 200))


def test_far_outliers_do_not_make_shifts_nan(from_few):
    """The width of candidates' values is then below what float32 can divide by."""
    draw = np.random.default_rng(0)
    x, y = (draw.normal(size=(2, 300, 20)) * 1e-21).astype(np.float32)
    for cloud in (x, y):
        cloud[0, 0], cloud[1, 0] = 1, -1
    result = optimal_transport_score(x, y)
    assert result.suboptimality == 1  # Nothing is proved: float64 cannot tell the others apart.


def test_shifts_of_tiny_values_are_finite():
    least = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    assert np.isfinite(balance.shifts(least * np.float32(1e-39), np.full(5, 60), 1e-40)).all()


@pytest.mark.slow
def test_clusters_take_fewer_passes_or_edges_and_have_the_same_matching(from_few, monkeypatch):
    x, y = clusters(1000)
    result = optimal_transport_score(x, y)
    monkeypatch.setattr(balance, "WORTH", np.inf)
    plain = optimal_transport_score(x, y)
    assert (result.rounds, result.edges) < (plain.rounds, plain.edges)
    assert_allclose(result.optimal_cost, plain.optimal_cost, rtol=1e-12)
    assert result.suboptimality <= 1e-9
    assert result.ties == plain.ties == 0
    assert_array_equal(result.permutation, plain.permutation)


def test_a_cloud_without_clusters_needs_no_balance(from_few, monkeypatch):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 1000, 20)).astype(np.float32)
    used = []
    found = balance.balanced
    monkeypatch.setattr("scoring.large.balanced", lambda *a: used.append(found(*a)) or used[-1])
    wanted = optimal_transport_score(x, y)
    monkeypatch.setattr(balance, "WORTH", np.inf)
    result = optimal_transport_score(x, y)
    assert len(used) == 2
    assert (result.rounds, result.edges) == (wanted.rounds, wanted.edges)


def test_every_point_is_in_the_cell_whose_centre_is_nearest():
    _, y = clusters(600)
    rough = rough_copies(y, y, small=True)[1]
    cell, count = balance.cells(rough, 40)
    assert (np.bincount(cell) == count).all()
    assert count.sum() == 600
    points = balance._real(rough)
    centres = np.array([points[cell == k].mean(0) for k in range(len(count))])
    apart = ((points[:, None] - centres) ** 2).sum(-1)
    assert (apart.argmin(1) == cell).mean() > 0.9  # a few rounds of Lloyd come near


def test_shifts_make_as_many_rows_want_a_cell_as_it_has_columns():
    draw = np.random.default_rng(0)
    least, count = draw.normal(size=(3000, 5)), np.array([300, 400, 500, 600, 1200])
    shift = balance.shifts(least.astype(np.float32), count, width=0.01)
    assert_allclose(np.bincount((least - shift).argmin(1)), count, atol=30)


def test_a_sample_has_the_first_columns_of_each_cell(monkeypatch):
    monkeypatch.setattr(balance, "SEEN", 2)
    sample, first = balance._sample(np.array([1, 0, 1, 1, 2, 0, 0]))
    assert_array_equal(sample, [1, 5, 0, 2, 4])
    assert_array_equal(first, [0, 2, 4])
