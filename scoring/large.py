"""Exact assignments between so many points that their matrix of products fits into no memory.

A pass over all pairs costs far more than all else, so there are few of them, and they are rough.

1. The first points are solved by :mod:`scoring.assignment`. The potentials of others are guessed
   from them: a point's is the third least value that it has with some points of the other cloud,
   so that all rows and columns get about as many candidates.
2. A pass keeps all pairs whose cost is below p_i + q_j, from eight-bit products with a bound on
   their error. Only pairs that the bound cannot exclude are computed, in float64.
3. An auction and shortest augmenting paths solve the problem on the pairs kept. Its potentials
   u_i + v_j exceed p_i + q_j for some pairs. In order of u - p and v - q these are a staircase,
   mostly a small one. The next pass covers that alone, a little beyond, and the bounds p and q
   become those of the new potentials. It goes on until no pair is cheaper than its potentials.

So p_i + q_j <= cost_ij holds at every moment for all pairs that are not kept, and the potentials
at the end are a proof for the exact products, whatever the blocks, the guesses and the machine.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from scoring import kernels, sieve
from scoring.assignment import (
    BIDS,
    PLAIN,
    ROUNDING,
    STEPS,
    Edges,
    Matching,
    blas_threads,
    match,
)
from scoring.assignment import compile_kernels as compile_others
from scoring.rough import Rough, integers, products, rough_copies

ROWS, COLUMNS = 256, 2048  # of a tile
GROWTH = 10  # A problem has at most so many times the points of the one before it.
SEEN = 5  # Guess potentials from at most one in so many points.
RANK = 3  # A guessed potential has about so many of these below it.
CANDIDATES = 32  # The first pass keeps about so many pairs for each row,
MOST = 64  # and so many at most; the bound of the row is lowered then.
ADDED = 32  # Later passes keep at most so many.
SAMPLE = 128  # rows from which the first bound is set
MARGINS = (4.0, 2.0, 1.0, 0.5, 0.25)  # beyond the potentials, in costs of a second best
LITTLE = 0.05  # A pass may cover this share of pairs for its margin,
MORE = 1.3  # or so many times as many as without one.
ROUGH = 1.5  # Eight bits do if the bound is at most so many times the range of candidates' values.


class Clouds(NamedTuple):
    """Points (m, d) and rough copies of them."""

    x: np.ndarray
    y: np.ndarray
    rough_x: Rough
    rough_y: Rough

    def first(self, m: int) -> "Clouds":
        """The first m points of both."""
        return Clouds(self.x[:m], self.y[:m], self.rough_x[:m], self.rough_y[:m])


def match_points(
    x: np.ndarray, y: np.ndarray, sizes: Sequence[int], u: np.ndarray, threads: int | None = None
) -> list[Matching]:
    """Solve the assignments of the first m points, for each m in increasing order.

    As :func:`scoring.assignment.match` does for the products of the points. All but the largest
    problem are solved by it, on a matrix in memory, and the largest as well where nearly all of the
    first points keep their own partner. Otherwise its costs are products in float64.
    Memory: half of what the points take, and about 1 KB for each of them.

    Args:
        x: points (m, d), C-contiguous, float32 or float64, not longer than about 1.
        y: the others.
        sizes: increasing; the last is m.
        u: potentials (m,) of the rows, as :func:`scoring.assignment.match` takes them.
        threads: how many to use; all cores if None.
    """
    threads = threads or os.cpu_count() or 1
    few = sizes[-2] if len(sizes) > 1 else sizes[-1]
    smaller = _first(x[:few], y[:few], [n for n in sizes if n <= few], u[:few], threads)
    if len(sizes) == 1:
        return smaller
    last = smaller[-1]
    if (last.permutation == np.arange(few)).mean() > PLAIN:  # One or two passes do.
        return match(lambda start, stop, m: x[start:stop] @ y[:m].T, sizes, u, threads)
    small = integers()
    with blas_threads(threads):
        clouds = Clouds(x, y, *rough_copies(x, y, small))
    with _single(), blas_threads(1), ThreadPoolExecutor(threads) as pool:
        for m in _levels(few, sizes[-1]):
            guess = _guess(clouds.first(m), last.u, last.v, pool)
            if small and guess.is_rough:
                small = False
                with blas_threads(threads):
                    clouds = Clouds(x, y, *rough_copies(x, y, small))
            last = _solved(clouds.first(m), guess, pool)
    return [*smaller, last]


def _first(
    x: np.ndarray, y: np.ndarray, sizes: list[int], u: np.ndarray, threads: int
) -> list[Matching]:
    with blas_threads(threads):
        inner = x @ y.T
    return match(lambda start, stop, m: inner[start:stop], sizes, u, threads)


def compile_kernels() -> None:
    """Compile all kernels that solve assignments, or load what is compiled."""
    compile_others()
    for kind in (np.float32, np.float64):
        x, y = np.random.default_rng(0).normal(size=(2, 60, 8)).astype(kind) / 8
        for small in (True, False):
            clouds = Clouds(x, y, *rough_copies(x, y, small and integers()))
            with ThreadPoolExecutor(1) as pool:
                _solved(clouds, _guess(clouds, np.zeros(30), np.zeros(30), pool), pool)


@contextmanager
def _single() -> Iterator[None]:
    """Let torch use one thread in each of ours."""
    torch: Any = sys.modules.get("torch")
    before = torch and torch.get_num_threads()
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


def _levels(few: int, m: int) -> list[int]:
    """The sizes of problems after the first one, in equal ratios."""
    count = max(1, int(np.ceil(np.log(m / few) / np.log(GROWTH) - 1e-9)))
    return [round(few * (m / few) ** (step / count)) for step in range(1, count)] + [m]


class _Guess(NamedTuple):
    """Potentials that are likely near those of the solution."""

    u: np.ndarray  # costs of about CANDIDATES pairs of each row are below u + v
    v: np.ndarray
    is_rough: bool  # the bound on errors is too large to tell candidates from others


def _guess(clouds: Clouds, u: np.ndarray, v: np.ndarray, pool: ThreadPoolExecutor) -> _Guess:
    """Potentials of all points, from those (n,) of the first n."""
    m = len(clouds.x)
    n = min(len(u), max(m // SEEN, min(len(u), 1000)))
    rough_x, rough_y = clouds.rough_x, clouds.rough_y
    u, v = (
        _ranked(rough_x, rough_y[:n], v[:n], pool),
        _ranked(rough_y, rough_x[:n], u[:n], pool),
    )
    some = np.random.default_rng(0).choice(m, min(m, SAMPLE), replace=False)
    wanted = min(CANDIDATES, m - 1) * len(some)
    least = np.full(0, 0.0)
    for start in range(0, len(some), 16):
        i = some[start : start + 16]
        values = products(rough_x[i], rough_y).astype(np.float32)
        values *= -rough_x.scale[i][:, None]
        values *= rough_y.scale
        values -= u[i].astype(np.float32)[:, None]
        values -= v.astype(np.float32)
        least = np.concatenate([least, values.ravel().astype(np.float64)])
        if len(least) > wanted:
            least = np.partition(least, wanted)[: wanted + 1]
    bar = float(least.max())
    range_of_values = bar - float(np.partition(least, wanted // 4)[wanted // 4])
    spare = float((rough_x.spare[some] * rough_y.spare[some]).sum(1).mean())
    return _Guess(u + bar, v, spare > ROUGH * range_of_values)


def _ranked(rough: Rough, others: Rough, q: np.ndarray, pool: ThreadPoolExecutor) -> np.ndarray:
    """About the third least cost - q of each point with the others."""
    m, q = len(rough.scale), q.astype(np.float32)
    best = np.full((m, min(RANK, len(q))), np.inf)

    def work(start: int) -> None:
        here = rough[start : start + ROWS]
        for first in range(0, len(q), COLUMNS):
            some = slice(first, first + COLUMNS)
            block = products(here, others[some])
            sieve.lightest(block, here.scale, others.scale[some], q[some], best[start:][:ROWS])

    list(pool.map(work, range(0, m, ROWS)))
    return best.max(1)


def _solved(clouds: Clouds, guess: _Guess, pool: ThreadPoolExecutor) -> Matching:
    x, y = clouds.x, clouds.y
    m, own = len(x), np.arange(len(x))
    products_of = np.empty(m)
    sieve.paired(x, y, own, own, products_of)
    edges = Edges(np.arange(m + 1), own.astype(np.int32), -products_of)
    v = guess.v.copy()
    columns, owners = np.full(m, -1), np.full(m, -1)
    found, p = _pass(clouds, guess.u, v, None, MOST, pool)
    q, rounds = v.copy(), 1
    edges = Edges(*kernels.added(*edges, *found))
    apart = sieve.apart(*edges, v)
    step = float(np.median(apart[np.isfinite(apart)]))
    if step > 0:
        for size in STEPS:
            kernels.auction(*edges, v, size * step, BIDS * m)
    kernels.take_tight(*edges, v, columns, owners)
    kernels.reduce(*edges, v, columns, owners, BIDS * m)
    patience = ROUNDING
    while True:
        if not kernels.augment(*edges, v, columns, owners):
            raise AssertionError("the edges have no perfect matching")  # they hold the diagonal
        u = kernels.matched(*edges, columns) - v[columns]
        rounding = patience * max(float(np.abs(edges.cost).max()), float(np.abs(v).max()))
        margin = _margin(u - p - rounding, v - q, step)
        if margin is None:
            break
        found, p = _pass(clouds, u + margin, v, (p, q), ADDED, pool)
        q = v.copy()
        rounds += 1
        before = len(edges.column)
        edges = Edges(*kernels.added(*edges, *found))
        if len(edges.column) == before:  # If that happens again, rounding is larger than assumed.
            patience *= 10
        wanting = kernels.least(*edges, v) < u - rounding
        owners[columns[wanting]] = -1
        columns[wanting] = -1
    low = np.minimum(kernels.least(*edges, v), np.minimum(u, p + (q - v).min()))
    return Matching(columns, low, v, np.maximum(u - low, 0), edges, rounds)


def _margin(a: np.ndarray, b: np.ndarray, step: float) -> float | None:
    """How far beyond the potentials a pass is to look; None if none is needed."""
    a, b = np.sort(a), np.sort(b)
    least = sieve.stairs(a, b)
    if least == 0:
        return None
    allowed = max(LITTLE * len(a) ** 2, MORE * least)
    return next((s * step for s in MARGINS if sieve.stairs(a + s * step, b) <= allowed), 0.0)


def _pass(
    clouds: Clouds,
    p: np.ndarray,
    q: np.ndarray,
    before: tuple[np.ndarray, np.ndarray] | None,
    most: int,
    pool: ThreadPoolExecutor,
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The pairs whose cost is below p_i + q_j, and p, lowered where a row has more than ``most``.

    Args:
        clouds: all points.
        p: of the rows.
        q: of the columns.
        before: such p and q, where all pairs with smaller costs are known; None if none are.
        most: keep so many pairs of a row.
        pool: of threads.

    Returns:
        Columns (m, most) and costs, filled up with -1; and p.
    """
    m = len(p)
    most = min(most, m)
    row = column = np.arange(m)
    width, other = np.full(m, m), clouds.rough_y
    if before is not None:  # only pairs where p + q is now larger
        more, less = p - before[0], before[1] - q
        row, column = np.argsort(-more, kind="stable"), np.argsort(less, kind="stable")
        width = np.searchsorted(less[column], more[row])
        count = int((width > 0).sum())
        row, width = row[:count], width[:count]
        column = column[: width.max(initial=0)]
        other = other[column]
    best = np.repeat(p[row][:, None], most, axis=1)
    place = np.full(best.shape, -1, np.int32)

    def work(start: int) -> None:
        here = slice(start, start + ROWS)
        some = clouds.rough_x[row[here]]
        for first in range(0, width[start], COLUMNS):
            tile = slice(first, min(first + COLUMNS, int(width[start])))
            rest = other[tile]
            sieve.sift(
                *(products(some, rest), some.scale, some.spare, rest.scale, rest.spare, q),
                *(clouds.x, clouds.y, row[here], column[tile], best[here], place[here]),
            )

    list(pool.map(work, range(0, len(row), ROWS)))
    lowered = p.copy()
    lowered[row] = best[:, 0]
    order = np.argsort(place < 0, axis=1, kind="stable")
    place, best = np.take_along_axis(place, order, 1), np.take_along_axis(best, order, 1)
    found, costs = np.full((m, most), -1, np.int32), np.zeros((m, most))
    found[row], costs[row] = place, best + q[place]
    return (found, costs), lowered


if __name__ == "__main__":  # when geosweep is installed, so that no sweep waits for it
    compile_kernels()
