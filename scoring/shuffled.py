"""A baseline for OTS: the same displacements, shuffled between the points.

In high dimension, moving every point by a displacement that belongs to another point is often an
optimal map, too. An OTS that is not above the OTS of this map says nothing about learning.
"""

import math
from typing import Any

import numpy as np

from scoring.arrays import on_cpu
from scoring.problems import Problem, assignment_problem
from scoring.transport import solve

ADDED = 1.5  # Adding up three products rounds again, by less than their own rounding.


def shuffled_score(x: Any, y: Any, order: np.ndarray, threads: int | None = None) -> float:
    """OTS of the map x_i -> x_i + v_order(i), where v_i = y_i - x_i.

    Args:
        x: inputs of a stage, array or tensor of shape (m, d); further dimensions are flattened.
        y: its outputs, of the same shape.
        order: a permutation (m,) of the points, int64.
        threads: how many to solve with; all cores if None.

    Returns:
        A share in [0, 1], as :func:`scoring.transport.optimal_transport_score` gives it.

    Raises:
        ValueError: the shapes differ, there are fewer than two points, or a value is not finite.

    >>> shuffled_score(np.array([[0.0], [1.0], [9.0]]), np.array([[4.0], [1.0], [9.0]]), [1, 0, 2])
    1.0
    """
    problem = shuffled(assignment_problem(x, y, baseline=True), np.asarray(order))
    assert problem is not None  # all of it was kept
    return solve(problem, threads).ots


def shuffled(problem: Problem, order: np.ndarray) -> Problem | None:
    """The assignment problem of the map x_i -> x_i + v_order(i), where v_i = y_i - x_i.

    Args:
        problem: of the map x_i -> y_i, from :func:`scoring.problems.assignment_problem` with
            ``baseline``.
        order: a permutation (m,) of the points.

    Returns:
        The problem, in the form and precision of the given one; it has no OTS where that one has
        none. None if the given problem lacks the arrays for this, as in earlier versions.
        Memory: two (m, m) matrices in addition to the given problem's, or one of (m, d).
    """
    kept = problem.gram if problem.inner is not None else problem.x
    relative = float(problem.relative)
    if kept is None or problem.along is None or math.isnan(relative):
        return None
    a, b = min(1.0, relative), min(1.0, 1 / relative)  # brings products of x and y to one unit
    unit = float(problem.unit) / b
    m, inner, x, y = len(problem.own), None, None, None
    if problem.inner is not None:
        inner = _square(problem.gram, m)
        norms = inner.diagonal().astype(np.float64)
        for start in range(0, m, 1024):
            rows = inner[start : start + 1024]
            rows *= a
            steps = on_cpu(problem.inner[start : start + 1024]) * b - rows
            rows += steps[:, order]
        own = inner.diagonal().astype(np.float64)
    else:
        x = on_cpu(problem.x)
        y = a * x + (b * on_cpu(problem.y) - a * x)[order]
        norms = np.square(x.astype(np.float64)).sum(1)
        own = np.einsum("ij,ij->i", x.astype(np.float64), y.astype(np.float64))
    norms *= float(problem.unit) * relative  # |x_i - mean x|^2
    errors = _errors(problem, norms, order)
    costs = problem.own[order]
    columns = np.maximum(costs - norms + 2 * (unit * own + problem.along), 0.0)
    spreads = float(norms.mean()), max(float(columns.mean()) - float(problem.shift), 0.0)
    return problem._replace(
        own=costs,
        columns=columns,
        rows=norms * (spreads[1] / spreads[0]) ** 0.5 if spreads[0] > 0 else norms,
        unit=unit,
        inner=inner,
        x=x,
        y=y,
        random_cost=math.nan,
        along=None,
        relative=math.nan,
        gram=None,
        row_errors=errors and errors[0],
        column_errors=errors and errors[1],
    )


def _errors(
    problem: Problem, norms: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds on the rounding of the products of the shuffled problem, each the sum of three."""
    others = float(problem.random_cost) - float(problem.shift) - float(norms.mean())
    if problem.row_errors is None or problem.column_errors is None or not others > 0:
        return None
    size = float(norms.sum())
    ratio = (others / float(norms.mean())) ** 0.5 if size > 0 else 1.0  # of the spreads of y and x
    level = float(problem.row_errors.sum()) / size / ratio if size > 0 else 0.0
    rows = 2 * level * norms + problem.row_errors
    columns = level * (norms + norms[order]) + problem.column_errors[order]
    return ADDED * rows, ADDED * columns


def _square(half: np.ndarray, m: int) -> np.ndarray:
    """A symmetric matrix (m, m) from its rows, each of which begins at the diagonal."""
    whole = np.empty((m, m), half.dtype)
    start = 0
    for i in range(m):
        whole[i, i:] = whole[i:, i] = half[start : start + m - i]
        start += m - i
    return whole
