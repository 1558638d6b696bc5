"""Scores of a stage that ignore what the network's function ignores, and the spread of its states.

Where a normalisation or a rectifier follows, a state can be scaled without any effect on the
function, but LSS (eq. 44) and kinetic energy (eq. 9) change. So these scores give every state the
same size, or relate a step to the spread of the state where it starts.
"""

import math
from typing import Any

import torch
from torch import Tensor

from scoring import arrays
from scoring.line_shape import LineShape, Points, as_state, as_track, lengths
from scoring.separation import centre, pair_products
from scoring.spread import (
    effective_rank,
    fuzziness,
    participation_ratio,
    products,
    separation_law,
)

EXACT = 16 * torch.finfo(torch.float64).eps  # the mean and the size of a state round in float64
ROUNDED = 0.3  # root mean square of what rounding both its ends adds to a step, in eps x length


class Scales:
    """Scale-free scores of one stage, in two passes over its states.

    The first pass gives every state of all m points to :meth:`see`. The second gives them again
    in batches: the states of a batch to :meth:`update`, then :meth:`end`. Only sums of each state
    are kept between the passes: its mean, its size, its spread. Of a batch that has ended, only
    numbers of each point are kept.

    Args:
        labels: classes (m,), tensor or array; None leaves the separation of classes out.
    """

    def __init__(self, labels: Any = None) -> None:
        self._labels = labels
        self._means: list[Tensor] = []  # of each state, (d,)
        self._units: list[float] = []  # powers of two: see :func:`scoring.arrays.safe_scale`
        self._variances: list[float] = []  # mean over points of |x - mean|^2, in these units
        self._spread: dict[str, list[float]] = {
            "fuzziness": [],
            "effective_rank": [],
            "participation_ratio": [],
        }
        self._place = 0  # of the next state in the second pass
        self._scaled, self._centred = _Moves(), _Moves()  # of this batch
        self._points: list[tuple[Points, Points]] = []  # scaled and centred, of each batch
        self._lengths: list[Tensor] = []  # of the steps without drift, (n, b) of each batch

    def see(self, state: Tensor, squared: Tensor) -> None:
        """Take the next state of all points, (m, d), with the squared distances of all pairs."""
        m, d = state.shape
        if state.dtype != torch.float64:
            state = state.float()
        unit = arrays.safe_scale(state)
        if unit != 1:
            state = state * unit
            squared = pair_products(state, state)
        inner = products(squared)  # (m, m)
        mean = centre(state)
        scatter = inner
        if d < m:  # the smaller matrix with the same eigenvalues
            centred = state.double() - mean
            scatter = centred.T @ centred
        self._means.append(mean / unit)
        self._units.append(unit)
        self._variances.append(float(inner.diagonal().mean()))
        found = math.nan if self._labels is None else fuzziness(inner, self._labels)
        self._spread["fuzziness"].append(found)
        self._spread["effective_rank"].append(effective_rank(scatter))
        self._spread["participation_ratio"].append(participation_ratio(scatter))

    def update(self, state: Tensor) -> None:
        """Take the next state of this batch, (b, ...); dimensions are flattened."""
        state = as_state(state).flatten(1)
        rounding, state = _rounding(state), state.double()
        mean, unit = self._means[self._place], self._units[self._place]
        size = (self._variances[self._place] + float((mean * unit).square().sum())) ** 0.5 / unit
        scaled = state / size if size > 0 else state
        self._scaled.update(scaled, rounding * lengths(scaled))
        self._centred.update(state - mean, rounding * lengths(state))
        self._place += 1

    def end(self) -> None:
        """End a batch of the second pass, and free its states."""
        centred, steps = self._centred.end()
        self._points.append((self._scaled.end()[0], centred))
        self._lengths.append(steps)
        self._place = 0

    def figures(self) -> dict[str, Any]:
        """Columns of the tracks table.

        Returns:
            ``lss_scaled``: mean LSS on states that are divided by their root mean square over
            points. ``lss_without_drift``: mean LSS without the mean step of each block. Steps that
            are only rounding count as 0 in both, so they are NaN where nothing else is left.
            ``relative_energy``: of each block, its kinetic energy over the variance of the state it
            starts from; NaN where all points of that state are equal. ``fuzziness``,
            ``effective_rank`` and ``participation_ratio`` of each state, from
            :mod:`scoring.spread`; ``fuzziness_slope`` and ``fuzziness_fit`` of its logarithm
            over l; ``nc1``, the fuzziness of the last state over the number of classes.
        """
        scaled, centred = (
            Points(*(torch.cat(parts, dim=-1) for parts in zip(*batches, strict=True)))
            for batches in zip(*self._points, strict=True)
        )
        means = torch.stack(self._means)  # (n + 1, d)
        unit = means.new_tensor(self._units[:-1])[:, None]  # (n, 1)
        drift = (means.diff(dim=0) * unit).square().sum(1).cpu()
        steps = torch.cat(self._lengths, dim=1)  # (n, m)
        energy = (steps * unit).square().mean(1).cpu() + drift  # (n,)
        variances = torch.tensor(self._variances[:-1], dtype=torch.float64)
        variances[variances == 0] = math.nan
        law = separation_law(self._spread["fuzziness"])
        classes = 0 if self._labels is None else len(set(arrays.labels(self._labels).tolist()))
        return {
            "lss_scaled": float(scaled.score.nanmean()),
            "lss_without_drift": float(centred.score.nanmean()),
            "relative_energy": (energy / variances).tolist(),
            **self._spread,
            "fuzziness_slope": law.slope,
            "fuzziness_fit": law.fit,
            "nc1": self._spread["fuzziness"][-1] / classes if classes else math.nan,
        }


