"""Assignments of points whose products are not kept: the same cost, matching and proof."""

import pickle
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linear_sum_assignment

from scoring import large, passes, rough, transport
from scoring.large import ended
from scoring.problems import assignment_problem
from scoring.transport import optimal_transport_score, solve, solving

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


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [4, 70])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_the_cost_is_that_of_scipy_and_the_potentials_prove_it(not_kept, kind, d, precision):
    x, y = clouds(kind, 450, d, precision)
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


@pytest.mark.slow
@settings(max_examples=5)
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


@pytest.mark.slow
@settings(max_examples=6)
@given(st.sampled_from(sorted(KINDS)), st.integers(1, 150), st.integers(0, 10**6))
def test_blocks_that_are_done_elsewhere_in_any_order_change_nothing(kind, size, seed):
    """Each block is done on a copy of the points, from a message, as actors do it."""

    @contextmanager
    def elsewhere(clouds, threads):
        copy = passes.copied(pickle.loads(pickle.dumps(clouds)))

        def share(*call):
            function, rows, *arguments = pickle.loads(pickle.dumps(call))
            for array in arguments[0] if isinstance(arguments[0], tuple) else ():
                array.flags.writeable = False  # as in Ray's object store
            first, last = rows if isinstance(rows, tuple) else (0, rows)
            blocks = [(a, min(a + size, last)) for a in range(first, last, size)]
            order = np.random.default_rng(seed).permutation(len(blocks))
            found = {n: function(copy, *arguments, *blocks[n]) for n in order}
            return ((stop, found[n]) for n, (_, stop) in enumerate(blocks))

        yield share

    problem = assignment_problem(*clouds(kind, 400, 6, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "HELD", 0)
        wanted = solve(problem)
        with passes.spread_by(elsewhere):
            result = solve(problem)
    assert_allclose(result.optimal_cost, wanted.optimal_cost, rtol=1e-12)
    assert result.suboptimality <= 1e-9
    if wanted.ties == 0:
        assert_array_equal(result.permutation, wanted.permutation)


@pytest.mark.slow
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


@pytest.mark.slow
@settings(max_examples=30)
@given(st.sampled_from(sorted(KINDS)), st.integers(1, 90), st.booleans(), st.integers(0, 10**6))
def test_rough_products_are_off_by_no_more_than_their_bound(kind, d, small, seed):
    x, y = clouds(kind, 64, max(d, 3), seed=seed)
    a, b = rough.rough_copies(x, y, small)
    found = rough.products(a, b).astype(np.float64)
    found *= a.scale.astype(np.float64)[:, None] * b.scale
    error = np.abs(found - x.astype(np.float64) @ y.astype(np.float64).T)
    assert (error <= a.spare.astype(np.float64) @ b.spare.astype(np.float64).T).all()


@pytest.mark.parametrize("small", [True, False])
def test_rough_copies_have_finite_bounds_where_all_sampled_points_are_0(monkeypatch, small):
    monkeypatch.setattr(rough, "SAMPLE", 30)
    x, y = clouds("unrelated", 90, 5)
    x[::3] = y[::3] = 0
    for copy in rough.rough_copies(x, y, small):
        assert np.isfinite(copy.scale).all()
        assert np.isfinite(copy.spare).all()


def test_where_eight_bits_are_not_exact_products_are_taken_in_another_way(monkeypatch):
    x, y = rough.rough_copies(*clouds("unrelated", 60, 5), small=True)
    wanted = x.coordinates.astype(int) @ y.coordinates.astype(int).T
    monkeypatch.setattr(rough, "integers", lambda: False)
    assert_array_equal(rough.products(x, y), wanted)


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


@pytest.mark.parametrize("kind", ["unrelated", "clusters"])
def test_the_nearest_rows_of_columns_are_those_of_a_plain_search(kind):
    x, y = clouds(kind, 200, 5)
    u, some = np.random.default_rng(1).normal(size=200), np.array([3, 70, 199])
    with passes.by_threads(passes.Clouds(x, y, *rough.rough_copies(x, y, True)), 2) as share:
        row, column, cost = ended(passes.nearest(some, u, share, 4))
    values = -(x.astype(np.float64) @ y.astype(np.float64).T)
    assert (np.diff(row) >= 0).all()
    assert_allclose(cost, values[row, column])
    for j in some:
        assert set(row[column == j]) == set(np.argsort(values[:, j] - u)[:4])


@pytest.fixture
def many_passes(not_kept, monkeypatch):
    """So few candidates that a problem takes many passes."""
    monkeypatch.setattr(passes, "CANDIDATES", 2)
    monkeypatch.setattr(large, "MOST", 3)
    monkeypatch.setattr(large, "ADDED", 3)


def same(one, other):
    for name in ("permutation", "phi", "psi", "own_cost", "matched_cost"):
        assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.rounds, one.edges, one.ties) == (other.rounds, other.edges, other.ties)


