"""Networks of torchvision, of timm and of users, which yield their states as ours do.

Which of their modules are blocks is not known here: it is found by running the network, see
:mod:`tune_jobs.blocks`. Given their names, hooks take the states while the network runs.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakIdKeyDictionary

from models.callables import call, loaded
from models.config import ARGUMENT, LIBRARIES, TrialConfig
from models.errors import CodeError
from models.messages import did_you_mean, first_line, plain
from models.pulled import pulled

Blocks = Sequence[Sequence[str]]  # names of the blocks of each stage, in the order of their calls
NAMES = ("hidden_states", "x", "input", "inputs", "src", "tgt")  # of a block's first argument
SIDES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384)  # tried where images are too small
FIXED = {  # arguments of the libraries that name a model, or weights to download
    *("name", "model_name", "weights", "weights_backbone", "pretrained", "checkpoint_path"),
    *("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "cache_dir"),
}
FREE = re.compile(  # parts of names of parameters that are no weights of a layer
    r"bias(es)?$|pos_?(emb|enc)|^pos$|(^|_)position(s|al)?(_(?!wise)|$)|rel_pos"
    r"|(height|width)_rel|(cls|class|dist|reg|mask)_token"
)
LAYERS = (nn.Linear, _ConvNd, nn.MultiheadAttention, nn.RNNBase)  # penalised whatever their names


class Custom(nn.Module):
    """A network that was not built here, with what its images need, and hooks on its blocks.

    Args:
        model: from images (m, c, h, w) to logits (m, classes).
        image: channels, height and width of the images it is given.
        classes: the number of classes.
        taken: channels, height and width that it takes. One channel is repeated; other sizes are
            interpolated bilinearly.
        blocks: see :data:`Blocks`. A block that is called more than once is named ``name``, then
            ``name (call 2)``.
    """

    def __init__(
        self,
        model: nn.Module,
        image: tuple[int, int, int],
        classes: int,
        taken: tuple[int, int, int],
        blocks: Blocks = (),
    ):
        super().__init__()
        self.model, self.image, self.classes, self.taken = model, image, classes, taken
        self.blocks = blocks
        self._places = {
            name: (stage, block)
            for stage, names in enumerate(blocks, 1)
            for block, name in enumerate(names, 1)
        }
        self._logits = WeakIdKeyDictionary()  # by the last state of a walk
        shared: dict[int, list[str]] = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            shared.setdefault(id(parameter), []).append(name)
        self._aliases = {name: names for names in shared.values() for name in names}

    def load_state_dict(self, state_dict: Mapping[str, Any], *more: Any, **options: Any) -> Any:
        """Load weights, after one call of the network.

        A layer may take its scales from the first images that it sees (ActNorm), and remember
        only in an attribute that it has. It would overwrite the weights that were loaded.
        """
        device, was = next(self.parameters()).device, self.training
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            self.train()(torch.zeros(2, *self.image, device=device))
        self.train(was)
        return super().load_state_dict(state_dict, *more, **options)

    def layout(self) -> list[tuple[tuple[int, ...], int]]:
        """The shape of a state and the number of blocks of each stage."""
        with torch.no_grad(), evaluating(self):
            device = next(self.parameters()).device
            states = list(self.states(torch.zeros(2, *self.image, device=device)))
        shapes = {stage: tuple(state.shape[1:]) for stage, state in states}
        return [(shapes[k], len(names)) for k, names in enumerate(self.blocks, 1)]

    @property
    def block_names(self) -> list[str]:
        """The names of all modules that are blocks."""
        return list(dict.fromkeys(name.partition(" (call ")[0] for name in self._places))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (m, classes) of standardised images (m, c, h, w)."""
        channels, *size = self.taken
        if images.shape[1] != channels:
            images = images.expand(-1, channels, -1, -1)
        if list(images.shape[2:]) != size:
            images = interpolate(images, size, mode="bilinear", align_corners=False)
        # Channels first in memory, also of one channel: code of users may take views of states.
        return self.model(images.clone(memory_format=torch.contiguous_format))

    def states(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Walk through the network, one block at a time.

        Args:
            images: standardised images, (m, c, h, w).

        Yields:
            The stage, 1 to K, and the state x^(l) of its points, (m, *shape of the stage), for
            l = 0, ..., n; l = 0 is what its first block takes. Each is a copy, and only the
            latest one is kept. The network waits in a thread of its own in between.

        Raises:
            CodeError: at the end, in evaluation mode: it ran more blocks than it has, or fewer.
        """

        def run(give: Callable[[tuple[int, Tensor]], None]) -> None:
            last: list[Tensor] = []

            def take(stage: int, state: Tensor) -> None:
                last[:] = [state]
                give((stage, state))

            with self._watched(take) as steps:
                logits = self(images)
            if not self.training:  # in training, blocks may be left out at random
                self._check_depth(steps)
            if last:
                self._logits[last[0]] = logits

        return pulled(run)

    def resume(
        self, state: Tensor, stage: int, blocks: Sequence[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """Not possible: what lies between its stages cannot be called by itself."""
        raise NotImplementedError(f"{type(self.model).__name__}: a walk cannot begin inside of it")

    def tracked(self, images: Tensor) -> tuple[list[tuple[int, Tensor]], Tensor]:
        """All states of a batch, as :meth:`states` yields them, with its logits (m, classes)."""
        states: list[tuple[int, Tensor]] = []
        with self._watched(lambda stage, state: states.append((stage, state))):
            logits = self(images)
        return states, logits

    def classify(self, state: Tensor) -> Tensor:
        """Logits (m, classes) for the last state of a finished walk; they can be taken once."""
        return self._logits.pop(state)

    @torch.no_grad()
    def weight_norms(self) -> list[list[float]]:
        """The sum of squares of the weight matrices of each block, which gamma penalises.

        Returns:
            A list of n floats for each stage, >= 0.
        """
        sums = dict.fromkeys(self.block_names, 0.0)
        counted: set[tuple[str, int]] = set()  # blocks may share weights, but count them once each
        for name, parameter in self.named_parameters(remove_duplicate=False):
            block = self._block_of(name)
            if block is None or (block, id(parameter)) in counted:
                continue
            counted.add((block, id(parameter)))
            if self.penalised(name, parameter, "blocks"):
                sums[block] += float(parameter.abs().double().square().sum())
        return [[sums[name.partition(" (call ")[0]] for name in names] for names in self.blocks]

    def penalised(self, name: str, parameter: Tensor, decay: str) -> bool:
        """Whether gamma penalises a parameter: a weight matrix of a layer, as in our networks.

        Biases, normalisations and scales of channels mostly have at most one axis longer than 1.
        The others are known by their modules, tokens and position embeddings by their names;
        timm's models name more of them. All names of a shared parameter count.

        Args:
            name: of the parameter.
            parameter: itself.
            decay: ``all``, or ``blocks`` for the weight matrices in blocks only.
        """
        if sum(size > 1 for size in parameter.shape) < 2:
            return False
        names = self._aliases.get(name, [name])
        if decay == "blocks" and not any(map(self._block_of, names)):
            return False
        skipped: Any = getattr(self.model, "no_weight_decay", set)
        free: Any = skipped() if callable(skipped) else ()
        inner = [name.removeprefix("model.") for name in names]
        return not any(name in free or self._free(name) for name in inner)

    def _free(self, name: str) -> bool:
        owner = self.model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, nn.LayerNorm | nn.RMSNorm):  # others have vectors only
            return True
        return not isinstance(owner, LAYERS) and any(map(FREE.search, name.split(".")))

    def _block_of(self, name: str) -> str | None:
        inner = name.removeprefix("model.")
        return next((b for b in self.block_names if inner.startswith(f"{b}.")), None)

    def _check_depth(self, steps: Mapping[str, int]) -> None:
        found = Counter(name.partition(" (call ")[0] for name in self._places)
        for name, wanted in found.items():
            if (ran := steps.get(name, 0)) != wanted:
                times = "time" if ran == 1 else "times"
                raise CodeError(
                    f"{type(self.model).__name__}: block {plain(name)} ran {ran} {times}, "
                    f"{wanted} {'was' if wanted == 1 else 'were'} found: the depth depends on the "
                    "images; make it fixed"
                )

    @contextmanager
    def _watched(self, take: Callable[[int, Tensor], None]) -> Iterator[dict[str, int]]:
        """Call a function with each stage and state while the network runs in this thread.

        Yields how often each block ran so far, without calls that change the shape of a state.
        """
        here = get_ident()  # other walks through the network may wait in other threads
        calls: dict[str, int] = {}
        steps: dict[str, int] = {}
        begun: set[int] = set()  # stages
        taken: dict[str, torch.Size] = {}  # shapes
        handles = []

        def place(name: str) -> tuple[int, int] | None:
            count = calls[name]
            return self._places.get(name if count == 1 else f"{name} (call {count})")

        def watch(name: str) -> None:
            def before(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
                if get_ident() != here:
                    return
                calls[name] = calls.get(name, 0) + 1
                named = [kwargs[one] for one in NAMES if one in kwargs]
                state = _states([*args, *named, *kwargs.values()])[0]
                taken[name] = state.shape
                where = place(name)
                if where is not None and where[0] not in begun:  # its first block may be left out
                    begun.add(where[0])
                    take(where[0], state.clone())

            def after(_: nn.Module, args: Any, output: Any) -> None:
                if get_ident() != here:
                    return
                where, states = place(name), _states([output])
                alike = [state for state in states if state.shape == taken[name]]
                if alike or where is not None:
                    steps[name] = steps.get(name, 0) + 1
                if where is not None:
                    take(where[0], (alike or states)[0].clone())

            block = self.model.get_submodule(name)
            handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(block.register_forward_hook(after))

        try:
            for name in self.block_names:
                watch(name)
            yield steps
        finally:
            for handle in handles:
                handle.remove()


def _states(given: Sequence[Any]) -> list[Tensor]:
    """What may be the state that a block takes or returns, as seen by the probe that found it.

    Tensors of floating-point numbers, then those inside of tuples, lists and mappings.
    """
    inside: list[Any] = []
    for value in given:
        if isinstance(value, Mapping):
            inside += value.values()
        elif isinstance(value, list | tuple):
            inside += value
    some = [value for value in [*given, *inside] if isinstance(value, Tensor)]
    return [tensor for tensor in some if tensor.is_floating_point() and tensor.ndim > 1]


def build_custom(
    config: TrialConfig, image: tuple[int, int, int], classes: int, blocks: Blocks = ()
) -> Custom:
    """The network of an architecture with its initial weights, on the CPU.

    The weights are those that the library or the user's code draws from torch's random numbers.
    They depend only on the seed, not on the device or gamma. The caller's random numbers go on
    as before. Nothing is downloaded.

    Args:
        config: a trial with an architecture; the file of a user's callable is loaded.
        image: channels, height and width of the images.
        classes: the number of classes.
        blocks: see :data:`Blocks`.

    Raises:
        CodeError: there is no such network, it cannot be built, or it does not take such images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _made(config, image, classes)
        fixed = config.architecture.partition(":")[0].endswith(".py")
        tried = _copied(model) if fixed else model
        try:
            taken = _taken(tried, image, classes, config, fixed)
        except CodeError:  # functions within the copy may use the model itself
            tried = model
            taken = _taken(model, image, classes, config, fixed)
        if tried.state_dict().keys() != model.state_dict().keys():  # its first call adds layers
            model = tried
        return Custom(model, image, classes, taken, blocks)


def _made(config: TrialConfig, image: tuple[int, int, int], classes: int) -> nn.Module:
    what, given = config.architecture, config.arguments
    library, _, name = what.partition(":")
    if refused := FIXED.intersection(given if library in LIBRARIES else ()):
        raise CodeError(
            f"{plain(what)}: {ARGUMENT}{min(refused)} cannot be given: weights are drawn at random"
        )
    if library == "torchvision":
        from torchvision.models import get_model, list_models

        _check_known(what, name, list_models())
        model = call(get_model, what, {"num_classes": classes}, name=name, weights=None, **given)
    elif library == "timm":
        try:
            import timm
        except ImportError as error:
            raise CodeError(
                f"{what}: timm cannot be imported ({first_line(error)}); pip install timm"
            ) from error
        _check_known(what, name.partition(".")[0], timm.list_models())
        offered = {"num_classes": classes}
        model = call(timm.create_model, what, offered, model_name=name, pretrained=False, **given)
    else:
        model = call(loaded(what), plain(what), {"classes": classes, "shape": image}, **given)
    if not isinstance(model, nn.Module):
        kind = plain(type(model).__name__)
        raise CodeError(f"{plain(what)}: returns {kind}; should return a torch.nn.Module")
    return _eager(model)


def _eager(model: nn.Module) -> nn.Module:
    """The model without torch.compile, whose code may leave out hooks that are set later."""
    for module in model.modules():
        if "_orig_mod" in module._modules:  # what torch.compile(module) returns
            module.forward = module._modules["_orig_mod"].__call__  # type: ignore[union-attr]
        elif module._compiled_call_impl is not None:  # after module.compile()
            module._compiled_call_impl = None
    return model


def _check_known(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        library = what.partition(":")[0]
        raise CodeError(f"{plain(what)}: {library} has no such model{did_you_mean(name, known)}")


def _copied(model: nn.Module) -> nn.Module:
    """A copy to try shapes on, as networks may set their scales from the first images they see.

    It is the model itself if that cannot be copied, or has no shapes before its first call.
    """
    if any(map(is_lazy, [*model.parameters(), *model.buffers()])):
        return model
    try:
        return deepcopy(model)
    except Exception:  # whatever a user's module or its tensors raise
        return model


def _taken(
    model: nn.Module, image: tuple[int, int, int], classes: int, config: TrialConfig, fixed: bool
) -> tuple[int, int, int]:
    """The channels and the size of images that a model takes: those given, if possible.

    Networks of libraries are tried with one channel repeated to three, then with larger images.
    """
    colour = (3, *image[1:]) if image[0] == 1 else image
    tried = [image, colour, *((colour[0], side, side) for side in SIDES if side > max(image[1:]))]
    told = ""
    for shape in dict.fromkeys([image] if fixed else tried):
        try:
            with torch.no_grad(), evaluating(model):
                found = model(torch.zeros(2, *shape))
        except Exception as error:  # whatever a model raises at images that it does not take
            told = (
                told if told and shape[0] == 1 else f"{type(error).__name__}: {first_line(error)}"
            )
            continue
        size = tuple(found.shape) if isinstance(found, Tensor) else plain(type(found).__name__)
        if size != (2, classes):
            raise CodeError(
                f"{plain(config.architecture)}: returns {size} for two images; should return "
                f"logits of shape (2, {classes})"
            )
        return shape
    raise CodeError(
        f"{plain(config.architecture)}: fails on images of shape {image} "
        f"(channels, height, width): {told}"
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; restores the modes of all modules afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
