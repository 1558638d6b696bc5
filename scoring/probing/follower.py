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
from scoring.probing.recorder import Recorder, Skipped, Sums, module_of

SEQUENCES = (nn.MultiheadAttention, nn.RNNBase)  # they say whether they take (b, t, d)
Misfit = tuple[str, tuple[int, ...]]  # the name of a mask, and its shape
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
        batch_first: whether states are (b, t, d). None: as the layers of the blocks say, see
            :meth:`_turn`.
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
        self.empty = 0  # calls of the model without points
        self.unsure: list[str] = []  # blocks whose states may be (b, t, d) or (t, b, d)
        self.unlike: dict[str, tuple[int, list[int]]] = {}  # see _compare_samples
        self._tokens, self._mask, self._batch_first = tokens, mask, batch_first
        self._branches = branches
        self._turned: dict[str, bool] = {}  # whether states of a block are (t, b, d)
        self._waiting: dict[str, Tensor] = {}  # what a block took of which this is not yet known
        self._missing: dict[str, Misfit | None] = {}  # by block; None once a mask fitted its state
        self._square: dict[str, Misfit | None] = {}  # by name of a mask; None if it must be (b, t)
        self._handles: dict[str, list[Any]] = {}  # by name of the module; "" is the model
        self._inside = self._again = False
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
        parts = [part for part in block.modules() if isinstance(part, SEQUENCES)]
        parts = [part for part in parts if not part.batch_first]
        if self._batch_first is not None or not parts:
            self._turned[name] = self._batch_first is False
            parts = []

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
                if name in self._turned:
                    recorder.before(name, self._points(name, state), state.dtype)
                else:
                    self._waiting[name] = state.detach().clone()

        def inside(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            taken = values.taken(args, kwargs)
            if name in self._waiting and name not in self._turned and taken is not None:
                self._turn(name, taken.shape)

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not self._inside or name not in self._shapes:
                return
            state = values.returned(output, self._shapes.pop(name))
            if name in self._waiting:
                with quiet():
                    if name not in self._turned:
                        self._turn(name, None)
                    waited = self._waiting.pop(name)
                    recorder.before(name, self._points(name, waited), waited.dtype)
            if state is None:
                self._refuse(recorder, name, f"returns {NO_STATE}")
                return
            with quiet():
                recorder.after(name, self._points(name, state), state.dtype)

        self._handles[name] = [
            block.register_forward_pre_hook(before, with_kwargs=True),
            block.register_forward_hook(after),
            *(part.register_forward_pre_hook(inside, with_kwargs=True) for part in parts),
        ]
        around = self._around(name)
        if self._branches and around is not None:

            def sum_of(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                call = recorder.last if self._inside else None
                if call is None or module_of(call) != name:
                    return  # another block ran in it, too
                state = values.returned(output, self._sizes[name])
                if state is not None:
                    with quiet():
                        recorder.compare(call, self._points(name, state))

            self._handles[name].append(around.register_forward_hook(sum_of))

    def _turn(self, name: str, inner: torch.Size | None) -> None:
        """Find out whether the states of a block are (t, b, d), as its layers take them.

        A block may also take (b, t, d), and turn that for its layers.

        Args:
            name: of the block.
            inner: the shape of what its first such layer takes; None if it called none.
        """
        shape = self._waiting[name].shape
        if len(shape) != 3:
            self._turned[name] = False
            return
        one, two = shape[:2]
        if inner is not None and tuple(inner[:2]) in {(one, two), (two, one)}:
            self._turned[name] = tuple(inner[:2]) == (one, two)
            if one == two:
                self.unsure.append(name)
        else:
            first, _ = values.samples(self._given)
            self._turned[name] = two in first and one not in first

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

    def _points(self, name: str, state: Tensor) -> Tensor:
        if state.is_nested:
            raise ProbeError(f"blocks: {name} has nested tensors; use enable_nested_tensor=False")
        if state.is_sparse or state.device.type == "meta":
            raise ProbeError(f"blocks: {name} has a state without values in memory")
        state = state.detach()
        if state.device.type == "mps":  # MPS has no float64
            state = state.cpu()
        if self._turned[name] and state.ndim == 3:
            state = state.transpose(0, 1)
        if self._mask is not None:
            mask = values.own_mask(self._mask(self._given), state, name)
        else:
            mask = self._padding(name, state)
        return values.points(state, self._tokens, mask)

    def _padding(self, name: str, state: Tensor) -> Tensor | None:
        """The first mask among the arguments that fits a state, if there is one."""
        found = values.padding(self._given, name in self._decoders) if state.ndim > 2 else {}
        for kind, mask in found.items():
            if values.fits(mask, state):
                self._missing[name] = None
                mask, shape = values.kept(mask, kind), tuple(mask.shape)
                if shape[0] != shape[1]:
                    self._square[kind] = None
                elif not mask.all():
                    self._square.setdefault(kind, (kind, shape))
                return mask
        if name not in self._missing:
            for kind, mask in found.items():
                if values.misses(mask, kind, state):
                    self._missing.setdefault(name, (kind, tuple(mask.shape)))
        return None

    @property
    def missing(self) -> dict[str, Misfit]:
        """Blocks in stages whose states no mask fitted, and such a mask that tells of padding."""
        names = {module_of(call) for stage in self.stages() for call in stage.calls}
        return {name: mask for name, mask in self._missing.items() if mask and name in names}

    @property
    def square(self) -> list[Misfit]:
        """Masks that were taken as padding, but may say which tokens see which others."""
        return [mask for mask in self._square.values() if mask]

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._again = in_backward()  # a gradient checkpoint computes states again
        if self._again:
            return
        self._forget()
        self._inside = True
        self._given = values.arguments(self.model, args, kwargs)

    def _end(self, *_: Any) -> None:
        if self._again:
            return
        self._inside = False
        with quiet():
            sizes = [size for recorder in self.recorders for size in recorder.close()]
            if sizes and not any(sizes):
                self.empty += 1
                self._forget()
                return
            for recorder in self.recorders:
                recorder.end()
        self.batches += 1
        if self.batches == 1:
            self._decide()
            self._compare_samples()
        self._forget()

    def _compare_samples(self) -> None:
        """Note the stages whose points are not samples: by their first blocks, both numbers."""
        first, second = values.samples(self._given)
        for stage in self.stages() if first and self._tokens == "all" else ():
            name = module_of(stage.calls[0])
            if stage.seen not in (first | second if self._turned[name] else first):
                self.unlike[stage.calls[0]] = stage.seen, sorted(first)

    def _forget(self) -> None:
        self._inside, self._given, self._shapes, self._waiting = False, {}, {}, {}
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


def in_backward() -> bool:
    """Whether this thread computes gradients."""
    task = getattr(torch._C, "_current_graph_task_id", None)  # torch has no public name for it
    return task is not None and task() != -1


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
