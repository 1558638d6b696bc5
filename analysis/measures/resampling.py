"""Bootstrap distributions and permutation tests of correlations."""

import warnings
from collections.abc import Callable
from functools import lru_cache
from itertools import permutations
from math import factorial

import numpy as np
from scipy import stats

from analysis.measures.coefficients import Coefficients, Pairs, centred, signs

DRAWS = 1_000_000  # With more than DRAWS / resamples pairs, a bootstrap takes fewer resamples.
BATCH = 100_000  # draws at a time, few enough to fit into the processor's cache
EXACT = 5040  # Up to this many orders of units (7 units), try all of them; above, random ones.
CHUNK = 4_000_000  # couples of pairs at a time in a test over units: 16 MB
PERMUTED = 50  # Up to this many pairs, permute for Kendall's p; above, use the normal limit.


def bootstrapped(coefficients: Coefficients, n: int, resamples: int) -> np.ndarray:
    """Compute the coefficients of resampled pairs, (methods, resamples)."""

    def statistic(drawn: np.ndarray, axis: int) -> np.ndarray:
        r = len(drawn)  # drawn: indices of pairs, (r, n)
        weights = np.bincount((drawn * r + np.arange(r)[:, None]).ravel(), minlength=n * r)
        return coefficients(weights.reshape(n, r).astype("float64"))

    with warnings.catch_warnings():  # SciPy warns of constant resamples, which are left out
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


def p_value(pairs: Pairs, method: str, resamples: int, joint: bool = False) -> float:
    """Two-sided p value: the share of permutations within strata at least as far from 0.

    If ``joint``, units are permuted, in the same way in all strata. The strata have the same units
    in the same order.
    """
    x, y, blocks, z = pairs
    n, sizes = len(x), tuple(b.stop - b.start for b in blocks)
    if method != "pearson":
        x, y = stats.rankdata(x), stats.rankdata(y)
        z = None if z is None else stats.rankdata(z)
    if method == "kendall" and z is not None:
        return np.nan
    if method == "kendall" and n > PERMUTED and not joint:
        return _normal_p_value(Pairs(x, y, blocks))
    if method == "kendall":
        stratum = np.repeat(np.arange(len(sizes)), sizes)
        sign_y = np.triu(signs(y)) * (stratum[:, None] == stratum)
        i, j = np.nonzero(sign_y)

        def far(order: np.ndarray, axis: int) -> np.ndarray:
            moved = np.moveaxis(x[order].astype("float32"), -1, 0)  # (n, resamples)
            return np.abs(sign_y[i, j] @ np.sign(moved[i] - moved[j]))
    else:
        columns = (x, y, np.zeros(n) if z is None else z)
        a, b, c = (centred(v[:, None], np.ones((n, 1)), blocks)[:, 0] for v in columns)
        c = c / (np.linalg.norm(c) or 1)
        a, b = a - c * (c @ a), b - c * (c @ b)
        size = max(a @ a, 1e-300)

        def far(order: np.ndarray, axis: int) -> np.ndarray:
            moved = a[order]
            left = 1 - (moved @ c) ** 2 / size  # share of |a|^2 that c does not explain
            return np.abs(moved @ b) / np.sqrt(np.maximum(left, 1e-12))

    if joint:
        return _joint_p_value(far, len(sizes), sizes[0], resamples)
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


def _joint_p_value(
    far: Callable[[np.ndarray, int], np.ndarray], strata: int, units: int, resamples: int
) -> float:
    """The share of orders of the units at least as far from 0, (strata x units) pairs.

    All orders if there are at most EXACT; otherwise random ones and the order as it is.
    """
    orders, exact = _orders(units, resamples)
    size = max(CHUNK // (strata * units**2), 1)
    starts = units * np.arange(strata)[:, None]
    parts = (orders[i : i + size] for i in range(0, len(orders), size))
    found = [far((part[:, None] + starts).reshape(len(part), -1), -1) for part in parts]
    reached = np.concatenate(found)
    observed = far(np.arange(strata * units)[None], -1)[0]
    as_far = reached >= observed - 1e-9 * reached.max()  # equal up to rounding counts, too
    return float(as_far.mean() if exact else (as_far.sum() + 1) / (len(as_far) + 1))


@lru_cache(maxsize=2)
def _orders(units: int, resamples: int) -> tuple[np.ndarray, bool]:
    """Orders of units, (orders, units), and whether these are all."""
    if units <= 20 and factorial(units) <= EXACT:
        return np.array([*permutations(range(units))]), True
    random = np.random.default_rng(1)
    return random.permuted(np.tile(np.arange(units), (resamples, 1)), axis=1), False


@lru_cache(maxsize=2)  # all scores of a scope use the same permutations
def _permutations(sizes: tuple[int, ...], resamples: int) -> np.ndarray:
    """Random orders of all pairs that keep each in its stratum, (resamples, n)."""
    random = np.random.default_rng(1)
    places = np.split(np.arange(sum(sizes), dtype="int32"), np.cumsum(sizes)[:-1])
    parts = [random.permuted(np.tile(part, (resamples, 1)), axis=1) for part in places]
    return np.concatenate(parts, axis=1)


def _normal_p_value(pairs: Pairs) -> float:
    """Kendall's p value from a normal distribution with the variance of the permutations.

    The variance is from Daniels (1944), Biometrika 33, 129, summed over strata. With one stratum
    the p value equals the "asymptotic" one of scipy.stats.kendalltau.
    """
    total = variance = 0.0
    for b in pairs.blocks:
        n = b.stop - b.start
        both = [signs(v[b]).astype("float64") for v in pairs[:2]]
        untied = [(s**2).sum() for s in both]
        rows = [(s.sum(axis=0) ** 2).sum() - u for s, u in zip(both, untied, strict=True)]
        total += (both[0] * both[1]).sum()
        variance += 2 * untied[0] * untied[1] / max(n * (n - 1), 1)
        variance += 4 * rows[0] * rows[1] / max(n * (n - 1) * (n - 2), 1)
    return float(2 * stats.norm.sf(abs(total) / np.sqrt(variance))) if variance else 1.0
