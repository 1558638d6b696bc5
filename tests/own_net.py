"""Networks of a user, for tests: residual blocks in one stage or two, and some that are refused."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width, drop):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(width), nn.Dropout(drop)
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.drop(self.two(self.one(self.norm(x)).relu()))


class Net(nn.Module):
    def __init__(self, classes, shape, width=8, blocks=(3,), drop=0.0):
        super().__init__()
        self.stem = nn.Linear(shape[0] * shape[1] * shape[2], width)
        widths = [width // 2**k for k in range(len(blocks))]
        self.parts = nn.ModuleList(
            nn.ModuleList(Block(w, drop) for _ in range(n))
            for w, n in zip(widths, blocks, strict=True)
        )
        self.between = nn.ModuleList(nn.Linear(w, w // 2) for w in widths[:-1])
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images):
        x = self.stem(images.flatten(1))
        for k, part in enumerate(self.parts):
            for block in part:
                x = block(x)
            if k < len(self.between):
                x = self.between[k](x)
        return self.head(x)


def one(classes, shape, width=8, drop=0.0):
    return Net(classes, shape, width, (3,), drop)


def two(classes, shape, width=8):
    return Net(classes, shape, width, (2, 1))


def in_place(classes, shape):
    """Its blocks overwrite what they take."""

    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(8, 8)

        def forward(self, x):
            kept = x.clone()
            return kept + self.one(x.mul_(2).relu())

    net = Net(classes, shape, 8, (3,))
    net.parts = nn.ModuleList([nn.ModuleList(Part() for _ in range(3))])
    return net


def uneven(classes, shape):
    return Net(7, shape)


def idle(classes, shape):
    net = Net(classes, shape)
    net.more = nn.Linear(3, 3)
    return net


def eager(classes):
    return nn.Linear(classes, classes)


def nothing():
    return 3


def named(classes, shape):
    """Its blocks take their state by name, after another tensor of that shape, and in a tuple."""

    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(8, 8)

        def forward(self, mixed, x):
            return (x + self.one(x * mixed),)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(64, 8), nn.Linear(8, classes)
            self.parts = nn.ModuleList(Part() for _ in range(3))

        def forward(self, images):
            x = self.stem(images.flatten(1))
            for part in self.parts:
                (x,) = part(mixed=x.detach().tanh(), x=x)
            return self.head(x)

    return Whole()


def exact(classes, shape):
    """It works in float32 only: it copies logits into a tensor of that type."""

    class Copying(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net(classes, shape)

        def forward(self, images):
            logits = self.net(images)
            return torch.zeros(logits.shape).masked_scatter(torch.tensor(True), logits)

    return Copying()


def viewing(classes, shape):
    """It takes a view of a state, which needs channels first in memory."""

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(shape[0], 4, 3, padding=1)
            self.head = nn.Linear(4 * shape[1] * shape[2], classes)

        def forward(self, x):
            return self.head(self.conv(x).view(len(x), -1))

    return Flat()


def branches(classes, shape):
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(64, 64)

        def forward(self, x):
            return self.a(x)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.head = nn.ModuleList(Part() for _ in range(3)), nn.Linear(64, classes)

        def forward(self, x):
            x = x.flatten(1)
            for part in self.parts:
                x = x + part(x)
            return self.head(x)

    return Whole()
