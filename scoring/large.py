"""Exact assignments between so many points that their matrix of products fits into no memory.

A pass over all pairs costs far more than all else, so there are few of them, and they are rough.

1. The first points are solved by :mod:`scoring.assignment`. The potentials of the others are
   guessed from these: each is the third least cost minus potential over some points of the other
   cloud, so that all rows and columns get about as many candidates.
2. A pass keeps all pairs whose cost is below p_i + q_j, from eight-bit products with a bound on
   their error. Only pairs that the bound cannot exclude are computed, in float64. Points that
   would be left with hardly any candidates get their nearest ones, too.
3. An auction and shortest augmenting paths solve the problem on the pairs kept. Its potentials
   u_i + v_j exceed p_i + q_j for some pairs. In order of u - p and v - q these are a staircase,
   mostly a small one. The next pass covers only the staircase and a small margin, and the new
   potentials are another p and q. Each pass uses the p and q that leave it the fewest pairs. A
   pair that is cheaper than its potentials sets its row free, or lowers a column that many rows
   ask for. Passes continue until there is no such pair.

So p_i + q_j <= cost_ij holds at every moment for all pairs that are not kept, and the potentials
at the end are a proof for the exact products, whatever the blocks, the guesses and the machine.
After each pass the matching so far has a certain cost, and p and q prove a lower bound on any.
"""

import functools
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from scoring import augmenting, kernels, sieve
from scoring.assignment import BIDS, PLAIN, STEPS, blas_threads, match
from scoring.assignment import compile_kernels as compile_others
from scoring.balance import balanced
from scoring.checkpoints import Checkpoint
from scoring.cores import cores
from scoring.matching import ROUNDING, Edges, Matching, Rows
from scoring.passes import (
    SPREAD,
    Clouds,
    Guess,
    Share,
    beyond,
    guessed,
    kept,
    nearest,
    unbounded,
    whole,
)
from scoring.rough import integers, rough_copies

GROWTH = 10  # Each problem has at most this many times the points of the previous one.
MOST = 64  # Pairs of a row in the first pass, at most; beyond that, its bound is lowered.
MANY = 256  # The same limit for points in clusters, see scoring.balance.
LEAST = 8  # Points with fewer candidates get more, since they would distort all potentials.
CLOSE = 16  # Such a point gets this many candidates, the nearest ones.
CROWD = 64  # Columns with few candidates that one row gets, at most.
ADDED = 32  # Pairs of a row that a later pass keeps, at most.
FREE = 0.05  # Run an auction first if a larger share of rows has no column.
MARGINS = (4.0, 2.0, 1.0, 0.5, 0.25)  # beyond the potentials, in typical gaps to a second best
LITTLE = 0.05  # With its margin, a pass may cover this share of all pairs,
MORE = 1.3  # or this many times the pairs that it covers without a margin.
WHOLE = (0.0, 1.0)
# For progress: the parts of the first pass, about as long as they take at 100,000 points.
GUESS, OTHER, BALANCE, PAIRS = (0.0, 0.1), (0.1, 0.15), (0.15, 0.2), (0.2, 0.9)
FEW, LONELY = (0.9, 0.95), (0.95, 1.0)


class Bounds(NamedTuple):
    """What is known at some moment about the optimal cost of the first m points."""

    m: int
    rounds: int  # complete passes over pairs of these points
    covered: float  # share of the present pass that is done; 1 after it
    upper: float  # the cost of a matching, as a mean over the points
    lower: float  # no matching costs less; -inf before the first pass
    suboptimality: float  # upper may exceed the optimum by at most this share; inf if unknown


class Task(NamedTuple):
    """What is asked for, besides the points."""

    extra: np.ndarray  # (m,): constants to add to the costs of a matching; only bounds need them
    floor: float  # measure suboptimality against no less than this sum
    tolerance: float = 0.0  # stop when the suboptimality is at most this
    start: tuple[np.ndarray, np.ndarray] | None = None  # potentials (n,) of the first n points
    checkpoint: str | None = None  # a file to keep what is known after each pass

    def bounds(self, m: int, rounds: int, covered: float, upper: float, lower: float) -> Bounds:
        """Bounds from sums of costs."""
        extra = float(self.extra[:m].sum())
        size = max(extra + upper, self.floor * m / len(self.extra))
        share = max(upper - lower, 0.0) / size if size > 0 else 0.0
        return Bounds(m, rounds, covered, (extra + upper) / m, (extra + lower) / m, share)


