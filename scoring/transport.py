"""Is a map the optimal transport between its inputs and its outputs? OTS, eqs (45) to (47).

The assignment is solved on inner products of centred points. Terms of the squared distance that
belong to a single row or a single column do not change the optimal matching, and without them
there is less to round. The functions take NumPy arrays or torch tensors, on any device, and
import neither torch nor Ray.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from scoring import arrays
from scoring.assignment import ROUNDING, TIED, Matching, Rows, match

# A cloud is a single point if its spread is at most this share of its scale; by bytes of a number.
COLLAPSED = {4: 1e-6, 8: 1e-14}
FLOOR = 1e-6  # Below this share of the spread, W2^2 is too small to measure suboptimality against.
PREFIXES = (100, 300, 1000, 3000, 10_000)  # OTS is also given for so many first points.
HELD = 2**30  # Keep a matrix of products while solving if it has at most this many bytes.
DIMENSIONS = 4096  # Add up products over this many dimensions at a time.


class Problem(NamedTuple):
    """The assignment problem between m inputs x_i and outputs y_j of a stage.

    |x_i - y_j|^2 = own[i] + columns[j] - columns[i] - 2 unit (inner[i, j] - inner[i, i]), where
    inner[i, j] is the product of centred points, each scaled by a power of two so that nothing
    overflows. It keeps these products, or the points if those are smaller.
    """

    own: np.ndarray  # (m,) float64: |x_i - y_i|^2
    columns: np.ndarray  # (m,) float64: |y_j - mean x|^2
    rows: np.ndarray  # (m,) float64: |x_i - mean x|^2 / s, where s is spread of x / spread of y
    shift: float  # |mean y - mean x|^2: what a common shift of all points costs
    collapsed: Any  # (prefixes,) bool: inputs or outputs are all equal within rounding
    unit: float  # the power of two that undoes the scaling of products
    inner: Any = None  # (m, m)
    x: Any = None  # centred and scaled points (m, d), if the products are not kept
    y: Any = None
    scale: float = 1.0  # the points were multiplied by this power of two before all else
    # Only for scoring.shuffled; earlier versions did not write them.
    random_cost: float = math.nan  # mean of |x_i - y_j|^2 over all i and j
    along: Any = None  # (m,) float64: product of x_i - mean x with mean y - mean x
    relative: float = math.nan  # the scale of y over that of x, a power of two
    gram: Any = None  # products of centred and scaled x with itself: row i from column i on

    def arrays(self) -> dict[str, np.ndarray]:
        """All fields with a value, as arrays for a file; ``Problem(**arrays)`` restores them."""
        values = self._asdict().items()
        return {name: np.asarray(_numpy(value)) for name, value in values if value is not None}


class Prefix(NamedTuple):
    """The scores of the first m points alone, since OTS depends on m."""

    m: int
    ots: float
    gap: float
    suboptimality: float


@dataclass(frozen=True)
class Transport:
    """A solved assignment; costs are squared distances in the units of the points.

    The potentials prove it: phi_i + psi_j <= |x_i - y_j|^2 for all i and j, so the mean of
    phi + psi is a lower bound on the cost of any matching.
    """

    ots: float  # share of i with sigma(i) = i, in [1/m or 0, 1]; NaN if collapsed
    permutation: np.ndarray  # (m,) int64: sigma
    own_cost: np.ndarray  # (m,) float64: |x_i - y_i|^2
    matched_cost: np.ndarray  # (m,) float64: |x_i - y_sigma(i)|^2
    network_cost: float  # mean of own_cost
    optimal_cost: float  # W2^2: mean of matched_cost
    gap: float  # optimal over network cost, in [0, 1]: 1 where the map is optimal; NaN if collapsed
    movement: float  # network cost without a common shift, over the spreads of x and y; 0 if still
    suboptimality: float  # certified: optimal_cost exceeds the optimum by at most this share
    ties: int  # points with another partner in some matching of the same cost, within rounding
    phi: np.ndarray  # (m,) float64: potentials of the inputs
    psi: np.ndarray  # (m,) float64: potentials of the outputs
    prefixes: tuple[Prefix, ...]  # the first 100, 300, ... points, and all m
    m: int
    collapsed: bool
    rounds: int  # passes over all pairs
    edges: int  # pairs of points kept as candidates
    shift: float  # what a common shift of all points adds to both costs
    random_cost: float  # of a random matching, on average; NaN in problems of earlier versions


def optimal_transport_score(x: Any, y: Any, threads: int | None = None) -> Transport:
    """Optimal-transport score (OTS) of the map x_i -> y_i, eq. (47).

    Args:
        x: inputs of a stage, array or tensor of shape (m, d); further dimensions are flattened.
        y: its outputs, of the same shape.
        threads: how many to solve with; all cores if None.

    Returns:
        The :class:`Transport`: ``ots`` = 1 when no other matching costs less, around 1/m for a
        random one. It depends on m, so compare it only at equal m. It is NaN, with
        ``collapsed`` True, where all outputs (or all inputs) are equal, since any matching is
        optimal then. Points in float32 (or less) are matched by their products in float32,
        others in float64; ``suboptimality`` is measured on those products. Where several
        matchings cost the same, ``ties`` counts the points that they match differently. Cycles
        that save nothing are undone, but another optimal matching may still have a larger OTS.

    Raises:
        ValueError: the shapes differ, there are fewer than two points, or a value is not finite.

    >>> x = np.array([[0.0], [1.0], [5.0]])
    >>> optimal_transport_score(x, 2 * x).ots, optimal_transport_score(x, -x).ots
    (1.0, 0.3333333333333333)
    """
    return solve(assignment_problem(x, y), threads)


def assignment_problem(x: Any, y: Any, baseline: bool = False) -> Problem:
    """The assignment problem between inputs and outputs, (m, d) each.

    With ``baseline`` it holds all that :func:`scoring.shuffled.shuffled` takes: half a matrix more.

    It is computed on the device of the points and in their precision (own costs: float64). The
    caller must turn TF32 and autocast off. It takes a few times (m, m) or (m, d) numbers, and keeps
    products or points, whichever are smaller. ValueError like :func:`optimal_transport_score`.
    """
    x, y = arrays.together(arrays.floats(x), arrays.floats(y))
    x, y = _flat(x), _flat(y)
    if tuple(x.shape) != tuple(y.shape) or len(x) < 2:
        raise ValueError(
            f"inputs {tuple(x.shape)} and outputs {tuple(y.shape)}; should be (m, d) both, m >= 2"
        )
    scale = arrays.safe_scale(x, y)
    if scale != 1:
        x, y = x * scale, y * scale
    own = _squared_distances(y, x)
    columns = _squared_distances(y, x.mean(0)[None])
    if not (np.isfinite(own).all() and np.isfinite(columns).all()):
        raise ValueError("a state holds values that are not finite")
    m, d = x.shape
    centres = x.mean(0), y.mean(0)
    around = [_squared_distances(p, c[None]) for p, c in zip((x, y), centres, strict=True)]
    sizes = [_power_below(float(distances.max()) ** 0.5) for distances in around]
    spreads = [float(distances.mean()) ** 0.5 for distances in around]
    collapsed = np.array([_collapsed(x[:n], y[:n]) for n in _prefixes(m)])
    rows = around[0] if collapsed[-1] else around[0] * spreads[1] / spreads[0]

    def centred(here: slice) -> tuple[Any, Any]:
        return tuple(
            (p[:, here] - c[here]) * s for p, c, s in zip((x, y), centres, sizes, strict=True)
        )

    shift = _shift(x, y)
    problem = Problem(
        *(own, columns, rows, shift, collapsed, 1 / sizes[0] / sizes[1]),
        scale=scale,
        random_cost=float(around[0].mean() + around[1].mean()) + shift,
        along=_along(x, centres),
        relative=sizes[1] / sizes[0],
    )
    if m * (1.5 if baseline else 1.0) > 2 * d:  # the points are smaller
        a, b = centred(slice(None))
        return problem._replace(x=a, y=b)
    inner: Any = 0
    gram: Any = 0
    for start in range(0, d, DIMENSIONS):
        a, b = centred(slice(start, start + DIMENSIONS))
        inner += a @ b.T
        gram += a @ a.T if baseline else 0
    half = [row[i:] for i, row in enumerate(_numpy(gram))] if baseline else []
    return problem._replace(inner=inner, gram=np.concatenate(half) if half else None)


def solve(problem: Problem, threads: int | None = None) -> Transport:
    """The optimal matching of eq. (46), its proof, and OTS, for all points and for prefixes.

    :mod:`scoring.assignment` describes the method. If the problem holds points, their products
    are computed once and kept if they take at most 1 GiB, otherwise each time they are needed.
    """
    own, columns, closeness = problem[:3]
    shift, collapsed, unit = float(problem.shift), bool(problem.collapsed[-1]), float(problem.unit)
    m = len(own)
    problem = _with_products(problem, threads)
    rows = _rows(problem)
    sizes = _prefixes(m)
    diagonal = _products(problem, np.arange(m))
    constants = own - columns + 2 * unit * diagonal  # the part of |x_i - y_j|^2 of row i alone
    matchings = match(rows, sizes, -closeness / (2 * unit), threads)
    prefixes = []
    for n, matching, lost in zip(sizes, matchings, problem.collapsed, strict=True):
        sigma, saved = _own_where_equal(problem, matching.permutation, diagonal[:n])
        network_cost = float(own[:n].mean())
        optimal_cost = max(network_cost - float(saved.mean()), 0.0)
        ots = float((sigma == np.arange(n)).mean())
        gap = optimal_cost / network_cost if network_cost > 0 else 1.0
        prefixes.append(
            Prefix(
                n,
                float("nan") if lost else ots,
                float("nan") if lost else gap,
                _suboptimality(2 * unit * matching.slack.sum(), n * optimal_cost, columns[:n]),
            )
        )
    last = matchings[-1]
    scale = float(problem.scale)

    def in_units(costs: Any) -> Any:
        """Squared distances of the points as they were given; inf where that overflows."""
        with np.errstate(over="ignore"):
            return np.float64(1) * costs / scale / scale

    return Transport(
        ots=prefixes[-1].ots,
        permutation=sigma,
        own_cost=in_units(own),
        matched_cost=in_units(np.maximum(own + columns[sigma] - columns - saved, 0.0)),
        network_cost=float(in_units(network_cost)),
        optimal_cost=float(in_units(optimal_cost)),
        gap=prefixes[-1].gap,
        movement=_movement(network_cost - shift, float(closeness.mean()), collapsed),
        suboptimality=prefixes[-1].suboptimality,
        ties=_ties(last),
        phi=in_units(2 * unit * last.u + constants),
        psi=in_units(2 * unit * last.v + columns),
        prefixes=tuple(prefixes),
        m=m,
        collapsed=collapsed,
        rounds=last.rounds,
        edges=len(last.edges.cost),
        shift=float(in_units(shift)),
        random_cost=float(in_units(float(problem.random_cost))),
    )


def class_scores(transport: Transport, labels: Any) -> np.ndarray:
    """OTS of each class: share of its points with sigma(i) = i, (classes,).

    Args:
        transport: the solved assignment of m points.
        labels: their classes (m,), from 0; array, tensor or list.

    Returns:
        Float64, one value for each class up to the highest label. NaN for a class without
        points, and for all classes where the points are collapsed.
    """
    classes = arrays.labels(labels)
    kept = (transport.permutation == np.arange(transport.m)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        shares = np.bincount(classes, kept) / np.bincount(classes)
    return np.full_like(shares, np.nan) if transport.collapsed else shares


def _movement(cost: float, spreads: float, collapsed: bool) -> float:
    """How far points move relative to each other, as a share of the product of the spreads."""
    return float("nan") if collapsed else max(cost, 0.0) / spreads


def _suboptimality(slack: float, cost: float, columns: np.ndarray) -> float:
    """Slack as a share of the optimal cost, or of a millionth of the spread if that is larger."""
    return slack / max(cost, FLOOR * float(columns.sum())) if slack > 0 else 0.0


def _with_products(problem: Problem, threads: int | None) -> Problem:
    """The problem with its matrix of products in memory, if that is small enough."""
    inner, x, y = problem.inner, problem.x, problem.y
    if inner is None and len(x) ** 2 * x.itemsize > HELD:
        return problem
    with threadpool_limits(threads or os.cpu_count(), "blas"):
        return problem._replace(inner=_numpy(x @ y.T if inner is None else inner))


def _rows(problem: Problem) -> Rows:
    inner, x, y = problem.inner, problem.x, problem.y
    if inner is not None:
        return lambda start, stop, m: inner[start:stop]
    return lambda start, stop, m: _numpy(x[start:stop] @ y[:m].T)


def _products(problem: Problem, columns: np.ndarray) -> np.ndarray:
    """inner[i, columns[i]] for the first rows i, in float64."""
    if problem.inner is not None:
        return problem.inner[np.arange(len(columns)), columns].astype(np.float64)
    x, y = problem.x, problem.y
    some = _slices(x, len(columns))
    return np.concatenate([_numpy((_double(x[s]) * _double(y[columns[s]])).sum(1)) for s in some])


def _own_where_equal(
    problem: Problem, sigma: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The matching without the cycles that save nothing, and what each row saves.

    Equal points can be exchanged at no cost, and which one a solver picks is chance. So ties go
    to a point's own output.
    """
    here = np.arange(len(sigma))
    products = _products(problem, sigma)
    cycle = connected_components(coo_array((np.ones(len(sigma)), (here, sigma))))[1]
    saved = np.bincount(cycle, products - own)
    kind = problem.inner if problem.inner is not None else problem.x
    rounding = TIED * _precision(kind) * np.bincount(cycle, np.abs(own))
    undone = (saved <= rounding)[cycle]
    savings = 2 * problem.unit * (products - own)
    return np.where(undone, here, sigma), np.where(undone, 0.0, savings)


