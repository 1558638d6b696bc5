"""How far a network's curve is from the geodesic of Wasserstein space, as one number.

By the Benamou-Brenier formula (eq. 8; Numer. Math. 84, 2000), moving the points of a stage in n
steps of duration 1/n takes the action n sum_l E_l, where E_l is the kinetic energy of block l. No
curve between the same two clouds takes less than W2^2, and only the geodesic at constant speed
takes exactly that. The geodesic excess is the action over W2^2. It splits exactly:

    n sum_l E_l / W2^2  =  (n sum_l E_l / C)  x  (C / W2^2)        C: network cost
    geodesic excess        straightness factor   transport factor

Both factors are at least 1. The first is 1 where tracks are straight and run at constant speed,
the second where the network's map is optimal.
"""

from itertools import pairwise

import numpy as np
from torch import Tensor

from scoring.arrays import safe_scale
from scoring.excess import Action, GeodesicExcess, WassersteinCurve, curve_from_costs, excess
from scoring.line_shape import as_track
from scoring.transport import optimal_transport_score


def action(track: Tensor, transport: bool = True, threads: int | None = None) -> Action:
    """The action of a stage, and on request the optimal cost between its ends.

    Args:
        track: tensor or array of shape (n + 1, m, d); ``track[l]`` holds x^(l) of m points.
        transport: also solve the assignment between x^(0) and x^(n), for which m >= 2.
        threads: to solve with; all cores if None.

    Returns:
        The :class:`Action`, float64, in squared units of the states.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states; with
            ``transport``, it has fewer than two points or a value that is not finite.

    >>> import torch
    >>> action(torch.tensor([[0.0, 2.0], [1.0, 5.0]])[:, :, None]).energy
    array([5.])
    """
    track = as_track(track)
    steps = track.double().diff(dim=0)  # (n, m, d)
    whole = track[-1].double() - track[0].double()  # (m, d)
    found = Action(
        steps.square().sum(2).mean(1).cpu().numpy(),
        steps.mean(1).square().sum(1).cpu().numpy(),
        float(whole.square().sum(1).mean()),
        float(whole.mean(0).square().sum()),
    )
    if not transport:
        return found
    solved = optimal_transport_score(track[0], track[-1], threads)
    return found._replace(
        optimal_cost=solved.optimal_cost,
        random_cost=solved.random_cost,
        collapsed=solved.collapsed,
    )


def geodesic_excess(source: Action | Tensor) -> GeodesicExcess:
    """Geodesic excess of a stage and its two factors, from its action or its track.

    Args:
        source: an :class:`Action`, or a track (n + 1, m, d), whose assignment is solved here.

    Returns:
        The :class:`GeodesicExcess`. 1 is the geodesic at constant speed. A factor is +inf where
        points move but its denominator is 0, and NaN where nothing moves. The transport factor,
        the share and the excess are NaN where the action has no optimal cost, and where the stage
        has collapsed: where its first or its last state is one point, any matching is optimal.

    Raises:
        ValueError: like :func:`action`, for a track.

    >>> import torch
    >>> corner = torch.tensor([[[0.0, 0.0], [9.0, 9.0]], [[1.0, 0.0], [9.0, 9.0]],
    ...                        [[1.0, 1.0], [9.0, 9.0]]])
    >>> geodesic_excess(corner)[:3]
    (2.0, 2.0, 1.0)
    """
    found = source if isinstance(source, Action) else action(_scaled(source)[0])
    return excess(found)


def wasserstein_curve(track: Tensor, threads: int | None = None) -> WassersteinCurve:
    """The curve of measures of a stage: its speeds, and how straight it is in Wasserstein space.

    Solves n + 1 assignments: one for each block, and one between the ends.

    Args:
        track: tensor or array of shape (n + 1, m, d), m >= 2.
        threads: to solve with; all cores if None.

    Returns:
        The :class:`WassersteinCurve`.

    Raises:
        ValueError: like :func:`action`.
    """
    track, scale = _scaled(track)
    costs = [optimal_transport_score(x, y, threads).optimal_cost for x, y in pairwise(track)]
    curve = curve_from_costs(action(track, threads=threads), np.array(costs))
    return curve._replace(speeds=curve.speeds / scale)


def _scaled(track: Tensor) -> tuple[Tensor, float]:
    """A track whose squares neither vanish nor overflow, and the power of two it was scaled by."""
    track = as_track(track)
    scale = safe_scale(track)
    return (track if scale == 1 else track * scale), scale