@pytest.mark.slow
def test_a_killed_solve_goes_on_from_its_checkpoint_with_the_same_result(many_passes, tmp_path):
    problem = assignment_problem(*clouds("clusters", 400, 6))
    wanted = solve(problem)
    assert wanted.rounds >= 3
    file = tmp_path / "solve.npz"
    for kills in range(1, wanted.rounds + 1):
        steps = solving(problem, checkpoint=str(file))
        while (bounds := next(steps)).rounds < kills or bounds.covered < 1:
            pass
        steps.close()
        assert [path.name for path in tmp_path.iterdir()] == ["solve.npz"]  # nothing half-written
        first = next(solving(problem, checkpoint=str(file)))
        assert first.rounds >= kills - 1  # passes are not made again
    same(solve(problem, checkpoint=str(file)), wanted)
    assert not file.exists()


def test_a_checkpoint_that_knows_only_the_last_pass_is_enough(many_passes, tmp_path):
    problem = assignment_problem(*clouds("clusters", 400, 6))
    file = tmp_path / "solve.npz"
    steps = solving(problem, checkpoint=str(file))
    while (bounds := next(steps)).rounds < 3 or bounds.covered < 1:
        pass
    steps.close()
    with np.load(file) as kept:
        arrays = dict(kept)
    assert arrays["p"].shape == arrays["q"].shape == (3, 400)
    last = {name: arrays[name][-1] for name in ("p", "q")}  # as earlier versions wrote it
    np.savez(file, **arrays | last)
    found, wanted = solve(problem, checkpoint=str(file)), solve(problem)
    assert found.optimal_cost == pytest.approx(wanted.optimal_cost, rel=1e-12)
    assert found.suboptimality <= 1e-9


def test_a_pass_starts_from_the_earlier_pass_that_leaves_the_fewest_pairs():
    zero, one, two = np.zeros(10), np.eye(10)[0], np.eye(10)[:2].sum(0)
    far, near = 1.0 - 2.0 * one, 0.5 - two  # p of passes; above them are 10 pairs and 20
    for seen in ([far, near], [near, far]):
        covered = large.Covered(np.array(seen), np.zeros((2, 10)))
        margin, (p, q) = large._least_area(zero, zero, covered, step=0.1)
        assert (p == far).all()
        assert (q == zero).all()
        assert margin == 0.4  # 4 steps: the other rows stay below
    everything = large.Covered(np.array([near, far, 1.0 - zero]), np.zeros((3, 10)))
    margin, (p, _) = large._least_area(zero, zero, everything, 0.1)
    assert margin is None
    assert (p == 1.0).all()


def test_a_checkpoint_of_other_points_or_a_damaged_one_is_refused(many_passes, tmp_path):
    file = str(tmp_path / "solve.npz")
    steps = solving(assignment_problem(*clouds("clusters", 400, 6)), checkpoint=file)
    while next(steps).rounds < 2:
        pass
    steps.close()
    other = assignment_problem(*clouds("clusters", 400, 6, seed=1))
    with pytest.raises(ValueError, match=r"solve\.npz: is a checkpoint of other points; delete it"):
        solve(other, checkpoint=file)
    content = (tmp_path / "solve.npz").read_bytes()
    for damaged in (b"", content[:1000], b"x" * 100):
        (tmp_path / "solve.npz").write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"solve\.npz: is no checkpoint of a solve, or damaged"
        ):
            solve(other, checkpoint=file)


def test_a_checkpoint_without_a_folder_is_refused_before_the_solve(many_passes, tmp_path):
    problem = assignment_problem(*clouds("clusters", 400, 6))
    with pytest.raises(ValueError, match="its folder does not exist; create it"):
        solve(problem, checkpoint=str(tmp_path / "missing" / "solve.npz"))


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_the_optimal_cost_between_them_after_every_pass(many_passes, kind):
    problem = assignment_problem(*clouds(kind, 400, 6))
    wanted = solve(problem)
    bounds = [one for one in solving(problem) if one.m == 400]
    for one, later in pairwise(bounds):
        assert one.lower <= later.lower <= later.upper * (1 + 1e-9)
        assert one.upper >= later.upper
        assert one.rounds <= later.rounds
    for one in bounds:
        assert one.lower <= wanted.optimal_cost * (1 + 1e-9)
        assert one.upper >= wanted.optimal_cost * (1 - 1e-9)
    if bounds:
        assert bounds[-1].suboptimality <= 1e-9
        assert_allclose(bounds[-1].upper, wanted.optimal_cost, rtol=1e-6)
    assert_allclose(wanted.lower_bound, wanted.optimal_cost, rtol=1e-6)


