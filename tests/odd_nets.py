"""Networks of users with habits that a sweep has to support or refuse, for tests."""

from pathlib import PurePosixPath

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

WIDTH = 8


class Block(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.norm, self.one = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.one(self.norm(x)).tanh()


class Net(nn.Module):
    """Blocks of one kind between a stem and a head; subclasses change how they are called."""

    def __init__(self, classes, shape, made=Block, blocks=3):
        super().__init__()
        self.stem = nn.Linear(shape[0] * shape[1] * shape[2], WIDTH)
        self.blocks = nn.ModuleList(made() for _ in range(blocks))
        self.head = nn.Linear(WIDTH, classes)

    def walk(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, images):
        return self.head(self.walk(self.stem(images.flatten(1))))


# They keep activations on self.


class Injected(Net):
    """Every block adds what the stem returned; at first with weight 0."""

    def __init__(self, classes, shape, start=0.5):
        super().__init__(classes, shape)
        self.weight = nn.Parameter(torch.full((WIDTH,), float(start)))
        for block in self.blocks:
            block.register_forward_hook(lambda _, args, out: out + self.weight * self.injected)

    def walk(self, x):
        self.injected = x
        return super().walk(x)


class Skipping(Net):
    """The head reads what the network kept before its blocks."""

    def walk(self, x):
        self.kept = x
        return super().walk(x) + self.kept


class Averaging(Net):
    """The blocks read the mean over images of the stem's output, kept in a list."""

    def __init__(self, classes, shape):
        class Reading(Block):
            def forward(self, x):
                return super().forward(x) + self.means[0]

        super().__init__(classes, shape, Reading)
        self.means = []
        for block in self.blocks:
            block.means = self.means

    def walk(self, x):
        self.means[:] = [x.mean(0)]
        return super().walk(x)


class Looking(Net):
    """It keeps an activation that nothing reads, as for a picture of it."""

    def walk(self, x):
        self.seen = x
        return super().walk(x)


class Noisy(Net):
    """It draws random numbers in evaluation mode, too."""

    def walk(self, x):
        return super().walk(x + torch.randn_like(x))


# Their depth depends on something.


class Halting(Net):
    """It stops where images are large."""

    def walk(self, x):
        for _ in range(2 if x.abs().max() > 3 else 5):
            x = self.blocks[0](x)
        return self.blocks[2](self.blocks[1](x))


class Dropping(Net):
    """Blocks are left out at random in training only (LayerDrop)."""

    def walk(self, x):
        for block in self.blocks:
            if not self.training or torch.rand(()) < 0.5:
                x = block(x)
        return x


class Few(Net):
    """It takes batches of some sizes only."""

    def __init__(self, classes, shape, refused):
        super().__init__(classes, shape)
        self.refused = refused

    def walk(self, x):
        if len(x) == self.refused:
            raise ValueError("other batches only")
        return super().walk(x)


class Expanded(Net):
    """One of its weights lies on itself."""

    def __init__(self, classes, shape):
        super().__init__(classes, shape)
        self.gain = nn.Parameter(torch.zeros(1).expand(WIDTH))

    def walk(self, x):
        return super().walk(x) * (1 + self.gain)


class Expert(Block):
    """A mixture of experts: an image takes part in the loss of one of them."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        value, which = self.gate(self.norm(x)).softmax(-1).max(-1)
        out = self.one(x)
        for k, expert in enumerate(self.experts):
            if (which == k).any():
                out = out.index_put((which == k,), value[which == k, None] * expert(x[which == k]))
        return x + out


def mixed(classes, shape):
    return Net(classes, shape, Expert)


# What gamma penalises.


class Positions(Block):
    """Its tables and tokens have the names that people give them."""

    def __init__(self):
        super().__init__()
        self.wide_norm = nn.LayerNorm([2, 4])
        self.pos_embedding = nn.Embedding(2, 4)
        self.relative_attention_bias = nn.Embedding(2, 4)
        self.positional_encoding = nn.Parameter(torch.randn(2, 4))
        self.attn = nn.Module()
        self.attn.rel_pos_h = nn.Parameter(torch.randn(2, 4))
        self.attn.height_rel = nn.Parameter(torch.randn(2, 4))
        self.attention_biases = nn.Parameter(torch.randn(2, 4))
        self.cls_token_all = nn.Parameter(torch.randn(2, 4))
        self.rel_pos_layer = nn.Linear(WIDTH, WIDTH)  # a layer, whatever it is named
        self.position_wise = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x):
        tables = [self.pos_embedding.weight, self.relative_attention_bias.weight]
        tables += [self.positional_encoding, self.attn.rel_pos_h, self.attn.height_rel]
        tables += [self.attention_biases, self.cls_token_all]
        x = x + self.wide_norm(sum(tables)).flatten()
        return super().forward(x) + self.rel_pos_layer(x) @ self.position_wise


def positions(classes, shape):
    return Net(classes, shape, Positions)


class Shared(Net):
    """All blocks share one weight, twice in each block, and the stem has it, too."""

    def __init__(self, classes, shape):
        super().__init__(classes, shape)
        shared = nn.Linear(WIDTH, WIDTH)
        self.stem = nn.Sequential(self.stem, shared)
        for block in self.blocks:
            block.shared = block.again = shared
            block.register_forward_hook(lambda block, _, out: out + 0.1 * block.shared(out))


# Only training or a checkpoint shows that they fail.


class Extra(Block):
    """It has state that no checkpoint holds, or none that can be put back."""

    given = PurePosixPath("seen")

    def get_extra_state(self):
        return self.given

    def set_extra_state(self, state):
        assert state == self.given


class Simple(Extra):
    given = {"seen": 3, "mean": torch.ones(2)[0].item()}  # noqa: RUF012


class Lost(Extra):
    given = 3

    def set_extra_state(self, state):
        raise ValueError("nothing can be put back")


class Complex(Block):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(WIDTH // 2 + 1, dtype=torch.cfloat))

    def forward(self, x):
        return super().forward(x) + torch.fft.irfft(torch.fft.rfft(x) * self.filter, n=WIDTH)


class Sparse(Block):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, WIDTH, sparse=True)

    def forward(self, x):
        return super().forward(x) + self.table(torch.zeros(len(x), dtype=torch.int64))


def of(name):
    def net(classes, shape):
        return Net(classes, shape, globals()[name])

    return net


extra, simple, lost = of("Extra"), of("Simple"), of("Lost")
complex_net, sparse = of("Complex"), of("Sparse")


class Recomputed(Net):
    """It saves memory by gradient checkpoints."""

    def __init__(self, classes, shape, reentrant=True):
        super().__init__(classes, shape)
        self.reentrant = reentrant

    def walk(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


class Frozen(Net):
    """Its blocks and what is before them are not trained."""

    def __init__(self, classes, shape):
        super().__init__(classes, shape)
        self.stem.requires_grad_(False)
        self.blocks.requires_grad_(False)


class Auxiliary(Net):
    """It returns more logits in training, as torchvision's GoogLeNet does."""

    aux_logits = True

    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


def scripted(classes, shape):
    return torch.jit.trace(Net(classes, shape).eval(), torch.zeros(2, *shape))


# Their first call matters.


class Activation(Block):
    """Its scale comes from the first states that it sees (ActNorm)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.ready = False

    def forward(self, x):
        if not self.ready:
            self.scale.data = 1 / (x.std(0) + 1e-6)
            self.ready = True
        return super().forward(x * self.scale)


class Lazy(Net):
    def __init__(self, classes, shape):
        super().__init__(classes, shape)
        self.head = nn.LazyLinear(classes)


class Late(Net):
    """It makes its head when it is called first."""

    def __init__(self, classes, shape):
        super().__init__(classes, shape)
        self.classes, self.head = classes, None

    def forward(self, images):
        if self.head is None:
            self.head = nn.Linear(WIDTH, self.classes)
        return super().forward(images)


activation = of("Activation")


def compiled(classes, shape, how="whole"):
    made = Net(classes, shape)
    if how == "whole":
        return torch.compile(made, backend="eager")
    if how == "blocks":
        made.blocks = nn.ModuleList(torch.compile(b, backend="eager") for b in made.blocks)
    else:
        made.compile(backend="eager")
    return made
