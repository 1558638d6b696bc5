"""Hooks on a model and its blocks, which hand every state of a forward pass to a recorder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from scoring.probing import values
from scoring.probing.blocks import Group, candidates, nested
from scoring.probing.errors import ProbeError
from scoring.probing.recorder import Recorder, Skipped, Sums

NO_STATE = "no tensor of floating-point numbers of shape (batch, ...)"


class Follower:
    """Follows forward passes of one model, without tracing it.

    Hooks see what a block takes and returns, and reduce or copy it at once, since a later
    operation may overwrite it in place. A batch is one call of the model.

    Args:
        model: a bare model.
        groups: of blocks.
        named: whether the user chose the blocks. Otherwise the first pass shows which groups are
            residual blocks: those of which at least half keep the shape of their input.
        keep: how many first points of every state to keep.
        branches: blocks return what is added to their input.
        tokens: see :func:`scoring.probing.values.points`.
        batch_first: whether states are (b, t, d). None: as the blocks' attention says.
        mask: gives a mask (b, t) of tokens that are no padding, from the arguments of the call.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        named: bool,
        keep: int = 0,
        branches: bool = False,
        tokens: str = "all",
        batch_first: bool | None = None,
        mask: values.Mask | None = None,
    ):
        self.model = model
        self.groups, self._named = list(groups), named
        numbers = count()
        self.recorders = [Recorder(keep, branches, numbers) for _ in groups]
        self.batches = 0
        self.outside = 0  # calls of blocks outside a call of the model
        self._tokens, self._mask, self._batch_first = tokens, mask, batch_first
        self._branches = branches
        self._handles: dict[str, list[Any]] = {}  # by name of the module; "" is the model
        self._inside = False
        self._shapes: dict[str, torch.Size] = {}  # of what running blocks have taken
        self._sizes: dict[str, torch.Size] = {}  # of what any block has taken last
        self._given: dict[str, Any] = {}  # the arguments of the running call
        self._called: dict[Recorder, None] = {}  # whose blocks ran, in the order of first calls
        names = [name for group in groups for name in group.names]
        both = any("encoder" in name for name in names)
        self._decoders = {name for name in names if both and "decoder" in name}

    def start(self) -> None:
        """Set the hooks."""
        model = self.model
        self._handles[""] = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end),
        ]
        for group, recorder in zip(self.groups, self.recorders, strict=True):
            for name in group.names:
                self._watch(name, recorder)

    def stop(self) -> None:
        """Remove the hooks and drop what an unfinished batch left."""
        for name in list(self._handles):
            self._unwatch(name)
        self._forget()

    def stages(self) -> list[Sums]:
        """The stages of all groups that turned out to be residual blocks, as they began."""
        stages = [stage for recorder in self.recorders for stage in recorder.stages]
        return sorted(stages, key=lambda stage: stage.number)

    @property
    def off(self) -> dict[str, float]:
        """Of all groups, see ``off`` of :class:`scoring.probing.recorder.Recorder`."""
        return {call: off for recorder in self.recorders for call, off in recorder.off.items()}

    def _watch(self, name: str, recorder: Recorder) -> None:
        block = self.model.get_submodule(name)
        sequence_first = self._batch_first is False or (
            self._batch_first is None
            and any(
                isinstance(part, nn.MultiheadAttention) and not part.batch_first
                for part in block.modules()
            )
        )

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._inside:
                self.outside += 1
                return
            self._called.setdefault(recorder)
            state = values.taken(args, kwargs)
            if state is None:
                self._refuse(recorder, name, f"takes {NO_STATE}")
                return
            self._shapes[name] = self._sizes[name] = state.shape
            with quiet():
                recorder.before(name, self._points(name, state, sequence_first))

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not self._inside or name not in self._shapes:
                return
            state = values.returned(output, self._shapes.pop(name))
            if state is None:
                self._refuse(recorder, name, f"returns {NO_STATE}")
                return
            with quiet():
                recorder.after(name, self._points(name, state, sequence_first))

        self._handles[name] = [
            block.register_forward_pre_hook(before, with_kwargs=True),
            block.register_forward_hook(after),
        ]
        around = self._around(name)
        if self._branches and around is not None:

            def sum_of(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                call = recorder.last if self._inside else None
                if call is None or call.partition(" (call ")[0] != name:
                    return  # another block ran in it, too
                state = values.returned(output, self._sizes[name])
                if state is not None:
                    with quiet():
                        recorder.compare(call, self._points(name, state, sequence_first))

            self._handles[name].append(around.register_forward_hook(sum_of))

    def _around(self, name: str) -> nn.Module | None:
        """The nearest module around a block that is called; None if that is the model."""
        parent = name.rpartition(".")[0]
        while parent:
            module = self.model.get_submodule(parent)
            if not isinstance(module, nn.ModuleList | nn.ModuleDict):
                return module
            parent = parent.rpartition(".")[0]
        return None

    def _refuse(self, recorder: Recorder, name: str, problem: str) -> None:
        """A user's block must have states; a block that ``auto`` tries may have none."""
        if self._named or self.batches:
            raise ProbeError(f"blocks: {name} {problem}")
        recorder.refuse(name, problem)

    def _unwatch(self, name: str) -> None:
        for handle in self._handles.pop(name):
            handle.remove()

    def _points(self, name: str, state: Tensor, sequence_first: bool) -> Tensor:
        if state.is_nested:
            raise ProbeError(f"blocks: {name} has nested tensors; use enable_nested_tensor=False")
        if state.is_sparse or state.device.type == "meta":
            raise ProbeError(f"blocks: {name} has a state without values in memory")
        state = state.detach()
        if state.device.type == "mps":  # MPS has no float64
            state = state.cpu()
        if sequence_first and state.ndim == 3:
            state = state.transpose(0, 1)
        if self._mask is not None:
            masks = [values.own_mask(self._mask(self._given), state, name)]
        else:
            masks = values.padding(self._given, name in self._decoders)
        return values.points(state, self._tokens, masks)

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._forget()
        self._inside = True
        self._given = values.arguments(self.model, args, kwargs)

    def _end(self, *_: Any) -> None:
        self._inside = False
        with quiet():
            for recorder in self.recorders:
                recorder.end()
        self.batches += 1
        if self.batches == 1:
            self._decide()
        self._forget()

    def _forget(self) -> None:
        self._inside, self._given, self._shapes = False, {}, {}
        for recorder in self.recorders:
            recorder.begin()

    def _decide(self) -> None:
        """Keep the outermost groups whose blocks are steps; drop the hooks of the others."""
        fitting = [place for place in range(len(self.groups)) if self._fits(place)]
        chosen: list[int] = []
        for place in fitting:
            group = self.groups[place]
            inner = any(  # also if one of its blocks is outside, such as a unit that a stem uses
                nested(group, self.groups[other]) and not nested(self.groups[other], group)
                for other in fitting
            )
            if not inner and not any(nested(group, self.groups[other]) for other in chosen):
                chosen.append(place)
        if not chosen:
            raise ProbeError(self._nothing())
        order = list(self._called)
        chosen.sort(key=lambda place: order.index(self.recorders[place]))
        for place in fitting:
            if place not in chosen:
                self._leave_out(self.groups[place], chosen)
        self.groups = [self.groups[place] for place in chosen]
        self.recorders = [self.recorders[place] for place in chosen]
        kept = {name for group in self.groups for name in group.names} | {""}
        for name in self._handles.keys() - kept:
            self._unwatch(name)

    def _fits(self, place: int) -> bool:
        """Whether the blocks of a group turned out to be steps."""
        group, recorder = self.groups[place], self.recorders[place]
        longest = max((len(stage.calls) for stage in recorder.stages), default=0)
        if self._named:
            return longest > 1 or (longest == 1 and not recorder.added)
        return longest > 1 and 2 * recorder.alike >= len(group.names)

    def _leave_out(self, group: Group, chosen: Sequence[int]) -> None:
        """Note the blocks of an inner group that are in no block of the chosen groups."""
        others = [self.groups[place] for place in chosen]
        left = [
            name
            for name in group.names
            if not any(nested(Group(group.label, (name,)), other) for other in others)
        ]
        if left:
            more = f", and {len(left) - 1} more like it" if len(left) > 1 else ""
            reason = f"other {group.label} are parts of other blocks{more}"
            self.recorders[chosen[0]].skipped.append(Skipped(left[0], reason))

    def _nothing(self) -> str:
        """Why no group has steps."""
        lines = [f"blocks: no residual blocks in {type(self.model).__name__}"]
        for group, recorder in zip(self.groups, self.recorders, strict=True):
            lines.append(f"  {group.label} x {len(group.names)}: {group.names[0]}, ...")
            if recorder not in self._called:
                lines.append("    none of them is called")
            if recorder.added:
                lines.append(
                    f"    what {recorder.added} of them return is added to their input: pass "
                    "branches=True with their names or type"
                )
            lines += [f"    {skipped.call} {skipped.reason}" for skipped in recorder.skipped[:3]]
        return "\n".join(lines) + candidates(self.model)


@contextmanager
def quiet() -> Iterator[None]:
    """Measure in full precision, without gradients, and outside inference mode."""
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast("cuda", enabled=False),
        torch.autocast("cpu", enabled=False),
    ):
        yield
