"""Is a map the optimal transport between its inputs and its outputs? OTS, eqs (45) to (47).

The assignment is solved on inner products of centred points. Terms of the squared distance that
belong to a single row or a single column do not change the optimal matching, and without them
there is less to round. The functions take NumPy arrays or torch tensors, on any device, and
import neither torch nor Ray.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scoring import arrays
from scoring.arrays import double, on_cpu, precision, slices
from scoring.assignment import blas_threads, match
from scoring.cores import cores
from scoring.large import Bounds, Task, ended, match_points
from scoring.matching import TIED, Matching
from scoring.problems import Problem, assignment_problem, prefixes
from scoring.proof import Errors, Proof, margins, proved, ties
from scoring.resolution import measured, rounding, seen

FLOOR = 1e-6  # Measure suboptimality against no less than this share of the network's cost.
EXACT = 2.0**-50  # rounding of squared distances in float64
LITTLE = 1e-5  # A cycle that saves at most this share of its size is computed more precisely.
HELD = 2**30  # Keep a matrix of products while solving if it has at most this many bytes.


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
    phi + psi is a lower bound on the cost of any matching. The proof is for the centred points in
    the precision in which they are stored, and holds within the rounding of one sum in float64.
    """

    ots: float  # share of i with sigma(i) = i, in [1/m or 0, 1]; NaN if collapsed or not optimal
    permutation: np.ndarray  # (m,) int64: sigma
    own_cost: np.ndarray  # (m,) float64: |x_i - y_i|^2
    matched_cost: np.ndarray  # (m,) float64: |x_i - y_sigma(i)|^2
    network_cost: float  # mean of own_cost
    optimal_cost: float  # W2^2: mean of matched_cost; an upper bound if stopped at a tolerance
    lower_bound: float  # of W2^2: the mean of phi + psi, at least 0; optimal_cost within rounding
    gap: float  # optimal over network cost, in [0, 1]: 1 where the map is optimal; NaN if collapsed
    movement: float  # network cost without a common shift, over the spreads of x and y; 0 if still
    suboptimality: float  # certified: optimal_cost exceeds the optimum by at most this share
    ties: float  # points with another partner in some matching of the same cost, within rounding;
    # NaN if stopped at a tolerance
    phi: np.ndarray  # (m,) float64: potentials of the inputs
    psi: np.ndarray  # (m,) float64: potentials of the outputs
    prefixes: tuple[Prefix, ...]  # the first 100, 300, ... points, and all m
    m: int
    collapsed: bool
    rounds: int  # passes over all pairs
    edges: int  # pairs of points kept as candidates
    shift: float  # what a common shift of all points adds to both costs
    random_cost: float  # of a random matching, on average; NaN in problems of earlier versions


def optimal_transport_score(
    x: Any,
    y: Any,
    threads: int | None = None,
    *,
    tolerance: float = 0.0,
    potentials: tuple[Any, Any] | None = None,
    checkpoint: str | None = None,
) -> Transport:
    """Optimal-transport score (OTS) of the map x_i -> y_i, eq. (47).

    Args:
        x: inputs of a stage, array or tensor of shape (m, d); further dimensions are flattened.
        y: its outputs, of the same shape.
        threads: how many to solve with; all cores if None.
        tolerance: where the products of all pairs do not fit into 1 GiB, stop when the cost is
            proved to exceed the optimum by at most this share, from 0. ``optimal_cost`` and ``gap``
            are upper bounds then, and ``ots`` and ``ties`` NaN.
        potentials: ``(phi, psi)`` to start with, of these points in another epoch, or of the first
            of them, at most m. They change how long it takes, and at most the choice between ties.
        checkpoint: a local file. A large problem is kept in it after each pass over all pairs, and
            a solve that was killed goes on from there, with the same result. It is deleted at the
            end.

    Returns:
        The :class:`Transport`: ``ots`` = 1 when no other matching costs less, around 1/m for a
        random one. It depends on m, so compare it only at equal m. It is NaN, with
        ``collapsed`` True, where all outputs (or all inputs) are equal, since any matching is
        optimal then. Points in float32 (or less) are matched by their products in float32 where
        these are precise enough, all others in float64. ``suboptimality`` is for the centred
        points as they are stored, in float32 or float64, and includes what rounding of their
        products can add. Where several matchings cost the same, ``ties`` counts the points that
        they match differently. Cycles that save nothing are undone, but another optimal matching
        may still have a larger OTS.

    Raises:
        ValueError: the shapes differ, there are fewer than two points, a value is not finite, the
            tolerance is negative, or the checkpoint is of other points or damaged.

    >>> x = np.array([[0.0], [1.0], [5.0]])
    >>> optimal_transport_score(x, 2 * x).ots, optimal_transport_score(x, -x).ots
    (1.0, 0.3333333333333333)
    """
    options = {"tolerance": tolerance, "potentials": potentials, "checkpoint": checkpoint}
    return solve(assignment_problem(x, y), threads, **options)


