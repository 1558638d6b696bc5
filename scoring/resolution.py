"""Are products in float32 precise enough to match these points?

Points in tight clusters far apart, or next to an outlier, have products that are large against the
differences that decide on a matching. A few points tell, so that float64 is taken only where it is
needed.
"""

from typing import Any

import numpy as np

from scoring.arrays import double, on_cpu

SEEN = 16  # Judge from about this many points,
SHARE = 0.1  # and call products too coarse if they are for more than this share of them.
APART = 4  # Neighbours are told apart if exchanging them saves this many bounds on rounding.
SAFETY = 3  # How many times the largest error seen no error is assumed to exceed.
PRECISE = 100  # A cost is precise if it is at least this many.


def rounding(d: int, size: int) -> float:
    """A bound on the error of a product of two points, as a share of both their lengths.

    A sum of d products is off by at most d units, in whatever order it is added up. Libraries add
    up blocks, and in practice their sums stay below 8 sqrt(d) units.

    Args:
        d: number of dimensions.
        size: bytes of a number.
    """
    return min(d, 8 * d**0.5) * (2.0**-24 if size <= 4 else 2.0**-53)


def measured(products: Any, a: Any, b: Any) -> float:
    """The same bound, from what rounding did to some products in float32.

    It is a few times the largest error among these, since this is mostly far below what it could
    be. It is at most what :func:`rounding` gives.

    Args:
        products: (p, p), computed as all others are.
        a: the centred points that were multiplied, (p, d).
        b: the others.
    """
    first, second = double(on_cpu(a)), double(on_cpu(b))
    lengths = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
    errors = np.abs(on_cpu(products) - first @ second.T)
    worst = float((errors / np.maximum(lengths, np.finfo(np.float64).tiny)).max())
    return min(max(rounding(1, 4), SAFETY * worst), rounding(a.shape[1], 4))


def seen(m: int) -> np.ndarray:
    """The points to judge from, among m."""
    return np.arange(0, m, max(1, m // SEEN))


def seen_products(a: Any, b: Any, some: np.ndarray) -> np.ndarray:
    """Products of some points with all: x with x, x with y and y with y, (3, some, m)."""
    pairs = ((a, a), (a, b), (b, b))
    return np.stack([on_cpu(one[some] @ other.T) for one, other in pairs]).astype(np.float64)


def too_coarse(
    points: tuple[Any, Any],
    squares: tuple[np.ndarray, np.ndarray],
    products: np.ndarray,
    columns: np.ndarray,
) -> bool:
    """Whether rounding to float32 hides which of some points are matched, or what that costs.

    Exchanging the partners of two points saves about the distance between the points times that of
    their partners. This must exceed the rounding. Where another output than its own is the nearest
    one to a point, so must its distance.

    Args:
        points: inputs and outputs, (m, d) each.
        squares: squared distances of both from their centres, (m,).
        products: of some centred points with all, as in :func:`seen_products`, in the same unit.
        columns: |y_j - centre of x|^2, (m,).
    """
    x, y = points
    m, d = x.shape
    some = seen(m)
    here, lengths = np.arange(len(some)), [np.sqrt(values) for values in squares]
    level = rounding(d, 4) + rounding(2, 4)  # The centred points are rounded as well.
    gaps = []
    for cloud, values, inner in ((x, squares[0], products[0]), (y, squares[1], products[2])):
        distances = values - 2 * inner
        distances[here, some] = np.inf
        gap = _distances(cloud, cloud, some, distances.argmin(1))
        gap = gap[gap > 0]  # Copies of a point remain copies in any precision.
        if not len(gap):
            return False
        gaps.append(float(np.quantile(gap, SHARE)) ** 0.5)
    largest = float((lengths[0] * lengths[1]).max())
    if gaps[0] * gaps[1] < APART * level * largest:
        return True
    near = (columns - 2 * products[1]).argmin(1)
    cost, own = _distances(x, y, some, near), _distances(x, y, some, some)
    error = PRECISE * level * lengths[0][some] * lengths[1][near]
    return bool(((cost < own) & (cost < error)).mean() > SHARE)


def _distances(x: Any, y: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Squared distances of pairs of points in float64."""
    return on_cpu(((double(x[rows]) - double(y[columns])) ** 2).sum(1))
