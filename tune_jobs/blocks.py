"""Which modules of an architecture are blocks, found by running it once with the probe's hooks."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from models.config import TrialConfig
from models.custom import Blocks, Custom
from models.errors import CodeError
from models.messages import plain
from models.network import build
from scoring.probing.blocks import bare, choose
from scoring.probing.errors import ProbeError
from scoring.probing.follower import Follower
from tune_jobs.labels import by_sizes
from tune_jobs.trainable import check_trainable, refused

PATTERN = "block_pattern"  # the field that names blocks
BRANCHES = "pass branches=True with their names or type"  # what only the probe can do
POINTS = 7  # random images that are sent through; few networks have so many tokens
RANDOM = 1e-4  # States that differ by more between two passes are random, below it rounded.


@dataclass(frozen=True)
class Found:
    """The stages of a network: sequences of blocks whose states have one shape.

    Attributes:
        blocks: the names of the blocks of each stage, in the order of their calls.
        shapes: of the state of a point in each stage.
        skipped: a line about each call that is no step of a stage.
        parameters: how many can be trained.
        taken: channels, height and width of the images that the network takes.
    """

    blocks: Blocks
    shapes: Sequence[tuple[int, ...]]
    skipped: Sequence[str]
    parameters: int
    taken: tuple[int, int, int]

    @property
    def dimensions(self) -> list[int]:
        """d_k of each stage."""
        return [math.prod(shape) for shape in self.shapes]

    def lines(self) -> list[str]:
        """What a dry run says."""
        said = [f"{self.parameters:,} parameters; takes images {by_sizes(self.taken)}"]
        for stage, (names, shape) in enumerate(zip(self.blocks, self.shapes, strict=True), 1):
            alone = "; a single block, so its line shape is not measurable"
            few = names if len(names) < 3 else [names[0], "...", names[-1]]
            text = f"stage {stage}: {len(names)} x {by_sizes(shape)}: {', '.join(few)}"
            said.append(text + (alone if len(names) == 1 else ""))
        return said + [f"skipped {line}" for line in self.skipped]


def check(trial: TrialConfig, image: tuple[int, int, int], classes: int) -> Found:
    """The blocks of a trial's architecture, after checking that it can be trained.

    The arguments and errors are those of :func:`find`.
    """
    found = find(trial, image, classes)
    network = _built(trial, image, classes, found.blocks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        check_trainable(network, trial)
        # Training changes more than weights: a buffer may have hidden what lies between blocks.
        _check_followed(network, found, plain(trial.architecture))
    return found


def find(trial: TrialConfig, image: tuple[int, int, int], classes: int) -> Found:
    """The blocks of a trial's architecture.

    It is built and sent a few random images, in evaluation mode. Its initial weights are changed a
    little if it takes that, as a weight of 0 or 1 may hide what it scales. The same trial has the
    same blocks in every process.

    Args:
        trial: a trial with an architecture; the file of a user's callable is loaded.
        image: channels, height and width of the images.
        classes: the number of classes.

    Raises:
        CodeError: the network cannot be built, or its blocks cannot be found or followed.
    """
    name = plain(trial.architecture)
    network = _moved(trial, image, classes)
    try:
        bare(network.model)
    except ProbeError as error:
        raise CodeError(
            f"{name}: returns {str(error).replace('probe the', 'return the')}"
        ) from error
    try:
        groups = choose(network.model, trial.block_pattern or "auto")
        named = trial.block_pattern is not None
        follower = Follower(network.model, groups, named, batch_first=True)
        follower.start()
        try:
            with torch.no_grad(), _passing(name, POINTS):
                network(_images(image))
        finally:
            follower.stop()
    except ProbeError as error:
        text = str(error).removeprefix("blocks: ").replace("blocks=", PATTERN)
        said, *more = text.replace(BRANCHES, "in a sweep a block returns the sum").splitlines()
        hint = "" if trial.block_pattern else f"; name them with {PATTERN}: REGEX"
        raise CodeError("\n".join([f"{name}: {said}{hint}", *more])) from error
    stages = follower.stages()
    found = Found(
        blocks=[tuple(stage.calls) for stage in stages],
        shapes=[stage.shape for stage in stages],
        skipped=[f"{s.call}: {s.reason}" for r in follower.recorders for s in r.skipped],
        parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
        taken=network.taken,
    )
    for stage, shape in enumerate(found.shapes, 1):
        if 0 in shape:
            raise CodeError(f"{name}: states of stage {stage} have shape {shape}: no numbers")
    known = _moved(trial, image, classes, found.blocks)
    _check_followed(known, found, name)
    _check_apart(known, name)
    return found


@torch.no_grad()
def _check_followed(network: Custom, found: Found, name: str) -> None:
    """Check that a network that knows its blocks yields their states, points first."""
    with _passing(name, POINTS):
        walk = network.eval().states(_images(network.image))
        seen = [(k, tuple(state.shape)) for k, state in walk]
    wanted = [
        (k, (POINTS, *shape))
        for k, (names, shape) in enumerate(zip(found.blocks, found.shapes, strict=True), 1)
        for _ in range(len(names) + 1)
    ]
    if seen != wanted:
        shown = ", ".join(f"stage {k} {shape}" for k, shape in seen)
        raise CodeError(
            f"{name}: its blocks do not go through one stage after another with states "
            f"({POINTS} images, ...), the images first: {shown}; name others with {PATTERN}: REGEX"
        )


@torch.no_grad()
def _check_apart(network: Custom, name: str) -> None:
    """Check that a point has the same states whatever else the network is sent.

    Scores and evaluations walk side by side, and take batches of several sizes.
    """
    network.eval()
    first, second, other = _images(network.image, 8).split([2, 3, 3])
    batches = [first, second]
    alone, again = ([_ended(network, [x], name) for x in batches] for _ in range(2))
    if not all(map(_close, again, alone, [RANDOM] * 2)):
        raise CodeError(
            f"{name}: gives other states on a second pass in evaluation mode; dropout needs "
            "training=self.training"
        )
    try:
        beside = _ended(network, batches, name)
    except Exception:  # states of one walk do not fit those of another one
        beside = []
    if all(map(_close, again, alone)) and not _close(beside, [x for a in alone for x in a]):
        raise CodeError(
            f"{name}: keeps activations on self, where several walks through the network mix them; "
            "pass them to the blocks as arguments"
        )
    here, there = (  # in batches of one size, as rounding depends on the size
        [x[:2] for x in _ended(network, [torch.cat([first, more])], name)]
        for more in (second, other)
    )
    if not _close(here, there, RANDOM):
        raise CodeError(
            f"{name}: the states of an image depend on the other images of its batch, in "
            "evaluation mode; a batch normalisation needs track_running_stats=True"
        )


def _ended(network: Custom, batches: Sequence[Tensor], name: str) -> list[Tensor]:
    """The states and logits of walks side by side, one walk after the other."""
    walks = [[] for _ in batches]
    with _passing(name, sum(map(len, batches))):
        for here in zip(*map(network.states, batches), strict=True):
            for states, (_, state) in zip(walks, here, strict=True):
                states.append(state)
    return [x for states in walks for x in [*states, network.classify(states[-1])]]


def _passing(name: str, images: int) -> AbstractContextManager[None]:
    return refused(f"{name} fails on {images} images in evaluation mode")


def _close(some: Sequence[Tensor], others: Sequence[Tensor], share: float = 0.0) -> bool:
    """Whether states differ by at most a share of their size; NaN equals NaN."""
    pairs = [
        (x.double().nan_to_num(), y.double().nan_to_num())
        for x, y in zip(some, others, strict=False)
    ]
    return len(some) == len(others) and all(
        x.shape == y.shape and float((x - y).norm()) <= share * float(y.norm()) for x, y in pairs
    )


def _built(
    trial: TrialConfig, image: tuple[int, int, int], classes: int, blocks: Blocks = ()
) -> Custom:
    network = build(trial, image, classes, blocks)
    assert isinstance(network, Custom)
    return network


def _images(image: tuple[int, int, int], count: int = POINTS) -> Tensor:
    return torch.randn(count, *image, generator=torch.Generator().manual_seed(0))


def _moved(
    trial: TrialConfig, image: tuple[int, int, int], classes: int, blocks: Blocks = ()
) -> Custom:
    """The network in evaluation mode, with other weights than its initial ones if it takes them."""
    network = _built(trial, image, classes, blocks)
    _stir(network, plain(trial.architecture))
    try:
        with torch.no_grad():
            network.eval()(_images(image))
    except Exception:  # its weights may have bounds, as probabilities that add up to 1
        network = _built(trial, image, classes, blocks)
    return network.eval()


@torch.no_grad()
def _stir(network: Custom, name: str) -> None:
    """Shrink all weights by 1 to 2%, as training may; those that are 0 get other values.

    A weight that starts at 0 hides what it scales, and one that starts at 1 hides that it scales.
    Bounds on weights, as -1 and 1, mostly allow smaller ones.
    """
    draw = torch.Generator().manual_seed(0)
    for part, weight in network.model.named_parameters():
        if not weight.requires_grad:
            continue
        with refused(f"{name}: {plain(part)} cannot be changed in place"):
            if weight.any():
                weight.mul_(0.99 - 0.01 * float(torch.rand((), generator=draw)))
            else:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=draw, dtype=weight.dtype))
