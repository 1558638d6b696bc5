"""The solution of an assignment problem: potentials, candidates, and pairs that are nearly as good.

:mod:`scoring.assignment` and :mod:`scoring.large` find it, and :mod:`scoring.proof` takes it up.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

Rows = Callable[[int, int, int], np.ndarray]
"""(start, stop, m) -> inner[start:stop, :m] or more columns; C-contiguous, always the same."""

ROUNDING = 1e-13  # rounding error of a potential, as a share of the largest cost
TIED = 4  # Costs that differ by at most this many units in the last place are equal.
CLOSE = 64  # Of each row, list this many columns that are about as good as its own one.


class Edges(NamedTuple):
    """A sparse cost matrix: row i has the entries ``first[i]`` to ``first[i + 1]``."""

    first: np.ndarray  # (m + 1,) int64
    column: np.ndarray  # (edges,) int32
    cost: np.ndarray  # (edges,) in the precision of the blocks


class Matching(NamedTuple):
    """An optimal assignment of the first m rows and columns, and its proof."""

    permutation: np.ndarray  # (m,) int64: the column of each row
    u: np.ndarray  # (m,) float64: the least cost_ij - v_j of each row
    v: np.ndarray  # (m,) float64
    edges: Edges  # all candidates
    rounds: int  # passes over all pairs
    close: Edges  # pairs whose cost is about u + v, besides the matching
    others: np.ndarray  # (m,) float64: all pairs that are not close cost at least others + v
    exact: bool = True  # not stopped before the optimum was proved
    double: bool = False  # its costs were computed in float64, whatever the points are


def first_rows(matching: Matching, own: np.ndarray, m: int) -> Matching:
    """The first m rows and columns of a matching of every row with its own column."""
    first, column, cost = matching.close
    row = np.repeat(np.arange(len(first) - 1), np.diff(first))
    some = (row < m) & (column < m)
    count = np.bincount(row[some], minlength=m)
    close = Edges(np.append(0, np.cumsum(count)), column[some], cost[some])
    return matching._replace(
        permutation=matching.permutation[:m],
        u=matching.u[:m],
        v=matching.v[:m],
        edges=loops(own[:m]),
        close=close,
        others=matching.others[:m],
    )


def loops(own: np.ndarray) -> Edges:
    """The own column of each row."""
    m = len(own)
    return Edges(np.arange(m + 1), np.arange(m, dtype=np.int32), own)


def nothing(m: int) -> Edges:
    """No pairs of m rows."""
    return Edges(np.zeros(m + 1, np.int64), np.empty(0, np.int32), np.empty(0))


def tied(edges: Edges, v: np.ndarray) -> np.ndarray:
    """How far apart costs of each row are, at most, that are equal within rounding."""
    first, _, cost = edges
    size = np.maximum.reduceat(np.abs(cost), first[:-1]).astype(np.float64)
    # The products of a row may cancel, so there is some rounding of the largest ones, too.
    precise = np.finfo(np.float64).eps * size.max()
    rounding = TIED * (np.finfo(cost.dtype).eps * size + precise)
    return rounding + ROUNDING * np.abs(v).max()


class Close:
    """The columns of each row, besides its own one, with cost - v at most a bar.

    A pass over all pairs fills it: :func:`scoring.kernels.scan_close`.
    """

    def __init__(self, own: np.ndarray, bar: np.ndarray) -> None:
        m = len(own)
        self.own, self.bar, self.count = own, bar, np.zeros(m, np.int64)
        self.column, self.cost = np.empty((m, CLOSE), np.int32), np.empty((m, CLOSE))

    def listed(
        self,
        rows: Rows,
        v: np.ndarray,
        low: np.ndarray,
        equal: np.ndarray,
        parts: Iterable[tuple[int, int]],
    ) -> tuple[Edges, np.ndarray]:
        """These pairs, and how low cost - v may be for all others, (m,).

        Some rows have more than ``CLOSE`` such columns. If many have, only those are listed with
        cost - v at most ``equal``, and not all. They begin behind the own column and go around, so
        that rows with the same columns are joined in a ring.
        """
        m, others, wide = len(v), self.bar.copy(), self.count > CLOSE
        many = self.count[wide].sum() > CLOSE * m
        listed = np.arange(CLOSE) < np.where(wide, 0, self.count)[:, None]
        row, column, cost = [np.nonzero(listed)[0]], [self.column[listed]], [self.cost[listed]]
        others[wide & many] = low[wide & many]
        for start, stop in parts:
            here = start + np.flatnonzero(wide[start:stop])
            block = rows(start, stop, m) if len(here) else np.empty((0, m))
            for i in here:
                costs = -block[i - start, :m]
                found = np.flatnonzero(costs - v <= (equal if many else self.bar)[i])
                if many:
                    found = np.roll(found, -np.searchsorted(found, self.own[i]))[: CLOSE + 1]
                found = found[found != self.own[i]]
                row.append(np.full(len(found), i))
                column.append(found.astype(np.int32))
                cost.append(costs[found].astype(np.float64))
        row, column, cost = (np.concatenate(found) for found in (row, column, cost))
        order = np.argsort(row, kind="stable")
        first = np.append(0, np.cumsum(np.bincount(row, minlength=m)))
        return Edges(first, column[order], cost[order]), others