def solve(problem: Problem, threads: int | None = None, **options: Any) -> Transport:
    """The optimal matching of eq. (46), its proof, and OTS, for all points and for prefixes.

    Options are those of :func:`optimal_transport_score`, as :func:`solving` takes them.
    """
    return ended(solving(problem, threads, **options))


def solving(
    problem: Problem,
    threads: int | None = None,
    *,
    tolerance: float = 0.0,
    potentials: tuple[Any, Any] | None = None,
    checkpoint: str | None = None,
) -> Generator[Bounds, None, Transport]:
    """Like :func:`solve`, but yields bounds on the optimal cost while it runs.

    :mod:`scoring.assignment` describes the method. If the problem holds points, their products
    are computed once and kept if they take at most 1 GiB. :mod:`scoring.large` solves larger ones
    from the points, exactly for their products in float64. Only that module yields bounds.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance: {tolerance}; should be at least 0")
    own, columns, closeness = problem[:3]
    shift, collapsed, unit = float(problem.shift), bool(problem.collapsed[-1]), float(problem.unit)
    m, scale = len(own), float(problem.scale)
    problem = _with_products(problem, threads)
    sizes = prefixes(m)
    diagonal = _products(problem, np.arange(m))
    constants = own - columns + 2 * unit * diagonal  # the part of |x_i - y_j|^2 of row i only
    start = -closeness / (2 * unit)
    known = _known(potentials, (constants, columns), scale, unit)
    errors = _errors(problem)
    needed = margins(errors[0])
    if problem.inner is None:
        x, y = (np.ascontiguousarray(on_cpu(p)) for p in (problem.x, problem.y))
        extra, floor = own / (2 * unit) + diagonal, FLOOR * float(own.sum()) / (2 * unit)
        task = Task(extra, floor, tolerance, known, checkpoint)
        matchings = yield from _in_units(
            match_points(x, y, sizes, start, task, threads, needed), 2 * unit / scale / scale
        )
    else:
        inner = problem.inner
        matchings = match(
            lambda here, stop, n: inner[here:stop], sizes, start, threads, known, needed
        )
    scores = []
    for n, matching, lost in zip(sizes, matchings, problem.collapsed, strict=True):
        sigma, saved, mean = _own_where_equal(problem, matching.permutation, diagonal[:n])
        proof = _proof(problem, matching, sigma, saved / (2 * unit) + diagonal[:n], errors)
        network_cost = float(own[:n].mean())
        optimal_cost = max(network_cost - mean, 0.0)
        ots = float((sigma == np.arange(n)).mean())
        gap = optimal_cost / network_cost if network_cost > 0 else 1.0
        excess = min(2 * unit * float(proof.slack.mean()), optimal_cost)
        scores.append(
            Prefix(
                n,
                float("nan") if lost else ots,
                float("nan") if lost else gap,
                excess / max(optimal_cost, FLOOR * network_cost) if excess > 0 else 0.0,
            )
        )
    last = matchings[-1]
    phi, psi = 2 * unit * proof.u + constants, 2 * unit * proof.v + columns
    lower = min(max(float((phi + psi).mean()), 0.0), optimal_cost)

    def in_units(costs: Any) -> Any:
        """Squared distances of the points as they were given; inf where that overflows."""
        with np.errstate(over="ignore"):
            return np.float64(1) * costs / scale / scale

    return Transport(
        ots=scores[-1].ots if last.exact else float("nan"),
        permutation=sigma,
        own_cost=in_units(own),
        matched_cost=in_units(np.maximum(own + columns[sigma] - columns - saved, 0.0)),
        network_cost=float(in_units(network_cost)),
        optimal_cost=float(in_units(optimal_cost)),
        lower_bound=float(in_units(lower)),
        gap=scores[-1].gap,
        movement=_movement(network_cost - shift, float(closeness.mean()), collapsed),
        suboptimality=scores[-1].suboptimality,
        ties=ties(last) if last.exact else float("nan"),
        phi=in_units(phi),
        psi=in_units(psi),
        prefixes=(
            *scores[:-1],
            scores[-1] if last.exact else scores[-1]._replace(ots=float("nan")),
        ),
        m=m,
        collapsed=collapsed,
        rounds=last.rounds,
        edges=len(last.edges.cost),
        shift=float(in_units(shift)),
        random_cost=float(in_units(float(problem.random_cost))),
    )


def _known(
    potentials: tuple[Any, Any] | None,
    parts: tuple[np.ndarray, np.ndarray],
    scale: float,
    unit: float,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Convert given potentials to those of products of the centred and scaled points.

    Products are at most 1, so optimal potentials lie within 2 of each other. Others are clipped
    to this range, because rounding of huge ones would spoil the proof.
    """
    if potentials is None:
        return None
    found = []
    for given, part in zip(potentials, parts, strict=True):
        values = np.asarray(given, np.float64)
        if values.ndim != 1 or not 0 < len(values) <= len(part) or np.isnan(values).any():
            raise ValueError(
                f"potentials of shape {values.shape}; should be phi and psi of the first points, at"
                f" most {len(part)}, and not NaN"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            products = (values * scale * scale - part[: len(values)]) / (2 * unit)
            products = np.nan_to_num(products, posinf=1e300, neginf=-1e300)
            found.append(np.clip(products - np.median(products), -2, 2))
    if len(found[0]) != len(found[1]):
        raise ValueError(f"potentials of {len(found[0])} and {len(found[1])} points")
    return found[0], found[1]


def _in_units(steps: Generator[Bounds, None, Any], unit: float) -> Generator[Bounds, None, Any]:
    """Convert bounds to mean squared distances, and yield the best ones so far."""
    m, upper, lower = 0, math.inf, 0.0
    while True:
        try:
            bounds = next(steps)
        except StopIteration as end:
            return end.value
        if bounds.m != m:
            m, upper, lower = bounds.m, math.inf, 0.0
        upper, lower = min(upper, unit * bounds.upper), max(lower, unit * bounds.lower)
        share = max(upper - lower, 0.0) / upper if upper > 0 else 0.0
        share = min(share, bounds.suboptimality) if bounds.rounds else math.inf
        yield bounds._replace(upper=upper, lower=lower, suboptimality=share)


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
    return np.full_like(shares, np.nan) if np.isnan(transport.ots) else shares


def _movement(cost: float, spreads: float, collapsed: bool) -> float:
    """How far points move relative to each other, as a share of the product of the spreads."""
    return float("nan") if collapsed else max(cost, 0.0) / spreads


def _with_products(problem: Problem, threads: int | None) -> Problem:
    """The problem with its matrix of products in memory, if that is small enough."""
    inner, x, y = problem.inner, problem.x, problem.y
    if inner is None and len(x) ** 2 * x.itemsize > HELD:
        return problem
    with blas_threads(threads or cores()):
        return problem._replace(inner=on_cpu(x @ y.T if inner is None else inner))


def _products(problem: Problem, columns: np.ndarray) -> np.ndarray:
    """inner[i, columns[i]] for the first rows i, in float64: of the points, where they are kept."""
    if problem.x is None:
        return problem.inner[np.arange(len(columns)), columns].astype(np.float64)
    return _paired(problem.x, problem.y, np.arange(len(columns)), columns)


def _own_where_equal(
    problem: Problem, sigma: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The matching without the cycles that save nothing, what each row saves, and the mean of that.

    Equal points can be exchanged at no cost, and which one a solver picks is chance. So ties go
    to a point's own output.
    """
    here = np.arange(len(sigma))
    moved = np.flatnonzero(sigma != here)
    if not len(moved):
        return sigma, np.zeros(len(sigma)), 0.0
    cycle = connected_components(coo_array((np.ones(len(sigma)), (here, sigma))))[1]
    if problem.x is None:
        savings = parts = _products(problem, sigma) - own
        sizes, kind = np.abs(own), problem.inner
    else:
        x, y, kind = problem.x, problem.y, problem.x
        savings = np.zeros(len(sigma))
        savings[moved] = _paired(x, y, moved, sigma[moved]) - own[moved]
        lengths = [on_cpu((p[: len(sigma)] ** 2).sum(1)) ** 0.5 for p in (x, y)]
        sizes = lengths[0] * (lengths[1] + lengths[1][sigma])
        saved, parts = np.bincount(cycle, savings), savings.copy()
        few = moved[(saved <= LITTLE * np.bincount(cycle, sizes))[cycle[moved]]]
        if len(few):
            order = np.lexsort((np.abs(own), cycle))
            # Of each cycle, its smallest point.
            centre = order[np.searchsorted(cycle[order], cycle)]
            savings[few], parts[few], sizes[few] = _savings(x, y, few, sigma[few], centre[few])
    error = TIED * precision(kind) * np.bincount(cycle, sizes)
    undone = (np.bincount(cycle, parts) <= error)[cycle]
    sigma = np.where(undone, here, sigma)
    savings, parts = (2 * problem.unit * np.where(undone, 0.0, s) for s in (savings, parts))
    return sigma, savings, float(parts.mean())


def _savings(
    x: Any, y: Any, rows: np.ndarray, columns: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x_i (y_sigma(i) - y_i), the same for x_i - x_centre(i), and sizes for the rounding of these.

    The steps of a cycle add up to 0, so the second has the same sum over a cycle. It is precise
    however far the cycle is from the origin.
    """
    found = []
    for s in slices(x, len(rows)):
        point, before, after = double(x[rows[s]]), double(y[rows[s]]), double(y[columns[s]])
        step, apart = after - before, point - double(x[centre[s]])
        length = [on_cpu((part**2).sum(1)) ** 0.5 for part in (point, before, after, step, apart)]
        sizes = length[0] * length[3] + (length[1] + length[2]) * length[4]
        found.append((on_cpu((point * step).sum(1)), on_cpu((apart * step).sum(1)), sizes))
    savings, parts, sizes = (np.concatenate(values) for values in zip(*found, strict=True))
    return savings, parts, sizes


def _errors(problem: Problem) -> tuple[Errors, Errors]:
    """Bounds on the rounding of products, and of those that are computed again in float64.

    Both are for the centred points as they are stored. Where it matters that these are rounded,
    they are in float64: :func:`scoring.resolution.too_coarse`.
    """
    m, unit, x, y, inner = len(problem.own), problem.unit, problem.x, problem.y, problem.inner
    known = np.zeros((2, m))
    if problem.row_errors is not None:
        known = np.stack([problem.row_errors, problem.column_errors]) / (2 * float(unit))
    exact = EXACT * problem.columns / (2 * float(unit))
    finer = known
    if x is not None and x.dtype.itemsize <= 4:
        d, some = x.shape[1], seen(m)
        a, b = x[some], y[some]
        part = a @ b.T if inner is None else inner[np.ix_(some, some)]
        stored = rounding(d, 4)
        finer, known = known * (rounding(d, 8) / stored), known * (measured(part, a, b) / stored)
    return (known[0], known[1] + exact), (finer[0], finer[1] + exact)


def _proof(
    problem: Problem,
    matching: Matching,
    sigma: np.ndarray,
    products: np.ndarray,
    errors: tuple[Errors, Errors],
) -> Proof:
    """Potentials that hold for the points: rounded products are not what they are about."""
    n, spare = len(sigma), [EXACT * np.abs(part) for part in (matching.u, matching.v)]
    coarse, finer = ((r[:n] + spare[0], c[:n] + spare[1]) for r, c in errors)
    x, y = problem.x, problem.y
    if matching.double:
        return proved(matching, sigma, -products, finer, finer)
    again = None if x is None else lambda row, column: -_paired(x, y, row, column)
    return proved(matching, sigma, -products, coarse, finer, again)


def _paired(x: Any, y: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Products of pairs of points in float64."""
    found = [np.empty(0)]
    for s in slices(x, len(rows)):
        a, b = double(x[rows[s]]), double(y[columns[s]])
        is_tensor = arrays.is_tensor(a)
        found.append(on_cpu((a * b).sum(1)) if is_tensor else np.einsum("ij,ij->i", a, b))
    return np.concatenate(found)