def _ties(matching: Matching) -> int:
    """Number of points that some other optimal matching, within rounding, matches differently.

    Tight edges, whose cost equals their potentials, lead from a row to the owner of a column. A
    cycle of tight edges can be turned at no cost, so all points of a strong component count.
    """
    first, column, cost = matching.edges
    m = len(matching.permutation)
    row = np.repeat(np.arange(m), np.diff(first))
    size = np.maximum.reduceat(np.abs(cost), first[:-1]).astype(np.float64)
    spare = cost - matching.u[row] - matching.v[column]
    rounding = TIED * np.finfo(cost.dtype).eps * size + ROUNDING * np.abs(matching.v).max()
    tight = spare <= rounding[row]
    owner = np.empty(m, dtype=np.int64)
    owner[matching.permutation] = np.arange(m)
    ends = row[tight], owner[column[tight]]
    graph = coo_array((np.ones(len(ends[0])), ends), shape=(m, m))
    component = connected_components(graph, connection="strong")[1]
    return int((np.bincount(component)[component] > 1).sum())


def _flat(x: Any) -> Any:
    """Points (m, ...) -> (m, d)."""
    return x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim else x.reshape(1, 1)


def _double(x: Any) -> Any:
    """float64 of an array, or of a tensor where it is."""
    return x.double() if hasattr(x, "double") else np.asarray(x, dtype=np.float64)


