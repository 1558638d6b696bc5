"""Which cells of a search get no more seeds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from scipy import stats

from tune_jobs.racing import LEVEL, clearly_worse, noise

VALUES = st.integers(-8, 8).map(lambda whole: whole / 8)


@st.composite
def races(draw):
    """Some finished cells and one that has some of their seeds."""
    cells, seeds, objectives = (draw(st.integers(*ends)) for ends in ((2, 5), (2, 4), (1, 2)))
    finished = draw(arrays("float64", (cells, seeds, objectives), elements=VALUES))
    own = draw(arrays("float64", (draw(st.integers(1, seeds - 1)), objectives), elements=VALUES))
    return own, finished


def by_the_formula(own: np.ndarray, finished: np.ndarray) -> bool:
    """The rule for one objective, as the documentation has it, in plain loops."""
    cells, seeds = finished.shape
    overall = sum(finished.flat) / (cells * seeds)
    left = 0.0
    for i in range(cells):
        for j in range(seeds):
            left += (finished[i, j] - finished[i].mean() - finished[:, j].mean() + overall) ** 2
    freedom = (cells - 1) * (seeds - 1)
    best = max(range(cells), key=lambda i: finished[i].mean())
    d = sum(own[j] - finished[best, j] for j in range(len(own))) / len(own)
    bound = d + stats.t.ppf(0.95, freedom) * (2 / len(own) * left / freedom) ** 0.5
    return bound < 0


@given(races())
def test_a_cell_is_stopped_as_the_formula_says(race):
    own, finished = race[0][:, 0], race[1][:, :, 0]
    means = finished.mean(axis=1)
    if (means == means.max()).sum() > 1:
        return  # which of the best it is compared with may matter
    assert (clearly_worse(own[:, None], finished[..., None]) is not None) == by_the_formula(
        own, finished
    )


@given(races(), arrays("float64", 4, elements=VALUES))
def test_what_a_seed_does_to_all_cells_changes_nothing(race, effect):
    own, finished = race
    effect = 8 * effect[:, None]
    moved = clearly_worse(own + effect[: len(own)], finished + effect[: finished.shape[1]])
    before = clearly_worse(own, finished)
    assert (moved is None) == (before is None)
    if moved and before:
        assert moved.better == before.better
        assert_allclose(moved.estimate - before.estimate, effect[: finished.shape[1]].mean())


@given(races())
def test_a_cell_as_good_as_a_best_one_in_some_objective_goes_on(race):
    own, finished = race
    own = own.copy()
    own[:, 0] = finished[:, : len(own), 0].max(axis=0)
    assert clearly_worse(own, finished) is None


def test_nothing_is_stopped_before_two_cells_have_all_seeds():
    assert clearly_worse(np.array([[-9.0]]), np.zeros((1, 3, 1))) is None
    assert clearly_worse(np.array([[-9.0]]), np.zeros((4, 1, 1))) is None
    assert clearly_worse(np.zeros((0, 1)), np.zeros((4, 3, 1))) is None


@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_noise_is_what_is_left_beside_cells_and_seeds(seed):
    draw = np.random.default_rng(seed)
    effects = draw.normal(size=(4000, 1, 1)) + draw.normal(size=(1, 3, 1))
    assert noise(effects) == pytest.approx(0, abs=1e-20)
    assert noise(effects + 0.1 * draw.normal(size=(4000, 3, 1))) == pytest.approx(0.01, rel=0.1)


def test_one_look_stops_about_one_in_twenty_cells_that_are_as_good():
    draw, stopped = np.random.default_rng(0), 0
    for _ in range(2000):
        finished = draw.normal(size=(2, 3, 1))
        finished[0] += 99  # it is the best in any case, and its equal is looked at
        stopped += clearly_worse(99 + draw.normal(size=(2, 1)), finished) is not None
    assert stopped / 2000 == pytest.approx(1 - LEVEL, abs=0.015)
