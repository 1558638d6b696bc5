"""What a probe costs: memory and time beside plain forward passes of torchvision's vit_b_16.

    python -m benchmarks.probe [--batches 50] [--batch 32] [--device cpu]

Time: every batch goes through the model once plain and once probed, in turn, so that other work on
the machine slows both; the ratio is that of the sums. The first batch, from which the effective
rank is taken, is left out of the ratio and given apart. Memory: the most that live tensors take
in all batches with the probe, less the most that they take in one plain batch, in float32 states of
a batch. On a CPU this counts the storages that operations made, on CUDA it asks the allocator.
"""

import argparse
import shlex
import sys
import time
import weakref
from datetime import date
from typing import Any

import torch
import torchvision
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.rows import machine, report
from scoring.probe import TrackProbe

COLUMNS = (
    "batches",
    "images a batch",
    "device",
    "threads",
    "plain, s a batch",
    "probed, s a batch",
    "ratio",
    "first batch, ratio",
    "memory added, batch states",
    "machine",
    "versions",
)


class Alive(TorchDispatchMode):
    """Counts the bytes of storages that operations made and that are still alive.

    Views of weights and inputs are not counted.
    """

    def __init__(self, *others: torch.Tensor) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: dict[int, int] = {}
        self._others = {other.untyped_storage().data_ptr() for other in others}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage.data_ptr()
                if storage.nbytes() and key not in self._seen and key not in self._others:
                    self._seen[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, key)
        self.most = max(self.most, self.now)
        return made

    def _free(self, key: int) -> None:
        self.now -= self._seen.pop(key)


def peak(model: torch.nn.Module, batches: list[torch.Tensor], probed: bool) -> int:
    """Bytes that tensors take at most while the batches go through the model."""
    device = batches[0].device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        passes(model, batches, probed)
        return torch.cuda.max_memory_allocated(device) - before
    with Alive(*model.parameters(), *batches) as alive:
        passes(model, batches, probed)
    return alive.most


def passes(model: torch.nn.Module, batches: list[torch.Tensor], probed: bool) -> None:
    if not probed:
        for batch in batches:
            model(batch)
        return
    with TrackProbe(model):
        for batch in batches:
            model(batch)


def seconds(model: torch.nn.Module, batch: torch.Tensor) -> float:
    """Time of one forward pass."""
    if batch.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    model(batch)
    if batch.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    plain = torchvision.models.vit_b_16(weights=None).eval().to(arguments.device)
    probed = torchvision.models.vit_b_16(weights=None).eval().to(arguments.device)
    batches = [
        torch.randn(arguments.batch, 3, 224, 224, device=arguments.device)
        for _ in range(arguments.batches)
    ]
    seconds(plain, batches[0])  # warm up
    times: list[tuple[float, float]] = []
    with TrackProbe(probed):
        for batch in batches:
            times.append((seconds(plain, batch), seconds(probed, batch)))
    later = times[1:] or times
    sums = [sum(part) / len(later) for part in zip(*later, strict=True)]
    state = 4 * arguments.batch * 197 * 768
    added = peak(probed, batches, True) - peak(plain, batches[:1], False)
    row = [
        str(arguments.batches),
        str(arguments.batch),
        arguments.device,
        str(torch.get_num_threads()),
        f"{sums[0]:.3f}",
        f"{sums[1]:.3f}",
        f"{sums[1] / sums[0]:.3f}",
        f"{times[0][1] / times[0][0]:.2f}",
        f"{added / state:.2f}",
        machine(),
        f"torch {torch.__version__}, torchvision {torchvision.__version__}",
    ]
    command = shlex.join(["python", "-m", "benchmarks.probe", *sys.argv[1:]])
    report(
        [
            f"\n## Probe of vit_b_16, {date.today()}\n\n`{command}`",
            f"\n| {' | '.join(COLUMNS)} |",
            "|" + "---|" * len(COLUMNS),
            f"| {' | '.join(row)} |",
        ]
    )


if __name__ == "__main__":
    main()
