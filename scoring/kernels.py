"""The compiled loops of :mod:`scoring.assignment`, over blocks of a matrix and over edges.

They release the GIL. They are compiled once: :func:`scoring.assignment.compile_kernels`. Heaps
are max-heaps, with the worst kept value at index 0. Edges are sparse rows: row i has the entries
``first[i]`` to ``first[i + 1]`` of ``column`` and ``cost``, its own column first. ``columns`` holds
the column of each row and ``owners`` the row of each column, -1 for none.
"""

import numpy as np
from numba import njit

scan = njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})  # minima in vector registers
exact = njit(nogil=True, cache=True)


@exact
def _replace_worst(values, places, value, place):
    hole, count = 0, len(values)
    while True:
        child = 2 * hole + 1
        if child >= count:
            break
        if child + 1 < count and values[child + 1] > values[child]:
            child += 1
        if values[child] <= value:
            break
        values[hole], places[hole] = values[child], places[child]
        hole = child
    values[hole], places[hole] = value, place


@scan
def _least_of_parts(row, v, least):
    """The least cost - v of every 64 columns."""
    m = len(v)
    for part in range(len(least)):
        here = np.inf
        for j in range(64 * part, min(64 * part + 64, m)):
            here = min(here, -row[j] - v[j])
        least[part] = here


@scan
def _keep_smallest(row, v, least, values, places):
    m = len(v)
    for part in range(len(least)):
        if least[part] < values[0]:
            for j in range(64 * part, min(64 * part + 64, m)):
                value = -row[j] - v[j]
                if value < values[0]:
                    _replace_worst(values, places, value, j)


@scan
def scan_rows(block, v, best, place, low):
    """Keep the smallest cost - v of each row of a block, and the very smallest in ``low``.

    It first takes the least of every 64 columns. At least k values of the row are no larger than
    the k-th least of these, so few columns need a second look.
    """
    k, parts = best.shape[1], (len(v) + 63) // 64
    least = np.empty(parts)
    for i in range(len(block)):
        values = best[i]
        _least_of_parts(block[i], v, least)
        low[i] = least.min()
        if values[0] == np.inf and parts >= k:
            values[:] = np.nextafter(np.partition(least, k - 1)[k - 1], np.inf)
        _keep_smallest(block[i], v, least, values, place[i])


@scan
def scan_close(block, v, best, place, low, own, bar, count, close, cost):
    """As :func:`scan_rows`, and find the columns with cost - v at most the ``bar`` of a row.

    It counts all but a row's own column, and lists as many of them as fit.
    """
    m = len(v)
    parts = (m + 63) // 64
    least = np.empty(parts)
    for i in range(len(block)):
        row = block[i]
        _least_of_parts(row, v, least)
        low[i] = least.min()
        _keep_smallest(row, v, least, best[i], place[i])
        n = 0
        for part in range(parts):
            if least[part] <= bar[i]:
                for j in range(64 * part, min(64 * part + 64, m)):
                    if -row[j] - v[j] <= bar[i] and j != own[i]:
                        if n < close.shape[1]:
                            close[i, n], cost[i, n] = j, -row[j]
                        n += 1
        count[i] = n


@scan
def scan_columns(block, u, first, bar, best, place):
    """Keep the smallest cost - u of each column; ``bar`` is the worst value kept in each."""
    m = len(bar)
    for i in range(len(block)):
        row, potential = block[i], u[i]
        for start in range(0, m, 64):
            stop = min(start + 64, m)
            least = np.inf
            for j in range(start, stop):
                least = min(least, -row[j] - potential - bar[j])
            if least < 0:
                for j in range(start, stop):
                    value = -row[j] - potential
                    if value < bar[j]:
                        _replace_worst(best[j], place[j], value, first + i)
                        bar[j] = best[j, 0]


@scan
def scan_others(block, first, u, low, own):
    """The least cost - u of each column over the other rows, and the value of its own row."""
    m = len(low)
    for i in range(len(block)):
        row, potential, here = block[i], u[i], first + i
        for j in range(here):
            low[j] = min(low[j], -row[j] - potential)
        own[here] = -row[here] - potential
        for j in range(here + 1, m):
            low[j] = min(low[j], -row[j] - potential)


@scan
def scan_minimum(block, u, low):
    """The least cost - u of each column over all rows."""
    for i in range(len(block)):
        row, potential = block[i], u[i]
        for j in range(len(low)):
            low[j] = min(low[j], -row[j] - potential)


