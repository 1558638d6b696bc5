"""Networks of torchvision, of timm and of users, which yield their states as ours do.

Which of their modules are blocks is not known here: it is found by running the network, see
:mod:`tune_jobs.blocks`. Given their names, hooks take the states while the network runs.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakIdKeyDictionary

from models.callables import call, loaded
from models.config import LIBRARIES, TrialConfig
from models.errors import CodeError
from models.libraries import library_model
from models.matrices import is_matrix
from models.messages import first_line, plain
from models.pulled import pulled
from models.watched import Ran, module_of, watched

Blocks = Sequence[Sequence[str]]  # names of the blocks of each stage, in the order of their calls
SIDES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384)  # tried where images are too small


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
        return list(dict.fromkeys(map(module_of, self._places)))

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
            CodeError: at the end, in evaluation mode: it ran more blocks than it has, or fewer, or
                a block took another state than the one before it returned.
        """

        def run(give: Callable[[tuple[int, Tensor]], None]) -> None:
            last: list[Tensor] = []

            def take(stage: int, state: Tensor) -> None:
                last[:] = [state]
                give((stage, state))

            fixed = not self.training  # in training, blocks may be left out at random
            with watched(self.model, self._places, take, compare=fixed) as ran:
                logits = self(images)
            if fixed:
                self._check(ran)
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
        with watched(self.model, self._places, lambda *pair: states.append(pair), compare=False):
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
        return [[sums[module_of(name)] for name in names] for names in self.blocks]

    def penalised(self, name: str, parameter: Tensor, decay: str) -> bool:
        """Whether gamma penalises a parameter: a weight matrix of a layer, as in our networks.

        :mod:`models.matrices` knows them; timm's models name others that are free. All names of a
        shared parameter count.

        Args:
            name: of the parameter.
            parameter: itself.
            decay: ``all``, or ``blocks`` for the weight matrices in blocks only.
        """
        names = self._aliases.get(name, [name])
        if decay == "blocks" and not any(map(self._block_of, names)):
            return False
        skipped: Any = getattr(self.model, "no_weight_decay", set)
        free: Any = skipped() if callable(skipped) else ()
        inner = [name.removeprefix("model.") for name in names]
        return all(n not in free and is_matrix(self.model, n, parameter) for n in inner)

    def _block_of(self, name: str) -> str | None:
        inner = name.removeprefix("model.")
        return next((b for b in self.block_names if inner.startswith(f"{b}.")), None)

    def _check(self, ran: Ran) -> None:
        """Check that a walk was the one that was found."""
        found = Counter(map(module_of, self._places))
        for name, wanted in found.items():
            if (count := ran.steps.get(name, 0)) != wanted:
                times = "time" if count == 1 else "times"
                raise CodeError(
                    f"{type(self.model).__name__}: block {plain(name)} ran {count} {times}, "
                    f"{wanted} {'was' if wanted == 1 else 'were'} found: the depth depends on the "
                    "images; make it fixed"
                )
        if ran.gaps:
            raise CodeError(
                f"{type(self.model).__name__}: block {plain(ran.gaps[0])} takes another state than "
                "the block before it returned. Nothing lay between them when blocks were found, "
                "with other images and weights; make what lies there a part of a block"
            )


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
    if what.partition(":")[0] in LIBRARIES:
        model = library_model(what, classes, given)
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
