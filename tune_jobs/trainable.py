"""Checks that a network of a user or a library can be trained as its trial says.

It is tried on random images, so that a mistake is reported before anything starts.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pickle import UnpicklingError

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.config import TrialConfig
from models.custom import Custom
from models.errors import CodeError
from models.messages import first_line, plain
from models.network import build
from models.steps import Totals, take_step
from models.training import make_optimizer
from models.watched import module_of
from scoring.probing.errors import ProbeError

IMAGES = 4  # of a pass; networks that leave parts out at random may need more, see below
PASSES = 16  # A part that each of them leaves out with probability 1/2 is missed once in 65,536.
MOST = 64  # images of a pass but the first, if they are small
PIXELS = 2**16  # of all images of a pass, if there are more than IMAGES
ROUNDING = 1e-5  # Logits of equal networks differ by less than this share of their size.


def check_trainable(network: Custom, trial: TrialConfig) -> None:
    """Check that every weight has a part in the loss, and that a trial can step, stop and go on.

    The network should not be used afterwards, as its weights and statistics have changed.

    Args:
        network: on the CPU; it knows its blocks if the trial penalises their states.
        trial: its precision, penalties and recipe matter.

    Raises:
        CodeError: it fails in training mode, some weights would never change, a penalty does
            nothing, or its state cannot be restored from a checkpoint.
    """
    network.train()
    _check_loss(network, trial.precision)
    _check_penalties(network, trial)
    _check_step(network, trial)


def _check_loss(network: Custom, precision: str) -> None:
    name, count = _name(network), IMAGES
    for _ in range(PASSES):  # gradients add up, as parts may be left out at random
        with _training(network, precision):
            logits = network(torch.randn(count, *network.image))
        if not isinstance(logits, Tensor) or logits.shape != (count, network.classes):
            kind = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise CodeError(
                f"{name} returns {plain(kind)} for {count} images in training; should return "
                f"logits of shape ({count}, {network.classes}){_without_aux(network)}"
            )
        with refused(f"{name} fails in training in {precision}"):
            cross_entropy(logits.float(), torch.zeros(count, dtype=torch.int64)).backward()
        own = network.model.named_parameters()
        idle = [n for n, p in own if p.requires_grad and p.grad is None]
        if not idle:
            return
        count = min(MOST, max(IMAGES, PIXELS // math.prod(network.taken[1:])))
    raise CodeError(
        f"{name}: {plain(idle[0])} has no part in the loss ({len(idle)} such parameters); "
        "delete it, or set its requires_grad to False"
    )


def _check_penalties(network: Custom, trial: TrialConfig) -> None:
    """Check that gradients reach the states of each stage that can be trained."""
    fields = [f for f in ("transport_penalty", "straightness_penalty") if getattr(trial, f) > 0]
    if not fields:
        return
    with _training(network, trial.precision):
        states, _ = network.tracked(torch.randn(IMAGES, *network.image))
    last = {stage: state.requires_grad for stage, state in states}
    for stage, names in enumerate(network.blocks, 1):
        blocks = [network.model.get_submodule(module_of(block)) for block in names]
        trained = any(p.requires_grad for block in blocks for p in block.parameters())
        if trained and not last.get(stage, True):
            raise CodeError(
                f"{_name(network)}: {fields[0]} does nothing, as no gradient reaches the states of "
                f"stage {stage}; use checkpoint(..., use_reentrant=False) if you use "
                "torch.utils.checkpoint"
            )


def _check_step(network: Custom, trial: TrialConfig) -> None:
    name, own = _name(network), dict(network.model.named_parameters())
    for part, parameter in own.items():
        if parameter.grad is not None and parameter.grad.layout != torch.strided:
            raise CodeError(
                f"{name}: {plain(part)} has sparse gradients, which no recipe takes; "
                "give its layer sparse=False"
            )
    complex_ones = [part for part, parameter in own.items() if parameter.is_complex()]
    fix = (
        f"; {plain(complex_ones[0])} is complex: store its real and imaginary parts, and call "
        "torch.view_as_complex in forward"
        if complex_ones
        else ""
    )
    x, y = torch.randn(IMAGES, *network.image), torch.zeros(IMAGES, dtype=torch.int64)
    with refused(f"{name} fails in a step of recipe {trial.recipe}", fix):
        optimizer = make_optimizer(network, trial)
        totals = Totals.zero(torch.device("cpu"))
        take_step(network, optimizer, x, y, trial, trial.learning_rate, totals)
        with torch.no_grad():
            network.eval()(x)  # a step may leave the bounds that a weight has
    state = network.state_dict()
    own_kinds = {key: value for key, value in state.items() if type(value) is not Tensor}
    with refused(f"{name} cannot go on from a checkpoint"):
        read = {key: _read_back(name, key, value) for key, value in own_kinds.items()}
        again = build(trial, network.image, network.classes, network.blocks)
        assert isinstance(again, Custom)
        again.load_state_dict({**state, **read})
        _check_same(network, again, x)


@torch.no_grad()
def _check_same(network: Custom, again: Custom, images: Tensor) -> None:
    """Check that a network with the weights of another one is the same network."""
    wanted, found = (each.eval()(images).double().nan_to_num() for each in (network, again))
    if float((found - wanted).norm()) <= ROUNDING * float(wanted.norm()):
        return
    here, there = (dict(each.model.named_buffers()) for each in (network, again))
    kept = network.model.state_dict().keys()
    lost = [
        plain(part)
        for part, buffer in here.items()
        if part not in kept and not (part in there and torch.equal(there[part], buffer))
    ]
    what = (
        f"{lost[0]} is a buffer with persistent=False, so no checkpoint holds it"
        if lost
        else "it keeps something that no checkpoint holds; make that a buffer, with register_buffer"
    )
    raise CodeError(
        f"{_name(network)} has other logits after it was loaded from a checkpoint: {what}"
    )


def _read_back(name: str, key: str, value: object) -> object:
    """What a checkpoint gives back of a value that is no plain tensor."""
    file = BytesIO()
    torch.save(value, file)
    file.seek(0)
    try:
        return torch.load(file, weights_only=True)
    except UnpicklingError as error:
        raise CodeError(
            f"{name}: {plain(key)} cannot be read back from a checkpoint; get_extra_state should "
            "return tensors, numbers, texts, and lists and mappings of these"
        ) from error


def _without_aux(network: Custom) -> str:
    """What to do about more logits in training, as GoogLeNet and Inception of torchvision have."""
    return "; give model.aux_logits: false" if getattr(network.model, "aux_logits", False) else ""


@contextmanager
def _training(network: Custom, precision: str) -> Iterator[None]:
    what = f"{_name(network)} fails in training in {precision}"
    bfloat16 = precision == "bfloat16"
    with (
        refused(what, _without_aux(network)),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        yield


@contextmanager
def refused(what: str, fix: str = "") -> Iterator[None]:
    """Errors of a user's code as a CodeError that says what fails, and how to avoid that."""
    try:
        yield
    except (CodeError, ProbeError):
        raise
    except Exception as error:  # whatever a model raises
        raise CodeError(f"{what}: {type(error).__name__}: {first_line(error)}{fix}") from error


def _name(network: Custom) -> str:
    return type(network.model).__name__