@exact
def collected(best, place, v, best_rows, place_rows, u, own):
    """Merge the edges of rows, of columns and of the diagonal, without duplicates."""
    m, k = place.shape
    count = np.zeros(m + 1, np.int64)
    for j in range(m):
        for q in range(k):
            if place_rows[j, q] >= 0:
                count[place_rows[j, q] + 1] += 1
    fill = np.cumsum(count)
    from_columns = np.empty(fill[m], np.int32)
    costs = np.empty(fill[m], np.float64)
    for j in range(m):
        for q in range(k):
            i = place_rows[j, q]
            if i >= 0:
                from_columns[fill[i]] = j
                costs[fill[i]] = best_rows[j, q] + u[i]
                fill[i] += 1
    first = np.zeros(m + 1, np.int64)
    column = np.empty(m * (k + 1) + len(from_columns), np.int32)
    cost = np.empty(len(column), own.dtype)
    seen = np.full(m, -1)
    n = 0
    for i in range(m):
        column[n], cost[n] = i, own[i]
        seen[i] = i
        n += 1
        for q in range(k):
            j = place[i, q]
            if j >= 0 and seen[j] != i:
                column[n], cost[n] = j, best[i, q] + v[j]
                seen[j] = i
                n += 1
        start = fill[i - 1] if i > 0 else 0
        for e in range(start, fill[i]):
            j = from_columns[e]
            if seen[j] != i:
                column[n], cost[n] = j, costs[e]
                seen[j] = i
                n += 1
        first[i + 1] = n
    return first, column[:n].copy(), cost[:n].copy()


@exact
def added(first, column, cost, found, costs):
    """Add the new edges that a pass found."""
    m, k = found.shape
    new = np.zeros((m, k), np.bool_)
    begin = np.zeros(m + 1, np.int64)
    for i in range(m):
        more = 0
        for q in range(k):
            if found[i, q] < 0:
                break
            new[i, q] = True
            for e in range(first[i], first[i + 1]):
                if column[e] == found[i, q]:
                    new[i, q] = False
                    break
            more += new[i, q]
        begin[i + 1] = begin[i] + first[i + 1] - first[i] + more
    columns, prices = np.empty(begin[m], np.int32), np.empty(begin[m], cost.dtype)
    for i in range(m):
        n = begin[i]
        for e in range(first[i], first[i + 1]):
            columns[n], prices[n] = column[e], cost[e]
            n += 1
        for q in range(k):
            if new[i, q]:
                columns[n], prices[n] = found[i, q], costs[i, q]
                n += 1
    return begin, columns, prices


@exact
def joined(first, column, cost, row, other, price, most):
    """Add single pairs to the edges, at most ``most`` to each row.

    The pairs are distinct and sorted by row.
    """
    m = len(first) - 1
    begin = np.empty(m + 1, np.int64)
    columns = np.empty(len(column) + len(row), np.int32)
    prices = np.empty(len(columns), cost.dtype)
    n, k = 0, 0
    for i in range(m):
        begin[i] = n
        for e in range(first[i], first[i + 1]):
            columns[n], prices[n] = column[e], cost[e]
            n += 1
        old = n
        while k < len(row) and row[k] == i:
            known = n - old >= most
            for e in range(begin[i], old):
                known = known or columns[e] == other[k]
            if not known:
                columns[n], prices[n] = other[k], price[k]
                n += 1
            k += 1
    begin[m] = n
    return begin, columns[:n].copy(), prices[:n].copy()


@exact
def least(first, column, cost, v):
    """The least cost - v of each row."""
    u = np.full(len(v), np.inf)
    for i in range(len(v)):
        for e in range(first[i], first[i + 1]):
            u[i] = min(u[i], cost[e] - v[column[e]])
    return u


@exact
def lowered(found, costs, u, v, rounding):
    """Lower potentials of columns, so that fewer rows are in conflict with new pairs.

    A new pair that costs less than u_i + v_j needs a lower u_i or v_j. Here v_j is lowered, if
    column j has more such pairs than row i.

    Args:
        found: (m, k) columns of the new pairs, filled up with -1.
        costs: (m, k).
        u: potentials of rows.
        v: potentials of columns.
        rounding: ignore differences up to this size.
    """
    m, k = found.shape
    of_row, of_column = np.zeros(m, np.int64), np.zeros(len(v), np.int64)
    for i in range(m):
        for q in range(k):
            j = found[i, q]
            if j >= 0 and costs[i, q] < u[i] + v[j] - rounding:
                of_row[i] += 1
                of_column[j] += 1
    out = v.copy()
    for i in range(m):
        for q in range(k):
            j = found[i, q]
            is_cheaper = j >= 0 and costs[i, q] < u[i] + v[j] - rounding
            if is_cheaper and of_column[j] > of_row[i]:
                out[j] = min(out[j], costs[i, q] - u[i])
    return out


