"""Exact assignments between the rows and the columns of a matrix, which need not be in memory.

The cost of giving column j to row i is -inner[i, j]. Instead of an (m, m) matrix, a function
returns blocks of its rows, which may be computed again each time. Besides a few of these blocks,
O(m) edges are kept.

0. Where each row is clearly the best of its own column, the diagonal is the solution.
1. Candidates: the best edges of each row and of each column under the current potentials.
2. An auction (Bertsekas) on these edges moves the potentials near the optimum, with coarse steps
   first. After each round, a pass over all blocks adds edges that would have been better, as
   long as many rows have one.
3. Shortest augmenting paths (Jonker and Volgenant) match the rows exactly on these edges. A pass
   over all blocks then finds every edge that is cheaper than its potentials allow. These edges
   are added, and the rows that want them are matched again.

When a pass finds no such edge, the potentials are a proof: u_i + v_j <= cost_ij everywhere, with
equality on the matching. That pass also lists the pairs that cost hardly more, from which
:mod:`scoring.proof` tells what rounding of the matrix may do. Problems on the first points are
solved first, since the potentials of a smaller problem are the best start for a larger one.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from threadpoolctl import ThreadpoolController

from scoring import augmenting, kernels
from scoring.cores import cores
from scoring.matching import (
    ROUNDING,
    TIED,
    Close,
    Edges,
    Matching,
    Rows,
    first_rows,
    loops,
    nothing,
    tied,
)

CANDIDATES = 30  # Start with this many edges of each row and of each column.
ADDED = 8  # A pass adds at most this many edges to a row.
STEPS = (20.0, 4.0, 1.0, 0.25)  # of the auction, in typical gaps between best and second best
WARM = (1.0, 0.25)  # the same, when the auction starts from potentials of a similar problem
EASY = 0.8  # Skip the auction when this share of rows already has a column.
PLAIN = 0.95  # Above this share of columns with their own row best, consider no other candidates.
FEW = 0.01  # Skip passes between auction rounds once at most this share of rows lacks edges.
BIDS = 60  # A round of the auction ends after this many bids per row, on average.
BLOCK = 2**24  # elements of a block
REACH = 64  # A column is about as good if it is worse by at most this many margins.


Start = tuple[np.ndarray, np.ndarray]
"""Potentials (n,) of the first n rows and columns, each up to a constant."""


def match(
    rows: Rows,
    sizes: Sequence[int],
    u: np.ndarray,
    threads: int | None = None,
    start: Start | None = None,
    margins: np.ndarray | None = None,
) -> list[Matching]:
    """Solve the assignments of the first m rows and columns, for each m in increasing order.

    The solution is exact for the numbers that ``rows`` returns. Memory: a block for each thread
    and about 70 edges for each of the m rows. Time: about ten passes over all pairs for a hard
    problem; a single pass if the diagonal is clearly best.

    Args:
        rows: the matrix.
        sizes: increasing, each at least 1.
        u: potentials (m,) of the rows, chosen so that the own row of a column is likely its best.
        threads: how many to use; all cores if None. Each takes blocks in turn.
        start: potentials to start the largest problem with. They are used only if they prove a
            better bound on its cost than the previous problem's potentials (one more pass).
        margins: (m,) by how much another column must be worse than a row's own one, so that
            rounding of the numbers does not matter. They decide which pairs are returned as close.
    """
    _compile_once()
    return _solved(rows, sizes, u, threads or cores(), start, margins)


@cache
def _compile_once() -> None:
    """Compile the kernels if no process of this user has done so on this machine."""
    source = os.path.getmtime(str(kernels.__file__))
    if not any(file.stat().st_mtime > source for file in _kept().glob("kernels.matched-*.nbi")):
        compile_kernels()


def compile_kernels() -> None:
    """Compile the kernels for both precisions, or load what is compiled.

    numba keeps the kernels next to their source, or in the user's cache folder if the source is
    read-only. Another process that needs them meanwhile waits, then loads them.
    """
    with FileLock(_kept() / "kernels.lock"):
        for kind in (np.float32, np.float64):
            inner = np.random.default_rng(0).normal(size=(200, 200)).astype(kind)
            rows: Rows = lambda start, stop, m, inner=inner: inner[start:stop]  # noqa: E731
            _solved(rows, [100, 200], np.zeros(200), 1)
        zeros = np.zeros((3, 2))
        kernels.spread_out(*nothing(2), np.arange(2), zeros[0], zeros[1], zeros[2], 1)


def blas_threads(count: int) -> AbstractContextManager[Any]:
    """Let BLAS use this many threads while the context is open."""
    return _libraries("torch" in sys.modules).limit(limits=count, user_api="blas")


@cache
def _libraries(torch: bool) -> ThreadpoolController:
    """The libraries that this process has loaded. Finding them takes longer than a small problem.

    ``torch`` says whether torch is loaded. It is part of the cache key, as torch may come later.
    """
    return ThreadpoolController()


def _kept() -> Path:
    """The folder where numba keeps the kernels."""
    return Path(str(kernels.matched.stats.cache_path))


def _solved(
    rows: Rows,
    sizes: Sequence[int],
    u: np.ndarray,
    threads: int,
    start: Start | None = None,
    margins: np.ndarray | None = None,
) -> list[Matching]:
    solved: list[Matching] = []
    margins = np.zeros(len(u)) if margins is None else margins
    with blas_threads(1), ThreadPoolExecutor(threads) as pool:
        share, low, own = 1.0, u, u
        for m in sorted({min(1000, sizes[-1]), sizes[-1]}):  # try a few points before all of them
            if share > PLAIN:
                low, own, share = _check_diagonal(rows, u[:m], pool, threads)
        if share == 1:
            last = _diagonal(rows, u, low, own, pool, margins)
            return [first_rows(last, own, m) for m in sizes]
        if share > PLAIN:
            v = np.minimum(low, own - u)
            last = _exact(rows, loops(own), v, pool, margins=margins)
            if (last.permutation == np.arange(len(v))).all():
                return [*(first_rows(last, own, m) for m in sizes[:-1]), last]
        v = np.zeros(sizes[0])
        for m in sizes:
            if solved:
                v = _extended(rows, solved[-1].u, m, pool, threads)
                v[: len(solved[-1].v)] = solved[-1].v
            is_near = False
            if start is not None and m == sizes[-1]:
                given, others = start
                if len(others) < m:
                    others = _extended(rows, given, m, pool, threads)
                is_near = _bound(rows, others, pool) > _bound(rows, v, pool)
                v = others if is_near else v
            steps = WARM if is_near else STEPS
            solved.append(_match(rows, v, pool, threads, steps, margins))
    return solved


def _diagonal(
    rows: Rows,
    u: np.ndarray,
    low: np.ndarray,
    own: np.ndarray,
    pool: ThreadPoolExecutor,
    margins: np.ndarray,
) -> Matching:
    """The matching of every row with its own column, where it costs less than ``low`` + u."""
    m, v = len(u), own - u
    close, others = nothing(m), u + (low - v).min()
    if (others < u + margins).any():
        found = Close(np.arange(m), u + REACH * margins)
        *_, least = _price(rows, np.full(m, -np.inf), v, pool, 1, found)
        close, others = found.listed(rows, v, least, u, _parts(m))
    return Matching(np.arange(m), u, v, loops(own), 1, close, others)


def _match(
    rows: Rows,
    v: np.ndarray,
    pool: ThreadPoolExecutor,
    threads: int,
    steps: Sequence[float],
    margins: np.ndarray | None = None,
) -> Matching:
    edges, v, step = _candidates(rows, v, pool, threads)
    m, rounds = len(v), 1
    columns, owners = np.full(m, -1), np.full(m, -1)  # column of each row, row of each column
    kernels.take_tight(*edges, v, columns, owners)
    if (columns >= 0).mean() < EASY and step > 0:
        wanting = m
        for size in steps:
            kernels.auction(*edges, v, size * step, BIDS * m)
            if wanting > FEW * m:
                bar = kernels.least(*edges, v) - _rounding(edges, v)
                found, costs, _ = _price(rows, bar, v, pool)
                edges = Edges(*kernels.added(*edges, found, costs))
                wanting = int((found[:, 0] >= 0).sum())
                rounds += 1
        columns[:], owners[:] = -1, -1
        kernels.take_tight(*edges, v, columns, owners)
    kernels.reduce(*edges, v, columns, owners, BIDS * m)
    return _exact(rows, edges, v, pool, columns, owners, rounds, margins)


def _exact(
    rows: Rows,
    edges: Edges,
    v: np.ndarray,
    pool: ThreadPoolExecutor,
    columns: np.ndarray | None = None,
    owners: np.ndarray | None = None,
    rounds: int = 1,
    margins: np.ndarray | None = None,
) -> Matching:
    """Match along shortest augmenting paths until no edge is missing; starts with the diagonal."""
    if columns is None or owners is None:
        columns, owners = np.arange(len(v)), np.arange(len(v))
    patience, searched = 1.0, 0
    while True:
        if not augmenting.augment(*edges, v, columns, owners):
            raise AssertionError("the edges have no perfect matching")  # they hold the diagonal
        u = kernels.matched(*edges, columns) - v[columns]
        bar = u - patience * _rounding(edges, v)
        equal = u + tied(edges, v)
        reach = REACH * margins[: len(v)] if margins is not None else 0.0
        close = Close(columns, np.maximum(equal, u + reach))
        found, costs, low = _price(rows, bar, v, pool, _most(searched), close)
        rounds += 1
        searched += 1
        wanting = found[:, 0] >= 0
        if not wanting.any():
            listed = close.listed(rows, v, low, equal, _parts(len(v)))
            return Matching(columns, np.minimum(u, low), v, edges, rounds, *listed)
        before = len(edges.column)
        edges = Edges(*kernels.added(*edges, found, costs))
        if len(edges.column) == before:  # no new edge: rounding is larger than assumed
            patience *= 10
        owners[columns[wanting]] = -1
        columns[wanting] = -1


def _rounding(edges: Edges, v: np.ndarray) -> float:
    return ROUNDING * max(float(np.abs(edges.cost).max()), float(np.abs(v).max()))


# Passes over all pairs: each thread takes blocks of rows in turn.


def _parts(m: int, rows: int | None = None) -> Iterator[tuple[int, int]]:
    size = max(1, min(1024, BLOCK // m))
    rows = m if rows is None else rows
    return ((start, min(start + size, rows)) for start in range(0, rows, size))


def _check_diagonal(
    rows: Rows, u: np.ndarray, pool: ThreadPoolExecutor, threads: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Least cost - u of each column over all other rows, its own row's cost, and the share where
    the own row is best.

    The share is 0 where two rows of some column are equally good within rounding.
    """
    m = len(u)
    parts = list(_parts(m))

    def work(thread: int) -> tuple[np.ndarray, np.ndarray, float]:
        low, own, precision = np.full(m, np.inf), np.full(m, np.inf), 0.0
        for start, stop in parts[thread::threads]:
            block = rows(start, stop, m)
            kernels.scan_others(block, start, u[start:stop], low, own)
            precision = float(np.finfo(block.dtype).eps)
        return low, own, precision

    lows, owns, precisions = zip(*pool.map(work, range(threads)), strict=True)
    low, own = np.min(lows, axis=0), np.min(owns, axis=0)
    rounding = TIED * max(precisions) * (np.abs(own) + np.abs(u))
    tied = np.abs(own - low) <= rounding
    return low, own + u, 0.0 if tied.any() else float((own < low).mean())


