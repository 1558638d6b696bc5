"""Correlation coefficients of many weighted samples at once, also within strata."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
    """Pairs of finite numbers, sorted by stratum, and by unit if there are units."""

    x: np.ndarray  # (n,)
    y: np.ndarray  # (n,)
    blocks: list[slice]  # the pairs of each stratum
    held: np.ndarray | None = None  # (n,), a third column to hold fixed


Coefficients = Callable[[np.ndarray], np.ndarray]  # see coefficients_of


def finite_pairs(
    x: np.ndarray,
    y: np.ndarray,
    strata: np.ndarray | None,
    held: np.ndarray | None,
    units: np.ndarray | None = None,
) -> Pairs:
    """The pairs without NaN and infinities.

    The arguments are those of :func:`analysis.measures.association.association`.

    Raises:
        ValueError: strata have different units, or one of them twice.
    """
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    z = np.zeros(len(x)) if held is None else np.asarray(held, "float64")
    labels = np.zeros(len(x)) if strata is None else np.asarray(strata)
    finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    stratum = np.unique(labels[finite], return_inverse=True)[1]
    unit = np.arange(len(stratum)) if units is None else np.asarray(units)[finite]
    order = np.lexsort((unit, stratum))
    sizes = np.bincount(stratum).tolist()
    blocks = [slice(end - k, end) for k, end in zip(sizes, np.cumsum(sizes), strict=True)]
    if units is not None and any(list(unit[order][b]) != [*np.unique(unit)] for b in blocks):
        raise ValueError("units; should be the same in all strata, each of them once")
    x, y, z = (column[finite][order] for column in (x, y, z))
    return Pairs(x, y, blocks, None if held is None else z)


def coefficients_of(pairs: Pairs, methods: Sequence[str]) -> Coefficients:
    """A function that computes the coefficients of resamples by each method.

    Its argument has shape (n, r) and says how often pair i is in resample j. It returns an array of
    shape (methods, r), with NaN if x or y is constant in every stratum of a resample.
    """
    x, y, blocks, z = pairs
    if z is not None:
        two = [coefficients_of(Pairs(*p, blocks), methods) for p in ((x, y), (x, z), (y, z))]
        return lambda w: _held_fixed(*(coefficients(w) for coefficients in two))
    sign_x, sign_y = signs(x), signs(y)
    agree = [sign_x[block, block] * sign_y[block, block] for block in blocks]
    a, b = (centred(v[:, None], np.ones((len(v), 1)), blocks) for v in (x, y))
    a, b = (v / (np.sqrt(np.mean(v**2)) or 1) for v in (a, b))

    def pearson(w: np.ndarray) -> np.ndarray:
        return _product_moment(a, b, w, blocks)

    def spearman(w: np.ndarray) -> np.ndarray:
        light = w.astype("float32")  # exact for sums of signs
        ranks = [(sign @ light).astype("float64") for sign in (sign_x, sign_y)]
        return _product_moment(ranks[0], ranks[1], w, blocks)  # 2 x rank, up to a constant

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
    """Partial correlations from plain ones; NaN if z explains all of x or all of y."""
    xz, yz = np.nan_to_num(xz), np.nan_to_num(yz)  # a constant z explains nothing
    left = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / np.sqrt(np.where(left > 1e-9, left, np.nan))


def signs(x: np.ndarray) -> np.ndarray:
    """Signs of x_i - x_j, shape (n, n), float32."""
    return np.sign(x[:, None] - x).astype("float32")


def _untied(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Number of ordered couples that differ in x, in each resample: (n,), (n, r) -> (r,)."""
    order = np.argsort(x)
    starts = np.flatnonzero(np.diff(x[order], prepend=np.nan) != 0)
    same = np.add.reduceat(w[order], starts, axis=0) if len(starts) < len(x) else w  # (values, r)
    return w.sum(axis=0) ** 2 - np.einsum("ij,ij->j", same, same)


def centred(a: np.ndarray, w: np.ndarray, blocks: list[slice]) -> np.ndarray:
    """Columns minus their weighted mean over each stratum: (n, r)."""
    parts = [a[b] - (w[b] * a[b]).sum(axis=0) / np.maximum(w[b].sum(axis=0), 1) for b in blocks]
    return np.concatenate(parts)


def _product_moment(a: np.ndarray, b: np.ndarray, w: np.ndarray, blocks: list[slice]) -> np.ndarray:
    """Pearson's correlation within strata, (r,); NaN if a column is constant up to rounding."""
    a, b = centred(a, w, blocks), centred(b, w, blocks)
    wa = w * a
    aa, ab = np.einsum("ij,ij->j", wa, a), np.einsum("ij,ij->j", wa, b)
    bb = np.einsum("ij,ij->j", w * b, b)
    varies = np.minimum(aa, bb) > 1e-24
    return np.where(varies, ab, np.nan) / np.sqrt(np.where(varies, aa * bb, 1))
