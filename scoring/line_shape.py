"""How straight a data track is: LSR (eq. 42), LSS (eqs 43, 44) and segment shares (Tables 2, 3)."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from scoring.arrays import floats

SQUARES = (1e-140, 1e140)  # Squares of lengths outside this range may vanish or overflow.
CHUNK = {"cpu": 2**18, "cuda": 2**22}  # numbers at a time: fits a cache; does not starve a GPU


class Points(NamedTuple):
    """The line shape of each of m points with n segments, float64 but for zero_segments."""

    score: Tensor  # (m,) LSS
    inverse_score: Tensor  # (m,) 1/LSS
    ratio: Tensor  # (m,) LSR
    shares: Tensor  # (n, m) length of each segment over that of the track
    zero_segments: Tensor  # (m,) int64, segments of length 0
    lengths: Tensor  # (n, m) length of each segment
    cosines: Tensor  # (n - 1, m) between successive segments; NaN where one has length 0
    distances: Tensor  # (m,) between the ends of a track


class LineShape:
    """The line shape of m points, from one state at a time: O(m d) memory for any depth.

    Feed it x^(0), x^(1), ..., x^(n) with :meth:`update`; results can be read after each of them.
    Sums are in float64, whatever the precision of the states. States are copied, so they may be
    overwritten later. Memory: two states in their own precision, two in float64, and n x d sums.

    >>> shape = LineShape()
    >>> for state in ([[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 1.0]]):
    ...     shape.update(torch.tensor(state))
    >>> shape.score(), shape.shares()
    (tensor([1.4142], dtype=torch.float64), tensor([0.5000, 0.5000], dtype=torch.float64))
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None  # x^(0), (m, ...)
        self._last: Tensor  # the previous state, (m, ...)
        self._direction: Tensor  # sum of unit segments, (m, ...)
        self._unit: Tensor | None = None  # the previous unit segment (or 0), (m, ...)
        self._lengths: list[Tensor] = []  # of each segment, (m,)
        self._cosines: list[Tensor] = []  # between each segment and the previous one, (m,)
        self._sums: list[Tensor] = []  # of each step over points, (d,)

    @property
    def last(self) -> Tensor | None:
        """The latest state, (m, ...), in its own precision; None before the first."""
        return None if self._first is None else self._last

    def update(self, state: Tensor) -> None:
        """Take the next state of the same m points, (m, ...); dimensions are flattened."""
        state = as_state(state)
        if self._first is None:
            self._first, self._last = state.clone(), state.clone()
            self._direction = torch.zeros_like(state, dtype=torch.float64)
            return
        if state.shape != self._last.shape:
            raise ValueError(
                f"a state of shape {tuple(state.shape)} in a track of {tuple(self._last.shape)}: "
                "the states of a stage have one dimension"
            )
        if state.dtype != self._last.dtype:
            kind = torch.promote_types(state.dtype, self._last.dtype)
            state, self._last = state.to(kind), self._last.to(kind)
        first = self._unit is None
        unit = torch.empty_like(self._direction) if self._unit is None else self._unit
        length, cosine = unit.new_empty(2, len(state))
        total = unit.new_zeros(state.shape[1:].numel())
        for here in _some_at_a_time(state):
            step = state[here].double() - self._last[here]
            total += step.sum(0).flatten()
            step, length[here] = _normalised(step)  # (some of m, ...), (some of m,)
            self._direction[here] += step
            if not first:
                cosine[here] = unit[here].mul_(step).sum(tuple(range(1, step.ndim)))
            unit[here] = step
            self._last[here] = state[here]
        self._unit = unit
        self._sums.append(total)
        self._lengths.append(length)
        if not first:
            self._cosines.append(cosine)

    def points(self) -> Points:
        """Everything about each point; NaN throughout for a point that never moves.

        1/LSS, in [0, 1], is the mean resultant length of a track's directions; its mean over
        points is steadier than that of LSS, which is heavy-tailed.
        """
        if self._first is None or not self._lengths:
            raise ValueError("a track has at least two states")
        lengths = torch.stack(self._lengths)  # (n, m)
        total = lengths.sum(0)
        zero = (lengths == 0).sum(0)
        moving = len(lengths) - zero  # (m,), n without the segments that are left out
        resultant = _norm(self._direction)
        # Where unit steps cancel, only rounding remains: some half-units in the last place.
        nothing = resultant <= 4 * torch.finfo(resultant.dtype).eps * moving
        inverse = torch.where(nothing, 0.0, resultant).clamp(max=moving.double()) / moving
        distances = torch.empty_like(total)
        for here in _some_at_a_time(self._last):
            _, distances[here] = _normalised(self._last[here].double() - self._first[here])
        ratio = total / distances  # 0/0: never moves; x/0: returns
        cosines = torch.stack(self._cosines) if self._cosines else lengths.new_empty(0, len(total))
        cosines = cosines.clamp(-1, 1)  # NaN stays NaN
        still = (lengths[1:] == 0) | (lengths[:-1] == 0)  # no direction, so no angle
        cosines = cosines.masked_fill(still, torch.nan)
        shares = lengths / total
        return Points(1 / inverse, inverse, ratio, shares, zero, lengths, cosines, distances)

    def step_sums(self) -> Tensor:
        """The sum over points of each step x^(l) - x^(l-1), (n, d) float64."""
        return torch.stack(self._sums)

    def finish(self) -> tuple[Points, list[Tensor]]:
        """Everything about each point, and the sum over points of each step; frees the states."""
        points, sums = self.points(), self._sums
        del self._last, self._direction
        LineShape.__init__(self)
        return points, sums

    def ratio(self) -> Tensor:
        """LSR of each point, (m,): see :func:`line_shape_ratio`."""
        return self.points().ratio

    def score(self) -> Tensor:
        """LSS of each point, (m,): see :func:`line_shape_score`."""
        return self.points().score

    def shares(self) -> Tensor:
        """Mean shares of the n segments, (n,): see :func:`segment_shares`."""
        return self.points().shares.nanmean(1)


