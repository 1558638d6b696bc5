"""Passes shared by any number of actors, of which any may die: the same matching and proof."""

import pickle
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from ray.exceptions import RayActorError
from scipy.optimize import linear_sum_assignment

from scoring import actors, passes, transport
from scoring.transport import optimal_transport_score

M = 300
KINDS: dict[str, Callable] = {
    "unrelated": lambda x, draw: draw.normal(size=x.shape),
    "clusters": lambda x, draw: np.sign(x) + 0.01 * draw.normal(size=x.shape),
    "every point there twice": lambda x, draw: np.repeat(draw.normal(size=x[::2].shape), 2, axis=0),
}


class MadeUpRay:
    """What :mod:`scoring.actors` asks of Ray; each call of an actor may kill it, or be its last."""

    def __init__(self, count: int, deadly: float, seed: int):
        self.draw, self.deadly = np.random.default_rng(seed), deadly
        self.alive = set(range(count))

    def nodes(self) -> list[int]:
        return sorted(self.alive)

    def put(self, value):
        return pickle.dumps(value)

    def wait(self, references, timeout):
        ready = [references[self.draw.integers(len(references))]]
        return ready, [one for one in references if one is not ready[0]]

    def get(self, reference, timeout):
        number, work = reference
        if self.draw.random() < self.deadly:
            self.alive.discard(number)
        if number not in self.alive:
            raise RayActorError
        return work()

    def kill(self, searcher):
        self.alive.discard(searcher.number)

    def options(self, scheduling_strategy):
        number = scheduling_strategy.node_id

        def search(points, share, function, arguments, rows):
            def work():
                clouds = passes.copied(pickle.loads(points))
                with passes.by_threads(clouds, 1) as by:
                    return list(by(function, rows, *pickle.loads(arguments)))

            return Reference((number, work))

        return SimpleNamespace(
            remote=lambda: SimpleNamespace(number=number, search=SimpleNamespace(remote=search))
        )


class Reference(tuple):
    """It is equal to itself alone."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


@pytest.mark.slow
@settings(max_examples=5)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 5),
    st.sampled_from([0.0, 0.2, 0.9]),
    st.integers(1, 200),
    st.sampled_from([None, 0.0, 1e-3, 1.0, 1e6]),
    st.integers(0, 10**6),
)
def test_however_many_actors_there_are_and_die_and_wherever_it_starts_the_result_is_the_same(
    kind, count, deadly, rows, noise, seed
):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(M, 6))
    y = KINDS[kind](x, draw)
    ray = MadeUpRay(count, deadly, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "HELD", 0)
        patch.setattr(passes, "ROWS", 16)
        wanted = optimal_transport_score(x, y, 1)
        start = None
        if noise is not None:
            start = [part + noise * draw.normal(size=M) for part in (wanted.phi, wanted.psi)]
        patch.setattr(actors, "ray", ray)
        patch.setattr(actors, "Searcher", ray)
        patch.setattr(actors, "capacity", lambda nodes: dict.fromkeys(nodes, 1))
        patch.setattr(
            actors,
            "NodeAffinitySchedulingStrategy",
            lambda node, soft: SimpleNamespace(node_id=node),
        )
        patch.setattr(actors, "MOST_ROWS", rows)
        with actors.across_nodes():
            result = optimal_transport_score(x, y, 1, potentials=start)
    cost = ((x[:, None] - y) ** 2).sum(-1)
    best = cost[linear_sum_assignment(cost)].mean()
    spread = 1e-10 * cost.max()
    for one in (wanted, result):
        assert_allclose(one.optimal_cost, best, rtol=one.suboptimality + 1e-10)
        assert (cost - one.phi[:, None] - one.psi).min() >= -spread
        assert_allclose(one.lower_bound, one.optimal_cost, rtol=one.suboptimality + 1e-10)
    assert result.ties == wanted.ties
    if wanted.ties == 0:
        assert_array_equal(result.permutation, wanted.permutation)
