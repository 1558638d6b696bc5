"""The assignment problem of a stage: what is kept of its points when they are to be matched.

A process that only trains leaves such problems for others to solve, so this loads neither numba nor
SciPy.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from scoring import arrays, resolution
from scoring.arrays import double, on_cpu, slices

# A cloud is a single point if its spread is at most this share of its scale; by bytes per number.
COLLAPSED = {4: 1e-6, 8: 1e-14}
PREFIXES = (100, 300, 1000, 3000, 10_000)  # OTS is also given for this many first points.
DIMENSIONS = 4096  # Add up products over this many dimensions at a time.
CURVE, INITIAL = "curve", "curve_initial"  # evaluations of the networks; names in the tables


class Problem(NamedTuple):
    """The assignment problem between m inputs x_i and outputs y_j of a stage.

    |x_i - y_j|^2 = own[i] + columns[j] - columns[i] - 2 unit (inner[i, j] - inner[i, i]), where
    inner[i, j] is the product of centred points, each scaled by a power of two so that nothing
    overflows. It keeps these products, or the points if those are smaller, in the precision of the
    points, or in float64 where float32 is too coarse for them.
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
    # Rounding changes 2 unit inner[i, j] by at most row_errors[i] + column_errors[j].
    row_errors: Any = None  # (m,) float64; earlier versions did not write them
    column_errors: Any = None

    def arrays(self) -> dict[str, np.ndarray]:
        """All fields with a value, as arrays for a file; ``Problem(**arrays)`` restores them."""
        values = self._asdict().items()
        return {name: np.asarray(on_cpu(value)) for name, value in values if value is not None}


class Place(NamedTuple):
    """Where an assignment problem of a curve of measures is."""

    evaluation: str  # CURVE: the trained network, or INITIAL: the network before training
    stage: int  # k, from 1
    block: int  # l, from 1: from x^(l-1) to x^(l); 0: the whole stage, from x^(n) back to x^(0)


def assignment_problem(x: Any, y: Any, baseline: bool = False) -> Problem:
    """The assignment problem between inputs and outputs, (m, d) each.

    With ``baseline`` it also holds what :func:`scoring.shuffled.shuffled` needs: half a matrix.

    It is computed on the device of the points and in their precision (own costs: float64). Points
    in float32 are multiplied in float64 if their neighbours are too close, relative to their size.
    The caller must turn TF32 and autocast off. It takes a few times (m, m) or (m, d) numbers, and
    keeps products or points, whichever are smaller.

    Raises:
        ValueError: as in :func:`scoring.transport.optimal_transport_score`.
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
    around = _squared_distances(x, centres[0][None]), _squared_distances(y, centres[1][None])
    sizes = [_power_below(float(distances.max()) ** 0.5) for distances in around]
    spreads = [float(distances.mean()) ** 0.5 for distances in around]
    collapsed = np.array(
        [*(_collapsed(x[:n], y[:n]) for n in prefixes(m)[:-1]), _collapsed(x, y, spreads)]
    )
    judged = x.dtype.itemsize <= 4 and not collapsed[-1]
    clouds = _Clouds((x, y), centres, around, sizes, columns, judged)
    points_are_smaller = m * (1.5 if baseline else 1.0) > 2 * d
    kept, level = _points(clouds) if points_are_smaller else _products(clouds, baseline)
    row_errors, column_errors = _errors(around, level)
    shift = _shift(x, y)
    return Problem(
        own,
        columns,
        rows=around[0] if collapsed[-1] else around[0] * spreads[1] / spreads[0],
        shift=shift,
        collapsed=collapsed,
        unit=clouds.unit,
        scale=scale,
        random_cost=float(around[0].mean() + around[1].mean()) + shift,
        along=_along(x, centres),
        relative=sizes[1] / sizes[0],
        row_errors=row_errors,
        column_errors=column_errors,
        **kept,
    )


def prefixes(m: int) -> list[int]:
    """The numbers of first points for which scores are given; the last one is m.

    >>> prefixes(350)
    [100, 300, 350]
    """
    return [*(n for n in PREFIXES if n < m), m]


class _Clouds(NamedTuple):
    """Inputs and outputs of a stage, and what brings them to one centre and size."""

    points: tuple[Any, Any]  # (m, d) each
    centres: tuple[Any, Any]  # (d,) each
    around: tuple[np.ndarray, np.ndarray]  # (m,) float64 each: squared distances from the centres
    sizes: list[float]  # powers of two that bring centred points to lengths of at most one
    columns: np.ndarray  # (m,) float64: |y_j - mean x|^2
    judged: bool  # float32 may be too coarse for them

    @property
    def unit(self) -> float:
        """The power of two that undoes the scaling of products."""
        return 1 / self.sizes[0] / self.sizes[1]

    @property
    def seen(self) -> np.ndarray:
        """The points from which rounding is judged."""
        return resolution.seen(len(self.columns))

    def centred(
        self, exact: bool = False, rows: Any = slice(None), dimensions: slice = slice(None)
    ) -> list[Any]:
        """Centred and scaled inputs and outputs, in float64 if ``exact``."""
        found = []
        for points, centre, size in zip(self.points, self.centres, self.sizes, strict=True):
            some, middle = points[rows][:, dimensions], centre[dimensions]
            if exact:
                some, middle = double(some), double(middle)
            found.append((some - middle) * size)
        return found

    def too_coarse(self, products: np.ndarray) -> bool:
        """Whether float32 is, by products of points seen with all, scaled: (3, seen, m)."""
        units = np.array([1 / self.sizes[0] ** 2, self.unit, 1 / self.sizes[1] ** 2])
        products = products * units[:, None, None]
        return resolution.too_coarse(self.points, self.around, products, self.columns)


def _points(clouds: _Clouds) -> tuple[dict[str, Any], float]:
    """The points as a problem keeps them, and a bound on the rounding of their products."""
    a, b = clouds.centred()
    if clouds.judged and clouds.too_coarse(resolution.seen_products(a, b, clouds.seen)):
        a, b = clouds.centred(exact=True)
    return {"x": a, "y": b}, resolution.rounding(a.shape[1], a.dtype.itemsize)


def _products(clouds: _Clouds, baseline: bool) -> tuple[dict[str, Any], float]:
    """Products of points as a problem keeps them, and a bound on their rounding."""
    inner, gram, judging = _multiplied(clouds, baseline)
    if clouds.judged and clouds.too_coarse(judging):
        del inner, gram
        inner, gram, _ = _multiplied(clouds, baseline, exact=True)
    if inner.dtype.itemsize <= 4:
        some = clouds.seen
        level = resolution.measured(inner[some][:, some], *clouds.centred(rows=some))
    else:
        level = resolution.rounding(clouds.points[0].shape[1], inner.dtype.itemsize)
    if not baseline:
        return {"inner": inner}, level
    half = [row[i:] for i, row in enumerate(on_cpu(gram))]
    return {"inner": inner, "gram": np.concatenate(half)}, level


def _multiplied(clouds: _Clouds, baseline: bool, exact: bool = False) -> tuple[Any, Any, Any]:
    """Products of inputs with outputs, of inputs with inputs, and those to judge float32 by."""
    inner: Any = 0
    gram: Any = 0
    judging: Any = 0
    for start in range(0, clouds.points[0].shape[1], DIMENSIONS):
        a, b = clouds.centred(exact, dimensions=slice(start, start + DIMENSIONS))
        inner += a @ b.T
        gram += a @ a.T if baseline else 0
        if clouds.judged and not exact:
            judging += resolution.seen_products(a, b, clouds.seen)
    return inner, gram, judging


def _errors(around: tuple[np.ndarray, np.ndarray], level: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds on the rounding of products by row and column; ``level`` is a share of lengths."""
    spreads = [float(distances.mean()) for distances in around]
    ratio = (spreads[1] / spreads[0]) ** 0.5 if min(spreads) > 0 else 1.0
    # 2 |x| |y| <= ratio |x|^2 + |y|^2 / ratio
    return level * ratio * around[0], level / ratio * around[1]