def _numpy(x: Any) -> np.ndarray:
    return x.cpu().numpy() if hasattr(x, "cpu") else x


def _precision(x: Any) -> float:
    return float(np.finfo(_numpy(x[:1]).dtype).eps)


def _power_below(size: float) -> float:
    """A power of two that brings a size to at most one; it is representable in float32 as well."""
    return 2.0 ** -min(max(math.frexp(size)[1], -120), 140)


def _squared_distances(a: Any, b: Any) -> np.ndarray:
    """|a_i - b_i|^2 in float64, (m,), a few rows at a time; b may have one row for all."""
    parts = [
        _numpy(((_double(a[here]) - _double(b if len(b) == 1 else b[here])) ** 2).sum(1))
        for here in _slices(a, len(a))
    ]
    return np.concatenate(parts)


def _shift(x: Any, y: Any) -> float:
    """|mean of y_i - x_i|^2 in float64."""
    here = _slices(x, len(x))
    total: Any = sum(_numpy((_double(y[some]) - _double(x[some])).sum(0)) for some in here)
    return float(((total / len(x)) ** 2).sum())


def _along(x: Any, centres: tuple[Any, Any]) -> np.ndarray:
    """(x_i - mean x) (mean y - mean x) in float64, (m,)."""
    first, way = _double(centres[0]), _double(centres[1]) - _double(centres[0])
    return np.concatenate([_numpy((_double(x[s]) - first) @ way) for s in _slices(x, len(x))])


def _prefixes(m: int) -> list[int]:
    return [*(n for n in PREFIXES if n < m), m]


def _collapsed(x: Any, y: Any) -> bool:
    """Whether all inputs or all outputs are one point, up to rounding in their precision."""
    least = COLLAPSED[max(4, y.dtype.itemsize)]
    around = [float(_squared_distances(p, p.mean(0)[None]).mean()) ** 0.5 for p in (x, y)]
    return around[0] <= least * _spread(x) or around[1] <= least * max(around[0], _spread(y))


def _spread(x: Any) -> float:
    """Root mean square distance from the origin."""
    return float(_squared_distances(x, 0 * x[:1]).mean()) ** 0.5


def _slices(x: Any, count: int) -> Iterator[slice]:
    """Some rows at a time: on a CPU so few that float64 copies of them stay in its cache."""
    rows = 1024 if getattr(x, "is_cuda", False) else max(1, 2**18 // max(1, x.shape[1]))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))
