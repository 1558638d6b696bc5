"""The compiled search for shortest augmenting paths, from all free rows of a sparse assignment."""

import numpy as np

from scoring.kernels import exact

FEW = 8  # Let fewer rows search together if at most one in this many found a column.
LONG = 4  # End a search at this many times the columns that its last find took.


@exact
def _lift(heap, place, distance, j, hole):
    """Put a column into the heap, at a hole or above it."""
    while hole > 0 and distance[heap[(hole - 1) >> 1]] > distance[j]:
        heap[hole] = heap[(hole - 1) >> 1]
        place[heap[hole]] = hole
        hole = (hole - 1) >> 1
    heap[hole], place[j] = j, hole


@exact
def _drop(heap, place, distance, size):
    """Fill the top of a heap that had one column more, and has ``size`` now."""
    last, hole = heap[size], 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and distance[heap[child + 1]] < distance[heap[child]]:
            child += 1
        if distance[heap[child]] >= distance[last]:
            break
        heap[hole] = heap[child]
        place[heap[hole]] = hole
        hole = child
    heap[hole], place[last] = last, hole


@exact
def augment(first, column, cost, v, columns, owners):
    """Match every free row along shortest paths (Dijkstra, heap); False if a row has no path.

    Free rows search together, each in a tree of its own. A search ends when half of the rows have
    reached a free column, or when no further row has reached one for long. Then the rows that
    have reached one are matched. So few searches visit many columns, and potentials change
    little. If most rows block each other, fewer search together.
    """
    m = len(v)
    distance, before = np.full(m, np.inf), np.empty(m, np.int64)
    place = np.full(m, -1)  # in the heap; -1 not seen, -2 reached
    heap, seen, reached = np.empty(m, np.int64), np.empty(m, np.int64), np.empty(m, np.int64)
    tree, end = np.empty(m, np.int64), np.empty(m, np.int64)  # root of a column; end of a root
    free = np.flatnonzero(columns < 0)
    group = len(free)
    while len(free) > 0:
        roots = free[:group]
        size, many, done, found = 0, 0, 0, 0
        cut, source, last = 0.0, 0, 0  # distance of the last free column; columns reached before it
        while 2 * found < len(roots):
            if source < len(roots):  # roots come first, at distance 0
                i = root = roots[source]
                source += 1
                end[root] = -1
                shift = np.inf
                for e in range(first[i], first[i + 1]):
                    shift = min(shift, cost[e] - v[column[e]])
            else:
                if size == 0 or (found > 0 and done > LONG * (last + len(roots))):
                    break
                j = heap[0]
                least = distance[j]
                size -= 1
                if size > 0:
                    _drop(heap, place, distance, size)
                place[j] = -2
                reached[done] = j
                done += 1
                i, root = owners[j], tree[j]
                if i < 0:
                    if end[root] < 0:
                        end[root], cut, last = j, least, done
                        found += 1
                    continue
                shift = 0.0
                for e in range(first[i], first[i + 1]):
                    if column[e] == j:
                        shift = cost[e] - v[j] - least
                        break
            for e in range(first[i], first[i + 1]):
                j = column[e]
                value = cost[e] - v[j] - shift
                if place[j] == -2 or value >= distance[j]:
                    continue
                hole = place[j]
                if hole == -1:
                    seen[many] = j
                    many += 1
                    hole = size
                    size += 1
                distance[j], before[j], tree[j] = value, i, root
                _lift(heap, place, distance, j, hole)
        if found == 0:
            return False
        for q in range(done):
            v[reached[q]] += min(0.0, distance[reached[q]] - cut)
        for root in roots:
            j = end[root]
            while j >= 0:
                i = before[j]
                owners[j] = i
                columns[i], j = j, columns[i]
        for q in range(many):
            distance[seen[q]], place[seen[q]] = np.inf, -1
        group = 2 * len(roots) if FEW * found > len(roots) else max(1, len(roots) // 4)
        free = free[columns[free] < 0]
    return True