@pytest.mark.parametrize("kind", ["unrelated", "clusters", "every point there twice"])
def test_the_progress_of_a_pass_never_goes_back(many_passes, kind):
    x, y = clouds(kind, 400, 6)
    start = np.arange(400.0)
    found: dict[tuple[int, int], list[float]] = {}
    for bounds in solving(assignment_problem(x, y), potentials=(start, -start)):
        number = bounds.rounds + (bounds.covered < 1)
        found.setdefault((bounds.m, number), []).append(bounds.covered)
    assert len(found[400, 1]) > 3
    for covered in found.values():
        assert covered == sorted(covered)


@pytest.mark.parametrize("tolerance", [0.3, 1e-2])
def test_a_solve_stops_at_a_tolerance_between_two_bounds(many_passes, tolerance):
    problem = assignment_problem(*clouds("unrelated", 400, 6))
    wanted = solve(problem)
    result = solve(problem, tolerance=tolerance)
    assert result.rounds < wanted.rounds
    assert np.isnan([result.ots, result.ties, result.prefixes[-1].ots]).all()
    assert result.prefixes[0] == wanted.prefixes[0]  # smaller problems are solved to the end
    assert result.lower_bound <= wanted.optimal_cost <= result.optimal_cost * (1 + 1e-12)
    assert result.suboptimality <= tolerance
    assert result.optimal_cost <= result.lower_bound / (1 - tolerance)
    assert sorted(result.permutation) == list(range(400))
    assert np.isnan(transport.class_scores(result, np.arange(400) % 3)).all()


def test_a_tolerance_is_not_negative():
    with pytest.raises(ValueError, match="tolerance: -1; should be at least 0"):
        optimal_transport_score(*clouds("unrelated", 20, 3), tolerance=-1)


STARTS = {
    "of noise": lambda good, draw: draw.normal(size=(2, 400)),
    "huge": lambda good, draw: 1e30 * draw.normal(size=(2, 400)),
    "infinite": lambda good, draw: np.full((2, 40), np.inf),
    "of one point": lambda good, draw: np.zeros((2, 1)),
    "in another order": lambda good, draw: [draw.permutation(part) for part in good],
    "of the first points": lambda good, draw: [part[:250] for part in good],
    "nearly right": lambda good, draw: [part * 1.001 for part in good],
}


@pytest.mark.slow
@pytest.mark.parametrize("held", [0, 2**30])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", ["unrelated", "every point there twice"])
def test_potentials_to_start_with_change_no_result(monkeypatch, held, start, kind):
    monkeypatch.setattr(transport, "HELD", held)
    problem = assignment_problem(*clouds(kind, 400, 6))
    wanted = solve(problem)
    draw = np.random.default_rng(0)
    result = solve(problem, potentials=STARTS[start]((wanted.phi, wanted.psi), draw))
    assert_allclose(result.optimal_cost, wanted.optimal_cost, rtol=1e-12)
    assert result.suboptimality <= 1e-9
    if wanted.ties == 0:
        assert_array_equal(result.permutation, wanted.permutation)


def test_the_potentials_of_a_solution_save_passes():
    problem = assignment_problem(*clouds("unrelated", 400, 6))
    cold = solve(problem)
    assert solve(problem, potentials=(cold.phi, cold.psi)).rounds < cold.rounds


@pytest.mark.parametrize("shape", [(2, 21), (2, 0), (2, 5, 1)])
def test_potentials_are_of_points_of_the_problem(shape):
    with pytest.raises(ValueError, match="should be phi and psi of the first points, at most 20"):
        optimal_transport_score(*clouds("unrelated", 20, 3), potentials=np.zeros(shape))


@pytest.mark.slow
@pytest.mark.parametrize("m", [2, 3, 101, 130])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e18])
@pytest.mark.parametrize(
    "cloud", ["of one point", "on a line", "of few places", "of one far point"]
)
def test_degenerate_clouds_have_the_cost_of_scipy(not_kept, m, scale, cloud):
    draw = np.random.default_rng(m)
    x = draw.normal(size=(m, 2))
    y = {
        "of one point": np.zeros((m, 2)),
        "on a line": x[:, ::-1] * [1, 0],
        "of few places": np.round(draw.normal(size=(m, 2))),
        "of one far point": np.where(np.arange(m)[:, None] == 0, 1e6, draw.normal(size=(m, 2))),
    }[cloud]
    result = optimal_transport_score(x * scale, y * scale)
    cost = ((x[:, None] - y) ** 2).sum(-1)
    best = cost[linear_sum_assignment(cost)].mean()
    assert_allclose(result.optimal_cost / scale**2, best, rtol=1e-7, atol=1e-9)
    assert sorted(result.permutation) == list(range(m))
    assert result.lower_bound <= result.optimal_cost
    assert result.suboptimality <= 1e-6


def test_the_last_value_of_a_generator_is_what_it_returns():
    def steps():
        yield 1
        return 2

    assert ended(steps()) == 2
