"""How straight is the path of data through any torch model? A probe around ordinary forward passes.

It finds the residual blocks of a model, follows the states between them with hooks, and measures
each stage (blocks whose states have one shape) as :mod:`scoring.stages` does for the networks of
this package.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn

from scoring.probing import nulls
from scoring.probing.blocks import Wanted, bare, choose
from scoring.probing.errors import ProbeError, ProbeWarning
from scoring.probing.follower import Follower, quiet
from scoring.probing.measured import measured
from scoring.probing.result import ProbeResult
from scoring.probing.values import TOKENS, Mask

ADDED = 0.01  # Warn if input plus output is further than this share of the output from the state.


class TrackProbe:
    """Measure the stages of a model while it runs.

    Every call of the model within the context is a batch of points. When the context ends, all
    hooks are removed, and :attr:`result` holds the scores. After an exception nothing is kept.

    Memory: per batch two states in their own precision and two in float64, of the stage that is
    running; about ``24 (n + 2)`` bytes a point and n + 1 sums of d numbers over batches; and with
    ``transport`` all states of that many points, on the CPU.

    Args:
        model: any module. A compiled one runs eagerly within the context.
        blocks: ``auto`` finds repeated blocks by structure and keeps those that keep the shape of
            their input. Otherwise a regular expression for whole names of modules, a type, or a
            list of names or types.
        tokens: what a point is, where states are (b, t, d). ``all``: a sample with all its
            tokens. ``each``: every token. ``first``, ``last``, ``mean``: one token of a sample, or
            their mean. Padding is left out, as an attention mask among the arguments says.
        branches: blocks return what is added to their input, and the model adds it.
        transport: also solve OTS, the excess and the Wasserstein curve of this many first points.
        null: other models to run on the same batches: ``reinit``, a copy with new weights;
            ``shuffle``, a copy with the blocks of each stage in random order; a module of the same
            structure; or a list of these. Results call modules ``null``, ``null_2``, ...
        batch_first: whether states are (b, t, d) rather than (t, b, d). By default as the blocks'
            ``nn.MultiheadAttention`` or ``nn.LSTM`` takes them, and True without one.
        mask: a function from the arguments of a call, by name, to a mask (b, t) that is True at
            tokens that are no padding. By default ``attention_mask`` and the like are used.

    Raises:
        ProbeError: no blocks are found, or the model cannot be followed; a ``ValueError``.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return x + self.layer(x)
    >>> model = nn.Sequential(Block(), Block(), Block())
    >>> with TrackProbe(model) as probe:
    ...     _ = model(torch.randn(8, 4))
    >>> probe.result.stages[0].blocks, probe.result.stages[0].points.score.shape
    (('0', '1', '2'), (8,))
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Wanted = "auto",
        *,
        tokens: str = "all",
        branches: bool = False,
        transport: int = 0,
        null: str | nn.Module | Sequence[str | nn.Module] = (),
        batch_first: bool | None = None,
        mask: Mask | None = None,
    ):
        if tokens not in TOKENS:
            raise ProbeError(f"tokens: {tokens!r}; should be one of {', '.join(TOKENS)}")
        if isinstance(transport, bool) or transport < 0 or transport == 1:
            raise ProbeError(f"transport: {transport}; should be a number of points, 2 or more")
        self.model = bare(model)
        self._groups = choose(self.model, blocks)
        self._named = blocks != "auto"
        self._transport = transport
        self._settings: dict[str, Any] = {
            "keep": transport,
            "branches": branches,
            "tokens": tokens,
            "batch_first": batch_first,
            "mask": mask,
        }
        wanted = [null] if isinstance(null, str | nn.Module) else null
        self._null = list(dict.fromkeys(wanted))
        unknown = [n for n in self._null if isinstance(n, str) and n not in ("reinit", "shuffle")]
        if unknown:
            raise ProbeError(f"null: {unknown[0]!r}; should be reinit, shuffle or a module")
        for other in self._null:
            if isinstance(other, nn.Module) and self.model in other.modules():
                raise ProbeError("null: the model itself; pass a copy, as of copy.deepcopy(model)")
        self._result: ProbeResult | None = None
        self._main: Follower | None = None

    @property
    def result(self) -> ProbeResult:
        """The scores, once the context has ended.

        Raises:
            ProbeError: the context has not ended, or it ended with an exception.
        """
        if self._result is None:
            raise ProbeError("the scores of a probe are there once its context has ended")
        return self._result

    def __enter__(self) -> "TrackProbe":
        if self._main is not None:
            raise ProbeError("this probe is running already")
        self._result = None
        self._copies: dict[str, nn.Module] = {}
        for null in self._null:
            self._copy(null)
        given = [null for null in self._null if isinstance(null, nn.Module)]
        self._modes = [(part, part.training) for null in given for part in null.modules()]
        self._others: dict[str, Follower] = {}
        self._settled: list[Any] = []  # normalisations that saw data here first
        self._call: Any = None  # arguments of the running call, for the nulls
        self._main = Follower(self.model, self._groups, self._named, **self._settings)
        self._stance = None
        if "torch._dynamo" in sys.modules:  # otherwise nothing can have been compiled
            self._stance = torch.compiler.set_stance("force_eager")
        self._main.start()
        self._handles = []
        if self._copies:
            self._handles = [
                self.model.register_forward_pre_hook(self._before, with_kwargs=True),
                self.model.register_forward_hook(self._after),
            ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        main, others = self._main, self._others
        assert main is not None
        for handle in self._handles:
            handle.remove()
        for follower in (main, *others.values()):
            follower.stop()
        for norm in self._settled:
            norm.reset_running_stats()
        for part, training in self._modes:
            part.training = training
        if self._stance is not None:
            self._stance.__exit__(kind, error, trace)
        self._main, self._others, self._copies, self._call = None, {}, {}, None
        self._settled, self._modes = [], []
        if kind is None:
            with quiet():
                self._result = self._measured(main, others)

    def _copy(self, null: str | nn.Module) -> None:
        if isinstance(null, nn.Module):
            count = 1 + sum(name.startswith("null") for name in self._copies)
            self._copies["null" if count == 1 else f"null_{count}"] = bare(null)
        else:
            make = nulls.reinitialised if null == "reinit" else nulls.same_weights
            self._copies[null] = make(self.model)

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert self._main is not None
        self._call = nulls.own_inputs((args, kwargs)), self._main.batches

    def _after(self, *_: Any) -> None:
        """Run the other models on what the model took."""
        main = self._main
        assert main is not None
        (args, kwargs), before = self._call
        self._call = None
        if main.batches == before:
            return  # it did not count
        for name, model in self._copies.items():
            if name not in self._others:
                if name == "shuffle":
                    nulls.shuffle(model, [stage.calls for stage in main.stages()])
                elif not self.model.training:
                    self._settle(model, args, kwargs)
                self._others[name] = Follower(model, main.groups, True, **self._settings)
                self._others[name].start()
            model.train(self.model.training)
            devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
            with torch.no_grad(), torch.random.fork_rng(devices=devices):
                model(*args, **kwargs)

    def _settle(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Show a batch to normalisations that saw no data, but did in the model."""
        own = nulls.unsettled(self.model)
        norms = [norm for name, norm in nulls.unsettled(model).items() if name not in own]
        if norms:
            self._settled += norms
            given, named = nulls.own_inputs((args, kwargs))
            nulls.settle(model, norms, given, named)

    def _measured(self, main: Follower, others: dict[str, Follower]) -> ProbeResult:
        if not main.batches:
            if main.empty:
                raise ProbeError(f"{type(self.model).__name__} was called on no points only")
            more = f"; blocks ran {main.outside} times outside of one" if main.outside else ""
            raise ProbeError(
                f"{type(self.model).__name__} was not called while the probe watched{more}: call "
                "the model itself, not its forward or its parts"
            )
        _warn_of_sums(main.off)
        _warn_of_points(main)
        _compare_batches(main, others)
        found = {name: self._stages(follower) for name, follower in others.items()}
        stages = self._stages(main)
        for name, other in found.items():
            if [stage.blocks for stage in other] != [stage.blocks for stage in stages]:
                raise ProbeError(f"null: {name} has other stages than the model")
        return ProbeResult(
            stages=stages,
            nulls=found,
            matched=[
                f"{group.label} x {len(group.names)}: {_few(group.names)}" for group in main.groups
            ],
            skipped=[f"{s.call}: {s.reason}" for r in main.recorders for s in r.skipped],
            batches=main.batches,
        )

    def _stages(self, follower: Follower) -> list[Any]:
        return [
            measured(sums, number, self._transport, follower.off)
            for number, sums in enumerate(follower.stages(), 1)
        ]


def _warn_of_sums(found: Mapping[str, float]) -> None:
    """Warn of branches that the model does not add unchanged to the input of their block."""
    wrong = {call: off for call, off in found.items() if off > ADDED}
    if wrong:
        call, off = next(iter(wrong.items()))
        more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        _warn(
            f"branches: the model does not go on with the input of {call} plus what it returned: "
            f"the difference has {off:.0%} of the size of what it returned{more}. The branch is "
            "scaled, dropped or normalised, or its input is not what it is added to; name modules "
            "that take and return whole states"
        )


def _compare_batches(main: Follower, others: Mapping[str, Follower]) -> None:
    """Warn of nulls that did not run on all batches, as one of them failed."""
    for name, other in others.items():
        if not other.batches:
            raise ProbeError(f"null: {name} ran through no batch")
        if other.batches < main.batches:
            _warn(
                f"null: {name} has fewer points than the model, as it ran through "
                f"{other.batches} of {main.batches} batches"
            )


def _warn_of_points(main: Follower) -> None:
    """Warn where points may not be what the user thinks."""
    first = "pass batch_first=False if blocks take (tokens, batch, channels)"
    if main.unlike:
        call, (count, sizes) = next(iter(main.unlike.items()))
        more = f"; {len(main.unlike) - 1} more stages are like it" if len(main.unlike) > 1 else ""
        _warn(
            f"{call} has {count} points in the first batch, whose arguments have "
            f"{' or '.join(map(str, sizes))} along their first axis: {first}, or choose what a "
            f"point is with tokens={more}"
        )
    if main.unsure:
        _warn(
            f"{main.unsure[0]} has as many samples as tokens in the first batch: {first}, or True"
        )
    told = "pass mask=, a function that returns True at tokens that are no padding"
    if main.missing:
        block, (name, shape) = next(iter(main.missing.items()))
        more = f" and in {len(main.missing) - 1} more blocks" if len(main.missing) > 1 else ""
        _warn(
            f"{name} of shape {shape} fits no state of {block}, so padding is not left out there"
            f"{more}; {told}"
        )
    for name, shape in main.square:
        _warn(f"{name} of shape {shape} is taken as (samples, tokens); if it is not, {told}")


def _warn(message: str) -> None:
    warnings.warn(message, ProbeWarning, stacklevel=5)


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names if len(names) < 3 else (names[0], "...", names[-1]))