def line_shape_ratio(track: Tensor) -> Tensor:
    """Line-shape ratio (LSR) of each data point, eq. (42).

    The length of its track over the distance between its ends.

    Args:
        track: tensor or array of shape (n + 1, m, d); ``track[l]`` holds x^(l) of m points.

    Returns:
        Float64 tensor of shape (m,), dimensionless, >= 1 up to rounding: 1 on a straight
        line. NaN where a point never moves, +inf where it returns to its start.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.

    >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])[:, None]
    >>> line_shape_ratio(corner)  # 2 / sqrt(2)
    tensor([1.4142], dtype=torch.float64)
    """
    return stream(track).ratio()


def line_shape_score(track: Tensor) -> Tensor:
    """Line-shape score (LSS) of each data point, eq. (44).

    Every segment is rescaled to unit length (eq. 43), so one long segment cannot hide a
    zigzag, as it can in :func:`line_shape_ratio`. A segment of length zero has no direction:
    it is left out, and n is lowered by one for that point.

    Args:
        track: tensor or array of shape (n + 1, m, d); ``track[l]`` holds x^(l) of m points.

    Returns:
        Float64 tensor of shape (m,), dimensionless, >= 1: 1 on a straight line, sqrt(n) on a
        random walk in high dimension. NaN where a point never moves, +inf where its unit
        steps cancel.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.

    >>> detour = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])[:, None]
    >>> line_shape_score(detour)  # 2 / sqrt(2): lengths do not matter
    tensor([1.4142], dtype=torch.float64)
    """
    return stream(track).score()


def segment_shares(track: Tensor) -> Tensor:
    """Share of each segment in the length of a track, mean over points: Tables 2 and 3.

    Args:
        track: tensor or array of shape (n + 1, m, d); ``track[l]`` holds x^(l) of m points.

    Returns:
        Float64 tensor of shape (n,), fractions that sum to 1. Points that never move are left
        out; NaN throughout if no point moves.

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.

    >>> segment_shares(torch.tensor([[0.0], [3.0], [4.0]])[:, None])
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    return stream(track).shares()


def stream(track: Tensor) -> LineShape:
    """The line shape of a whole track, tensor or array (n + 1, m, d).

    Raises:
        ValueError: ``track`` is not three-dimensional or has fewer than two states.
    """
    shape = LineShape()
    for state in as_track(track):
        shape.update(state)
    return shape


def as_track(track: Tensor) -> Tensor:
    """A track as a tensor (n + 1, m, d); ValueError unless it is one with n >= 1."""
    track = torch.as_tensor(floats(track))
    if track.ndim != 3 or len(track) < 2:
        raise ValueError(
            f"a track of shape {tuple(track.shape)}; should be (n + 1, m, d) with n >= 1"
        )
    return track


def as_state(state: Tensor) -> Tensor:
    """A state as a tensor (m, ...); ValueError unless it has points."""
    state = torch.as_tensor(floats(state))
    if state.ndim < 1:
        raise ValueError("a state of a single number; should be (m, d)")
    return state[:, None] if state.ndim == 1 else state


def _some_at_a_time(state: Tensor) -> Iterator[slice]:
    """Points whose float64 copies take little memory, and stay in a processor's cache."""
    size = max(1, CHUNK.get(state.device.type, CHUNK["cpu"]) // max(1, state[:1].numel()))
    for start in range(0, len(state), size):
        yield slice(start, start + size)


def lengths(x: Tensor) -> Tensor:
    """Length of each point, (m, ...) float64 -> (m,), even where its square vanishes."""
    return _normalised(x.clone())[1]


def _normalised(step: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors of steps (m, ...), 0 for a step of 0, and lengths (m,). Overwrites the steps."""
    length = _norm(step)
    divisor = length
    odd = ~((length > SQUARES[0]) & (length < SQUARES[1]))  # also 0 and NaN
    if step.numel() > 0 and bool(odd.any()):
        some = step[odd]
        size = some.flatten(1).abs().amax(1)
        size = torch.where((size > 0) & (size < torch.inf), size, 1.0)
        some /= wide(size, some)
        norm = _norm(some)
        step[odd], length[odd] = some, norm * size
        divisor = length.masked_scatter(odd, norm)
    step /= wide(torch.where(divisor > 0, divisor, 1.0), step)
    return step, length


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm of each point, (m, ...) -> (m,), without a copy in another layout."""
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)))


def wide(x: Tensor, like: Tensor) -> Tensor:
    """One value for each point, (m,) -> (m, 1, ...), to go with a state (m, ...)."""
    return x.reshape(-1, *[1] * (like.ndim - 1))
