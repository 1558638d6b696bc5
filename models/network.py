"""Plain networks and ResNets that yield the states of their data tracks.

A block is v(x) = W2 relu(N2(W1 relu(N1(x)))) (eq. 10, with a normalisation N). A ResNet maps x to
x + v(x), a plain network to v(x): both have the same modules under the same names, but a plain
network has no identity maps.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod, sqrt
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from models.architectures import Architecture, architecture
from models.config import TrialConfig
from models.custom import Blocks, Custom, build_custom


class Block(nn.Module):
    """One segment of a track: pre-activation and two weight layers.

    With ``stride`` 2 it is the transition P_k into the next stage, where a 1 x 1 convolution
    replaces the identity (section 2.5 of the paper). A plain network does not apply that
    convolution, but keeps its weight, frozen. So both networks have the same names, and a seed
    gives both the same initial weights.
    """

    def __init__(
        self, ends: tuple[int, int], *, layers: str, batch: bool, identity: bool, stride: int = 1
    ):
        super().__init__()
        before, after = ends
        self.identity = identity
        self.norm1 = _norm(before, layers, batch)
        self.weight1 = _layer(before, after, layers, stride, bias=not batch)
        self.norm2 = _norm(after, layers, batch)
        self.weight2 = _layer(after, after, layers, 1, bias=not batch)
        self.shortcut = None
        if stride != 1:
            self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.shortcut.requires_grad_(identity)

    def forward(self, x: Tensor) -> Tensor:
        """The next state, from a state x of m points."""
        h = self.norm1(x)
        h = relu(h, inplace=h is not x)  # without a normalisation h is x, a state that was yielded
        v = self.weight2(relu(self.norm2(self.weight1(h)), inplace=True))
        if not self.identity:
            return v
        return v.add_(x if self.shortcut is None else self.shortcut(x))


class Network(nn.Module):
    """A network as in Table 1: stem, K stages of n blocks with transitions between them, head.

    Args:
        shape: the row of Table 1.
        network: ``plain`` or ``resnet``.
        normalisation: ``batch``; ``final``, which has one more before the head; or ``none``.

    Raises:
        ValueError: a state does not have the shape that the row of Table 1 gives it.
    """

    def __init__(self, shape: Architecture, network: str, normalisation: str):
        super().__init__()
        self.shape = shape
        kind = {
            "layers": shape.layers,
            "batch": normalisation != "none",
            "identity": network == "resnet",
        }
        widths = [s[0] for s in shape.shapes]
        halved = shape.layers == "convolutional" and len(widths) == 1
        pixels = shape.image[0] if shape.layers == "convolutional" else prod(shape.image)
        self.stem = _layer(pixels, widths[0], shape.layers, 2 if halved else 1, bias=True)
        self.transitions = nn.ModuleList(Block(ends, stride=2, **kind) for ends in pairwise(widths))
        self.stages = nn.ModuleList(
            nn.ModuleList(Block((w, w), **kind) for _ in range(shape.blocks)) for w in widths
        )
        # Without a last normalisation logits grow with the states, and large steps then diverge.
        final = normalisation == "final"
        self.norm = _norm(widths[-1], shape.layers, final)
        self.rectify = nn.ReLU() if final else nn.Identity()
        pooled = len(widths) > 1  # Table 1: K = 1 flattens its last state, K > 1 averages it
        self.pool = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
        self.head = nn.Linear(widths[-1] if pooled else shape.dimensions[-1], shape.classes)
        self._check()

    def states(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Walk through the network, one block at a time.

        Args:
            images: standardised images, (m, c, h, w).

        Yields:
            The stage, 1 to K, and the state x^(l) of its points, (m, *shape of the stage),
            for l = 0, ..., n; l = 0 is the stage's input. Only the latest state is kept, and
            none is changed later.
        """
        flat = self.shape.layers == "fully_connected"
        every = range(1, self.shape.blocks + 1)
        yield from self.resume(self.stem(images.flatten(1) if flat else images), 1, every)

    def resume(
        self, state: Tensor, stage: int, blocks: Sequence[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """Continue from a state inside a stage, through these blocks of it, then later stages.

        This serves networks with a block left out or two swapped: from x^(l - 1), the blocks
        l + 1, ..., n leave out block l.

        Args:
            state: a state of the stage, (m, *shape of the stage); it is not changed.
            stage: k, 1 to K.
            blocks: blocks of stage k to go through in this order, each 1 to n.

        Yields:
            As :meth:`states`, starting with the state itself.

        Raises:
            ValueError: there is no such stage or block.
        """
        stages, every = len(self.stages), range(1, self.shape.blocks + 1)
        if not 1 <= stage <= stages or any(block not in every for block in blocks):
            raise ValueError(
                f"stage {stage}, blocks {list(blocks)} of a network that has {stages} stages of "
                f"{len(every)} blocks"
            )
        for k in range(stage, stages + 1):
            if k > stage:
                state, blocks = self.transitions[k - 2](state), every
            yield k, state
            for block in blocks:
                state = self.stages[k - 1][block - 1](state)  # type: ignore[index]
                yield k, state

    def tracked(self, images: Tensor) -> tuple[list[tuple[int, Tensor]], Tensor]:
        """All states of a batch, as :meth:`states` yields them, with its logits (m, classes)."""
        states = list(self.states(images))
        return states, self.classify(states[-1][1])

    def penalised(self, name: str, parameter: Tensor, decay: str) -> bool:
        """Whether gamma penalises a parameter, by its name: see :func:`decayed`."""
        return parameter.ndim > 1 and (decay == "all" or name.startswith("stages."))

    def layout(self) -> list[tuple[tuple[int, ...], int]]:
        """The shape of a state and the number of blocks of each stage."""
        return [(shape, self.shape.blocks) for shape in self.shape.shapes]

    @torch.no_grad()
    def weight_norms(self) -> list[list[float]]:
        """|W1|_F^2 + |W2|_F^2 of each block: the right side of eq. (11), which gamma penalises.

        Returns:
            A list of n floats for each stage, >= 0, without transitions, biases and
            normalisations.
        """
        norms = [
            sum(w.weight.double().square().sum() for w in (block.weight1, block.weight2))
            for blocks in self.stages
            for block in blocks  # type: ignore[attr-defined]
        ]
        return torch.stack(norms).view(len(self.stages), -1).tolist()  # type: ignore[arg-type]

    def classify(self, state: Tensor) -> Tensor:
        """Logits (m, classes) from the last state of the last stage."""
        if state.requires_grad and _channels_last(state):
            # Flattening gives the gradient another layout, which every identity map would pass on
            # to the block before it: adding two layouts takes ten times as long as adding one.
            state.register_hook(lambda g: g.contiguous(memory_format=torch.channels_last))
        return self.head(self.pool(self.rectify(self.norm(state))).flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (m, classes) of standardised images (m, c, h, w)."""
        for _, state in self.states(images):  # noqa: B007  (the head reads the last one)
            pass
        return self.classify(state)

    @torch.no_grad()
    def _check(self) -> None:
        training = self.training
        self.eval()
        seen = [
            (k, tuple(state.shape[1:]))
            for k, state in self.states(torch.zeros(1, *self.shape.image))
        ]
        self.train(training)
        per_stage = self.shape.blocks + 1
        wanted = [(k, s) for k, s in enumerate(self.shape.shapes, 1) for _ in range(per_stage)]
        if seen != wanted:
            raise ValueError(f"states of shape {seen} where Table 1 has {wanted}")


AnyNetwork: TypeAlias = Network | Custom


def build(
    config: TrialConfig, image: tuple[int, int, int], classes: int, blocks: Blocks = ()
) -> AnyNetwork:
    """The network of a trial with its initial weights, on the CPU.

    Those of Table 1 start from He normal weights and biases 0, or as the fields ``initialisation``
    and ``initial_scale`` say. The weights depend only on these and the seed, not on the device,
    gamma or the kind of network.

    Args:
        config: the trial.
        image: channels, height and width of the images.
        classes: the number of classes.
        blocks: the names of the blocks of each stage, if the trial has an architecture.

    Raises:
        models.errors.CodeError: the architecture of the trial cannot be built.
    """
    if config.architecture is not None:
        return build_custom(config, image, classes, blocks)
    shape = architecture(config.layers, image, config.stages, classes, config.depth)
    network = Network(shape, config.network, config.normalisation)
    draw = torch.Generator().manual_seed(config.seed)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            (_he if config.initialisation == "he" else _of_torch)(module, draw)
    if config.initial_scale != 1:
        for block in network.modules():
            if isinstance(block, Block):
                for layer in (block.weight1, block.weight2):
                    layer.weight.detach().mul_(config.initial_scale)  # type: ignore[operator]
    return network


def _he(layer: nn.Linear | nn.Conv2d, draw: torch.Generator) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=draw)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _of_torch(layer: nn.Linear | nn.Conv2d, draw: torch.Generator) -> None:
    """What a layer's ``reset_parameters`` does, but with a generator."""
    nn.init.kaiming_uniform_(layer.weight, a=sqrt(5), generator=draw)
    if layer.bias is not None:
        bound = layer.weight[0].numel() ** -0.5
        nn.init.uniform_(layer.bias, -bound, bound, generator=draw)


def in_channels_last(network: AnyNetwork) -> AnyNetwork:
    """The network with the layout in memory that trains fastest: channels last for Table 1's.

    Others keep the layout that they were written for. Code of users often takes views of states,
    which fail in another one.
    """
    if isinstance(network, Network):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def decayed(network: AnyNetwork, decay: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters that gamma penalises, and the others.

    Gamma penalises the weight matrices of convolutional and linear layers, never biases or
    normalisations: those of the whole network F (``all``, eq. 17), or only those of the blocks
    of its stages (``blocks``, eq. 14).
    """
    under, free = [], []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (under if network.penalised(name, parameter, decay) else free).append(parameter)
    return under, free


def _channels_last(state: Tensor) -> bool:
    return state.ndim == 4 and state.is_contiguous(memory_format=torch.channels_last)


def _layer(before: int, after: int, layers: str, stride: int, bias: bool) -> nn.Module:
    if layers == "fully_connected":
        return nn.Linear(before, after, bias=bias)
    return nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=bias)


def _norm(width: int, layers: str, batch: bool) -> nn.Module:
    if not batch:
        return nn.Identity()
    return nn.BatchNorm1d(width) if layers == "fully_connected" else nn.BatchNorm2d(width)
