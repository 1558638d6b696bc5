"""Images per second of our training loop and of the usual PyTorch loop.

    python -m benchmarks.training --data FOLDER [--tasks NAME ...]

FOLDER holds ``mnist.npz`` and ``cifar10.npz``; without ``--data`` they are downloaded at first
use. The peer is the loop of Ray Tune's CIFAR tutorial: a ``DataLoader`` over PIL images with
torchvision's transforms, contiguous memory, default Adam, float32 and ``loss.item()`` at every
step. It runs with 0 and with 2 persistent workers, and the faster one counts. Both loops train the
same network from the same weights with the same batch size, device and number of threads. Ours has
the precision of the built-in sweep on that data set: float32 for digits, for the others the one
that ``precision: auto`` stands for here. They take turns, and every round reverses their order. The
ratio is the median of ours / peer over the rounds; its minimum and maximum are given too.

The share is that of our loop's operations a second in what the network's heaviest layer reaches
alone (``benchmarks/floor.py``). A pass over MNIST or CIFAR-10 takes the first images of the train
split, as many as the table says. A round passes five times over all digits. It takes about 20
minutes on two cores and appends rows to ``benchmarks/RESULTS.md``.
"""

import argparse
import itertools
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date

import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.floor import floor
from benchmarks.rows import machine, report
from models.config import TrialConfig
from models.datasets import Dataset, load
from models.memory import keep_freed
from models.network import build
from models.precision import Precision, known, timed
from models.training import PAD, Split, make_optimizer, one_pass, place, standardiser

WORKERS = (0, 2)
TASKS = {  # configuration, whether in the faster precision, images of a pass, passes per round
    "digits, convolutional": (TrialConfig(dataset="digits"), False, None, 5),
    "digits, fully connected": (
        TrialConfig(dataset="digits", layers="fully_connected"),
        False,
        None,
        5,
    ),
    "MNIST": (TrialConfig(dataset="mnist"), True, 6400, 1),
    "CIFAR-10, K = 1": (TrialConfig(dataset="cifar10"), True, 1536, 1),
    "CIFAR-10, K = 4": (TrialConfig(dataset="cifar10", stages=4), True, 256, 1),
}
COLUMNS = [
    "task",
    "images a pass",
    "device",
    "threads",
    "ours, images/s",
    "peer, images/s",
    "peer's workers",
    "ratio",
    "min-max",
    "our precision",
    "GFLOP/s of the heaviest layer",
    "our share of it",
    "rounds",
    "machine",
    "versions",
]


class Pictures(torch.utils.data.Dataset):
    """A data set as torchvision has them: a transformed PIL image and its label."""

    def __init__(self, data: Dataset, count: int, transform: Callable[[Image.Image], Tensor]):
        self.images, self.labels = data.x_train[:count], data.y_train[:count].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        return self.transform(picture), self.labels[index]


def ours(config: TrialConfig, data: Dataset, count: int, device: str) -> Callable[[], object]:
    """Our loop; each call trains the next epoch over the first ``count`` images."""
    network = build(config, data.image, data.classes).to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(network, config)
    split = Split(*(part[:count] for part in place(data, "train", device)))
    standardise = standardiser(data, device)
    epochs = itertools.count(1)
    return lambda: one_pass(network, optimizer, split, standardise, config, next(epochs))


def peer(
    config: TrialConfig, data: Dataset, count: int, device: str, workers: int
) -> Callable[[], object]:
    """The tutorial's loop; each call trains the next epoch over the same images."""
    steps = [transforms.RandomCrop(data.image[1], padding=PAD), transforms.RandomHorizontalFlip()]
    steps = steps if config.augment else []
    mean, std = ([value / 255 for value in part] for part in (data.mean, data.std))
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])
    loader = DataLoader(
        Pictures(data, count, transform),
        batch_size=config.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    network = build(config, data.image, data.classes).to(device)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)

    def one_pass() -> float:
        running_loss = 0.0
        network.train()
        for inputs, labels in loader:
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(network(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        return running_loss

    return one_pass


def rates(
    contestants: dict[str, Callable[[], object]], images: int, passes: int, rounds: int
) -> dict[str, list[float]]:
    """Images per second of each contestant in each round, after one warm-up round.

    Every pass ends with an ``.item()``, so no CUDA work is still running when the clock stops.
    """
    seen: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name in list(contestants)[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            for _ in range(passes):
                contestants[name]()
            seen[name].append(images * passes / (time.perf_counter() - start))
    return {name: counted[1:] for name, counted in seen.items()}


def measure(task: str, data: Dataset, threads: int, arguments: argparse.Namespace) -> list[str]:
    """One row of the table."""
    plain, faster, some, passes = TASKS[task]
    device, rounds = arguments.device, arguments.rounds
    kind = faster_precision(torch.device(device).type) if faster else plain.precision
    config = plain.model_copy(update={"precision": kind})
    torch.set_num_threads(threads)
    count = len(data.y_train) if some is None else some
    contestants = {"ours": ours(config, data, count, device)}
    contestants |= {str(w): peer(config, data, count, device, w) for w in WORKERS}
    seen = rates(contestants, count, passes, rounds)
    mine = seen.pop("ours")
    workers = max(seen, key=lambda name: statistics.median(seen[name]))
    ratios = [a / b for a, b in zip(mine, seen[workers], strict=True)]
    least = floor(config, data, device)
    return [
        task,
        f"{count:,}",
        torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        str(threads),
        f"{statistics.median(mine):,.0f}",
        f"{statistics.median(seen[workers]):,.0f}",
        workers,
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}-{max(ratios):.2f}",
        config.precision,
        f"{least.rate / 1e9:,.0f}",
        f"{statistics.median(mine) / least.images:.0%}",
        str(rounds),
        machine(),
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}",
    ]


def faster_precision(device: str) -> Precision:
    """What ``precision: auto`` stands for on this machine."""
    return known(device) or timed(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="folder with mnist.npz and cifar10.npz")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS], metavar="NAME")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed()  # as trials do; the peer, in the same process, gains as well

    data = {task: load(TASKS[task][0].dataset, arguments.data) for task in arguments.tasks}
    given = ["FOLDER" if part == arguments.data else part for part in sys.argv[1:]]
    command = shlex.join(["python", "-m", "benchmarks.training", *given])
    head = f"\n## Training loop, {date.today()}\n\n`{command}`"
    table = ["", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    report([head, *table])
    for threads, task in itertools.product(arguments.threads, arguments.tasks):
        report([f"| {' | '.join(measure(task, data[task], threads, arguments))} |"])


if __name__ == "__main__":
    main()
