"""Where the time of a training epoch goes, next to its arithmetic floor.

    python -m benchmarks.profile --data FOLDER
    python -m benchmarks.profile --trial

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

``--trial`` runs whole trials of the built-in sweep ``demo`` instead, ResNets with gamma 0, without
Ray, and says where their CPU seconds go. It takes half a minute.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from typing import Any

import torch
from torch import nn
from torch.nn.functional import relu
from torch.profiler import ProfilerActivity, profile

from benchmarks.floor import floor
from benchmarks.rows import machine, report
from benchmarks.training import faster_precision
from models import training
from models.config import TrialConfig
from models.datasets import load, locate
from models.training import Split, make_optimizer, one_pass, place, standardiser, untrained
from scoring import handover
from tune_jobs import checkpoints, measuring, trial
from tune_jobs.sweep import read
from tune_jobs.tuning import Setup

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


PARTS = {  # of a trial: what each is spent in
    "steps": [(training, "one_pass")],
    "clean train images": [(training, "loss_and_accuracy")],
    "test images and line shape": [(measuring, "score"), (trial, "loss_and_accuracy")],
    "pairs of tracks": [(measuring, "apart")],
    "files": [
        (checkpoints, "write"),
        (trial, "write_history"),
        (handover, "leave_initial"),
        (handover, "leave_final"),
    ],
}


@contextmanager
def replaced(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """A module with another function of this name."""
    before = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)


def trial_parts(stages: int) -> list[str]:
    """A row: CPU seconds of a trial of the demo, and the shares of its parts."""
    wanted = {"network": "resnet", "stages": stages, "gamma": 0.0}
    config = next(t for t in read("demo").trials if wanted.items() <= t.model_dump().items())
    setup = Setup(root="", sources={"digits": locate("digits", None)})
    spent: Counter[str] = Counter()

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                spent[part] += time.thread_time() - start

        return call

    def run(epochs: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            whole = config.model_copy(update={"epochs": epochs}).model_dump()
            start = time.thread_time()
            trial.run_trial(whole, Setup(**{**vars(setup), "root": folder}))
            return time.thread_time() - start

    with ExitStack() as clocks:
        clocks.enter_context(replaced(trial.tune, "report", lambda result: None))
        run(1)  # loads and allocates what later trials of a process find
        for part, places in PARTS.items():
            for module, name in places:
                function = timed(part, getattr(module, name))
                clocks.enter_context(replaced(module, name, function))
        whole = run(config.epochs)
    shares = [f"{spent[part] / whole:.0%}" for part in PARTS]
    return [f"K = {stages}", f"{whole:.1f}", *shares, f"{1 - spent.total() / whole:.0%}"]


def main() -> None:
    """Measure, print the rows, and append them to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="folder with mnist.npz and cifar10.npz")
    parser.add_argument("--trial", action="store_true", help="whole trials of the demo instead")
    given = parser.parse_args()
    folder = given.data
    torch.set_num_threads(1)
    if given.trial:
        heads = ["trial", "CPU s", *PARTS, "rest"]
        rows = [heads, ["---"] * len(heads), trial_parts(1), trial_parts(2)]
        lines = [f"\n## Profile of a trial, {date.today()}\n"]
        lines += [f"`python -m benchmarks.profile --trial`; {machine()}, one thread\n"]
        return report([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
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
