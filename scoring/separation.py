"""How far apart data tracks stay: eqs (35) to (41), Definition 3 and Theorem 1.

On a geodesic, no two tracks come closer than a bound that depends on their ends, and the map is
monotone. A network may violate both, so this module measures how often it does.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from scoring import arrays
from scoring.line_shape import as_state, as_track

ROUNDING = 1e-9  # Two distances of a pair are equal if they differ by at most this share.
CANCELLED = 1e-4  # Compute a sum from differences if it is below this share of its terms.
AT_ONCE = 2**22  # float64 numbers in a block of rows: 34 MB


class Separation:
    """Distances between the tracks of m points, from one state at a time.

    Feed it x^(0), x^(1), ..., x^(n) with :meth:`update`; results can be read after each of them.
    For any depth it keeps two states of the m points and a few (m, m) matrices in float64.

    >>> pair = Separation()
    >>> for state in ([[0.0], [4.0]], [[1.0], [2.0]], [[2.0], [5.0]]):
    ...     pair.update(torch.tensor(state))
    >>> pair.distances()[0, 1], pair.nearest()[0, 1], pair.bound()[0, 1]  # 4 * 3 / 5
    (tensor(1., dtype=torch.float64), tensor(1), tensor(2.4000, dtype=torch.float64))
    >>> pair.figures()["separated"], pair.figures()["not_monotone"]
    (0.0, 0.0)
    """

    def __init__(self) -> None:
        self.blocks = -1  # number of states so far, minus 1
        self.first: Tensor  # x^(0), (m, d)
        self.last: Tensor  # the latest state, (m, d)
        self._scale = 0.0  # the power of two by which states are multiplied; 0: none came yet
        self._start: Tensor  # squared distances at l = 0 of the scaled states, (m, m)
        self._end: Tensor  # the same at the latest state
        self._least: Tensor  # the least of them so far
        self._nearest: Tensor  # int64, the block where it occurs

    def update(self, state: Tensor) -> None:
        """Take the next state of the same m points, (m, ...); dimensions are flattened."""
        state = as_state(state).flatten(1)
        if state.dtype != torch.float64:
            state = state.float()
        if self.blocks >= 0 and state.shape != self.last.shape:
            raise ValueError(
                f"a state of shape {tuple(state.shape)} in a track of {tuple(self.last.shape)}: "
                "the states of a stage have one dimension"
            )
        self._rescale(state)
        squared = self._scaled_products(state, state)
        self.blocks += 1
        self.last, self._end = state, squared
        if self.blocks == 0:
            self.first, self._start, self._least = state, squared, squared
            self._nearest = torch.zeros_like(squared, dtype=torch.int64)
            return
        closer = squared < (1 - ROUNDING) * self._least
        self._nearest.masked_fill_(closer, self.blocks)
        self._least = torch.minimum(self._least, squared)  # NaN stays NaN

    def _rescale(self, state: Tensor) -> None:
        """Choose a scale that lets the squares of the largest state neither vanish nor overflow."""
        scale = arrays.safe_scale(state)
        if scale < self._scale:
            change = (scale / self._scale) ** 2
            self._start, self._end = self._start * change, self._end * change
            self._least = self._least * change
            self._scale = scale
        elif self.blocks < 0 or (scale > self._scale and not (self._start + self._end).any()):
            self._scale = scale  # no points were apart so far, so there is no distance to rescale

    def _scaled_products(self, x: Tensor, y: Tensor) -> Tensor:
        if self._scale == 1:
            return pair_products(x, y)
        a = x * self._scale
        return pair_products(a, a if y is x else y * self._scale)

    def distances(self) -> Tensor:
        """Distances between tracks, eq. (35), (m, m): see :func:`track_distance`."""
        return self._least.sqrt().div_(self._scale)

    def squared(self) -> Tensor:
        """Squared distances of all pairs in the latest state, (m, m)."""
        return self._end if self._scale == 1 else self._end / self._scale / self._scale

    def nearest(self) -> Tensor:
        """The block l at which two tracks are closest, (m, m): see :func:`track_distance`."""
        return self._nearest

    def bound(self) -> Tensor:
        """Theorem 1's bound B = ab / sqrt(a^2 + b^2), (m, m): eqs (36), (40) and (41).

        a and b are the distances of a pair at l = 0 and l = n; B is between min(a, b) / sqrt(2)
        and min(a, b), and 0 where a pair starts or ends in one place. Eq. (41) as printed has
        a and b of the pair (s, t) above the line and of the pair (p, q) below: one pair is meant.
        """
        return self._bound().div_(self._scale)

    def _bound(self) -> Tensor:
        """The bound between scaled states."""
        a, b = self._start.sqrt(), self._end.sqrt()
        bound = a * b / torch.hypot(a, b)
        return bound.masked_fill_((a == 0) & (b == 0), 0)

    def figures(self, labels: Any = None) -> dict[str, float]:
        """Columns of the tracks table about the m (m - 1) / 2 pairs of points.

        Args:
            labels: classes (m,), tensor or array, to tell pairs of one class from the others.

        Returns:
            ``separation_m``: m. ``separated``: share of pairs with d >= B up to rounding, pairs
            with B = 0 among them. ``separation_ratio``: mean d/B over pairs with B > 0, in
            [0, sqrt(2)]. Both also over pairs of the same class (``_same``) and of two classes
            (``_different``). ``not_monotone``: share of pairs that violate eq. (38), with
            <f(x_p) - f(x_q), x_p - x_q> < 0 by more than rounding, where f is the stage. NaN
            where there is no such pair (or no labels), and where a state is not finite.

        Raises:
            ValueError: there are fewer than two states, or not m labels.
        """
        if self.blocks < 1:
            raise ValueError("a track has at least two states")
        m = len(self.first)
        if labels is not None and len(labels) != m:
            raise ValueError(f"{len(labels)} labels of {m} points")
        p, q = torch.triu_indices(m, m, 1, device=self.first.device)
        distance, bound = self._least.sqrt()[p, q], self._bound()[p, q]
        ends = (self._start[p, q] * self._end[p, q]).sqrt()
        # Eq. (38) follows from the optimality of two pairs, |T(x_p) - x_p|^2 + |T(x_q) - x_q|^2
        # <= |T(x_p) - x_q|^2 + |T(x_q) - x_p|^2; the last term of eq. (37) is misprinted.
        turned = self._scaled_products(self.first, self.last)[p, q] < -ROUNDING * ends
        separated = (distance >= (1 - ROUNDING) * bound).double()
        ratio = (distance / bound).masked_fill(bound == 0, torch.nan)
        finite = bool((distance + ends).isfinite().all())
        figures = {"separation_m": m, "not_monotone": _mean(turned.double(), finite)}
        for name, pairs in _groups(labels, p, q):
            figures |= {
                f"separated{name}": _mean(separated[pairs], finite),
                f"separation_ratio{name}": _mean(ratio[pairs], finite),
            }
        return figures


def track_distance(track: Tensor) -> tuple[Tensor, Tensor]:
    """Distances between data tracks, eq. (35), and where they are closest.

    It is the least distance of two points over the states of their tracks.
    :class:`Separation` takes the states one at a time.

    Args:
        track: tensor or array of shape (n + 1, m, d); ``track[l]`` holds x^(l) of m points.

    Returns:
        Float64 tensor (m, m) of distances in the units of the states, symmetric, 0 on the
        diagonal and nowhere above the distance at any l; and int64 tensor (m, m) of the first
        l, 0 to n, where the distance occurs. Distances are NaN where a state is not finite.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.

    >>> crossing = torch.tensor([[[0.0], [2.0]], [[1.0], [1.0]], [[2.0], [0.0]]])
    >>> distance, block = track_distance(crossing)
    >>> distance[0, 1], block[0, 1]
    (tensor(0., dtype=torch.float64), tensor(1))
    """
    separation = Separation()
    for state in as_track(track):
        separation.update(state)
    return separation.distances(), separation.nearest()


def pair_products(x: Tensor, y: Tensor) -> Tensor:
    """<x_p - x_q, y_p - y_q> of all pairs, (m, d) each -> (m, m); squared distances if y is x.

    Matrix products of centred points are fast, but lose digits for two points that are much
    closer to each other than to the centre. For those, the differences themselves are multiplied.
    """
    m, d = x.shape
    rows = max(1, AT_ONCE // max(1, d))
    few = max(1, rows // 16)  # so that their differences fit into a cache
    centres = centre(x), centre(y)

    def centred(here: slice) -> tuple[Tensor, Tensor]:
        a = x[here].double() - centres[0]
        return a, a if y is x else y[here].double() - centres[1]

    own, length_x, length_y = x.new_empty(3, m, dtype=torch.float64)
    for here in _blocks(m, rows):
        a, b = centred(here)
        own[here] = (a * b).sum(1)
        length_x[here], length_y[here] = a.norm(dim=1), b.norm(dim=1)
    products = x.new_zeros(m, m, dtype=torch.float64)  # its upper triangle, for now
    for here in _blocks(m, rows):
        a, b = centred(here)
        for there in _blocks(m, rows, here.start):
            e, f = centred(there)
            cross = a @ f.T
            cross = 2 * cross if y is x else cross + b @ e.T
            sums = own[here, None] + own[there] - cross
            terms = (length_x[here, None] + length_x[there]) * (
                length_y[here, None] + length_y[there]
            )
            products[here, there] = sums
            lost = (sums.abs() < CANCELLED * terms).triu_(1 + here.start - there.start)
            p, q = lost.nonzero(as_tuple=True)
            for some in _blocks(len(p), few):
                i, j = p[some] + here.start, q[some] + there.start
                step = x[i].double().sub_(x[j])
                other = step if y is x else y[i].double().sub_(y[j])
                products[i, j] = torch.linalg.vecdot(step, other)
    products.triu_(1)
    return products + products.T


def centre(x: Tensor) -> Tensor:
    """Mean of points (m, d) -> (d,) float64; exact if all points are equal."""
    return x[0].double() + (x - x[0]).mean(0, dtype=torch.float64)


def _blocks(count: int, rows: int, start: int = 0) -> Iterator[slice]:
    for first in range(start, count, rows):
        yield slice(first, min(first + rows, count))


def _groups(labels: Any, p: Tensor, q: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Suffixes of columns, and which pairs each is about: all, of one class, of two classes."""
    everything = torch.ones_like(p, dtype=torch.bool)
    yield "", everything
    same = different = ~everything
    if labels is not None:
        classes = torch.as_tensor(arrays.labels(labels)).to(p.device)
        same, different = classes[p] == classes[q], classes[p] != classes[q]
    yield "_same", same
    yield "_different", different


def _mean(values: Tensor, finite: bool) -> float:
    """Mean of the values that are not NaN; NaN if there is none, or if states are not finite."""
    return values.nanmean().item() if finite else float("nan")