class Covered(NamedTuple):
    """What each pass has seen: all pairs that are no edge cost at least its p_i + q_j."""

    p: np.ndarray  # (passes, m)
    q: np.ndarray

    def below(self, v: np.ndarray) -> np.ndarray:
        """Potentials of rows for v, (m,): all pairs that are no edge cost at least their sum."""
        return functools.reduce(np.maximum, (p + (q - v).min() for p, q in zip(*self, strict=True)))


class State(NamedTuple):
    """What is known of a problem after a pass."""

    rounds: int
    step: float  # typical gap between the best and the second best value of a row
    patience: float  # rounding, as a share of the largest cost
    small: bool  # rough copies are of eight bits
    p: np.ndarray  # (rounds, m), as in Covered
    q: np.ndarray
    v: np.ndarray
    columns: np.ndarray  # (m,) of rows, -1: none
    owners: np.ndarray  # (m,) of columns
    first: np.ndarray  # of the edges
    column: np.ndarray
    cost: np.ndarray


def match_points(
    x: np.ndarray,
    y: np.ndarray,
    sizes: Sequence[int],
    u: np.ndarray,
    task: Task,
    threads: int | None = None,
    margins: np.ndarray | None = None,
) -> Generator[Bounds, None, list[Matching]]:
    """Solve the assignments of the first m points, for each m in increasing order.

    Like :func:`scoring.assignment.match` for the products of the points. That function solves all
    problems but the largest on a matrix in memory. It also solves the largest one if nearly all of
    the first points keep their own partner; otherwise the costs are products in float64.
    Memory: at most as much again as the points, about 1 KB for each of them, or 6 KB in clusters,
    about ten matrices (d, d), and the products of the first points.

    Args:
        x: points (m, d), C-contiguous, float32 or float64, not longer than about 1.
        y: the others.
        sizes: increasing; the last is m.
        u: potentials (m,) of the rows, as :func:`scoring.assignment.match` takes them.
        task: tolerance, potentials to start with and a checkpoint.
        threads: how many to use; all cores if None.
        margins: (m,) as :func:`scoring.assignment.match` takes them.

    Yields:
        Bounds during and after each pass.

    Returns:
        The matchings, the last one not ``exact`` if it stopped at the tolerance.
    """
    threads = threads or cores()
    few, m = sizes[-2] if len(sizes) > 1 else sizes[-1], sizes[-1]
    saved = Checkpoint(task.checkpoint, x, y)
    state = _restored(saved.read())
    before = [n for n in sizes if n <= few]
    smaller = _first(x[:few], y[:few], before, u[:few], threads, margins)
    if len(sizes) == 1:
        return smaller
    last = smaller[-1].u, smaller[-1].v
    if (smaller[-1].permutation == np.arange(few)).mean() > PLAIN:  # One or two passes do.
        rows: Rows = lambda start, stop, n: x[start:stop] @ y[:n].T  # noqa: E731
        return match(rows, sizes, u, threads, margins=margins)
    small = integers() and (state is None or state.small)
    levels = _levels(len(last[0]), m)
    with ExitStack() as stack:
        share, clouds = _opened(x, y, small, threads, stack)
        for n in levels:
            if state is not None and n < len(state.v):
                continue
            if state is None or n > len(state.v):
                before = _start(clouds, n, task)
                guess = yield from _told(guessed(clouds, n, *last, share), before, GUESS)
                if n == m and task.start is not None:
                    steps = guessed(clouds, n, *task.start, share)
                    other = yield from _told(steps, before, OTHER)
                    guess = max(guess, other, key=lambda one: one.bound)
                if small and guess.is_rough:
                    small = False
                    stack.close()
                    share, clouds = _opened(x, y, small, threads, stack)
                guess, more = yield from _told(balanced(clouds, guess, share), before, BALANCE)
                state = yield from _begun(clouds, guess, more, small, task, saved, share)
            solved = yield from _finished(state, task, n == m, saved, share)
            last = solved.u, solved.v
    saved.remove()
    return [*smaller, solved]


def _first(
    x: np.ndarray,
    y: np.ndarray,
    sizes: list[int],
    u: np.ndarray,
    threads: int,
    margins: np.ndarray | None,
) -> list[Matching]:
    with blas_threads(threads):
        inner = x @ y.T
    rows: Rows = lambda start, stop, m: inner[start:stop]  # noqa: E731
    return match(rows, sizes, u, threads, margins=None if margins is None else margins[: len(u)])


