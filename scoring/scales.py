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
from scoring.line_shape import LineShape, Points, as_state, as_track
from scoring.spread import (
    effective_rank,
    fuzziness,
    participation_ratio,
    products,
    separation_law,
)


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
        self._variances: list[float] = []  # mean over points of |x - mean|^2
        self._spread: dict[str, list[float]] = {
            "fuzziness": [],
            "effective_rank": [],
            "participation_ratio": [],
        }
        self._place = 0  # of the next state in the second pass
        self._scaled, self._centred = LineShape(), LineShape()  # of this batch
        self._points: list[tuple[Points, Points]] = []  # scaled and centred, of each batch

    def see(self, state: Tensor, squared: Tensor) -> None:
        """Take the next state of all points, (m, d), with the squared distances of all pairs."""
        m, d = state.shape
        inner = products(squared)  # (m, m)
        mean = state[0].double() + (state - state[0]).mean(0, dtype=torch.float64)
        scatter = inner
        if d < m:  # the smaller matrix with the same eigenvalues
            centred = state.double() - mean
            scatter = centred.T @ centred
        self._means.append(mean)
        self._variances.append(float(inner.diagonal().mean()))
        found = math.nan if self._labels is None else fuzziness(inner, self._labels)
        self._spread["fuzziness"].append(found)
        self._spread["effective_rank"].append(effective_rank(scatter))
        self._spread["participation_ratio"].append(participation_ratio(scatter))

    def update(self, state: Tensor) -> None:
        """Take the next state of this batch, (b, ...); dimensions are flattened."""
        state = as_state(state).flatten(1).double()
        mean = self._means[self._place]
        size = (self._variances[self._place] + float(mean.square().sum())) ** 0.5
        self._scaled.update(state / size if size > 0 else state)
        self._centred.update(state - mean)
        self._place += 1

    def end(self) -> None:
        """End a batch of the second pass, and free its states."""
        self._points.append((self._scaled.finish()[0], self._centred.finish()[0]))
        self._place = 0

    def figures(self) -> dict[str, Any]:
        """Columns of the tracks table.

        Returns:
            ``lss_scaled``: mean LSS on states that are divided by their root mean square over
            points. ``lss_without_drift``: mean LSS without the mean step of each block.
            ``relative_energy``: of each block, its kinetic energy over the variance of the state it
            starts from. ``fuzziness``, ``effective_rank`` and ``participation_ratio`` of each
            state, from :mod:`scoring.spread`; ``fuzziness_slope`` and ``fuzziness_fit`` of its
            logarithm over l; ``nc1``, the fuzziness of the last state over the number of classes.
        """
        scaled, centred = (
            Points(*(torch.cat(parts, dim=-1) for parts in zip(*batches, strict=True)))
            for batches in zip(*self._points, strict=True)
        )
        drift = torch.stack(self._means).diff(dim=0).square().sum(1).cpu()
        energy = centred.lengths.square().mean(1).cpu() + drift  # (n,)
        variances = torch.tensor(self._variances[:-1], dtype=torch.float64)
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
        :func:`scoring.line_shape.line_shape_score`. A state of zeros keeps its scale.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.

    >>> longer = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-9.0, 0.0]])[:, None]
    >>> scaled_line_shape_score(longer)  # quarter turns on a circle: 2 / sqrt(2)
    tensor([1.4142], dtype=torch.float64)
    """
    track = as_track(track).double()
    size = track.square().sum(2).mean(1).sqrt()[:, None, None]  # (n + 1, 1, 1)
    shape = LineShape()
    for state in track / torch.where(size > 0, size, 1.0):
        shape.update(state)
    return shape.score()
