"""Is a map the optimal transport between its inputs and its outputs? OTS, eqs (45) to (47).

The assignment is solved on inner products of centred points: terms of the squared distance
that belong to one row or one column alone do not change the optimal matching, and without
them there is less to round. The functions take NumPy arrays or torch tensors, on any device,
and import neither torch nor Ray.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import lap
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

COLLAPSED = 1e-6  # a spread below this share of the scale of the points is rounding


class Problem(NamedTuple):
    """The assignment between m inputs x_i and outputs y_j of a stage.

    |x_i - y_j|^2 = own[i] + columns[j] - columns[i] - 2 (inner[i, j] - inner[i, i]).
    """

    inner: np.ndarray  # (m, m): <x_i - mean x, y_j - mean y>, in the points' precision if it fits
    own: np.ndarray  # (m,) float64: |x_i - y_i|^2
    columns: np.ndarray  # (m,) float64: |y_j - mean x|^2
    collapsed: bool  # inputs or outputs are all equal within rounding


@dataclass(frozen=True)
class Transport:
    """A solved assignment; costs are squared distances in the units of the points."""

    ots: float  # share of i with sigma(i) = i, in [1/m or 0, 1]; NaN if collapsed
    permutation: np.ndarray  # (m,) int64: sigma
    own_cost: np.ndarray  # (m,) float64: |x_i - y_i|^2
    matched_cost: np.ndarray  # (m,) float64: |x_i - y_sigma(i)|^2
    network_cost: float  # mean of own_cost
    optimal_cost: float  # W2^2: mean of matched_cost
    gap: float  # optimal over network cost, in [0, 1]: 1 where the map is optimal
    m: int
    collapsed: bool


def optimal_transport_score(x: Any, y: Any) -> Transport:
    """Optimal-transport score (OTS) of the map x_i -> y_i, eq. (47).

    Args:
        x: inputs of a stage, array or tensor of shape (m, d); further dimensions are flattened.
        y: its outputs, of the same shape.

    Returns:
        The :class:`Transport`: ``ots`` = 1 when no other matching costs less, around 1/m for a
        random one. It depends on m: compare at equal m only. NaN, with ``collapsed``, where
        the outputs (or inputs) are all equal, since any matching is optimal then.

    Raises:
        ValueError: the shapes differ, there are fewer than two points, or a value is not finite.

    >>> x = np.array([[0.0], [1.0], [5.0]])
    >>> optimal_transport_score(x, 2 * x).ots, optimal_transport_score(x, -x).ots
    (1.0, 0.3333333333333333)
    """
    return solve(assignment_problem(_double(x), _double(y)))


def assignment_problem(x: Any, y: Any) -> Problem:
    """The costs between inputs and outputs, (m, d) each: O(m d) to read, (m, m) to keep.

    Computed where the points are and in their precision (own costs: float64); the caller sees
    to it that TF32 and autocast are off. Raises ValueError like
    :func:`optimal_transport_score`.
    """
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    if tuple(x.shape) != tuple(y.shape) or len(x) < 2:
        raise ValueError(
            f"inputs {tuple(x.shape)} and outputs {tuple(y.shape)}; should be (m, d) both, m >= 2"
        )
    own = _squared_distances(y, x)
    columns = _squared_distances(y, x.mean(0)[None])
    if not (np.isfinite(own).all() and np.isfinite(columns).all()):
        raise ValueError("a state holds values that are not finite")
    a, b = x - x.mean(0), y - y.mean(0)
    collapsed = _spread(a) <= COLLAPSED * _spread(x) or _spread(b) <= COLLAPSED * max(
        _spread(a), _spread(y)
    )
    inner = _numpy(a @ b.T)
    if not np.isfinite(inner).all():  # products of states above 1e19 overflow float32
        inner = _numpy(_double(a) @ _double(b).T)
    return Problem(inner, own, columns, collapsed)


def solve(problem: Problem) -> Transport:
    """The optimal matching of eq. (46), by Jonker and Volgenant's algorithm (lapx), and OTS.

    Dense and in float64, so it needs 8 m^2 bytes beside the problem.
    """
    inner, own, columns, collapsed = problem
    m = len(own)
    here = np.arange(m)
    rows, matched = lap.lapjvc(np.negative(inner, dtype=np.float64), return_cost=False)
    permutation = np.empty(m, dtype=np.int64)
    permutation[rows] = matched
    sigma = _own_where_equal(permutation, inner)
    saved = 2 * (inner[here, sigma].astype(np.float64) - inner[here, here])  # 0 where sigma(i) = i
    network_cost = float(own.mean())
    optimal_cost = max(network_cost - float(saved.mean()), 0.0)
    return Transport(
        ots=float("nan") if collapsed else float((sigma == here).mean()),
        permutation=sigma,
        own_cost=own,
        matched_cost=np.maximum(own + columns[sigma] - columns - saved, 0.0),
        network_cost=network_cost,
        optimal_cost=optimal_cost,
        gap=optimal_cost / network_cost if network_cost > 0 else 1.0,
        m=m,
        collapsed=collapsed,
    )


def _own_where_equal(sigma: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The matching with every cycle that saves nothing undone: ties go to a point's own output.

    Equal points can be exchanged at no cost, and which of them a solver picks is chance.
    """
    here = np.arange(len(sigma))
    cycle = connected_components(coo_array((np.ones(len(sigma)), (here, sigma))))[1]
    own = inner[here, here].astype(np.float64)
    saved = np.bincount(cycle, inner[here, sigma] - own)
    rounding = 4 * np.finfo(inner.dtype).eps * np.bincount(cycle, np.abs(own))
    return np.where((saved <= rounding)[cycle], here, sigma)


def _double(x: Any) -> Any:
    """float64 of an array, or of a tensor where it is."""
    return x.detach().double() if hasattr(x, "detach") else np.asarray(x, dtype=np.float64)


def _numpy(x: Any) -> np.ndarray:
    return x.cpu().numpy() if hasattr(x, "cpu") else x


def _squared_distances(a: Any, b: Any, rows: int = 1024) -> np.ndarray:
    """|a_i - b_i|^2 in float64, (m,), a few rows at a time; b may have one row for all."""
    parts = []
    for start in range(0, len(a), rows):
        here = slice(start, start + rows)
        parts.append(((_double(a[here]) - _double(b if len(b) == 1 else b[here])) ** 2).sum(1))
    return np.concatenate([_numpy(part) for part in parts])


def _spread(x: Any) -> float:
    """Root mean square distance from the origin."""
    return float(_squared_distances(x, 0 * x[:1]).mean()) ** 0.5
