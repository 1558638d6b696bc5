"""How a cloud of points is spread out: between its classes, and over its dimensions.

All scores take products of centred points, (m, m), or distances of pairs. So they cost little
in high dimension. They need a few hundred to a thousand points, and compute in float64.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoring import arrays

AT_ONCE = 2**20  # numbers in float64 while products are added up
ROUNDING = 2.0**-52  # An eigenvalue below this share of the largest one, times m, is rounding.


class Law(NamedTuple):
    """A straight line through log D_l over l, by least squares."""

    slope: float  # of the natural logarithm; below 0 where classes come apart
    fit: float  # R^2, in [0, 1]: 1 where every block has the same share in the separation


def products(squared: Tensor) -> Tensor:
    """Products of centred points from their squared distances, by double centring.

    Args:
        squared: squared distances of all pairs, (m, m).

    Returns:
        Float64 tensor (m, m): <x_p - mean, x_q - mean>, the Gram matrix of the centred points.

    >>> products(torch.tensor([[0.0, 4.0], [4.0, 0.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]], dtype=torch.float64)
    """
    squared = squared.double()
    rows = squared.mean(1, keepdim=True)
    return (squared - rows - rows.T + rows.mean()).mul_(-0.5)


def scatter(state: Tensor) -> Tensor:
    """Products of the centred points of a state, or its scatter matrix if that is smaller.

    Args:
        state: (m, ...).

    Returns:
        Float64 tensor (m, m) or (d, d) on the CPU. Both have the squares of the singular values
        of the centred points as eigenvalues.
    """
    state = state.flatten(1)
    m, d = state.shape
    if d < m:
        centred = state.double()
        centred = centred - centred.mean(0)
        return (centred.T @ centred).cpu()
    products = state.new_zeros(m, m, dtype=torch.float64)
    size = max(1, AT_ONCE // max(1, m))
    for start, stop in pairwise([*range(0, d, size), d]):
        part = state[:, start:stop].double()  # of float64 states it is a view
        part = part - part.mean(0)
        products += part @ part.T
    return products.cpu()


def effective_rank(scatter: Tensor) -> float:
    """Effective rank of a cloud: Roy and Vetterli, EUSIPCO 2007.

    exp(-sum p_i log p_i), where p are the singular values of the centred points over their sum.

    Args:
        scatter: products of centred points (m, m), or their scatter matrix (d, d): both have the
            squares of the singular values as eigenvalues. Any factor cancels.

    Returns:
        A number from 1, points on a line, to the rank, points of equal spread in all directions.
        NaN where all points are equal, or a number is not finite.

    >>> round(effective_rank(torch.diag(torch.tensor([4.0, 4.0, 0.0]))), 6)
    2.0
    """
    if not _spreads(scatter):
        return math.nan
    squares = torch.linalg.eigvalsh(scatter.double())
    squares = squares[squares > len(squares) * ROUNDING * squares[-1]]
    shares = squares.sqrt() / squares.sqrt().sum()
    return float(torch.special.entr(shares).sum().exp())


def participation_ratio(scatter: Tensor) -> float:
    """Participation ratio of a cloud: tr(S)^2 / tr(S^2), S its covariance.

    It counts dimensions like :func:`effective_rank`, but by variances instead of deviations, so
    that weak directions count less (Gao et al. 2017, bioRxiv 214262).

    Args:
        scatter: as for :func:`effective_rank`.

    Returns:
        A number from 1 to the rank. NaN where all points are equal, or a number is not finite.

    >>> participation_ratio(torch.diag(torch.tensor([3.0, 1.0])))
    1.6
    """
    if not _spreads(scatter):
        return math.nan
    scatter = scatter.double() / scatter.diagonal().sum()
    return float(1 / scatter.square().sum())


def fuzziness(inner: Tensor, labels: Any) -> float:
    """Separation fuzziness of classes, D = tr(S_w S_b^+): He and Su, PNAS 2023, arXiv 2210.17020.

    S_w is the scatter of the points around the means of their classes, S_b the scatter of those
    means, each mean weighted by its points. S_b^+ is the pseudoinverse, over the at most
    classes - 1 directions in which the means differ. D over the number of classes is NC1 of neural
    collapse (Papyan et al. 2020), where classes have equally many points.

    Args:
        inner: products of centred points, (m, m), from :func:`products`.
        labels: classes (m,), tensor or array.

    Returns:
        A number >= 0: 0 where every class is a single point, large where classes overlap. NaN
        where all class means are equal, or a number is not finite.

    Raises:
        ValueError: there are not m labels.

    >>> x = torch.tensor([-6.0, -4.0, 4.0, 6.0])
    >>> round(fuzziness(torch.outer(x, x), [0, 0, 1, 1]), 6)  # variance 1 within, 25 between
    0.04
    """
    inner = inner.double()
    classes = torch.as_tensor(arrays.labels(labels)).to(inner.device)
    m = len(inner)
    if len(classes) != m:
        raise ValueError(f"{len(classes)} labels of {m} points")
    if not _spreads(inner):
        return math.nan
    inner = inner / (inner.diagonal().sum() / m)  # so that nothing below vanishes or overflows
    _, classes, counts = classes.unique(return_inverse=True, return_counts=True)
    members = torch.nn.functional.one_hot(classes).double()  # (m, c)
    # S_b = b b^T and b^T b = k, where column j of b is the mean of class j, times the square root
    # of its share. Products of b with the points around their class means give b^T S_w b = w.
    shares = counts.double().sqrt() * m**0.5
    along = inner @ (members / shares)  # (m, c): of all points with b
    between = (members / shares).T @ along  # (c, c): k
    away = along - members @ ((members / counts).T @ along)
    within = away.T @ away / m  # (c, c): w
    sizes, directions = torch.linalg.eigh((between + between.T) / 2)
    real = sizes > 16 * m * ROUNDING  # smaller distances between means are rounding
    real[0] = False  # weighted by their shares, the means add up to 0
    spread = (directions.T @ within @ directions).diagonal()[real] / sizes[real].square()
    return float(spread.clamp(min=0).sum()) if bool(real.any()) else math.nan


def separation_law(values: Sequence[float]) -> Law:
    """How well states obey the law of separation: log D_l falls by the same amount in each block.

    Args:
        values: D_l of the states l = 0, ..., n of a stage, from :func:`fuzziness`.

    Returns:
        The :class:`Law` of their natural logarithms. NaN where a value is 0 or not finite; its fit
        is also NaN where all are equal.

    >>> law = separation_law([8.0, 4.0, 2.0])
    >>> round(law.slope / math.log(2), 6), round(law.fit, 6)
    (-1.0, 1.0)
    """
    logs = torch.as_tensor(values, dtype=torch.float64).log()
    if len(logs) < 2 or not bool(logs.isfinite().all()):
        return Law(math.nan, math.nan)
    steps = torch.arange(len(logs), dtype=torch.float64)
    steps, logs = steps - steps.mean(), logs - logs.mean()
    slope = steps @ logs / steps.square().sum()
    total = logs.square().sum()
    fit = 1 - (logs - slope * steps).square().sum() / total if total > 0 else math.nan
    return Law(float(slope), float(fit))


def _spreads(scatter: Tensor) -> bool:
    """Whether points differ, and all numbers are finite."""
    return bool(scatter.isfinite().all()) and bool(scatter.diagonal().sum() > 0)
