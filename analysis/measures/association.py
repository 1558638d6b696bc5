"""Rank and product-moment correlations with intervals and p values, also given strata."""

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

METHODS = ("spearman", "pearson", "kendall")
RESAMPLES = 2000  # of a bootstrap and of a permutation test
DRAWS = 1_000_000  # of a bootstrap, at most: above 500 pairs it has fewer resamples
BATCH = 100_000  # draws at a time: they stay in the processor's cache
PERMUTED = 50  # pairs above which Kendall's p comes from a normal distribution


def association(
    x: np.ndarray,
    y: np.ndarray,
    strata: np.ndarray | None = None,
    method: str = "spearman",
    resamples: int = RESAMPLES,
    held: np.ndarray | None = None,
) -> dict[str, float]:
    """Correlation of two columns, or their partial correlation given strata or a third column.

    Given strata, differences between them count for nothing. Spearman's takes the mean of each
    stratum off the ranks, which are over all pairs; Pearson's takes it off the numbers;
    Kendall's is tau-b over the couples of pairs that lie in one stratum: concordant minus
    discordant, over the geometric mean of those not tied in x and of those not tied in y.

    With a third column z held fixed it is (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2)), by
    the same method: for Pearson's and Spearman's the correlation of what is left of x and y (of
    their ranks) by regression on z. Its p value permutes what is left of x, and takes z out anew
    (Freedman and Lane 1983, J. Bus. Econ. Stat. 1, 292). Kendall's has none then. Resamples in
    which z leaves nothing of x or y count as -1 below and as 1 above: with few pairs the interval
    is wide.

    The interval holds percentiles over resampled pairs, for Pearson's expanded ones (Hesterberg
    2015, arXiv:1411.5279). Of 1000 bivariate normal samples for each n from 9 to 40 and each
    correlation from 0 to 0.9, it covered the truth in 94% to 98%; Pearson's plain percentiles
    did in 89% to 94%, BCa in 91% to 95%. With n = 5 no interval is to be relied on.

    Args:
        x: numbers of shape (n,). A pair with a NaN or an infinity is left out.
        y: numbers of shape (n,).
        strata: labels of shape (n,), or None where there is one stratum.
        method: spearman, pearson or kendall (tau-b).
        resamples: of the bootstrap (fewer with more than 500 pairs) and of the permutation test.
        held: numbers of shape (n,) to hold fixed, or None.

    Returns:
        ``n`` pairs used; ``value`` in [-1, 1], NaN with n < 3, or where x or y is constant in
        every stratum; ``low`` and ``high``, its 95% interval; ``p``, two-sided: the share of
        permutations within strata that are as far from 0 (for Kendall's with n > 50, that
        distribution's normal limit). Both are NaN with n < 4. For these bounds a stratum beyond
        the first takes one off n, as does a column held fixed. The same numbers each time.

    Raises:
        ValueError: there is no such method.

    >>> found = association(np.arange(6.0), np.array([1, 2, 3, 4, 6, 5]))
    >>> round(found["value"], 3), round(found["p"], 2)
    (0.943, 0.02)
    """
    return associations(x, y, strata, (method,), resamples, held)[method]


class Pairs(NamedTuple):
    """Pairs of numbers that are all finite, in the order of their strata."""

    x: np.ndarray  # (n,)
    y: np.ndarray  # (n,)
    blocks: list[slice]  # the pairs of each stratum
    held: np.ndarray | None = None  # (n,)


Coefficients = Callable[[np.ndarray], np.ndarray]


