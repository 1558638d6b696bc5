"""Passes over all pairs of points: which of them can be cheap enough to be kept?

A pass is cut into blocks of rows, which do not depend on each other. The threads of this process
take them in turn; inside :func:`spread_by`, the given workers do.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from scoring import sieve
from scoring.assignment import blas_threads
from scoring.rough import Rough, products

ROWS, COLUMNS = 256, 2048  # size of a tile
MOST_ROWS = 2048  # rows of a block
BLOCKS = 8  # Each thread gets at least this many blocks, unless they get too small.
SEEN = 5  # Guess potentials from at most one in this many points.
SAMPLE = 128  # rows from which the first bound is set
CANDIDATES = 32  # The first pass keeps about this many pairs for each row.
ROUGH = 1.5  # Eight bits suffice if the error bound is at most this many times ``Guess.width``.
RANK = 3  # A guessed potential has about this many values below it.


class Clouds(NamedTuple):
    """Points (m, d) and rough copies of them."""

    x: np.ndarray
    y: np.ndarray
    rough_x: Rough
    rough_y: Rough


class Area(NamedTuple):
    """The pairs that a pass looks at, in the order of ``row`` and ``column``: a staircase."""

    p: np.ndarray  # (m,): the pass keeps pairs whose cost is below p_i + q_j
    q: np.ndarray  # (m,)
    row: np.ndarray  # (rows,)
    column: np.ndarray  # (columns,)
    width: np.ndarray  # (rows,), falling: how many of the columns are searched for each row


class Guess(NamedTuple):
    """Potentials that are likely near those of the solution."""

    u: np.ndarray  # about as many pairs of each row as wanted cost less than u + v
    v: np.ndarray
    bound: float  # about the mean of the lower bound on costs that v proves
    is_rough: bool  # the bound on errors is too large to tell candidates from others
    width: float  # of the range of candidates' values


Rows = int | tuple[int, int]  # a number of rows, or (start, stop)

Share = Callable[..., Iterator[tuple[int, Any]]]
"""(function, rows, *arguments) -> where each block of rows ends, and what ``function(clouds,
*arguments, start, stop)`` returns for it, in order."""

Spread = Callable[[Clouds, int], AbstractContextManager[Share]]
"""(clouds, threads of this process) -> a context with a Share."""


@contextmanager
def by_threads(clouds: Clouds, threads: int) -> Iterator[Share]:
    """Share blocks between threads of this process; libraries use one thread in each of them."""
    small = clouds.rough_x.coordinates.dtype == np.int8
    with _single(small), blas_threads(1), ThreadPoolExecutor(threads) as pool:

        def share(function: Callable, rows: Rows, *arguments: Any) -> Iterator[tuple[int, Any]]:
            ends = list(blocks(rows, BLOCKS * threads))
            done = pool.map(lambda block: function(clouds, *arguments, *block), ends)
            return ((stop, found) for (_, stop), found in zip(ends, done, strict=True))

        yield share


@contextmanager
def _single(small: bool) -> Iterator[None]:
    """Let torch, which multiplies eight-bit integers, use one thread in each of ours."""
    if not small:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SPREAD: ContextVar[Spread] = ContextVar("SPREAD", default=by_threads)


@contextmanager
def spread_by(way: Spread) -> Iterator[None]:
    """While the context is open, passes of this thread are spread in this way."""
    before = SPREAD.set(way)
    try:
        yield
    finally:
        SPREAD.reset(before)


def blocks(rows: Rows, least: int, most_rows: int = MOST_ROWS) -> Iterator[tuple[int, int]]:
    """Start and end of blocks of rows: ``least`` or more, unless they get smaller than a tile."""
    first, last = rows if isinstance(rows, tuple) else (0, rows)
    size = max(ROWS, min(most_rows, -(-(last - first) // least)))
    return ((start, min(start + size, last)) for start in range(first, last, size))


def copied(clouds: Clouds) -> Clouds:
    """A writable copy: the loops are compiled for writable arrays only."""
    rough_x, rough_y = (Rough(*(a.copy() for a in r)) for r in (clouds.rough_x, clouds.rough_y))
    return Clouds(clouds.x.copy(), clouds.y.copy(), rough_x, rough_y)


def guessed(
    clouds: Clouds, m: int, u: np.ndarray, v: np.ndarray, share: Share
) -> Generator[float, None, Guess]:
    """Potentials of the first m points, from those (n,) of the first n.

    Yields the share that is done.
    """
    n = min(len(u), max(m // SEEN, min(len(u), 1000)))
    if len(u) < m:
        new: list[list[np.ndarray]] = [[], []]
        for which, q in enumerate((v, u)):
            for stop, values in share(ranked, m, which == 0, q[:n]):
                new[which].append(values)
                yield (which * m + stop) / (2 * m)
        u, v = (np.concatenate(parts) for parts in new)
    return judged(clouds, u, v)


def judged(clouds: Clouds, u: np.ndarray, v: np.ndarray, candidates: int = CANDIDATES) -> Guess:
    """Judge potentials (m,), and raise those of rows so that rows have candidates."""
    m = len(v)
    rough_x, rough_y = clouds.rough_x[:m], clouds.rough_y[:m]
    some = np.random.default_rng(0).choice(m, min(m, SAMPLE), replace=False)
    wanted = min(candidates, m - 1) * len(some)
    least, lows = np.full(0, 0.0), np.empty(len(some))
    for start in range(0, len(some), 16):
        i = some[start : start + 16]
        values = products(rough_x[i], rough_y).astype(np.float32)
        values *= -rough_x.scale[i][:, None]
        values *= rough_y.scale
        values -= u[i].astype(np.float32)[:, None]
        values -= v.astype(np.float32)
        lows[start : start + 16] = values.min(1) + u[i]
        least = np.concatenate([least, values.ravel().astype(np.float64)])
        if len(least) > wanted:
            least = np.partition(least, wanted)[: wanted + 1]
    bar = float(least.max())
    range_of_values = bar - float(np.partition(least, wanted // 4)[wanted // 4])
    spare = float((rough_x.spare[some] * rough_y.spare[some]).sum(1).mean())
    bound = float(lows.mean() + v.mean())
    return Guess(u + bar, v, bound, spare > ROUGH * range_of_values, range_of_values)


def whole(p: np.ndarray, q: np.ndarray) -> Area:
    """All pairs of m rows and m columns."""
    everything = np.arange(len(p))
    return Area(p, q, everything, everything, np.full(len(p), len(p)))


def unbounded(some: np.ndarray, q: np.ndarray) -> Area:
    """All pairs of some rows, whatever they cost: a pass keeps the cheapest ones of each."""
    m = len(q)
    return Area(np.full(m, np.inf), q, some, np.arange(m), np.full(len(some), m))


def beyond(p: np.ndarray, q: np.ndarray, before: tuple[np.ndarray, np.ndarray]) -> Area:
    """The pairs whose p + q is larger than it was before."""
    more, less = p - before[0], before[1] - q
    row, column = np.argsort(-more, kind="stable"), np.argsort(less, kind="stable")
    width = np.searchsorted(less[column], more[row])
    count = int((width > 0).sum())
    return Area(p, q, row[:count], column[: width.max(initial=0)], width[:count])


Kept = tuple[tuple[np.ndarray, np.ndarray], np.ndarray]


def kept(area: Area, most: int, share: Share) -> Generator[float, None, Kept]:
    """The pairs of an area whose cost is below p_i + q_j: at most ``most`` for each row.

    Yields the share of the pairs that is done. Returns columns (m, most) and costs, filled up with
    -1, and p, lowered where a row has more pairs than it may keep.
    """
    m = len(area.p)
    most = min(most, m)
    columns, costs, p = np.full((m, most), -1, np.int32), np.zeros((m, most)), area.p.copy()
    seen, start = np.cumsum(area.width), 0
    for stop, (place, best) in share(sifted, len(area.row), area, most):
        row = area.row[start:stop]
        p[row] = best[:, 0]
        order = np.argsort(place < 0, axis=1, kind="stable")
        place, best = np.take_along_axis(place, order, 1), np.take_along_axis(best, order, 1)
        columns[row], costs[row] = place, best + area.q[place]
        start = stop
        yield float(seen[stop - 1] / seen[-1])
    return (columns, costs), p


def sifted(
    clouds: Clouds, area: Area, most: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Max-heaps (rows, most) of columns and of cost - q, for a block of rows."""
    # Copies: Ray's arrays are read-only, but the loops are compiled for writable arrays.
    row, width = area.row[start:stop].copy(), area.width[start:stop]
    some, q = clouds.rough_x[row], np.require(area.q, requirements="W")
    best = np.repeat(area.p[row][:, None], most, axis=1)
    place = np.full(best.shape, -1, np.int32)
    for first in range(0, int(width[0]), COLUMNS):
        column = area.column[first : min(first + COLUMNS, int(width[0]))].copy()
        rest = clouds.rough_y[column]
        for r in range(0, len(row), ROWS):
            here, count = slice(r, r + ROWS), int(width[r]) - first
            if count <= 0:
                break
            one, other = some[here], rest[:count]
            sieve.sift(
                products(one, other),
                one.scale,
                one.spare,
                other.scale,
                other.spare,
                q,
                clouds.x,
                clouds.y,
                row[here],
                column[:count],
                best[here],
                place[here],
            )
    return place, best


