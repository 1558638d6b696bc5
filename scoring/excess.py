"""The geodesic excess of a stage from sums that are already known. Needs neither torch nor points.

:mod:`scoring.geodesic` says what it means, and computes it from a track.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NOTHING = 1e-12
"""A squared distance below this share of the action is rounding: of float32 states, which are known
to about 1e-7 of their length, or of the two nearly equal sums whose difference it is."""


class Action(NamedTuple):
    """What the geodesic excess of a stage is computed from. All values are squared distances."""

    energy: np.ndarray | Sequence[float]  # (n,) E_l: the mean over points of |v_l|^2
    drift: np.ndarray | Sequence[float]  # (n,) the squared length of the mean over points of v_l
    network_cost: float  # the mean over points of |x^(n) - x^(0)|^2
    shift: float  # the squared length of the mean over points of x^(n) - x^(0)
    optimal_cost: float = math.nan  # W2^2; NaN where no assignment was solved
    random_cost: float = math.nan  # the mean of |x^(n)_j - x^(0)_i|^2 over all pairs i, j
    collapsed: bool = False  # the first or the last state is one point: any matching is optimal


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
    far the rest is from a geodesic. W2^2 falls by the squared length of the shift, exactly. Where
    the rest is below :data:`NOTHING`, it is rounding: steps count as 0 then, and costs as unknown.

    >>> without_drift(Action([81.0], [81.0], 81.0, 81.0)).network_cost
    0.0
    """
    total, n = _total(found), len(found.energy)
    least = NOTHING * total if math.isfinite(total) else 0.0
    costs = np.array([found.network_cost, found.optimal_cost, found.random_cost]) - found.shift
    energy = np.maximum(np.asarray(found.energy) - np.asarray(found.drift), 0.0)
    nothing = np.zeros(n)
    if _total(found._replace(energy=energy)) <= least:
        energy = nothing
        costs[:2] *= 0.0  # NaN, where nothing was solved, stays NaN
    elif found.shift > 0:  # Steps in independent directions cost 1 / n of the action.
        costs[costs <= least / n] = math.nan
    network, optimal, random = np.maximum(costs, 0.0).tolist()
    return Action(energy, nothing, network, 0.0, optimal, random, found.collapsed)


def excess(found: Action) -> GeodesicExcess:
    """Geodesic excess and its two factors; see :func:`scoring.geodesic.geodesic_excess`.

    A collapsed stage has only the first factor.

    >>> excess(Action([1.0, 9.0], [0.0, 0.0], 16.0, 0.0, 8.0))[:3]
    (2.5, 1.25, 2.0)
    """
    total, optimal = _total(found), math.nan if found.collapsed else found.optimal_cost
    return GeodesicExcess(
        ratio(total, optimal),
        ratio(total, found.network_cost),
        ratio(found.network_cost, optimal),
        ratio(found.network_cost - optimal, found.random_cost - optimal),
    )


def curve_from_costs(whole: Action, block_costs: np.ndarray) -> WassersteinCurve:
    """The curve of measures from the optimal cost of each block, (n,), and that of the stage.

    A collapsed stage has speeds, but all other fields are NaN.
    """
    block_costs = np.asarray(block_costs, dtype=np.float64)
    speeds = np.sqrt(block_costs)
    if whole.collapsed:
        return WassersteinCurve(speeds, *[math.nan] * 5)
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


def _total(found: Action) -> float:
    """The action n sum E_l."""
    return len(found.energy) * sum(map(float, found.energy))  # inf where it overflows


def ratio(above: float, below: float) -> float:
    """A quotient; +inf where only ``below`` is 0, NaN where both are.

    >>> ratio(1.0, 0.0), ratio(0.0, 0.0)
    (inf, nan)
    """
    if below == 0:
        return math.inf if above > 0 else math.nan
    return above / below
