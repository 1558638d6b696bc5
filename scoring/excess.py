"""The geodesic excess of a stage from sums that are already known. Needs neither torch nor points.

:mod:`scoring.geodesic` says what it means, and computes it from a track.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Action(NamedTuple):
    """What the geodesic excess of a stage is computed from. All values are squared distances."""

    energy: np.ndarray | Sequence[float]  # (n,) E_l: the mean over points of |v_l|^2
    drift: np.ndarray | Sequence[float]  # (n,) the squared length of the mean over points of v_l
    network_cost: float  # the mean over points of |x^(n) - x^(0)|^2
    shift: float  # the squared length of the mean over points of x^(n) - x^(0)
    optimal_cost: float = math.nan  # W2^2; NaN where no assignment was solved
    random_cost: float = math.nan  # the mean of |x^(n)_j - x^(0)_i|^2 over all pairs i, j


class GeodesicExcess(NamedTuple):
    """The geodesic excess of a stage and its factors; dimensionless."""

    excess: float  # straightness * transport, >= 1
    straightness: float  # n sum E_l / C, >= 1; about n for independent directions in high dimension
    transport: float  # C / W2^2, >= 1
    transport_share: float  # (C - W2^2) / (random cost - W2^2): 0 optimal, 1 random


class WassersteinCurve(NamedTuple):
    """The curve of measures mu_0, ..., mu_n of a stage, and the excess split along it.

    ``excess = block_factor * speed_factor * length_ratio**2``, exactly; each factor is >= 1.
    """

    speeds: np.ndarray  # (n,) W2(mu_(l-1), mu_l), in the units of the states
    speed_variation: float  # their coefficient of variation; 0 on a geodesic (eq. 4)
    length_ratio: float  # sum of the speeds over W2(mu_0, mu_n); 1 on a geodesic
    block_factor: float  # sum E_l / sum W2^2(mu_(l-1), mu_l); 1 where every block is optimal
    speed_factor: float  # 1 + speed_variation^2; 1 at constant speed
    excess: float


def without_drift(found: Action) -> Action:
    """The action with the mean step of each block removed from every point.

    A shift that all points share costs action but moves a cloud optimally, so it can hide how
    far the rest is from a geodesic. W2^2 falls by the squared length of the shift, exactly.

    >>> without_drift(Action([81.0], [81.0], 81.0, 81.0)).network_cost
    0.0
    """
    costs = np.array([found.network_cost, found.optimal_cost, found.random_cost]) - found.shift
    network, optimal, random = (max(float(cost), 0.0) for cost in costs)  # NaN stays NaN
    energy = np.maximum(np.asarray(found.energy) - np.asarray(found.drift), 0.0)
    return Action(energy, np.zeros(len(energy)), network, 0.0, optimal, random)


def excess(found: Action) -> GeodesicExcess:
    """Geodesic excess and its two factors; see :func:`scoring.geodesic.geodesic_excess`.

    >>> excess(Action([1.0, 9.0], [0.0, 0.0], 16.0, 0.0, 8.0))[:3]
    (2.5, 1.25, 2.0)
    """
    total = len(found.energy) * sum(map(float, found.energy))  # inf where it overflows
    return GeodesicExcess(
        ratio(total, found.optimal_cost),
        ratio(total, found.network_cost),
        ratio(found.network_cost, found.optimal_cost),
        ratio(found.network_cost - found.optimal_cost, found.random_cost - found.optimal_cost),
    )


def curve_from_costs(whole: Action, block_costs: np.ndarray) -> WassersteinCurve:
    """The curve of measures from the optimal cost of each block, (n,), and that of the stage."""
    block_costs = np.asarray(block_costs, dtype=np.float64)
    speeds = np.sqrt(block_costs)
    length, n = math.fsum(speeds), len(speeds)
    speed_factor = ratio(n * math.fsum(block_costs), length**2)
    return WassersteinCurve(
        speeds=speeds,
        speed_variation=math.sqrt(max(speed_factor - 1, 0.0)),
        length_ratio=ratio(length, math.sqrt(whole.optimal_cost)),
        block_factor=ratio(math.fsum(whole.energy), math.fsum(block_costs)),
        speed_factor=speed_factor,
        excess=excess(whole).excess,
    )


def ratio(above: float, below: float) -> float:
    """A quotient; +inf where only ``below`` is 0, NaN where both are.

    >>> ratio(1.0, 0.0), ratio(0.0, 0.0)
    (inf, nan)
    """
    if below == 0:
        return math.inf if above > 0 else math.nan
    return above / below
