"""Networks of users that hide what they do at first, or from a single pass, for tests."""

import torch
from odd_nets import WIDTH, Block, Expert, Net
from torch import nn
from torch.nn.functional import dropout
from torch.nn.utils import parametrizations, weight_norm

# Something lies between their blocks, which shows only with other weights or images.


class Towers(Net):
    """Two chains of blocks side by side, whose blocks do nothing at first."""

    def __init__(self, classes, shape):
        super().__init__(classes, shape, blocks=4)
        for block in self.blocks:
            nn.init.zeros_(block.one.weight)
            nn.init.zeros_(block.one.bias)

    def walk(self, x):
        one, two, three, four = self.blocks
        return two(one(x)) + four(three(x))


class Between(Net):
    """A module after every block, which changes nothing at first."""

    def __init__(self, classes, shape, made):
        super().__init__(classes, shape)
        self.between = nn.ModuleList(made() for _ in self.blocks)

    def walk(self, x):
        for block, after in zip(self.blocks, self.between, strict=True):
            x = after(block(x))
        return x


class Adding(nn.Module):
    def __init__(self):
        super().__init__()
        self.adapter = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.zeros_(self.adapter.weight)

    def forward(self, x):
        return x + self.adapter(x)


class Scaling(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return x * self.scale


class Mapping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x):
        return self.layer(x)


class Clipping(nn.Module):
    def forward(self, x):
        return x.clamp(-50, 50)


class Rounding(nn.Module):
    """It changes the precision only."""

    def forward(self, x):
        return x.to(torch.bfloat16)


def between(kind):
    return lambda classes, shape: Between(classes, shape, kind)


adding, scaling, mapping = between(Adding), between(Scaling), between(Mapping)
clipping = between(Clipping)


class Exact(Block):
    def forward(self, x):
        return super().forward(x.float())


def rounding(classes, shape):
    made = Between(classes, shape, Rounding)
    made.blocks = nn.ModuleList(Exact() for _ in made.blocks)
    made.head = nn.Sequential(Exact(), made.head)
    return made


class Empty(Net):
    """Its blocks have no numbers."""

    def __init__(self, classes, shape):
        super().__init__(classes, shape, lambda: Block(0))

    def walk(self, x):
        return x + super().walk(x[:, :0]).sum()


class Fading(Net):
    """A skip connection fades in while it is trained, by a buffer."""

    def __init__(self, classes, shape):
        super().__init__(classes, shape, blocks=4)
        self.register_buffer("share", torch.zeros(()))

    def walk(self, x):
        if self.training:
            self.share += 0.1
        one, two, three, four = self.blocks
        return four(three(two(one(x)) + self.share * x))


# They take some weights, or run with some rounding, only.


class Bounded(Net):
    """One of its weights has bounds, which torch checks."""

    def __init__(self, classes, shape, kind, start):
        super().__init__(classes, shape)
        self.kind, self.share = kind, nn.Parameter(torch.full((WIDTH,), float(start)))

    def walk(self, x):
        return super().walk(x) * getattr(torch.distributions, self.kind)(self.share).mean


class Chaotic(nn.Module):
    """Its blocks make differences of rounding large."""

    class Block(nn.Module):
        def __init__(self, width=256):
            super().__init__()
            self.one = nn.Linear(width, width)
            nn.init.normal_(self.one.weight, std=3 / width**0.5)

        def forward(self, x):
            return self.one(x).tanh()

    def __init__(self, classes, shape):
        super().__init__()
        blocks = (self.Block() for _ in range(30))
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(256), *blocks)
        self.head = nn.Linear(256, classes)

    def forward(self, images):
        return self.head(self.layers(images))


# Their blocks turn states round for their attention.


class Turning(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(4), nn.MultiheadAttention(4, 2)

    def forward(self, x):
        inner = self.norm(x).transpose(0, 1)
        return x + self.attention(inner, inner, inner)[0].transpose(0, 1)


class Turned(Net):
    def __init__(self, classes, shape):
        super().__init__(classes, shape, Turning)

    def walk(self, x):
        return super().walk(x.reshape(len(x), 2, 4)).flatten(1)


# One pass in evaluation mode does not show what they do.


class Dropped(Block):
    def forward(self, x):
        return x + dropout(self.one(x), 0.3)


class Beside(Block):
    """It takes the statistics of the images beside an image, also in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH, track_running_stats=False)


def of(kind):
    return lambda classes, shape: Net(classes, shape, kind)


dropped, beside = of(Dropped), of(Beside)


class Half(Net):
    """It computes in bfloat16, where rounding is large."""

    def __init__(self, classes, shape, mixed=False):
        super().__init__(classes, shape, Expert if mixed else Block)
        self.bfloat16()

    def forward(self, images):
        return super().forward(images.bfloat16()).float()


# A checkpoint does not hold all of them.


class Counting(Net):
    """Its logits depend on how many steps it was trained."""

    def __init__(self, classes, shape, kept=False):
        super().__init__(classes, shape)
        self.register_buffer("steps", torch.zeros(()), persistent=kept)

    def forward(self, images):
        if self.training:
            self.steps += 1
        return super().forward(images) * (1 + 0.01 * self.steps)


class Remembering(Net):
    """It keeps a mean of its logits in an attribute."""

    mean = 0.0

    def forward(self, images):
        logits = super().forward(images)
        if self.training:
            self.mean = 0.9 * self.mean + logits.detach().mean(0)
        return logits - self.mean


class Constant(Net):
    """It makes the same table whenever it is built."""

    def __init__(self, classes, shape):
        super().__init__(classes, shape)
        self.register_buffer("table", torch.randn(WIDTH), persistent=False)

    def walk(self, x):
        return super().walk(x + self.table)


# Weight matrices with one row or column.


class Adapted(nn.Linear):
    """It adds a product of thin matrices (LoRA), and scales its rows."""

    def __init__(self, rank):
        super().__init__(WIDTH, WIDTH)
        self.lora_a = nn.Parameter(torch.ones(rank, WIDTH))
        self.lora_b = nn.Parameter(torch.zeros(WIDTH, rank))
        self.magnitude = nn.Parameter(torch.ones(WIDTH, 1))
        self.pos_embed = nn.Parameter(torch.ones(rank, WIDTH))


class Narrow(Net):
    def __init__(self, classes, shape):
        super().__init__(classes, shape)
        self.gate, self.wide = nn.Linear(WIDTH, 1), nn.Linear(1, WIDTH)
        self.convolution, self.single = nn.Conv1d(WIDTH, 1, 1), nn.Conv1d(1, 1, 1)
        self.recurrent, self.cell = nn.LSTM(1, 2), nn.GRUCell(1, 2)
        self.old = weight_norm(nn.Linear(WIDTH, 1))
        self.new = parametrizations.weight_norm(nn.Linear(WIDTH, 1))
        self.spectral = parametrizations.spectral_norm(nn.Linear(WIDTH, 1))
        self.rel_pos = parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 1, add_bias_kv=True)
        self.convolution.gain = nn.Parameter(torch.ones(WIDTH, 1, 1))  # as timm's ScaledStdConv2d
        self.scale = nn.Parameter(torch.ones(WIDTH, 1))
        self.thin, self.low = Adapted(1), Adapted(2)
