"""Rough copies of points, with products that are cheap and have a bound on their error.

The points are first brought into a basis in which both clouds have the same, diagonal covariance,
by a matrix A for x and its inverse transpose for y, so that products do not change. Of all bases,
this one minimises the product of their sizes. Directions in which next to nothing is left
are dropped, and what they could add to a product is bounded by Cauchy and Schwarz. The others are
mixed by a rotation, so that all coordinates have a similar size, and rounded to eight bits: a
product of integers is exact, and several times as fast as in float32.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

SAMPLE = 10_000  # Estimate covariances from at most this many points.
RIDGE = 1e-6  # share of the mean variance that is added to the variance of each direction
# Drop directions that add up to at most this share of the size of products, by bytes of a number.
DROPPED = {1: 0.004, 4: 1e-3}
LEVELS = 127
PART = 4096  # points that are converted at a time


class Rough(NamedTuple):
    """Points in few bytes: the product of i and j is scale_i scale_j (coordinates_i coordinates_j).

    It is off by at most the product of their spares, in exact arithmetic.
    """

    coordinates: np.ndarray  # (m, p) int8 or float32
    scale: np.ndarray  # (m,) float32
    spare: np.ndarray  # (m, 3) float32

    def __getitem__(self, rows: Any) -> "Rough":
        return Rough(*(field[rows] for field in tuple(self)))


def rough_copies(x: np.ndarray, y: np.ndarray, small: bool) -> tuple[Rough, Rough]:
    """Rough copies of both clouds, (m, d) each: in int8 if ``small``, otherwise in float32."""
    to_x, to_y, kept = _basis(x, y, DROPPED[1 if small else 4])
    size = np.linalg.norm(to_x) * np.linalg.norm(to_y)
    d = x.shape[1]
    # error of the transformation: distance of A^T B from the identity, and float64 rounding
    lost = np.linalg.norm(np.eye(d) - to_x.T @ to_y) + 4 * d * 2.0**-52 * size
    largest = [float(np.sqrt(np.einsum("ij,ij->i", p, p).max())) for p in (x, y)]
    lost *= largest[0] * largest[1]
    return (
        _copied(x, to_x, kept, small, lost**0.5, first=True),
        _copied(y, to_y, kept, small, lost**0.5, first=False),
    )


def _basis(x: np.ndarray, y: np.ndarray, dropped: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Matrices (d, d) for x and for y, and the number of leading coordinates to keep."""
    d = x.shape[1]
    roots = []
    for points in (x, y):
        some = points[:: -(-len(points) // SAMPLE)]
        # In float32, directions without variance get that of rounding errors, and A huge entries.
        some = some.astype(np.float64)
        covariance = some.T @ some / len(some)
        size = float(np.vdot(points, points)) / points.size
        covariance += max(size, np.finfo(np.float64).tiny) * RIDGE * np.eye(d)
        roots.append(covariance)
    values, vectors = np.linalg.eigh(roots[0])
    values = np.sqrt(np.maximum(values, values[-1] * 1e-14))
    root, inverse = (vectors * values) @ vectors.T, (vectors / values) @ vectors.T
    squares, turn = np.linalg.eigh(root @ roots[1] @ root)
    squares, turn = squares[::-1], turn[:, ::-1]
    sizes = np.sqrt(np.maximum(squares, squares[0] * 1e-20)) ** 0.5
    to_x, to_y = sizes[:, None] * (turn.T @ inverse), (turn.T @ root) / sizes[:, None]
    left = 1 - np.cumsum(sizes**2) / (sizes**2).sum()
    kept = min(d, -(-(int((left > dropped).sum()) + 1) // 32) * 32)
    mixed = np.linalg.qr(np.random.default_rng(0).normal(size=(kept, kept)))[0]
    to_x[:kept], to_y[:kept] = mixed @ to_x[:kept], mixed @ to_y[:kept]
    return to_x, to_y, kept


def _copied(
    points: np.ndarray, matrix: np.ndarray, kept: int, small: bool, lost: float, first: bool
) -> Rough:
    m = len(points)
    coordinates = np.empty((m, kept), np.int8 if small else np.float32)
    scale, spare = np.ones(m, np.float32), np.empty((m, 3), np.float32)
    for start in range(0, m, PART):
        here = slice(start, start + PART)
        moved = points[here].astype(np.float64) @ matrix.T
        head, tail = moved[:, :kept], moved[:, kept:]
        if small:
            largest = np.abs(head).max(1)
            scale[here] = np.where(largest > 0, largest / LEVELS, 1)
            coordinates[here] = np.clip(np.rint(head / scale[here, None]), -LEVELS, LEVELS)
        else:
            coordinates[here] = head
        kept_part = coordinates[here] * scale[here, None].astype(np.float64)
        off = np.linalg.norm(head - kept_part, axis=1)
        size = np.linalg.norm(head if not first else kept_part, axis=1)
        if not small:  # a product in float32 is rounded at each of its additions
            off += kept * 2.0**-23 * np.linalg.norm(head, axis=1)
        # (a - a') b + a' (b - b'), and the tails
        two = (off, size) if first else (size, off)
        spare[here, 0], spare[here, 1] = two
        spare[here, 2] = np.linalg.norm(tail, axis=1) + lost
    # Sums and products of spares are in float32, too, as is the scaling of products.
    return Rough(coordinates, scale, spare * np.float32(1 + 1e-5))


def products(x: Rough, y: Rough) -> np.ndarray:
    """Products of the coordinates of all pairs: int32, exact, or float32."""
    a, b = x.coordinates, y.coordinates
    if a.dtype == np.float32:
        return a @ b.T
    if not integers():  # on another machine than the one that made the copies
        return a.astype(np.float64) @ b.T.astype(np.float64)
    return _of_eight_bits(a, b)


def _of_eight_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from torch import _int_mm, from_numpy  # type: ignore[attr-defined]  # only for large problems

    return _int_mm(from_numpy(a), from_numpy(b).T).numpy()


@cache
def integers() -> bool:
    """Whether products of eight-bit integers are exact here, whatever the values."""
    try:
        ends = np.where(np.arange(2 * 64 * 320).reshape(2, 64, 320) % 3 > 0, 127, -127)
        ends = np.concatenate([ends, np.full((2, 64, 320), 127)], axis=1).astype(np.int8)
        wanted = ends[0].astype(np.int64) @ ends[1].astype(np.int64).T
        return bool((_of_eight_bits(*ends) == wanted).all())
    except (AttributeError, ImportError, RuntimeError):  # no such product in this torch
        return False
