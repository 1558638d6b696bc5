"""Terms of the loss that make tracks short, or straight: eqs (9) to (12), (44).

The paper's weight decay acts on the geodesic through the weights. Each of these two penalties
targets one half of it directly. Both take states as a network yields them, with gradients.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

ROUNDED = 0.3  # root mean square of what rounding both its ends adds to a segment, in eps x length
LEAST = 0.1  # A sum of unit segments that is shorter counts as this long, so LSS is at most 10 n.


def penalty(
    states: Sequence[tuple[int, Tensor]], transport: float, straightness: float
) -> Tensor | float:
    """Both penalties times their weights, to be added to the loss; 0.0 if both weights are 0.

    Args:
        states: the stage, and the state x^(l) (m, ...) of a batch, block by block.
        transport: weight of :func:`transport_penalty`, >= 0.
        straightness: weight of :func:`straightness_penalty`, >= 0.

    >>> penalty([(1, torch.zeros(2, 3)), (1, torch.ones(2, 3))], transport=0.5, straightness=1)
    tensor(1.5000)
    """
    total: Tensor | float = 0.0
    if transport > 0:
        total = total + transport * transport_penalty(states)
    if straightness > 0:
        total = total + straightness * straightness_penalty(states)
    return total


def transport_penalty(states: Iterable[tuple[int, Tensor]]) -> Tensor:
    """Kinetic energy of the tracks of a batch, eqs (9) to (12), with the squares they drop.

    It is the sum over blocks and stages of the mean over points of |x^(l) - x^(l-1)|^2. Up to
    the factor n, a geodesic minimises this for given ends (Benamou and Brenier). It is a plain
    sum over dimensions, so it grows with d: if coordinates are of order 1, a weight of 1/d makes
    a block count about 1. Making all states small always lowers it.

    Args:
        states: the stage, and the state x^(l) (m, ...) of a batch, block by block; the first
            state of a stage is its input. Steps between stages do not count.

    Returns:
        Scalar, squared distance in the units of the states, >= 0; float32, or float64 of
        float64 states.

    >>> transport_penalty([(1, torch.tensor([[0.0, 0.0]])), (1, torch.tensor([[3.0, 4.0]]))])
    tensor(25.)
    """
    energy = [step.square().sum(1).mean() for _, steps in _stages(states) for step, _ in steps]
    return torch.stack(energy).sum() if energy else torch.zeros(())


def straightness_penalty(states: Iterable[tuple[int, Tensor]]) -> Tensor:
    """How much longer than straight the tracks of a batch are: the mean of LSS - 1, eq. (44).

    LSS = n / |sum of unit segments| (eqs 43, 44), as a mean over the points of a stage that
    move, then over stages. It does not depend on the scale of the states. There are two guards.
    A segment that rounding alone can explain has no direction: it is left out, n is lowered by one
    for that point, and it gets no gradient. That is |x^(l)| times the machine epsilon of the
    states (2^-7 in bfloat16) in few dimensions, and about a third of it in many. Where unit
    segments nearly cancel, the gradient would be unbounded: if their sum is shorter than 0.1, LSS
    is 10 n, with gradient 0.

    Args:
        states: as for :func:`transport_penalty`.

    Returns:
        Scalar, dimensionless, >= 0 up to rounding: 0 for straight tracks, sqrt(n) - 1 on a
        random walk in high dimension, and 0 where no point moves.

    >>> corner = [(1, torch.tensor([x])) for x in ([0.0, 0.0], [1.0, 0.0], [1.0, 3.0])]
    >>> straightness_penalty(corner)  # 2 / sqrt(2) - 1
    tensor(0.4142)
    """
    means = []
    for _, steps in _stages(states):
        direction, moving = torch.zeros(()), torch.zeros(())
        for step, rounding in steps:
            square = step.square().sum(1)  # (m,)
            moves = square > rounding.square()
            length = torch.where(moves, square, 1.0).sqrt()  # no root of 0, whose slope is infinite
            # Summed at once, since segments are as large as states.
            direction = direction + torch.where(moves, 1 / length, 0.0)[:, None] * step
            moving = moving + moves
        if not direction.ndim:  # every block of the stage was left out of this step
            continue
        square = direction.square().sum(1)
        enough = square > LEAST**2
        resultant = torch.where(enough, square, LEAST**2).sqrt()
        score = moving / resultant - 1
        some = moving > 0
        means.append(torch.where(some, score, 0.0).sum() / some.sum().clamp(min=1))
    return torch.stack(means).mean() if means else torch.zeros(())


def _stages(
    states: Iterable[tuple[int, Tensor]],
) -> Iterator[tuple[int, Iterator[tuple[Tensor, Tensor]]]]:
    """Each stage with its segments (m, d), and the size of rounding in each segment, (m,)."""
    for stage, members in groupby(states, itemgetter(0)):
        yield stage, _segments(state for _, state in members)


def _segments(states: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    first = next(states)
    before, rough = _wide(first), torch.finfo(first.dtype).eps
    few = 3 / before.shape[1] ** 0.5
    for state in states:
        after, fine = _wide(state), torch.finfo(state.dtype).eps
        size = after.detach().square().sum(1).sqrt()
        yield after - before, max(rough, fine) * min(1.0, ROUNDED * (1 + few)) * size
        before, rough = after, fine


def _wide(state: Tensor) -> Tensor:
    """(m, ...) -> (m, d), at least in float32, since steps are small compared with states."""
    flat = state.flatten(1)
    return flat if flat.dtype == torch.float64 else flat.float()