@exact
def spread_out(first, column, cost, columns, own, others, v, most):
    """Lower potentials of columns until no other column suits a row as well as its own one.

    A solver leaves most rows with a second column that suits them equally. The edges here cost a
    bit less than there, and the own column, which costs ``own``, becomes the best one again, if no
    other matching costs nearly the same. All that are no edges cost at least ``others`` + v. No
    column becomes so cheap that its row would rather have one of those, and no row is looked at
    more than ``most`` times. Returns the largest potentials of rows that fit.
    """
    m = len(columns)
    owners = np.empty(m, np.int64)
    owners[columns] = np.arange(m)
    waiting, queued, turns = np.arange(m), np.full(m, True), np.zeros(m, np.int64)
    start, count = 0, m
    while count > 0:
        i = waiting[start]
        start, count, queued[i] = (start + 1) % m, count - 1, False
        turns[i] += 1
        k = columns[i]
        bar = own[i] - v[k]
        for e in range(first[i], first[i + 1]):
            j = column[e]
            if j != k and cost[e] - v[j] < bar:
                owner = owners[j]
                lower = max(cost[e] - bar, own[owner] - others[owner])
                if lower < v[j]:
                    v[j] = lower
                    if not queued[owner] and turns[owner] < most:
                        waiting[(start + count) % m] = owner
                        count, queued[owner] = count + 1, True
    u = np.minimum(own - v[columns], others)
    for i in range(m):
        for e in range(first[i], first[i + 1]):
            if column[e] != columns[i]:
                u[i] = min(u[i], cost[e] - v[column[e]])
    return u


@exact
def matched(first, column, cost, columns):
    """The cost of each row's column."""
    out = np.empty(len(columns))
    for i in range(len(columns)):
        for e in range(first[i], first[i + 1]):
            if column[e] == columns[i]:
                out[i] = cost[e]
    return out


@exact
def _bid(first, column, cost, v, i):
    """A row's best and second best value, the best column, and the second best one."""
    one, two, best, second = np.inf, np.inf, -1, -1
    for e in range(first[i], first[i + 1]):
        value = cost[e] - v[column[e]]
        if value < two:
            if value < one:
                two, second = one, best
                one, best = value, column[e]
            else:
                two, second = value, column[e]
    return one, two, best, second


@exact
def auction(first, column, cost, v, step, limit):
    """Rows outbid each other by at least ``step`` until each has a column. Only v changes.

    Afterwards there is a matching on which each cost - v is within a step of its row's least.
    It stops after ``limit`` bids at the latest.
    """
    m = len(v)
    owner = np.full(m, -1)
    waiting, top = np.arange(m)[::-1].copy(), m
    while top > 0 and limit > 0:
        limit -= 1
        i = waiting[top - 1]
        one, two, best, _ = _bid(first, column, cost, v, i)
        v[best] -= (two - one if two < np.inf else 0.0) + step
        top -= 1
        if owner[best] >= 0:
            waiting[top] = owner[best]
            top += 1
        owner[best] = i


@exact
def take_tight(first, column, cost, v, columns, owners):
    """Match rows to free columns that are their best; their own column goes first among equals."""
    for i in range(len(v)):
        one, _, best, _ = _bid(first, column, cost, v, i)
        if cost[first[i]] - v[i] <= one:  # the diagonal comes first
            best = i
        if owners[best] < 0:
            owners[best], columns[i] = i, best


@exact
def reduce(first, column, cost, v, columns, owners, limit):
    """Augmenting row reduction: free rows take their best column, at the price of second best."""
    for _ in range(2):
        free = np.flatnonzero(columns < 0)
        for start in range(len(free)):
            i = free[start]
            while i >= 0 and limit > 0:
                limit -= 1
                one, two, best, second = _bid(first, column, cost, v, i)
                strict = one < two
                if two == np.inf:
                    two = one
                v[best] -= two - one
                if not strict and owners[best] >= 0 and second >= 0:
                    best = second
                loser = owners[best]
                owners[best], columns[i] = i, best
                if loser >= 0:
                    columns[loser] = -1
                if not strict:
                    break
                i = loser