def associations(
    x: np.ndarray,
    y: np.ndarray,
    strata: np.ndarray | None,
    methods: Sequence[str],
    resamples: int,
    held: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """:func:`association` by each of several methods, from the same resamples."""
    if unknown := set(methods) - set(METHODS):
        raise ValueError(f"method {unknown.pop()!r}; should be one of {', '.join(METHODS)}")
    pairs = _pairs(x, y, strata, held)
    n = len(pairs.x)
    free = n - max(len(pairs.blocks) - 1, 0) - (held is not None)
    found = {
        method: {"n": n, "value": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
        for method in methods
    }
    if free < 3 or not all(any(np.ptp(v[b]) for b in pairs.blocks) for v in pairs[:2]):
        return found
    coefficients = _coefficients(pairs, methods)
    values = coefficients(np.ones((n, 1)))[:, 0]
    drawn = _bootstrapped(coefficients, n, resamples) if free >= 4 else None
    for i, (method, row) in enumerate(found.items()):
        row["value"] = float(np.clip(values[i], -1, 1))
        if drawn is not None and np.isfinite(values[i]):
            tail = 0.025
            if method == "pearson":  # as wide as Student's t asks for
                tail = float(stats.norm.cdf(stats.t.ppf(tail, n - 1) * np.sqrt(n / (n - 1))))
            ends = (drawn[i], drawn[i])
            if held is not None:  # a resample in which z leaves nothing may be anything
                ends = [np.nan_to_num(drawn[i], nan=worst) for worst in (-1, 1)]
            quantiles = [np.nanquantile(ends[0], tail), np.nanquantile(ends[1], 1 - tail)]
            low, high = np.clip(quantiles, -1, 1)
            row |= {"low": float(low), "high": float(high), "p": _p_value(pairs, method, resamples)}
    return found


def _pairs(
    x: np.ndarray, y: np.ndarray, strata: np.ndarray | None, held: np.ndarray | None
) -> Pairs:
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    z = np.zeros(len(x)) if held is None else np.asarray(held, "float64")
    labels = np.zeros(len(x)) if strata is None else np.asarray(strata)
    finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    stratum = np.unique(labels[finite], return_inverse=True)[1]
    order = np.argsort(stratum, kind="stable")
    sizes = np.bincount(stratum).tolist()
    blocks = [slice(end - k, end) for k, end in zip(sizes, np.cumsum(sizes), strict=True)]
    x, y, z = (column[finite][order] for column in (x, y, z))
    return Pairs(x, y, blocks, None if held is None else z)


def _coefficients(pairs: Pairs, methods: Sequence[str]) -> Coefficients:
    """A function from resamples to their coefficients by each method.

    It takes weights of shape (n, r), how often pair i is in resample j, and gives an array of
    shape (methods, r), NaN where a resample has x or y constant in every stratum.
    """
    x, y, blocks, z = pairs
    if z is not None:
        two = [_coefficients(Pairs(*p, blocks), methods) for p in ((x, y), (x, z), (y, z))]
        return lambda w: _held_fixed(*(coefficients(w) for coefficients in two))
    sign_x, sign_y = _signs(x), _signs(y)
    agree = [sign_x[block, block] * sign_y[block, block] for block in blocks]
    a, b = (_centred(v[:, None], np.ones((len(v), 1)), blocks) for v in (x, y))
    a, b = (v / (np.sqrt(np.mean(v**2)) or 1) for v in (a, b))

    def pearson(w: np.ndarray) -> np.ndarray:
        return _product_moment(a, b, w, blocks)

    def spearman(w: np.ndarray) -> np.ndarray:
        light = w.astype("float32")  # in which sums of signs are exact
        ranks = [(sign @ light).astype("float64") for sign in (sign_x, sign_y)]
        return _product_moment(ranks[0], ranks[1], w, blocks)  # twice the rank, less a constant

    def kendall(w: np.ndarray) -> np.ndarray:
        couples, of_x, of_y = np.zeros((3, w.shape[1]))
        for block, signs in zip(blocks, agree, strict=True):
            inside = w[block]
            couples += np.einsum("ij,ij->j", inside, (signs @ inside.astype("float32")))
            of_x += _untied(x[block], inside)
            of_y += _untied(y[block], inside)
        return couples / np.sqrt(np.where(of_x * of_y > 0, of_x * of_y, np.nan))

    known = {"pearson": pearson, "spearman": spearman, "kendall": kendall}
    return lambda w: np.stack([known[method](w) for method in methods])


def _held_fixed(xy: np.ndarray, xz: np.ndarray, yz: np.ndarray) -> np.ndarray:
    """Partial correlations from plain ones; NaN where z leaves nothing of x or of y."""
    xz, yz = np.nan_to_num(xz), np.nan_to_num(yz)  # a constant takes nothing away
    left = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / np.sqrt(np.where(left > 1e-9, left, np.nan))


def _signs(x: np.ndarray) -> np.ndarray:
    """Of x_i - x_j, shape (n, n), float32."""
    return np.sign(x[:, None] - x).astype("float32")


def _untied(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Couples (both ways round) that differ in x, in each resample: (n,), (n, r) -> (r,)."""
    order = np.argsort(x)
    starts = np.flatnonzero(np.diff(x[order], prepend=np.nan) != 0)
    same = np.add.reduceat(w[order], starts, axis=0) if len(starts) < len(x) else w  # (values, r)
    return w.sum(axis=0) ** 2 - np.einsum("ij,ij->j", same, same)


def _centred(a: np.ndarray, w: np.ndarray, blocks: list[slice]) -> np.ndarray:
    """Columns less their weighted mean over each stratum: (n, r)."""
    parts = [a[b] - (w[b] * a[b]).sum(axis=0) / np.maximum(w[b].sum(axis=0), 1) for b in blocks]
    return np.concatenate(parts)


def _product_moment(a: np.ndarray, b: np.ndarray, w: np.ndarray, blocks: list[slice]) -> np.ndarray:
    """Pearson's correlation within strata, (r,); NaN where a side is constant up to rounding."""
    a, b = _centred(a, w, blocks), _centred(b, w, blocks)
    wa = w * a
    aa, ab = np.einsum("ij,ij->j", wa, a), np.einsum("ij,ij->j", wa, b)
    bb = np.einsum("ij,ij->j", w * b, b)
    varies = np.minimum(aa, bb) > 1e-24
    return np.where(varies, ab, np.nan) / np.sqrt(np.where(varies, aa * bb, 1))


def _bootstrapped(coefficients: Coefficients, n: int, resamples: int) -> np.ndarray:
    """Coefficients of resampled pairs, (methods, resamples)."""

    def statistic(drawn: np.ndarray, axis: int) -> np.ndarray:
        r = len(drawn)  # (r, n): places of pairs
        weights = np.bincount((drawn * r + np.arange(r)[:, None]).ravel(), minlength=n * r)
        return coefficients(weights.reshape(n, r).astype("float64"))

    with warnings.catch_warnings():  # of resamples that are constant: they are left out
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        return stats.bootstrap(
            (np.arange(n),),
            statistic,
            n_resamples=min(resamples, max(DRAWS // n, 100)),
            batch=max(BATCH // n, 1),
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution


def _p_value(pairs: Pairs, method: str, resamples: int) -> float:
    """Two-sided: the share of permutations within strata that are as far from 0."""
    x, y, blocks, z = pairs
    n, sizes = len(x), tuple(b.stop - b.start for b in blocks)
    if method != "pearson":
        x, y = stats.rankdata(x), stats.rankdata(y)
        z = None if z is None else stats.rankdata(z)
    if method == "kendall" and z is not None:
        return np.nan
    if method == "kendall" and n > PERMUTED:
        return _normal_p_value(Pairs(x, y, blocks))
    if method == "kendall":
        stratum = np.repeat(np.arange(len(sizes)), sizes)
        sign_y = np.triu(_signs(y)) * (stratum[:, None] == stratum)
        i, j = np.nonzero(sign_y)

        def far(order: np.ndarray, axis: int) -> np.ndarray:
            moved = np.moveaxis(x[order].astype("float32"), -1, 0)  # (n, resamples)
            return np.abs(sign_y[i, j] @ np.sign(moved[i] - moved[j]))
    else:
        columns = (x, y, np.zeros(n) if z is None else z)
        a, b, c = (_centred(v[:, None], np.ones((n, 1)), blocks)[:, 0] for v in columns)
        c = c / (np.linalg.norm(c) or 1)
        a, b = a - c * (c @ a), b - c * (c @ b)
        size = max(a @ a, 1e-300)

        def far(order: np.ndarray, axis: int) -> np.ndarray:
            moved = a[order]
            left = 1 - (moved @ c) ** 2 / size  # of a's square, with c taken out anew
            return np.abs(moved @ b) / np.sqrt(np.maximum(left, 1e-12))

    return float(
        stats.monte_carlo_test(
            np.arange(n),
            lambda size: _permutations(sizes, size[0]),
            far,
            n_resamples=resamples,
            vectorized=True,
            alternative="greater",
        ).pvalue
    )


@lru_cache(maxsize=2)  # the same for all scores of a scope
def _permutations(sizes: tuple[int, ...], resamples: int) -> np.ndarray:
    """Orders of all pairs that leave each in its stratum, (resamples, n)."""
    random = np.random.default_rng(1)
    places = np.split(np.arange(sum(sizes), dtype="int32"), np.cumsum(sizes)[:-1])
    parts = [random.permuted(np.tile(part, (resamples, 1)), axis=1) for part in places]
    return np.concatenate(parts, axis=1)


def _normal_p_value(pairs: Pairs) -> float:
    """Kendall's p value from a normal distribution with the variance of the permutations.

    The variance is that of Daniels (1944), Biometrika 33, 129, summed over strata; with one
    stratum it is the "asymptotic" one of scipy.stats.kendalltau.
    """
    total = variance = 0.0
    for b in pairs.blocks:
        n = b.stop - b.start
        signs = [_signs(v[b]).astype("float64") for v in pairs[:2]]
        untied = [(s**2).sum() for s in signs]
        rows = [(s.sum(axis=0) ** 2).sum() - u for s, u in zip(signs, untied, strict=True)]
        total += (signs[0] * signs[1]).sum()
        variance += 2 * untied[0] * untied[1] / max(n * (n - 1), 1)
        variance += 4 * rows[0] * rows[1] / max(n * (n - 1) * (n - 2), 1)
    return float(2 * stats.norm.sf(abs(total) / np.sqrt(variance))) if variance else 1.0