class _Moves:
    """The line shape of states that are inexact: steps that may be rounding have no direction."""

    def __init__(self) -> None:
        self.shape = LineShape()
        self.lengths: list[Tensor] = []  # (b,) of each step, with what rounding adds to it
        self._latest: Tensor | None  # the latest state (b, d); None if the shape has the same one
        self._inexact: Tensor  # (b,) how far it may be off

    def update(self, state: Tensor, inexact: Tensor) -> None:
        """Take the next state, (b, d), and how far each point may be off, (b,).

        In the shape, a point stays where it was until it is further away than that.
        """
        before, latest = self.shape.last, None
        if before is not None:
            moved = lengths(state - before)
            known = moved if self._latest is None else lengths(state - self._latest)
            self.lengths.append(known)
            still = moved <= torch.maximum(inexact, self._inexact)
            if still.any():
                latest, state = state, torch.where(still[:, None], before, state)
        self._latest, self._inexact = latest, inexact
        self.shape.update(state)

    def end(self) -> tuple[Points, Tensor]:
        """The line shape of each point, and the lengths of all steps, (n, b)."""
        found = self.shape.finish()[0], torch.stack(self.lengths)
        _Moves.__init__(self)
        return found


def scaled_line_shape_score(track: Tensor) -> Tensor:
    """LSS (eq. 44) on states of equal root mean square: one factor for each state.

    Multiplying a state by a number changes LSS, even where the network's function stays the same
    because a normalisation follows. This score ignores such factors, so it is the comparable one
    for plain networks. In a ResNet the scales of successive states are tied, and a true geodesic
    can have a score above 1.

    Args:
        track: tensor or array of shape (n + 1, m, d); ``track[l]`` holds x^(l) of m points.

    Returns:
        Float64 tensor of shape (m,), dimensionless, as of
        :func:`scoring.line_shape.line_shape_score`. A state of zeros keeps its scale. A step that
        is at most the rounding of its ends has no direction, like one of length zero.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.

    >>> longer = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-9.0, 0.0]])[:, None]
    >>> scaled_line_shape_score(longer)  # quarter turns on a circle: 2 / sqrt(2)
    tensor([1.4142], dtype=torch.float64)
    """
    track = as_track(track)
    moves, rounding = _Moves(), _rounding(track[0])
    for given in track:
        state = given.double()
        state = state * arrays.safe_scale(state)
        size = state.square().sum(1).mean().sqrt()
        state = state / torch.where(size > 0, size, 1.0)
        moves.update(state, rounding * lengths(state))
    return moves.shape.score()


def _rounding(state: Tensor) -> float:
    """What rounding adds to a step, at most, as a share of the length of a state (m, ...).

    In few dimensions that may be a whole machine epsilon, in many it is close to its typical size.
    """
    few = 3 / max(math.prod(state.shape[1:]), 1) ** 0.5
    return max(torch.finfo(state.dtype).eps * min(1.0, ROUNDED * (1 + few)), EXACT)
