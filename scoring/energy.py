"""The cost of moving points, and their distance from straight lines: eqs (5), (9) to (12)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from scoring.arrays import floats
from scoring.line_shape import as_state, as_track, lengths, stream


def kinetic_energy(track: Tensor) -> Tensor:
    """Kinetic energy of each block, eqs (9) to (12).

    The mean over points of |x^(l) - x^(l-1)|^2, the squared norm of the block's vector field
    in L2 of its inputs. The paper writes the norm and drops its square in (9) to (12); what
    (10) and (12) bound is the square.

    Args:
        track: tensor or array of shape (n + 1, m, d); ``track[l]`` holds x^(l) of m points.

    Returns:
        Float64 tensor of shape (n,), squared distances in the units of the states, >= 0.
        Points that never move count in the mean. Not finite where a state is not.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.

    >>> kinetic_energy(torch.tensor([[0.0, 1.0], [3.0, 1.0], [4.0, 3.0]])[:, :, None])
    tensor([4.5000, 2.5000], dtype=torch.float64)
    """
    return stream(track).points().lengths.square().mean(1)


def energy_ratio(
    energy: Tensor | Sequence[float], weight_norms: Tensor | Sequence[float]
) -> Tensor:
    """Kinetic energy of each block over the L2 penalty of its weights, eq. (11).

    In the paper's mechanism, the penalty bounds the energy, with one constant C for all of
    training. If that holds, this ratio stays bounded while gamma shrinks the weights. (Eq. (10)
    bounds the energy by a quarter of the square of the penalty times the mean |x|^2.) With
    normalisation the ratio means nothing: W1 times any number is the same function.

    Args:
        energy: of each block, (n,), from :func:`kinetic_energy`; tensor or list.
        weight_norms: |W1|_F^2 + |W2|_F^2 of each block, (n,).

    Returns:
        Float64 tensor of shape (n,), squared distance over squared weight, >= 0. Where all
        weights are 0, it is NaN if the energy is 0 and +inf otherwise (a plain block then moves
        a point to the origin).

    >>> energy_ratio([4.5, 2.5, 0.0], [9.0, 0.0, 0.0])
    tensor([0.5000,    inf,    nan], dtype=torch.float64)
    """
    energy, weight_norms = (torch.as_tensor(floats(x)).double() for x in (energy, weight_norms))
    return energy / weight_norms


class StraightDistance:
    """Distance of m points to the straight lines between their ends, from one state at a time.

    It needs x^(0), x^(n) and n first, so the states are fed to :meth:`update` in a second walk
    through the network; O(m d) memory for any depth. See :func:`straight_distance`.

    Args:
        first: x^(0), (m, ...).
        last: x^(n), (m, ...).
        blocks: n, at least 1.

    >>> away = StraightDistance(torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0, 0.0]]), 2)
    >>> for state in ([[0.0, 0.0]], [[2.0, 3.0]], [[4.0, 0.0]]):
    ...     away.update(torch.tensor(state))
    >>> away.distances()
    tensor([[0.],
            [3.],
            [0.]], dtype=torch.float64)
    """

    def __init__(self, first: Tensor, last: Tensor, blocks: int):
        self._first, self._last = (as_state(x).flatten(1).double() for x in (first, last))
        self._blocks = blocks
        self._distances: list[Tensor] = []  # of each state, (m,)

    def update(self, state: Tensor) -> None:
        """Take the next state of the same m points, (m, ...); dimensions are flattened."""
        state = as_state(state).flatten(1).double()
        if state.shape != self._first.shape or len(self._distances) > self._blocks:
            raise ValueError(
                f"a state of shape {tuple(state.shape)}; should be one of {self._blocks + 1} of "
                f"shape {tuple(self._first.shape)}"
            )
        t = len(self._distances) / self._blocks
        # x - ((1 - t) first + t last), written as two differences to round less far from 0.
        away = (1 - t) * (state - self._first) + t * (state - self._last)
        self._distances.append(lengths(away))

    def distances(self) -> Tensor:
        """Distances of all states so far, (l + 1, m) float64."""
        return torch.stack(self._distances)


def straight_distance(track: Tensor) -> Tensor:
    """Distance of each state to the straight interpolation between its ends, eq. (5).

    On a geodesic at constant speed, x^(l) is (1 - l/n) x^(0) + (l/n) x^(n): the track is straight,
    and its steps are equal. :func:`~scoring.line_shape.line_shape_score` measures only the first.

    Args:
        track: tensor or array of shape (n + 1, m, d); ``track[l]`` holds x^(l) of m points.

    Returns:
        Float64 tensor of shape (n + 1, m), distances in the units of the states, >= 0, and 0
        at l = 0 and l = n. NaN where a state is not finite.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.

    >>> straight_distance(torch.tensor([0.0, 1.0, 4.0])[:, None, None])  # a line, too slow first
    tensor([[0.],
            [1.],
            [0.]], dtype=torch.float64)
    """
    track = as_track(track)
    straight = StraightDistance(track[0], track[-1], len(track) - 1)
    for state in track:
        straight.update(state)
    return straight.distances()


def turning(track: Tensor) -> Tensor:
    """Cosine of the angle between each segment of a track and the next.

    Args:
        track: tensor or array of shape (n + 1, m, d); ``track[l]`` holds x^(l) of m points.

    Returns:
        Float64 tensor of shape (n - 1, m), in [-1, 1]: 1 straight ahead, 0 at a right angle
        (and about 0 on a random walk in high dimension), -1 straight back. NaN where one of the
        two segments has length zero.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.

    >>> turning(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0], [1.0, 0.0]])[:, None])
    tensor([[ 0.],
            [-1.]], dtype=torch.float64)
    """
    return stream(track).points().cosines
