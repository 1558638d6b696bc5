"""A proof that a matching is optimal for the points themselves, whatever rounding did to products.

A solver works with rounded products. Where all other partners of a point cost clearly more than its
own one, rounding cannot matter. The solver lists the pairs that are closer than that. Here their
potentials are spread out, so that they cost clearly more as well. Where that is not possible, as
some other matching costs about the same, the potentials are lowered by a bound on the rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scoring import kernels
from scoring.matching import Matching, tied

TURNS = 64  # Look at a row at most this often when potentials are spread out.

Errors = tuple[np.ndarray, np.ndarray]
"""Of rows and of columns, (m,): a cost is off by at most the sum of both."""


class Proof(NamedTuple):
    """Potentials that hold for the points, and what they leave open."""

    u: np.ndarray  # (m,) of rows
    v: np.ndarray  # (m,) of columns
    slack: np.ndarray  # (m,) >= 0: cost - u - v on the matching


def margins(errors: Errors) -> np.ndarray:
    """By how much another column must be worse than a row's own one, about, (m,).

    Points near the centre have small errors. They may still have to make room for others.
    """
    needed = 2 * errors[0] + errors[1]
    return np.maximum(needed, np.median(needed))


def proved(
    matching: Matching,
    sigma: np.ndarray,
    cost: np.ndarray,
    errors: Errors,
    finer: Errors,
    costs: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Proof:
    """Potentials that hold for all pairs of points.

    Args:
        matching: of the first m rows and columns.
        sigma: the matching to prove, (m,); it may differ from the solver's in ties.
        cost: its costs (m,), as precise as they are known.
        errors: of the numbers that the solver has seen.
        finer: of what ``costs`` returns.
        costs: computes the costs of some pairs in float64, where rounding leaves some slack.
    """
    first, column, close = matching.close
    row = np.repeat(np.arange(len(sigma)), np.diff(first))
    others = matching.others - errors[0]

    def spread(close: np.ndarray, errors: Errors, v: np.ndarray) -> Proof:
        least = close - errors[0][row] - errors[1][column]
        u = kernels.spread_out(first, column, least, sigma, cost, others, v, TURNS)
        return Proof(u, v, cost - v[sigma] - u)

    proof = spread(close, errors, matching.v - errors[1])
    if costs is None or not (proof.slack > errors[0]).any():
        return proof
    return spread(costs(row, column), finer, matching.v - errors[1])


def ties(matching: Matching) -> int:
    """Number of points that some other optimal matching, within rounding, matches differently.

    Tight edges, whose cost equals their potentials, lead from a row to the owner of a column. A
    cycle of tight edges can be turned at no cost, so all points of a strong component count.
    """
    if not len(matching.close.column):
        return 0
    m, bar = len(matching.permutation), matching.u + tied(matching.edges, matching.v)
    owner = np.empty(m, dtype=np.int64)
    owner[matching.permutation] = np.arange(m)
    ends = []
    for first, column, cost in (matching.edges, matching.close):
        row = np.repeat(np.arange(m), np.diff(first))
        tight = cost - matching.v[column] <= bar[row]
        ends.append([row[tight], owner[column[tight]]])
    ends = np.concatenate(ends, axis=1)
    graph = coo_array((np.ones(len(ends[0])), tuple(ends)), shape=(m, m))
    component = connected_components(graph, connection="strong")[1]
    return int((np.bincount(component)[component] > 1).sum())
