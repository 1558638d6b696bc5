"""The compiled loops of :mod:`scoring.large`: which pairs of points can be cheap enough?

They see rough products of a tile of rows and columns, each with a bound on its error, and compute
exact products only for pairs that the bound cannot exclude.
"""

import numpy as np

from scoring.kernels import _bid, _replace_worst, exact, scan

WIDTH = 64  # columns that are looked at together


@scan
def _product(a, b):
    """The product of two points in float64: eight sums, in an order that is always the same."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    even = len(a) // 8 * 8
    for k in range(0, even, 8):
        s0 += np.float64(a[k]) * np.float64(b[k])
        s1 += np.float64(a[k + 1]) * np.float64(b[k + 1])
        s2 += np.float64(a[k + 2]) * np.float64(b[k + 2])
        s3 += np.float64(a[k + 3]) * np.float64(b[k + 3])
        s4 += np.float64(a[k + 4]) * np.float64(b[k + 4])
        s5 += np.float64(a[k + 5]) * np.float64(b[k + 5])
        s6 += np.float64(a[k + 6]) * np.float64(b[k + 6])
        s7 += np.float64(a[k + 7]) * np.float64(b[k + 7])
    for k in range(even, len(a)):
        s0 += np.float64(a[k]) * np.float64(b[k])
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


@scan
def sift(products, scale, spare, other_scale, other_spare, q, x, y, row, column, best, place):
    """Keep the smallest cost - q of each row of a tile, among those below the worst one kept.

    Args:
        products: (rows, columns) rough products, in units of both scales.
        scale: (rows,) float32.
        spare: (rows, 3) float32; with ``other_spare`` (columns, 3) the bound on the error.
        other_scale: (columns,) float32.
        q: potentials of all columns.
        x: points of all rows, and ``y`` of all columns. The cost is minus their product in float64.
        row: index of each row of the tile among all rows; ``column`` likewise.
        best: (rows, k) max-heaps. The bar of a row is its first value; ``place`` has the columns.
    """
    many, count = products.shape
    potential = np.empty(count, np.float32)
    f0, f1 = np.empty(count, np.float32), np.empty(count, np.float32)
    f2, by = np.empty(count, np.float32), np.empty(count, np.float32)
    size = 0.0
    for c in range(count):
        potential[c] = q[column[c]]
        size = max(size, abs(potential[c]))
        f0[c], f1[c], f2[c] = other_spare[c, 0], other_spare[c, 1], other_spare[c, 2]
        by[c] = other_scale[c]
    line = np.empty(WIDTH, np.float32)
    for r in range(many):
        values, places = best[r], place[r]
        own, e0, e1, e2 = scale[r], spare[r, 0], spare[r, 1], spare[r, 2]
        here, point = products[r], x[row[r]]
        # float32 sums of such terms are off by less than this
        bar = np.float32(values[0] + 1e-6 * (abs(values[0]) + size))
        for start in range(0, count, WIDTH):
            stop = min(start + WIDTH, count)
            most = np.float32(-np.inf)
            for c in range(start, stop):
                value = (
                    np.float32(here[c]) * by[c] * own
                    + (e0 * f0[c] + e1 * f1[c])
                    + (e2 * f2[c] + potential[c])
                )
                line[c - start] = value
                most = max(most, value)
            if most <= -bar:
                continue
            for c in range(start, stop):
                if line[c - start] <= -bar:
                    continue
                j = column[c]
                value = -_product(point, y[j]) - q[j]
                if value < values[0]:
                    _replace_worst(values, places, value, j)
                    bar = np.float32(values[0] + 1e-6 * (abs(values[0]) + size))


@scan
def lightest(products, scale, other_scale, q, best):
    """Keep in the max-heaps ``best`` the smallest -product - q of each row, within rough error."""
    count = len(q)
    line, none = np.empty(WIDTH, np.float32), np.empty(best.shape[1], np.int32)
    for r in range(len(products)):
        here, own, values = products[r], scale[r], best[r]
        bar = np.float32(values[0])
        for start in range(0, count, WIDTH):
            stop = min(start + WIDTH, count)
            least = np.float32(np.inf)
            for c in range(start, stop):
                value = -np.float32(here[c]) * other_scale[c] * own - q[c]
                line[c - start] = value
                least = min(least, value)
            if least < bar:
                for c in range(stop - start):
                    if line[c] < values[0]:
                        _replace_worst(values, none, line[c], 0)
                bar = np.float32(values[0])


@scan
def paired(x, y, row, column, out):
    """The product of x[row] and y[column] of each pair, in float64, as :func:`sift` adds it up."""
    for n in range(len(row)):
        out[n] = _product(x[row[n]], y[column[n]])


@exact
def stairs(a, b):
    """How many pairs of a row and a column, both sorted upwards, have a + b > 0."""
    total, c = 0, 0
    for r in range(len(a) - 1, -1, -1):
        while c < len(b) and a[r] + b[c] <= 0:
            c += 1
        total += len(b) - c
    return total


@exact
def apart(first, column, cost, v):
    """By how much the second least cost - v of each row exceeds the least one, (m,)."""
    out = np.empty(len(v))
    for i in range(len(v)):
        one, two, _, _ = _bid(first, column, cost, v, i)
        out[i] = two - one
    return out