def compile_kernels() -> None:
    """Compile all kernels that solve assignments, or load what is compiled."""
    compile_others()
    for kind in (np.float32, np.float64):
        x, y = np.random.default_rng(0).normal(size=(2, 60, 8)).astype(kind) / 8
        start, task = (np.zeros(30), np.zeros(30)), Task(np.zeros(60), 0.0)
        for small in (True, False):
            with ExitStack() as stack:
                share, clouds = _opened(x, y, small and integers(), 1, stack)
                guess = ended(guessed(clouds, 60, *start, share))
                state = ended(_begun(clouds, guess, None, small, task, Checkpoint(None), share))
                ended(_finished(state, task, True, Checkpoint(None), share))
                pairs = ended(nearest(np.arange(2), start[0], share, CLOSE))
                edges = state.first, state.column, state.cost
                kernels.joined(*edges, *pairs, most=CROWD)
                found = np.zeros((30, 1), np.int32), np.zeros((30, 1))
                kernels.lowered(*found, *start, rounding=0.0)


def ended(steps: Generator[Any, None, Any]) -> Any:
    """What a generator returns at its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _opened(
    x: np.ndarray, y: np.ndarray, small: bool, threads: int, stack: ExitStack
) -> tuple[Share, Clouds]:
    with blas_threads(threads):
        clouds = Clouds(x, y, *rough_copies(x, y, small))
    return stack.enter_context(SPREAD.get()(clouds, threads)), clouds


def _levels(few: int, m: int) -> list[int]:
    """The sizes of problems after the first one, in equal ratios."""
    count = max(1, int(np.ceil(np.log(m / few) / np.log(GROWTH) - 1e-9)))
    return [round(few * (m / few) ** (step / count)) for step in range(1, count)] + [m]


def _told(
    steps: Generator[float, None, Any], bounds: Bounds, part: tuple[float, float] = WHOLE
) -> Generator[Bounds, None, Any]:
    """Yield bounds in place of the shares that ``steps`` yields; it does ``part`` of the pass."""
    begin, end = part
    while True:
        try:
            covered = begin + (end - begin) * next(steps)
        except StopIteration as last:
            return last.value
        if covered < 1:  # Bounds after the pass follow.
            yield bounds._replace(covered=covered)


def _start(clouds: Clouds, m: int, task: Task) -> Bounds:
    """Bounds before the first pass: every row has its own column."""
    return task.bounds(m, 0, 0.0, float(_own(clouds, m).sum()), -np.inf)


def _own(clouds: Clouds, m: int) -> np.ndarray:
    """The cost of each row's own column."""
    here, out = np.arange(m), np.empty(m)
    sieve.paired(clouds.x, clouds.y, here, here, out)
    return -out


def _restored(arrays: dict[str, np.ndarray]) -> State | None:
    if not arrays:
        return None
    values: dict[str, Any] = {n: a.item() if a.ndim == 0 else a for n, a in arrays.items()}
    values |= {name: np.atleast_2d(values[name]) for name in ("p", "q")}  # (m,) in earlier versions
    return State(**values)


def _begun(
    clouds: Clouds,
    guess: Guess,
    more: np.ndarray | None,
    small: bool,
    task: Task,
    saved: Checkpoint,
    share: Share,
) -> Generator[Bounds, None, State]:
    """The first pass: candidates around a guess of the potentials, and ``more`` of them."""
    u, v = guess.u, guess.v
    m = len(u)
    before = _start(clouds, m, task)
    most = MOST if more is None else MANY
    found, p = yield from _told(kept(whole(u, v), most, share), before, PAIRS)
    own = Edges(np.arange(m + 1), np.arange(m, dtype=np.int32), _own(clouds, m))
    edges = Edges(*kernels.added(*own, *found))
    if more is not None:
        costs = np.empty(more.size)
        row, column = np.repeat(np.arange(m), more.shape[1]), more.ravel().astype(np.int64)
        sieve.paired(clouds.x, clouds.y, row, column, costs)
        edges = Edges(*kernels.added(*edges, more, -costs.reshape(more.shape)))
    del found
    few = np.flatnonzero(np.diff(edges.first) < LEAST)
    if len(few):
        found, further = yield from _told(kept(unbounded(few, v), CLOSE, share), before, FEW)
        edges = Edges(*kernels.added(*edges, *found))
        p[few] = further[few]
    lonely = np.flatnonzero(np.bincount(edges.column, minlength=m) < LEAST)
    if len(lonely):
        pairs = yield from _told(nearest(lonely, u, share, CLOSE), before, LONELY)
        edges = Edges(*kernels.joined(*edges, *pairs, most=CROWD))
    apart = sieve.apart(*edges, v)
    finite = apart[np.isfinite(apart)]
    step = float(np.median(finite)) if len(finite) else 0.0
    none = np.full(m, -1)
    once = p[None], v[None]
    state = State(1, step, ROUNDING, small, *once, v.copy(), none, none.copy(), *edges)
    saved.write(state._asdict())
    yield _proved(edges, p, v, own.cost.sum(), 1, task)[2]
    return state