def _extended(
    rows: Rows, u: np.ndarray, m: int, pool: ThreadPoolExecutor, threads: int
) -> np.ndarray:
    """Potentials of the first m columns, from those of fewer rows: the largest feasible ones."""
    parts = list(_parts(m, len(u)))

    def work(thread: int) -> np.ndarray:
        low = np.full(m, np.inf)
        for start, stop in parts[thread::threads]:
            kernels.scan_minimum(rows(start, stop, m), u[start:stop], low)
        return low

    return np.min(list(pool.map(work, range(threads))), axis=0)


def _bound(rows: Rows, v: np.ndarray, pool: ThreadPoolExecutor) -> float:
    """The lower bound that these column potentials prove on the cost of any matching."""
    *_, low = _price(rows, np.full(len(v), -np.inf), v, pool, 1)
    return float(low.sum() + v.sum())


def _candidates(
    rows: Rows, v: np.ndarray, pool: ThreadPoolExecutor, threads: int
) -> tuple[Edges, np.ndarray, float]:
    """First edges, column potentials that fit them, and the typical gap to a second best."""
    m = len(v)
    k = min(CANDIDATES, m)
    best, place = np.full((m, k), np.inf), np.full((m, k), -1, np.int32)
    low = np.empty(m)
    own = np.empty(m)
    parts = list(_parts(m))

    def work(thread: int) -> tuple[np.ndarray, np.ndarray, type]:
        values, rows_of = np.full((m, k), np.inf), np.full((m, k), -1, np.int32)
        bar = np.empty(0)
        kind = np.float64
        for start, stop in parts[thread::threads]:
            block, here = rows(start, stop, m), slice(start, stop)
            kernels.scan_rows(block, v, best[here], place[here], low[here])
            if not len(bar):
                bar = _guessed(block, low[here], m, k * threads / m)
                values[:] = bar[:, None]
            kernels.scan_columns(block, low[here], start, bar, values, rows_of)
            own[here] = -block[np.arange(stop - start), np.arange(start, stop)]
            kind = block.dtype.type
        return values, rows_of, kind

    values, rows_of, kinds = zip(*pool.map(work, range(threads)), strict=True)
    values, rows_of = np.concatenate(values, axis=1), np.concatenate(rows_of, axis=1)
    chosen = np.argpartition(values, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(values, chosen, 1)
    rows_of = np.take_along_axis(rows_of, chosen, 1)
    kind = min(kinds, key=lambda kind: np.finfo(kind).bits)
    edges = Edges(*kernels.collected(best, place, v, values, rows_of, low, own.astype(kind)))
    first = np.sort(best, axis=1)[:, :2]
    return edges, values.min(1), float(np.median(first[:, -1] - first[:, 0]))


def _guessed(block: np.ndarray, u: np.ndarray, m: int, share: float) -> np.ndarray:
    """For each column, a value slightly above the quantile ``share`` of its costs - u.

    It is estimated from the first block. As the initial bar, it keeps most values out of the
    heaps of best values.
    """
    rank = max(3, int(np.ceil(share * len(block))))
    size = len(block) // 16
    if rank > 12 or size < 8:
        return np.full(m, np.inf)
    least = np.full((16, m), np.inf)
    for part in range(16):
        here = slice(part * size, (part + 1) * size)
        kernels.scan_minimum(block[here], u[here], least[part])
    return np.partition(least, rank, axis=0)[rank]


def _most(searched: int) -> int:
    """How many edges a pass adds to a row at most: more after many passes."""
    return ADDED * 2 ** min(6, searched // 4)


def _price(
    rows: Rows,
    bar: np.ndarray,
    v: np.ndarray,
    pool: ThreadPoolExecutor,
    most: int = ADDED,
    close: Close | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each row: columns (m, most) with cost - v below its bar, their costs, and the least one.

    A row with fewer such columns is filled up with -1. It also finds what is ``close``.
    """
    m = len(v)
    most = min(most, m)
    best = np.repeat(bar[:, None], most, axis=1)
    place = np.full((m, most), -1, np.int32)
    low = np.empty(m)

    def work(part: tuple[int, int]) -> None:
        here = slice(*part)
        task = rows(*part, m), v, best[here], place[here], low[here]
        if close is None:
            kernels.scan_rows(*task)
        else:
            near = close.own, close.bar, close.count, close.column, close.cost
            kernels.scan_close(*task, *(array[here] for array in near))

    list(pool.map(work, _parts(m)))
    order = np.argsort(place < 0, axis=1, kind="stable")
    place, best = np.take_along_axis(place, order, 1), np.take_along_axis(best, order, 1)
    return place, best + v[place], low


if __name__ == "__main__":  # run when geosweep is installed, so that no sweep waits
    compile_kernels()
