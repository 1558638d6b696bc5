"""Training on a GPU: images per second against the ordinary loop and the arithmetic floor.

    python -m benchmarks.gpu --data FOLDER

FOLDER holds ``cifar10.npz``. For K = 1 and K = 4 on CIFAR-10, three loops take turns on the same
network: the ordinary one of ``benchmarks/training.py`` (in float32, with 0 or 2 workers, the faster
one counts), ours, and ours with its steps in a CUDA graph. No sweep has the graph yet: the row says
whether it would help. Ours has the precision that ``precision: auto`` stands for. The share is that
of our operations a second in what the network's heaviest layer reaches alone.

Then 1, 2 and 4 processes train K = 1 on the one GPU at the same time, as trials with
``resources: {gpus: 0.25}`` do: images per second of all of them together.

It takes some ten minutes and appends rows to ``benchmarks/RESULTS.md``. Without a GPU it says so
and ends. With ``--device cpu --images 128 --rounds 1`` the loops without a graph run on the CPU,
which shows only that the script works.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date

import torch
from torch import Tensor

from benchmarks.floor import floor
from benchmarks.rows import machine, report
from benchmarks.training import WORKERS, faster_precision, ours, peer, rates
from models.config import TrialConfig
from models.datasets import Dataset, load
from models.network import AnyNetwork
from models.steps import Totals, take_step, tf32
from models.training import (
    Draws,
    Split,
    Standardise,
    make_optimizer,
    place,
    rate_at,
    standardiser,
    untrained,
)

WARM = 3  # steps before a graph is captured, in which libraries choose their kernels
TOGETHER = (1, 2, 4)  # processes on one GPU
COLUMNS = ["task", "device", "precision", "ordinary, images/s", "ours, images/s", "ours / ordinary"]
COLUMNS += ["with a CUDA graph, images/s", "TFLOP/s of the heaviest layer", "our share of it"]
COLUMNS += ["machine", "versions"]


def graphed(
    network: AnyNetwork, split: Split, standardise: Standardise, config: TrialConfig
) -> Callable[[int], float]:
    """Our pass over a split with its whole batches as replays of a CUDA graph.

    The batch and the learning rate are written into the tensors that the graph reads. A last batch
    of another size is an ordinary step.

    Returns:
        A function of the epoch, which trains it and returns its mean loss.
    """
    device = split.y.device
    optimizer, totals = make_optimizer(network, config), Totals.zero(device)
    x = torch.zeros_like(split.x[: config.batch_size])
    y, rate = torch.zeros_like(split.y[: config.batch_size]), torch.zeros((), device=device)
    network.train()

    def step(images: Tensor, labels: Tensor) -> None:
        take_step(network, optimizer, standardise(images), labels, config, rate, totals)

    before = {name: value.clone() for name, value in network.state_dict().items()}
    start = {"state": {n: _copied(s) for n, s in optimizer.state_dict()["state"].items()}}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), tf32(True):
        for _ in range(WARM):
            step(x, y)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad()
    with torch.cuda.graph(graph), tf32(True):
        step(x, y)
    network.load_state_dict(before)  # as if the steps above had not been
    optimizer.load_state_dict(start)

    def one_pass(epoch: int) -> float:
        draws = Draws(config, len(split.y), epoch, device)
        steps = len(draws.batches)
        for total in totals:
            total.zero_()
        for number, batch in enumerate(draws.batches):
            rate.fill_(rate_at(config, (epoch - 1) * steps + number, steps))
            images, labels = draws.images(split.x, batch), split.y.index_select(0, batch)
            if len(labels) == len(y):
                x.copy_(images)
                y.copy_(labels)
                graph.replay()
            else:
                with tf32(True):
                    step(images, labels)
        return totals.loss.item() / sum(map(len, draws.batches))

    return one_pass


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def compared(stages: int, data: Dataset, arguments: argparse.Namespace) -> list[str]:
    """A row: the three loops on one network."""
    device, count = arguments.device, arguments.images
    kind = faster_precision(torch.device(device).type)
    config = TrialConfig(dataset="cifar10", stages=stages, precision=kind)
    contestants = {"ours": ours(config, data, count, device)}
    contestants |= {str(w): peer(config, data, count, device, w) for w in WORKERS}
    if device != "cpu":
        contestants["graph"] = _with_graph(config, data, count, device)
    seen = {
        name: statistics.median(found)
        for name, found in rates(contestants, count, 1, arguments.rounds).items()
    }
    ordinary = max(seen[str(w)] for w in WORKERS)
    least = floor(config, data, device)
    return [
        f"CIFAR-10, K = {stages}",
        torch.cuda.get_device_name(device) if device != "cpu" else device,
        kind,
        f"{ordinary:,.0f}",
        f"{seen['ours']:,.0f}",
        f"{seen['ours'] / ordinary:.2f}",
        f"{seen['graph']:,.0f}" if "graph" in seen else "",
        f"{least.rate / 1e12:.2f}",
        f"{seen['ours'] / least.images:.0%}",
        machine(),
        f"torch {torch.__version__}",
    ]


def _with_graph(
    config: TrialConfig, data: Dataset, count: int, device: str
) -> Callable[[], object]:
    split = Split(*(part[:count] for part in place(data, "train", device)))
    one_pass = graphed(untrained(config, data, device), split, standardiser(data, device), config)
    epochs = itertools.count(1)
    return lambda: one_pass(next(epochs))


def alone(data: Dataset, arguments: argparse.Namespace) -> None:
    """Train K = 1 when a line arrives."""
    kind = faster_precision(torch.device(arguments.device).type)
    config = TrialConfig(dataset="cifar10", precision=kind)
    one_pass = ours(config, data, arguments.images, arguments.device)
    one_pass()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(arguments.rounds):
        one_pass()
    print("done", flush=True)


def together(processes: int, arguments: argparse.Namespace) -> float:
    """Images per second of so many processes on one device, all of them together."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--alone", "--device", arguments.device]
    command += ["--images", str(arguments.images), "--rounds", str(arguments.rounds)]
    command += ["--data", arguments.data] if arguments.data else []
    pipe = subprocess.PIPE
    begun = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(processes)
    ]
    for one in begun:
        assert one.stdout.readline() == "ready\n"  # type: ignore[union-attr]
    start = time.perf_counter()
    for one in begun:
        one.stdin.write("go\n")  # type: ignore[union-attr]
        one.stdin.flush()  # type: ignore[union-attr]
    for one in begun:
        assert one.stdout.readline() == "done\n"  # type: ignore[union-attr]
    seconds = time.perf_counter() - start
    for one in begun:
        one.communicate()
    assert not any(one.returncode for one in begun)
    return processes * arguments.rounds * arguments.images / seconds


def main() -> None:
    """Measure, print the rows, and append them to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="folder with cifar10.npz")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=12_800, help="of a pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: this machine has no CUDA device; --device cpu tries the script")
    data = load("cifar10", arguments.data)
    if arguments.alone:
        return alone(data, arguments)
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(compared(k, data, arguments) for k in (1, 4))]
    lines = [f"\n## Training on a GPU, {date.today()}\n"]
    lines += ["`python -m benchmarks.gpu --data FOLDER`\n"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    heads = ["processes on one device", "images/s of all"]
    rows = [heads, ["---"] * 2]
    rows += [[str(n), f"{together(n, arguments):,.0f}"] for n in TOGETHER]
    lines += ["", *(f"| {' | '.join(row)} |" for row in rows)]
    if arguments.device == "cpu":
        return print(*lines, sep="\n")
    report(lines)


if __name__ == "__main__":
    main()
