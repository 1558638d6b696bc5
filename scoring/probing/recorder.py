"""Follow the states of one group of blocks through any number of batches, and add them up."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoring.line_shape import LineShape, Points
from scoring.probing.errors import ProbeError
from scoring.projection import SHOWN, project
from scoring.spread import scatter

MOST = 1000  # points of an effective rank: eigenvalues of (m, m) cost m^3


def module_of(call: str) -> str:
    """The name of the module of a call. Further calls have its name and a number."""
    return call.partition(" (call ")[0]


class Skipped(NamedTuple):
    """A call of a block that is no step of a stage, or a place where a stage had to end."""

    call: str
    reason: str


@dataclass
class Walk:
    """One stage in one batch."""

    first: str  # the block that took x^(0)
    shape: tuple[int, ...]  # of a point
    number: int  # of all stages of a model, by their first blocks
    track: LineShape = field(default_factory=LineShape)
    calls: list[str] = field(default_factory=list)
    kinds: list[torch.dtype] = field(default_factory=list)  # of each state
    rounded: list[float] = field(default_factory=list)  # mean (epsilon |x^(l)|)^2; NaN if 32-bit
    scatters: list[Tensor] = field(default_factory=list)  # of each state
    kept: list[Tensor] = field(default_factory=list)  # the first points of each state, on the CPU
    projected: list[Tensor] = field(default_factory=list)
    done: tuple[Points, list[Tensor]] | None = None  # and the sum of each step, (d,)


@dataclass
class Sums:
    """One stage over all batches so far."""

    calls: list[str]
    shape: tuple[int, ...]
    kinds: list[torch.dtype]  # of each state, in the first batch
    number: int
    steps: list[Tensor]  # the sum over points of each step, (d,)
    scatters: list[Tensor]
    scattered: int  # points in each of them
    seen: int = 0  # points
    points: list[Points] = field(default_factory=list)
    rounded: list[np.ndarray] = field(default_factory=list)  # (n + 1,) for each batch
    kept: list[list[Tensor]] = field(default_factory=list)
    projected: list[list[Tensor]] = field(default_factory=list)


class Recorder:
    """Follows one group of blocks.

    A stage is a sequence of calls that keep the shape of their input, each of which takes what the
    one before it returned. Everything else starts a new stage. A batch counts when it ends, so a
    batch that fails leaves nothing.

    Args:
        keep: how many first points of every state to keep.
        branches: blocks return what is added to their input.
        numbers: of the stages that begin, also those of other groups of the same model.
    """

    def __init__(self, keep: int, branches: bool, numbers: Iterator[int]):
        self._keep, self._branches, self._numbers = keep, branches, numbers
        self.stages: list[Sums] = []
        self.skipped: list[Skipped] = []  # of the first batch
        self.alike = 0  # calls of the first batch that keep the shape of their input
        self.added = 0  # places where the input plus the output is what the next block takes
        self.off: dict[str, float] = {}
        """With branches: by call of the first batch, how far the input plus the output is from what
        the model goes on with, as a share of the output. Unknown calls are left out."""
        self._batches = 0
        self.begin()

    def begin(self) -> None:
        """Begin a batch, and drop what an unfinished one left."""
        self._walks: list[Walk] = []
        self._skipped: list[Skipped] = []
        self._counts: dict[str, int] = {}
        self._open: Walk | None = None
        self._before: Tensor | None = None  # the first point of the last block's input
        self._input: Tensor | None = None  # what is added to, if blocks return branches
        self._alike = self._added = 0
        self._off: dict[str, float] = {}
        self._step_size = 0.0  # of the last branch

    def before(self, name: str, state: Tensor, kind: torch.dtype) -> None:
        """Note the state (m, ...) that a block is about to take, and its number format there."""
        walk = self._open
        if walk is not None and walk.calls:
            self.compare(walk.calls[-1], state)
            if same(walk.track.last, state, (walk.kinds[-1], kind)):
                if torch.finfo(kind).eps > torch.finfo(walk.kinds[-1]).eps:
                    walk.kinds[-1], walk.rounded[-1] = kind, _rounded(state)
                self._take(state, kind)
                return
            last = walk.track.last
            if self._before is not None and last is not None and last.shape == state.shape:
                self._added += near(self._before + last[:1], state[:1])
                reason = f"takes another state than {walk.calls[-1]} returned"
                self._skipped.append(Skipped(name, reason))
        self._close()
        self._open = Walk(name, tuple(state.shape[1:]), next(self._numbers))
        self._step(self._open, state, kind)
        self._take(state, kind)

    def _take(self, state: Tensor, kind: torch.dtype) -> None:
        self._kind = kind
        self._before = state[:1].clone()
        self._input = state.clone() if self._branches else None

    def compare(self, call: str, state: Tensor) -> None:
        """Compare a state that the model went on with to the last block's input plus output.

        This matters only if blocks return branches. The state nearest to the sum counts.

        Args:
            call: of the last block, by :attr:`last`.
            state: what the next block takes, or what the module around the last one returns.
        """
        walk = self._open
        total = None if walk is None else walk.track.last
        if not self._branches or total is None or total.shape != state.shape:
            return
        away = float(torch.linalg.vector_norm((state - total).double()))
        share = away / self._step_size if self._step_size else math.inf if away else 0.0
        self._off[call] = min(share, self._off.get(call, math.inf))

    @property
    def last(self) -> str | None:
        """The last call of the open stage."""
        return self._open.calls[-1] if self._open is not None and self._open.calls else None

    def refuse(self, name: str, reason: str) -> None:
        """Note that a block has no state."""
        self._skipped.append(Skipped(name, reason))

    def after(self, name: str, state: Tensor, kind: torch.dtype) -> None:
        """Note the state that a block returned, and its number format there."""
        walk = self._open
        count = self._counts[name] = self._counts.get(name, 0) + 1
        call = name if count == 1 else f"{name} (call {count})"
        if walk is None or walk.shape != tuple(state.shape[1:]) or len(state) != walk_size(walk):
            shapes = "?" if walk is None else "x".join(map(str, walk.shape))
            after = "x".join(map(str, state.shape[1:]))
            self._skipped.append(Skipped(call, f"changes the shape: {shapes} to {after}"))
            self._close()
            return
        self._alike += 1
        walk.calls.append(call)
        if self._input is not None:
            self._step_size = float(torch.linalg.vector_norm(state.double()))
            state = self._input + state
            kind = torch.promote_types(kind, self._kind)
        self._step(walk, state, kind)

    def close(self) -> list[int]:
        """Close the last stage of a batch; the number of points of each of its stages."""
        self._close()
        return [walk.done[0].score.numel() for walk in self._walks if walk.done is not None]

    def end(self) -> None:
        """End a batch, and count it.

        Raises:
            ProbeError: its stages differ from those of the first batch.
        """
        self._close()
        walks = self._walks
        if self._batches and [w.calls for w in walks] != [s.calls for s in self.stages]:
            raise ProbeError(
                f"batch {self._batches + 1} ran blocks {_calls(walks)}; the first one ran "
                f"{_calls(self.stages)}; layers that are dropped at random need model.eval()"
            )
        for place, walk in enumerate(walks):
            assert walk.done is not None
            points, steps = walk.done
            size = points.score.numel()
            if not self._batches:
                self.stages.append(
                    Sums(
                        calls=walk.calls,
                        shape=walk.shape,
                        kinds=walk.kinds,
                        number=walk.number,
                        steps=[torch.zeros_like(step) for step in steps],
                        scatters=walk.scatters,
                        scattered=min(size, MOST),
                    )
                )
            sums = self.stages[place]
            if sums.shape != walk.shape:
                raise ProbeError(
                    f"{walk.calls[0]} has states of shape {walk.shape} in batch "
                    f"{self._batches + 1}, {sums.shape} in the first one; make samples of one "
                    "length, or take tokens='each', 'first', 'mean' or 'last'"
                )
            for total, step in zip(sums.steps, steps, strict=True):
                total += step
            sums.seen += size
            sums.points.append(points)
            sums.rounded.append(np.array(walk.rounded))
            sums.kept.append(walk.kept)
            sums.projected.append(walk.projected)
        if not self._batches:
            self.skipped, self.alike, self.added = self._skipped, self._alike, self._added
            self.off = self._off
        self._batches += 1
        self.begin()

    def _close(self) -> None:
        walk, self._open = self._open, None
        if walk is not None and walk.calls:
            points, steps = walk.track.finish()
            walk.done = Points(*(values.cpu() for values in points)), steps
            self._walks.append(walk)

    def _step(self, walk: Walk, state: Tensor, kind: torch.dtype) -> None:
        walk.track.update(state)
        place = len(self._walks)  # of this stage; stages may have different numbers of points
        seen = self.stages[place].seen if place < len(self.stages) else 0
        left = self._keep - seen
        if left > 0:
            walk.kept.append(state[:left].flatten(1).detach().cpu().clone())
        if seen < SHOWN:
            some = state[: SHOWN - seen].split(1)
            walk.projected.append(torch.cat([project(point) for point in some]).cpu())
        if not self._keep and not self._batches:
            walk.scatters.append(scatter(state[:MOST]))
        walk.kinds.append(kind)
        walk.rounded.append(_rounded(state))


def _rounded(state: Tensor) -> float:
    """The mean square of the rounding of a state, (epsilon |x|)^2; NaN from 32 bits on.

    It is NaN also for means over tokens, which are in float64: their rounding averages out.
    """
    if state.element_size() >= 4:
        return math.nan
    size = torch.linalg.vector_norm(state.flatten(1), dim=1, dtype=torch.float32)
    return torch.finfo(state.dtype).eps ** 2 * float(size.double().square().mean())


def same(one: Tensor | None, other: Tensor, kinds: tuple[torch.dtype, torch.dtype]) -> bool:
    """Whether two states are equal, rounded to the coarser of their formats; NaN equals NaN.

    Means over tokens are float64, whatever the format of the tokens that were rounded.
    """
    if one is None or one.shape != other.shape:
        return False
    if kinds[0] != kinds[1]:
        kind = max(kinds, key=lambda kind: torch.finfo(kind).eps)
        if one.dtype == other.dtype:
            return near(one, other, torch.finfo(kind).eps)
        one, other = one.to(kind), other.to(kind)
    return torch.equal(one, other) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def near(one: Tensor, other: Tensor, share: float = 0.01) -> bool:
    """Whether two states are equal up to a share of their size: rounding of 16-bit numbers."""
    away = torch.linalg.vector_norm((one - other).double())
    return bool(away <= share * torch.linalg.vector_norm(other.double()))


def walk_size(walk: Walk) -> int:
    """Points of a stage in this batch."""
    return 0 if walk.track.last is None else len(walk.track.last)


def _calls(stages: "list[Walk] | list[Sums]") -> str:
    return "; ".join(", ".join(stage.calls) for stage in stages) or "none"
