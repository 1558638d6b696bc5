"""Where the time of a training epoch goes, next to its arithmetic floor.

    python -m benchmarks.profile --data FOLDER

FOLDER holds ``mnist.npz`` and ``cifar10.npz``. For each trial, on one thread: the CPU seconds of a
pass over the train split (of a part of it, multiplied); the floor, which is its operations over the
rate of the network's heaviest layer alone (``benchmarks/floor.py``); and shares of the pass by kind
of operation, from torch's profiler. The profiler lengthens small operations, so shares of networks
with small layers are rough. ``rest`` is autograd, Python and everything else. Where the time of a
sweep's start goes is in ``python -m benchmarks.start``.

The second table says what training several trials of one shape in one process would bring: a
convolution with its gradients, and a batch normalisation with relu, for one trial, and per trial
for eight of them as groups of one convolution.

It takes a minute; rows are appended to ``benchmarks/RESULTS.md``.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from datetime import date

import torch
from torch import nn
from torch.nn.functional import relu
from torch.profiler import ProfilerActivity, profile

from benchmarks.floor import floor
from benchmarks.rows import machine, report
from benchmarks.training import faster_precision
from models.config import TrialConfig
from models.datasets import load
from models.training import Split, make_optimizer, one_pass, place, standardiser, untrained

TRIALS = {  # configuration, whether in the faster precision, images that are timed
    "digits, K = 1": (TrialConfig(dataset="digits", batch_size=64), False, 1280),
    "digits, K = 2": (TrialConfig(dataset="digits", batch_size=64, stages=2), False, 1280),
    "MNIST": (TrialConfig(dataset="mnist"), True, 2560),
    "CIFAR-10, K = 1": (TrialConfig(dataset="cifar10"), True, 1280),
}
KINDS = {  # parts of the names of operations, the first that fits
    "convolution": ("convolution", "conv2d"),
    "matrix products": ("addmm", "::mm", "linear"),
    "normalisation": ("batch_norm",),
    "optimizer": ("_fused_", "_foreach_"),
    "casts and copies": ("copy", "aten::to", "clone", "contiguous", "index"),
    "relu and sums": ("relu", "clamp", "threshold", "add", "sum", "mul", "sub", "div"),
}
PACKED, TRIES = 8, 5  # trials in one process; repetitions, of which the fastest counts


def seconds(call: Callable[[], object], tries: int = TRIES) -> float:
    """CPU seconds of a call, the least of several."""
    found = []
    for _ in range(tries):
        start = time.thread_time()
        call()
        found.append(time.thread_time() - start)
    return min(found)


def kind(operation: str) -> str:
    """The kind of an operation, by its name."""
    return next((k for k, parts in KINDS.items() if any(p in operation for p in parts)), "rest")


def profiled(name: str, folder: str | None) -> list[str]:
    """A row: the parts of an epoch."""
    config, faster, count = TRIALS[name]
    precision = faster_precision("cpu") if faster else config.precision
    config = config.model_copy(update={"precision": precision})
    data = load(config.dataset, folder)
    network = untrained(config, data)
    optimizer, standardise = make_optimizer(network, config), standardiser(data, "cpu")
    train = place(data, "train", "cpu")
    some = Split(*(part[:count] for part in train))

    def epoch() -> None:
        one_pass(network, optimizer, some, standardise, config, 1)

    scale = len(train.y) / len(some.y)
    spent, least = seconds(epoch), floor(config, data)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        start = time.thread_time()
        epoch()
        whole = 1e6 * (time.thread_time() - start)
    parts: Counter[str] = Counter()
    for operation in seen.key_averages():
        parts[kind(operation.key)] += operation.self_cpu_time_total
    named = {what: parts[what] / max(whole, parts.total()) for what in KINDS}
    shares = [f"{share:.0%}" for share in (*named.values(), 1 - sum(named.values()))]
    least_seconds = len(train.y) / least.images
    row = [name, precision, f"{spent * scale:.2f}", f"{least_seconds:.2f}"]
    return [*row, f"{least.rate / 1e9:.0f}", *shares]


def packed(channels: int, side: int) -> list[str]:
    """A row: one layer of a digits network for one trial, and per trial for several."""
    cells = [f"{channels} x {side} x {side}"]
    for count in (1, PACKED):
        width = channels * count
        layer = nn.Conv2d(width, width, 3, padding=1, bias=False, groups=count)
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        norm = nn.BatchNorm2d(width)
        shape = (64, width, side, side)
        x, gradient = (torch.randn(shape).to(memory_format=torch.channels_last) for _ in range(2))
        x.requires_grad_()
        calls = (
            lambda: layer(x).backward(gradient),  # noqa: B023
            lambda: relu(norm(x)).backward(gradient),  # noqa: B023
        )
        cells += [f"{1e6 * seconds(call, 20 * TRIES) / count:.0f}" for call in calls]
    return cells


def main() -> None:
    """Measure, print the rows, and append them to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="folder with mnist.npz and cifar10.npz")
    folder = parser.parse_args().data
    torch.set_num_threads(1)
    heads = ["trial", "precision", "epoch, CPU s", "floor, s", "GFLOP/s of the heaviest layer"]
    rows = [[*heads, *KINDS, "rest"], ["---"] * (len(heads) + len(KINDS) + 1)]
    rows += [profiled(name, folder) for name in TRIALS]
    lines = [f"\n## Profile of an epoch, {date.today()}\n"]
    lines += [f"`python -m benchmarks.profile --data FOLDER`; {machine()}, one thread\n"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    heads = ["state", "convolution, us", "normalisation and relu, us"]
    heads += [f"{head} a trial of {PACKED}" for head in heads[1:]]
    rows = [heads, ["---"] * len(heads), packed(8, 4), packed(16, 8), packed(32, 4)]
    lines += [f"\n## Several trials in one process, {date.today()}\n"]
    lines += [f"`python -m benchmarks.profile --data FOLDER`; {machine()}, one thread\n"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    report(lines)


if __name__ == "__main__":
    main()
