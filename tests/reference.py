"""The paper's equations as plain loops over plain numbers: slow, and hard to get wrong.

A track is a list of states, a state a list of coordinates, of one point. Nothing here uses
torch or NumPy, so nothing here can share a mistake with what it judges.
"""

import math
from itertools import pairwise, permutations


def steps(track):
    """x^(l) - x^(l-1) for l = 1, ..., n."""
    return [[b - a for a, b in zip(s, t, strict=True)] for s, t in pairwise(track)]


def length(vector):
    return math.sqrt(sum(v * v for v in vector))


def inverse_line_shape_ratio(track):
    """1/LSR, eq. (42); None where the point never moves.

    >>> inverse_line_shape_ratio([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    0.7142857142857143
    """
    total = sum(length(step) for step in steps(track))
    return length(steps([track[0], track[-1]])[0]) / total if total > 0 else None


def inverse_line_shape_score(track):
    """1/LSS, eqs (43) and (44), over the segments that have a direction; None without any.

    >>> inverse_line_shape_score([[0.0], [1.0], [1.0], [3.0]])
    1.0
    """
    units = []
    for step in steps(track):
        if length(step) > 0:
            units.append([v / length(step) for v in step])
    if not units:
        return None
    return length([sum(column) for column in zip(*units, strict=True)]) / len(units)


def segment_shares(track):
    """Length of each segment over that of the track; None where the point never moves."""
    lengths = [length(step) for step in steps(track)]
    return [one / sum(lengths) for one in lengths] if sum(lengths) > 0 else None


def squared_distance(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def optimal_matchings(x, y):
    """Eqs (45) and (46) by trying them all: the least total cost, and every matching with it.

    >>> optimal_matchings([[0.0], [1.0]], [[1.0], [0.0]])
    (0.0, [(1, 0)])
    """
    least, best = math.inf, []
    cost = [[squared_distance(a, b) for b in y] for a in x]
    for sigma in permutations(range(len(x))):
        total = sum(cost[i][j] for i, j in enumerate(sigma))
        if total < least:
            least, best = total, []
        if total == least:
            best.append(sigma)
    return least, best


def crops_and_flips(image, border):
    """Every window of an image (h, w, c) in a frame of black pixels, and its mirror image.

    >>> len(crops_and_flips([[[1], [2]], [[3], [4]]], 1))
    18
    """
    height, width, channels = len(image), len(image[0]), len(image[0][0])
    black = [0] * channels
    side = [black] * border
    rows = [[black] * (width + 2 * border)] * border
    framed = rows + [side + list(row) + side for row in image] + rows
    windows = []
    for down in range(2 * border + 1):
        for right in range(2 * border + 1):
            window = [row[right : right + width] for row in framed[down : down + height]]
            windows += [window, [row[::-1] for row in window]]
    return windows