def columns_sifted(
    clouds: Clouds, area: Area, most: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`sifted`, for a block of columns: ``area.row`` has columns, ``area.column`` rows."""
    x, y, rough_x, rough_y = clouds
    return sifted(Clouds(y, x, rough_y, rough_x), area, most, start, stop)


def nearest(
    some: np.ndarray, u: np.ndarray, share: Share, most: int
) -> Generator[float, None, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For some columns, the rows with the least cost - u, at most ``most`` for each.

    Yields the share that is done. Returns rows, columns and costs of these pairs, sorted by row.
    """
    most, area = min(most, len(u)), unbounded(some, u)
    row, cost = np.empty((len(some), most), np.int32), np.empty((len(some), most))
    start = 0
    for stop, (place, best) in share(columns_sifted, len(some), area, most):
        row[start:stop], cost[start:stop] = place, best + u[place]
        start = stop
        yield stop / len(some)
    order = np.argsort(row, axis=None, kind="stable")
    return row.ravel()[order], some.astype(np.int32)[order // most], cost.ravel()[order]


def ranked(clouds: Clouds, of_x: bool, q: np.ndarray, start: int, stop: int) -> np.ndarray:
    """About the third least cost - q of each point of a cloud with the first points of the other.

    ``q`` has the potentials of these first points. Returns values for a block of points.
    """
    rough, others = clouds.rough_x, clouds.rough_y
    if not of_x:
        rough, others = others, rough
    best = np.full((stop - start, min(RANK, len(q))), np.inf)
    q = q.astype(np.float32)
    for first in range(0, len(q), COLUMNS):
        some = slice(first, min(first + COLUMNS, len(q)))
        rest = others[some]
        for r in range(0, stop - start, ROWS):
            one = rough[start + r : min(start + r + ROWS, stop)]
            block = products(one, rest)
            sieve.lightest(block, one.scale, rest.scale, q[some], best[r : r + ROWS])
    return best.max(1)