def _finished(
    state: State, task: Task, is_last: bool, saved: Checkpoint, share: Share
) -> Generator[Bounds, None, Matching]:
    """The optimal matching, after as many passes as it takes."""
    rounds, step, patience, small = state[:4]
    covered = Covered(state.p, state.q)
    v, columns, owners = (array.copy() for array in (state.v, state.columns, state.owners))
    edges = Edges(state.first, state.column, state.cost)
    m = len(v)
    tolerance = task.tolerance if is_last else 0.0

    def enough(bounds: Bounds) -> bool:
        return 0 < tolerance >= bounds.suboptimality

    while True:
        if (columns < 0).mean() > FREE:
            if step > 0:
                for size in STEPS:
                    kernels.auction(*edges, v, size * step, BIDS * m)
            columns[:] = owners[:] = -1
            kernels.take_tight(*edges, v, columns, owners)
            kernels.reduce(*edges, v, columns, owners, BIDS * m)
        if not augmenting.augment(*edges, v, columns, owners):
            raise AssertionError("the edges have no perfect matching")  # they hold the diagonal
        cost = kernels.matched(*edges, columns)
        u = cost - v[columns]
        rounding = patience * max(float(np.abs(edges.cost).max()), float(np.abs(v).max()))
        margin, (p, q) = _least_area(u - rounding, v, covered, step)
        if margin is None:  # p and q prove that no pair is cheaper than its potentials
            break
        proofs = [_proved(edges, covered.below(w), w, cost.sum(), rounds, task) for w in (q, v)]
        low, w, proof = min(proofs, key=lambda one: one[2].suboptimality)
        if enough(proof):
            return Matching(columns, low, w, edges, rounds, edges, low, False, True)
        found, p = yield from _told(
            kept(beyond(u + margin, v, (p, q)), ADDED, share), proof._replace(covered=0.0)
        )
        q = v.copy()
        covered = Covered(np.vstack([covered.p, p]), np.vstack([covered.q, q]))
        rounds += 1
        before = len(edges.column)
        edges = Edges(*kernels.added(*edges, *found))
        if len(edges.column) == before:  # If that happens again, rounding is larger than assumed.
            patience *= 10
        v = kernels.lowered(*found, u=u, v=v, rounding=rounding)
        proofs = [_proved(edges, p, w, cost.sum(), rounds, task) for w in (v, q)]
        wanting = (proofs[0][0] < u - rounding) | (v < q)[columns]
        low, w, proof = min(proofs, key=lambda one: one[2].suboptimality)
        if enough(proof) and wanting.any():
            yield proof
            return Matching(columns, low, w, edges, rounds, edges, low, False, True)
        owners[columns[wanting]] = -1
        columns[wanting] = -1
        new = State(rounds, step, patience, small, *covered, v, columns, owners, *edges)
        saved.write(new._asdict())
        yield proof
    others = covered.below(v)
    low = np.minimum(kernels.least(*edges, v), np.minimum(u, others))
    yield task.bounds(m, rounds, 1.0, float(cost.sum()), float(low.sum() + v.sum()))
    return Matching(columns, low, v, edges, rounds, edges, others, double=True)


def _proved(
    edges: Edges, p: np.ndarray, v: np.ndarray, upper: float, rounds: int, task: Task
) -> tuple[np.ndarray, np.ndarray, Bounds]:
    """Row potentials for v, v, and the bounds they prove; other pairs cost at least p_i + v_j."""
    low = np.minimum(kernels.least(*edges, v), p)
    return low, v, task.bounds(len(p), rounds, 1.0, float(upper), float(low.sum() + v.sum()))


def _least_area(
    u: np.ndarray, v: np.ndarray, covered: Covered, step: float
) -> tuple[float | None, tuple[np.ndarray, np.ndarray]]:
    """How far beyond the potentials a pass is to look, and from what; None if none is needed.

    Every earlier pass covered all pairs below its own p_i + q_j. The last one did so just below
    the potentials of its time. If many of them have moved a little since, it leaves more pairs than
    an earlier pass that looked further.
    """
    sides = [(np.sort(u - p), np.sort(v - q)) for p, q in zip(*covered, strict=True)]
    areas = [sieve.stairs(a, b) for a, b in sides]
    k = int(np.argmin(areas))
    if areas[k] == 0:
        return None, (covered.p[k], covered.q[k])
    a, b = sides[k]
    allowed = max(LITTLE * len(a) ** 2, MORE * areas[k])
    fitting = (s * step for s in MARGINS if sieve.stairs(a + s * step, b) <= allowed)
    return next(fitting, 0.0), (covered.p[k], covered.q[k])


if __name__ == "__main__":  # when geosweep is installed, so that no sweep waits for it
    compile_kernels()