def _flat(x: Any) -> Any:
    """Points (m, ...) -> (m, d)."""
    return x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim else x.reshape(1, 1)


def _power_below(size: float) -> float:
    """A power of two that brings a size to at most one; it is representable in float32 as well."""
    return 2.0 ** -min(max(math.frexp(size)[1], -120), 140)


def _squared_distances(a: Any, b: Any) -> np.ndarray:
    """|a_i - b_i|^2 in float64, (m,), a few rows at a time; b may have one row for all."""
    parts = [
        on_cpu(((double(a[here]) - double(b if len(b) == 1 else b[here])) ** 2).sum(1))
        for here in slices(a, len(a))
    ]
    return np.concatenate(parts)


def _shift(x: Any, y: Any) -> float:
    """|mean of y_i - x_i|^2 in float64."""
    here = slices(x, len(x))
    total: Any = sum(on_cpu((double(y[some]) - double(x[some])).sum(0)) for some in here)
    return float(((total / len(x)) ** 2).sum())


def _along(x: Any, centres: tuple[Any, Any]) -> np.ndarray:
    """(x_i - mean x) (mean y - mean x) in float64, (m,)."""
    first, way = double(centres[0]), double(centres[1]) - double(centres[0])
    return np.concatenate([on_cpu((double(x[s]) - first) @ way) for s in slices(x, len(x))])


def _collapsed(x: Any, y: Any, around: list[float] | None = None) -> bool:
    """Whether all inputs or all outputs are one point, up to rounding in their precision.

    ``around`` has their root mean square distances from their centres, if these are known.
    """
    least = COLLAPSED[max(4, y.dtype.itemsize)]
    if around is None:
        around = [float(_squared_distances(p, p.mean(0)[None]).mean()) ** 0.5 for p in (x, y)]
    return around[0] <= least * _spread(x) or around[1] <= least * max(around[0], _spread(y))


def _spread(x: Any) -> float:
    """Root mean square distance from the origin."""
    return float(_squared_distances(x, 0 * x[:1]).mean()) ** 0.5
