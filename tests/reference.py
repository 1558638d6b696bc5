"""The paper's equations as plain loops over plain numbers: slow, and easy to check by eye.

A track is a list of states of one point, and a state is a list of coordinates. Nothing here uses
torch or NumPy, so it shares no code, and no mistake, with the functions that it checks.
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
    """1/LSS, eqs (43) and (44), over the segments of nonzero length; None if there are none.

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
    """Length of each segment over the length of the track; None where the point never moves."""
    lengths = [length(step) for step in steps(track)]
    return [one / sum(lengths) for one in lengths] if sum(lengths) > 0 else None


def squared_distance(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def track_distance(s, t):
    """Eq. (35) of two tracks, and the first block that attains the minimum.

    >>> track_distance([[0.0], [1.0], [2.0]], [[3.0], [2.0], [3.0]])
    (1.0, 1)
    """
    squares = [squared_distance(a, b) for a, b in zip(s, t, strict=True)]
    return math.sqrt(min(squares)), squares.index(min(squares))


def squared_bound(s, t):
    """B^2 of two tracks, eqs (36) and (41), with all distances taken from this one pair.

    >>> squared_bound([[0.0], [0.0]], [[3.0], [4.0]])
    5.76
    """
    a, b = squared_distance(s[0], t[0]), squared_distance(s[-1], t[-1])
    return a * b / (a + b) if a + b > 0 else 0.0


def keeps_apart(s, t):
    """Eq. (41), d >= B, without square roots and divisions."""
    a, b = squared_distance(s[0], t[0]), squared_distance(s[-1], t[-1])
    least = min(squared_distance(p, q) for p, q in zip(s, t, strict=True))
    return least * (a + b) >= a * b


def monotonicity(s, t):
    """<f(x_p) - f(x_q), x_p - x_q>, eq. (38), of two tracks.

    >>> monotonicity([[0.0], [5.0]], [[2.0], [4.0]])
    -2.0
    """
    return dot(steps([s[-1], t[-1]])[0], steps([s[0], t[0]])[0])


def kinetic_energy(tracks):
    """Mean over points of |x^(l) - x^(l-1)|^2 for each block, eqs (9) to (12).

    >>> kinetic_energy([[[0.0], [1.0]], [[0.0], [3.0]]])
    [5.0]
    """
    squares = [[length(step) ** 2 for step in steps(track)] for track in tracks]
    return [sum(column) / len(tracks) for column in zip(*squares, strict=True)]


def geodesic_excess(tracks):
    """n sum E_l / W2^2, and its factors n sum E_l / C and C / W2^2, by trying every matching.

    >>> geodesic_excess([[[0.0], [1.0], [4.0]], [[9.0], [9.0], [9.0]]])
    (1.25, 1.25, 1.0)
    """
    total = (len(tracks[0]) - 1) * sum(kinetic_energy(tracks))
    cost = kinetic_energy([[track[0], track[-1]] for track in tracks])[0]
    optimal = squared_wasserstein(tracks, 0, -1)
    return total / optimal, total / cost, cost / optimal


def without_drift(tracks):
    """The tracks with the mean step of each block removed from every point.

    >>> without_drift([[[0.0], [1.0]], [[0.0], [3.0]]])
    [[[0.0], [-1.0]], [[0.0], [1.0]]]
    """
    means = [
        [sum(column) / len(tracks) for column in zip(*moved, strict=True)]
        for moved in zip(*(steps(track) for track in tracks), strict=True)
    ]
    moved = []
    for track in tracks:
        states = [track[0]]
        for step, mean in zip(steps(track), means, strict=True):
            states.append([x + v - c for x, v, c in zip(states[-1], step, mean, strict=True)])
        moved.append(states)
    return moved


def random_cost(x, y):
    """The mean squared distance over all pairs of an input and an output.

    >>> random_cost([[0.0], [2.0]], [[0.0], [0.0]])
    2.0
    """
    return sum(squared_distance(a, b) for a in x for b in y) / len(x) / len(y)


def shuffled(x, y, order):
    """Outputs of the map that moves input i by the displacement of input order[i].

    >>> shuffled([[0.0], [5.0]], [[1.0], [9.0]], [1, 0])
    [[4.0], [6.0]]
    """
    ways = [[q - p for p, q in zip(a, b, strict=True)] for a, b in zip(x, y, strict=True)]
    return [[p + v for p, v in zip(a, ways[i], strict=True)] for a, i in zip(x, order, strict=True)]


def squared_wasserstein(tracks, start, end):
    """W2^2 between two states of a stage, by trying every matching.

    >>> squared_wasserstein([[[0.0], [5.0]], [[5.0], [0.0]]], 0, 1)
    0.0
    """
    x, y = ([track[state] for track in tracks] for state in (start, end))
    return optimal_matchings(x, y)[0] / len(tracks)


def curve(tracks):
    """The curve of measures of a stage, by trying every matching of every block.

    For each block: W2, kinetic energy, share of points that keep their own output, and the mean
    |v - p|^2 over the energy, where v is a point's step and p leads to its partner, eq. (15). Then
    the length of the curve over the W2 of its ends. Only where one matching alone is best.

    >>> curve([[[0.0], [1.0], [3.0]], [[4.0], [3.0], [4.0]]])
    ([(1.0, 1.0, 1.0, 0.0), (1.5811388300841898, 2.5, 1.0, 0.0)], 1.2167605132909618)
    """
    blocks = []
    for k, energy in enumerate(kinetic_energy(tracks)):
        x, y = ([track[state] for track in tracks] for state in (k, k + 1))
        _, (sigma,) = optimal_matchings(x, y)
        own = sum(i == j for i, j in enumerate(sigma)) / len(sigma)
        lost = sum(
            squared_distance(steps([a, b])[0], steps([a, y[j]])[0])
            for a, b, j in zip(x, y, sigma, strict=True)
        ) / len(sigma)
        speed = math.sqrt(squared_wasserstein(tracks, k, k + 1))
        blocks.append((speed, energy, own, lost / energy))
    length = sum(speed for speed, *_ in blocks)
    return blocks, length / math.sqrt(squared_wasserstein(tracks, 0, -1))


def straight_distance(track):
    """Distance of each state to its place on the line between the ends, eq. (5).

    >>> straight_distance([[0.0], [5.0], [4.0]])
    [0.0, 3.0, 0.0]
    """
    n = len(track) - 1
    lines = [
        [(1 - i / n) * a + i / n * b for a, b in zip(track[0], track[-1], strict=True)]
        for i in range(n + 1)
    ]
    return [length(steps([line, x])[0]) for line, x in zip(lines, track, strict=True)]


def turning(track):
    """Cosine between each segment and the next; None where one of them has length zero.

    >>> turning([[0.0], [1.0], [3.0], [2.0], [2.0]])
    [1.0, -1.0, None]
    """
    cosines = []
    for one, other in pairwise(steps(track)):
        lengths = length(one) * length(other)
        cosines.append(dot(one, other) / lengths if lengths > 0 else None)
    return cosines


def same_size(tracks):
    """The tracks with every state divided by the root of its mean |x|^2 over points.

    >>> same_size([[[2.0], [0.0]], [[2.0], [0.0]]])
    [[[1.0], [0.0]], [[1.0], [0.0]]]
    """
    sizes = []
    for states in zip(*tracks, strict=True):
        sizes.append(math.sqrt(sum(dot(x, x) for x in states) / len(states)) or 1.0)
    return [
        [[v / size for v in x] for x, size in zip(track, sizes, strict=True)] for track in tracks
    ]


def relative_energy(tracks):
    """Kinetic energy of each block over the variance of the state it starts from.

    >>> relative_energy([[[0.0], [1.0]], [[4.0], [5.0]]])
    [0.25]
    """
    variances = [covariance(states)[1] for states in zip(*tracks, strict=True)]
    energies = kinetic_energy(tracks)
    return [energy / variance for energy, variance in zip(energies, variances, strict=False)]


def covariance(points):
    """The covariance matrix of points, and its trace.

    >>> covariance([[0.0, 1.0], [2.0, 1.0]])
    ([[1.0, 0.0], [0.0, 0.0]], 1.0)
    """
    mean = [sum(column) / len(points) for column in zip(*points, strict=True)]
    centred = [[v - c for v, c in zip(x, mean, strict=True)] for x in points]
    d = range(len(mean))
    matrix = [[sum(x[i] * x[j] for x in centred) / len(points) for j in d] for i in d]
    return matrix, sum(matrix[i][i] for i in d)


def eigen(matrix):
    """Eigenvalues of a symmetric matrix, and their unit vectors, by Jacobi's rotations.

    >>> eigen([[2.0, 0.0], [0.0, 3.0]])
    [(2.0, [1.0, 0.0]), (3.0, [0.0, 1.0])]
    """
    a = [row.copy() for row in matrix]
    d = range(len(a))
    v = [[float(i == j) for j in d] for i in d]
    for _ in range(60):
        for p in d:
            for q in range(p):
                if a[p][q] == 0:
                    continue
                angle = math.atan2(2 * a[p][q], a[q][q] - a[p][p]) / 2
                c, s = math.cos(angle), math.sin(angle)
                for m in (a, v):
                    for row in m:
                        row[p], row[q] = c * row[p] - s * row[q], s * row[p] + c * row[q]
                a[p], a[q] = (
                    [c * x - s * y for x, y in zip(a[p], a[q], strict=True)],
                    [s * x + c * y for x, y in zip(a[p], a[q], strict=True)],
                )
    return [(a[i][i], [row[i] for row in v]) for i in d]


def effective_rank(points):
    """exp of the entropy of the singular values of centred points, which add up to 1.

    >>> round(effective_rank([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 9)
    2.0
    """
    singular = [math.sqrt(max(value, 0.0)) for value, _ in eigen(covariance(points)[0])]
    shares = [value / sum(singular) for value in singular if value > 1e-7 * max(singular)]
    return math.exp(-sum(p * math.log(p) for p in shares))


def participation_ratio(points):
    """tr(S)^2 / tr(S^2) of the covariance S.

    >>> participation_ratio([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    2.0
    """
    matrix, trace = covariance(points)
    return trace**2 / sum(v * v for row in matrix for v in row)


def fuzziness(points, labels):
    """tr(S_w S_b^+), with the pseudoinverse from all eigenvectors of S_b.

    >>> fuzziness([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1])
    0.04
    """
    around, means = [], []
    for label in labels:
        members = [x for x, other in zip(points, labels, strict=True) if other == label]
        means.append([sum(column) / len(members) for column in zip(*members, strict=True)])
    for x, mean in zip(points, means, strict=True):
        around.append([v - c for v, c in zip(x, mean, strict=True)])
    between, trace = covariance(means)
    total = 0.0
    for value, vector in eigen(between):
        if value > 1e-9 * trace:
            total += sum(dot(x, vector) ** 2 for x in around) / len(points) / value
    return total


def variation_rate(states, changed):
    """Eq. (49) for one state of several points, without the points whose state is 0.

    >>> variation_rate([[3.0, 4.0], [0.0, 0.0]], [[3.0, 5.0], [1.0, 1.0]])
    0.2
    """
    rates = [
        length(steps([x, c])[0]) / length(x) for x, c in zip(states, changed, strict=True) if any(x)
    ]
    return sum(rates) / len(rates)


def most_active(after, labels):
    """Section 7.1: units of x^(l) for each point, the largest mean over its class first.

    >>> most_active([[1.0, 5.0], [9.0, 5.0], [0.0, 1.0]], [0, 0, 1])
    [[0, 1], [0, 1], [1, 0]]
    """
    orders = []
    for label in labels:
        members = [x for x, other in zip(after, labels, strict=True) if other == label]
        means = [sum(column) / len(members) for column in zip(*members, strict=True)]
        orders.append(sorted(range(len(means)), key=lambda unit: (-means[unit], unit)))
    return orders


def eliminated(before, after, orders, k, replacement="previous"):
    """x^(l) with each point's first k units replaced: by those of x^(l-1), or by their means.

    >>> eliminated([[0.0, 0.0], [0.0, 0.0]], [[1.0, 5.0], [9.0, 5.0]], [[0, 1], [1, 0]], 1)
    [[0.0, 5.0], [9.0, 0.0]]
    >>> eliminated([[0.0, 0.0], [0.0, 0.0]], [[1.0, 5.0], [9.0, 5.0]], [[0, 1], [0, 1]], 1, "mean")
    [[5.0, 5.0], [5.0, 5.0]]
    """
    means = [sum(column) / len(after) for column in zip(*after, strict=True)]
    changed = []
    for b, a, order in zip(before, after, orders, strict=True):
        instead = b if replacement == "previous" else means
        changed.append([instead[u] if u in order[:k] else a[u] for u in range(len(a))])
    return changed


def mixed_pairs(tracks, noisy_ends, kept=None):
    """Track distance, end distance and mixed-up share of both orders, of each pair of points."""
    pairs = []
    for s in range(len(tracks)):
        for t in range(s):
            if kept is None or kept(s, t):
                mixed = [
                    squared_distance(noisy_ends[p], tracks[q][-1])
                    < squared_distance(noisy_ends[p], tracks[p][-1])
                    for p, q in ((s, t), (t, s))
                ]
                end = math.sqrt(squared_distance(tracks[s][-1], tracks[t][-1]))
                pairs.append((track_distance(tracks[s], tracks[t])[0], end, sum(mixed) / 2))
    return pairs


def mixed_by_distance(tracks, noisy_ends, groups, kept=None):
    """Share of ordered pairs that noise mixes up, and mean distance, by track distance.

    The pairs are sorted by track distance and split into groups of almost equal size.

    >>> mixed_by_distance([[[0.0]], [[1.0]], [[9.0]]], [[0.8], [1.0], [9.0]], 2)
    [(0.25, 4.5), (0.0, 9.0)]
    """
    pairs = sorted(mixed_pairs(tracks, noisy_ends, kept), key=lambda pair: pair[0])
    size, more = divmod(len(pairs), groups)
    found = []
    for group in range(groups):
        some, pairs = pairs[: size + (group < more)], pairs[size + (group < more) :]
        found.append(
            (sum(mixed for _, _, mixed in some) / len(some), sum(d for d, _, _ in some) / len(some))
        )
    return found


def mixed_at_equal_ends(tracks, noisy_ends, groups, kept=None):
    """Share of ordered pairs that noise mixes up, by rank among pairs of equally distant ends.

    Sorted by the distance of their ends, each ``groups`` neighbours form a set. Inside it they are
    ranked by track distance.

    >>> mixed_at_equal_ends([[[0.0]], [[1.0]], [[9.0]]], [[0.8], [1.0], [9.0]], 3)
    [0.5, 0.0, 0.0]
    """
    pairs = sorted(mixed_pairs(tracks, noisy_ends, kept), key=lambda pair: pair[1])
    sets = []
    while len(pairs) >= groups:
        some, pairs = pairs[:groups], pairs[groups:]
        sets.append([mixed for _, _, mixed in sorted(some, key=lambda pair: pair[0])])
    return [sum(ranked) / len(sets) for ranked in zip(*sets, strict=True)]


def optimal_matchings(x, y):
    """Eqs (45) and (46) by trying every matching: the least total cost, and all that attain it.

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
    """Every crop of an image (h, w, c) that has a black border added, and its mirror image.

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
