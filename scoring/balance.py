"""Brings guessed potentials into balance, where points lie in clusters.

A guess from a sample has about the same error throughout a cluster, since by chance the sample has
too many or too few rows around it. Candidates are near, so hardly any connect two clusters, and
solving the problem on these candidates drives the potentials of clusters far apart. Therefore the
columns are divided into cells, and the potentials of a cell are shifted together until as many rows
want its columns as it has: a transport problem between rows and cells, with an entropy that falls
to nearly nothing (Sinkhorn). The best columns of each row's best few cells become candidates, too.
The result is a guess. It only affects the number of passes, the memory and the choice between ties.
"""

from collections.abc import Generator
from typing import Any

import numpy as np

from scoring.passes import ROWS, Clouds, Guess, Share, judged, ranked
from scoring.passes import SEEN as SEEN_ROWS
from scoring.rough import Rough, products

CELLS = 256  # number of cells, at most
POINTS = 10  # points of a cell on average, at least
SEEN = 32  # columns of a cell that rows are compared with
CANDIDATES = (
    128  # Some points have many neighbours, and others would be left with none of their own.
)
NEAR = 16  # cells of each row whose best column is a candidate
TURNS = 40  # iterations of Sinkhorn
TRIED = 20_000  # Fit centres to at most this many points.
FITS = 3  # rounds of Lloyd
TINY = 1e-30  # One over it is a number in float32.
RESOLVED = 1e-6  # Smaller differences, relative to the largest value, are rounding in float32.
WORTH = 1.0  # Skip shifts whose deviation is below this, in units of ``Guess.width``.
PART = 4096  # rows at a time


def balanced(
    clouds: Clouds, guess: Guess, share: Share
) -> Generator[float, None, tuple[Guess, np.ndarray | None]]:
    """A better guess, and more candidate columns (m, NEAR) for each row.

    Returns the same guess and None if the cells need almost no shift. Yields the share done.
    """
    u, v, m = guess.u, guess.v, len(guess.v)
    if m < 2 * POINTS or guess.width <= 0:
        return guess, None
    cell, count = cells(clouds.rough_y[:m], max(2, min(CELLS, m // POINTS)))
    sample, first = _sample(cell)
    least = np.empty((m, len(count)), np.float32)
    place = np.empty((m, len(count)), np.uint16)
    few = min(m, max(PART, m // 10))
    for rows in ((0, few), (few, m)):
        start, end = rows
        if start == end:
            break
        for stop, (values, best) in share(of_cells, rows, sample, first, v[sample]):
            least[start:stop], place[start:stop] = values, best
            start = stop
            yield stop / (2 * m)
        shift = shifts(least[:end], count * (end / m), guess.width)
        apart = shift - np.average(shift, weights=count)
        if not np.average(apart**2, weights=count) ** 0.5 >= WORTH * guess.width:  # also if NaN
            return guess, None
    more = np.empty((m, min(NEAR, len(count))), np.int32)
    for here in (slice(start, start + PART) for start in range(0, m, PART)):
        before = least[here].min(1)
        values = least[here] - shift.astype(np.float32)
        chosen = np.argpartition(values, more.shape[1] - 1, axis=1)[:, : more.shape[1]]
        more[here] = sample[np.take_along_axis(place[here], chosen, 1)]
        u[here] += values.min(1) - before
    del least, place  # 1.5 KB for each point
    others = []
    for stop, values in share(ranked, m, False, u[: max(m // SEEN_ROWS, min(m, 1000))]):
        others.append(values)
        yield (m + stop) / (2 * m)
    return judged(clouds, u, np.concatenate(others), CANDIDATES), more


def cells(points: Rough, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell of each point (m,), by k-means, and how many points each cell has; none is empty."""
    m = len(points.coordinates)
    draw = np.random.default_rng(0)
    some = _real(points[np.sort(draw.choice(m, min(m, TRIED), replace=False))])
    centres = some[draw.choice(len(some), count, replace=False)]
    for _ in range(FITS):
        nearest = _nearest(some, centres)
        order = np.argsort(nearest, kind="stable")
        used, begin = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(some[order], begin, axis=0)
        centres[used] = sums / np.bincount(nearest)[used][:, None]
    parts = (_real(points[start : start + PART]) for start in range(0, m, PART))
    nearest = np.concatenate([_nearest(part, centres) for part in parts])
    _, cell, counts = np.unique(nearest, return_inverse=True, return_counts=True)
    return cell, counts


def _real(points: Rough) -> np.ndarray:
    return points.coordinates.astype(np.float32) * points.scale[:, None]


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return ((centres**2).sum(1) - 2 * (points @ centres.T)).argmin(1)


def _sample(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first columns of each cell, cell by cell, and where each one begins."""
    order = np.argsort(cell, kind="stable")
    begin = np.flatnonzero(np.diff(cell[order], prepend=-1))
    rank = np.arange(len(cell)) - np.repeat(begin, np.diff(begin, append=len(cell)))
    sample = order[rank < SEEN]
    return sample, np.flatnonzero(np.diff(cell[sample], prepend=-1))


def of_cells(
    clouds: Clouds, sample: np.ndarray, first: np.ndarray, q: np.ndarray, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """For a block of rows: the least cost - q in each cell of the sample, and where it is."""
    others, q = clouds.rough_y[sample], q.astype(np.float32)
    ends = [*first[1:], len(sample)]
    least = np.empty((stop - start, len(first)), np.float32)
    place = np.empty((stop - start, len(first)), np.uint16)
    for r in range(0, stop - start, ROWS):
        here = slice(r, min(r + ROWS, stop - start))
        rough = clouds.rough_x[start + here.start : start + here.stop]
        values = products(rough, others).astype(np.float32)
        values *= -rough.scale[:, None]
        values *= others.scale
        values -= q
        for k, (begin, end) in enumerate(zip(first, ends, strict=True)):
            place[here, k] = values[:, begin:end].argmin(1) + begin
        least[here] = np.take_along_axis(values, place[here].astype(np.int64), 1)
    return least, place


def shifts(least: np.ndarray, count: np.ndarray, width: float) -> np.ndarray:
    """Shifts of the cells' potentials after which as many rows want a cell as it has columns.

    Args:
        least: (m, cells): the least cost - q of each row in each cell.
        count: how many rows are to want each cell; their sum is m.
        width: a difference of values that is small.
    """
    shift = np.zeros(len(count))
    last = max(width / 10, RESOLVED * float(np.abs(least).max()), TINY)
    begin = max(float(least.min(1).std()), last)
    for size in begin * (last / begin) ** np.linspace(0, 1, TURNS):
        wanted: Any = np.zeros(len(count))
        for start in range(0, len(least), PART):
            part = least[start : start + PART] - shift.astype(np.float32)
            part -= part.min(1, keepdims=True)
            part *= np.float32(-1 / size)
            np.exp(part, out=part)
            part /= part.sum(1, keepdims=True)
            wanted += part.sum(0, dtype=np.float64)
        shift += size * np.log(count / np.maximum(wanted, 1e-3))
    return shift
