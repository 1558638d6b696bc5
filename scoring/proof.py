"""A proof that a matching is optimal for the points themselves, whatever rounding did to products.

A solver works with rounded products. Where all other partners of a point cost clearly more than its
own one, rounding cannot matter. So a last pass over all pairs looks for those that cost less than
the potentials plus a bound on the rounding, and lowers the potentials of their rows.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scoring import kernels
from scoring.assignment import ROUNDING, TIED, Matching, Rows, blas_threads
from scoring.cores import cores

ROWS = 256  # rows of a block
TURNS = 50  # of spreading out potentials, at most
MOST = 64  # tight pairs of a row that are found


class Proof(NamedTuple):
    """Potentials that hold for the points, and what they leave open."""

    u: np.ndarray  # (m,) of rows
    v: np.ndarray  # (m,) of columns
    slack: np.ndarray  # (m,) >= 0: cost - u - v on the matching
    row: np.ndarray  # pairs besides the matching whose cost equals u + v within rounding
    column: np.ndarray


def proved(
    rows: Rows,
    matching: Matching,
    sigma: np.ndarray,
    cost: np.ndarray,
    errors: tuple[np.ndarray, np.ndarray],
    threads: int | None = None,
) -> Proof:
    """Check a matching against all pairs, in one pass.

    Args:
        rows: as for :func:`scoring.assignment.match`.
        matching: of the first m rows and columns.
        sigma: the matching to prove, (m,); it may differ from the solver's in ties.
        cost: its costs (m,), as precise as they are known.
        errors: of rows and of columns, (m,): a cost is off by at most the sum of both.
        threads: how many to use; all cores if None.
    """
    v, m = matching.v.copy(), len(sigma)
    equal = matching.u + tied(matching)
    kernels.spread_out(*matching.edges, sigma, cost, v, *errors, TURNS)
    reduced, best = v + errors[1], cost - v[sigma]
    margin = 2 * errors[0] + errors[1][sigma]
    low, lower = np.empty(m), np.empty(m)
    bar = np.maximum(equal, best + margin)

    def work(part: slice) -> tuple[np.ndarray, np.ndarray]:
        block = rows(part.start, part.stop, m)
        own, limit = sigma[part], bar[part]
        kernels.scan_rest(block, own, matching.v, reduced, limit, low[part], lower[part])
        some = np.flatnonzero(low[part] <= equal[part])
        here = part.start + some
        place = np.full((len(some), MOST), -1, np.int32)
        if len(some):
            kernels.tight(block[some], sigma[here], matching.v, equal[here], place)
        found, nth = np.nonzero(place >= 0)
        return here[found], place[found, nth]

    with blas_threads(1), ThreadPoolExecutor(threads or cores()) as pool:
        pairs = list(pool.map(work, _parts(m)))
    u = np.minimum(best, lower - margin)
    row, column = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return Proof(u, v, best - u, row, column)


def loosened(
    matching: Matching, sigma: np.ndarray, cost: np.ndarray, errors: tuple[np.ndarray, np.ndarray]
) -> Proof:
    """Lower all potentials by the bound on rounding, instead of a pass over all pairs."""
    u, v = matching.u - 2 * errors[0] - errors[1], matching.v - errors[1]
    none = np.empty(0, np.int64)
    return Proof(u, v, np.maximum(cost - u - v[sigma], 0), none, none)


def _parts(m: int) -> Iterator[slice]:
    return (slice(start, min(start + ROWS, m)) for start in range(0, m, ROWS))


def tied(matching: Matching) -> np.ndarray:
    """How far apart costs of each row are, at most, that are equal within rounding."""
    first, _, cost = matching.edges
    size = np.maximum.reduceat(np.abs(cost), first[:-1]).astype(np.float64)
    # The products of a row may cancel, so there is some rounding of the largest ones, too.
    precise = np.finfo(np.float64).eps * size.max()
    rounding = TIED * (np.finfo(cost.dtype).eps * size + precise)
    return rounding + ROUNDING * np.abs(matching.v).max()


def ties(matching: Matching, proof: Proof) -> int:
    """Number of points that some other optimal matching, within rounding, matches differently.

    Tight edges, whose cost equals their potentials, lead from a row to the owner of a column. A
    cycle of tight edges can be turned at no cost, so all points of a strong component count.
    """
    first, column, cost = matching.edges
    m = len(matching.permutation)
    row = np.repeat(np.arange(m), np.diff(first))
    tight = cost - matching.u[row] - matching.v[column] <= tied(matching)[row]
    owner = np.empty(m, dtype=np.int64)
    owner[matching.permutation] = np.arange(m)
    ends = (
        np.concatenate([row[tight], proof.row]),
        owner[np.concatenate([column[tight], proof.column])],
    )
    graph = coo_array((np.ones(len(ends[0])), ends), shape=(m, m))
    component = connected_components(graph, connection="strong")[1]
    return int((np.bincount(component)[component] > 1).sum())
